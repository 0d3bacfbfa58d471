"""Loads and stores in code: contiguous, reversed, strided, by data; masked at the ends; turned in registers."""

from __future__ import annotations

from collections.abc import Sequence

from tensorc.codegen import loopir as ir
from tensorc.codegen.cpu.emit_text import Known, numbers
from tensorc.codegen.cpu.emit_values import Value, Values
from tensorc.codegen.cpu.lanes import llvm_type, mangled, memory_type
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.moves import Move, Moves, move_of
from tensorc.ir import dims
from tensorc.ir.dims import Dim, Size
from tensorc.ir.types import DType, boolean, i32, u8

STREAMABLE = (16, 32, 64)
"""Bytes of a vector that one instruction writes past the caches."""


class Memory(Values):
    """Reads and writes the buffers `%b_NAME`; `%nothing` points at eight bytes of zeros."""

    def __init__(self, k: ir.Kernel, target: Target) -> None:
        super().__init__(k, target)
        self.moves = Moves(k)
        self.buffers = {b.name: b for b in k.buffers}

    # -- addresses

    def lane_move(self, access: ir.Load | ir.Store) -> Move:
        """How an access moves from lane to lane."""
        return move_of(self.stride(self.moves.offset(access), self.here.var))

    def pointer(self, b: ir.Buffer, offset: Size) -> str:
        """The address of an element that all lanes agree about, or of the first lane's."""
        return self.bump(b, f"%b_{b.name}", self.size(offset))

    def bump(self, b: ir.Buffer, pointer: str, by: Known) -> str:
        return pointer if by == 0 else self.let(f"getelementptr {memory_type(b.dtype)}, ptr {pointer}, i64 {by}")

    def distance(self, access: ir.Load | ir.Store, var: str) -> Size:
        """Elements between neighbouring iterations of `var`, which must be one number."""
        distance = self.stride(self.moves.offset(access), var)
        assert distance is not None
        return distance

    def copies(self, access: ir.Load | ir.Store, clamp: bool = False) -> list[str]:
        """The address of the first lane of each copy.

        clamp: copies past the end of a tile point at its last row, for reads of one element without a mask.
        """
        r = self.here
        b = self.buffers[access.buffer]
        first = self.pointer(b, self.moves.offset(access))

        if r.tile is None:
            far = self.distance(access, r.var) * r.width
            return [self.bump(b, first, self.size(far * u)) for u in range(r.unroll)]
        row = self.distance(access, r.tile)
        if clamp and r.masks is not None:
            last = self.sub(r.room, 1)
            return [self.bump(b, first, self.mul(self.lower(last, u), self.size(row))) for u in range(r.unroll)]
        return [self.bump(b, first, self.size(row * u)) for u in range(r.unroll)]

    def lane_addresses(self, access: ir.Load | ir.Store) -> list[str]:
        """A vector of addresses for each copy."""
        r = self.here
        b = self.buffers[access.buffer]
        offset = self.moves.offset(access)
        element, lanes = memory_type(b.dtype), f"<{r.width} x i64>"
        distance = self.stride(offset, r.var)
        regular = distance is not None and self.moving().isdisjoint(dims.symbols(offset) - {r.var})

        if regular and distance is not None and (r.tile is None or self.stride(offset, r.tile) is not None):
            steps = self.lane_steps(distance)
            return [self.let(f"getelementptr {element}, ptr {p}, {lanes} {steps}") for p in self.copies(access)]

        common, own = self._split(offset)
        p = self.pointer(b, common)
        return [
            self.let(f"getelementptr {element}, ptr {p}, {lanes} {self.size_in_lanes(own, u)}") for u in range(r.unroll)
        ]

    def _split(self, offset: Size) -> tuple[Size, Size]:
        """An offset as the part that all lanes of all copies agree about, and the rest."""
        common = {m: c for m, c in (offset.terms if isinstance(offset, Dim) else ()) if self.agrees(Dim.of({m: 1}))}
        part = Dim.of(common)
        return part, offset - part

    # -- loads

    def load(self, e: ir.Load) -> Value:
        b, r = self.buffers[e.buffer], self.region
        where = None if e.where is None else self.expr(e.where)
        offset = self.moves.offset(e)

        if r is None or (self.agrees(offset) and (where is None or not where.vector)):
            p = self.pointer(b, offset)
            if where is not None:
                p = self.let(f"select i1 {where.texts[0]}, ptr {p}, ptr %nothing")
            return self.uniform(e.dtype, self.load_scalar(e.dtype, p))

        masks = self.masks_with(where)
        move = self.lane_move(e)
        if r.tile is not None and move == "strided" and where is None and self.tile_move(e) == "unit":
            return Value(e.dtype, self.load_transposed(e), vector=True)
        if r.tile is not None and self.tile_move(e) == "irregular":
            move = "irregular"

        if move == "uniform" and where is None:
            scalars = [self.load_scalar(e.dtype, p) for p in self.copies(e, clamp=True)]
            return Value(e.dtype, [self.splat(llvm_type(e.dtype), x, r.width) for x in scalars], vector=True)
        if move == "unit":
            pairs = zip(self.copies(e), masks, strict=True)
            return Value(e.dtype, [self.load_vector(e.dtype, p, m) for p, m in pairs], vector=True)
        if move == "reversed":
            pairs = zip(self.copies(e), masks, strict=True)
            return Value(e.dtype, [self.load_reversed(b, p, m) for p, m in pairs], vector=True)
        pairs = zip(self.lane_addresses(e), masks, strict=True)
        return Value(e.dtype, [self.gather(e.dtype, ps, m) for ps, m in pairs], vector=True)

    def tile_move(self, access: ir.Load | ir.Store) -> Move:
        """How an access moves from copy to copy of a tile."""
        assert self.here.tile is not None
        return move_of(self.stride(self.moves.offset(access), self.here.tile))

    def masks_with(self, where: Value | None) -> Sequence[str | None]:
        """The lanes of each copy that are alive and where `where` holds; None for all."""
        r = self.here
        alive: Sequence[str | None] = r.masks or [None] * r.unroll
        if where is None:
            return alive
        holds = self.vectors(where)
        o = self.lanes(boolean, r.width)
        return [w if m is None else o.mask("and", m, w) for m, w in zip(alive, holds, strict=True)]

    def load_scalar(self, dtype: DType, p: str) -> str:
        return self.from_memory(dtype, 1, self.let(f"load {memory_type(dtype)}, ptr {p}, align {dtype.size}"))

    def load_vector(self, dtype: DType, p: str, mask: str | None) -> str:
        """Contiguous elements; 0 in lanes that the mask leaves out."""
        w = self.here.width
        lanes = memory_type(dtype, w)
        if mask is None:
            return self.from_memory(dtype, w, self.let(f"load {lanes}, ptr {p}, align {dtype.size}"))
        name = f"@llvm.masked.load.{_tag(dtype, w)}.p0"
        call = f"call {lanes} {name}(ptr {p}, i32 {dtype.size}, <{w} x i1> {mask}, {lanes} zeroinitializer)"
        return self.from_memory(dtype, w, self.let(call))

    def load_reversed(self, b: ir.Buffer, p: str, mask: str | None) -> str:
        """Elements that run downwards from p."""
        r = self.here
        low = self.bump(b, p, 1 - r.width)
        x = self.load_vector(b.dtype, low, None if mask is None else self.turned("i1", mask))
        return self.turned(llvm_type(b.dtype), x)

    def turned(self, scalar: str, x: str) -> str:
        """The lanes in reverse order."""
        w = self.here.width
        return self.shuffle(f"<{w} x {scalar}>", x, "poison", list(reversed(range(w))))

    def gather(self, dtype: DType, addresses: str, mask: str | None) -> str:
        w = self.here.width
        lanes = memory_type(dtype, w)
        name = f"@llvm.masked.gather.{_tag(dtype, w)}.v{w}p0"
        alive = f"<{w} x i1> {mask or 'splat (i1 true)'}"
        call = f"call {lanes} {name}(<{w} x ptr> {addresses}, i32 {dtype.size}, {alive}, {lanes} zeroinitializer)"
        return self.from_memory(dtype, w, self.let(call))

    def load_transposed(self, e: ir.Load) -> list[str]:
        """`width` rows that are contiguous along the tile, turned in registers by log2(width) rounds of shuffles."""
        r = self.here
        assert r.tile is not None
        w, b = r.width, self.buffers[e.buffer]
        first = self.pointer(b, self.moves.offset(e))
        row = self.distance(e, r.var)

        masks: list[str | None] = [None] * w
        if r.masks is not None:
            along = self.count_mask(r.room, w)
            o = self.lanes(boolean, w)
            alive = [self.let(f"extractelement <{w} x i1> {r.masks[0]}, i32 {q}") for q in range(w)]
            masks = [o.mask("and", along, self.splat("i1", bit, w)) for bit in alive]
        rows = [self.load_vector(e.dtype, self.bump(b, first, self.size(row * q)), masks[q]) for q in range(w)]

        lanes = llvm_type(e.dtype, w)
        half = 1
        while half < w:
            low = [q if not q & half else q - half + w for q in range(w)]
            high = [q + half if not q & half else q + w for q in range(w)]
            for q in range(w):
                if not q & half:
                    a, c = rows[q], rows[q + half]
                    rows[q] = self.shuffle(lanes, a, c, low)
                    rows[q + half] = self.shuffle(lanes, a, c, high)
            half *= 2
        return rows

    def count_mask(self, left: Known, w: int) -> str:
        """The first `left` of w lanes."""
        few = self.let(f"trunc i64 {self.lower(left, w)} to i32")
        o = self.lanes(i32, w)
        return o.compare("slt", numbers("i32", range(w)), self.splat("i32", few, w))

    # -- stores

    def store(self, s: ir.Store) -> None:
        b, r = self.buffers[s.buffer], self.region
        value = self.expr(s.value)

        if r is None:
            x = self.to_memory(b.dtype, 1, value.texts[0])
            p = self.pointer(b, self.moves.offset(s))
            self.line(f"  store {memory_type(b.dtype)} {x}, ptr {p}, align {b.dtype.size}")
            return

        move = self.lane_move(s)
        if r.tile is not None and self.tile_move(s) == "irregular":
            move = "irregular"
        xs = self.vectors(value)
        masks: Sequence[str | None] = r.masks or [None] * r.unroll
        if move == "unit" and r.left and all(isinstance(n, int) for n in r.left) and self._is_slow_under_masks(b):
            for x, p, n in zip(xs, self.copies(s), r.left, strict=True):
                self.store_first(b, x, p, int(n))
            return
        if move in ("unit", "reversed"):
            for x, p, m in zip(xs, self.copies(s), masks, strict=True):
                if move == "reversed":
                    x, p = self.turned(llvm_type(b.dtype), x), self.bump(b, p, 1 - r.width)
                    m = None if m is None else self.turned("i1", m)
                self.store_vector(b, x, p, m, past=r.stream and self.streams(s))
            return
        for x, ps, m in zip(xs, self.lane_addresses(s), masks, strict=True):
            self.scatter(b, x, ps, m)

    def store_vector(self, b: ir.Buffer, x: str, p: str, mask: str | None, past: bool) -> None:
        w = self.here.width
        lanes = memory_type(b.dtype, w)
        x = self.to_memory(b.dtype, w, x)
        if mask is not None:
            name = f"@llvm.masked.store.{_tag(b.dtype, w)}.p0"
            self.line(f"  call void {name}({lanes} {x}, ptr {p}, i32 {b.dtype.size}, <{w} x i1> {mask})")
        elif past:
            self.line(f"  store {lanes} {x}, ptr {p}, align {w * b.dtype.size}, !nontemporal !{{i32 1}}")
        else:
            self.line(f"  store {lanes} {x}, ptr {p}, align {b.dtype.size}")

    def _is_slow_under_masks(self, b: ir.Buffer) -> bool:
        """Stores under masks take a dozen instructions but on the widest vectors."""
        return self.target.bits < 512 or b.dtype.size < 4

    def store_first(self, b: ir.Buffer, x: str, p: str, count: int) -> None:
        """The first `count` lanes, in pieces that are powers of two."""
        w, lanes = self.here.width, memory_type(b.dtype, self.here.width)
        x = self.to_memory(b.dtype, w, x)
        count = min(count, w)
        done = 0
        while done < count:
            n = 1 << (count - done).bit_length() - 1
            part = x if n == w else self.shuffle(lanes, x, "poison", list(range(done, done + n)))
            piece = f"<{n} x {memory_type(b.dtype)}>"
            self.line(f"  store {piece} {part}, ptr {self.bump(b, p, done)}, align {b.dtype.size}")
            done += n

    def scatter(self, b: ir.Buffer, x: str, addresses: str, mask: str | None) -> None:
        w = self.here.width
        lanes = memory_type(b.dtype, w)
        x = self.to_memory(b.dtype, w, x)
        name = f"@llvm.masked.scatter.{_tag(b.dtype, w)}.v{w}p0"
        alive = mask or "splat (i1 true)"
        self.line(f"  call void {name}({lanes} {x}, <{w} x ptr> {addresses}, i32 {b.dtype.size}, <{w} x i1> {alive})")

    def streams(self, s: ir.Store) -> bool:
        """Whether a store of the vectorised grid variable can go past the caches."""
        r = self.region
        if r is None or self.lane_move(s) != "unit":
            return False
        return r.width * self.buffers[s.buffer].dtype.size in STREAMABLE

    # -- bools are bytes in memory

    def from_memory(self, dtype: DType, n: int, x: str) -> str:
        return self.lanes(u8, n).compare("ne", x, self.lanes(u8, n).c(0)) if dtype.is_bool else x

    def to_memory(self, dtype: DType, n: int, x: str) -> str:
        return self.let(f"zext {llvm_type(boolean, n)} {x} to {memory_type(boolean, n)}") if dtype.is_bool else x


def _tag(dtype: DType, n: int) -> str:
    return mangled(u8 if dtype.is_bool else dtype, n)
