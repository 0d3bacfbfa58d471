"""Kernels written by hand as lowering would write them, each with its meaning in NumPy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorc.codegen.loopir import (
    Acc,
    Accum,
    Buffer,
    Call,
    Cast,
    Expr,
    For,
    Iter,
    Kernel,
    Let,
    Load,
    Num,
    Scan,
    Stmt,
    Store,
    Var,
)
from tensorc.codegen.scalars import SCALARS
from tensorc.codegen.transform import collapse, merge_loops, split
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.types import DType, bf16, boolean, f16, f32, f64, i8, i32, i64, parse_type, split_commas, u8

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Case:
    """Kernels that run one after the other over named arrays.

    Attributes:
        meaning: the outputs, from the inputs.
        dtypes: what to make the kernels for; vector widths other than the host's run the first one.
        exact: bit-equality is asked for floats too.
        empty: whether extents of 0 are defined by the meaning.
    """

    make: Callable[[DType], list[Kernel]]
    meaning: Callable[..., Arrays]
    dtypes: tuple[DType, ...] = (f32, f64)
    exact: bool = False
    empty: bool = True


CASES: dict[str, Case] = {}


def index(text: str) -> tuple[Size, ...]:
    return tuple(map(dims.parse, split_commas(text)))


def buffers(text: str, **types: DType) -> tuple[Buffer, ...]:
    """`x: t[n,m]; out y: t[n]` with `t` replaced by its dtype."""
    found = []
    for part in text.split(";"):
        head, _, kind = part.partition(":")
        *role, name = head.split()
        element, bracket, rest = kind.strip().partition("[")
        full = parse_type(f"{types.get(element, element)}{bracket}{rest}")
        found.append(Buffer(name, full.dtype, full.shape, role[0] if role else "in"))  # type: ignore[arg-type]
    return tuple(found)


def kernel(name: str, parameters: str, grid: str, *body: Stmt, t: DType = f32) -> Kernel:
    extents = tuple((v.strip(), dims.parse(n)) for v, n in (g.split("<") for g in split_commas(grid)))
    own = buffers(parameters, t=t)
    used = {s for b in own for size in b.shape for s in dims.symbols(size)}
    used |= {s for _, n in extents for s in dims.symbols(n)}
    return Kernel(name, tuple(sorted(used)), own, extents, tuple(body))


def load(buffer: str, at: str, t: DType = f32, where: Expr | None = None) -> Load:
    return Load(buffer, index(at), t, where)


def store(buffer: str, at: str, value: Expr) -> Store:
    return Store(buffer, index(at), value)


def call(fn: str, *args: Expr) -> Call:
    result = SCALARS[fn].result(tuple(a.dtype for a in args))
    assert result is not None
    return Call(fn, args, result)


def var(name: str, t: DType = f32) -> Var:
    return Var(name, t)


def size_as(text: str, t: DType) -> Expr:
    return Cast(Iter(dims.parse(text), i64), t)


def loop(v: str, extent: str, *body: Stmt) -> For:
    return For(v, dims.parse(extent), tuple(body))


def define(meaning: Callable[..., Arrays], name: str = "", **options: Any) -> Callable[[Any], Any]:
    def register(make: Callable[[DType], Kernel | list[Kernel]]) -> Any:
        def listed(t: DType) -> list[Kernel]:
            made = make(t)
            return made if isinstance(made, list) else [made]

        CASES[name or make.__name__] = Case(listed, meaning, **options)
        return make

    return register


# -- elementwise


def chain_meaning(x: Any, r: Any, c: Any) -> Arrays:
    t = x * r + c
    u = np.maximum(t * t + r, 0)
    return {"y": (u * c + t) / (1 + np.abs(x))}


def chain_body(t: DType, r: str, c: str, v: Callable[[str], Var]) -> tuple[Stmt, ...]:
    return (
        Let("r0", load("r", r, t)),
        Let("x0", load("x", "i,j", t)),
        Let("c0", load("c", c, t)),
        Let("t1", call("add", call("mul", v("x0"), v("r0")), v("c0"))),
        Let("t3", call("add", call("mul", v("t1"), v("t1")), v("r0"))),
        Let("t4", call("maximum", v("t3"), Num(0.0, t))),
        Let("t5", call("add", call("mul", v("t4"), v("c0")), v("t1"))),
        store("y", "i,j", call("div", v("t5"), call("add", Num(1.0, t), call("abs", v("x0"))))),
    )


@define(chain_meaning)
def chain(t: DType) -> Kernel:
    body = chain_body(t, "i,0", "0,j", lambda n: var(n, t))
    return kernel("chain", "x: t[n,m]; r: t[n,1]; c: t[1,m]; out y: t[n,m]", "i<n, j<m", *body, t=t)


@define(chain_meaning)
def flat_chain(t: DType) -> Kernel:
    body = chain_body(t, "i,j", "i,j", lambda n: var(n, t))
    return collapse(kernel("flat_chain", "x: t[n,m]; r: t[n,m]; c: t[n,m]; out y: t[n,m]", "i<n, j<m", *body, t=t))


@define(lambda k, mask, x: {"y": np.where(mask, k.astype("f4") * x, 0), "big": np.where(mask, k * x, 0) > 0.5},
        dtypes=(f32,))
def mixed(t: DType) -> Kernel:
    scaled = call("mul", Cast(load("k", "i,j", i32), t), load("x", "i,j", t))
    return collapse(kernel(
        "mixed", "k: i32[n,m]; mask: bool[n,m]; x: t[n,m]; out y: t[n,m]; out big: bool[n,m]", "i<n, j<m",
        Let("v", call("select", load("mask", "i,j", boolean), scaled, Num(0.0, t))),
        store("y", "i,j", var("v", t)),
        store("big", "i,j", call("gt", var("v", t), Num(0.5, t))),
        t=t,
    ))


@define(lambda x, r, c: {"y": x.T * r + c})
def transpose(t: DType) -> Kernel:
    value = call("add", call("mul", load("x", "j,i", t), load("r", "i,0", t)), load("c", "0,j", t))
    return kernel("transpose", "x: t[n,m]; r: t[m,1]; c: t[1,n]; out y: t[m,n]", "i<m, j<n",
                  store("y", "i,j", value), t=t)


@define(lambda x: {"y": (x.astype("f4") * 2 + 1).astype(x.dtype)}, dtypes=(f16, bf16), exact=True)
def half_storage(t: DType) -> Kernel:
    wide = Cast(load("x", "i,j", t), f32)
    value = call("add", call("mul", wide, Num(2.0, f32)), Num(1.0, f32))
    return collapse(kernel("half_storage", "x: t[n,m]; out y: t[n,m]", "i<n, j<m",
                           store("y", "i,j", Cast(value, t)), t=t))


@define(lambda x: {"y": x * x + x}, dtypes=(i8, u8, i32, i64))
def integer_wrap(t: DType) -> Kernel:
    x = load("x", "i,j", t)
    return kernel("integer_wrap", "x: t[n,m]; out y: t[n,m]", "i<n, j<m",
                  store("y", "i,j", call("add", call("mul", x, x), x)), t=t)


@define(lambda x: {"y": x * np.float32(1 / x.shape[1]) if x.shape[1] else x}, dtypes=(f32,))
def hoisted(t: DType) -> Kernel:
    """A uniform divisor inside the loop is computed before it."""
    inverse = call("div", Num(1.0, t), size_as("m", t))
    return kernel("hoisted", "x: t[n,m]; out y: t[n,m]", "i<n",
                  loop("j", "m", store("y", "i,j", call("mul", load("x", "i,j", t), inverse))), t=t)


# -- rows


@define(lambda x: {"y": (e := np.exp(x - x.max(1, keepdims=True))) / e.sum(1, keepdims=True)}, empty=False)
def softmax(t: DType) -> Kernel:
    return kernel(
        "softmax", "x: t[n,m]; out y: t[n,m]", "i<n",
        Acc("top", "max", t),
        loop("j0", "m", Accum("top", (load("x", "i,j0", t),))),
        Acc("s", "add", t),
        loop("j1", "m",
             Let("e", call("exp", call("sub", load("x", "i,j1", t), var("top", t)))),
             Accum("s", (var("e", t),)),
             store("y", "i,j1", var("e", t))),
        loop("j2", "m", store("y", "i,j2", call("div", load("y", "i,j2", t), var("s", t)))),
        t=t,
    )


@define(lambda x: {"y": np.log(np.exp(x - (m := x.max(1, keepdims=True))).sum(1)) + m[:, 0]}, empty=False)
def logsumexp(t: DType) -> Kernel:
    return kernel(
        "logsumexp", "x: t[n,m]; out y: t[n]", "i<n",
        Acc("top", "max", t),
        loop("j0", "m", Accum("top", (load("x", "i,j0", t),))),
        Acc("s", "add", t),
        loop("j1", "m", Accum("s", (call("exp", call("sub", load("x", "i,j1", t), var("top", t))),))),
        store("y", "i", call("add", call("log", var("s", t)), var("top", t))),
        t=t,
    )


def layernorm_meaning(x: Any, g: Any, b: Any) -> Arrays:
    d = x - x.mean(1, keepdims=True)
    return {"y": d / np.sqrt((d * d).mean(1, keepdims=True) + x.dtype.type(1e-5)) * g + b}


@define(layernorm_meaning, empty=False)
def layernorm(t: DType) -> Kernel:
    count = size_as("m", t)
    deviation = call("sub", load("x", "i,j1", t), var("mean", t))
    variance = call("add", call("div", var("q", t), count), Num(1e-5, t))
    scaled = call("mul", call("sub", load("x", "i,j2", t), var("mean", t)), var("rs", t))
    return kernel(
        "layernorm", "x: t[n,m]; g: t[m]; b: t[m]; out y: t[n,m]", "i<n",
        Acc("s", "add", t),
        loop("j0", "m", Accum("s", (load("x", "i,j0", t),))),
        Let("mean", call("div", var("s", t), count)),
        Acc("q", "add", t),
        loop("j1", "m", Let("d", deviation), Accum("q", (call("mul", var("d", t), var("d", t)),))),
        Let("rs", call("div", Num(1.0, t), call("sqrt", variance))),
        loop("j2", "m", store("y", "i,j2", call("add", call("mul", scaled, load("g", "j2", t)), load("b", "j2", t)))),
        t=t,
    )


def row_reduction(op: str, t: DType, result: str = "t") -> Kernel:
    return kernel(
        f"row_{op}", f"x: t[n,m]; out y: {result}[n]", "i<n",
        Acc("s", op, t),
        loop("j", "m", Accum("s", (load("x", "i,j", t),))),
        store("y", "i", var("s", t)),
        t=t,
    )


def column_reduction(op: str, t: DType) -> Kernel:
    return kernel(
        f"column_{op}", "x: t[n,m]; out y: t[m]", "j<m",
        Acc("s", op, t),
        loop("i", "n", Accum("s", (load("x", "i,j", t),))),
        store("y", "j", var("s", t)),
        t=t,
    )


def lowest(t: Any) -> Any:
    return -np.inf if t.kind == "f" else np.iinfo(t).min


REDUCTIONS: dict[str, Callable[[Any, int], Any]] = {
    "add": lambda x, axis: x.sum(axis, dtype=x.dtype),
    "mul": lambda x, axis: x.prod(axis, dtype=x.dtype),
    "max": lambda x, axis: x.max(axis, initial=lowest(x.dtype)),
    "min": lambda x, axis: -((-x).max(axis, initial=-np.inf)),
    "and": lambda x, axis: x.all(axis),
    "or": lambda x, axis: x.any(axis),
}
for op, reduce in REDUCTIONS.items():
    logical = op in ("and", "or")
    types = (boolean,) if logical else (f32, f64, i32, u8) if op in ("add", "max") else (f32,)
    define(lambda x, f=reduce: {"y": f(x, 1)}, f"row_{op}", dtypes=types)(lambda t, op=op: row_reduction(op, t))
    define(lambda x, f=reduce: {"y": f(x, 0)}, f"column_{op}", dtypes=types)(lambda t, op=op: column_reduction(op, t))


@define(lambda x: {"y": x.sum(0)})
def column_sum_split(t: DType) -> list[Kernel]:
    return list(split(column_reduction("add", t), "i", 16))


@define(lambda x: {"y": x.sum()[None], "top": x.max(initial=-np.inf)[None]})
def full_reductions_split(t: DType) -> list[Kernel]:
    k = kernel(
        "full_reductions", "x: t[n,m]; out y: t[1]; out top: t[1]", "",
        Acc("s", "add", t),
        loop("i", "n*m", Accum("s", (load("x", "i//m,i%m", t),))),
        Acc("h", "max", t),
        loop("k", "n*m", Accum("h", (load("x", "k//m,k%m", t),))),
        store("y", "0", var("s", t)),
        store("top", "0", var("h", t)),
        t=t,
    )
    return list(split(merge_loops(k), "i", 100))


@define(lambda x: {"mu": x.mean(0), "v": x.var(0)}, empty=False)
def column_moments(t: DType) -> Kernel:
    count = size_as("n", t)
    return kernel(
        "column_moments", "x: t[n,m]; out mu: t[m]; out v: t[m]", "j<m",
        Acc("s", "add", t),
        loop("i0", "n", Accum("s", (load("x", "i0,j", t),))),
        Let("mean", call("div", var("s", t), count)),
        store("mu", "j", var("mean", t)),
        Acc("q", "add", t),
        loop("i1", "n",
             Let("d", call("sub", load("x", "i1,j", t), var("mean", t))),
             Accum("q", (call("mul", var("d", t), var("d", t)),))),
        store("v", "j", call("div", var("q", t), count)),
        t=t,
    )


def argument(op: str, axis: int, t: DType) -> Kernel:
    grid, inner, extent = ("i<n", "j", "m") if axis == 1 else ("j<m", "i", "n")
    return kernel(
        f"{op}{axis}", f"x: t[n,m]; out y: i64[{'n' if axis == 1 else 'm'}]", grid,
        Acc("a", op, t),
        loop(inner, extent, Accum("a", (load("x", "i,j", t), Iter(dims.symbol(inner), i32)))),
        store("y", grid[0], var("a.index", i64)),
        t=t,
    )


for axis in (0, 1):
    define(lambda x, a=axis: {"y": x.argmax(a)}, f"argmax{axis}", dtypes=(f32, f64, i32), empty=False)(
        lambda t, a=axis: argument("argmax", a, t))
    define(lambda x, a=axis: {"y": x.argmin(a)}, f"argmin{axis}", dtypes=(f32, u8), empty=False)(
        lambda t, a=axis: argument("argmin", a, t))


@define(lambda x: {"y": np.ravel(x).argmax()[None]}, dtypes=(f32,), empty=False)
def argmax_split(t: DType) -> list[Kernel]:
    k = kernel(
        "argmax_all", "x: t[n,m]; out y: i64[1]", "",
        Acc("a", "argmax", t),
        loop("i", "n*m", Accum("a", (load("x", "i//m,i%m", t), Iter(dims.symbol("i"), i32)))),
        store("y", "0", var("a.index", i64)),
        t=t,
    )
    return list(split(k, "i", 64))


for op, accumulate in {"add": np.add.accumulate, "mul": np.multiply.accumulate, "max": np.maximum.accumulate}.items():
    def running(t: DType, op: str = op, grid: str = "i<n", inner: str = "j", extent: str = "m") -> Kernel:
        return kernel(
            f"running_{op}_{inner}", "x: t[n,m]; out y: t[n,m]", grid,
            Acc("s", op, t),
            loop(inner, extent, Scan("p", "s", load("x", "i,j", t)), store("y", "i,j", var("p", t))),
            t=t,
        )

    define(lambda x, f=accumulate: {"y": f(x, 1, x.dtype)}, f"running_{op}_row", dtypes=(f32, i32))(running)
    define(lambda x, f=accumulate: {"y": f(x, 0, x.dtype)}, f"running_{op}_column", dtypes=(f32, f64))(
        lambda t, f=running: f(t, grid="j<m", inner="i", extent="n"))


@define(lambda x: {"y": x.sum((1, 2))}, "sum_last_two")
def _(t: DType) -> Kernel:
    inner = loop("j", "m", Accum("s", (load("x", "i,a,j", t),)))
    return kernel("sum_last_two", "x: t[n,5,m]; out y: t[n]", "i<n",
                  Acc("s", "add", t), loop("a", "5", inner), store("y", "i", var("s", t)), t=t)


@define(lambda x: {"y": x.sum((0, 2))}, "sum_outer_two")
def _(t: DType) -> Kernel:
    inner = loop("j", "m", Accum("s", (load("x", "a,i,j", t),)))
    return kernel("sum_outer_two", "x: t[5,n,m]; out y: t[n]", "i<n",
                  Acc("s", "add", t), loop("a", "5", inner), store("y", "i", var("s", t)), t=t)


@define(lambda x: {"y": x.max(1)}, "max_middle")
def _(t: DType) -> Kernel:
    return kernel("max_middle", "x: t[n,5,m]; out y: t[n,m]", "i<n, j<m", Acc("s", "max", t),
                  loop("a", "5", Accum("s", (load("x", "i,a,j", t),))), store("y", "i,j", var("s", t)), t=t)


@define(lambda x, z: {"y": x.sum(1) + z.sum(1) + x[:, 0]}, dtypes=(f32,), empty=False)
def fed_three_times(t: DType) -> Kernel:
    """Two vectorised loops of different extents and a scalar feed one accumulator."""
    return kernel(
        "fed_three_times", "x: t[n,m]; z: t[n,3]; out y: t[n]", "i<n",
        Acc("s", "add", t),
        loop("j", "m", Accum("s", (load("x", "i,j", t),))),
        loop("k", "3", Accum("s", (load("z", "i,k", t),))),
        loop("one", "1", loop("two", "1", Accum("s", (load("x", "i,0", t),)))),
        store("y", "i", var("s", t)),
        t=t,
    )


@define(lambda x: {"y": x[:, 5:].sum(1)})
def shortened(t: DType) -> Kernel:
    """An extent that is below 0 for short rows."""
    return kernel(
        "shortened", "x: t[n,m]; out y: t[n]", "i<n",
        Acc("s", "add", t),
        loop("j", "m-5", Accum("s", (load("x", "i,j+5", t),))),
        store("y", "i", var("s", t)),
        t=t,
    )


# -- odd shapes of access


def strided_meaning(x: Any) -> Arrays:
    n, m = x.shape
    y = np.full((n, m // 2 * 3), 77, x.dtype)
    y[:, 2::3] = x[:, 1::2] * 2
    return {"y": y}


@define(strided_meaning, exact=True)
def strided(t: DType) -> Kernel:
    return kernel("strided", "x: t[n,2*m]; out y: t[n,3*m]", "i<n, j<m",
                  store("y", "i,3*j+2", call("mul", load("x", "i,2*j+1", t), Num(2.0, t))), t=t)


@define(lambda x: {"y": x[:, ::-1] + x}, exact=True)
def reversed_rows(t: DType) -> Kernel:
    return kernel("reversed_rows", "x: t[n,m]; out y: t[n,m]", "i<n, j<m",
                  store("y", "i,j", call("add", load("x", "i,m-j-1", t), load("x", "i,j", t))), t=t)


@define(lambda x: {"y": x[::-1, ::-1].copy()}, dtypes=(f32, boolean, i64), exact=True)
def reversed_store(t: DType) -> Kernel:
    return kernel("reversed_store", "x: t[n,m]; out y: t[n,m]", "i<n, j<m",
                  store("y", "n-i-1,m-j-1", load("x", "i,j", t)), t=t)


@define(lambda x, ids: {"y": x[ids]}, dtypes=(f32, f64, boolean, f16, bf16), exact=True, empty=False)
def gather_rows(t: DType) -> Kernel:
    return kernel("gather_rows", "x: t[n,m]; ids: i32[2*n]; out y: t[2*n,m]", "i<2*n, j<m",
                  Let("row", load("ids", "i", i32)), store("y", "i,j", load("x", "row,j", t)), t=t)


@define(lambda x, places: {"y": x.ravel()[places]}, dtypes=(f32, f64, u8), exact=True, empty=False)
def gather_elements(t: DType) -> Kernel:
    return kernel("gather_elements", "x: t[n,m]; places: i64[n]; out y: t[n]", "i<n",
                  Let("at", load("places", "i", i64)), store("y", "i", load("x", "at//m,at%m", t)), t=t)


def scattered(x: Any, ids: Any) -> Arrays:
    y = np.zeros_like(x)
    np.add.at(y, ids, x)
    return {"y": y}


@define(scattered, exact=True, empty=False)
def scatter_add(t: DType) -> Kernel:
    return kernel(
        "scatter_add", "x: t[n,m]; ids: i32[n]; out y: t[n,m]", "j<m",
        loop("k", "n", store("y", "k,j", Num(0.0, t))),
        loop("i", "n",
             Let("row", load("ids", "i", i32)),
             store("y", "row,j", call("add", load("y", "row,j", t), load("x", "i,j", t)))),
        t=t,
    )


@define(
    lambda x, places: {"y": np.bincount(places.ravel(), x.ravel(), x.size).astype("f4")},
    dtypes=(f32,), empty=False,
)
def scatter_elements(t: DType) -> Kernel:
    """Neither the grid nor the loop can carry lanes."""
    return kernel(
        "scatter_elements", "x: t[n,m]; places: i32[n,m]; out y: t[n*m]", "",
        loop("k", "n*m", store("y", "k", Num(0.0, t))),
        loop("i", "n*m",
             Let("at", load("places", "i//m,i%m", i32)),
             store("y", "at", call("add", load("y", "at", t), load("x", "i//m,i%m", t)))),
        t=t,
    )


@define(lambda x, lengths: {"y": np.where(np.arange(x.shape[1]) < lengths[:, None], x, 0).sum(1)}, dtypes=(f32, i32))
def ragged(t: DType) -> Kernel:
    """Trip counts that depend on data."""
    return kernel(
        "ragged", "x: t[n,m]; lengths: i32[n]; out y: t[n]", "i<n",
        Let("length", load("lengths", "i", i32)),
        Acc("s", "add", t),
        loop("j", "length", Accum("s", (load("x", "i,j", t),))),
        store("y", "i", var("s", t)),
        t=t,
    )


@define(lambda x: {"y": np.pad(x, ((1, 1), (2, 3)))}, dtypes=(f32, f64, boolean, i32, f16, bf16), exact=True)
def padded(t: DType) -> Kernel:
    row = call("and", call("ge", Iter(dims.parse("i"), i32), Num(1, i32)),
               call("le", Iter(dims.parse("i"), i32), Iter(dims.parse("n"), i32)))
    column = call("and", call("ge", Iter(dims.parse("j"), i32), Num(2, i32)),
                  call("lt", Iter(dims.parse("j-2"), i32), Iter(dims.parse("m"), i32)))
    return kernel("padded", "x: t[n,m]; out y: t[n+2,m+5]", "i<n+2, j<m+5",
                  store("y", "i,j", load("x", "i-1,j-2", t, call("and", row, column))), t=t)


@define(lambda x, z: {"y": np.concatenate([x, z])}, exact=True)
def joined_rows(t: DType) -> Kernel:
    first = call("lt", Iter(dims.parse("i"), i64), Iter(dims.parse("n"), i64))
    value = call("select", first, load("x", "i,j", t, first), load("z", "i-n,j", t, call("not", first)))
    return kernel("joined_rows", "x: t[n,m]; z: t[3,m]; out y: t[n+3,m]", "i<n+3, j<m", store("y", "i,j", value), t=t)


@define(lambda x: {"y": np.repeat(x, 3, 1)}, exact=True)
def repeated(t: DType) -> Kernel:
    return kernel("repeated", "x: t[n,m]; out y: t[n,3*m]", "i<n, j<3*m",
                  store("y", "i,j", load("x", "i,j//3", t)), t=t)


@define(lambda x: {"y": np.tile(x, (2, 3))}, exact=True)
def tiled(t: DType) -> Kernel:
    return kernel("tiled", "x: t[n,m]; out y: t[2*n,3*m]", "i<2*n, j<3*m",
                  store("y", "i,j", load("x", "i%n,j%m", t)), t=t)


@define(lambda x: {"y": np.roll(x, 2, 1)}, exact=True)
def rolled(t: DType) -> Kernel:
    return kernel("rolled", "x: t[n,m]; out y: t[n,m]", "i<n, j<m", store("y", "i,j", load("x", "i,(j-2)%m", t)), t=t)


@define(lambda x, z: {"y": x * z.reshape(x.shape)}, exact=True)
def reshaped(t: DType) -> Kernel:
    value = call("mul", load("x", "i,j", t), load("z", "(m*i+j)//n,(m*i+j)%n", t))
    return collapse(kernel("reshaped", "x: t[n,m]; z: t[m,n]; out y: t[n,m]", "i<n, j<m",
                           store("y", "i,j", value), t=t))


@define(lambda x: {"y": np.minimum.outer(np.arange(x.shape[0]), np.arange(x.shape[1])) * x.dtype.type(1) + x})
def positions(t: DType) -> Kernel:
    value = call("add", size_as("min(i,j)", t), load("x", "i,j", t))
    return kernel("positions", "x: t[n,m]; out y: t[n,m]", "i<n, j<m", store("y", "i,j", value), t=t)


@define(lambda x: {"y": np.where(np.arange(x.shape[1]) // 3 < x.shape[0], x, 0).sum(0)})
def positions_of_columns(t: DType) -> Kernel:
    """A condition that the loop does not change, but the lanes around it do."""
    near = call("lt", Iter(dims.parse("j//3"), i64), Iter(dims.parse("n"), i64))
    return kernel(
        "positions_of_columns", "x: t[n,m]; out y: t[m]", "j<m",
        Acc("s", "add", t),
        loop("i", "n", Accum("s", (call("select", near, load("x", "i,j", t), Num(0.0, t)),))),
        store("y", "j", var("s", t)),
        t=t,
    )


@define(lambda x: {"y": np.tril(x).sum(1)})
def triangle(t: DType) -> Kernel:
    return kernel(
        "triangle", "x: t[n,m]; out y: t[n]", "i<n",
        Acc("s", "add", t),
        loop("j", "min(i+1,m)", Accum("s", (load("x", "i,j", t),))),
        store("y", "i", var("s", t)),
        t=t,
    )


@define(lambda x, w: {"w": w - np.asarray(0.5, x.dtype) * x})
def updated(t: DType) -> Kernel:
    value = call("sub", load("w", "i,j", t), call("mul", Num(0.5, t), load("x", "i,j", t)))
    return collapse(kernel("updated", "x: t[n,m]; inout w: t[n,m]", "i<n, j<m", store("w", "i,j", value), t=t))


@define(lambda w: {"w": w - w.max(1, keepdims=True, initial=-np.inf)}, "row_in_place")
def _(t: DType) -> Kernel:
    return kernel(
        "row_in_place", "inout w: t[n,m]", "i<n",
        Acc("top", "max", t),
        loop("j0", "m", Accum("top", (load("w", "i,j0", t),))),
        loop("j1", "m", store("w", "i,j1", call("sub", load("w", "i,j1", t), var("top", t)))),
        t=t,
    )


@define(lambda x: {"y": np.where(np.arange(4) == x[..., None], np.float32(1), 0)}, dtypes=(i32,))
def one_hot(_: DType) -> Kernel:
    hit = call("eq", load("x", "i,j", i32), Iter(dims.parse("c"), i32))
    return kernel("one_hot", "x: i32[n,m]; out y: f32[n,m,4]", "i<n, j<m, c<4", store("y", "i,j,c", Cast(hit, f32)))
