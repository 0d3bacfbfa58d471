"""The statements of a kernel for one thread that does one iteration, or several neighbouring ones as lanes.

    x_l[0], x_l[1], x_l[2], x_l[3] = load4(x, p)
    for l in range(4):
        v0 = libdevice.expf(x_l[l])
        y_l[l] = v0
    store4(y, p, (y_l[0], y_l[1], y_l[2], y_l[3]))

Lanes are a loop in the text, not copies of it: code for them is made in a ninth of the time.  Such arrays are
registers, for every index into them is known once that loop is unrolled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from tensorc.codegen import loopir as ir
from tensorc.codegen.cuda.scalars import literal
from tensorc.codegen.cuda.text import Writer, memory_kind, spelled, to_memory
from tensorc.codegen.keep import names_in
from tensorc.codegen.moves import Moves
from tensorc.errors import InternalError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.types import DType, i32


@dataclass(frozen=True)
class Lanes:
    """Iterations of one variable that a thread does at a time.

    Attributes:
        var: the grid or loop variable.
        width: neighbours in one vector.
        starts: for each vector the text of its first iteration.
        apart: iterations from one vector to the next.
        below: the text of the variable's extent, where vectors may reach beyond it.
    """

    var: str
    width: int
    starts: tuple[str, ...]
    apart: int = 0
    below: str | None = None

    @property
    def count(self) -> int:
        return self.width * len(self.starts)


@dataclass
class Held:
    """Values that one loop over the lanes leaves in registers for another.

    Attributes:
        save, reuse: the array of each variable that is saved to one, or read from one instead of being computed.
        slot: the text of a lane's place in them.
    """

    save: dict[str, str] = field(default_factory=dict)
    reuse: dict[str, str] = field(default_factory=dict)
    slot: str = "l"


class LaneWriter(Writer):
    """A writer of statements.

    Attributes:
        arrays: the registers of each variable that differs between lanes and is read outside of the loop that sets it.
        held: what stays in registers from one loop over the lanes to another.
        lane: the lanes, inside the loop over them.
        fed_by_lanes: accumulators of a thread that every lane feeds, though its value may be the same for all.
        loaded_vectors: the arrays of what has been loaded for the lanes.
    """

    def __init__(self, k: ir.Kernel) -> None:
        super().__init__(k, k.body)
        self.kernel = k
        self.moves = Moves(k)
        self.accs = {s.var: s for s in ir.statements(k.body) if isinstance(s, ir.Acc)}
        self.uses = _uses(ir.statements(k.body))
        self.arrays: dict[str, str] = {}
        self.held = Held()
        self.lane: Lanes | None = None
        self.fed_by_lanes: frozenset[str] = frozenset()
        self.loaded_vectors: dict[tuple[str, ir.Index], str] = {}

    def body(self, body: ir.Body, lanes: Lanes | None) -> None:
        """All statements of a body."""
        pending: list[ir.Stmt] = []
        for s in body:
            if lanes is not None and not isinstance(s, ir.For) and self.is_of_lanes(s, lanes):
                if self.meets(s, pending):
                    self.flush(pending, lanes)
                    pending = []
                pending.append(s)
                continue
            if isinstance(s, ir.For):
                self.flush(pending, lanes)
                pending = []
            self.statement(s, lanes)
        self.flush(pending, lanes)

    def statement(self, s: ir.Stmt, lanes: Lanes | None) -> None:
        """One statement that is the same for all lanes, or a loop."""
        match s:
            case ir.Let(var, value):
                self.line(f"{spelled(var)} = {self.expr(value)}")
            case ir.Acc(var, op, dtype):
                self.line(f"{spelled(var)} = {literal(ir.identity(op, dtype), dtype)}")
                if op in ir.ARG_ACCUMULATORS:
                    self.values[f"{var}.index"] = self.fresh(f"{var}_index")
                    self.line(f"{self.values[f'{var}.index']} = {literal(ir.NO_INDEX, i32)}")
            case ir.Accum(acc, several):
                self.feed(acc, tuple(self.bind(self.expr(v)) for v in several))
            case ir.Scan(var, acc, value):
                self.feed(acc, (self.bind(self.expr(value)),))
                self.line(f"{spelled(var)} = {self.value(acc)}")
            case ir.Store(value=value):
                self.stored(s, self.bind(self.expr(value)) if not isinstance(value, ir.Num) else self.expr(value))
            case ir.For():
                self.loop(s, lanes)

    def loop(self, s: ir.For, lanes: Lanes | None) -> None:
        """A loop whose iterations follow one another."""
        with self.counted(s.var, self.size(s.extent)):
            self.body(s.body, lanes)

    def counted(self, var: str, extent: str, start: str = "I(0)", step: str = "I(1)") -> AbstractContextManager[None]:
        """The head of a loop over a variable."""
        self.places[var] = spelled(var)
        return self.block(f"for {spelled(var)} in range({start}, {extent}, {step}):")

    def feed(self, acc: str, several: Sequence[str]) -> None:
        """acc = op(acc, values)."""
        s, name = self.accs[acc], self.value(acc)
        if s.op in ir.ARG_ACCUMULATORS:
            return self.feed_pair(s, name, self.value(f"{acc}.index"), *several)
        return self.line(f"{name} = {combined(s.op, s.dtype, name, several[0])}")

    def feed_pair(self, s: ir.Acc, name: str, index: str, value: str, at: str) -> None:
        """The better of two candidates: NaN first, then the better value, then the earlier index."""
        wins = better(s, value, at, name, index, self)
        self.line(f"{index} = select({wins}, {at}, {index})")
        self.line(f"{name} = select({wins}, {value}, {name})")

    # -- lanes

    def is_of_lanes(self, s: ir.Stmt, lanes: Lanes) -> bool:
        """Whether a statement differs between lanes."""
        if isinstance(s, ir.Acc):
            return lanes.var in self.moves.varies[s.var]
        if isinstance(s, ir.Store):
            return True
        if isinstance(s, ir.Accum | ir.Scan) and lanes.var in self.moves.varies[s.acc]:
            return True
        fed = isinstance(s, ir.Accum) and s.acc in self.fed_by_lanes
        return fed or any(lanes.var in self.moves.loops_of(value) for value in ir.values(s))

    def meets(self, s: ir.Stmt, pending: Sequence[ir.Stmt]) -> bool:
        """Whether a statement reads what one of those before it stores, or stores there too."""
        stored = {p.buffer for p in pending if isinstance(p, ir.Store)}
        read = {e.buffer for v in ir.values(s) for e in ir.walk(v) if isinstance(e, ir.Load)}
        return not stored.isdisjoint(read) or isinstance(s, ir.Store) and s.buffer in stored

    def flush(self, pending: Sequence[ir.Stmt], lanes: Lanes | None) -> None:
        """Writes statements as a loop over the lanes, with the loads before it and the stores after it in vectors."""
        if not pending:
            return
        assert lanes is not None
        self.lane = lanes
        within = _uses(pending)
        for s in pending:
            if isinstance(s, ir.Acc):
                self.arrays[s.var] = self.array(f"{s.var}_l", lanes.count, s.dtype)
                if s.op in ir.ARG_ACCUMULATORS:
                    self.arrays[f"{s.var}.index"] = self.array(f"{s.var}_index_l", lanes.count, i32)
            elif isinstance(s, ir.Let | ir.Scan) and self.uses[s.var] > within[s.var]:
                self.arrays[s.var] = self.array(f"{s.var}_l", lanes.count, s.value.dtype)

        loaded: dict[tuple[str, ir.Index], str] = {}
        for s in pending:
            if isinstance(s, ir.Let) and s.var in self.held.reuse:
                continue
            for e in (e for v in ir.values(s) for e in ir.walk(v) if isinstance(e, ir.Load)):
                if (e.buffer, e.index) not in loaded and self.is_wide(e, lanes):
                    loaded[e.buffer, e.index] = self.load_vectors(e, lanes)

        stored = {s: self.memory_array(s.buffer, lanes)
                  for s in pending if isinstance(s, ir.Store) and self.is_wide(s, lanes)}
        with self.block(f"for l in range({lanes.count}):"):
            before = dict(self.places), dict(self.values)
            self.places.pop(lanes.var, None)
            self.loaded_vectors = loaded
            for s in pending:
                self.of_lane(s, lanes, stored)
            self.loaded_vectors = {}
            self.places, self.values = before
        for store, array in stored.items():
            self.store_vectors(store, array, lanes)
        self.lane = None

    def of_lane(self, s: ir.Stmt, lanes: Lanes, stored: Mapping[ir.Store, str]) -> None:
        """A statement inside the loop over lanes; `stored` are the arrays of what is stored in vectors after it."""
        match s:
            case ir.Let(var, value):
                name = spelled(var)
                if var in self.held.reuse:
                    self.line(f"{name} = {self.held.reuse[var]}[{self.held.slot}]")
                else:
                    self.line(f"{name} = {self.expr(value)}")
                if var in self.held.save:
                    self.line(f"{self.held.save[var]}[{self.held.slot}] = {name}")
                if var in self.arrays:
                    self.line(f"{self.arrays[var]}[l] = {name}")
                self.values[var] = name
            case ir.Acc(var, op, dtype):
                self.line(f"{self.arrays[var]}[l] = {literal(ir.identity(op, dtype), dtype)}")
                if op in ir.ARG_ACCUMULATORS:
                    self.line(f"{self.arrays[f'{var}.index']}[l] = {literal(ir.NO_INDEX, i32)}")
            case ir.Accum(acc, several):
                self.feed(acc, tuple(self.bind(self.expr(v)) for v in several))
            case ir.Scan(var, acc, value):
                name = spelled(var)
                self.feed(acc, (self.bind(self.expr(value)),))
                self.line(f"{name} = {self.value(acc)}")
                if var in self.arrays:
                    self.line(f"{self.arrays[var]}[l] = {name}")
                self.values[var] = name
            case ir.Store(buffer, index, value):
                text = to_memory(self.expr(value), self.dtypes[buffer])
                if s in stored:
                    self.line(f"{stored[s]}[l] = {text}")
                elif lanes.below is None:
                    self.line(f"{spelled(buffer)}[{self.offset(buffer, index)}] = {text}")
                else:
                    text = self.bind(text)
                    with self.block(f"if {self.place(lanes.var)} < {lanes.below}:"):
                        self.line(f"{spelled(buffer)}[{self.offset(buffer, index)}] = {text}")

    def place(self, name: str) -> str:
        lanes = self.lane
        if lanes is not None and name == lanes.var and name not in self.places:
            self.places[name] = self.lane_index(lanes)
        return super().place(name)

    def value(self, name: str) -> str:
        if name in self.values:
            return self.values[name]
        if name in self.arrays:
            if self.lane is None:
                raise InternalError(f"{name} differs between lanes and is read outside of them")
            return f"{self.arrays[name]}[l]"
        return super().value(name)

    def lane_index(self, lanes: Lanes) -> str:
        """The iteration that a lane does, inside the loop over lanes."""
        name = self.fresh(f"{spelled(lanes.var)}_l")
        text = f"add({lanes.starts[0]}, I(l))"
        if len(lanes.starts) > 1:
            text = f"add({text}, mul(I({lanes.apart - lanes.width}), quo(I(l), I({lanes.width}))))"
        self.line(f"{name} = {text}")
        return name

    # -- memory

    def is_wide(self, access: ir.Load | ir.Store, lanes: Lanes) -> bool:
        """Whether the lanes of an access are whole aligned vectors."""
        return (
            lanes.width > 1
            and (isinstance(access, ir.Store) or access.where is None)
            and self.moves.move(access, lanes.var) == "unit"
            and is_multiple(self.moves.offset(access), lanes.var, lanes.width)
        )

    def load(self, e: ir.Load) -> str:
        lanes = self.lane
        if lanes is None or e.where is not None and lanes.below is None:
            return super().load(e)
        if (e.buffer, e.index) in self.loaded_vectors and e.where is None:
            text = f"{self.loaded_vectors[e.buffer, e.index]}[l]"
            return f"({text} != uint8(0))" if e.dtype.is_bool else text
        if lanes.below is None or lanes.var not in self.moves.loops_of(e):
            return super().load(e)
        inside = f"{self.place(lanes.var)} < {lanes.below}"
        condition = inside if e.where is None else f"both({inside}, {self.bind(self.expr(e.where))})"
        name = self.fresh("t")
        self.line(f"{name} = {literal(0, e.dtype)}")
        with self.block(f"if {condition}:"):
            self.line(f"{name} = {self.loaded(e.buffer, self.offset(e.buffer, e.index))}")
        return name

    def load_vectors(self, e: ir.Load, lanes: Lanes) -> str:
        """Loads the lanes of a buffer; the array they are in."""
        name = self.memory_array(e.buffer, lanes)
        limit = self.limit(e, lanes)
        for number, at in enumerate(self.vector_offsets(e, lanes)):
            slots = ", ".join(f"{name}[{number * lanes.width + k}]" for k in range(lanes.width))
            end = f"_below({spelled(e.buffer)}, {at}, {limit})" if limit else f"({spelled(e.buffer)}, {at})"
            self.line(f"{slots} = load{lanes.width}{end}")
        return name

    def memory_array(self, buffer: str, lanes: Lanes) -> str:
        """Registers for the lanes of a buffer, as memory holds them."""
        name = self.fresh(f"{buffer}_l")
        self.line(f"{name} = cuda.local.array({lanes.count}, {memory_kind(self.dtypes[buffer])})")
        return name

    def store_vectors(self, s: ir.Store, array: str, lanes: Lanes) -> None:
        """Stores the lanes that are in an array."""
        limit = self.limit(s, lanes)
        for number, at in enumerate(self.vector_offsets(s, lanes)):
            values = ", ".join(f"{array}[{number * lanes.width + k}]" for k in range(lanes.width))
            head = f"store{lanes.width}{'_below' if limit else ''}({spelled(s.buffer)}, {at}, ({values})"
            self.line(f"{head}, {limit})" if limit else f"{head})")

    def limit(self, access: ir.Load | ir.Store, lanes: Lanes) -> str | None:
        """The offset at which the lanes end, where they may reach beyond."""
        if lanes.below is None:
            return None
        self.places[lanes.var] = lanes.below
        text = self.offset(access.buffer, access.index)
        del self.places[lanes.var]
        return text

    def vector_offsets(self, access: ir.Load | ir.Store, lanes: Lanes) -> Iterator[str]:
        for start in lanes.starts:
            before = self.places.get(lanes.var)
            self.places[lanes.var] = start
            text = self.offset(access.buffer, access.index)
            if before is None:
                del self.places[lanes.var]
            else:
                self.places[lanes.var] = before
            yield text


def combined(op: str, dtype: DType, a: str, b: str) -> str:
    """Two values of an accumulator as one."""
    match op:
        case "add" | "mul":
            return f"{a} {'+' if op == 'add' else '*'} {b}" if dtype.is_float else f"{op}({a}, {b})"
        case "max" | "min":
            return f"{op}imum({a}, {b})"
    return f"{'both' if op == 'and' else 'either'}({a}, {b})"


def better(s: ir.Acc, value: str, at: str, other: str, other_at: str, writer: Writer) -> str:
    """A variable that tells whether the first of two candidates of argmax or argmin wins."""
    sign = ">" if s.op == "argmax" else "<"
    earlier = f"{at} < {other_at}"
    wins = writer.bind(f"either({value} {sign} {other}, both({value} == {other}, {earlier}))")
    if s.dtype.is_float:
        both = f"both(isnan({value}), {earlier})"
        wins = writer.bind(f"select(isnan({other}), {both}, either(isnan({value}), {wins}))")
    return wins


def is_multiple(size: Size, var: str, width: int) -> bool:
    """Whether a size is one of `width` wherever `var` is."""
    parts = dims.linear(size, var)
    if parts is None or not isinstance(parts[0], int):
        return False
    rest = parts[1]
    return rest % width == 0 if isinstance(rest, int) else all(c % width == 0 for _, c in rest.terms)


def _uses(several: Iterator[ir.Stmt] | Sequence[ir.Stmt]) -> Counter[str]:
    """How many statements read each variable, as a value or in an index."""
    found: Counter[str] = Counter()
    for s in several:
        found.update(names_in(s))
    return found
