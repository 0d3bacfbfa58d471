"""Graphs run on given values, or on values that are made up, and compared with their references."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tensorc import settings
from tensorc.errors import ArgumentError
from tensorc.ir import dims
from tensorc.ir.closing import Closed
from tensorc.ir.graph import Graph, all_nodes
from tensorc.ir.node import Node
from tensorc.ir.types import bf16, numpy_kind
from tensorc.ops.interpret import bind
from tensorc.passes.choice import chosen
from tensorc.runtime import verdict
from tensorc.runtime.effects import Effects
from tensorc.runtime.program import program, size_symbols
from tensorc.runtime.random import Stream
from tensorc.runtime.variable import Cell
from tensorc.runtime.watched import Apart, Kept

Array = np.ndarray[Any, Any]


def call_of(graph: Graph, values: Mapping[str, Array]) -> Apart:
    """A call of a graph.

    Args:
        values: an array for the name of each parameter; of a random stream its key, [seed, step].

    Raises: ArgumentError for a parameter without a value; ShapeError for shapes that do not fit.
    """
    missing = [p.name for p in graph.params if p.name not in values]
    if missing:
        raise ArgumentError(f"{graph.name}: no value is given for {', '.join(missing)}")

    closed = Closed(graph, graph.params, {s: dims.symbol(s) for s in size_symbols(graph)}, (), ())
    arrays = {p: _array(values[p.name], p) for p in graph.params}
    sizes = bind({p.name: (p.type, array.shape) for p, array in arrays.items()})
    graph.resized(sizes)                            # its shape rules refuse what these sizes do not reach
    kept = [_kept(p, array) for p, array in arrays.items()]
    return Apart(closed, [], sizes, kept, Effects(graph.name, graph, len(graph.outputs), silent=True))


def _array(value: Array, param: Node) -> Array:
    """A value in the dtype of a parameter; NumPy's files hold bfloat16 as bytes that it does not know."""
    dtype = param.dtype.numpy
    if param.dtype is bf16 and value.dtype == np.dtype("V2"):
        value = value.view(dtype)
    return np.asarray(value, dtype, order="C")


def made_up(graph: Graph, sizes: Mapping[str, int]) -> dict[str, Array]:
    """Values for the parameters of a graph: floats of a normal distribution, integers and bools of 0 and 1.

    They are the same for the same graph and sizes.

    Raises: ArgumentError for a size that is not given, or given and not there; where the graph reads sparse matrices.
    """
    symbols = size_symbols(graph)
    for name in sizes:
        if name not in symbols:
            raise ArgumentError(f"{graph.name} has no size {name}; it has {', '.join(symbols) or 'none'}")
    for name in symbols:
        if name not in sizes:
            raise ArgumentError(f"{graph.name}: the size {name} is not given")
    if _is_sparse(graph):
        raise ArgumentError(f"{graph.name} reads a sparse matrix, whose values cannot be made up")

    return {p.name: _made_up(p, sizes) for p in graph.params}


def replay(graph: Graph, values: Path, sizes: Mapping[str, int], passes: Any = None) -> int:
    """Compiles a graph, runs it, and prints how its results compare with those of the references in NumPy.

    Args:
        values: a file of NumPy's with an array for the name of each parameter; where it is missing they are made up.
        sizes: those for which they are.
        passes: as `K.function` takes them; None for the compiler's own.

    Returns: 0 where all results are the same within roundings, else 1.
    Raises: what compiling and running raise; CheckError where TENSORC_CHECK=1 asks for a check.
    """
    pipeline = chosen(passes)
    given: dict[str, Array] = {}
    if values.exists():
        with np.load(values) as file:
            given = dict(file)
    apart = call_of(graph, given or made_up(graph, sizes))

    run = apart.checked(pipeline) if settings.check() else apart.on(program(graph, pipeline))
    results = run()
    found = {f"output {i}": x for i, x in enumerate(results)} | {v.name: apart.now[v.name] for v, _ in graph.updates}

    at = "".join(f"{name} = {n}, " for name, n in apart.sizes.items())
    print(f"{graph.name}: {at}{values.name if given else 'values that are made up'}")
    same = True
    for (name, x), wrong in zip(found.items(), _differences(graph, apart, list(found.values())), strict=True):
        shape = "×".join(map(str, x.shape)) or "a number"
        print(f"  {name} ({x.dtype}, {shape}): {wrong or 'as the reference'}")
        same = same and wrong is None
    return 0 if same else 1


def _differences(graph: Graph, apart: Apart, found: list[Array]) -> Iterator[str | None]:
    """How each result differs from the reference; None where it does not.

    Where the formula as it was written has no finite value and the result has one, the passes have stabilised it.
    """
    given = {p: apart.values[p.name] for p in graph.params}
    wanted = verdict.evaluate(graph.nodes, given, apart.sizes)
    others = [verdict.evaluate(graph.nodes, given, apart.sizes, nudge) for nudge in verdict.nudges()]
    for node, x in zip(graph.roots, found, strict=True):
        y = wanted[node]
        fine = verdict.within(x, y, verdict.allowed(y, [each[node] for each in others]))
        if numpy_kind(y.dtype) == "f":
            fine |= np.isfinite(x) & ~np.isfinite(y)
        yield None if fine.all() else verdict.difference(x, y, ~fine)


def _made_up(param: Node, sizes: Mapping[str, int]) -> Array:
    rng = np.random.default_rng(zlib.crc32(param.name.encode()))
    shape = tuple(dims.evaluate(size, sizes) for size in param.shape)
    if param.role == "key":
        return np.array([1, 0], np.int64)
    if param.dtype.is_float:
        return rng.normal(size=shape).astype(param.dtype.numpy)
    return rng.integers(0, 2, size=shape).astype(param.dtype.numpy)


def _is_sparse(graph: Graph) -> bool:
    return any(n.op.name.startswith("csr_") for n in all_nodes(graph))


def _kept(param: Node, array: Array) -> Kept:
    if param.role == "variable":
        return Cell(array, param.name)
    if param.role != "key":
        return array
    return Stream(*map(int, array))
