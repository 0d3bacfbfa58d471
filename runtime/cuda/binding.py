"""Bindings of programs for a GPU: the variables, streams and constants of one function, and the memory of its calls.

A call goes through a frame, which no other call uses at the time.  Its memory on the device holds what comes from the
host, the program's own arena, and what goes to the host, at addresses that stay the same from call to call.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

from tensorc.ir import dims
from tensorc.ir.closing import Closed
from tensorc.ir.dims import Size
from tensorc.runtime.binding import LAYOUTS, Bound
from tensorc.runtime.cuda.array import DeviceArray
from tensorc.runtime.cuda.device import Device
from tensorc.runtime.cuda.driver import named
from tensorc.runtime.cuda.lanes import Lane
from tensorc.runtime.cuda.layout import KEY, Layout, Region, can_be_recorded, has_choice, nbytes
from tensorc.runtime.cuda.machine import Machine, Recorded
from tensorc.runtime.cuda.memory import Block, Pool
from tensorc.runtime.cuda.program import CudaProgram, uploaded
from tensorc.runtime.cuda.variables import Home, home
from tensorc.runtime.effects import Effects
from tensorc.runtime.memory import maker
from tensorc.runtime.random import Stream
from tensorc.runtime.variable import Cell
from tensorc.runtime.walk import Watcher, walk

Array = np.ndarray[Any, Any]
Given = Array | DeviceArray

RECORDINGS = 16
"""Combinations of sizes and addresses for which a frame remembers what the program does."""

AHEAD = 2
"""Calls of a function, one after the other, that a thread may be ahead of the device."""


class CudaBinding(Bound):
    """A program and where each of its parameters comes from.  Any number of threads may call it at once.

    Args:
        program, closed, inputs, leaves, effects: as Bound has them.
        left: how many outputs, the first ones, stay on the device.
    """

    def __init__(self, program: CudaProgram, closed: Closed, inputs: int, leaves: Sequence[Cell | Stream | Array],
                 effects: Effects, left: int = 0) -> None:
        super().__init__(program, closed, inputs, leaves, effects)
        self.program, self.name = program, closed.graph.name
        self._on, self._left = program.on, left
        self._types = [(o.type, o.dtype.numpy) for o in program.graph.outputs]

        params = closed.graph.params
        updated = {params.index(variable) for variable, _ in closed.graph.updates}
        self._written = {each for i, each in enumerate(leaves, inputs) if i in updated and isinstance(each, Cell)}
        self._is_undone = bool(self._written) and has_choice(program.spec)
        with named(self.name), self._on.current():
            arrays = [each for each in leaves if isinstance(each, np.ndarray)]
            self._block, *self._constants = uploaded(self._on, arrays)

        self._addresses, self._sizes = ctypes.c_void_p * inputs, ctypes.c_int64 * len(self._symbols)
        self._none_there = (False,) * inputs
        self._frames: deque[Frame] = deque()
        self._layouts: dict[tuple[Any, ...], Layout] = {}

    def bring(self) -> None:
        """Brings the values of variables to the device where they are not there, so that the next call need not."""
        with named(self.name), self._on.current(), self._on.lanes.lent() as lane, self._guard or nullcontext():
            for cell in self._cells:
                home(cell, self._on, lane).for_use(cell, lane, False)

    def quickly(self, values: tuple[Any, ...]) -> list[Any] | None:
        """The outputs for arrays of the host that fit as they are; None, with nothing done, for all others."""
        if self._bind_inputs is None:
            return None
        addresses, sizes = self._addresses(), self._sizes()
        if not self._bind_inputs(values, ctypes.addressof(addresses), ctypes.addressof(sizes)):
            return None
        return self._call(values, tuple(sizes), self._none_there)

    def run(self, arrays: Sequence[Given], sizes: Mapping[str, int]) -> list[Any]:
        """The outputs for C-contiguous arrays of the inputs' dtypes.

        Args:
            arrays: of shapes that `sizes` give.
            sizes: the value of every symbol of the user's.

        Raises: DeviceError; what effects raise.  Variables have their old values then.
        """
        return self._call(arrays, tuple(sizes[each] for each in self._users),
                          tuple(isinstance(array, DeviceArray) for array in arrays))

    def _call(self, arrays: Sequence[Given], sizes: tuple[int, ...], there: tuple[bool, ...]) -> list[Any]:
        """The same, for the values of the program's symbols, and with which inputs are on the device."""
        with named(self.name), self._on.current(), self._on.lanes.lent() as lane:
            layout = self._layout(sizes, there)
            frame = self._frame()
            frame.fit(layout, lane)
            results = self._run(frame, layout, arrays, lane)
        if frame.is_done:
            self._frames.append(frame)
        else:
            self._frames.appendleft(frame)
        if self._effects is not None:
            return self._effects.settle(results, lambda: dict(zip(self._symbols, layout.sizes.values(), strict=True)))
        return results

    def _run(self, frame: Frame, layout: Layout, arrays: Sequence[Given], lane: Lane) -> list[Any]:
        """The outputs, computed if any are on the host."""
        for array, place in zip(arrays, layout.staged.places, strict=False):
            if isinstance(array, DeviceArray):
                lane.wait_for(array.memory.users)
            elif array.nbytes:
                assert place is not None
                ctypes.memmove(frame.staging.address + place, array.ctypes.data, array.nbytes)
        here = [array for array in arrays if isinstance(array, DeviceArray)]
        outputs = self._outputs(layout, lane)

        with self._guard or nullcontext():
            homes = [home(cell, self._on, lane) for cell in self._cells]
            for cell, each in zip(self._cells, homes, strict=True):
                each.for_use(cell, lane, cell in self._written)
            for stream, place in zip(self._streams, layout.staged.places[self._inputs:], strict=True):
                assert place is not None
                ctypes.memmove(frame.staging.address + place, stream.take().ctypes.data, KEY)
            self._compute(frame, layout, [*here, *(o for o in outputs if o is not None)], arrays, outputs, lane)
            if self.program.calls:
                self._on.libraries.trim()
            for cell, each in zip(self._cells, homes, strict=True):
                each.was_used(cell, lane, cell in self._written)
            lane.mark()

        for array in here:
            array.memory.users.add(lane)
        frame.is_done = any(output is None for output in outputs) or any(array.is_foreign for array in here)
        if frame.is_done:
            lane.finish()
        return [self._landed(frame, layout, i) if output is None else output for i, output in enumerate(outputs)]

    def _compute(self, frame: Frame, layout: Layout, there: Sequence[DeviceArray], arrays: Sequence[Given],
                 outputs: Sequence[DeviceArray | None], lane: Lane) -> None:
        """Adds the program to a lane: of what it changes, all or nothing."""
        machine = Machine(self.program.code, lane, frame.word)
        frame.needed = machine.needed
        if layout.is_recorded:
            key = layout, self.program.calls and lane, *(array.address for array in there)
            recorded = frame.recorded.get(key)
            if recorded is None:
                while len(frame.recorded) >= RECORDINGS:
                    frame.recorded.popitem(last=False)
                recorded = frame.recorded[key] = Recorded(self._on, self._follow(frame, layout, arrays, outputs),
                                                          in_turn=self.in_turn)
            frame.recorded.move_to_end(key)
            run: Callable[[Machine], None] = recorded.run
        else:
            run = self._follow(frame, layout, arrays, outputs)

        if not self._written or layout.is_recorded and not self._is_undone:
            run(machine)
            return
        undo = self._undo(lane)
        try:
            run(machine)
        except BaseException:
            undo()
            raise

    in_turn = False
    """Whether all that the program does is done one after the other, also what is independent."""

    def watcher(self, machine: Machine) -> Watcher | None:
        """What watches the program on a machine."""

    def _follow(self, frame: Frame, layout: Layout, arrays: Sequence[Given],
                outputs: Sequence[DeviceArray | None]) -> Callable[[Machine], None]:
        """What goes through the program on a machine, with all that it copies from and to the host."""
        base, staging, landing = frame.memory.address, frame.staging.address, frame.landing.address
        staged, landed, spec = layout.staged, layout.landed, self.program.spec
        constants, keys = iter(self._constants), iter(staged.places[self._inputs:])

        def at(place: int | None) -> int:
            assert place is not None
            return base + place

        def address(leaf: Cell | Stream | Array) -> int:
            if isinstance(leaf, Cell):
                assert isinstance(leaf.elsewhere, Home)
                return leaf.elsewhere.address
            return at(next(keys)) if isinstance(leaf, Stream) else next(constants)

        externals = [array.address if isinstance(array, DeviceArray) else at(place)
                     for array, place in zip(arrays, staged.places, strict=False)]
        externals += map(address, self._leaves)
        externals += self.program.addresses
        externals += (at(place) if output is None else output.address
                      for output, place in zip(outputs, landed.places, strict=True))
        externals += [0] * (spec.externals - len(externals))

        def follow(machine: Machine) -> None:
            machine.upload(base + staged.start, staging + staged.start, staged.size)
            walk(spec, machine, externals, layout.sizes, base + layout.arena, self.watcher(machine))
            machine.download(landing, base + landed.start, landed.size)

        return follow

    def _undo(self, lane: Lane) -> Callable[[], None]:
        """What undoes all that the lane will have done to variables from now on."""
        homes = [(each, cell.array.nbytes) for cell in self._written if isinstance(each := cell.elsewhere, Home)]
        region = Region.of(0, [size for _, size in homes])
        before = self._on.memory.take(region.size, lane)

        def copy(back: bool) -> None:
            for (each, size), place in zip(homes, region.places, strict=True):
                if size:
                    ends = each.address, before.address + (place or 0)
                    self._on.cu.cuMemcpyDtoDAsync_v2(ends[not back], ends[back], size, lane.stream)

        copy(False)
        return partial(copy, True)

    def _outputs(self, layout: Layout, lane: Lane) -> list[DeviceArray | None]:
        """Fresh arrays for the outputs that stay on the device; None for those that do not."""
        def fresh(shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
            block = self._on.memory.take(nbytes(shape, dtype), lane)
            return DeviceArray(self._on, block, block.address, shape, dtype)

        kinds = [dtype for _, dtype in self._types]
        return [fresh(shape, dtype) if i < self._left else None
                for i, (shape, dtype) in enumerate(zip(layout.shapes, kinds, strict=True))]

    def _landed(self, frame: Frame, layout: Layout, number: int) -> Array:
        """An output that was copied to the host."""
        shape, dtype, place = layout.shapes[number], self._types[number][1], layout.landed.places[number]
        assert place is not None
        result = maker(shape, dtype)(shape, dtype)
        ctypes.memmove(result.ctypes.data, frame.landing.address + place - layout.landed.start, result.nbytes)
        return result

    def _frame(self) -> Frame:
        """One that no other call uses, its work done; where many are still at work, the one that began first."""
        try:
            frame = self._frames.pop()
        except IndexError:
            return Frame(self._on)
        if frame.is_ready() or len(self._frames) + 1 >= AHEAD:
            return frame
        self._frames.append(frame)
        return Frame(self._on)

    def _layout(self, sizes: tuple[int, ...], there: tuple[bool, ...]) -> Layout:
        found = self._layouts.get((sizes, there))
        if found is None:
            if len(self._layouts) >= LAYOUTS:
                self._layouts.clear()
            found = self._layouts[sizes, there] = self._new_layout(sizes, there)
        return found

    def _new_layout(self, sizes: tuple[int, ...], there: tuple[bool, ...]) -> Layout:
        program = self.program
        local, known = dict(zip(self._names, sizes, strict=True)), dict(zip(program.spec.sizes, sizes, strict=True))

        def shape(sizes: Sequence[Size]) -> tuple[int, ...]:
            return tuple(dims.evaluate(size, local) for size in sizes)

        shapes = tuple(shape(kind.shape) for kind, _ in self._types)
        read = [nbytes(shape(p.shape), p.dtype.numpy) for p in program.graph.params]
        written = [nbytes(each, dtype) for each, (_, dtype) in zip(shapes, self._types, strict=True)]
        staged = Region.of(0, [*(None if stays else size for stays, size in zip(there, read, strict=False)),
                               *[KEY] * len(self._streams)])
        landed = Region.of(staged.size, [None if i < self._left else size for i, size in enumerate(written)])
        arena = landed.start + landed.size
        return Layout(known, staged, landed, arena, arena + dims.evaluate(program.memory, known), shapes,
                      can_be_recorded(program.spec, known))


class Frame:
    """The memory of one call at a time, and what the program does there.

    Attributes:
        memory: on the device, as a Layout divides it.
        staging, landing: on the host, for what comes from there and what goes there.
        word: on the host, for what the program reads.
        recorded: by layout, the addresses of all arrays that lie elsewhere, and the lane, where a library works in
            memory of that.
        needed: what has to be there as long as the work that was not recorded.
        last: the lane that has used it last.
        is_done: whether all work in it is done, as far as is known.
    """

    def __init__(self, on: Device) -> None:
        self._on = on
        self.memory = on.memory.take(0, None)
        self.staging, self.landing, self.word = (on.pinned.take(0, None) for _ in range(3))
        self.recorded: OrderedDict[tuple[Any, ...], Recorded] = OrderedDict()
        self.needed: list[object] = []
        self.last: Lane | None = None
        self.is_done = True

    def is_ready(self) -> bool:
        """Whether all work in it is done."""
        return self.is_done or self.last is None or self.last.is_done()

    def fit(self, layout: Layout, lane: Lane) -> None:
        """Makes it large enough, and ready to be used in a lane."""
        if not self.is_done and self.last is not None:
            if layout.staged.size:
                self.last.finish()
            lane.wait_for((self.last,))
        if self.memory.size < layout.size:
            self.memory = self._fresh(self._on.memory, layout.size, lane)
        if self.staging.size < layout.staged.size:
            self.staging = self._fresh(self._on.pinned, layout.staged.size, None)
        if self.landing.size < layout.landed.size:
            self.landing = self._fresh(self._on.pinned, layout.landed.size, None)
        for block in (self.memory, self.staging, self.landing, self.word):
            block.users = {lane}
        self.is_done, self.last = False, lane

    def _fresh(self, pool: Pool, size: int, lane: Lane | None) -> Block:
        """Memory at another address than what was recorded is for."""
        self.recorded.clear()
        return pool.take(size, lane)
