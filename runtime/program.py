"""Compiled programs: a graph taken all the way to machine code, shared by all functions that compute the same."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from tensorc import settings
from tensorc.codegen.cpu.compile import assembly as machine_text
from tensorc.codegen.cpu.compile import compile_text
from tensorc.codegen.cpu.program import load_image
from tensorc.codegen.cpu.target import Target
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph, all_nodes, replace_nodes
from tensorc.ir.node import OPS, make
from tensorc.ir.text import dump
from tensorc.runtime import identity, store, threads
from tensorc.runtime.debug import PassLog, tell_program, tell_shared
from tensorc.runtime.memory import Arena
from tensorc.runtime.ready import prepare

if TYPE_CHECKING:
    from tensorc.codegen.cpu.assemble import Assembly
    from tensorc.passes.manager import Pipeline

log = logging.getLogger("tensorc")

ARENAS = 4
"""How many arenas a program keeps for as many callers at a time."""


class Program:
    """Machine code for one graph, from the store or newly compiled.

    Args:
        text: the graph's canonical text.
        pipeline: its passes; None for the default ones.

    Attributes:
        graph: the closed graph it was made of.
        sizes: the size symbols it takes, in order of appearance in the parameters.
        order: for each entry of the native code's table of sizes, the symbol's place in `sizes`.
        kernels: how many there are.
        native: its code in memory.
        constants: the arrays that follow the parameters in the table of externals.
        kept: bytes of each buffer that is to be kept from call to call; these follow the outputs.
        counted: the variables, as numbers of parameters, whose numbers of changes come last.
        is_kept: whether it is in the store for other processes.
        passes_told: a line for each pass, where TENSORC_DEBUG asks for them and they have been run.
        times: seconds spent in those of `passes`, `assemble`, `compile`, `load` that were needed.
    """

    device = "cpu"

    @classmethod
    def asked(cls) -> Hashable:
        """What of the settings its code depends on: programs are shared where that is equal."""
        return None

    def __init__(self, graph: Graph, text: str, pipeline: Pipeline | None) -> None:
        self._set(graph, pipeline)
        prepare()
        key = identity.of_program(graph, text, pipeline)
        entry = store.fetch(key, self._compile)
        self.is_kept = key is not None and store.shared() is not None
        self._take(entry)
        with self._timed("load"):
            self.native = load_image(entry.image, threads.symbols())

    def _set(self, graph: Graph, pipeline: Pipeline | None) -> None:
        """What it is made of."""
        self.graph = graph
        self.sizes = size_symbols(graph)
        self.times: dict[str, float] = {}
        self.is_kept = False
        self.passes_told: list[str] = []
        self._pipeline = pipeline
        self._arenas: list[Arena] = []

    @property
    def compiled(self) -> bool:
        """Whether its code was made in this process."""
        return "compile" in self.times

    @functools.cached_property
    def planned(self) -> Graph:
        """The graph after all passes, with its plan."""
        from tensorc.passes.context import Context
        from tensorc.passes.pipeline import default

        context = Context(self.device)
        told = PassLog(context) if settings.debug() >= 2 else None
        with self._timed("passes"):
            planned = (self._pipeline or default()).run(self.graph, context)
        self.passes_told = told.lines if told else []
        return planned

    @functools.cached_property
    def assembly(self) -> Assembly:
        """The kernels, the launches and the LLVM IR of both."""
        from tensorc.codegen.cpu.assemble import assemble

        planned = self.planned
        with self._timed("assemble"):
            return assemble(planned, Target.host())

    def _compile(self) -> store.Entry:
        """All it takes to run the graph."""
        text = self.assembly.text
        with self._timed("compile"):
            image = compile_text(text, Target.host()).image
        return self._entry(image)

    def _entry(self, image: bytes) -> store.Entry:
        """An image of the assembly, and what must be known to run it."""
        assert self.planned.plan is not None
        spec = self.assembly.spec
        order = [self.sizes.index(s) for s in spec.sizes]
        facts = {"order": order, "kernels": len(self.assembly.loops), "kept": spec.keep.kept if spec.keep else (),
                 "counted": spec.counted}
        return store.Entry(image, facts, tuple(np.ascontiguousarray(c.value) for c in self.planned.plan.constants))

    def _take(self, entry: store.Entry) -> None:
        """What an entry says of the table of externals and of that of sizes."""
        self.order: Sequence[int] = entry.facts["order"]
        self.kernels: int = entry.facts["kernels"]
        self.kept: Sequence[int] = entry.facts["kept"]
        self.counted: Sequence[int] = entry.facts["counted"]
        self.constants = entry.arrays

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.times[stage] = time.perf_counter() - start

    def lend(self, size: int) -> Arena:
        """Scratch memory for one run, of at least `size` bytes; each of several callers gets its own."""
        try:
            arena = self._arenas.pop()
        except IndexError:
            return Arena(size)
        return arena if arena.size >= size else Arena(size)

    def take_back(self, arena: Arena) -> None:
        """Keeps the memory for a later run."""
        if len(self._arenas) < ARENAS:
            self._arenas.append(arena)

    def loops(self) -> str:
        """The kernels as text."""
        return str(self.assembly.loops)

    def texts(self) -> Iterator[str]:
        """What is made of the kernels, stage by stage."""
        yield self.llvm()
        yield self.asm()

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
    """The graph's text with names of parameters and sizes numbered, and what its users' operations are.

    Equal for graphs that compute the same.
    """
    sizes: dict[str, Size] = {s: dims.symbol(f"s{i}") for i, s in enumerate(size_symbols(graph))}
    params = {p: make(OPS["parameter"], name=f"p{i}", role=p.role, uid=0,
                      type=p.type.with_shape([dims.substitute(s, sizes) for s in p.shape]))
              for i, p in enumerate(graph.params)}
    roots = replace_nodes(graph.roots, params, sizes)
    renamed = replace(graph, name="g", params=tuple(params.values()),
                      updates=tuple((params[v], new) for v, new in graph.updates)).with_roots(roots)
    users = dict.fromkeys((n.op.name, identity.digest_of(n) or str(id(n.op)))
                          for n in all_nodes(renamed) if n.op.digest is not None)
    return dump(renamed, lines=False) + "".join(f"# {name} {digest}\n" for name, digest in users)


_programs: weakref.WeakValueDictionary[tuple[str, str | Pipeline | None, type[Program], Hashable], Program] = (
    weakref.WeakValueDictionary())
_recent: deque[Program] = deque(maxlen=64)
_compiling = threading.Lock()


Kind = TypeVar("Kind", bound=Program)


def program(graph: Graph, pipeline: Pipeline | None = None) -> Program:
    """The program of a graph for the CPU: one that is in this process already, or in the store, or newly compiled.

    Args:
        pipeline: its passes; None for the default ones.
    """
    return program_of(Program, graph, pipeline)


def program_of(kind: type[Kind], graph: Graph, pipeline: Pipeline | None) -> Kind:
    """The same for what programs of this kind run on."""
    text = canonical(graph)
    key = text, identity.of_passes(pipeline) or pipeline, kind, kind.asked()
    with _compiling:
        found = _programs.get(key)
        if found is None:
            found = _programs[key] = kind(graph, text, pipeline)
            how = "compiled" if found.compiled else "loaded"
            log.info("%s %s in %.0f ms", how, graph.name, 1e3 * sum(found.times.values()))
            tell_program(found, how if found.compiled else "loaded from the store")
        elif found.graph is not graph:
            tell_shared(graph, found)
        assert isinstance(found, kind)
        _recent.append(found)
        return found


def forget_programs() -> None:
    """Drops the programs that no function holds."""
    _recent.clear()
