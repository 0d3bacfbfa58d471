"""`K.function`: from handles to a compiled function, and back from its arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorc.backend.leaves import Placeholder, Variable, cells, defaults, parameter, streams
from tensorc.backend.provenance import origin_here, provenance, public
from tensorc.backend.sparse import SparseTensor, dense_node
from tensorc.backend.sparse_leaves import SparseLeaf, SparseVariable
from tensorc.backend.sparse_leaves import cells as sparse_cells
from tensorc.backend.tensor import Tensor, tensor
from tensorc.backend.updates import Update, as_updates, settle, updates_behind, values_after
from tensorc.errors import ArgumentError
from tensorc.ir.graph import Graph, carrying, postorder
from tensorc.ir.node import Node, watching
from tensorc.runtime.devices import chosen
from tensorc.runtime.devices import device as device

if TYPE_CHECKING:
    from tensorc.runtime.profile import Profile

Array = np.ndarray[Any, Any]

OPTIONS = ("name", "passes", "device", "device_outputs")


class Function:
    """A computation compiled once and run many times.

    Attributes:
        inputs, outputs, updates: the tensors it was made of.
        name: what dumps call it.
        compiled: the runtime's function, whose `graph` and `program` show what became of it.
    """

    def __init__(self, inputs: Any, outputs: Any, updates: Sequence[Any], name: str, passes: Any = None,
                 device: str = "cpu", device_outputs: bool = False) -> None:
        from tensorc.runtime.function import Function as Compiled

        self.name = name
        self._one_in, fed = _listed(inputs)
        self.inputs = [_input(i, x) for i, x in enumerate(fed)]
        self._one_out, given = _listed(outputs)
        self.outputs = [_output(i, x) for i, x in enumerate(given)]
        self.updates = as_updates(updates)

        graph = _Settled(self.inputs, self.outputs, self.updates)
        self._kept = [sparse_cells[n] for n in graph.kept]
        self._sparse = bool(self._kept) or any(isinstance(x, SparseLeaf) for x in self.inputs)
        self.compiled = Compiled(
            name, graph.inputs, graph.outputs, graph.updates,
            cells={n: cells[n] for n in graph.leaves if n in cells},
            streams={n: streams[n] for n in graph.leaves if n in streams},
            defaults={n: defaults[n] for n in graph.leaves if n in defaults},
            provenance=graph.provenance, passes=passes, where=origin_here("K.function", ()).location,
            device=device, leaves_outputs=device_outputs,
        )

    def __call__(self, inputs: Any = ()) -> Any:
        """The outputs for these inputs, a list of arrays; one array where one tensor was asked for.

        Raises: ArgumentError for another number of inputs; what the runtime raises for values that do not fit.
        """
        results = self.compiled(self._given(inputs))
        return results[0] if self._one_out else results

    def _given(self, inputs: Any) -> Sequence[Any]:
        """What the runtime's function is given for these inputs.  Raises ArgumentError for another number of them."""
        wrapped = isinstance(inputs, (list, tuple)) and (not self._one_in or len(inputs) == 1)
        values = inputs if wrapped else [inputs]
        if len(values) != len(self.inputs):
            raise ArgumentError(f"{self.name} takes {len(self.inputs)} inputs, got {len(values)}")
        return self._arrays(values) if self._sparse else values

    def _arrays(self, values: Sequence[Any]) -> list[Any]:
        """The values with each sparse one as its arrays, and those of the sparse variables that nobody feeds."""
        given: list[Any] = []
        for x, value in zip(self.inputs, values, strict=True):
            given.extend(x.fed(value, self.name) if isinstance(x, SparseLeaf) else [value])
        now = {cell: cell.value for cell, _ in self._kept}
        return [*given, *(getattr(now[cell], part) for cell, part in self._kept)]

    def profile(self, inputs: Any = (), seconds: float = 0.25) -> Profile:
        """Where the time of a call with these inputs goes, kernel by kernel: print it, or read its `rows`.

        It runs on copies of variables and random streams, which are left as they are.

        Args:
            inputs: as for a call.
            seconds: how long to measure, at least.

        Raises: what a call raises.
        """
        return self.compiled.profile(self._given(inputs), seconds)

    @property
    def graph(self) -> Graph:
        """The graph as it was built, before any pass."""
        return self.compiled.graph

    @property
    def ir(self) -> Graph:
        """The graph after all passes; it prints as text."""
        return self.compiled.ir

    @property
    def kernels(self) -> tuple[Any, ...]:
        """The kernels in the loop language, in the order they run; they print as text, one by one or all together."""
        return self.compiled.kernels

    def __repr__(self) -> str:
        return f"<Function {self.name}: {len(self.inputs)} inputs, {len(self.outputs)} outputs>"


@public("K.function")
def function(inputs: Any, outputs: Any, updates: Sequence[Any] | None = None, **kwargs: Any) -> Function:
    """A function from arrays to arrays.

    Args:
        inputs: placeholders, or variables and other tensors that a call overrides; a list, or one tensor.
        outputs: a list of tensors, or one.
        updates: updates and (variable, new value) pairs that every call carries out; those that outputs wait
            for are added.  Outputs see the variables as they were before the call, except for reads made in
            `K.control_dependencies` and outputs that Keras flags `_is_metric`.
        name: what dumps call it.
        passes: what joins the compiler's passes: a rewrite, a graph pass, the name of one that is registered or
            installed, or a list of such; or a whole Pipeline in place of the default one.
        device: what it runs on, `cpu` or `cuda`; by default what `tensorc.device` or TENSORC_DEVICE ask for.
        device_outputs: whether outputs stay on a GPU, as arrays that other functions and libraries take without a copy;
            a call then returns before they are computed.

    Raises: DeviceError for a device that nothing runs on; ArgumentError for an unknown keyword, device or pass, a
        placeholder that is missing among the inputs, or two different plain updates of one variable.
    """
    unknown = sorted(kwargs.keys() - set(OPTIONS))
    if unknown:
        raise ArgumentError(f"unknown keyword {unknown[0]!r}; known are {', '.join(OPTIONS)}")
    return Function(inputs, outputs, updates or (), kwargs.get("name") or "function", kwargs.get("passes"),
                    chosen(kwargs.get("device"), "K.function"), bool(kwargs.get("device_outputs")))


def eval(x: Any) -> Array:
    """The value of a tensor that depends on nothing fed; of a variable, a copy of its value."""
    if isinstance(x, Variable | SparseVariable):
        return x.cell.get()
    result: Array = function([], [x], name="eval")([])[0]
    return result


class _Settled:
    """What the runtime takes: nodes whose later reads are settled, with their provenance and leaves.

    The arrays of sparse variables that no input overrides are `kept`: inputs too, since the number of entries changes.
    """

    def __init__(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], updates: Sequence[Tensor]) -> None:
        running = updates_behind((*updates, *outputs))
        self.provenance = provenance((*inputs, *outputs, *updates, *running))
        with watching(rebuilt=carrying(self.provenance)):
            self._settle(inputs, outputs, running)

    def _settle(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], running: Sequence[Update]) -> None:
        leaves = [(x, n) for x in inputs for n in _leaves(x)]
        overrides = {n: parameter(x.name, "input", n.type) for x, n in leaves
                     if not isinstance(x, Placeholder | SparseLeaf)}
        self.inputs = [overrides.get(n, n) for _, n in leaves]

        new, behind = values_after(running)
        before = [behind[x] if isinstance(x, Update) else dense_node(x) for x in outputs]
        settled = settle([*before, *new.values()], overrides)
        self.outputs = settled[:len(outputs)]
        self.updates = list(zip(new, settled[len(outputs):], strict=True))

        final = {**overrides, **dict(self.updates)}
        for i, x in enumerate(outputs):
            if getattr(x, "_is_metric", False):
                self.outputs[i], = settle([before[i]], final)

        roots = [*self.outputs, *(n for _, n in self.updates), *(v for v, _ in self.updates)]
        self.leaves = [n for n in postorder(roots) if n.op.name == "parameter"]
        self.kept = [n for n in self.leaves if n in sparse_cells and n not in self.inputs]
        self.inputs += self.kept

def _listed(given: Any) -> tuple[bool, list[Any]]:
    """(whether it was a single value, the list)."""
    if isinstance(given, list | tuple):
        return False, list(given)
    return True, [given]


def _input(i: int, x: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise ArgumentError(f"input {i} is {x!r}, which is no tensor")
    if isinstance(x, SparseTensor) and not isinstance(x, SparseLeaf):
        raise ArgumentError(f"input {i} is computed: of sparse tensors, only placeholders and variables are fed")
    return x


def _leaves(x: Tensor) -> Sequence[Node]:
    """The nodes that stand for the value of an input."""
    if isinstance(x, SparseLeaf):
        return x.parameters
    return [x.parameter if isinstance(x, Variable) else x.node]


def _output(i: int, x: Any) -> Tensor:
    if x is None:
        raise ArgumentError(f"output {i} is None\n"
                            "K.gradients gives None where no path leads to a variable; "
                            "tensorc.why_no_gradient(loss, variable) tells where it ends")
    return tensor(x)
