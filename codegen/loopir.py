"""Loop IR: what one kernel does, every value typed, said once, printed and verified.

    Kernel(name, sizes, buffers, grid, body)      iterations of the grid are independent: the one promise
    Stmt = Let | Acc | Accum | Scan | For | Store
    Expr = Num | Var | Iter | Load | Call | Cast

An extent or one dimension of an index is a `Size`: an integer polynomial.  Its symbols are the kernel's sizes, the grid
and loop variables around it, and variables that a `Let` binds to an integer: through those an index depends on data.

A `Matmul` and a `Conv` stand beside `Kernel` for the two operations whose loops are worth generators of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tensorc.ir.dims import Size
from tensorc.ir.types import DType

Role = Literal["in", "out", "inout", "scratch"]
Index = tuple[Size, ...]


@dataclass(frozen=True)
class Buffer:
    """Row-major memory that a kernel reads or writes.

    An `inout` buffer is updated in place: an iteration of the grid touches only elements that no other iteration does.
    A `scratch` buffer belongs to the launch, usually of two kernels: one fills it, the next one reads it.
    """

    name: str
    dtype: DType
    shape: tuple[Size, ...]
    role: Role = "in"

    @property
    def writable(self) -> bool:
        return self.role != "in"


@dataclass(frozen=True)
class Num:
    """A literal."""

    value: float
    dtype: DType


@dataclass(frozen=True)
class Var:
    """A variable bound by Let or Scan, or an accumulator that is closed."""

    name: str
    dtype: DType


@dataclass(frozen=True)
class Iter:
    """The value of a size as data, i32 or i64: a loop variable (arange, one-hot), a size symbol (the n of a mean)."""

    size: Size
    dtype: DType


@dataclass(frozen=True)
class Load:
    """buffer[index].  Where the bool expression `where` is false nothing is read and the value is 0."""

    buffer: str
    index: Index
    dtype: DType
    where: Expr | None = None


@dataclass(frozen=True)
class Call:
    """A scalar function of the table in codegen/scalars.py."""

    fn: str
    args: tuple[Expr, ...]
    dtype: DType


@dataclass(frozen=True)
class Cast:
    """The argument converted as NumPy's `astype` does."""

    arg: Expr
    dtype: DType


Expr = Num | Var | Iter | Load | Call | Cast


@dataclass(frozen=True)
class Let:
    """var = value; an integer variable may stand in indices and extents from here on."""

    var: str
    value: Expr


@dataclass(frozen=True)
class Acc:
    """Opens an accumulator at the identity of `op`; readable as a Var after each loop of this scope that feeds it.

    Of argmax and argmin the value is read as Var(var, dtype) and the index as Var(var + ".index", i64).
    """

    var: str
    op: str
    dtype: DType


@dataclass(frozen=True)
class Accum:
    """acc = op(acc, values).  argmax and argmin take (value, index: i32); the first index wins ties, NaN wins all."""

    acc: str
    values: tuple[Expr, ...]


@dataclass(frozen=True)
class Scan:
    """acc = op(acc, value); var = acc: the one way to read an accumulator inside the loop that feeds it."""

    var: str
    acc: str
    value: Expr


@dataclass(frozen=True)
class For:
    """body for var = 0 … extent - 1, in this order."""

    var: str
    extent: Size
    body: tuple[Stmt, ...]


@dataclass(frozen=True)
class Store:
    """buffer[index] = value."""

    buffer: str
    index: Index
    value: Expr


Stmt = Let | Acc | Accum | Scan | For | Store
Body = tuple[Stmt, ...]


@dataclass(frozen=True)
class Kernel:
    """`body` for every point of `grid`, in any order and at the same time."""

    name: str
    sizes: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    grid: tuple[tuple[str, Size], ...]
    body: Body

    def buffer(self, name: str) -> Buffer:
        return next(b for b in self.buffers if b.name == name)

    def __str__(self) -> str:
        from tensorc.codegen.looptext import kernel_text
        return kernel_text(self)


AGE = "kept.age"
"""A size of products: how many calls before this one have found the variables that it depends on as they are now."""


@dataclass(frozen=True)
class Matmul:
    """c[batch…, i, j] = Σ_k a[batch…, i, k] · b[batch…, k, j], then the epilogue over every element.

    The first three of `buffers` are a (…, m, k), b (…, k, n) and c (…, m, n); a transposed operand is stored with its
    last two dimensions swapped.  Batch dimensions of a and b may be 1 or missing on the left: they broadcast.
    `epilogue` is an elementwise kernel over the grid (batch…, i < m, j < n) and the same buffers; it reads c at its own
    point only.  `lasting` says that many products have the same b, one after the other.  Where AGE is among `sizes`, b
    stays as it is from call to call, and so does the scratch memory.
    """

    name: str
    sizes: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    batch: tuple[Size, ...]
    m: Size
    n: Size
    k: Size
    transpose_a: bool = False
    transpose_b: bool = False
    epilogue: Kernel | None = None
    lasting: bool = False

    @property
    def a(self) -> Buffer:
        return self.buffers[0]

    @property
    def b(self) -> Buffer:
        return self.buffers[1]

    @property
    def c(self) -> Buffer:
        return self.buffers[2]

    @property
    def names(self) -> tuple[str, ...]:
        """Names for the loops (batch…, i, j, k) and the sum, different from those of sizes and buffers."""
        taken = {*self.sizes, *(b.name for b in self.buffers)}
        found: list[str] = []
        for name in (*(f"b{d}" for d in range(len(self.batch))), "i", "j", "k", "total"):
            while name in taken:
                name += "_"
            found.append(name)
        return tuple(found)

    def __str__(self) -> str:
        from tensorc.codegen.looptext import matmul_text
        return matmul_text(self)


ConvKind = Literal["forward", "input_gradient", "weight_gradient"]


@dataclass(frozen=True)
class Conv:
    """One of three tensors from the two others, then the epilogue over every element of it.

        y[b, p, o] = Σ_{q, c} x[b, p·stride + q·dilation − low, c] · w[q, c, o]        for the q that read inside x

    x is [b, *s, ci], w is [*k, ci/groups, co], y is [b, *p, co], with one to three spatial axes; group number g of the
    channels of y reads group g of those of x.  The first three of `buffers` are x, w, y of a `forward` convolution; y,
    w, x of an `input_gradient`; x, y, w of a `weight_gradient`: the third is the result, and the two gradients are the
    sums that this formula's derivatives are.  Channels and the sizes of w are numbers, the others may be symbols.
    `epilogue` is an elementwise kernel over the result's elements and the same buffers; it reads the result at its own
    point only.  Where AGE is among `sizes`, the second buffer stays as it is from call to call, and so does the scratch
    memory.
    """

    kind: ConvKind
    name: str
    sizes: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[Size, ...]
    groups: int = 1
    epilogue: Kernel | None = None

    @property
    def x(self) -> Buffer:
        return self.buffers[2 if self.kind == "input_gradient" else 0]

    @property
    def w(self) -> Buffer:
        return self.buffers[2 if self.kind == "weight_gradient" else 1]

    @property
    def y(self) -> Buffer:
        return self.buffers[{"forward": 2, "input_gradient": 0, "weight_gradient": 1}[self.kind]]

    @property
    def result(self) -> Buffer:
        return self.buffers[2]

    def __str__(self) -> str:
        from tensorc.codegen.looptext import conv_text
        return conv_text(self)


Work = Kernel | Matmul | Conv
"""What one launch does, or several after one another."""


# The identity of each accumulator, "low" and "high" standing for the extremes of its dtype.
ACCUMULATORS: dict[str, float | Literal["low", "high"]] = {
    "add": 0,
    "mul": 1,
    "max": "low",
    "min": "high",
    "argmax": "low",
    "argmin": "high",
    "and": 1,
    "or": 0,
}
ARG_ACCUMULATORS = ("argmax", "argmin")
NO_INDEX = 2**31 - 1
"""The index of an arg-accumulator that has seen nothing: later than any other."""


def identity(op: str, dtype: DType) -> float:
    """What an accumulator holds before it has seen anything, and the result of an empty reduction."""
    start = ACCUMULATORS[op]
    if not isinstance(start, str):
        return start
    if dtype.is_bool:
        return start == "high"
    if dtype.is_float:
        return float("inf") if start == "high" else float("-inf")
    bits = 8 * dtype.size
    low, high = (0, 2**bits - 1) if dtype.short[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return high if start == "high" else low


def children(e: Expr) -> tuple[Expr, ...]:
    """The expressions directly inside an expression."""
    match e:
        case Call(_, args, _):
            return args
        case Cast(arg, _):
            return (arg,)
        case Load(where=where) if where is not None:
            return (where,)
    return ()


def walk(e: Expr) -> Iterator[Expr]:
    """An expression and all inside it, outermost first."""
    yield e
    for inner in children(e):
        yield from walk(inner)


def values(s: Stmt) -> tuple[Expr, ...]:
    """The expressions a statement evaluates itself, those of a loop's body excluded."""
    match s:
        case Let(_, value) | Scan(_, _, value) | Store(_, _, value):
            return (value,)
        case Accum(_, several):
            return several
    return ()


def statements(body: Body) -> Iterator[Stmt]:
    """Every statement of a body, those inside loops included, in program order."""
    for s in body:
        yield s
        if isinstance(s, For):
            yield from statements(s.body)


def expressions(body: Body) -> Iterator[Expr]:
    """Every expression of a body, nested ones included."""
    for s in statements(body):
        for e in values(s):
            yield from walk(e)


def accesses(body: Body, inside: tuple[For, ...] = ()) -> Iterator[tuple[Load | Store, tuple[For, ...]]]:
    """Every load and store in program order, with the loops around it, outermost first."""
    for s in body:
        if isinstance(s, For):
            yield from accesses(s.body, (*inside, s))
            continue
        for value in values(s):
            yield from ((e, inside) for e in walk(value) if isinstance(e, Load))
        if isinstance(s, Store):
            yield s, inside


def fed(s: Stmt) -> frozenset[str]:
    """The accumulators that a statement feeds, itself or in its loops."""
    return frozenset(x.acc for x in statements((s,)) if isinstance(x, Accum | Scan))
