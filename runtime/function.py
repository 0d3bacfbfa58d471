"""Compiled functions: from arrays to arrays, and the checks between a user and machine code."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorc import settings
from tensorc.codegen.cpu.target import Target
from tensorc.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from tensorc.ir import dims
from tensorc.ir.assume import Assumption, Reach, solve
from tensorc.ir.bounds import least
from tensorc.ir.closing import Closed, close
from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph, Location, verify
from tensorc.ir.node import Node, symbols_of
from tensorc.ir.types import numpy_kind
from tensorc.passes.choice import chosen
from tensorc.runtime.binding import Binding
from tensorc.runtime.effects import Effects, with_effects
from tensorc.runtime.late import without_cuts
from tensorc.runtime.program import Program, program, program_of, size_symbols
from tensorc.runtime.random import Stream
from tensorc.runtime.variable import Cell

if TYPE_CHECKING:
    from tensorc.codegen.assemble import KernelList
    from tensorc.passes.manager import Pipeline
    from tensorc.runtime.cuda.binding import CudaBinding
    from tensorc.runtime.profile import Profile
    from tensorc.runtime.watched import Apart

log = logging.getLogger("tensorc")

Array = np.ndarray[Any, Any]

Known = frozenset[tuple[str, int]]

_hearing: list[Callable[[Function], None]] = []


class Function:
    """A computation over inputs, variables and random streams, compiled at its first call.

    One program serves every size of the unknown dimensions; where a call gives size 1 to a dimension that was
    taken to equal another, a variant is compiled for it once (and logged).

    Args:
        inputs: parameter nodes fed by the caller, in order.  A variable among them is overridden for the call.
        updates: (variable, new value) pairs, committed together after all values are computed.
        cells, streams: the memory of every variable and the stream of every random key that is reachable.
        defaults: values of inputs that the caller may leave out.
        passes: a pipeline, or passes that join the default one, as `tensorc.passes.choice.chosen` takes them.
        where: the user's line that made it.
        device: what it runs on, `cpu` or `cuda`.
        leaves_outputs: whether outputs stay on the device.

    Raises: ArgumentError for a placeholder that is neither fed nor has a default, or where anything is computed from
        a result whose length only a run can tell, or such a result is to stay on a GPU; ShapeError for sizes that
        contradict each other.
    """

    def __init__(self, name: str, inputs: Sequence[Node], outputs: Sequence[Node],
                 updates: Sequence[tuple[Node, Node]] = (), *, cells: Mapping[Node, Cell] | None = None,
                 streams: Mapping[Node, Stream] | None = None, defaults: Mapping[Node, Array] | None = None,
                 provenance: Mapping[Node, tuple[Location, ...]] | None = None,
                 passes: Any = None, where: Location | None = None, device: str = "cpu",
                 leaves_outputs: bool = False) -> None:
        self.name, self.device, self.leaves_outputs = name, device, leaves_outputs
        self.where = where
        self._inputs = tuple(inputs)
        self._updates = tuple(updates)
        self._outputs, self._cuts = without_cuts(name, outputs, updates, provenance or {})
        if leaves_outputs and self._cuts and device == "cuda":
            raise ArgumentError(f"{name}: the length of output {self._cuts[0].output} is known only when computed; "
                                f"it cannot stay on the GPU: make the function without device_outputs")
        self._cells, self._streams = dict(cells or {}), dict(streams or {})
        self._defaults = dict(defaults or {})
        self._provenance = dict(provenance or {})
        self._passes = chosen(passes)
        self._closings: dict[Known, Closed] = {}
        self._variants: dict[Known, Binding | CudaBinding] = {}
        self._usual: Binding | CudaBinding | None = None
        self._compiling = threading.Lock()
        self.compilations = 0
        self._general = self._closed(frozenset())
        for hear in _hearing:
            hear(self)

    @property
    def graph(self) -> Graph:
        """The closed graph, before any pass."""
        return self._general.graph

    @property
    def pipeline(self) -> Pipeline:
        """The passes its graph goes through."""
        from tensorc.passes.pipeline import default
        return self._passes or default()

    @functools.cached_property
    def ir(self) -> Graph:
        """The graph after all passes, for sizes that are all as assumed."""
        from tensorc.passes.context import Context
        return self.pipeline.run(self.graph, Context(self.device))

    @functools.cached_property
    def kernels(self) -> KernelList:
        """The kernels of `ir`, in the order they run."""
        if self.device == "cuda":
            from tensorc.codegen.cuda.assemble import assemble as assemble_for_gpu
            from tensorc.runtime.cuda.libraries.calls import are_wanted
            return assemble_for_gpu(self.ir, libraries=are_wanted()).loops
        from tensorc.codegen.cpu.assemble import assemble
        return assemble(self.ir, Target.host()).loops

    @property
    def program(self) -> Program:
        """The program for sizes that are all as assumed; compiled now if it was not yet."""
        return self._variant(frozenset()).program

    def __call__(self, values: Sequence[object]) -> list[Array]:
        """The outputs for these inputs.

        Raises: ArgumentError for a wrong number of values; ShapeError and DTypeError for values that do not fit.
            Variables keep their values then.
        """
        given = tuple(values)
        usual = self._usual
        outputs = usual.quickly(given) if usual is not None else None
        if outputs is not None:
            return outputs

        arrays = self._arrays(given)
        outputs = usual.quickly(arrays) if usual is not None else None
        if outputs is not None:
            return outputs

        sizes = self._bound(arrays)
        return self._variant(self._broadcasting(sizes), arrays).run(arrays, sizes)

    def _closed(self, known: Known) -> Closed:
        """The graph for calls in which these sizes are known, as they broadcast against the general assumptions."""
        found = self._closings.get(known)
        if found is None:
            try:
                found = close(self.name, self._inputs, self._outputs, self._updates, self._provenance,
                              dict(known))
            except ShapeError as error:
                raise error if not known else ShapeError(f"{self.name}: with {_shown(known)}: {error}") from None
            found = replace(found, graph=verify(with_effects(found.graph)))
            self._check_fed(found)
            self._closings[known] = found
        return found

    def _check_fed(self, closed: Closed) -> None:
        """Raises ArgumentError where a placeholder is needed that nobody feeds."""
        fed = set(self._inputs)
        for leaf in closed.leaves:
            if leaf.op.name == "parameter" and leaf.role == "input" and leaf not in fed and leaf not in self._defaults:
                where = ", ".join(map(str, self._provenance.get(leaf, ())))
                raise ArgumentError(f"K.function: placeholder {leaf.name}{f' ({where})' if where else ''} is needed "
                                    f"but not among the inputs; add it to the list of inputs")
        unknown = frozenset().union(*map(symbols_of, closed.graph.nodes)) - set(size_symbols(closed.graph))
        if unknown:
            size = min(unknown).partition("__")[0]
            raise ArgumentError(f"K.function: the size {size} is needed, but its placeholder is not among the inputs; "
                                f"add it to the list of inputs")

    def _arrays(self, values: Sequence[object]) -> tuple[Array, ...]:
        """The values as C-contiguous arrays of the inputs' dtypes."""
        if len(values) != len(self._inputs):
            values = self._completed(values)
        convert = self._on_gpu if self.device == "cuda" else self._here
        return tuple(map(convert, values, self._inputs))

    def _completed(self, values: Sequence[object]) -> list[object]:
        """The values with the defaults of those that are missing.  Raises ArgumentError."""
        missing = self._inputs[len(values):]
        if len(values) > len(self._inputs) or any(n not in self._defaults for n in missing):
            names = ", ".join(n.name for n in self._inputs)
            raise ArgumentError(f"{self.name} takes {len(self._inputs)} inputs ({names}), got {len(values)}")
        return [*values, *(self._defaults[n] for n in missing)]

    def _here(self, value: object, node: Node) -> Array:
        """The value as an array of an input's dtype."""
        return _array(value, node, self.name)

    def _on_gpu(self, value: object, node: Node) -> Any:
        """The value as an array of an input's dtype, on the GPU where it is there and fits."""
        from tensorc.runtime.cuda.array import DeviceArray
        from tensorc.runtime.cuda.device import device
        from tensorc.runtime.cuda.exchange import arrived

        found = arrived(value, node.dtype.numpy, device())
        return found if isinstance(found, DeviceArray) else _array(found, node, self.name)

    def _bound(self, arrays: Sequence[Array]) -> dict[str, int]:
        """The size symbols' values.  Raises ShapeError where an array does not fit its placeholder."""
        sizes: dict[str, int] = {}
        for array, node in zip(arrays, self._inputs, strict=True):
            if array.ndim != len(node.shape):
                raise ShapeError(_misfit(self.name, node, array, f"has rank {array.ndim}, not {len(node.shape)}"))
            for axis, (size, actual) in enumerate(zip(node.shape, array.shape, strict=True)):
                name = str(size)
                if name in dims.symbols(size):
                    if sizes.setdefault(name, actual) != actual:
                        raise ShapeError(_misfit(self.name, node, array, f"has size {actual} on axis {axis}, "
                                                 f"where {sizes[name]} was given before"))
                elif dims.substitute(size, sizes) != actual:
                    raise ShapeError(_misfit(self.name, node, array, f"has size {actual} on axis {axis}, not {size}"))
        return sizes

    def _broadcasting(self, sizes: Mapping[str, int]) -> Known:
        """What makes sizes 1 against an assumption; nothing where all hold.

        Raises: ShapeError for other breaches, and for sizes that do not reach what is needed.

        What is assumed once these are known may be broken by further sizes.
        """
        known: Known = frozenset()
        while True:
            more: set[tuple[str, int]] = set()
            for assumption in self._closed(known).assumptions:
                left, right = _sides(assumption, sizes)
                if left != right:
                    single = [size for size, n in ((assumption.left, left), (assumption.right, right)) if n == 1]
                    answers = _known(single[0], sizes) if single else set()
                    if not answers:
                        raise ShapeError(self._breach(assumption, sizes))
                    more |= answers
            if not more:
                break
            known |= more

        for reach in self._closed(known).reaches:
            if dims.evaluate(reach.size - reach.least, sizes) < 0:
                raise ShapeError(self._shortage(reach, sizes))
        return known

    def _breach(self, assumption: Assumption, sizes: Mapping[str, int]) -> str:
        """Why a call does not fit: both placeholders, the sizes, the operation that needs them equal."""
        named = [a for a in (assumption, *self._general.assumptions) if a.where == assumption.where
                 and len(set(_sides(a, sizes))) > 1 and dims.symbols(a.left) and dims.symbols(a.right)]
        a = named[0] if named else assumption
        left, right = _sides(a, sizes)
        return (f"{self.name}: the sizes disagree: {self._told(a.left, left)}, {self._told(a.right, right)}; "
                f"{a.where} needs them equal")

    def _shortage(self, reach: Reach, sizes: Mapping[str, int]) -> str:
        """Why a call does not fit: the placeholder, its size, the operation that needs more."""
        lacking = reach.size - reach.least
        if (one := least(lacking)) is not None:
            symbol, needed = one
            return (f"{self.name}: {self._told(dims.symbol(symbol), sizes[symbol])}; "
                    f"{reach.where} needs at least {needed}")
        given = ", ".join(self._told(dims.symbol(s), sizes[s]) for s in sorted(dims.symbols(lacking)))
        return f"{self.name}: the sizes are too small: {given}; {reach.where} would reach beyond them"

    def _told(self, size: Size, n: int) -> str:
        """Where a size comes from and what it is."""
        for node in self._inputs:
            for axis, s in enumerate(node.shape):
                if dims.symbols(size) & dims.symbols(s):
                    return f"{node.name} (axis {axis}) gives {n}"
        return f"a fixed size is {n}"

    def _variant(self, known: Known, arrays: Sequence[Array] | None = None) -> Binding | CudaBinding:
        """The program for calls in which these sizes are known.

        Args:
            arrays: the inputs of the call that it is for, if there is one.
        """
        found = self._variants.get(known)
        if found is not None:
            return found
        with self._compiling:
            if known not in self._variants:
                self._variants[known] = self._binding(self._closed(known), arrays)
                self.compilations += 1
                if not known:
                    self._usual = self._variants[known]
                else:
                    log.warning("%s: compiled a variant for %s, to broadcast", self.name, _shown(known))
            return self._variants[known]

    def _binding(self, closed: Closed, arrays: Sequence[Array] | None) -> Binding | CudaBinding:
        """The program of a closed graph with what it reads besides the inputs."""
        kept, effects = self._kept(closed), self._effects(closed)
        folder = settings.dump()
        if folder is not None:
            from tensorc.runtime.dump import write
            write(folder, closed.graph, self._passes, self.where, self._values(closed, arrays, kept),
                  self.device)
        if self.device == "cuda":
            if settings.check():
                raise DeviceError(f"{self.name}: TENSORC_CHECK checks the kernels of programs on the CPU only; give it "
                                  f"device='cpu'")
            from tensorc.runtime.cuda.binding import CudaBinding
            from tensorc.runtime.cuda.program import CudaProgram
            left = len(self._outputs) if self.leaves_outputs else 0
            made = program_of(CudaProgram, closed.graph, self._passes)
            return CudaBinding(made, closed, len(self._inputs), kept, effects, left)
        if settings.check():
            from tensorc.runtime.check import Checked
            return Checked(self.name, closed, self._passes, len(self._inputs), kept, effects)
        return Binding(program(closed.graph, self._passes), closed, len(self._inputs), kept, effects)

    def _values(self, closed: Closed, arrays: Sequence[Array] | None,
                kept: Sequence[Cell | Stream | Array]) -> dict[str, Array] | None:
        """The value of each parameter by name, for a call with these inputs."""
        from tensorc.runtime.watched import value_of

        if arrays is None:
            return None
        names = [p.name for p in closed.graph.params]
        return dict(zip(names, (*arrays, *map(value_of, kept)), strict=True))

    def _kept(self, closed: Closed) -> list[Cell | Stream | Array]:
        """What a program reads besides the inputs, in the order of its parameters."""
        def kept(leaf: Node) -> Cell | Stream | Array:
            if leaf.op.name == "constant":
                return np.ascontiguousarray(leaf.value)
            if leaf.role == "variable":
                return self._cells[leaf]
            return self._streams[leaf] if leaf.role == "key" else self._defaults[leaf]

        return [kept(leaf) for leaf in closed.leaves[len(self._inputs):]]

    def _effects(self, closed: Closed, *, silent: bool = False) -> Effects:
        return Effects(self.name, closed.graph, len(self._outputs), self._cuts, silent=silent)

    def apart(self, values: Sequence[object]) -> Apart:
        """A call with these inputs that leaves the function's variables and streams alone, and prints nothing.

        Raises: what a call raises for values that do not fit.
        """
        from tensorc.runtime.watched import Apart

        if self.device == "cuda":
            raise DeviceError(f"{self.name} runs on a GPU, where calls are neither profiled nor checked yet; "
                              f"make it with device='cpu' for that")
        arrays = self._arrays(values)
        sizes = self._bound(arrays)
        closed = self._closed(self._broadcasting(sizes))
        return Apart(closed, arrays, sizes, self._kept(closed), self._effects(closed, silent=True))

    def profile(self, values: Sequence[object], seconds: float = 0.25) -> Profile:
        """Where the time of a call goes, kernel by kernel.

        It runs on copies of variables and random streams, which are left as they are.

        Args:
            values: the inputs, as for a call.
            seconds: how long to measure, at least.

        Raises: what a call raises for values that do not fit.
        """
        from tensorc.runtime.profile import profile
        return profile(self.apart(values), self._passes, seconds)

    def __repr__(self) -> str:
        return f"<function {self.name}({', '.join(n.name for n in self._inputs)})>"


def _known(single: Size, sizes: Mapping[str, int]) -> set[tuple[str, int]]:
    """What is to be known of symbols, or of applications such as n//2, for a size that is 1 to become the number 1."""
    answer = solve(single, 1)
    if answer is not None and isinstance(answer[1], int):
        return {(answer[0], answer[1])}
    return {(s, sizes[s]) for s in dims.symbols(single)}


def _shown(known: Known) -> str:
    return ", ".join(f"{name.partition('__')[0]} = {n}" for name, n in sorted(known))


def _sides(assumption: Assumption, sizes: Mapping[str, int]) -> tuple[int, int]:
    """The numbers that an assumption takes to be equal."""
    return dims.evaluate(assumption.left, sizes), dims.evaluate(assumption.right, sizes)


def _array(value: object, node: Node, function: str) -> Array:
    """A value as a plain array of an input's dtype; a scipy.sparse matrix counts as one.  Raises DTypeError."""
    want = node.dtype.numpy
    if isinstance(value, np.ndarray) and value.dtype == want and value.flags.c_contiguous and value.flags.aligned:
        return value
    try:
        given = np.asarray(value.toarray() if hasattr(value, "toarray") else value)
    except ValueError:
        raise ShapeError(f"{function}: input {node.name} is no regular array") from None
    kind = numpy_kind(given.dtype)
    if kind not in "biuf" or (want.kind in "iu" and kind == "f" and not np.array_equal(given, np.trunc(given))):
        raise DTypeError(f"{function}: input {node.name} is {want}, the value given is {given.dtype}")
    if want.kind == "b" and kind == "f":
        raise DTypeError(f"{function}: input {node.name} is {want}, the value given is {given.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        return given.astype(want, order="C", copy=not given.flags.aligned)


def _misfit(function: str, node: Node, array: Array, how: str) -> str:
    wanted = "(" + ", ".join("None" if isinstance(s, dims.Dim) else str(s) for s in node.shape) + ")"
    return f"{function}: the value for input {node.name} {how}: its shape is {array.shape}, {node.name} is {wanted}"


@contextlib.contextmanager
def hearing(hear: Callable[[Function], None]) -> Iterator[None]:
    """Within the block, `hear` is told of every function that is made."""
    _hearing.append(hear)
    try:
        yield
    finally:
        _hearing.remove(hear)


@contextlib.contextmanager
def keeping_inputs() -> Iterator[dict[Function, list[object]]]:
    """Within the block, the inputs of the last call of every function are kept, copied where they are arrays."""
    kept: dict[Function, list[object]] = {}
    call = Function.__call__

    def keep(self: Function, values: Sequence[object]) -> list[Array]:
        kept[self] = [value.copy() if isinstance(value, np.ndarray) else value for value in values]
        return call(self, values)

    Function.__call__ = keep  # type: ignore[method-assign]
    try:
        yield kept
    finally:
        Function.__call__ = call  # type: ignore[method-assign]
