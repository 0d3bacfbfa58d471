"""Bindings: a program together with the variables, streams and constants of one function.

A program runs on a table of addresses, a table of sizes and an arena.  What stays from call to call is entered once;
a call adds the addresses of its inputs and results, the sizes it finds in the inputs, and the keys of its streams.

What a program keeps of the variables, such as packed weights, lies in memory of the binding's own: other functions
share the program, but not the variables.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorc.ir import dims
from tensorc.ir.bounds import least
from tensorc.ir.closing import Closed
from tensorc.ir.types import TensorType
from tensorc.runtime import fastcall
from tensorc.runtime.direct import Direct, declined, direct
from tensorc.runtime.effects import Effects
from tensorc.runtime.memory import Kept, maker
from tensorc.runtime.program import Program, size_symbols
from tensorc.runtime.random import Stream
from tensorc.runtime.variable import Cell

Array = np.ndarray[Any, Any]

LAYOUTS = 256
"""How many combinations of sizes are remembered with what follows from them."""


class Bound:
    """What a program of one function finds besides the inputs of a call, wherever it runs.

    Its symbols go by two names, the user's and the program's, both in the order of the program's table of sizes.

    Args:
        closed: the graph it is the program of, with its symbols in the user's terms.
        inputs: how many of the parameters a call gives; they are the first.
        leaves: what the others are.
        effects: what a run does besides; empty for most programs.

    Attributes:
        direct: a whole call on a tuple of arrays that fit as they are, or None, with nothing done, where that takes
            a closer look.
    """

    direct: Direct = staticmethod(declined)

    def __init__(self, program: Program, closed: Closed, inputs: int, leaves: Sequence[Cell | Stream | Array],
                 effects: Effects) -> None:
        symbols = size_symbols(closed.graph)
        self._inputs = inputs
        self._leaves = tuple(leaves)
        self._effects = effects or None
        self._symbols = [symbols[i] for i in program.order]
        self._users = _users_symbols(closed, self._symbols)
        self._names = [program.sizes[i] for i in program.order]
        self._streams = [each for each in leaves if isinstance(each, Stream)]
        self._cells = list(dict.fromkeys(each for each in leaves if isinstance(each, Cell)))
        self._locks = [cell.lock for cell in sorted(self._cells, key=id)]
        self._guard = _guard(self._locks)
        self._signature = _signature(closed, inputs, self._symbols)
        self._bind_inputs = fastcall.binder(self._signature) if self._signature is not None else None


class Binding(Bound):
    """A program and where each of its parameters comes from.  Any number of threads may call it at once.

    Attributes:
        memory: what is kept from call to call; None where nothing is.
    """

    def __init__(self, program: Program, closed: Closed, inputs: int, leaves: Sequence[Cell | Stream | Array],
                 effects: Effects) -> None:
        super().__init__(program, closed, inputs, leaves, effects)
        self.program = program
        self._first_output = len(closed.graph.params) + len(program.constants)
        self.memory = Kept(program.kept) if program.kept else None
        self._changes = [_changes(None if i < inputs else self._leaves[i - inputs]) for i in program.counted]
        self._run = fastcall.runner(program.native) or program.native.run
        self._bind_outputs = _output_binder([o.type for o in closed.graph.outputs], self._first_output)

        self._frames: list[Frame] = []
        self._layouts: dict[tuple[int, ...], _Layout] = {}
        self._fixed = None if self._names else self._new_layout(())

        if self._signature is not None and not self._streams:
            results = [output.type for output in closed.graph.outputs]
            self.direct = self._settled(direct(self._signature, results, self._first_output, Frame(self).externals,
                                               self._locks, program.native))

    def _settled(self, call: Direct) -> Direct:
        """The same call with its effects."""
        effects = self._effects
        if effects is None or call is declined:
            return call

        def settled(values: tuple[Any, ...]) -> list[Array] | None:
            results = call(values)
            return None if results is None else effects.settle(results, lambda: self._sizes(values))

        return settled

    def _sizes(self, values: tuple[Any, ...]) -> dict[str, int]:
        """The symbols' values for arrays that fit as they are."""
        frame = Frame(self)
        assert self._bind_inputs is not None
        self._bind_inputs(values, frame.externals_at, frame.sizes_at)
        return dict(zip(self._symbols, frame.sizes, strict=True))

    def quickly(self, values: tuple[Any, ...]) -> list[Array] | None:
        """The outputs for arrays that fit as they are; None, with nothing done, where that takes a closer look."""
        outputs = self.direct(values)
        if outputs is not None or self._bind_inputs is None:
            return outputs

        frame = self._frame()
        if not self._bind_inputs(values, frame.externals_at, frame.sizes_at):
            self._frames.append(frame)
            return None
        return self._finish(frame)

    def run(self, arrays: Sequence[Array], sizes: Mapping[str, int]) -> list[Array]:
        """The outputs for C-contiguous arrays of the inputs' dtypes.

        Args:
            arrays: of shapes that `sizes` give.
            sizes: the value of every symbol of the user's.
        """
        frame = self._frame()
        for i, array in enumerate(arrays):
            frame.externals[i] = array.ctypes.data
        for i, symbol in enumerate(self._users):
            frame.sizes[i] = sizes[symbol]
        return self._finish(frame)

    def _finish(self, frame: Frame) -> list[Array]:
        """Runs the program on a frame whose inputs and sizes are there.

        Variables are locked together, so that no other call sees half an update.
        """
        layout = self._fixed or self._layout(frame)

        outputs = [make(shape, dtype) for make, shape, dtype in layout.outputs]
        if self._bind_outputs is None or not self._bind_outputs(tuple(outputs), frame.externals_at, frame.unused_at):
            for i, output in enumerate(outputs, self._first_output):
                frame.externals[i] = output.ctypes.data

        if self._guard is None:
            self._execute(frame, layout.arena)
        else:
            with self._guard:
                self._execute(frame, layout.arena)

        if self._effects is not None:
            outputs = self._effects.settle(outputs, lambda: dict(zip(self._symbols, frame.sizes, strict=True)))
        self._frames.append(frame)
        return outputs

    def _execute(self, frame: Frame, scratch: int) -> None:
        """Moves the streams on and runs the program, with `scratch` bytes of scratch memory."""
        if Cell.any_elsewhere.value:
            for cell in self._cells:
                cell.here()
        if self._streams:
            for i, stream in enumerate(self._streams):
                frame.keys[2 * i], frame.keys[2 * i + 1] = stream.draw()

        if scratch:
            arena = self.program.lend(scratch)
            self._run(frame.externals_at, frame.sizes_at, arena.address)
            self.program.take_back(arena)
        else:
            self._run(frame.externals_at, frame.sizes_at, 0)

    def _frame(self) -> Frame:
        """Tables that no other call uses."""
        try:
            return self._frames.pop()
        except IndexError:
            return Frame(self)

    def _layout(self, frame: Frame) -> _Layout:
        """What follows from the sizes in a frame."""
        sizes = tuple(frame.sizes[:])
        found = self._layouts.get(sizes)
        if found is None:
            if len(self._layouts) >= LAYOUTS:
                self._layouts.clear()
            found = self._layouts[sizes] = self._new_layout(sizes)
        return found

    def _new_layout(self, sizes: Sequence[int]) -> _Layout:
        known = dict(zip(self._names, sizes, strict=True))
        types = [output.type for output in self.program.graph.outputs]
        shapes = [tuple(dims.evaluate(size, known) for size in each.shape) for each in types]

        outputs = [
            (maker(shape, each.dtype.numpy), shape, each.dtype.numpy) for shape, each in zip(shapes, types, strict=True)
        ]
        return _Layout(outputs, self.program.native.arena_bytes((ctypes.c_int64 * len(sizes))(*sizes)))


@dataclass(frozen=True)
class _Layout:
    """What follows from the sizes of a call.

    Attributes:
        outputs: how to make the array of each result, its shape and dtype.
        arena: bytes of scratch memory.
    """

    outputs: list[tuple[Callable[[tuple[int, ...], np.dtype[Any]], Array], tuple[int, ...], np.dtype[Any]]]
    arena: int


class Frame:
    """The tables of a program for one call at a time, with all that stays the same entered.

    Attributes:
        externals: addresses of parameters, constants and results, of what is kept, and of numbers of changes.
        sizes: the symbols' values, in the program's order.
        keys: (seed, step) of every stream.
        externals_at, sizes_at: addresses of the tables.
        unused_at: where the sizes of results go, which are known already.
    """

    __slots__ = ("_unused", "externals", "externals_at", "keys", "sizes", "sizes_at", "unused_at")

    def __init__(self, binding: Binding) -> None:
        outputs = [output.type for output in binding.program.graph.outputs]
        kept = binding.memory.addresses if binding.memory is not None else []
        rest = [*kept, *map(ctypes.addressof, binding._changes)]
        first = binding._first_output + len(outputs)
        self.externals = (ctypes.c_void_p * (first + len(rest)))(*[None] * first, *rest)
        self.sizes = (ctypes.c_int64 * len(binding._users))()
        self.keys = (ctypes.c_int64 * (2 * len(binding._streams)))()
        self._unused = (ctypes.c_int64 * sum(each.rank for each in outputs))()

        self.externals_at = ctypes.addressof(self.externals)
        self.sizes_at = ctypes.addressof(self.sizes)
        self.unused_at = ctypes.addressof(self._unused)

        key_at = ctypes.addressof(self.keys)
        for i, each in enumerate((*binding._leaves, *binding.program.constants), binding._inputs):
            if isinstance(each, Stream):
                self.externals[i] = key_at
                key_at += 16
            else:
                self.externals[i] = (each.array if isinstance(each, Cell) else each).ctypes.data


class _Together:
    """Several locks as one; all who take more than one take them in this order."""

    def __init__(self, locks: Sequence[Any]) -> None:
        self._locks = locks

    def __enter__(self) -> None:
        taken = 0
        try:
            for lock in self._locks:
                lock.acquire()
                taken += 1
        except BaseException:
            self._release(taken)
            raise

    def __exit__(self, *error: object) -> None:
        self._release(len(self._locks))

    def _release(self, taken: int) -> None:
        for lock in self._locks[:taken]:
            lock.release()


def _guard(locks: Sequence[AbstractContextManager[Any]]) -> AbstractContextManager[Any] | None:
    """What holds all these locks; None where there are none."""
    if len(locks) == 1:
        return locks[0]
    return _Together(locks) if locks else None


def _changes(leaf: Cell | Stream | Array | None) -> ctypes.c_int64:
    """The number of changes of what a parameter is; of no account where that is an array of the caller's."""
    return leaf.changes if isinstance(leaf, Cell) else ctypes.c_int64()


def _users_symbols(closed: Closed, symbols: Sequence[str]) -> list[str]:
    """The user's symbol for each symbol of the graph."""
    names = {str(size): name for name, size in closed.sizes.items() if isinstance(size, dims.Dim)}
    return [names[symbol] for symbol in symbols]


def _signature(closed: Closed, inputs: int, symbols: Sequence[str]) -> fastcall.Signature | None:
    """The signature of the inputs, or None where arrays may fit their types and yet break an assumption."""
    types = [param.type for param in closed.graph.params[:inputs]]
    sizes = {name: size for name, size in closed.sizes.items() if name.isidentifier()}
    found = {symbol for each in types for size in each.shape for symbol in dims.symbols(size)}

    if not found.issuperset(symbols):
        return None
    if any(dims.substitute(a.left, sizes) != dims.substitute(a.right, sizes) for a in closed.assumptions):
        return None
    needed = dict.fromkeys(symbols, 0)
    for reach in closed.reaches:
        bound = least(dims.substitute(reach.size - reach.least, sizes))
        if bound is None:
            return None
        needed[bound[0]] = max(needed[bound[0]], bound[1])
    return fastcall.signature(types, range(inputs), symbols, needed)


def _output_binder(types: Sequence[TensorType], first: int) -> fastcall.Binder | None:
    """A binder that enters the addresses of results; whatever sizes they have, each is a symbol of its own."""
    names = [f"size{i}" for i in range(sum(each.rank for each in types))]
    free = iter(map(dims.symbol, names))
    shapeless = [each.with_shape([next(free) for _ in each.shape]) for each in types]
    signature = fastcall.signature(shapeless, range(first, first + len(types)), names)
    return fastcall.binder(signature) if signature is not None else None
