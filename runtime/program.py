"""Compiled programs: a graph taken all the way to machine code, shared by all functions that compute the same."""

from __future__ import annotations

import ctypes
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tensorc.codegen.assemble import Assembly, assemble
from tensorc.codegen.cpu.compile import assembly as machine_text
from tensorc.codegen.cpu.compile import compile_text
from tensorc.codegen.cpu.program import load_image
from tensorc.codegen.cpu.target import Target
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph, replace_nodes
from tensorc.ir.node import OPS, make
from tensorc.ir.text import dump
from tensorc.passes.context import Context
from tensorc.passes.manager import Pipeline
from tensorc.runtime import threads
from tensorc.runtime.memory import result
from tensorc.runtime.variable import aligned_empty

log = logging.getLogger("tensorc")

Array = np.ndarray[Any, Any]


class Program:
    """Machine code for one graph.

    Attributes:
        graph: the closed graph it was made of.
        planned: the same after all passes, with its plan.
        sizes: the size symbols it takes, in order of appearance in the parameters.
        times: seconds spent in `passes`, `assemble`, `compile`, `load`.
    """

    def __init__(self, graph: Graph, pipeline: Pipeline) -> None:
        self.graph = graph
        self.sizes = size_symbols(graph)
        self.times: dict[str, float] = {}
        self.planned = self._timed("passes", lambda: pipeline.run(graph, Context()))
        self.assembly: Assembly = self._timed("assemble", lambda: assemble(self.planned, Target.host()))
        image = self._timed("compile", lambda: compile_text(self.assembly.text, Target.host())).image
        self._native = self._timed("load", lambda: load_image(image, threads.symbols()))
        assert self.planned.plan is not None
        self._constants = [np.ascontiguousarray(c.value) for c in self.planned.plan.constants]
        self._outputs = [(_shape_of(o.shape), o.dtype.numpy) for o in self.planned.outputs]
        self._order = [self.sizes.index(s) for s in self.assembly.spec.sizes]
        self._arena = aligned_empty((0,), np.dtype(np.uint8))
        self._lock = threading.Lock()

    def _timed(self, stage: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        done = work()
        self.times[stage] = time.perf_counter() - start
        return done

    def run(self, params: Sequence[Array], sizes: Sequence[int]) -> list[Array]:
        """One run: parameters are C-contiguous arrays of the graph's dtypes and of shapes that `sizes` give.

        Variables among them are updated in place.
        """
        known = dict(zip(self.sizes, sizes, strict=True))
        outputs = [result(shape(known), dtype) for shape, dtype in self._outputs]
        pointers = [a.ctypes.data for a in (*params, *self._constants, *outputs)]
        externals = (ctypes.c_void_p * max(1, len(pointers)))(*pointers)
        values = (ctypes.c_int64 * max(1, len(sizes)))(*(sizes[i] for i in self._order))
        with self._lock:
            needed = self._native.arena_bytes(values)
            if needed > self._arena.nbytes:
                self._arena = aligned_empty((needed,), np.dtype(np.uint8))
            self._native.run(externals, values, self._arena.ctypes.data)
        return outputs

    def llvm(self) -> str:
        """The LLVM IR as generated."""
        return self.assembly.text

    def asm(self) -> str:
        """The machine code as assembly text."""
        return machine_text(self.assembly.text, Target.host())


def size_symbols(graph: Graph) -> tuple[str, ...]:
    """The size symbols of a graph's parameters in order of appearance."""
    return tuple(dict.fromkeys(s for p in graph.params for size in p.shape for s in sorted(dims.symbols(size))))


def canonical(graph: Graph) -> str:
    """The graph's text with names of parameters and sizes numbered: equal for graphs that compute the same."""
    sizes: dict[str, Size] = {s: dims.symbol(f"s{i}") for i, s in enumerate(size_symbols(graph))}
    params = {p: make(OPS["parameter"], name=f"p{i}", role=p.role, uid=0,
                      type=p.type.with_shape([dims.substitute(s, sizes) for s in p.shape]))
              for i, p in enumerate(graph.params)}
    roots = replace_nodes(graph.roots, params, sizes)
    renamed = replace(graph, name="g", params=tuple(params.values()),
                      updates=tuple((params[v], new) for v, new in graph.updates)).with_roots(roots)
    return dump(renamed, lines=False)


_programs: weakref.WeakValueDictionary[tuple[str, Pipeline], Program] = weakref.WeakValueDictionary()
_recent: deque[Program] = deque(maxlen=64)
_compiling = threading.Lock()


def program(graph: Graph, pipeline: Pipeline) -> Program:
    """The program of a graph: one that exists already in this process, or newly compiled."""
    key = canonical(graph), pipeline
    with _compiling:
        found = _programs.get(key)
        if found is None:
            found = _programs[key] = Program(graph, pipeline)
            log.info("compiled %s in %.0f ms", graph.name, 1e3 * sum(found.times.values()))
        _recent.append(found)
        return found


def forget_programs() -> None:
    """Drops the programs that no function holds."""
    _recent.clear()


def _shape_of(shape: Sequence[Size]) -> Callable[[dict[str, int]], tuple[int, ...]]:
    """How to find a shape once sizes are known."""
    if all(isinstance(s, int) for s in shape):
        fixed = tuple(s for s in shape if isinstance(s, int))
        return lambda known: fixed
    return lambda known: tuple(s if isinstance(s, int) else dims.evaluate(s, known) for s in shape)
