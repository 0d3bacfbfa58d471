"""Outputs whose length only a run can tell: computed at their largest, and cut afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorc.errors import ArgumentError
from tensorc.ir import dims
from tensorc.ir.graph import Location, postorder
from tensorc.ir.node import Node, symbols_of
from tensorc.ops.late import is_late

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Cut:
    """Output number `output` ends along an axis where output number `length` says."""

    output: int
    length: int
    axis: int


def without_cuts(function: str, outputs: Sequence[Node], updates: Sequence[tuple[Node, Node]],
                 provenance: Mapping[Node, tuple[Location, ...]]) -> tuple[list[Node], list[Cut]]:
    """The outputs uncut, and behind them the lengths that the cuts need.

    Raises: ArgumentError where anything is computed from such an output, or from its size.
    """
    whole, lengths, cuts = list(outputs), list[Node](), list[Cut]()
    for i, node in enumerate(outputs):
        if node.op.name == "cut" and any(map(is_late, dims.symbols(node.size))):
            whole[i], length = node.args
            if length not in lengths:
                lengths.append(length)
            cuts.append(Cut(i, len(outputs) + lengths.index(length), node.axis))

    rest = postorder([*whole, *lengths, *(new for _, new in updates)])
    for node in rest:
        if any(map(is_late, symbols_of(node))):
            user = next((n for n in rest if node in n.args), node)
            raise ArgumentError(_complaint(function, [node, user], provenance))
    return [*whole, *lengths], cuts


def shorten(results: list[Array], cuts: Sequence[Cut]) -> None:
    """Cuts results where they end."""
    for cut in cuts:
        x = results[cut.output]
        place = (*[slice(None)] * cut.axis, slice(int(results[cut.length])))
        results[cut.output] = np.ascontiguousarray(x[place])


def _complaint(function: str, nodes: Sequence[Node], provenance: Mapping[Node, tuple[Location, ...]]) -> str:
    """What cannot be computed, with the lines of the result and of what was to be computed from it."""
    lines = dict.fromkeys(f"\n  {line.call} at {line}" for node in nodes for line in provenance.get(node, ()))
    return (f"{function}: the length of a result is known only when it is computed; it can be an output, but nothing "
            f"can be computed from it" + "".join(lines) +
            "\n  compute further in NumPy, or feed the result to another function")
