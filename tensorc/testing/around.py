# mypy: no-warn-return-any
"""Random graphs in which a rule fires: its pattern on random operands, or a graph that is given, and more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from tensorc.autodiff import gradients
from tensorc.ir import dims
from tensorc.ir.graph import Graph, postorder, replace_nodes
from tensorc.ir.node import Node, Op, Pattern
from tensorc.ir.types import boolean, f32, f64, i32
from tensorc.passes.rewrite import No, Rewrite, matches
from tensorc.testing.grow import Grower, Grown

TRIES = 400
"""How many ways to fill the holes of a pattern are tried for one graph."""


class Barren(Exception):
    """No operands were found on which a rule fires; the message says why it did not, most often."""


def around_pattern(rule: Rewrite, random: Random, with_gradients: bool = True) -> Grown:
    """A random computation with the pattern of a rule in it, on operands that its check allows.  Raises Barren."""
    planting = _Planting(random)
    planting.start()
    for _ in range(planting.pick([0, 2, 5])):
        planting.step()
    node = planting.pattern(rule)
    return planting.surrounded([node], [], with_gradients)


def around_graph(graph: Graph, random: Random, with_gradients: bool = True) -> Grown:
    """A random computation with a graph in it, on other operands of the same types.  Raises Barren."""
    planting = _Planting(random)
    planting.start()
    roots, variables = planting.embedded(graph)
    updates = list(zip(variables, roots[len(graph.outputs):], strict=True))
    return planting.surrounded(roots[:len(graph.outputs)], updates, with_gradients)


@dataclass
class _Planting(Grower):
    """A grower that puts what it is asked for among what it grows."""

    reasons: Counter[str] = field(default_factory=Counter)

    def surrounded(self, roots: Sequence[Node], updates: Sequence[tuple[Node, Node]], with_gradients: bool) -> Grown:
        """More operations after what was planted, and sometimes its gradients."""
        for _ in range(self.pick([0, 1, 3, 6])):
            self.step()
        grown = self.finished(())
        needed = set(postorder(grown.outputs))
        outputs = [*grown.outputs, *(r for r in roots if r not in needed)]
        floats = [r for r in roots if r.dtype.is_float]
        if with_gradients and floats and self.chance(0.5):
            wanted = [p for p in self.params if p.dtype.is_float]
            slopes = [g for g in gradients(floats[:1], None, wanted) if g is not None]
            outputs += [g for g in slopes if self.add(g)]
        changed = {v for v, _ in updates}
        inputs = [p for p in grown.inputs if p not in changed]
        return replace(grown, inputs=inputs, variables=list(changed), outputs=outputs, updates=list(updates))

    # -- a pattern

    def pattern(self, rule: Rewrite) -> Node:
        """A node that a rule rewrites."""
        for _ in range(TRIES):
            holes: dict[str, Any] = {}
            try:
                node = self.filled(self.pick(rule.patterns), holes, None)
            except Exception:                        # whatever an operation says to operands that do not fit
                self.reasons["its pattern fits none of the operands tried"] += 1
                continue
            if isinstance(node, Node) and self.fires(rule, node) and self.add(node, shaky=self.chance(0.3)):
                return node
        reasons = self.reasons or Counter({"its values are never well-conditioned": TRIES})
        why, times = reasons.most_common(1)[0]
        raise Barren(f"{why} ({times} of {TRIES} times)")

    def fires(self, rule: Rewrite, node: Node) -> bool:
        """Whether a rule rewrites a node, or fails to, as the driver will tell; why it does not is counted."""
        if not rule.concerns(node.op, [a.op for a in node.args]):
            self.reasons["it is not concerned"] += 1
            return False
        for binding in (b for p in rule.patterns for b in matches(p, node)):
            try:
                new = rule.replacement(binding)
            except Exception:
                return True
            if not isinstance(new, No):
                return True
            self.reasons[f"its check says: {new.reason}"] += 1
        return False

    def filled(self, pattern: Any, holes: dict[str, Any], beside: Node | None) -> Any:
        """A pattern with nodes for its holes; `beside` is the operand before it, `holes` takes what holes became."""
        if not isinstance(pattern, Pattern):
            return pattern
        if pattern.op is None:
            name = pattern.name.lstrip("*")
            if name not in holes:
                holes[name] = self.operand(beside)
            return holes[name]
        attrs = {k: holes.get(v.name, v) if isinstance(v, Pattern) else v for k, v in pattern.attrs.items()}
        open_attrs = [k for k in pattern.op.attrs if k not in attrs or isinstance(attrs[k], Pattern)]
        flags = {k: self.chance(0.5) for k in open_attrs if _is_flag(pattern.op, k)}
        args: list[Any] = []
        for part in pattern.args:
            if isinstance(part, Pattern) and part.name.startswith("*"):
                rest = holes.setdefault(part.name[1:], [self.pick([n for n in self.nodes if n.type == args[0].type])
                                                        for _ in range(self.pick([0, 1, 2]))] if args else [])
                args.extend(rest)
                continue
            before = next((a for a in reversed(args) if isinstance(a, Node)), beside)
            if pattern.op.name == "matmul" and len(args) == 1 and _is_new(part, holes):
                holes[part.name] = self.factor(args[0], {**attrs, **flags})
            args.append(self.filled(part, holes, before))
        nodes = [a for a in args if isinstance(a, Node)]
        chosen = {**flags, **{k: v for k, v in self.attributes(pattern.op, nodes).items() if k not in flags}}
        for name in open_attrs:
            hole = pattern.attrs.get(name)
            attrs[name] = chosen[name]
            if isinstance(hole, Pattern):
                holes[hole.name] = chosen[name]
        return pattern.op(*args, **attrs)

    def operand(self, beside: Node | None) -> Node:
        """A node for a hole: one that broadcasts with the operand beside it, or any."""
        if beside is not None and self.chance(0.9):
            return self.like(beside)
        if self.chance(0.3):
            return self.parameter(self.dtype(), self.shape())
        return self.pick(self.nodes)

    def factor(self, x: Node, flags: dict[str, Any]) -> Node:
        """The right operand of a product."""
        inner = x.shape[-2 if flags.get("transpose_a") else -1]
        outer = self.pick([1, 3, 5])
        return self.parameter(x.dtype, (outer, inner) if flags.get("transpose_b") else (inner, outer))

    def attributes(self, op: Op, operands: Sequence[Node]) -> dict[str, Any]:
        """Attributes for an operation on operands: made for them where that is known, else those of a sample."""
        ways: dict[str, Callable[[Node], Node | None]] = {
            "slice": self.slice, "pad": self.pad, "reshape": self.reshaped, "broadcast": self.broadcast,
            "reverse": self.reversed, "transpose": self.transposed,
        }
        if op.name in ways and (made := ways[op.name](operands[0])) is not None:
            return dict(made.attrs)
        sampled = self.pick([s.attrs for s in op.samples]) if op.samples else {}
        rank = len(operands[0].shape) if operands else 0
        fitting = {
            "axes": tuple(i for i in range(rank) if self.chance(0.5)) or tuple(range(rank))[-1:],
            "axis": self.random.randrange(rank) if rank else 0,
            "dtype": self.pick([f32, f64, i32, boolean]),
        }
        return {name: fitting.get(name, sampled.get(name)) for name in op.attrs}

    # -- a graph

    def embedded(self, graph: Graph) -> tuple[list[Node], list[Node]]:
        """The results of a graph on operands of its parameters' types, and the variables that it updates."""
        symbols = frozenset().union(*(dims.symbols(s) for p in graph.params for s in p.shape))
        for sizes in self.sizes:
            sizes |= {s: self.pick([1, 2, 3, 5]) for s in sorted(symbols - sizes.keys())}
        given = {p: self.instead_of(p) for p in graph.params}
        roots = replace_nodes(graph.roots, given)
        if not all(self.add(root) for root in roots):
            raise Barren("the values of the graph given are not well-conditioned for random parameters")
        return roots, [given[v] for v, _ in graph.updates]

    def instead_of(self, param: Node) -> Node:
        """A node for a parameter of a graph: a new parameter, or something computed from one."""
        if param.role == "key":
            raise Barren("the graph given draws random numbers; hold it with check_graph")
        role = "variable" if param.role == "variable" else "input"
        node = self.parameter(param.dtype, param.shape, role, None if param.dtype.is_float else "index")
        if param.role == "variable" or self.chance(0.5):
            return node
        computed = self.unary(node) if param.dtype.is_float else None
        return computed if computed is not None and computed.type == param.type and self.add(computed) else node


def _is_flag(op: Op, name: str) -> bool:
    """Whether an attribute is true or false."""
    return any(isinstance(s.attrs.get(name), bool) for s in op.samples)


def _is_new(part: Any, holes: dict[str, Any]) -> bool:
    """Whether a part of a pattern is a hole that stands for nothing yet."""
    return isinstance(part, Pattern) and part.op is None and part.name not in holes
