"""Loops do no more in each step than has to be done there.

Results of the same recurrence become results of one loop; what nobody needs is left out.  What does not depend on the
states is computed ahead for all steps, and what the states do not depend on after them, wherever that makes one large
product of many small ones: the products of an LSTM's inputs and the gradients of its weights are one product each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from tensorc.ir.dims import Size
from tensorc.ir.graph import BODY, Graph, Location, carrying, postorder, replace_nodes
from tensorc.ir.node import Node, rebuild, tell_rebuilt, watching
from tensorc.ops.scan import body_parameter, group_of, loop, loop_with, scan
from tensorc.passes.batch import Lifted, all_steps, lift
from tensorc.passes.context import Context


def arrange(graph: Graph, context: Context) -> Graph:
    """The graph with its loops brought to what has to be done step by step."""
    if all(node.op is not scan for node in graph.nodes):
        return graph
    lines = dict(graph.provenance)
    with watching(rebuilt=carrying(lines)):
        return _arranged(_merged(graph), lines)


def _arranged(graph: Graph, lines: dict[Node, tuple[Location, ...]]) -> Graph:
    """Its loops arranged one by one; `lines` grow."""
    needed: dict[object, set[int]] = {}
    for node in graph.nodes:
        if node.op is scan:
            needed.setdefault(group_of(node), set()).add(node.result)

    done: dict[Node, Node] = {}
    loops: dict[object, Mapping[int, Node]] = {}
    for node in graph.nodes:
        new = rebuild(node, [done[a] for a in node.args])
        if node.op is scan:
            group = group_of(node)
            if group not in loops:
                loops[group] = _Arranged(new, needed[group]).results
            new = loops[group][node.result]
            tell_rebuilt(node, new)
            for made in postorder([new], done.values()):
                lines.setdefault(made, lines.get(node, ()))
        done[node] = new
    return graph.with_roots([done[r] for r in graph.roots], lines)


def _merged(graph: Graph) -> Graph:
    """The graph in which loops over the same states are one, which keeps all that any of them keeps, once."""
    while True:
        groups: dict[object, dict[Node, None]] = {}
        for node in graph.nodes:
            if node.op is scan:
                groups.setdefault(_recurrence(node), {}).update(dict.fromkeys(node.body.outputs[node.states:]))
        done: dict[Node, Node] = {}
        for node in graph.nodes:
            new = rebuild(node, [done[a] for a in node.args])
            if node.op is scan:
                kept = tuple(groups[_recurrence(node)])
                new = _keeping(new, node.body, kept)
            done[node] = new
        if all(old is new for old, new in done.items()):
            return graph
        graph = graph.with_roots([done[r] for r in graph.roots])


def _recurrence(node: Node) -> object:
    return (node.args, node.sequences, node.states, node.length, node.reverse, node.body.params,
            node.body.outputs[:node.states])


def _keeping(node: Node, body: Graph, kept: tuple[Node, ...]) -> Node:
    """The same result of a loop that keeps more of each step."""
    states = node.states
    result = node.result if node.result < states else states + kept.index(body.outputs[node.result])
    outputs = (*body.outputs[:states], *kept)
    if outputs == body.outputs and result == node.result:
        return node
    fuller = Graph(BODY, body.params, outputs)
    return loop_with(node, fuller, result)


class _Arranged:
    """One loop on its way; `results` are the nodes outside for the results that are needed."""

    def __init__(self, node: Node, needed: Collection[int]) -> None:
        self.node, self.body = node, node.body
        self.length: Size = node.length
        rows, states = node.sequences, node.states
        self.state_params = self.body.params[rows:rows + states]
        self.live = self._live_states(needed)
        self.lifted = self._lifted()
        new_states = [self.body.outputs[i] for i in self.live]
        self.core = {n for n in postorder(new_states) if n not in self.lifted}
        kept = [self.body.outputs[i] for i in sorted(needed) if i >= states]

        self.direct: dict[Node, Node] = {}       # kept of every step, with what stands for it until there is a loop
        self.standing: dict[Node, Node] = {}
        after = {out: self._after(out, kept) for out in kept}
        made = self._loop(new_states)
        final = dict(zip(self.live, made, strict=False))
        steps = dict(zip(self.direct.values(), made[len(self.live):], strict=True))
        outside = dict(zip(after, replace_nodes(after.values(), steps), strict=True))
        self.results = {i: final[i] if i < states else outside[self.body.outputs[i]] for i in needed}

    def _live_states(self, needed: Collection[int]) -> list[int]:
        """The states that something needed depends on."""
        live = {i for i in needed if i < self.node.states}
        while True:
            roots = [self.body.outputs[i] for i in {*needed, *live}]
            used = set(postorder(roots))
            more = {i for i, p in enumerate(self.state_params) if p in used} - live
            if not more:
                return sorted(live)
            live |= more

    def _lifted(self) -> dict[Node, Lifted]:
        """The nodes that do not depend on states, as what they are for all steps at once."""
        rows = self.node.sequences
        found = {p: Lifted(a, by_row=i < rows) for i, (p, a) in
                 enumerate(zip(self.body.params, self.node.args, strict=True)) if p not in self.state_params}
        for node in postorder(self.body.outputs):
            if node not in found and all(a in found for a in node.args) and node.op.name != "parameter":
                made = self._lift(node, found)
                if made is not None:
                    found[node] = made
        return found

    def _lift(self, node: Node, found: Mapping[Node, Lifted]) -> Lifted | None:
        """A node of the body for all steps at once, or None; what that takes stands for the node."""
        with watching(made=lambda new: tell_rebuilt(node, new)):
            return lift(node, [found[a] for a in node.args], self.length)

    def _after(self, out: Node, kept: Collection[Node]) -> Node:
        """What is kept of a step, for all steps, in terms of lifted nodes and of what stands for the loop's results."""
        if out in self.lifted:
            return all_steps(self.lifted[out], out.shape, self.length)
        found = dict(self.lifted)
        frontier: dict[Node, Node] = {}
        region: list[Node] = []
        for node in postorder([out], found):
            made = None
            if node not in self.core and node not in self.state_params and all(a in found for a in node.args):
                made = self._lift(node, found)
            if made is None:
                stand_in = frontier[node] = self._stand_in(node)
                made = Lifted(stand_in, by_row=True)
            else:
                region.append(node)
            found[node] = made
        read = {n for n in postorder([found[out].node]) if n.op.name == "parameter"}
        frontier = {n: p for n, p in frontier.items() if p in read}
        pays = any(n.op.kernel or n.op.reduce for n in region) or frontier.keys() <= {*self.direct, *kept}
        if not pays:
            frontier = {out: self._stand_in(out)}
        self.direct |= frontier
        return all_steps(found[out], out.shape, self.length) if pays else frontier[out]

    def _stand_in(self, node: Node) -> Node:
        """The node that stands for the values of all steps until there is a loop."""
        if node in self.standing:
            return self.standing[node]
        name = f"steps{len(self.standing)}"
        return self.standing.setdefault(node, body_parameter(name, node.type.with_shape((self.length, *node.shape))))

    def _loop(self, new_states: Sequence[Node]) -> list[Node]:
        """The loop for what is left: the live states, and what is kept directly."""
        if not new_states and not self.direct:
            return []
        results = [*new_states, *self.direct]
        ahead = self._ahead(results)
        inner = {n: body_parameter(f"ahead{i}", n.type) for i, n in enumerate(ahead)}
        results = replace_nodes(results, inner)
        used = set(postorder(results))
        first = self.node.sequences
        params = dict(zip(self.body.params, self.node.args, strict=True))
        bound = [(p, Lifted(a, by_row=i < first)) for i, (p, a) in enumerate(params.items())
                 if p not in self.state_params]
        bound += [(inner[n], self.lifted[n]) for n in ahead]
        rows = [(p, x.node) for p, x in bound if x.by_row and p in used]
        captures = [(p, x.node) for p, x in bound if not x.by_row and p in used]
        states = [(self.state_params[i], params[self.state_params[i]]) for i in self.live]
        return loop(rows, states, captures, results, length=self.length, reverse=self.node.reverse)

    def _ahead(self, results: Iterable[Node]) -> list[Node]:
        """The nodes that are better computed ahead, for all steps, than in each step."""
        found: dict[Node, None] = {}
        seen: set[Node] = set()
        stack = list(results)
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in self.lifted and node not in self.body.params and self._pays_ahead(node):
                found[node] = None
            else:
                stack.extend(node.args)
        return sorted(found, key=self.body.nodes.index)

    def _pays_ahead(self, node: Node) -> bool:
        """Of what varies by step, products and sums pay; of what does not, all that is computed from a tensor."""
        made = postorder([node], self.body.params)
        if self.lifted[node].by_row:
            return any(n.op.kernel or n.op.reduce for n in made)
        return any(a in self.body.params for n in made for a in n.args)
