"""The K API against values of the original: every case's value, dtype and gradients.

tests/reference/README.md says where the values come from.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorc import backend as K

VALUES = np.load(Path(__file__).parent / "reference" / "keras_values.npz")
CASES = {case["id"]: case for case in json.loads(str(VALUES["cases"]))}

# What the K API does not have yet.  A group or a function leaves this list when it arrives.
GROUPS_TO_COME = {"loops", "ctc"}
FUNCTIONS_TO_COME: set[str] = set()


def functions(case: dict[str, Any]) -> set[str]:
    return set(re.findall(r"\bK\.(\w+)", case["expr"]))


READY = [
    name
    for name, case in CASES.items()
    if case["group"] not in GROUPS_TO_COME and not functions(case) & FUNCTIONS_TO_COME
]


@pytest.fixture(params=["float32", "float64"])
def floatx(request: pytest.FixtureRequest) -> Iterator[str]:
    before = K.floatx()
    K.set_floatx(request.param)
    yield request.param
    K.set_floatx(before)
    K.clear_session()


def test_what_is_to_come_is_not_here() -> None:
    assert {name for name in FUNCTIONS_TO_COME if hasattr(K, name)} == set()
    assert {case["group"] for case in CASES.values()} >= GROUPS_TO_COME


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("name", READY)
def test_value_and_gradients(name: str, floatx: str, dynamic: bool) -> None:
    case = CASES[name]
    arrays = {x: VALUES[f"{name}/in/{x}"] for x in case["inputs"]}
    arrays = {x: array.astype("int32" if is_index(case, x) else floatx) for x, array in arrays.items()}
    inputs = {x: placeholder(x, array, dynamic and x in case["dynamic"]) for x, array in arrays.items()}

    output = eval(case["expr"], {"K": K, "np": np, **inputs})
    gradients = []
    if case["grad"]:
        loss = K.sum(K.cast(output, floatx) * K.constant(VALUES[f"{name}/seed"].astype(floatx)))
        gradients = K.gradients(loss, [inputs[x] for x in case["grad"]])
    got = K.function(list(inputs.values()), [output, *gradients])(list(arrays.values()))

    coarse = "float32" in (floatx, case["precision"])
    assert got[0].dtype == (floatx if case["dtype"] == "floatx" else case["dtype"])
    assert_close("value", got[0], VALUES[f"{name}/out"], coarse)
    for x, gradient in zip(case["grad"], got[1:], strict=True):
        assert_close(f"gradient in {x}", gradient, VALUES[f"{name}/grad/{x}"], coarse)


def is_index(case: dict[str, Any], name: str) -> bool:
    """Labels and lengths of CTC are integers; all else is of floatx."""
    return case["group"] == "ctc" and name in ("y", "il", "ll")


def placeholder(name: str, array: np.ndarray, dynamic: bool) -> Any:
    shape = (None, *array.shape[1:]) if dynamic else array.shape
    return K.placeholder(shape=shape, dtype=str(array.dtype), name=name)


def assert_close(what: str, got: np.ndarray, want: np.ndarray, coarse: bool) -> None:
    """Equal where not finite; elsewhere within a part of the value plus a smaller part of the largest value."""
    rtol, atol = (3e-5, 3e-6) if coarse else (1e-7, 1e-8)
    largest = np.abs(want[np.isfinite(want)]).max(initial=0)

    np.testing.assert_allclose(got.astype("float64"), want, rtol=rtol, atol=atol * largest, err_msg=what)
    assert got.shape == want.shape, what
