"""`custom.op`: an operation of one's own, made of K functions or of loops."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from tensorc.autodiff import gradients
from tensorc.backend.convert import as_node
from tensorc.backend.handle import Handle
from tensorc.backend.provenance import public
from tensorc.backend.tensor import Tensor
from tensorc.custom.definition import definition
from tensorc.custom.elementwise import Operation, free_name, operands
from tensorc.custom.gradient import by_graph
from tensorc.errors import ArgumentError
from tensorc.ir.graph import Graph, postorder, replace_nodes
from tensorc.ir.node import OPS, Node, NoGradient, Op, make
from tensorc.ir.types import TensorType
from tensorc.ops.define import defop
from tensorc.ops.interpret import evaluate

Function = Callable[..., Any]

MEMBERS = ("infer", "graph", "kernel", "reference", "gradient", "samples", "name")
EFFECTS = frozenset(("print", "gather", "scatter_add", "check"))
"""What a run reports of by itself, and therefore has to see."""


def op(defined: Any = None, /, *, infer: Function | None = None, reference: Function | None = None,
       gradient: Function | NoGradient | None = None, samples: Sequence[Any] = (), name: str | None = None) -> Any:
    """An operation of one's own, said in one place.

    A function of tensors is an operation made of K functions, as which dumps show it until it is expanded.  All but the
    function can be left out: the type of the result, its meaning over NumPy and its gradient follow from it.

        @custom.op
        def swish(x, *, beta=1.0):
            return x * K.sigmoid(beta * x)

    A class is a list of what the operation is; with loops of its own for `kernel`, it has to say what they mean:

        @custom.op
        class running_max:
            def infer(x):                  # type of the result, from those of the operands
                return x
            def reference(x):              # its meaning, over arrays
                return np.maximum.accumulate(x, axis=1)
            def kernel(k, x, out):         # loops: see tensorc.custom.kernel
                with k.grid(x.shape[0]) as i:
                    largest = k.accumulator("max")
                    with k.loop(x.shape[1]) as j:
                        out[i, j] = largest.scan(x[i, j])
            gradient = custom.NoGradient("nobody needs it")

    Operands are taken by position, attributes by keyword: numbers, strings, tuples of them.

    Args, and members of the class:
        infer: (types…, *, attributes…) → type, where a type has `dtype` and `shape`; raises ShapeError or DTypeError.
        reference: (arrays…, *, attributes…) → array of that dtype and shape; it gets float16 and bfloat16 as
            float32, and may give that in their place.
        gradient: a function on tensors, (operands…, g) or (operands…, result, g) and the attributes → a gradient for
            each operand, None where there is none; or a `custom.NoGradient`.
        samples: operands and attributes for `custom.check`, made by `custom.sample`.
        name: what dumps call it; that of the function or the class by default.

    Returns: a function of tensors; its `op` is the operation of the graph.
    Raises: ArgumentError for a definition with something missing or superfluous.
    """
    given = {"infer": infer, "reference": reference, "gradient": gradient, "samples": samples, "name": name}

    def made(defined: Any) -> Operation:
        parts = {k: v for k, v in given.items() if v is not None and v != ()}
        if isinstance(defined, type):
            parts |= {k: _plain(v) for k, v in vars(defined).items() if not k.startswith("__")}
        elif callable(defined):
            parts["graph"] = defined
        else:
            raise ArgumentError(f"custom.op: takes a function or a class, not {defined!r}")
        title = free_name(str(parts.pop("name", defined.__name__)), "custom.op")
        return _Operation(title, defined, parts).operation()

    return made if defined is None else made(defined)


def _plain(member: Any) -> Any:
    return member.__func__ if isinstance(member, staticmethod) else member


class _Operation:
    """A definition on its way to an operation."""

    def __init__(self, name: str, defined: Any, parts: Mapping[str, Any]) -> None:
        self.name, self.defined = name, defined
        self.doc, self.module = inspect.getdoc(defined), defined.__module__
        unknown = sorted(parts.keys() - set(MEMBERS))
        ways = [w for w in ("graph", "kernel") if w in parts]
        if unknown:
            self.fail(f"has a part called {unknown[0]}; known are {', '.join(MEMBERS)}")
        if len(ways) != 1:
            self.fail("needs either a graph, a function of tensors, or a kernel, which are loops of its own")
        for part in ("infer", "reference", "gradient") if ways == ["kernel"] else ():
            if part not in parts:
                self.fail(f"has a kernel, which says nothing about its {part}; define {part} as well")

        self.graph, self.kernel = parts.get("graph"), parts.get("kernel")
        self.given_infer, self.given_reference = parts.get("infer"), parts.get("reference")
        self.given_gradient = parts.get("gradient")
        self.samples = parts.get("samples", ())
        self.signature = inspect.signature(self.graph or self.given_infer)  # type: ignore[arg-type]
        self.params, self.attrs = self._named()

    def fail(self, reason: str) -> NoReturn:
        """Raises ArgumentError about the definition."""
        raise ArgumentError(f"custom.op: {self.name} {reason}")

    def refuse(self, reason: str) -> NoReturn:
        """Raises ArgumentError about what the definition makes of operands."""
        raise ArgumentError(f"{self.name}: {reason}")

    def _named(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of operands and attributes."""
        every = list(self.signature.parameters.values())
        if any(p.kind is p.VAR_KEYWORD for p in every) or not every or every[0].kind is every[0].KEYWORD_ONLY:
            self.fail(f"{self.signature} must take operands by position, and attributes by keyword, each with a name")
        return (tuple("*" * (p.kind is p.VAR_POSITIONAL) + p.name for p in every if p.kind is not p.KEYWORD_ONLY),
                tuple(p.name for p in every if p.kind is p.KEYWORD_ONLY))

    def operation(self) -> Operation:
        """The function of tensors."""
        op = self.op()

        def apply(*args: Any, **kwargs: Any) -> Tensor:
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            attrs = {k: _attribute(k, v, self.name) for k, v in bound.kwargs.items()}
            node: Node = op(*operands(bound.args), **attrs)
            return Tensor(self.verified(node) if self.graph is None else self.opened(node))

        apply.__name__ = apply.__qualname__ = self.name
        apply.__doc__, apply.__module__ = self.doc, self.module
        apply.__signature__ = self.signature  # type: ignore[attr-defined]
        operation = public(self.name)(apply)
        operation.op = op  # type: ignore[attr-defined]
        return operation

    def op(self) -> Op:
        """The operation, which is in the registry then."""
        gradient: Any = self.derived
        if isinstance(self.given_gradient, NoGradient):
            gradient = self.given_gradient
        elif self.given_gradient is not None:
            if self.params[-1].startswith("*"):
                self.fail("takes any number of operands, so its gradient is the one that follows from its graph")
            gradient = by_graph(self.given_gradient, len(self.params), self.name)
        return defop(
            self.name, doc=self.doc or "An operation of the user's.", infer=self.given_infer or self.infer,
            params=self.params, attrs=self.attrs, reference=self.given_reference or self.reference, gradient=gradient,
            expand=self.expand if self.graph is not None else None,
            kernel=self.write if self.kernel is not None else None, samples=self.samples, digest=self.digest,
            definition=lambda: definition(self.name, self.defined, "custom.op" * (self.given_gradient is None)),
        )

    # -- what follows from the graph

    def expand(self, node: Node) -> Node:
        """The node in terms of other operations."""
        assert self.graph is not None
        result = self.graph(*map(Tensor, node.args), **node.attrs)
        if not isinstance(result, Handle):
            self.refuse(f"its function gives {result!r}, which is no tensor; an operation has one result")
        return as_node(result)

    def alone(self, types: Sequence[TensorType], attrs: Mapping[str, Any]) -> Graph:
        """The operation as a graph of its own.  Raises ArgumentError where it reads more than its operands."""
        params = tuple(make(OPS["parameter"], name=f"x{i}", role="input", uid=0, type=t) for i, t in enumerate(types))
        assert self.graph is not None
        result = self.graph(*map(Tensor, params), **attrs)
        if not isinstance(result, Handle):
            self.refuse(f"its function gives {result!r}, which is no tensor; an operation has one result")
        node = as_node(result)
        for leaf in postorder([node]):
            if leaf.op.name == "parameter" and leaf not in params:
                what = "draws random numbers, which are" if leaf.role == "key" else f"reads {leaf.name}, which is"
                self.refuse(f"its function {what} none of its operands\n"
                            "pass that as an operand, or call the K functions without an op around them")
        return Graph(self.name, params, (node,))

    def infer(self, *types: TensorType, **attrs: Any) -> TensorType:
        """The type of the result."""
        return self.alone(types, attrs).outputs[0].type

    def reference(self, *arrays: Any, **attrs: Any) -> np.ndarray[Any, Any]:
        """What the references of the operations make of arrays."""
        from tensorc.ir.types import dtype

        types = [TensorType(dtype(a.dtype), a.shape) for a in map(np.asarray, arrays)]
        graph = self.alone(types, attrs)
        outputs, _ = evaluate(graph, {p.name: a for p, a in zip(graph.params, arrays, strict=True)})
        return outputs[0]

    def derived(self, node: Node, g: Node) -> Sequence[Node | None]:
        """The gradients of the graph, on operands of its own: those of the node may depend on each other."""
        graph = self.alone([a.type for a in node.args], node.attrs)
        seed = make(OPS["parameter"], name="g", role="input", uid=0, type=g.type)
        found = gradients(list(graph.outputs), [seed], graph.params)
        there = [f for f in found if f is not None]
        put = iter(replace_nodes(there, {**dict(zip(graph.params, node.args, strict=True)), seed: g}))
        return [None if f is None else next(put) for f in found]

    def opened(self, node: Node) -> Node:
        """The node; or what it is made of, where a run has to see that: places that are looked up, prints."""
        whole = self.expand(node)
        if not any(n.op.name in EFFECTS for n in postorder([whole], node.args)):
            return node
        if self.given_gradient is not None:
            self.refuse("it looks up places or prints, so it cannot have a gradient of its own\n"
                        "look up and print outside of it")
        return whole

    # -- loops

    def write(self, shop: Any) -> Any:
        from tensorc.custom.kernel import written

        assert self.kernel is not None
        return written(self.kernel, shop)

    def verified(self, node: Node) -> Node:
        """The node, whose kernel is valid.  Raises ArgumentError."""
        from tensorc.codegen.loopverify import InvalidKernel, verify
        from tensorc.custom.loops import kernel_of

        try:
            verify(kernel_of(node))
        except InvalidKernel as error:
            self.refuse(f"its kernel is not valid: {str(error).removeprefix(f'{self.name}: ')}")
        except ArgumentError as error:
            what, _, advice = str(error).partition("\n")
            self.refuse(f"its kernel is not valid: {what}" + f"\n{advice}" * bool(advice))
        return node

    def digest(self, node: Node) -> str | None:
        """Of the graph or the loops that this node becomes."""
        if self.graph is not None:
            from tensorc.runtime.program import canonical

            text = canonical(self.alone([a.type for a in node.args], node.attrs))
        else:
            from tensorc.custom.loops import kernel_of

            text = str(kernel_of(node))
        return hashlib.sha256(text.encode()).hexdigest()


def _attribute(name: str, value: Any, op: str) -> Any:
    """An attribute as nodes keep it.  Raises ArgumentError."""
    if isinstance(value, list | tuple):
        return tuple(_attribute(name, v, op) for v in value)
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str | np.ndarray):
        return value
    hint = "; operands are taken by position" if isinstance(value, Handle) else ""
    raise ArgumentError(f"{op}: the attribute {name} is {value!r}, not a number, a string or a tuple of them{hint}")



