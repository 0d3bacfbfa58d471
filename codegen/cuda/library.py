"""What NVIDIA's libraries can do of a program, said so that a runtime can ask them: products and convolutions.

A call says what a launch does, and which kernels of ours do the same.  Whether a library does it is decided where the
device and the sizes are known: it may have nothing for them.  Nothing here knows the libraries themselves.

A bias that follows is theirs to add; whatever else does is a kernel of ours.  They have more, but not what it says:
cuBLASLt's and cuDNN's relu make 0 of a NaN, and of their gelu no error bound is told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tensorc.codegen import loopir as ir
from tensorc.codegen.loopir import ConvKind
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.types import DType, bf16, f16, f32, f64

DTYPES = (f16, bf16, f32, f64)
"""What the libraries compute with; floats of 16 bits are summed in float32."""

FIRST, SECOND, RESULT = range(3)
"""Where the operands and the result stand among the buffers of a product or a convolution."""


@dataclass(frozen=True)
class Part:
    """A kernel of ours, and which buffers and sizes of the launch are its own, in its order."""

    kernel: str
    buffers: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Parts:
    """The kernels of ours that a call stands for, or leaves something to.

    Attributes:
        alone: those that do all of it, one after the other.
        finish: the one that does what the library does not.
    """

    alone: tuple[Part, ...]
    finish: Part | None


@dataclass(frozen=True)
class Batch:
    """`count` products, whose operands and results lie `strides` elements apart; 0 for one that they share."""

    count: Size
    strides: tuple[Size, Size, Size]


@dataclass(frozen=True)
class ProductCall:
    """c[m, n] = a[m, k] · b[k, n], each row-major in memory, for each point of `batches`, which are nested.

    A transposed operand is stored with its dimensions swapped.  `bias` is the buffer of n numbers that every row of c
    has added.
    """

    sizes: tuple[str, ...]
    dtype: DType
    result: DType
    m: Size
    n: Size
    k: Size
    transpose_a: bool
    transpose_b: bool
    batches: tuple[Batch, ...]
    bias: int | None
    parts: Parts

    library = "cuBLASLt"

    def __str__(self) -> str:
        a, b = _matrix(self.m, self.k, self.transpose_a), _matrix(self.k, self.n, self.transpose_b)
        summed = "" if self.result is self.dtype else f" of {self.dtype}"
        told = [f"{self.result} [{self.m}, {self.n}] = {a} · {b}{summed}"]
        told += [f"{each.count} times, {', '.join(map(str, each.strides))} further on" for each in self.batches]
        return _told(self, told)


@dataclass(frozen=True)
class ConvolutionCall:
    """One of x, w and y from the two others, as the loop IR's `Conv` has it: channels last, w as [*k, ci / groups, co].

    `bias` is the buffer of as many numbers as the result has channels.
    """

    kind: ConvKind
    sizes: tuple[str, ...]
    dtype: DType
    x: tuple[Size, ...]
    w: tuple[Size, ...]
    y: tuple[Size, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[Size, ...]
    groups: int
    bias: int | None
    parts: Parts

    library = "cuDNN"

    def __str__(self) -> str:
        x, w, y = (f"{name} {list(shape)}" for name, shape in (("x", self.x), ("w", self.w), ("y", self.y)))
        told = [f"{self.dtype} {self.kind.replace('_', ' ')}, {x}, {w}, {y}"]
        usual: dict[str, tuple[Size, ...]] = {"strides": self.strides, "dilations": self.dilations, "low": self.low}
        told += [f"{name} {list(at)}" for name, at in usual.items() if any(a != (name != "low") for a in at)]
        told += [f"{self.groups} groups"] if self.groups != 1 else []
        return _told(self, told)


Call = ProductCall | ConvolutionCall


def call_of(work: ir.Matmul | ir.Conv, parts: Parts) -> Call | None:
    """The call that does the work of a kernel; None where there is none.

    Args:
        parts: our kernels for all of it, and that of its epilogue where it has one.
    """
    first, second, result = work.buffers[:3]
    half_to_single = isinstance(work, ir.Matmul) and first.dtype.is_half and result.dtype is f32
    if first.dtype not in DTYPES or first.dtype is not second.dtype or not (
            result.dtype is first.dtype or half_to_single):
        return None
    takes_bias = isinstance(work, ir.Matmul) or work.kind == "forward"
    bias = bias_of(work.epilogue, result) if takes_bias and work.epilogue is not None else None
    at = None if bias is None else [b.name for b in work.buffers].index(bias)
    rest = parts if bias is None else replace(parts, finish=None)
    if isinstance(work, ir.Conv):
        return ConvolutionCall(work.kind, work.sizes, first.dtype, work.x.shape, work.w.shape, work.y.shape,
                               work.strides, work.dilations, work.low, work.groups, at, rest)
    m, batches = work.m, _batches(work)
    if batches and batches[-1].strides[SECOND] == 0 and not work.transpose_a:
        m, batches = batches[-1].count * m, batches[:-1]        # the rows of all products are rows of one
    return ProductCall(work.sizes, first.dtype, result.dtype, m, work.n, work.k, work.transpose_a, work.transpose_b,
                       batches, at, rest)


def bias_of(epilogue: ir.Kernel, result: ir.Buffer) -> str | None:
    """The buffer whose numbers an epilogue adds to the last axis of a product, if that is all that it does."""
    stores = [s for s in ir.statements(epilogue.body) if isinstance(s, ir.Store)]
    lets = {s.var: s.value for s in ir.statements(epilogue.body) if isinstance(s, ir.Let)}
    point = tuple(0 if extent == 1 else dims.symbol(var) for var, extent in epilogue.grid)
    if len(stores) != 1 or len(lets) + 1 != len(list(ir.statements(epilogue.body))):
        return None
    (store,) = stores

    def seen(e: ir.Expr) -> ir.Expr:
        """An expression without names, and without the casts that half precision goes through."""
        while isinstance(e, ir.Var) and e.name in lets or isinstance(e, ir.Cast) and e.dtype.wide is e.arg.dtype.wide:
            e = lets[e.name] if isinstance(e, ir.Var) else e.arg
        return e

    total = seen(store.value)
    if not (isinstance(total, ir.Call) and total.fn == "add"):
        return None
    one, other = map(seen, total.args)
    if isinstance(other, ir.Load) and other.buffer == result.name:
        one, other = other, one
    own = result.name, point
    if not (isinstance(one, ir.Load) and (one.buffer, one.index, one.where) == (*own, None)
            and (store.buffer, store.index) == own and isinstance(other, ir.Load) and other.where is None):
        return None
    added = epilogue.buffer(other.buffer)
    is_row = added.shape[-1:] == result.shape[-1:] and all(size == 1 for size in added.shape[:-1])
    along = (*(0 for _ in added.shape[:-1]), point[-1])
    is_bias = is_row and other.index == along and added.dtype is result.dtype and added.name != result.name
    return added.name if is_bias else None


def _batches(mm: ir.Matmul) -> tuple[Batch, ...]:
    """The nested batches of a product, with neighbours made one where every operand lets them."""
    rank = len(mm.batch)
    shapes = [(*(1 for _ in range(rank + 2 - len(b.shape))), *b.shape) for b in mm.buffers[:3]]
    found: list[Batch] = []
    shared: list[tuple[bool, ...]] = []
    for d, count in enumerate(mm.batch):
        if count == 1:
            continue
        alone = tuple(shape[d] == 1 for shape in shapes)
        strides = tuple(0 if single else dims.product(shape[d + 1:])
                        for single, shape in zip(alone, shapes, strict=True))
        if shared and shared[-1] == alone:
            count = found.pop().count * count
        else:
            shared.append(alone)
        found.append(Batch(count, (strides[0], strides[1], strides[2])))
    return tuple(found)


def _matrix(rows: Size, columns: Size, transposed: bool) -> str:
    return f"[{columns}, {rows}]ᵀ" if transposed else f"[{rows}, {columns}]"


def _told(call: Call, told: list[str]) -> str:
    told += [f"buffer {call.bias} added"] if call.bias is not None else []
    told += [f"then {call.parts.finish.kernel}"] if call.parts.finish is not None else []
    return f"by {call.library}: {'; '.join(told)}; or {', '.join(part.kernel for part in call.parts.alone)}"
