"""`custom.elementwise`: a scalar Python function as an operation on tensors."""

from __future__ import annotations

import hashlib
import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np

from tensorc.backend.convert import (
    SYMBOLIC,
    as_node,
    cast_node,
    common_dtype,
    literal_dtype,
    making_room,
    parse_dtype,
)
from tensorc.backend.provenance import public
from tensorc.backend.tensor import Tensor
from tensorc.custom import fingerprint, lenient
from tensorc.custom.definition import definition
from tensorc.custom.gradient import Gradient, by_graph, by_slopes, checked, times
from tensorc.errors import ArgumentError, TensorcError
from tensorc.ir.node import OPS, Node, NoGradient, Op
from tensorc.ir.types import DType, TensorType, boolean, f64, i64
from tensorc.ops.define import defop
from tensorc.ops.infer import broadcast_shapes
from tensorc.ops.sample import Sample, sample

Scalar = Callable[..., Any]
Operation = Callable[..., Tensor]


@overload
def elementwise(function: Scalar, /) -> Operation: ...


@overload
def elementwise(*, gradient: Gradient = None, dtype: object = None, name: str | None = None,
                samples: Sequence[Sample] = ()) -> Callable[[Scalar], Operation]: ...


@overload
def elementwise(function: Scalar, /, *, gradient: Gradient = None, dtype: object = None, name: str | None = None,
                samples: Sequence[Sample] = ()) -> Operation: ...


def elementwise(function: Scalar | None = None, /, *, gradient: Gradient = None, dtype: object = None,
                name: str | None = None, samples: Sequence[Sample] = ()) -> Any:
    """A scalar Python function as an operation on tensors of any shapes that broadcast.

        @custom.elementwise
        def softsign(x):
            return x / (1 + abs(x))

    Numba compiles the function when it first meets arguments of their kinds, and its code is inlined in the kernels
    around it.  Floats are computed in float32, or in float64 where one of the arguments is; integers in 64 bits; what
    has no answer is NaN or infinite, and an integer divided by 0 gives 0.  Branches are computed on both sides; a
    function with a loop is called for one element after another, in float64.

    Args:
        function: numbers to a number.  It may use arithmetic, comparisons, branches and loops, `math`, functions of
            NumPy on numbers and functions under `numba.njit`.  It must not raise.
        gradient: None derives it, which any function without loops and tables allows.  Otherwise the derivative, a
            scalar function of the same arguments, or a list of one for each argument; or a function on tensors of
            (arguments…, g) or (arguments…, result, g) that gives g times the derivative in each argument; or a
            `custom.NoGradient` that says why there is none.
        dtype: of the result.  By default it has the kind that Numba finds, and the widest dtype of that kind among the
            arguments; floats made of integers are floatx, and integers made of other numbers int64.
        name: what dumps call the operation; that of the function by default.
        samples: arguments for `custom.check`, made by `custom.sample`.

    Returns: a function of tensors, numbers and arrays.  Numbers take the dtype of the tensors.
    Raises: ArgumentError for a function that cannot become an operation; at its first use on arguments of a kind
        DTypeError where Numba cannot type it, and ArgumentError where it can raise or needs Python at run time.
    """
    def made(function: Scalar) -> Operation:
        return _Elementwise(function, gradient, dtype, name, samples).operation()

    return made if function is None else made(function)


class _Elementwise:
    """A scalar function on its way to an operation.

    Attributes:
        function: the Python function.
        scalar: its name in the table of scalar functions, once something is compiled.
    """

    def __init__(self, function: Scalar, gradient: Gradient, dtype: object, name: str | None,
                 samples: Sequence[Sample]) -> None:
        inner = fingerprint.python_of(function)
        if inner is None:
            raise ArgumentError(f"custom.elementwise: takes a Python function, not {function!r}")
        self.function = inner
        self.defined: Any = inner
        self.name = free_name(name or inner.__name__, "custom.elementwise")
        self.signature = inspect.signature(inner)
        self.params = _parameters(self.signature, self.name)
        self.dtype = None if dtype is None else parse_dtype(dtype)
        self.gradient = checked(gradient, self.params, self.name)
        self.samples = samples
        self._codes: dict[str, Any] = {}
        self._compiling = threading.Lock()
        self._evaluate = lenient.over_arrays(inner)

    def operation(self) -> Operation:
        """The function of tensors; its `op` is the operation of the graph, its `python` the scalar function."""
        op = self.op()

        def apply(*args: Any, **kwargs: Any) -> Tensor:
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            nodes = operands(bound.args)
            result: Node = op(*nodes)
            if result.dtype.is_float and self.dtype is None and not any(n.dtype.is_float for n in nodes):
                result = cast_node(result, parse_dtype(None))
            return Tensor(result)

        apply.__name__ = apply.__qualname__ = self.name
        apply.__doc__ = self.function.__doc__
        apply.__module__ = self.function.__module__
        apply.__signature__ = self.signature  # type: ignore[attr-defined]
        operation = public(self.name)(apply)
        operation.op = op  # type: ignore[attr-defined]
        operation.python = self.function  # type: ignore[attr-defined]
        return operation

    def op(self) -> Op:
        """The operation, which is in the registry then."""
        from tensorc.codegen.scalars import add_foreign

        scalar = add_foreign(self.name, len(self.params), self.rule, self.reference, self.source, self.function)
        return defop(
            self.name, doc=inspect.getdoc(self.function) or "A function of the user's.", infer=self.infer,
            params=self.params, attrs=(), reference=self.reference, gradient=self._gradient(), scalar=scalar,
            samples=self.samples or default_samples(len(self.params)), digest=self.digest,
            definition=lambda: definition(self.name, self.defined, "custom.elementwise" * (self.gradient is None)),
        )

    def _gradient(self) -> Any:
        if isinstance(self.gradient, NoGradient):
            return self.gradient
        if self.gradient is None:
            return lambda node, g: self.derived(node, g)
        if isinstance(self.gradient, tuple):
            several = len(self.params) > 1
            names = [f"{self.name}_gradient{i if several else ''}" for i in range(len(self.params))]
            return by_slopes([s and self.slope(s, name) for s, name in zip(self.gradient, names, strict=True)])
        return by_graph(self.gradient, len(self.params), self.name)

    def slope(self, function: Scalar, name: str) -> Op:
        """A derivative that is given as a scalar function; whoever defines this operation again defines that too."""
        slope = _Elementwise(function, None, None, name, ())
        slope.defined = self.defined
        return slope.op()

    # -- types

    def infer(self, *types: TensorType) -> TensorType:
        """The type of the result.  Raises DTypeError, ShapeError, ArgumentError."""
        return TensorType(self.result(tuple(t.dtype for t in types)), broadcast_shapes(*(t.shape for t in types)))

    def result(self, dtypes: tuple[DType, ...]) -> DType:
        """The dtype of the result, as `elementwise` says."""
        if self.dtype is not None:
            return self.dtype
        kind = self.code(kinds_of(dtypes)).result
        alike = [d for d in dtypes if kind_of(d) == kind]
        return common_dtype(alike) if alike else {"f": f64, "i": i64, "b": boolean}[kind]

    def rule(self, dtypes: tuple[DType, ...]) -> DType | None:
        """The result's dtype in the loop language, which computes in float32 at least; None where there is none."""
        try:
            found = self.result(dtypes)
        except TensorcError:
            return None
        return found.wide

    # -- code

    def source(self, dtypes: tuple[DType, ...]) -> str:
        """LLVM IR for arguments of these dtypes."""
        text: str = self.code(kinds_of(dtypes)).text
        return text

    def digest(self, node: Node) -> str:
        return hashlib.sha256(self.source(tuple(a.dtype for a in node.args)).encode()).hexdigest()

    def code(self, kinds: str) -> Any:
        """The code for arguments of these kinds, compiled if neither this process nor the store has it."""
        with self._compiling:
            if kinds not in self._codes:
                self._codes[kinds] = self._fetched(kinds)
            return self._codes[kinds]

    def _fetched(self, kinds: str) -> Any:
        from tensorc.custom.scalar import ScalarCode, compile_scalar
        from tensorc.runtime import identity, store

        def make() -> store.Entry:
            code = compile_scalar(self.function, self.name, kinds)
            return store.Entry(b"", {"text": code.text, "result": code.result})

        own = fingerprint.digest(self.function)
        entry = store.fetch(own and identity.of_scalar(own, kinds), make)
        return ScalarCode(entry.facts["text"], entry.facts["result"])

    # -- meaning

    def reference(self, *arrays: Any) -> np.ndarray[Any, Any]:
        """The Python function on each element."""
        dtypes = tuple(parse_dtype(np.asarray(a).dtype) for a in arrays)
        return self._evaluate(*arrays, computing=self.computing(dtypes).numpy, dtype=self.result(dtypes).numpy)

    def computing(self, dtypes: tuple[DType, ...]) -> DType:
        """What floats are computed in."""
        from tensorc.codegen.straight import computing

        return computing(self.source(dtypes), tuple(d.wide for d in dtypes))

    def derived(self, node: Node, g: Node) -> list[Node | None]:
        """g times the derivatives of the compiled function."""
        from tensorc.codegen.straight import straight
        from tensorc.custom.derive import Underivable, derivatives
        from tensorc.custom.scalar import located

        dtypes = tuple(a.dtype for a in node.args)
        where = located(self.function, self.name)
        line = straight(self.source(dtypes))
        if line is None:
            raise ArgumentError(f"{where} has a loop or a table, through which no derivative is derived\n"
                                f"give it as custom.elementwise(gradient=…): a scalar function of the same arguments")
        try:
            slopes = derivatives(line, node.args, self.computing(dtypes))
        except Underivable as error:
            raise ArgumentError(f"{where} uses {error}, whose derivative is not known here\n"
                                f"give it as custom.elementwise(gradient=…): a scalar function of the same arguments"
                                ) from None
        return [None if s is None else times(g, s, a) for s, a in zip(slopes, node.args, strict=True)]


def free_name(name: str, who: str) -> str:
    """A name for an operation.  Raises ArgumentError for one that is none, or that this package needs."""
    from tensorc.codegen.scalars import SCALARS

    taken = (name in OPS and OPS[name].digest is None) or (name in SCALARS and SCALARS[name].source is None)
    if not name.isidentifier() or taken:
        reason = f"{name} is an operation of tensorc" if taken else f"{name!r} is no name for an operation"
        raise ArgumentError(f"{who}: {reason}; give another one as name=…")
    return name


def _parameters(signature: inspect.Signature, name: str) -> tuple[str, ...]:
    """The names of the arguments.  Raises ArgumentError for none, or a number that is not known."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not signature.parameters or any(p.kind not in kinds for p in signature.parameters.values()):
        raise ArgumentError(f"custom.elementwise: {name}{signature} must take one argument or more, each by position\n"
                            "what is fixed belongs into the function, or around it")
    return tuple(signature.parameters)


def operands(values: Sequence[Any]) -> list[Node]:
    """Nodes of values: tensors as they are, numbers and arrays in the dtype of the tensors."""
    dtypes = [as_node(v).dtype for v in values if isinstance(v, SYMBOLIC)]
    common = common_dtype(dtypes or [literal_dtype(v) for v in values])
    return [as_node(v) if isinstance(v, SYMBOLIC) else as_node(v, making_room(common, literal_dtype(v)))
            for v in values]


def kind_of(dtype: DType) -> str:
    return "b" if dtype.is_bool else "f" if dtype.is_float else "i"


def kinds_of(dtypes: Sequence[DType]) -> str:
    """`fi` for a float and an integer."""
    return "".join(map(kind_of, dtypes))


def default_samples(arity: int) -> list[Sample]:
    """Floats alike and broadcast, among them sizes 0 and 1."""
    shapes = ("[2,3]", "[3]", "[]", "[2,1]")
    several = [sample(*(f"f32{shapes[i % 4] if i else '[2,3]'}" for i in range(arity)))]
    return [*several, *(sample(*[f"{d}{s}"] * arity) for d, s in (
        ("f32", "[]"), ("f32", "[0,4]"), ("f32", "[1]"), ("f64", "[37]"), ("f16", "[7]")))]



