"""Operations of users made of K functions or of loops: types, values, gradients, dumps, errors, the store."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from tensorc import backend as K
from tensorc import custom
from tensorc.errors import TensorcError
from tensorc.ir.parse import parse

sample = custom.sample


pytestmark = pytest.mark.usefixtures("registry")


def swish(x, *, beta=1.0):
    """x · sigmoid(beta · x)."""
    return x * K.sigmoid(beta * x)


class running_max:
    """The largest so far along each row."""

    def infer(x):
        if len(x.shape) != 2:
            raise custom.ShapeError(f"takes rows, not {len(x.shape)} axes")
        return x

    def reference(x):
        return np.maximum.accumulate(x, axis=1)

    def kernel(k, x, out):
        with k.grid(x.shape[0]) as i:
            largest = k.accumulator("max")
            with k.loop(x.shape[1]) as j:
                out[i, j] = largest.scan(x[i, j])

    gradient = custom.NoGradient("it is not needed")
    samples = (sample("f32[3,5]"), sample("f64[1,7]"), sample("f16[2,3]"), sample("f32[0,4]"), sample("f32[4,0]"),
               sample("i32[3,5]"), sample("f32[40,33]"))


class decayed_sum:
    """out[i, t] = x[i, t] + rate · out[i, t − 1]."""

    def infer(x, rate, *, reverse):
        return x

    def reference(x, rate, *, reverse):
        steps = range(x.shape[1])[::-1 if reverse else 1]
        out, state = np.zeros_like(x), np.zeros(x.shape[0], x.dtype)
        for t in steps:
            out[:, t] = state = x[:, t] + rate * state
        return out

    def kernel(k, x, rate, out, *, reverse):
        rows, steps = x.shape
        with k.grid(rows) as i, k.loop(steps) as s:
            t = steps - 1 - s if reverse else s
            first = k.number(s, "int32") < 1
            with k.when(first):
                out[i, t] = x[i, t]
            with k.when(~first):
                out[i, t] = x[i, t] + rate[()] * out[i, t + 1 if reverse else t - 1]

    def gradient(x, rate, y, g, *, reverse):
        back = again(g, rate, reverse=not reverse)
        before = K.concatenate([y[:, 1:], 0 * y[:, :1]] if reverse else [0 * y[:, :1], y[:, :-1]], axis=1)
        return back, K.sum(back * before)

    samples = (sample("f32[3,5]", "f32[]", span=(0.2, 0.9), reverse=False),
               sample("f64[2,4]", "f64[]", span=(0.2, 0.9), reverse=True))


again: Callable[..., K.Tensor] = K.identity


class histogram:
    """How many of each row are in each of `bins` equal parts of [0, 1)."""

    def infer(x, *, bins):
        return x.with_shape((x.shape[0], bins)).with_dtype(custom.dtype("int32"))

    def reference(x, *, bins):
        places = np.clip((x * bins).astype(int), 0, bins - 1)
        return np.stack([np.bincount(row, minlength=bins) for row in places]).astype("int32").reshape(len(x), bins)

    def kernel(k, x, out, *, bins):
        with k.grid(x.shape[0]) as i:
            with k.loop(bins) as b:
                out[i, b] = 0
            with k.loop(x.shape[1]) as j:
                place = k.minimum(k.maximum((x[i, j] * bins).cast("int32"), 0), bins - 1)
                out[i, place] = out[i, place] + 1

    gradient = custom.NoGradient("counts are whole")
    samples = (sample("f32[3,50]", span=(0, 1), bins=7), sample("f32[2,5]", span=(0, 1), bins=1))


def test_an_operation_made_of_k_functions() -> None:
    op = custom.op(swish)
    custom.check(op, [sample("f32[2,3]", beta=1.5), sample("f32[]", beta=1.0), sample("f64[0,4]", beta=2.0),
                      sample("f16[5]", beta=1.0)])

    x = K.placeholder((None, 3), name="x_swish")
    f = K.function([x], [op(x, beta=2.0)], name="f")
    text = re.sub(r" +#.*", "", str(f.graph))
    assert "swish(x_swish) {beta=2.0}" in text
    assert str(parse(text)[0]) == text
    assert [n.op.name for n in f.compiled.program.planned.nodes if n.op.scalar] == ["mul", "sigmoid", "mul"]
    assert (op.__name__, op.__doc__) == ("swish", "x · sigmoid(beta · x).")


def test_operations_with_loops_of_their_own() -> None:
    global again
    for definition in (running_max, histogram):
        custom.check(custom.op(definition))
    again = custom.op(decayed_sum)
    custom.check(again)


def test_the_kernel_is_what_was_written(golden: Callable[[str, str], None]) -> None:
    x = K.placeholder((None, 8), name="x_rows")
    f = K.function([x], [custom.op(running_max)(x * 2)], name="f")
    kernels = [str(lowered.kernel) for _, group in f.compiled.program.assembly.lowered for lowered in group]
    golden("kernels/custom_running_max.txt", re.sub(r" +#.*", "", str(f.graph)) + "\n" + "\n".join(kernels))


def test_it_stands_in_loops_and_branches() -> None:
    act, largest = custom.op(swish), custom.op(running_max)
    x, flag = K.placeholder((None, 3)), K.placeholder((), dtype="bool")
    total = K.foldl(lambda state, row: act(state + row, beta=0.5), x, K.zeros((3,)))
    rows = K.map_fn(lambda row: largest(K.reshape(row, (1, 3))), x)
    either = K.switch(flag, lambda: largest(x), lambda: x)
    f = K.function([x, flag], [total, rows, either, *K.gradients(K.sum(total), [x])])

    values = np.random.default_rng(0).normal(size=(4, 3)).astype("f")
    total, rows, either, slope = f([values, True])
    state = np.zeros(3, "f")
    for row in values:
        state = (state + row) / (1 + np.exp(-0.5 * (state + row)))
    np.testing.assert_allclose(total, state, rtol=1e-5)
    np.testing.assert_array_equal(rows[:, 0], np.maximum.accumulate(values, axis=1))
    np.testing.assert_array_equal(either, np.maximum.accumulate(values, axis=1))
    assert slope.shape == (4, 3)
    assert np.isfinite(slope).all()


def test_a_gradient_of_ones_own_stabilises() -> None:
    """log(1 + exp x) with a gradient that does not overflow."""
    @custom.op(gradient=lambda x, g: g * K.sigmoid(x))
    def soft(x):
        return K.log(1 + K.exp(x))

    x = K.placeholder((3,))
    got = K.function([x], K.gradients(soft(x), [x]))([np.array([-200, 0, 200], "f")])[0]
    np.testing.assert_allclose(got, [0, 0.5, 1])


def test_operands_that_depend_on_each_other() -> None:
    """The derived gradient is that of the operation, not of what is behind its operands."""
    product = custom.op(lambda_named("product", lambda x, y: x * y))
    x = K.placeholder((2,))
    y = K.exp(x)
    dx, dy = K.gradients(K.sum(product(x, y)), [x, y])
    values = np.array([0.5, 1.0], "f")
    got = K.function([x], [dx, dy])([values])
    np.testing.assert_allclose(got, [np.exp(values) * (1 + values), values], rtol=1e-6)


def lambda_named(name: str, function: Callable[..., object]) -> Callable[..., object]:
    function.__name__ = name
    return function


def test_places_that_are_looked_up_are_checked() -> None:
    rows = custom.op(lambda_named("rows", lambda table, i: K.gather(table, i) * 2))
    table, i = K.placeholder((4, 2)), K.placeholder((None,), dtype="int32")
    f = K.function([table, i], [rows(table, i)])
    assert f([np.ones((4, 2), "f"), np.array([0, 3], "int32")])[0].shape == (2, 2)
    with pytest.raises(IndexError, match="4"):
        f([np.ones((4, 2), "f"), np.array([4], "int32")])


def test_a_new_definition_does_not_change_what_the_old_one_made() -> None:
    x = K.placeholder((2,))
    made = [custom.op(lambda_named("scaled", lambda x, factor=factor: x * factor))(x, factor) for factor in (2.0, 3.0)]
    redefined = [custom.op(lambda_named("shifted", shift))(x) for shift in (lambda x: x + 1, lambda x: x + 2)]
    got = [K.function([x], [y])([np.ones(2, "f")])[0].tolist() for y in (*made, *redefined)]
    assert got == [[2, 2], [3, 3], [2, 2], [3, 3]]


SCRIPT = """
import numpy as np
from tensorc import backend as K, custom

@custom.op
def act(x):
    return x * {factor}

@custom.op
class twice:
    def infer(x):
        return x
    def reference(x):
        return x * 2
    def kernel(k, x, out):
        with k.grid(*x.shape) as i:
            out[i] = x[i] * {times}
    gradient = custom.NoGradient("none")

x = K.placeholder((None,))
f = K.function([x], [act(x), twice(x)])
print(*[r.tolist() for r in f([np.ones(2, "f")])], f.compiled.program.compiled)
"""


def test_another_process_finds_the_code(tmp_path) -> None:
    def run(factor: int, times: int) -> str:
        env = {**os.environ, "TENSORC_CACHE": "1", "TENSORC_CACHE_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", SCRIPT.format(factor=factor, times=times)], env=env,
                              capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert run(2, 2) == "[2.0, 2.0] [2.0, 2.0] True"
    assert run(2, 2) == "[2.0, 2.0] [2.0, 2.0] False"
    assert run(3, 2) == "[3.0, 3.0] [2.0, 2.0] True"
    assert run(2, 3) == "[2.0, 2.0] [3.0, 3.0] True"


# -- errors


def kernel_only(kernel: Callable[..., object]) -> Callable[..., K.Tensor]:
    parts = {"infer": lambda x: x, "reference": lambda x: x, "gradient": custom.NoGradient("none"), "kernel": kernel}
    return custom.op(type("broken", (), parts))


def run_kernel(kernel: Callable[..., object]) -> object:
    return kernel_only(kernel)(K.placeholder((4,), name=f"x_in_{kernel.__name__}"))


def unrolled(k, x, out):
    out[0] = x[0]


def two_grids(k, x, out):
    with k.grid(2), k.grid(2):
        pass


def deciding(k, x, out):
    with k.grid(4) as i:
        if x[i] > 0:
            out[i] = x[i]


def of_rank_two(k, x, out):
    with k.grid(4) as i:
        out[i, 0] = x[i]


def unknown_function(k, x, out):
    with k.grid(4) as i:
        out[i] = k.call("gamma", x[i])


def meeting(k, x, out):
    with k.grid(4) as i:
        out[0] = x[i]


ERRORS: dict[str, Callable[[], object]] = {
    "nothing": lambda: custom.op(type("empty", (), {})),
    "both_ways": lambda: custom.op(type("both", (), {"graph": lambda x: x, "kernel": lambda k, x, out: None})),
    "kernel_alone": lambda: custom.op(type("alone", (), {"kernel": unrolled})),
    "unknown_part": lambda: custom.op(type("odd", (), {"graph": lambda x: x, "forward": 1})),
    "no_definition": lambda: custom.op(3),
    "name_taken": lambda: custom.op(lambda_named("matmul", lambda x: x)),
    "no_operand": lambda: custom.op(lambda_named("none", lambda *, beta: beta)),
    "no_tensor": lambda: custom.op(lambda_named("three", lambda x: 3))(K.placeholder((2,), name="x_three")),
    "tensor_as_attribute": lambda: custom.op(swish)(
        K.placeholder((2,), name="x_beta"), beta=K.constant(1.0, name="beta_tensor")),
    "reads_a_variable": lambda: custom.op(lambda_named("biased", lambda x: x + K.variable(0.0, name="bias")))(
        K.placeholder((2,), name="x_biased")),
    "draws": lambda: custom.op(lambda_named("noisy", lambda x: x + K.random_normal((2,))))(
        K.placeholder((2,), name="x_noisy")),
    "type_rule": lambda: custom.op(running_max)(K.placeholder((2,), name="x_vector")),
    "no_grid": lambda: run_kernel(unrolled),
    "two_grids": lambda: run_kernel(two_grids),
    "value_as_condition": lambda: run_kernel(deciding),
    "rank": lambda: run_kernel(of_rank_two),
    "unknown_function": lambda: run_kernel(unknown_function),
    "iterations_meet": lambda: run_kernel(meeting),
    "no_samples": lambda: custom.check(custom.op(swish)),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str, golden: Callable[[str, str], None]) -> None:
    with pytest.raises(TensorcError) as caught:
        ERRORS[name]()
    golden(f"errors/custom_op_{name}.txt", re.sub(r"test_custom_op\.py:\d+", "test_custom_op.py:N", str(caught.value)))


def test_check_finds_what_is_wrong() -> None:
    def wrong_kernel(k, x, out):
        with k.grid(x.shape[0]) as i:
            out[i] = x[i] * 2

    def outside(k, x, out):
        with k.grid(x.shape[0]) as i:
            out[i] = x[i + 1]

    for kernel, text in ((wrong_kernel, "loops and reference differ"), (outside, "the kernel leaves a buffer")):
        with pytest.raises(AssertionError, match=text):
            custom.check(kernel_only(kernel), [sample("f32[4]")])

    with pytest.raises(AssertionError, match="the gradient in operand 0"):
        custom.check(custom.op(gradient=lambda x, g: g)(lambda_named("steep", lambda x: 3 * x)), [sample("f32[4]")])



# -- scripts that repeat a call


DUMPED = '''
import math

import numba
import numpy as np

from tensorc import backend as K
from tensorc import custom

FACTOR = 2.5


@numba.njit
def squared(v):
    return v * v


@custom.elementwise(gradient=lambda x: 2 * FACTOR * x)
def scaled(x):
    return FACTOR * squared(x)


@custom.op
class twice:
    def infer(x):
        return x

    def reference(x):
        return x * np.float32(2)

    def kernel(k, x, out):
        with k.grid(*x.shape) as i:
            out[i] = x[i] * 2

    gradient = custom.NoGradient("none")


def plain(x):
    return K.exp(x)


bent = custom.elementwise(lambda x: x if x > FACTOR else math.sin(x), name="bent")
x = K.placeholder((None,), name="x")
outputs = [twice(scaled(x)), custom.op(plain)(bent(x)), *K.gradients(scaled(x), [x])]
print(K.function([x], outputs, name="all")([np.arange(4, dtype="f")]))
'''


def test_a_dumped_function_runs_alone(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(DUMPED)
    env = {**os.environ, "TENSORC_DUMP": str(tmp_path / "dumps")}
    subprocess.run([sys.executable, str(script)], env=env, capture_output=True, check=True)
    script.unlink()

    del env["TENSORC_DUMP"]
    (repro,) = (tmp_path / "dumps").glob("*/repro.py")
    done = subprocess.run([sys.executable, "-W", "error", str(repro)], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("as the reference") == 3
    assert "# define" not in repro.read_text()
