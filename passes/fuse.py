"""Fusion: which nodes share a kernel.

Every node starts as a cluster of its own; walking operands before users, a node's cluster takes in the clusters of its
operands where the loops agree and no cycle arises.  The loops of a cluster are its *frame*: elementwise nodes and the
operands of reductions run over all of it, the results of reductions over the part that is not reduced.  What is left
between clusters goes through memory.  What depends on variables alone, and takes more than moments, stays apart from
what does not: it need not be computed in every call.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph, nested, users
from tensorc.ir.kernels import Group, Plan, memory_of, reduced_axes
from tensorc.ir.node import Node
from tensorc.ops.scan import group_of, kept_before
from tensorc.passes.context import Context
from tensorc.passes.order import Precedence
from tensorc.passes.rows import by_rows
from tensorc.passes.steady import is_kept, steady_nodes

Axes = tuple[int | None, ...]

CHEAP = frozenset(
    "add sub mul neg abs maximum minimum eq ne lt le gt ge logical_and logical_or logical_not select cast "
    "broadcast iota size".split()
)
KERNELS = {"matmul": "matmul", "conv": "conv", "scatter_add": "scatter", "csr": "sparse", "ctc": "written",
           "scan": "loop", "cond": "choice"}
"""The kind of cluster for each code generator of its own; operations that write their loops are `written`."""

PRODUCTS = frozenset(("matmul", "conv"))
"""Kinds of clusters whose code generator takes what follows elementwise along."""

ALONE = frozenset(("along", "scatter", "sparse", "written", "loop", "choice"))
"""Kinds of clusters that take in nothing else."""

REPEATED = 16
"""Most operations, over all their repetitions, that are repeated for the sake of an element that is not stored."""

LIMIT = 160
"""Nodes in one cluster, so that a kernel's live values stay within reach of a register allocator."""


@dataclass(eq=False)
class Cluster:
    """Nodes that will be one kernel; `axes[node]` are positions in `frame`, None for a size of 1."""

    kind: str
    frame: tuple[Size, ...]
    reduced: frozenset[int]
    axes: dict[Node, Axes]
    first: int                                   # place of its earliest and latest node in the graph's order
    last: int
    product: Node | None = None
    shifted: bool = field(default=False)         # holds nodes that read operands at other places than their own

    @property
    def nodes(self) -> Iterable[Node]:
        return self.axes.keys()


def fuse(graph: Graph, context: Context) -> Graph:
    """The graph with a plan: its kernels in an order in which each finds its operands computed."""
    groups = [_with_bodies(g, context) for g in _Fusion(graph, steady_nodes(graph, context)).groups()]
    return replace(graph, plan=Plan(tuple((g,) for g in groups)))


def _with_bodies(group: Group, context: Context) -> Group:
    """The group with the graphs that it runs; the body of a loop is one for some rows of a batch where it can be."""
    node = group.outputs[0]
    bodies = [_computed(inner, kept_before(node) if group.kind == "loop" else ()) for inner in nested(node)]
    batch = None
    by_row = context.machine.takes_rows and group.kind == "loop"
    if by_row and (split := by_rows(node, bodies[0])) is not None:
        bodies[0], batch = split
    return replace(group, bodies=tuple(fuse(body, context) for body in bodies), batch=batch)


def _computed(body: Graph, others: Collection[int]) -> Graph:
    """The body with each of its outputs once, and without some."""
    return replace(body, outputs=tuple(dict.fromkeys(o for i, o in enumerate(body.outputs) if i not in others)))


class _Fusion:
    """The clusters of one graph while they grow."""

    def __init__(self, graph: Graph, steady: set[Node]) -> None:
        self.graph = graph
        self.order = graph.nodes
        self.place = {n: i for i, n in enumerate(self.order)}
        self.users = users(graph.roots)
        self.roots = {memory_of(r) for r in graph.roots}
        self.steady = steady
        self.cluster: dict[Node, Cluster] = {}
        self.joint: dict[object, Cluster] = {}
        self.free: set[Node] = set()
        self.repeating: set[Node] = set()
        for node in self.order:
            if self.is_free(node):
                self.free.add(node)
            elif self.is_repeating(node):
                self.repeating.add(node)
            elif not node.op.source and (not node.op.view or self.is_thin(node)):
                self.grow(node)

    def is_free(self, node: Node) -> bool:
        """Costs nothing to compute again wherever it is used: made of single numbers and positions alone."""
        if node.op.name == "constant":
            return bool(node.value.ndim == 0)
        wanted_in_memory = node in self.roots or any(u.op.view or u.op.kernel for u in self.users[node])
        return node.op.name in CHEAP and self.free.issuperset(node.args) and not wanted_in_memory

    def is_repeating(self, node: Node) -> bool:
        """Only repeats elements of its operand: whoever uses it reads them there, and it never takes up memory."""
        wanted_in_memory = node in self.roots or any(u.op.view or u.op.kernel for u in self.users[node])
        return node.op.name == "windows" and not wanted_in_memory

    def is_thin(self, node: Node) -> bool:
        """A reshape that only adds or removes sizes of 1, of something computed: it costs nothing inside a kernel."""
        operand = node.args[0]
        return ([s for s in node.shape if s != 1] == [s for s in operand.shape if s != 1]
                and operand in self.cluster and self.cluster[operand].kind not in ALONE)

    def grow(self, node: Node) -> None:
        """Gives the node a cluster and merges in the clusters of its operands.

        The results of one loop are one cluster: they have the same operands, so nothing can stand between them.
        """
        own = self.cluster[node] = new_cluster(node, self.place[node])
        if nested(node):
            joint = self.cluster[node] = self.joint.setdefault(group_of(node), own)
            joint.axes[node], joint.last = own.axes[node], own.last
            return
        for operand in dict.fromkeys(node.args):
            inner = self.cluster.get(operand)
            own = self.cluster[node]
            if inner is not None and inner is not own:
                merged = self.merged(inner, own, operand, node)
                if merged is not None:
                    for member in merged.nodes:
                        self.cluster[member] = merged

    def merged(self, inner: Cluster, outer: Cluster, operand: Node, node: Node) -> Cluster | None:
        """Both clusters as one, or None where their loops or their dependences do not allow it."""
        if len(inner.axes) + len(outer.axes) > LIMIT or node.op.kernel or ALONE & {inner.kind, outer.kind}:
            return None
        if node not in self.steady and self.is_better_kept(inner, operand):
            return None
        closed = self.is_private(inner, outer)
        if is_shift(node):
            pure = inner.kind == "map" and closed and outer.kind == "map" and _bears_repetition(inner, node)
            return self.joined(inner, outer, {}, outer.frame, "map") if pure else None
        follow = follow_axes(inner, outer, operand, node)
        if follow is None or self.would_cycle(inner, outer):
            return None
        union = self.aligned(inner, outer, follow, closed)
        return union if union is not None and agrees(union, inner) else None

    def is_better_kept(self, cluster: Cluster, result: Node) -> bool:
        """Does the cluster take more than moments, and depend on variables alone, so that its result can be kept?"""
        return (result in self.steady and not CHEAP.issuperset(n.op.name for n in cluster.nodes)
                and self.roots.isdisjoint(cluster.nodes) and is_kept(result))

    def aligned(self, inner: Cluster, outer: Cluster, follow: dict[int, int], closed: bool) -> Cluster | None:
        """The union under `follow`: a loop of the inner frame is a loop of the outer one."""
        hidden = [i for i in range(len(inner.frame)) if i not in follow]
        wider = [o for o in range(len(outer.frame)) if o not in follow.values()]
        monotonic = list(follow.values()) == sorted(follow.values())
        if hidden and inner.reduced != frozenset(hidden):
            return None
        if hidden and wider:                     # a row's result meets the row again
            sizes = [inner.frame[i] for i in hidden], [outer.frame[o] for o in wider]
            if inner.kind != "row" or sizes[0] != sizes[1] or wider != list(range(len(outer.frame)))[-len(wider):]:
                return None
            follow = follow | dict(zip(hidden, wider, strict=True))
        elif hidden:                             # what follows a reduction at its own size
            if outer.reduced or outer.kind in PRODUCTS or not monotonic:
                return None
            back = {o: i for i, o in follow.items()}
            return self.joined(outer, inner, back, inner.frame, inner.kind)
        elif wider and not (closed and inner.kind == outer.kind == "map" and _is_repeated_cheaply(inner, outer, wider)):
            return None                          # computed once, used by many: through memory
        if not monotonic and not (closed and not inner.reduced and inner.product is None):
            return None
        reduced = frozenset(follow[i] for i in inner.reduced)
        if reduced and outer.reduced and reduced != outer.reduced:
            return None
        kinds = {inner.kind, outer.kind} - {"map"}
        if PRODUCTS & kinds and (len(kinds) > 1 or inner.product and outer.product or inner.shifted or outer.shifted):
            return None
        if inner.kind == "column" and not hidden:
            return None
        if outer.kind == "column" and inner.kind == "map" and not closed:
            return None
        if len(kinds) > 1:
            return None
        return self.joined(inner, outer, follow, outer.frame, kinds.pop() if kinds else "map")

    def joined(self, moved: Cluster, kept: Cluster, follow: dict[int, int], frame: tuple[Size, ...],
               kind: str) -> Cluster:
        """One cluster over the frame of `kept`."""
        axes = {n: tuple(None if a is None else follow.get(a) for a in at) for n, at in moved.axes.items()}
        return Cluster(
            kind=kind, frame=frame, reduced=kept.reduced | frozenset(follow[i] for i in moved.reduced if i in follow),
            axes=axes | kept.axes, first=min(moved.first, kept.first), last=max(moved.last, kept.last),
            product=moved.product or kept.product,
            shifted=moved.shifted or kept.shifted or any(a is None and b is not None for n, at in moved.axes.items()
                                                         for a, b in zip(axes[n], at, strict=True)),
        )

    def is_private(self, inner: Cluster, outer: Cluster) -> bool:
        """Is nothing of `inner` needed outside the two clusters?"""
        both = inner.axes.keys() | outer.axes.keys()
        return all(n not in self.roots and both.issuperset(self.needing(n)) for n in inner.nodes if not n.op.view)

    def needing(self, node: Node) -> list[Node]:
        """The users of a node's memory: views of it are looked through."""
        found: list[Node] = []
        for user in self.users[node]:
            found.extend(self.needing(user) if user.op.view else [user])
        return found

    def would_cycle(self, inner: Cluster, outer: Cluster) -> bool:
        """Does anything between the two depend on one and feed the other?"""
        return self.reaches(outer, inner) or self.reaches(inner, outer)

    def reaches(self, start: Cluster, goal: Cluster) -> bool:
        """Does `start` depend on `goal` by way of some third cluster?"""
        seen = {start, goal}
        stack = [d for d in self.depends(start) if d is not goal]
        while stack:
            cluster = stack.pop()
            if cluster in seen or cluster.last < goal.first:
                continue
            seen.add(cluster)
            for d in self.depends(cluster):
                if d is goal:
                    return True
                stack.append(d)
        return False

    def depends(self, cluster: Cluster) -> set[Cluster]:
        """The clusters that hold operands of this one."""
        found = {self.holder(a) for n in cluster.nodes for a in self.read(n)}
        return {c for c in found if c is not None and c is not cluster}

    def read(self, node: Node) -> Iterable[Node]:
        """The operands of a node, and in place of those that only repeat elements the operands of these."""
        for operand in node.args:
            if operand in self.repeating:
                yield from self.read(operand)
            else:
                yield operand

    def holder(self, node: Node) -> Cluster | None:
        """The cluster that computes a node, or the memory it is a view of."""
        return self.cluster.get(node) or self.cluster.get(memory_of(node))

    def is_recomputed(self, cluster: Cluster) -> bool:
        """Is the cluster so little work that each user does better to repeat it than to read what it would store?

        That is so where it reads no more than it would write: one tensor of its size, given or no wider than what is
        used of it, and vectors.
        """
        if cluster.kind != "map" or len(cluster.axes) > 3 or any(n in self.roots for n in cluster.nodes):
            return False
        outside = {memory_of(a) for n in cluster.nodes for a in n.args if a not in cluster.axes} - self.free
        used = [n for n in cluster.nodes if any(u not in cluster.axes for u in self.users[n])]
        narrow = all(s.op.source or all(s.dtype.size <= n.dtype.size for n in used) for s in outside)
        return (all(n.op.name in CHEAP for n in cluster.nodes) and narrow
                and sum(_is_whole(s, cluster) for s in outside) <= 1
                and not any(u.op.view or u.op.kernel or is_shift(u)
                            for n in cluster.nodes for u in self.users[n] if u not in cluster.axes))

    def groups(self) -> list[Group]:
        """Clusters in dependence order, those first whose nodes come first; then copies of what is only passed on."""
        clusters = list(dict.fromkeys(self.cluster[n] for n in self.order if n in self.cluster))
        for cluster in [c for c in clusters if self.is_recomputed(c) or all(n.op.view for n in c.nodes)]:
            clusters.remove(cluster)
            for n in cluster.nodes:
                del self.cluster[n]
        ordering: Precedence[Cluster] = Precedence()
        for cluster in clusters:
            ordering.add(cluster)
        ordering.add_pairs((d, c) for c in clusters for d in self.depends_through(c))
        ordered = ordering.ordered(lambda c: c.last)
        return [self.group(f"k{i}", c) for i, c in enumerate(ordered)]

    def depends_through(self, cluster: Cluster) -> set[Cluster]:
        """As `depends`, once recomputed clusters are gone."""
        found: set[Cluster] = set()
        for a in self.inputs(cluster.nodes):
            c = self.holder(a)
            if c is not None and c is not cluster:
                found.add(c)
        return found

    def inputs(self, members: Iterable[Node]) -> list[Node]:
        """What the members read from memory, in a deterministic order."""
        inside = set(members)
        found: dict[Node, None] = {}
        stack = [a for n in sorted(inside, key=self.place.__getitem__, reverse=True) for a in reversed(n.args)]
        while stack:
            node = stack.pop()
            if node in inside or (node in self.free and node.op.name == "constant" and not self.is_fed(node, inside)):
                continue
            if node.op.source or node.op.view or node in self.cluster:
                found[node] = None
            else:
                stack.extend(reversed(node.args))
        return sorted(found, key=self.place.__getitem__)

    def is_fed(self, node: Node, members: set[Node]) -> bool:
        """Is the node an operand of a loop or a choice, which finds it in memory?"""
        return any(user in members and nested(user) for user in self.users[node])

    def group(self, name: str, cluster: Cluster) -> Group:
        """The cluster as a group of the plan."""
        def is_needed(n: Node) -> bool:
            return n in self.roots or any(u not in cluster.axes for u in self.needing(n))
        outputs = sorted((n for n in cluster.nodes if not n.op.view and is_needed(n)), key=self.place.__getitem__)
        return Group(name, cluster.kind, tuple(outputs), tuple(self.inputs(cluster.nodes)), cluster.frame,
                     cluster.reduced, tuple(cluster.axes[n] for n in outputs))


def _is_whole(source: Node, cluster: Cluster) -> bool:
    """Does a tensor have an element for each point of the cluster's loops?"""
    return len([s for s in source.shape if s != 1]) >= len(cluster.frame)


def new_cluster(node: Node, place: int) -> Cluster:
    """A cluster of one node."""
    reduces = node.op.reduce is not None
    along = node.args[0].shape if reduces else node.shape
    at: list[int | None] = []
    for size in along:
        at.append(None if size == 1 else sum(p is not None for p in at))
    frame = tuple(s for s in along if s != 1)
    reduced: frozenset[int] = frozenset()
    axes: Axes = tuple(at)
    kernel = node.op.kernel
    kind = "map" if kernel is None else KERNELS[kernel] if isinstance(kernel, str) else "written"
    if node.op.reduce is not None and node.op.reduce.cumulative:
        kind, reduced = "along", frozenset(a for a in (at[node.axis],) if a is not None)
    elif reduces:
        gone = reduced_axes(node)
        reduced = frozenset(a for i in gone if (a := at[i]) is not None)
        keep = node.attrs.get("keepdims", False)
        axes = tuple(None if i in gone else a for i, a in enumerate(at) if keep or i not in gone)
        inner = frozenset(range(len(frame) - len(reduced), len(frame)))
        kind = "map" if not reduced else "row" if reduced == inner and len(frame) > len(reduced) else "column"
    return Cluster(kind, frame, reduced, {node: axes}, place, place, node if kind in PRODUCTS else None, is_shift(node))


def follow_axes(inner: Cluster, outer: Cluster, operand: Node, node: Node) -> dict[int, int] | None:
    """For each loop that `operand` follows in its cluster, the loop of `node`'s cluster that it meets there."""
    found: dict[int, int] = {}
    for mine, theirs in zip(inner.axes[operand], read_axes(outer, operand, node), strict=True):
        if mine is not None:
            if theirs is None:
                return None
            found[mine] = theirs
    return dict(sorted(found.items()))


def read_axes(cluster: Cluster, operand: Node, node: Node) -> Axes:
    """For each axis of `operand`, the loop of `node`'s cluster along which `node` reads it."""
    own = cluster.axes[node]
    if node.op.reduce is not None:
        gone = reduced_axes(node)
        over = iter(sorted(cluster.reduced))
        kept = iter([a for i, a in enumerate(own) if i not in gone] if node.attrs.get("keepdims") else own)
        return tuple((None if s == 1 else next(over)) if i in gone else next(kept)
                     for i, s in enumerate(operand.shape))
    if node.op.name == "transpose":
        return tuple(own[node.perm.index(i)] for i in range(len(own)))
    if node.op.view:
        moving = iter(a for a in own if a is not None)
        return tuple(None if s == 1 else next(moving) for s in operand.shape)
    shift = len(node.shape) - len(operand.shape)
    return tuple(None if s == 1 else own[i + shift] for i, s in enumerate(operand.shape))


def agrees(union: Cluster, first: Cluster) -> bool:
    """Does every node of one part that reads the other find it at its own place, and not in memory?"""
    for node in union.nodes:
        for a in node.args:
            computed = a if a in union.axes else memory_of(a)
            within = computed not in union.axes or (node in first.axes) == (computed in first.axes)
            if not within and (a is not computed or node.op.kernel or is_shift(node)
                               or union.axes[a] != read_axes(union, a, node)):
                return False
    return True


def _bears_repetition(inner: Cluster, node: Node) -> bool:
    """Is what `node` reads cheap enough to be computed once for each reading?  A gather may read a row many times."""
    return node.op.name != "gather" or all(n.op.name in CHEAP for n in inner.nodes)


def _is_repeated_cheaply(inner: Cluster, outer: Cluster, wider: Iterable[int]) -> bool:
    """Is `inner` so little work, and each of its elements used so few times, that it is better repeated than stored?"""
    times = dims.product(outer.frame[o] for o in wider)
    few = isinstance(times, int) and times * sum(not n.op.view for n in inner.nodes) <= REPEATED
    return few and all(n.op.name in CHEAP or n.op.view or is_shift(n) for n in inner.nodes)


def is_shift(node: Node) -> bool:
    """Does a node read its operand at other places than its own (other than by broadcasting or transposing)?"""
    return node.op.way == "index" and node.op.name not in ("broadcast", "transpose", "iota", "size", "uniform")
