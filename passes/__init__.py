"""Graph to graph: rewrites, fusion, layout, buffers.

What authors of passes need can be imported from here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if __name__ != "tensorc.passes":
    raise ImportError(f"import this package as tensorc.passes, not {__name__}")

if TYPE_CHECKING:
    from tensorc.passes.choice import register, using
    from tensorc.passes.context import Context
    from tensorc.passes.manager import Pipeline, Step, graph_pass
    from tensorc.passes.rewrite import No, Rewrite

__all__ = ["Context", "No", "Pipeline", "Rewrite", "Step", "graph_pass", "register", "using"]

_HOMES = {"Context": "context", "No": "rewrite", "Pipeline": "manager", "Rewrite": "rewrite", "Step": "manager",
          "graph_pass": "manager", "register": "choice", "using": "choice"}


def __getattr__(name: str) -> Any:
    """Imports what is asked for: a process that finds its programs on disk asks for nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"tensorc.passes.{_HOMES[name]}"), name)
