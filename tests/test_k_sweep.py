"""Every K function that gives a tensor, compiled: its value, shape and dtype for known and unknown sizes, 0 and 1 among
them, with NaN and infinities, and its gradient by finite differences."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from k_examples import GROUPS, Example

from tensorc import backend as K
from tensorc.ir.types import numpy_kind

NO_TENSOR_FUNCTIONS = set("""
    backend batch_get_value batch_set_value cast_to_floatx clear_session control_dependencies count_params dtype eager
    epsilon eval floatx function get_session get_uid get_value get_variable_shape gradients image_data_format int_shape
    is_keras_tensor is_placeholder is_sparse is_tensor is_variable learning_phase manual_variable_initialization
    name_scope ndim normalize_data_format placeholder print_tensor reset_uids set_epsilon set_floatx
    set_image_data_format set_learning_phase set_session set_value symbolic variable
    moving_average_update update update_add update_sub
    ctc_batch_cost ctc_decode ctc_label_dense_to_sparse to_dense foldl foldr map_fn rnn
""".split())
"""Those about state, names and variables, and those that have test files of their own: sparse tensors, loops, CTC."""

RANDOM = {
    "random_normal": lambda n: K.random_normal((n, 3), 5.0, 1.0),
    "random_uniform": lambda n: K.random_uniform((n, 3), 2.0, 3.0),
    "random_binomial": lambda n: K.random_binomial((n, 3), 0.5),
    "truncated_normal": lambda n: K.truncated_normal((n, 3), 5.0, 1.0),
    "dropout": lambda n: K.dropout(K.ones((n, 3)), 0.5),
    "random_uniform_variable": lambda n: K.random_uniform_variable((2, 3), 2.0, 3.0),
    "random_normal_variable": lambda n: K.random_normal_variable((2, 3), 5.0, 1.0),
}

SIZES = {"n": 3, "m": 4, "k": 5}
OTHERS = [{"n": 19, "m": 17, "k": 9}, {"n": 1}, {"n": 0}, {"m": 1}, {"m": 0}, {"n": 1, "m": 1, "k": 1}]
EXTREMES = [np.nan, np.inf, -np.inf, 0.0, -0.0, 30.0, -30.0, 1.0]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    before = K.floatx()
    yield
    K.set_floatx(before)
    K.clear_session()


def test_no_function_is_left_out():
    examples = [name for group in GROUPS.values() for name in group]
    assert len(set(examples)) == len(examples)
    assert set(K.__all__) <= {*examples, *RANDOM, *NO_TENSOR_FUNCTIONS}
    for group in GROUPS.values():
        for name, several in group.items():
            assert several, name


@pytest.mark.parametrize("floatx", ["float32", "float64"])
@pytest.mark.parametrize("group", GROUPS)
def test_known_sizes(group, floatx):
    K.set_floatx(floatx)
    applied = list(applications(group, SIZES))
    values = [a.arrays({}) for a in applied]
    check(applied, compiled(applied), values)


@pytest.mark.parametrize("sizes", [{"n": 0}, {"n": 1, "m": 1, "k": 1}], ids=["none", "one"])
@pytest.mark.parametrize("group", GROUPS)
def test_known_sizes_0_and_1(group, sizes):
    applied = list(applications(group, SIZES | sizes))
    check(applied, compiled(applied), [a.arrays({}) for a in applied])


@pytest.mark.parametrize("floatx", ["float32", "float64"])
@pytest.mark.parametrize("group", GROUPS)
def test_unknown_sizes(group, floatx):
    K.set_floatx(floatx)
    applied = list(applications(group, {}))
    native = compiled(applied)
    for sizes in SIZES, *(SIZES | other for other in OTHERS):
        values = [a.arrays(sizes) for a in applied]
        values = [v if a.wanted(v) is not None else a.arrays(SIZES) for a, v in zip(applied, values, strict=True)]
        check(applied, native, values)
    check(applied, native, [a.extremes(SIZES) for a in applied])
    assert native.compiled.compilations == 1


@pytest.mark.parametrize("group", GROUPS)
def test_gradients(group):
    """Against central differences of the same compiled function; no gradient is one of 0."""
    K.set_floatx("float64")
    applied = [a for a in applications(group, {}) if a.example.smooth]
    weights = [K.placeholder(ndim=a.output.ndim) for a in applied]
    losses = [K.sum(K.cast(a.output, "float64") * w) for a, w in zip(applied, weights, strict=True)]
    slopes = [K.gradients(loss, a.floats) for a, loss in zip(applied, losses, strict=True)]
    connected = [g for found in slopes for g in found if g is not None]
    placeholders = [p for a, w in zip(applied, weights, strict=True) for p in (*a.operands, w)]
    native = K.function(placeholders, [*losses, *connected])

    generator = np.random.default_rng(3)
    for sizes in {"n": 3, "m": 2, "k": 2}, {"n": 2, "m": 1, "k": 1}:
        arrays = [a.arrays(sizes) for a in applied]
        shaped = [generator.normal(size=a.wanted(v).shape) for a, v in zip(applied, arrays, strict=True)]
        results = native([x for v, w in zip(arrays, shaped, strict=True) for x in (*v, w)])
        given = iter(results[len(losses):])
        for a, found, wanted in zip(applied, slopes, differences(native, applied, arrays, shaped), strict=True):
            for g, want in zip(found, wanted, strict=True):
                got = np.zeros_like(want) if g is None else next(given)
                np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5, err_msg=f"{a.name} {a.number} {sizes}")


def test_stop_gradient():
    x = K.placeholder((None,))
    native = K.function([x], K.gradients(x * K.square(x) - K.stop_gradient(x * x), [x]))
    assert native([[1.0, 2.0, -3.0]])[0].tolist() == [3, 12, 27]


@pytest.mark.parametrize("floatx", ["float32", "float64"])
def test_random_functions(floatx):
    K.set_floatx(floatx)
    x = K.placeholder((None, None))
    drawn = [make(K.shape(x)[0]) for make in RANDOM.values()]
    native = K.function([x], drawn)
    for rows in 4, 1, 0:
        for name, handle, got in zip(RANDOM, drawn, native([np.zeros((rows, 2))]), strict=True):
            assert got.dtype == handle.dtype == floatx, name
            assert got.shape == ((2, 3) if "variable" in name else (rows, 3))
            assert fits(K.int_shape(handle), got.shape)
            if "uniform" in name:
                assert np.all((got >= 2) & (got < 3))
            elif name in ("dropout", "random_binomial"):
                assert set(got.ravel()) <= {0, 1 + (name == "dropout")}
            else:
                assert np.all(abs(got - 5) < 9)


@dataclass(frozen=True)
class Applied:
    """An example applied to placeholders."""

    name: str
    number: int
    example: Example
    operands: list[Any]
    output: Any
    fixed: dict[str, int]

    @property
    def floats(self) -> list[Any]:
        return [x for x in self.operands if x.dtype == K.floatx()]

    def arrays(self, sizes: dict[str, int]) -> list[np.ndarray]:
        """Values of the operands; sizes that are known already stay."""
        return drawn(self.name, self.example, sizes | self.fixed)

    def extremes(self, sizes: dict[str, int]) -> list[np.ndarray]:
        """As arrays, with half of the numbers NaN, infinite or the like."""
        arrays = self.arrays(sizes)
        if not self.example.total:
            return arrays
        generator = np.random.default_rng(5)
        return [np.where(generator.random(a.shape) < 0.5, generator.choice(EXTREMES, a.shape).astype(a.dtype), a)
                if text[0] == "x" else a for a, text in zip(arrays, self.example.operands, strict=True)]

    def wanted(self, arrays: Sequence[np.ndarray]) -> np.ndarray | None:
        return meant(self.example, arrays)


def drawn(name: str, example: Example, sizes: dict[str, int]) -> list[np.ndarray]:
    """Values of an example's operands, the same ones at every call."""
    generator = np.random.default_rng([*map(ord, name)])
    return [_values(generator, text, sizes) for text in example.operands]


def meant(example: Example, arrays: Sequence[np.ndarray]) -> np.ndarray | None:
    """What NumPy makes of values; None where it refuses them."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")    # of means of nothing
        try:
            return np.asarray(example.meaning(*arrays))
        except (ValueError, IndexError):
            return None


def applications(group: str, sizes: dict[str, int]) -> Iterator[Applied]:
    """The examples of a group on placeholders, whose sizes are unknown where `sizes` does not tell them.

    Without those for which NumPy refuses the sizes.
    """
    for name, examples in GROUPS[group].items():
        for i, example in enumerate(examples):
            if meant(example, drawn(name, example, SIZES | sizes)) is not None:
                operands = [K.placeholder(_shape(text, sizes), dtype=_dtype(text)) for text in example.operands]
                yield Applied(name, i, example, operands, example.build(*operands), sizes)


def compiled(applied: Sequence[Applied]) -> Any:
    return K.function([p for a in applied for p in a.operands], [a.output for a in applied])


def check(applied: Sequence[Applied], native: Any, values: Sequence[Sequence[np.ndarray]]) -> None:
    """That results are what NumPy makes of the values, in the shape and dtype that the handles say."""
    results = native([array for arrays in values for array in arrays])
    for a, arrays, got in zip(applied, values, results, strict=True):
        want = a.wanted(arrays)
        what = f"{a.name} {a.number} of shapes {[x.shape for x in arrays]}"
        assert got.shape == want.shape, what
        assert fits(K.int_shape(a.output), got.shape), what
        assert got.dtype == K.dtype(a.output), what
        if numpy_kind(got.dtype) == "f":
            tolerance = {"bfloat16": 1.6e-2, "float16": 2e-3, "float32": 1e-5, "float64": 1e-12}[got.dtype.name]
            largest = np.abs(want[np.isfinite(want)]).max(initial=0)
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * largest, err_msg=what)
        else:
            np.testing.assert_array_equal(got, want, err_msg=what)
            assert got.dtype == want.dtype, what


def fits(handle: Sequence[int | None], shape: Sequence[int]) -> bool:
    """Whether an array has the sizes that are known of a handle."""
    return len(handle) == len(shape) and all(a in (None, b) for a, b in zip(handle, shape, strict=True))


def differences(native: Any, applied: Sequence[Applied], arrays: Sequence[list[np.ndarray]],
                weights: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Central differences of every loss in each float operand, all at once: no example sees another's operands."""
    step = 1e-6
    floats = [[i for i, x in enumerate(a.operands) if x.dtype == K.floatx()] for a in applied]
    found = [[np.zeros(v[i].shape) for i in which] for which, v in zip(floats, arrays, strict=True)]
    for slot in range(max(map(len, floats))):
        for place in range(max(v[f[slot]].size for v, f in zip(arrays, floats, strict=True) if slot < len(f))):
            losses = []
            for side in step, -step:
                moved = [[x.copy() for x in v] for v in arrays]
                for v, f in zip(moved, floats, strict=True):
                    if slot < len(f) and place < v[f[slot]].size:
                        v[f[slot]].flat[place] += side
                losses.append(native([x for v, w in zip(moved, weights, strict=True) for x in (*v, w)]))
            for i, f in enumerate(floats):
                if slot < len(f) and place < found[i][slot].size:
                    found[i][slot].flat[place] = (losses[0][i] - losses[1][i]) / (2 * step)
    return found


def _shape(text: str, sizes: dict[str, int]) -> tuple[int | None, ...]:
    return tuple(int(s) if s.isdigit() else sizes.get(s) for s in text.split()[1:])


def _dtype(text: str) -> str:
    return {"i": "int32", "s": "int32", "b": "bool"}.get(text[0], K.floatx())


def _values(generator: np.random.Generator, text: str, sizes: dict[str, int]) -> np.ndarray:
    shape = _shape(text, sizes)
    draw = {
        "x": lambda: generator.normal(size=shape),
        "p": lambda: generator.uniform(0.1, 2, shape),
        "q": lambda: generator.uniform(0.05, 0.95, shape),
        "i": lambda: generator.integers(0, 4, shape),
        "s": lambda: generator.integers(-4, 5, shape),
        "b": lambda: generator.integers(0, 2, shape),
    }[text[0]]
    return np.asarray(draw()).astype(_dtype(text))
