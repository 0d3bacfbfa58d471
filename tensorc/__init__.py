"""tensorc: a tensor-expression compiler behind the classic Keras-2 backend API."""

from contextlib import AbstractContextManager as _Manager
from pathlib import Path as _Path
from typing import Any as _Any

# passes/, codegen/ and runtime/ stand beside this folder in the repository and
# inside it in an installed wheel.  In a checkout, let the import system look there.
_here = _Path(__file__).resolve().parent
if not (_here / "passes").is_dir() and (_here.parent / "passes" / "__init__.py").is_file():
    __path__.append(str(_here.parent))

__version__ = "0.1.0"
__all__ = ["__version__", "device", "why_no_gradient"]


def device(name: str) -> _Manager[None]:
    """Functions that are made inside `with tensorc.device(name)` run there: on the `cpu`, or on `cuda`.

    Raises: ArgumentError for another name; DeviceError for a GPU, on which this version runs nothing yet.
    """
    from tensorc.backend.functions import device as chosen
    return chosen(name)


def why_no_gradient(loss: _Any, variable: _Any) -> str:
    """Why `K.gradients(loss, [variable])` gives None: the operations that cut the path, with the user's lines."""
    from tensorc.backend.differentiation import why_no_gradient as why
    return why(loss, variable)
