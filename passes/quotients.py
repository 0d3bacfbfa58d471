# mypy: allow-untyped-defs, allow-incomplete-defs, no-warn-return-any
"""Products in which a factor that rounds to 0 or overflows to inf meets its own reciprocal.

Differentiation makes them of every unstable formula: the gradient of log(sum(exp x)) is exp(x) · (1 / sum(exp x)),
that of log(sigmoid x) is 1/s · s · (1 − s).  Each is finite as a whole, while a factor of it is 0 or inf long before.
A product is therefore read as what it is, factors above and below one line, however it was nested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tensorc.ir.dims import Size
from tensorc.ir.node import Node, constant, make
from tensorc.ops import (
    add,
    div,
    eq,
    exp,
    logsumexp,
    mean,
    mul,
    neg,
    reshape,
    select,
    sigmoid,
    softmax,
    sqrt,
    square,
    sub,
    sum,
)
from tensorc.ops.reduce import count
from tensorc.passes.facts import fitted, same_along
from tensorc.passes.rewrite import No, Rewrite, filled_with

MOST = 12                            # factors or terms looked at


@dataclass
class Product:
    """above[0] · above[1] · … / (below[0] · below[1] · …), negated or not."""

    above: list[Node] = field(default_factory=list)
    below: list[Node] = field(default_factory=list)
    negative: bool = False

    @staticmethod
    def of(node: Node) -> Product:
        """The factors of a node, seen through products, quotients, signs, squares and views that insert ones."""
        product = Product()
        todo = [(node, False)]
        while todo:
            factor, inverse = todo.pop()
            op, args = factor.op, factor.args
            if len(todo) + len(product.above) + len(product.below) >= MOST:
                (product.below if inverse else product.above).append(factor)
            elif op is mul:
                todo += [(args[1], inverse), (args[0], inverse)]
            elif op is div:
                todo += [(args[1], not inverse), (args[0], inverse)]
            elif op is square:
                todo += [(args[0], inverse), (args[0], inverse)]
            elif op is neg:
                product.negative = not product.negative
                todo.append((args[0], inverse))
            elif op is reshape and (inner := _lifted(factor)) is not None:
                todo.append((inner, inverse))
            else:
                (product.below if inverse else product.above).append(factor)
        return product

    def node(self, like: Node) -> Node:
        """The product as a node of the type of `like`."""
        above = [f for f in self.above if filled_with(f) != 1] or [constant(1, like.dtype)]
        result = _multiplied(above)
        if self.below:
            result = result / _multiplied(self.below)
        return fitted(-result if self.negative else result, like)


class CancelQuotient(Rewrite):
    """a · h / h → a,  for h that is 0 or inf only by rounding:  exp, softmax, sigmoid, their sums and complements

    Also exp(x) / sum(exp x) → softmax x,  exp(x) / (exp x + exp y) → sigmoid(x − y),  exp(x) · sigmoid(−x) → sigmoid x,
    wherever the factors stand in a product.
    """

    def pattern(self, x, y):
        return x * y, x / y

    def build(self, node):
        if not node.dtype.is_float:
            return No("only floats overflow")
        product = Product.of(node)
        return product.node(node) if _cancel(product) else No("no factor meets its reciprocal")


class SumOfQuotient(Rewrite):
    """sum(x / h) → sum(x) / h,  for h that is 0 or inf only by rounding, and the same for all that is added"""

    def pattern(self, x, h, axes):
        return sum(x / h, axes=axes, keepdims=True)

    def check(self, node, h, axes):
        if not rounds_away(h):
            return No(f"{h.op.name} is not 0 or inf by rounding")
        return same_along(axes, h, len(node.shape)) or No("the divisor varies along the axes of the sum")

    def build(self, node, x, h, axes):
        return sum(fitted(x, node.args[0]), axes=axes, keepdims=True) / h


class DistributeQuotient(Rewrite):
    """h · (a / h + b) → a + h · b,  for h that is 0 or inf only by rounding"""

    def pattern(self, x, y):
        return x * y

    def concerns(self, op, operands):
        return any(operand in (add, sub, mul, div, neg, reshape) for operand in operands)

    def build(self, node):
        product = Product.of(node)
        for i, factor in enumerate(product.above):
            others = Product(product.above[:i] + product.above[i + 1:], product.below, product.negative)
            if factor.op in (add, sub) and others.above:
                terms = _terms(factor)
                meeting = [t for t in terms if _meets(others, t)]
                if meeting:
                    rest = [t for t in terms if t not in meeting]
                    return fitted(_distributed(others, meeting, rest, node), node)
        return No("no term is divided by a factor that rounds to 0")


class NormGradient(Rewrite):
    """x · (c / ‖x‖) → x · (c / (‖x‖ = 0 ? 1 : ‖x‖)),  for ‖x‖ = sqrt(sum x²), as its gradient has it

    At x = 0 that is 0, a subgradient, where 0 · inf would be NaN.  x / ‖x‖, which has no value there, stays.
    """

    def pattern(self, x, y):
        return x * y, (x * 2) * y

    def concerns(self, op, operands):
        return not {div, mul, neg, reshape, select}.isdisjoint(operands)

    def build(self, node, x, y):
        guarded = _guarded(y, x)
        if guarded is None:
            return No("nothing is divided by the norm of the other factor")
        return fitted((x if node.x is x or node.y is x else x * 2) * guarded, node)


def _guarded(node: Node, x: Node, depth: int = 4) -> Node | None:
    """The node with divisions by the norm of x guarded, or None where there is none `depth` operations far."""
    if node.op is div:
        norm = node.y
        if _normed(norm) is x:
            return node.x / select(eq(norm, 0), constant(1, norm.dtype), norm)
    elif depth and node.op in (mul, neg, reshape, select):
        args = [_guarded(a, x, depth - 1) or a for a in node.args]
        if any(a is not b for a, b in zip(args, node.args, strict=True)):
            return make(node.op, *args, **node.attrs)
    return None


def _normed(node: Node) -> Node | None:
    """x where the node is sqrt(sum x²)."""
    while node.op is reshape:
        node = node.x
    if node.op is sqrt and node.x.op is sum and node.x.x.op is square:
        return node.x.x.x
    return None


def _cancel(product: Product) -> bool:
    """Removes factors that meet their reciprocal; whether there were any."""
    changed = False
    for below in list(product.below):
        for above in product.above:
            instead = _quotient(above, below)
            if instead is not None:
                product.above.remove(above)
                product.below.remove(below)
                product.above += instead
                if above.op is sigmoid:
                    opposite_one = sigmoid(-above.x)
                    product.above = [opposite_one if _complement(f) is above else f for f in product.above]
                changed = True
                break
    for below in list(product.below):
        exponent = one_plus_exp(below)
        if changed and exponent is not None:
            product.below.remove(below)
            product.above.append(sigmoid(-exponent))
    for e in [f for f in product.above if f.op is exp]:
        for s in [f for f in product.above if f.op is sigmoid]:
            if opposite(e.x, s.x) and e in product.above:
                product.above.remove(e)
                product.above.remove(s)
                product.above.append(sigmoid(e.x))
                changed = True
    return changed


def _quotient(above: Node, below: Node) -> list[Node] | None:
    """Factors that above / below is, if they are to be cancelled."""
    if above is below:
        return [] if rounds_away(above) else None
    p = _complement(below)
    if p is not None and p.op is above.op is sigmoid and opposite(above.x, p.x):
        return []
    if above.op is not exp:
        return None
    x: Node = above.x
    if one_plus_exp(below) is x:
        return [sigmoid(x)]
    if below.op is add and above in below.args and (other := _other(below, above)).op is exp:
        return [sigmoid(x - other.x)]
    if below.op in (sum, mean) and below.x is above and _keeps(below):
        share = normalised(x, below.axes)
        return [share] if below.op is sum else [share, count(x, below.axes, x.dtype)]
    return None


def rounds_away(node: Node) -> bool:
    """Whether a node is 0 or inf only by rounding or overflow."""
    if node.op in (exp, softmax, sigmoid) or one_plus_exp(node) is not None:
        return True
    if node.op is add:
        return node.x.op is exp and node.y.op is exp
    if node.op in (sum, mean):
        return node.x.op is exp
    return _complement(node) is not None


def one_plus_exp(node: Node) -> Node | None:
    """x where the node is 1 + exp x."""
    if node.op is add:
        for one, e in (node.args, node.args[::-1]):
            if e.op is exp and filled_with(one) == 1:
                return e.x
    return None


def normalised(x: Node, axes: tuple[int, ...]) -> Node:
    """exp(x) / sum(exp x) over axes, without overflow."""
    if len(axes) == 1:
        return softmax(x, axis=axes[0])
    return exp(x - logsumexp(x, axes=axes, keepdims=True))


def opposite(a: Node, b: Node) -> bool:
    """Whether a is −b, as far as can be seen: one is a negation, or a multiple by the negated number."""
    if (a.op is neg and a.args[0] is b) or (b.op is neg and b.args[0] is a):
        return True
    if a.op is sub and b.op is sub:
        return a.args == b.args[::-1]
    if a.op is mul and b.op is mul:
        return any(x is y and _negated(c, d) for x, c in _both_ways(a) for y, d in _both_ways(b))
    return False


def _both_ways(product: Node) -> tuple[tuple[Node, Node], tuple[Node, Node]]:
    x, y = product.args
    return (x, y), (y, x)


def _negated(c: Node, d: Node) -> bool:
    """Whether two numbers are opposite."""
    x, y = filled_with(c), filled_with(d)
    return x is not None and y is not None and bool(x == -y)


def _other(pair: Node, one: Node) -> Node:
    """The operand of a pair that is not `one`."""
    x, y = pair.args
    return y if x is one else x


def _complement(node: Node) -> Node | None:
    """p where the node is 1 − p for a probability p."""
    if node.op is sub and filled_with(node.args[0]) == 1 and node.args[1].op in (sigmoid, softmax):
        return node.args[1]
    return None


def _keeps(reduction: Node) -> bool:
    """Whether the result broadcasts back over the operand."""
    return reduction.keepdims or reduction.axes == tuple(range(len(reduction.axes)))


def _terms(node: Node, negative: bool = False) -> list[tuple[bool, Node]]:
    """(negative, term) for each term of a sum."""
    todo = [(negative, node)]
    found: list[tuple[bool, Node]] = []
    while todo:
        sign, term = todo.pop()
        if len(todo) + len(found) < MOST and term.op in (add, sub):
            todo += [(sign ^ (term.op is sub), term.args[1]), (sign, term.args[0])]
        elif len(todo) + len(found) < MOST and term.op is neg:
            todo.append((not sign, term.args[0]))
        else:
            found.append((sign, term))
    return found


def _meets(others: Product, term: tuple[bool, Node]) -> bool:
    """Whether a term is divided by something that cancels against one of the other factors."""
    below = Product.of(term[1]).below
    return any(_quotient(a, b) is not None for b in below for a in others.above)


def _distributed(others: Product, meeting: list[tuple[bool, Node]], rest: list[tuple[bool, Node]], like: Node) -> Node:
    parts = [(sign, Product([*others.above, t], others.below)) for sign, t in meeting]
    if rest:
        parts.append((False, Product([*others.above, _summed(rest)], others.below)))
    total = _summed([(sign ^ others.negative, _plain(part)) for sign, part in parts])
    return fitted(total, like)


def _plain(product: Product) -> Node:
    """The product as a node, of whatever shape it has."""
    result = _multiplied(product.above)
    return result / _multiplied(product.below) if product.below else result


def _summed(terms: list[tuple[bool, Node]]) -> Node:
    """The sum of signed terms."""
    (negative, total), *more = sorted(terms, key=lambda t: t[0])
    if negative:
        total = -total
    for sign, term in more:
        total = total - term if sign else total + term
    return total


def _multiplied(factors: list[Node]) -> Node:
    first, *more = factors
    for factor in more:
        first = first * factor
    return first


def _lifted(view: Node) -> Node | None:
    """reshape(f(x, y), ones inserted) → f(reshape x, reshape y) for a product, and a reduction that keeps its axes."""
    inner = view.args[0]
    if inner.op in (mul, div, neg, square):
        places = _places(inner.shape, view.shape)
        if places is not None:
            return make(inner.op, *(_placed(a, places, view.shape) for a in inner.args))
    return None


def _places(short: Sequence[Size], long: Sequence[Size]) -> list[int] | None:
    """Where the axes of `short` stand in `long`, if the others are ones."""
    places, at = [], 0
    for n in short:
        while at < len(long) and long[at] != n:
            if long[at] != 1:
                return None
            at += 1
        if at == len(long):
            return None
        places.append(at)
        at += 1
    return places if all(n == 1 for n in long[at:]) else None


def _placed(x: Node, places: list[int], shape: Sequence[Size]) -> Node:
    """x, which broadcasts to the inner shape, viewed so that it broadcasts to `shape`."""
    new: list[Size] = [1] * len(shape)
    for n, place in zip(reversed(x.shape), reversed(places), strict=False):
        new[place] = n
    if "keepdims" in x.attrs and not x.keepdims:
        kept = make(x.op, *x.args, **{**x.attrs, "keepdims": True})
        if list(kept.shape) == new:
            return kept
    return x if not x.shape else reshape(x, shape=tuple(new))
