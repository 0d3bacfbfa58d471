"""A function's program once more, with its steps watched, and calls of it that leave no trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorc.codegen.cpu.compile import compile_text
from tensorc.codegen.cpu.program import load_image
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.cpu.watch import Watch
from tensorc.ir.closing import Closed
from tensorc.ir.graph import Graph
from tensorc.ops.interpret import bind
from tensorc.passes.manager import Pipeline
from tensorc.runtime import threads
from tensorc.runtime.binding import Binding
from tensorc.runtime.bound import Kept, bound, checked
from tensorc.runtime.effects import Effects
from tensorc.runtime.program import Program, size_symbols
from tensorc.runtime.random import Stream
from tensorc.runtime.variable import Cell

if TYPE_CHECKING:
    from tensorc.runtime.cuda.binding import CudaBinding

Array = np.ndarray[Any, Any]


class Watched(Program):
    """A program whose steps are watched: of one function's own graph, with its names and lines, and never stored.

    Args:
        watch: what watches it, which knows its sites then.
        imports: addresses of the functions to be called, where the watch has no clock.
    """

    def __init__(self, graph: Graph, pipeline: Pipeline | None, watch: Watch,
                 imports: Mapping[str, int] | None = None) -> None:
        self._set(graph, pipeline)
        text = self.assembly.watched(watch)
        with self._timed("compile"):
            image = compile_text(text, Target.host()).image
        self._take(self._entry(image))
        self.native = load_image(image, {**threads.symbols(), **(imports or {})}, watch.exports)
        self.watch = watch


class Apart:
    """A call apart from all others, on copies of variables and random streams.

    Args:
        arrays: the inputs, of shapes that `sizes` give to the user's symbols.
        kept: what the function keeps, copied here.
        effects: what a run does besides.
        device: what it runs on.

    Attributes:
        values: of each parameter by name, the value before the call; of a stream its key.
        sizes: what the graph's symbols stand for.
    """

    def __init__(self, closed: Closed, arrays: Sequence[Array], sizes: Mapping[str, int], kept: Sequence[Kept],
                 effects: Effects, device: str = "cpu") -> None:
        self.graph, self.device = closed.graph, device
        self._closed, self._arrays, self._users, self._effects = closed, list(arrays), dict(sizes), effects
        self._kept = [_copy(each) for each in kept]
        self._bindings: list[CudaBinding] = []
        now = [*map(np.asarray, arrays), *map(value_of, self._kept)]
        self.values = {p.name: value for p, value in zip(self.graph.params, now, strict=True)}
        types = {p.name: (p.type, self.values[p.name].shape) for p in self.graph.params}
        self.sizes = {name: n for name, n in bind(types).items() if name in size_symbols(self.graph)}

    @property
    def now(self) -> dict[str, Array]:
        """Of each parameter that is kept, by name, the value that the next run finds."""
        params = self.graph.params[len(self._arrays):]
        return {p.name: value_of(each) for p, each in zip(params, self._kept, strict=True)}

    def on(self, program: Program) -> Callable[[], list[Array]]:
        """What runs the call on a program of its graph, from the state that it finds.  It raises what a call raises."""
        return self.by(lambda *call: Binding(program, *call))

    def by(self, make: Callable[[Closed, int, Sequence[Kept], Effects], Binding | CudaBinding],
           ) -> Callable[[], list[Array]]:
        """What runs the call through a binding that is made of it."""
        return self._runs(make(self._closed, len(self._arrays), self._kept, self._effects))

    def usual(self, pipeline: Pipeline | None) -> Callable[[], list[Array]]:
        """What runs the call as the function does, on its device."""
        return self._runs(bound(self.device, self._closed, pipeline, len(self._arrays), self._kept, self._effects))

    def checked(self, pipeline: Pipeline | None) -> Callable[[], list[Array]]:
        """What runs the call with each kernel beside its references.  It raises CheckError besides."""
        return self._runs(checked(self.device, self._closed, pipeline, len(self._arrays), self._kept, self._effects))

    def _runs(self, binding: Binding | CudaBinding) -> Callable[[], list[Array]]:
        if not isinstance(binding, Binding):
            self._bindings.append(binding)

        def run() -> list[Array]:
            outputs = binding.quickly(tuple(self._arrays))
            return binding.run(self._arrays, self._users) if outputs is None else outputs

        return run

    def restore(self) -> None:
        """Variables and streams as they were before the first run.

        That is no change of those variables that a program keeps anything of: it does not update them.
        """
        for param, copy in zip(self.graph.params[len(self._arrays):], self._kept, strict=True):
            before = self.values[param.name]
            if isinstance(copy, Cell):
                copy.array[...] = before
                if copy.elsewhere is not None:
                    copy.elsewhere.changes, copy.elsewhere.newest = -1, False
            elif isinstance(copy, Stream):
                copy.state[:] = before.tolist()
        for binding in self._bindings:
            binding.bring()


def value_of(kept: Kept) -> Array:
    """A copy of the value that a call finds."""
    if isinstance(kept, Cell):
        return kept.get()
    return kept.key() if isinstance(kept, Stream) else kept


def _copy(kept: Kept) -> Kept:
    if isinstance(kept, Cell):
        return Cell(kept.get(), kept.name)
    if isinstance(kept, Stream):
        return Stream(*map(int, kept.key()))
    return kept
