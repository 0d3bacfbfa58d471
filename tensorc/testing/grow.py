# mypy: no-warn-return-any
"""Random well-typed graphs, with values for their parameters on which every result is well-conditioned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

import tensorc.ops as ops
from tensorc.errors import TensorcError
from tensorc.ir import dims
from tensorc.ir.dims import Dim, Size, symbol
from tensorc.ir.graph import postorder, replace_nodes
from tensorc.ir.node import OPS, Node, constant, make
from tensorc.ir.types import DType, TensorType, boolean, f32, f64, i32, i64
from tensorc.ops.conditioned import Array, Known, known

Sizes = Mapping[str, int]

FLOAT_FUNCTIONS = "exp tanh sigmoid softplus sin cos erf expm1 log1p floor ceil round log_sigmoid".split()
NUMBER_FUNCTIONS = "neg abs square sign relu".split()
ARITHMETIC = "add sub mul maximum minimum add sub mul floordiv mod".split()
COMPARISONS = "eq ne lt le gt ge".split()
LARGEST = 20_000
LOGIC = "logical_and logical_or logical_xor".split()


@dataclass
class Grown:
    """A computation over nodes that are not closed yet, and values of its parameters.

    Attributes:
        values: of every parameter, for each of `sizes`; those of variables are for the first call.
    """

    inputs: list[Node]
    variables: list[Node]
    outputs: list[Node]
    updates: list[tuple[Node, Node]]
    sizes: Sequence[Sizes]
    values: list[dict[Node, Array]]


def grow(random: Random, steps: int) -> Grown:
    """A random computation of some `steps` operations."""
    return Grower(random).grown(steps)


@dataclass
class Grower:
    """What exists so far; `known[k]` has the values for the sizes number k, by nodes with these sizes in them."""

    random: Random
    sizes: list[dict[str, int]] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    params: list[Node] = field(default_factory=list)
    values: list[dict[Node, Array]] = field(default_factory=list)
    known: list[dict[Node, Known]] = field(default_factory=list)

    def grown(self, steps: int) -> Grown:
        self.start()
        variables = self.variables()
        for _ in range(steps):
            self.step()
        return self.finished(variables)

    def start(self) -> None:
        """Sizes, and the first parameters."""
        n, m = (self.pick([1, 2, 3, 4, 7]) for _ in range(2))
        self.sizes = [{"n": n, "m": m, "p": n}, {"n": (q := self.pick([0, 1, 5, 20])), "m": m + 1, "p": q}]
        self.known, self.values = [{}, {}], [{}, {}]
        self.parameter(f32, (symbol("n"), symbol("m")))
        for _ in range(self.pick([0, 1, 2])):
            self.parameter(self.dtype(), self.shape())

    def finished(self, variables: Sequence[Node]) -> Grown:
        """The computation of some of what nothing else uses, with new values for most variables."""
        used = {a for n in self.nodes for a in n.args}
        last = [n for n in self.nodes if n not in used and not n.op.source] or self.params
        outputs = [self.pick(last) for _ in range(self.pick([1, 2, 4, 6]))]
        if self.chance(0.2):
            outputs.append(self.pick([self.pick(self.nodes), outputs[0], *variables, *self.params]))
        updates = [(v, self.new_value(v)) for v in variables if self.chance(0.9)]
        inputs = [p for p in self.params if p not in variables]
        return Grown(inputs, list(variables), outputs, updates, self.sizes, self.values)

    # -- drawing

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.random.randrange(len(options))]

    def chance(self, p: float) -> bool:
        return self.random.random() < p

    def dtype(self) -> DType:
        return self.pick([f32, f32, f32, f32, f64, i32, boolean])

    def shape(self) -> tuple[Size, ...]:
        n, m, p = map(symbol, "nmp")
        rank = self.pick([0, 1, 1, 2, 2, 2, 2, 3, 3, 4])
        common: list[Size] = [n, n, m, p, 1, 2, 3, 3, 5, 17]
        return tuple(0 if self.chance(0.01) else self.pick(common) for _ in range(rank))

    # -- parameters

    def parameter(self, dtype: DType, shape: Sequence[Size], role: str = "input", kind: str | None = None) -> Node:
        name = f"{'v' if role == 'variable' else 'x'}{len(self.params)}"
        node = ops.parameter(name=name, role=role, uid=0, type=TensorType(dtype, tuple(shape)))
        kind = kind or self.pick(["whole", "whole", "real", "real", "real", "special"])
        seed = self.random.randrange(1000)
        for k, sizes in enumerate(self.sizes):
            numbers = tuple(dims.evaluate(s, sizes) for s in shape)
            value = _array(np.random.default_rng(seed), dtype, numbers, kind)
            self.values[k][node] = value
            self.known[k][_fixed([node], sizes)[0]] = Known(value)
        self.params.append(node)
        self.nodes.append(node)
        return node

    def variables(self) -> list[Node]:
        """Some variables, several of one type, with shapes that occur among the inputs where those are fixed."""
        fixed = [p.shape for p in self.params if all(isinstance(s, int) for s in p.shape)]
        found: list[Node] = []
        for _ in range(self.pick([0, 0, 1, 2])):
            shape = self.pick([*fixed, (3,), (3, 3), (), (2, 3)])
            dtype = self.pick([f32, f32, f64, i32])
            found += [self.parameter(dtype, shape, "variable") for _ in range(self.pick([1, 1, 2, 3]))]
        return found

    def new_value(self, variable: Node) -> Node:
        """A new value for a variable: any node of its type, or one that is made for it."""
        fitting = [n for n in self.nodes if n.type == variable.type and n is not variable]
        if fitting and self.chance(0.7):
            return self.pick(fitting)
        x = variable
        for _ in range(3):
            other = self.pick(self.nodes)
            axes = tuple(range(len(other.shape)))
            total = ops.cast(ops.max(other, axes=axes, keepdims=False), dtype=variable.dtype)
            options = [x + 1, ops.minimum(x * 3, 5), ops.maximum(ops.minimum(total, x), 0)]
            if len(x.shape) == 2 and x.shape[0] == x.shape[1]:
                options.append(ops.transpose(x, perm=(1, 0)))
            x = self.pick(options) if self.chance(0.7) else x
        return x

    # -- operations

    def step(self) -> None:
        """One operation more, if what is drawn fits and is well-conditioned."""
        kinds: list[Callable[[Node], Node | None]] = [
            *[self.unary] * 5, *[self.binary] * 7, self.compared, self.selected, self.cast,
            self.transposed, self.transposed, self.reshaped, self.reshaped, self.slice, self.pad,
            self.reversed, self.joined, *[self.reduced] * 4, self.along, self.place, self.normalised,
            self.product, self.product, self.positions, self.literal,
        ]
        x = self.pick(self.nodes[-6:]) if self.chance(0.7) else self.pick(self.nodes)
        try:
            node = self.pick(kinds)(x)
        except TensorcError:
            return
        if node is not None:
            self.add(node)

    def add(self, node: Node, shaky: bool = False) -> bool:
        """Takes a node in, with the nodes below it, unless one is large, or needs other sizes, or is shaky."""
        below = postorder([node])
        for k, sizes in enumerate(self.sizes):
            try:
                fixed = _fixed(below, sizes)
            except (TensorcError, dims.Incompatible):
                return False
            if any(dims.evaluate(n.type.count, {}) > LARGEST for n in fixed):
                return False
            for n in fixed:
                if n not in self.known[k]:
                    self.known[k][n] = known(n, [self.known[k][a] for a in n.args])
            if k == 0 and not shaky and any(self.known[0][n].error is None for n in fixed):
                return False
        self.nodes += [n for n in below if n not in self.nodes]
        return True

    def like(self, x: Node) -> Node:
        """A node of x's dtype that may broadcast with it."""
        fitting = [n for n in self.nodes if n.dtype is x.dtype and _broadcast(n.shape, x.shape)]
        if self.chance(0.75):
            return self.pick(fitting)
        shape = [1 if self.chance(0.3) else s for s in x.shape][self.pick([0, 0, 0, 1]):]
        return self.parameter(x.dtype, shape)

    def unary(self, x: Node) -> Node | None:
        if x.dtype.is_bool:
            return ops.logical_not(x)
        if x.dtype.is_integer:
            return OPS[self.pick(NUMBER_FUNCTIONS)](x)
        if self.chance(0.1):
            return ops.cast(OPS[self.pick(["isnan", "isfinite"])](x), dtype=f32)
        if self.chance(0.2):
            return OPS[self.pick(["log", "sqrt", "rsqrt"])](ops.abs(x) + 1)
        return OPS[self.pick(FLOAT_FUNCTIONS + NUMBER_FUNCTIONS)](x)

    def binary(self, x: Node) -> Node | None:
        if x.dtype.is_bool:
            return OPS[self.pick(LOGIC)](x, self.like(x))
        if self.chance(0.2):
            return OPS[self.pick(ARITHMETIC)](x, self.pick([1, 2, 3, -1, 0]))
        y = x if self.chance(0.1) else self.like(x)
        a, b = (x, y) if self.chance(0.5) else (y, x)
        return OPS["div" if x.dtype.is_float and self.chance(0.15) else self.pick(ARITHMETIC)](a, b)

    def compared(self, x: Node) -> Node:
        return OPS[self.pick(COMPARISONS)](x, self.like(x))

    def selected(self, x: Node) -> Node | None:
        conditions = [n for n in self.nodes if n.dtype.is_bool and _broadcast(n.shape, x.shape)]
        if not conditions:
            return ops.select(ops.gt(x, 0), x, self.like(x)) if not x.dtype.is_bool else None
        condition, y = self.pick(conditions), self.like(x)
        return ops.select(condition, x, y) if _broadcast(condition.shape, y.shape) else None

    def cast(self, x: Node) -> Node:
        return ops.cast(x, dtype=self.pick([f32, f32, f32, f64, i32, boolean]))

    def broadcast(self, x: Node) -> Node:
        lead = [self.pick([2, 3, symbol("n")])] if len(x.shape) < 4 and self.chance(0.5) else []
        return ops.broadcast(x, shape=(*lead, *(self.pick([3, symbol("m")]) if s == 1 else s for s in x.shape)))

    def transposed(self, x: Node) -> Node | None:
        if len(x.shape) < 2:
            return None
        perm = list(range(len(x.shape)))
        self.random.shuffle(perm)
        return ops.transpose(x, perm=tuple(perm))

    def reshaped(self, x: Node) -> Node:
        """Thin, flat, two axes merged, or one cut."""
        shape = list(x.shape)
        kind = self.pick(["thin", "thin", "flat", "merge", "cut"])
        if kind == "thin":
            shape = [s for s in shape if s != 1 or self.chance(0.3)]
            if len(shape) < 4:
                shape.insert(self.random.randrange(len(shape) + 1), 1)
        elif kind == "flat":
            shape = [x.type.count]
        elif kind == "merge" and len(shape) > 1:
            at = self.random.randrange(len(shape) - 1)
            shape[at:at + 2] = [shape[at] * shape[at + 1]]
        elif kind == "cut" and shape:
            at = self.random.randrange(len(shape))
            size = shape[at]
            by = next((k for k in (3, 2, 17, 5) if isinstance(size, int) and size and size % k == 0), 1)
            shape[at:at + 1] = [by, dims.floordiv(size, by)] if self.chance(0.5) else [dims.floordiv(size, by), by]
        return ops.reshape(x, shape=tuple(shape))

    def slice(self, x: Node) -> Node | None:
        starts: list[Size] = []
        limits: list[Size] = []
        for size in x.shape:
            options: list[tuple[Size, Size]] = [(0, size), (1, size), (0, size - 1), (1, 2), (0, 1), (0, size // 2)]
            fitting = [(a, b) for a, b in options if all(
                0 <= dims.evaluate(a, s) <= dims.evaluate(b, s) <= dims.evaluate(size, s) for s in self.sizes)]
            a, b = self.pick(fitting)
            starts.append(a)
            limits.append(b)
        steps = tuple(self.pick([1, 1, 2]) for _ in starts)
        return ops.slice(x, starts=tuple(starts), limits=tuple(limits), steps=steps)

    def pad(self, x: Node) -> Node:
        low, high = (tuple(self.pick([0, 0, 1, 2, -1] if _least(s, self.sizes) > 2 else [0, 1]) for s in x.shape)
                     for _ in range(2))
        return ops.pad(x, low=low, high=high, interior=tuple(
            1 if _least(s, self.sizes) > 0 and self.chance(0.2) else 0 for s in x.shape))

    def reversed(self, x: Node) -> Node:
        return ops.reverse(x, axes=tuple(i for i in range(len(x.shape)) if self.chance(0.6)))

    def joined(self, x: Node) -> Node | None:
        if not x.shape:
            return None
        axis = self.random.randrange(len(x.shape))
        fitting = [n for n in self.nodes if n.dtype is x.dtype and len(n.shape) == len(x.shape)
                   and all(a == b for i, (a, b) in enumerate(zip(n.shape, x.shape, strict=True)) if i != axis)]
        return ops.concatenate(*(self.pick([x, *fitting]) for _ in range(self.pick([2, 2, 3]))), axis=axis)

    def reduced(self, x: Node) -> Node:
        axes = tuple(i for i in range(len(x.shape)) if self.chance(0.5)) or tuple(range(len(x.shape))[-1:])
        if x.dtype.is_bool:
            name = self.pick(["any", "all", "max"])
        elif x.dtype.is_float:
            name = self.pick(["sum", "sum", "max", "min", "mean", "variance", "prod", "logsumexp"])
        else:
            name = self.pick(["sum", "max", "min", "mean", "prod"])
        return OPS[name](x, axes=axes, keepdims=self.chance(0.5))

    def along(self, x: Node) -> Node | None:
        if not x.shape or x.dtype.is_bool:
            return None
        return OPS[self.pick(["cumsum", "cumsum", "cumprod"])](x, axis=self.random.randrange(len(x.shape)))

    def place(self, x: Node) -> Node | None:
        fitting = [i for i, s in enumerate(x.shape) if _least(s, self.sizes) > 0]
        if not fitting or x.dtype.is_bool:
            return None
        return ops.cast(OPS[self.pick(["argmax", "argmin"])](x, axis=self.pick(fitting)), dtype=self.pick([f32, i32]))

    def normalised(self, x: Node) -> Node | None:
        if not x.shape or not x.dtype.is_float:
            return None
        return OPS[self.pick(["softmax", "log_softmax"])](x, axis=self.random.randrange(len(x.shape)))

    def product(self, x: Node) -> Node | None:
        """With a node that fits, transposed or not, or with a new parameter."""
        if len(x.shape) < 2 or x.dtype.is_bool:
            return None
        ta, tb = self.chance(0.3), self.chance(0.3)
        k = x.shape[-2 if ta else -1]
        fitting = [n for n in self.nodes if n.dtype is x.dtype and len(n.shape) > 1
                   and n.shape[-1 if tb else -2] == k and _broadcast(n.shape[:-2], x.shape[:-2])]
        if fitting and self.chance(0.6):
            return ops.matmul(x, self.pick(fitting), transpose_a=ta, transpose_b=tb)
        batch = [s for s in x.shape[:-2] if self.chance(0.5)] if self.chance(0.3) else []
        n = self.pick([1, 3, 5, 17, symbol("m")])
        y = self.parameter(x.dtype, (*batch, *((n, k) if tb else (k, n))))
        return ops.matmul(x, y, transpose_a=ta, transpose_b=tb)

    def positions(self, x: Node) -> Node:
        if not x.shape or self.chance(0.2):
            return ops.cast(ops.size(value=x.type.count, dtype=i64), dtype=f32)
        axis = self.random.randrange(len(x.shape))
        return ops.cast(make(ops.iota, shape=x.shape, axis=axis, dtype=i32), dtype=self.pick([f32, i32]))

    def literal(self, x: Node) -> Node:
        if self.chance(0.5):
            return constant(self.pick([0, 1, -2, 3]), x.dtype)
        fixed = tuple(s if isinstance(s, int) and s < 6 else 1 for s in x.shape)
        return constant(_array(np.random.default_rng(self.random.randrange(1000)), x.dtype, fixed, "whole"))


def _fixed(nodes: Sequence[Node], sizes: Sizes) -> list[Node]:
    """Nodes in which sizes are numbers."""
    return replace_nodes(nodes, {}, sizes)


def _array(generator: np.random.Generator, dtype: DType, shape: tuple[int, ...], kind: str) -> Array:
    """Values of a kind: whole numbers, any numbers, those with NaN and infinities among them, or indices, 0 and 1."""
    whole = generator.integers(*((0, 2) if kind == "index" else (-4, 5)), shape)
    if dtype.is_bool:
        return np.asarray(whole > 0)
    if not dtype.is_float or kind == "whole":
        return np.asarray(whole).astype(dtype.numpy)
    real = np.asarray(generator.uniform(-2, 2, shape)).astype(dtype.numpy)
    if kind == "special":
        rare = generator.integers(0, 30, shape)
        real = np.select([rare == 0, rare == 1, rare == 2], [np.nan, np.inf, -np.inf], real).astype(dtype.numpy)
    return real


def _broadcast(a: Sequence[Size], b: Sequence[Size]) -> bool:
    """Do shapes broadcast without an assumption, but that n = p?"""
    same: dict[Size, Size] = {symbol("p"): symbol("n")}
    pairs = zip(reversed(a), reversed(b), strict=False)
    return all(x == 1 or y == 1 or same.get(x, x) == same.get(y, y) for x, y in pairs)


def _least(size: Size, sizes: Sequence[Sizes]) -> int:
    return min(dims.evaluate(size, s) for s in sizes) if isinstance(size, Dim) else size
