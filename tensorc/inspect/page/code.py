"""The kernels of a function as plain data: which nodes each computes, its loops, and the code that came of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tensorc.codegen.cpu.marks import Listing
from tensorc.inspect.kernels import Kernel, Kernels
from tensorc.inspect.page.graphs import Tables

Data = dict[str, Any]

FORMS = ("written", "optimised", "machine")
"""Of a function: its LLVM IR as the code generator writes it and as LLVM leaves it, and its assembly."""

_CALL = re.compile(r"\bcall\b[^@]*@([\w.$]+)")


def kernels_data(kernels: Kernels, tables: Tables) -> list[Data]:
    """The kernels in the order they run; each names the functions to show of it in each form, its own ones first."""
    calls = {form: {name: _called(listing) for name, listing in kernels.listings[form].items()}
             for form in FORMS[:2]}
    calls["machine"] = calls["optimised"]
    return [_kernel(kernel, kernels, calls, tables) for kernel in kernels.all]


def functions_data(kernels: Kernels, names: Iterable[str]) -> Iterator[tuple[str, Data]]:
    """The code of functions: for each form its text, and the line of the kernel's text that each line comes from."""
    for name in names:
        yield name, {form: {"text": "\n".join(code for code, _ in listing), "from": [source for _, source in listing]}
                     for form in FORMS if (listing := kernels.listings[form].get(name))}


def _kernel(kernel: Kernel, kernels: Kernels, calls: Mapping[str, Mapping[str, list[str]]], tables: Tables) -> Data:
    return {
        "name": kernel.name,
        "kind": kernel.group.kind,
        "nodes": tables.numbers(kernel.group.nodes),
        "inputs": tables.numbers(kernel.group.inputs),
        "outputs": tables.numbers(kernel.group.outputs),
        "parts": [{
            "name": part.name,
            "loops": str(part).rstrip("\n"),
            "functions": {form: _reached(kernels.functions[part.name], calls[form]) for form in FORMS},
        } for part in kernel.loops],
    }


def _reached(names: Iterable[str], calls: Mapping[str, list[str]]) -> list[str]:
    """Functions and those that they call, callers first."""
    found: dict[str, None] = {}
    stack = [*names][::-1]
    while stack:
        name = stack.pop()
        if name in calls and name not in found:
            found[name] = None
            stack += calls[name][::-1]
    return list(found)


def _called(listing: Listing) -> list[str]:
    return list(dict.fromkeys(m[1] for code, _ in listing if (m := _CALL.search(code))))
