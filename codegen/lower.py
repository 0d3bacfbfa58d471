"""Groups to kernels: a fused group of graph nodes becomes loop IR.

Values are asked for from the results down, each at an index made of loop variables, and computed in the outermost scope
that binds what its index needs: the maximum of a row is found once a row, not once an element.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from tensorc.codegen import loopir as ir
from tensorc.codegen.sparse import WRITERS
from tensorc.errors import InternalError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.kernels import Group, Place, reduced_axes
from tensorc.ir.node import Node, symbols_of
from tensorc.ir.types import DType, boolean, i32, i64
from tensorc.ops.define import At, Bound, Compute, Element, Fill, Position, Where
from tensorc.ops.gather import inside

CONVOLUTIONS: dict[str, ir.ConvKind] = {
    "conv": "forward",
    "conv_input_gradient": "input_gradient",
    "conv_weight_gradient": "weight_gradient",
}


@dataclass(frozen=True)
class Scratch:
    """Memory that one launch needs for itself."""

    name: str
    bytes: Size


@dataclass(frozen=True)
class Lowered:
    """A kernel and, for each of its buffers, where that lives."""

    kernel: ir.Kernel | ir.Matmul | ir.Conv
    operands: tuple[Place | Scratch, ...]


def lower(group: Group, names: Mapping[Node, str], by_owner: bool = False) -> list[Lowered]:
    """The kernels of a group in order.

    Args:
        names: the nodes' names in the graph's text, used for its buffers.
        by_owner: whether rows that are added at places from data are looked for by each element of the result, rather
            than sent there one after the other: more work, all of it at the same time.
    """
    lowering = _Lowering(group, names)
    kernels: list[ir.Kernel | ir.Matmul | ir.Conv]
    match group.kind:
        case "matmul":
            kernels = [lowering.matmul()]
        case "conv":
            kernels = [lowering.conv()]
        case "scatter":
            kernels = [lowering.collect()] if by_owner else [*lowering.scatter()]
        case "sparse":
            kernels = [lowering.sparse()]
        case "written":
            kernels = [lowering.written()]
        case _:
            kernels = [lowering.loops()]
    return [Lowered(k, tuple(lowering.operands[b.name] for b in k.buffers)) for k in kernels]


@dataclass(frozen=True)
class _Test:
    """That some bounds all hold, or that they do not."""

    bounds: tuple[Bound, ...]
    holds: bool = True

    @property
    def sizes(self) -> list[Size]:
        return [s for b in self.bounds for s in (b.size, b.low, b.high)]


Tests = tuple[_Test, ...]


@dataclass(eq=False)
class _Scope:
    """An open loop (or the grid, whose var is empty), its statements so far and the values computed in it."""

    var: str
    extent: Size
    block: list[ir.Stmt] = field(default_factory=list)
    known: dict[object, ir.Expr] = field(default_factory=dict)


class _Lowering:
    """The kernel of one group while it is being written."""

    def __init__(self, group: Group, names: Mapping[Node, str]) -> None:
        self.group = group
        self.buffers: dict[str, ir.Buffer] = {}
        self.operands: dict[str, Place | Scratch] = {}
        self.loads: dict[Node, str] = {}
        self.stores: list[str] = []
        self.counter = itertools.count()
        self.scopes = [_Scope("", 1)]
        self.home: dict[str, _Scope] = {}        # of every variable a Let binds
        self.taken = set().union(*map(symbols_of, (*group.inputs, *group.nodes)))
        self.loops_of_frame = [self.claim(f"i{k}") for k in range(len(group.frame))]
        by_place: dict[Place, str] = {}
        for node, place in zip(group.inputs, group.reads, strict=True):
            self.loads[node] = self.buffer(names.get(node, "c"), node, place, "in")
            by_place[place] = self.loads[node]
        for node, place in zip(group.outputs, group.writes, strict=True):
            shared = by_place.get(place)
            if shared is None:
                shared = self.buffer(names.get(node, "c"), node, place, "out")
            elif self.buffers[shared].role == "in":
                before = self.buffers[shared]
                self.buffers[shared] = ir.Buffer(shared, before.dtype, before.shape, "inout")
            self.stores.append(shared)

    def buffer(self, name: str, node: Node, where: Place | Scratch, role: ir.Role) -> str:
        """Declares a buffer for a node's value and returns its name."""
        name = name.lstrip("%")
        name = self.claim(f"t{name}" if name[:1].isdigit() else name)
        self.buffers[name] = ir.Buffer(name, node.dtype, node.shape, role)
        self.operands[name] = where
        return name

    def claim(self, wish: str) -> str:
        """`wish`, or something like it where that is a size, a buffer or a loop already."""
        while wish in self.taken:
            wish += "_"
        self.taken.add(wish)
        return wish

    def kernel(self, name: str, grid: tuple[tuple[str, Size], ...]) -> ir.Kernel:
        """What has been written, as a kernel."""
        body = tuple(self.scopes[0].block)
        used = {a.buffer for a, _ in ir.accesses(body)}
        buffers = tuple(b for b in self.buffers.values() if b.name in used)
        return ir.Kernel(name, _size_names(buffers, grid, body), buffers, grid, body)

    # -- the forms a group takes

    def loops(self) -> ir.Kernel:
        """The group as one kernel: results of the grid's own size first, then those inside the reduced loops again."""
        group = self.group
        variables = self.loops_of_frame
        grid = tuple((v, s) for k, (v, s) in enumerate(zip(variables, group.frame, strict=True))
                     if k not in group.reduced)
        bound = {v for v, _ in grid}
        whole = [i for i, axes in enumerate(group.axes)
                 if all(a is None or variables[a] in bound for a in axes) and group.kind != "along"]
        inner = [i for i in range(len(group.outputs)) if i not in whole]
        index = [tuple(0 if a is None else dims.symbol(variables[a]) for a in axes) for axes in group.axes]
        if group.kind == "along":
            self.along(group.outputs[0], index[0], variables[min(group.reduced)] if group.reduced else None)
        else:
            self.store_all(whole, index)
            if inner:
                opened = [self.open(variables[k], group.frame[k]) for k in sorted(group.reduced)]
                self.store_all(inner, index)
                for _ in opened:
                    self.close()
        return self.kernel(group.name, grid)

    def store_all(self, which: list[int], index: list[tuple[Size, ...]]) -> None:
        """Computes results, then stores them all: an update in place must not be seen by its neighbours."""
        values = [self.value(self.group.outputs[i], index[i]) for i in which]
        for i, value in zip(which, values, strict=True):
            self.store(self.stores[i], index[i], value)

    def store(self, name: str, index: tuple[Size, ...], value: ir.Expr) -> None:
        buffer = self.buffers[name]
        if value.dtype is not buffer.dtype:
            value = ir.Cast(value, buffer.dtype)
        self.scopes[-1].block.append(ir.Store(name, index[len(index) - len(buffer.shape):], value))

    def along(self, node: Node, index: tuple[Size, ...], var: str | None) -> None:
        """A cumulative reduction: the accumulator is stored at every step."""
        assert node.op.reduce is not None
        if var is None:
            return self.store(self.stores[0], index, self.value(node.args[0], index))
        acc, step = self.fresh("acc"), self.fresh("v")
        dtype = node.dtype.wide
        self.scopes[0].block.append(ir.Acc(acc, node.op.reduce.combine, dtype))
        self.open(var, node.shape[node.axis])
        value = self.wide(self.value(node.args[0], index))
        self.scopes[-1].block.append(ir.Scan(step, acc, value))
        self.store(self.stores[0], index, ir.Var(step, dtype))
        return self.close()

    def scatter(self) -> tuple[ir.Kernel, ir.Kernel]:
        """Rows added at places that come from data: a kernel that makes zeros, and one that adds.

        The second goes through the rows in order wherever it runs, for each column by itself: what it computes
        depends on nothing else.
        """
        (node,) = self.group.outputs
        (out,) = self.stores
        rows, indices = node.args
        axis, rank = node.axis, indices.type.rank
        loops = list(zip(self.loops_of_frame, self.group.frame, strict=True))
        at = tuple(0 if a is None else dims.symbol(loops[a][0]) for a in self.group.axes[0])
        dtype = node.dtype.wide
        self.store(out, at, ir.Num(0, dtype))
        zeros = self.kernel(f"{self.group.name}_zeros", tuple(loops))

        self.scopes = [_Scope("", 1)]
        self.buffers[out] = replace(self.buffers[out], role="inout")
        is_some = isinstance(node.size, int) and node.size > 0
        opened = [] if is_some else [self.open(self.fresh("some"), dims.minimum(node.size, 1))]
        opened += [self.open(self.fresh("r"), extent) for extent in indices.shape]
        row = tuple(0 if size == 1 else dims.symbol(var)
                    for var, size in zip(opened[len(opened) - rank:], indices.shape, strict=True))
        place = self.data_index(node, inside(At(1, row), node.size), ())
        index = (*at[:axis], place, *at[axis + 1:])
        more = self.wide(self.value(rows, (*at[:axis], *row, *at[axis + 1:])))
        before = self.wide(self.bind(ir.Load(out, index, node.dtype), self.scopes[-1]))
        self.store(out, index, ir.Call("add", (before, more), dtype))
        for _ in opened:
            self.close()
        own = self.group.axes[0][axis]
        return zeros, self.kernel(self.group.name, tuple(loop for k, loop in enumerate(loops) if k != own))

    def collect(self) -> ir.Kernel:
        """Rows added at places that come from data: each element of the result goes through all places, in order."""
        (node,) = self.group.outputs
        rows, indices = node.args
        axis, rank = node.axis, indices.type.rank
        loops = list(zip(self.loops_of_frame, self.group.frame, strict=True))
        at = tuple(0 if a is None else dims.symbol(loops[a][0]) for a in self.group.axes[0])
        acc, dtype = self.fresh("acc"), node.dtype.wide
        self.scopes[0].block.append(ir.Acc(acc, "add", dtype))
        opened = [self.open(self.fresh("r"), extent) for extent in indices.shape or (1,)]
        row = tuple(0 if size == 1 else dims.symbol(var)
                    for var, size in zip(opened[len(opened) - rank:], indices.shape, strict=True))
        place = self.data_index(node, inside(At(1, row), node.size), ())
        own = (Bound(place, at[axis], at[axis] + 1),)
        more = self.wide(self.value(rows, (*at[:axis], *row, *at[axis + 1:]), (_Test(own),)))
        added = self.bind(ir.Call("select", (self.holds(own), more, ir.Num(0, dtype)), dtype), self.scopes[-1])
        self.scopes[-1].block.append(ir.Accum(acc, (added,)))
        for _ in opened:
            self.close()
        self.store(self.stores[0], at, ir.Var(acc, dtype))
        return self.kernel(self.group.name, tuple(loops))

    def sparse(self) -> ir.Kernel:
        """An operation on the arrays of a sparse matrix."""
        (node,) = self.group.outputs
        operands = [self.buffers[self.loads[a]] for a in node.args]
        grid, body = WRITERS[node.op.name](self.claim, operands, self.buffers[self.stores[0]])
        self.scopes[0].block.extend(body)
        return self.kernel(self.group.name, grid)

    def written(self) -> ir.Kernel:
        """An operation that writes its loops itself."""
        from tensorc.codegen.writing import Workshop  # imported where a program has one

        def scratch(wish: str, dtype: DType, shape: tuple[Size, ...]) -> ir.Buffer:
            name = self.claim(wish)
            self.buffers[name] = ir.Buffer(name, dtype, shape, "scratch")
            self.operands[name] = Scratch(name, dims.product(shape) * dtype.size)
            return self.buffers[name]

        (node,) = self.group.outputs
        operands = [self.buffers[self.loads[a]] for a in node.args]
        shop = Workshop(node, operands, self.buffers[self.stores[0]], self.claim, scratch)
        write = node.op.kernel
        if isinstance(write, str):
            from tensorc.codegen.ctc import WRITERS as RECURSIONS

            write = RECURSIONS[node.op.name]
        assert write is not None
        grid, body = write(shop)
        self.scopes[0].block.extend(body)
        return self.kernel(self.group.name, grid)

    def matmul(self) -> ir.Matmul:
        """A matrix product, and what follows it as an epilogue over the same elements."""
        product = next(n for n in self.group.nodes if n.op.kernel == "matmul")
        batch = [f"b{k}" for k in range(len(product.shape) - 2)]
        sizes, buffers, epilogue = self.product(product, [*batch, "i", "j"])
        k = product.args[0].shape[-2 if product.transpose_a else -1]
        m, n = product.shape[-2:]
        return ir.Matmul(self.group.name, sizes, buffers, product.shape[:-2], m, n, k,
                         product.transpose_a, product.transpose_b, epilogue)

    def conv(self) -> ir.Conv:
        """A convolution or one of its gradients, and what follows it as an epilogue over the same elements."""
        node = next(n for n in self.group.nodes if n.op.kernel == "conv")
        between = [f"p{k}" for k in range(len(node.shape) - 3)]
        sizes, buffers, epilogue = self.product(node, ["b", *between, "i", "j"], node.low)
        return ir.Conv(CONVOLUTIONS[node.op.name], self.group.name, sizes, buffers,
                       node.strides, node.dilations, node.low, node.groups, epilogue)

    def product(self, product: Node, loops: Iterable[str],
                more: Iterable[Size] = ()) -> tuple[tuple[str, ...], tuple[ir.Buffer, ...], ir.Kernel | None]:
        """Sizes, buffers and epilogue of an operation on two operands; `loops` run over its elements.

        The sizes are those of operands and results, and of `more`.
        """
        group = self.group
        loads = [self.loads[a] for a in product.args]
        if product.args[0] is product.args[1]:
            loads[1] = self.buffer(loads[1], product.args[1], self.operands[loads[0]], "in")
        result = self.product_buffer(product)
        grid = tuple(zip(map(self.claim, loops), product.shape, strict=True))
        follows = [i for i, n in enumerate(group.outputs) if n is not product]
        epilogue = None
        if follows:
            self.loads[product] = result
            by_loop = [dims.symbol(var) for var, size in grid if size != 1]
            index = [tuple(0 if a is None else by_loop[a] for a in axes) for axes in group.axes]
            self.store_all(follows, index)
            epilogue = self.kernel(f"{group.name}_epilogue", grid)
        order = [*loads, result]
        rest = [b for b in (epilogue.buffers if epilogue else ()) if b.name not in order]
        buffers = (*(self.buffers[n] for n in order), *rest)
        sizes = tuple(sorted({s for size in (*product.shape, *more) for s in dims.symbols(size)}
                             | set(_size_names(buffers, (), ())) | set(epilogue.sizes if epilogue else ())
                             | {ir.AGE for _ in range(group.keeps)}))
        if epilogue is not None:
            epilogue = ir.Kernel(epilogue.name, sizes, buffers, grid, epilogue.body)
        return sizes, buffers, epilogue

    def product_buffer(self, product: Node) -> str:
        """Where the bare product goes: its own place, or over a result of the epilogue, or memory of the launch."""
        group = self.group
        own = [name for node, name in zip(group.outputs, self.stores, strict=True) if node is product]
        alike = [name for node, name, place in zip(group.outputs, self.stores, group.writes, strict=True)
                 if node.type == product.type and place not in group.reads]
        for name in (own + alike)[:1]:
            if len(group.outputs) > len(own):    # the epilogue reads it
                self.buffers[name] = replace(self.buffers[name], role="inout")
            return name
        return self.buffer("product", product, Scratch("product", product.type.bytes), "scratch")

    # -- values

    def value(self, node: Node, index: tuple[Size, ...], tests: Tests = ()) -> ir.Expr:
        """The element of `node` at an index, computed at most once a scope; read only where `tests` allow it.

        A float of 16 bits that has been rounded stays as it is, so that it moves unchanged; one that is computed is
        float32 until it is stored.
        """
        shape = node.shape
        index = tuple(0 if s == 1 else i for i, s in zip(index[len(index) - len(shape):], shape, strict=True))
        key = node, index, tests
        for scope in reversed(self.scopes):
            if key in scope.known:
                return scope.known[key]
        expr, scope = self.compute(node, index, tests)
        if not isinstance(expr, ir.Num | ir.Var):
            expr = self.bind(expr, scope)
        scope.known[key] = expr
        return expr

    def compute(self, node: Node, index: tuple[Size, ...], tests: Tests) -> tuple[ir.Expr, _Scope]:
        """An element as an expression over values already bound, and the scope it belongs to."""
        needed = [*index, *(s for t in tests for s in t.sizes)]
        scope = self.scope_of(needed)
        op = node.op
        if node in self.loads:
            return self.load(node, index, tests, scope), scope
        if op.name == "constant":
            return ir.Num(node.value.item(), node.dtype.wide), self.scopes[0]
        if op.scalar is not None:
            args = tuple(self.value(a, index[len(index) - len(a.shape):], tests) for a in node.args)
            scope = self.deepest(args, scope if not args else self.scopes[0])
            if op.scalar == "cast":
                return ir.Cast(args[0], node.dtype), scope
            if op.scalar == "select":
                return self.select(*args), scope
            return ir.Call(op.scalar, tuple(map(self.wide, args)), node.dtype.wide), scope
        if op.index is not None:
            value = self.element(node, op.index(node, index), tests)
            return value, self.deepest((value,), self.scopes[0])
        if op.view:
            moving = iter(i for i, s in zip(index, node.shape, strict=True) if s != 1)
            inner = tuple(0 if s == 1 else next(moving) for s in node.args[0].shape)
            value = self.value(node.args[0], inner, tests)
            return value, self.deepest((value,), self.scopes[0])
        if op.reduce is not None:
            return self.reduction(node, index, tests, scope)
        raise InternalError(f"{op.name} has no place inside a kernel")

    def load(self, node: Node, index: tuple[Size, ...], tests: Tests, scope: _Scope) -> ir.Expr:
        """An element from memory."""
        return ir.Load(self.loads[node], index, node.dtype, self.all_hold(tests) if tests else None)

    def wide(self, value: ir.Expr) -> ir.Expr:
        """A value as it is computed with: a float of 16 bits as float32."""
        dtype = value.dtype.wide
        if value.dtype is dtype:
            return value
        assert isinstance(value, ir.Var)
        home = self.home[value.name]
        if ("wide", value.name) not in home.known:
            home.known["wide", value.name] = self.bind(ir.Cast(value, dtype), home)
        return home.known["wide", value.name]

    def select(self, test: ir.Expr, yes: ir.Expr, no: ir.Expr) -> ir.Expr:
        """One of two values; what neither has computed moves as it is."""
        if isinstance(no, ir.Num) and yes.dtype.is_half:
            no = ir.Num(no.value, yes.dtype)
        elif isinstance(yes, ir.Num) and no.dtype.is_half:
            yes = ir.Num(yes.value, no.dtype)
        elif yes.dtype is not no.dtype:
            yes, no = self.wide(yes), self.wide(no)
        return ir.Call("select", (test, yes, no), yes.dtype)

    def element(self, node: Node, element: Element, tests: Tests) -> ir.Expr:
        """What an operation that finds its elements by index says of one."""
        match element:
            case At(operand, index):
                at = tuple(self.data_index(node, i, tests) if isinstance(i, Element) else i for i in index)
                return self.value(node.args[operand], at, tests)
            case Fill(value, dtype):
                return ir.Num(value, (dtype or node.dtype).wide)
            case Position(size, dtype):
                return self.bind(self.position(size, (dtype or node.dtype).wide), self.scope_of([size]))
            case Compute(fn, args, dtype):
                values = tuple(self.wide(self.element(node, a, tests)) for a in args)
                made = ir.Cast(values[0], dtype) if fn == "cast" else ir.Call(fn, values, dtype)
                return self.bind(made, self.deepest(values, self.scopes[0]))
            case Where(bounds, then, otherwise):
                test = self.holds(bounds)
                yes = self.element(node, then, (*tests, _Test(bounds)))
                no = self.element(node, otherwise, (*tests, _Test(bounds, False)))
                return self.bind(self.select(test, yes, no), self.deepest((test, yes, no), self.scopes[0]))

    def position(self, size: Size, dtype: DType) -> ir.Expr:
        """A size as data."""
        if isinstance(size, int):
            return ir.Num(size, dtype)
        exact = dtype if dtype in (i32, i64) else i64
        return ir.Iter(size, dtype) if exact is dtype else ir.Cast(ir.Iter(size, exact), dtype)

    def data_index(self, node: Node, element: Element, tests: Tests) -> Size:
        """An index that comes from data, as the symbol of the variable that holds it."""
        value = self.element(node, element, tests)
        if isinstance(value, ir.Num):
            return int(value.value)
        assert isinstance(value, ir.Var)
        return dims.symbol(value.name)

    def all_hold(self, tests: Tests) -> ir.Expr:
        """Do all the tests come out as they should: a bool variable."""
        scope = self.scope_of(s for t in tests for s in t.sizes)
        if ("all", tests) in scope.known:
            return scope.known["all", tests]
        result: ir.Expr | None = None
        for test in tests:
            one = self.holds(test.bounds)
            one = one if test.holds else ir.Call("not", (one,), boolean)
            result = one if result is None else ir.Call("and", (result, one), boolean)
        assert result is not None
        scope.known["all", tests] = bound = self.bind(result, scope)
        return bound

    def holds(self, bounds: tuple[Bound, ...]) -> ir.Expr:
        """Do all the bounds hold: a bool variable."""
        scope = self.scope_of(_Test(bounds).sizes)
        if ("holds", bounds) in scope.known:
            return scope.known["holds", bounds]
        result: ir.Expr | None = None
        for b in bounds:
            at = self.position(b.size, i64)
            for fn, limit in (("ge", b.low), ("lt", b.high)):
                one = ir.Call(fn, (at, self.position(limit, i64)), boolean)
                result = one if result is None else ir.Call("and", (result, one), boolean)
        assert result is not None
        scope.known["holds", bounds] = bound = self.bind(result, scope)
        return bound

    def reduction(self, node: Node, index: tuple[Size, ...], tests: Tests, scope: _Scope) -> tuple[ir.Expr, _Scope]:
        """Loops below `scope` that feed an accumulator; the loops open below it wait meanwhile."""
        assert node.op.reduce is not None
        combine = node.op.reduce.combine
        (operand,) = node.args
        gone = reduced_axes(node)
        kept = iter(i for k, i in enumerate(index) if not (node.attrs.get("keepdims") and k in gone))
        if all(operand.shape[k] == 1 for k in gone):
            single = tuple(0 if k in gone else next(kept) for k in range(len(operand.shape)))
            return self.single(operand, single, tests, combine)
        acc = self.fresh("acc")
        dtype = operand.dtype.wide
        scope.block.append(ir.Acc(acc, combine, dtype))
        at = self.scopes.index(scope) + 1
        waiting = self.scopes[at:]
        del self.scopes[at:]
        inner: list[Size] = []
        opened = 0
        for k, size in enumerate(operand.shape):
            if k not in gone:
                inner.append(next(kept))
            elif size == 1:
                inner.append(0)
            else:
                inner.append(dims.symbol(self.open(self.fresh("r"), size)))
                opened += 1
        values: tuple[ir.Expr, ...] = (self.wide(self.value(operand, tuple(inner), tests)),)
        if combine in ir.ARG_ACCUMULATORS:
            values = (*values, self.position(inner[gone[0]], i32))
        self.scopes[-1].block.append(ir.Accum(acc, values))
        for _ in range(opened):
            self.close()
        self.scopes.extend(waiting)
        name, result = (f"{acc}.index", i64) if combine in ir.ARG_ACCUMULATORS else (acc, dtype)
        self.home[name] = scope
        return ir.Var(name, result), scope

    def single(self, operand: Node, index: tuple[Size, ...], tests: Tests, combine: str) -> tuple[ir.Expr, _Scope]:
        """A reduction of one element: the element, or its place."""
        if combine in ir.ARG_ACCUMULATORS:
            return ir.Num(0, i64), self.scopes[0]
        value = self.value(operand, index, tests)
        return value, self.deepest((value,), self.scopes[0])

    # -- scopes

    def fresh(self, stem: str) -> str:
        """A name that is no buffer's and no size's."""
        return next(n for i in self.counter if (n := f"{stem}{i}") not in self.taken)

    def bind(self, expr: ir.Expr, scope: _Scope) -> ir.Expr:
        """The expression's value in a variable of a scope; numbers and variables stay as they are."""
        if isinstance(expr, ir.Num | ir.Var):
            return expr
        name = self.fresh("v")
        scope.block.append(ir.Let(name, expr))
        self.home[name] = scope
        return ir.Var(name, expr.dtype)

    def scope_of(self, sizes: Iterable[Size]) -> _Scope:
        """The outermost open scope in which all the sizes are known."""
        needed = {s for size in sizes for s in dims.symbols(size)}
        holders = {self.home[s] for s in needed if s in self.home}
        return next((s for s in reversed(self.scopes) if s.var in needed or s in holders), self.scopes[0])

    def deepest(self, values: Iterable[ir.Expr], otherwise: _Scope) -> _Scope:
        """The innermost of the scopes that hold variables."""
        holders = {self.home[v.name] for v in values if isinstance(v, ir.Var)}
        return next((s for s in reversed(self.scopes) if s in holders), otherwise)

    def open(self, var: str, extent: Size) -> str:
        self.scopes.append(_Scope(var, extent))
        return var

    def close(self) -> None:
        scope = self.scopes.pop()
        self.scopes[-1].block.append(ir.For(scope.var, scope.extent, tuple(scope.block)))


def _size_names(buffers: Iterable[ir.Buffer], grid: Iterable[tuple[str, Size]], body: ir.Body) -> tuple[str, ...]:
    """The size symbols a kernel depends on, sorted."""
    grid = tuple(grid)
    sizes: list[Size] = [s for b in buffers for s in b.shape] + [s for _, s in grid]
    bound = {v for v, _ in grid}
    for statement in ir.statements(body):
        if isinstance(statement, ir.For):
            sizes.append(statement.extent)
            bound.add(statement.var)
        elif isinstance(statement, ir.Let | ir.Scan):
            bound.add(statement.var)
        elif isinstance(statement, ir.Store):
            sizes.extend(statement.index)
    for expression in ir.expressions(body):
        if isinstance(expression, ir.Iter):
            sizes.append(expression.size)
        elif isinstance(expression, ir.Load):
            sizes.extend(expression.index)
    return tuple(sorted({s for size in sizes for s in dims.symbols(size)} - bound))


