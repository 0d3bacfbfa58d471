"""Scalar Python functions as operations: their values, gradients, code, errors, and where they can stand."""

from __future__ import annotations

import math
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable

import numba
import numpy as np
import pytest

import tensorc
from tensorc import backend as K
from tensorc import custom
from tensorc.codegen.cpu.compile import assembly, optimised
from tensorc.codegen.cpu.target import Target
from tensorc.custom.fingerprint import digest
from tensorc.errors import ArgumentError, DTypeError, TensorcError
from tensorc.ir.parse import parse
from tensorc.runtime.threads import num_threads, set_num_threads

TABLE = np.array([1.0, 2.0, 4.0])
FACTOR = 3.0


pytestmark = pytest.mark.usefixtures("registry")


@numba.njit
def squared(x):
    return x * x


def softsign(x):
    return x / (1 + abs(x))


def elu(x, alpha=1.0):
    if x > 0:
        return x
    return alpha * (math.exp(x) - 1)


def pieces(x):
    if x < -1:
        y = -1.0
    elif x < 0:
        y = x * x
    elif x < 1:
        y = math.sin(x)
    else:
        y = math.tanh(x)
    return y + 1


def newton(x):
    y = x
    while abs(y * y - x) > 1e-12 * x:
        y = 0.5 * (y + x / y)
    return y


def polynomial(x):
    total = 0.0
    for i in range(5):
        total = total * x + i
    return total


def every_function(x):
    return (math.sqrt(abs(x)) + math.exp(x) + math.expm1(x) + math.log(abs(x) + 1) + math.log1p(abs(x)) + math.sin(x)
            + math.cos(x) + math.tan(x) + math.sinh(x) + math.cosh(x) + math.tanh(x) + math.erf(x) + math.erfc(x)
            + math.log2(x * x + 1) + math.log10(x * x + 1) + np.exp2(x) + math.copysign(2.0, x)
            + math.asin(x / 4) + math.acos(x / 4) + math.atan(x) + math.asinh(x) + math.acosh(x * x + 2)
            + math.atanh(x / 4) + math.atan2(x, 2.0) + math.hypot(x, 1.0) + abs(x) ** 1.5 + x ** 3 + max(x, 0.5)
            + min(x, 0.5) + x % 0.75)


SCALARS: dict[str, Callable[..., float]] = {
    f.__name__: f for f in (softsign, elu, pieces, polynomial, every_function)
} | {
    "calls_another": lambda x: squared(x) + 1,
    "reads_a_global": lambda x: FACTOR * x,
    "two_arguments": lambda x, y: x * y + math.exp(x - y),
    "three_arguments": lambda x, y, z: x * y if z > 0 else x - y,
    "steps": lambda x: math.floor(x) + math.ceil(x * 2) + math.trunc(x * 3) + round(x * 4) + x,
    "half_a_root": lambda x: math.sqrt(x) if x > 0 else 0.0,
}


@pytest.mark.parametrize("name", SCALARS)
def test_values_and_derived_gradients(name: str) -> None:
    custom.check(custom.elementwise(SCALARS[name], name=name))


def test_a_loop_needs_its_gradient_and_is_called_lane_by_lane() -> None:
    root = custom.elementwise(newton, gradient=lambda x: 0.5 / math.sqrt(x))
    custom.check(root, [custom.sample(t, span=(0.5, 9.0)) for t in ("f32[41]", "f64[5]", "f16[3]", "f32[]", "f32[0]")])

    x = K.placeholder((None,))
    f = K.function([x], [root(x)])
    for n in range(40):     # lanes behind the last element hold 0, on which the loop would not end
        values = np.linspace(1, 2, n, dtype=np.float32)
        np.testing.assert_allclose(f([values])[0], np.sqrt(values), rtol=1e-6)


def test_a_table_is_read_in_place() -> None:
    chosen = custom.elementwise(lambda x, i: x * TABLE[min(max(i, 0), 2)], name="chosen")
    x, i = K.placeholder((None,)), K.placeholder((None,), dtype="int32")
    f = K.function([x, i], [chosen(x, i)])
    np.testing.assert_array_equal(f([np.ones(5, "f"), np.array([-1, 0, 1, 2, 9], "int32")])[0], [1, 1, 2, 4, 4])


def test_random_branches_and_arithmetic() -> None:
    """Straightened branches against Python, on functions that a seed grows."""
    generator = random.Random(4)
    for number in range(8):
        source = f"def f(x, y):\n{grown(generator, 2)}    return a + b\n"
        names: dict[str, Callable[..., float]] = {"math": math}  # type: ignore[dict-item]
        exec(source, names)
        try:
            custom.check(custom.elementwise(names["f"], name=f"grown{number}"),
                         [custom.sample("f64[50]", "f64[50]", span=(-3, 3))])
        except AssertionError as error:
            raise AssertionError(f"{error}\n{source}") from None


def grown(generator: random.Random, depth: int) -> str:
    """Assignments to a and b, from x and y, in branches."""
    lines = ["a = x", "b = y * 0.5"]

    def term() -> str:
        return generator.choice(["a", "b", "x", "y", "0.75", "math.sin(a)", "abs(b)", "math.exp(-b * b)"])

    def block(depth: int, pad: str) -> None:
        for _ in range(generator.randint(1, 3)):
            if depth and generator.random() < 0.6:
                lines.append(f"{pad}if {term()} {generator.choice('<>')} {term()}:")
                block(depth - 1, f"{pad}    ")
                if generator.random() < 0.7:
                    lines.append(f"{pad}else:")
                    block(depth - 1, f"{pad}    ")
            else:
                lines.append(f"{pad}{generator.choice('ab')} = {term()} {generator.choice('+-*')} {term()}")

    block(depth, "")
    return "".join(f"    {line}\n" for line in lines)


# -- dtypes and shapes


@pytest.mark.parametrize(("dtypes", "function", "result"), [
    (["float32"], softsign, "float32"),
    (["float64"], softsign, "float64"),
    (["float16"], softsign, "float16"),
    (["bfloat16"], softsign, "bfloat16"),
    (["bfloat16", "int64"], lambda x, i: x * i, "bfloat16"),
    (["float32", "float64"], lambda x, y: x + y, "float64"),
    (["float16", "float32"], lambda x, y: x + y, "float32"),
    (["float32", "int64"], lambda x, i: x * i, "float32"),
    (["int32"], lambda i: i * 2 + 1, "int32"),
    (["uint8", "int8"], lambda i, j: i - j, "int16"),
    (["int32"], lambda i: i / 2, "float32"),
    (["float32"], lambda x: int(x), "int64"),
    (["float32"], lambda x: x > 0, "bool"),
    (["bool", "bool"], lambda p, q: p and not q, "bool"),
    (["bool", "float32"], lambda p, x: x if p else -x, "float32"),
])
def test_dtypes(dtypes: list[str], function: Callable[..., float], result: str) -> None:
    generator = np.random.default_rng(0)
    inputs = [K.placeholder((None,), dtype=d) for d in dtypes]
    values = [generator.integers(0, 2 if d == "bool" else 9, 21).astype(d) for d in dtypes]
    made = custom.elementwise(function, name="typed")(*inputs)
    (got,) = K.function(inputs, [made])(values)

    assert (made.dtype, got.dtype.name) == (result, result)
    wide = [v.astype(np.int64) if v.dtype.kind in "iu" else v for v in values]
    want = np.array([function(*row) for row in zip(*wide, strict=True)]).astype(result)
    np.testing.assert_allclose(got, want, rtol={"float16": 1e-3, "bfloat16": 8e-3}.get(result, 1e-6))


def test_the_dtype_that_is_asked_for() -> None:
    x = K.placeholder((None,))
    rounded = custom.elementwise(lambda x: x * 2, dtype="int32", name="rounded")
    (got,) = K.function([x], [rounded(x)])([np.array([0.75, -3.0, math.nan], "f")])
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, [1, -6, 0])


def test_numbers_take_the_dtype_of_tensors_and_shapes_broadcast() -> None:
    leaky = custom.elementwise(lambda x, slope=0.1: x if x > 0 else slope * x, name="leaky")
    x = K.placeholder((None, 3), dtype="float64")
    row = K.placeholder((3,), dtype="float64")
    outputs = [leaky(x), leaky(x, 2), leaky(x, slope=row), leaky(np.ones((2, 1, 1)), row)]
    assert [(o.dtype, o.shape) for o in outputs] == [
        ("float64", (None, 3)), ("float64", (None, 3)), ("float64", (None, 3)), ("float64", (2, 1, 3))]

    f = K.function([x, row], outputs)
    slopes = np.array([0.0, 1.0, -1.0])
    for n in (0, 1, 2):
        values = np.random.default_rng(n).normal(size=(n, 3))
        for got, slope in zip(f([values, slopes]), (0.1, 2, slopes), strict=False):
            np.testing.assert_allclose(got, np.where(values > 0, values, slope * values))


def test_what_has_no_answer_is_not_a_number() -> None:
    f64 = custom.elementwise(lambda x, y: math.sqrt(x) / y, name="quotient")
    i64 = custom.elementwise(lambda i, j: i // j + i % j, name="whole")
    x, i = K.placeholder((4,)), K.placeholder((4,), dtype="int64")
    run = K.function([x, i], [f64(x, x), f64(1.0, x), i64(i, 0), i64(7, i)])
    root, over, by_zero, by_each = run([np.array([-1, 0, math.inf, math.nan], "f"), np.array([0, 2, -1, -(2**63)])])
    np.testing.assert_array_equal(root, [math.nan, math.nan, math.nan, math.nan])
    np.testing.assert_array_equal(over, [-1, math.inf, 0, math.nan])
    np.testing.assert_array_equal(by_zero, [0, 0, 0, 0])
    assert by_each[:3].tolist() == [0, 4, -7]


# -- code


def optimised_text(f: K.Function) -> str:
    return optimised(f.compiled.program.llvm(), Target.host())


def test_it_is_inlined_and_in_vectors() -> None:
    x = K.placeholder((None,))
    for function in (softsign, elu, pieces):
        f = K.function([x], [custom.elementwise(function)(x) * 2 + 1])
        text = optimised_text(f)
        assert "@custom." in f.compiled.program.llvm()
        assert "@custom." not in text
        assert "custom." not in assembly(f.compiled.program.llvm(), Target.host())

        (kernel,) = re.findall(r"define internal void @k0\(.*?\n}", text, re.DOTALL)
        width = Target.host().lanes(4)
        assert f"<{width} x float>" in kernel
        assert len(re.findall(r"call (?!.*@llvm\.|.*@tc\.\w+_far)", kernel)) == 0
        division = {"softsign": True}.get(function.__name__, False)
        assert (f"fdiv <{width} x float>" in kernel) or not division
        assert " double" not in kernel


def test_it_fuses_with_what_is_around_it(golden: Callable[[str, str], None]) -> None:
    x, w = K.placeholder((None, 64), name="x"), K.placeholder((64, 10), name="w")
    act = custom.elementwise(softsign, name="activation")
    f = K.function([x, w], [act(K.dot(x, w)), K.sum(act(x), axis=1)], name="layer")
    text = "\n".join(str(lowered.kernel) for _, group in f.compiled.program.assembly.lowered for lowered in group)
    golden("kernels/custom_softsign.txt", re.sub(r" +#.*", "", str(f.graph)) + "\n" + text)


def test_equal_bits_for_any_number_of_threads() -> None:
    x = K.placeholder((None,))
    f = K.function([x], [K.sum(custom.elementwise(every_function)(x)), custom.elementwise(newton)(K.exp(x))])
    values = np.random.default_rng(0).normal(size=50_001).astype("f")
    before, results = num_threads(), set()
    for threads in (1, 2, 3):
        set_num_threads(threads)
        results.add(tuple(r.tobytes() for r in f([values])))
    set_num_threads(before)
    assert len(results) == 1


def test_vectors_and_single_elements_agree_to_the_bit() -> None:
    x = K.placeholder((None,))
    f = K.function([x], [custom.elementwise(every_function)(x)])
    values = np.random.default_rng(0).normal(size=37).astype("f")
    assert f([values])[0].tobytes() == b"".join(f([values[i:i + 1]])[0].tobytes() for i in range(37))


def test_dumps_show_the_name_and_parse_back() -> None:
    x = K.placeholder((None, 2))
    f = K.function([x], [custom.elementwise(elu)(x, 0.5)], name="f")
    text = "graph f(x: f32[n,2])\n  %0: f32[n,2] = elu(x, 0.5:f32)\n  return %0\n"
    (graph,) = parse(text)
    assert str(graph) == text
    assert graph.outputs[0].op is f.graph.outputs[0].op


# -- where it can stand


def test_in_loops_and_branches() -> None:
    act = custom.elementwise(softsign)
    x, flag = K.placeholder((None, 4)), K.placeholder((), dtype="bool")
    total = K.foldl(lambda state, row: act(state + row), x, K.zeros((4,)))
    each = K.map_fn(act, x)
    either = K.switch(flag, lambda: act(x), lambda: x)
    loss = K.sum(total) + K.sum(either)
    f = K.function([x, flag], [total, each, either, *K.gradients(loss, [x])])

    values = np.random.default_rng(0).normal(size=(5, 4)).astype("f")

    def formula(x: np.ndarray, flag: bool) -> tuple[np.ndarray, np.ndarray]:
        state = np.zeros(4, x.dtype)
        for row in x:
            state = softsign(state + row)
        return state, softsign(x) if flag else x

    def slope(x: np.ndarray, flag: bool) -> np.ndarray:
        out = np.zeros_like(x, dtype=np.float64)
        for place in np.ndindex(x.shape):
            step = np.zeros(x.shape)
            step[place] = 1e-6
            high, low = (sum(part.sum() for part in formula(x + s, flag)) for s in (step, -step))
            out[place] = (high - low) / 2e-6
        return out

    for flag_value in (True, False):
        got = f([values, flag_value])
        want = formula(values, flag_value)
        np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
        np.testing.assert_allclose(got[1], softsign(values), rtol=1e-6)
        np.testing.assert_allclose(got[2], want[1], rtol=1e-6)
        np.testing.assert_allclose(got[3], slope(values.astype(float), flag_value), rtol=1e-4, atol=1e-5)


def test_second_derivatives() -> None:
    x = K.placeholder((None,), dtype="float64")
    act = custom.elementwise(lambda x: x * x * x if x > 0 else math.exp(x), name="kinked")
    (first,) = K.gradients(K.sum(act(x)), [x])
    (second,) = K.gradients(K.sum(first), [x])
    values = np.array([-1.0, 0.5, 2.0])
    got = K.function([x], [first, second])([values])
    np.testing.assert_allclose(got, [np.where(values > 0, 3 * values**2, np.exp(values)),
                                     np.where(values > 0, 6 * values, np.exp(values))])


def test_a_constant_is_folded_by_its_meaning() -> None:
    act = custom.elementwise(lambda x: math.log(x), name="logarithm")
    f = K.function([], [act(np.array([1.0, 0.0, -1.0], "f"))])
    assert [n.op.name for n in f.compiled.program.planned.nodes] == ["constant"]
    np.testing.assert_array_equal(f([])[0], [0, -math.inf, math.nan])


# -- gradients that are given


def test_gradients_in_each_form() -> None:
    forms: list[object] = [
        None,
        [lambda x, y: y * math.cos(x * y), lambda x, y: x * math.cos(x * y)],
        lambda x, y, g: [g * y * K.cos(x * y), g * x * K.cos(x * y)],
        lambda x, y, z, g: (g * y * K.cos(x * y), K.cos(x * y) * g * x + 0 * z),
    ]
    for form in forms:
        made = custom.elementwise(lambda x, y: math.sin(x * y), gradient=form, name="wave")  # type: ignore[arg-type]
        custom.check(made)

    single = custom.elementwise(gradient=lambda x: 2 * x)(lambda_named("doubled", lambda x: x * x))
    custom.check(single)
    x = K.placeholder((3,), name="x")
    f = K.function([x], K.gradients(single(x), [x]), name="f")
    assert "= doubled_gradient(" in str(f.graph)


def lambda_named(name: str, function: Callable[..., float]) -> Callable[..., float]:
    function.__name__ = name
    return function


def test_part_of_the_gradient_and_none_at_all() -> None:
    x, y = K.placeholder((3,)), K.placeholder((3,))
    half = custom.elementwise(lambda x, y: x * y, gradient=[lambda x, y: y, None], name="half")
    dx, dy = K.gradients(K.sum(half(x, y)), [x, y])
    assert dx is not None
    assert dy is None

    reason = custom.NoGradient("it is a staircase")
    flat = custom.elementwise(lambda x: math.floor(x) * 1.0, gradient=reason, name="flat")
    assert K.gradients(K.sum(flat(x)), [x]) == [None]
    assert "it is a staircase" in tensorc.why_no_gradient(K.sum(flat(x)), x)


# -- definitions


def test_it_stays_a_function() -> None:
    @custom.elementwise
    def documented(x, scale=2.0):
        """What it does."""
        return x * scale

    assert (documented.__name__, documented.__doc__) == ("documented", "What it does.")
    assert documented.python(2.0) == 4.0        # type: ignore[attr-defined]
    assert K.eval(documented(3.0)) == 6


def test_a_new_definition_does_not_change_what_the_old_one_made() -> None:
    def define(factor: float) -> Callable[..., object]:
        @custom.elementwise
        def scaled(x):
            return x * factor

        return scaled

    x = K.placeholder((2,))
    old = define(2.0)(x)
    new = define(3.0)(x)
    functions = [K.function([x], [y]) for y in (old, new, define(2.0)(x))]
    assert [f([np.ones(2, "f")])[0].tolist() for f in functions] == [[2, 2], [3, 3], [2, 2]]
    assert functions[0].compiled.program is functions[2].compiled.program


def test_several_threads_define_and_run() -> None:
    failures: list[object] = []

    def work(k: int) -> None:
        try:
            act = custom.elementwise(lambda x: x * k + math.exp(x * 0), name=f"in_thread{k}")
            x = K.placeholder((5,))
            got = K.function([x], [act(x)])([np.arange(5, dtype="f")])[0]
            np.testing.assert_allclose(got, np.arange(5) * k + 1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failures == []


SCRIPT = """
import sys, math
import numpy as np
from tensorc import backend as K, custom

FACTOR = {factor}

@custom.elementwise
def act(x):
    return FACTOR * x / (1 + math.exp(-x)){more}

x = K.placeholder((None,))
f = K.function([x], [act(x), *K.gradients(act(x), [x])])
print(f([np.zeros(3, "f")])[1].tolist(), f.compiled.program.compiled, "numba" in sys.modules)
"""


def test_another_process_finds_the_code_without_numba(tmp_path) -> None:
    def run(factor: float, more: str = "") -> str:
        script = tmp_path / "script.py"
        script.write_text(SCRIPT.format(factor=factor, more=more))
        env = {**os.environ, "TENSORC_CACHE": "1", "TENSORC_CACHE_DIR": str(tmp_path / "store")}
        done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert run(1.0) == "[0.5, 0.5, 0.5] True True"
    assert run(1.0) == "[0.5, 0.5, 0.5] False False"
    assert run(2.0) == "[1.0, 1.0, 1.0] True True"
    assert run(1.0, "  # a comment is no other code") == "[0.5, 0.5, 0.5] False False"
    assert run(1.0, " + 0.0 * x") == "[0.5, 0.5, 0.5] True True"


def test_code_holds_nothing_of_the_process() -> None:
    """Numba counts what it has compiled; the text does not."""
    from tensorc.custom.scalar import compile_scalar

    for function, kinds in ((softsign, "f"), (newton, "f"), (pieces, "f"), (elu, "ff")):
        first, second = (compile_scalar(function, "f", kinds) for _ in range(2))
        assert first == second
        assert "_ZN" not in first.text


# -- errors


def helper(x):
    return x + 1


def refused(x):
    if x < 0:
        raise ValueError("negative")
    return x


def indexed(x, i):
    return x * TABLE[i]


def on_one_path(x):
    return x if x > 0 else None


ERRORS: dict[str, Callable[[K.Tensor], object]] = {
    "raises": lambda x: custom.elementwise(refused)(x),
    "index": lambda x: custom.elementwise(indexed)(x, K.constant(1, dtype="int32")),
    "unknown_function": lambda x: custom.elementwise(lambda x: math.fmod(x, 2.0), name="f")(x),
    "python_function": lambda x: custom.elementwise(lambda x: helper(x), name="f")(x),
    "text": lambda x: custom.elementwise(lambda x: str(x), name="f")(x),
    "none_on_a_path": lambda x: custom.elementwise(on_one_path)(x),
    "arrays": lambda x: custom.elementwise(lambda x: np.zeros(3).sum() + x, name="f")(x),
    "shapes": lambda x: custom.elementwise(lambda x, y: x + y, name="f")(x, K.placeholder((4,), name="y_of_shapes")),
    "loop_without_gradient": lambda x: K.gradients(custom.elementwise(newton)(x), [x]),
    "no_derivative": lambda x: K.gradients(
        custom.elementwise(lambda x: math.lgamma(x), name="f")(x), [x]),
    "name_taken": lambda x: custom.elementwise(lambda x: x, name="exp"),
    "no_name": lambda x: custom.elementwise(lambda x: x),
    "any_number_of_arguments": lambda x: custom.elementwise(lambda *xs: xs[0], name="f"),
    "no_function": lambda x: custom.elementwise(math.exp),
    "gradient_of_another_form": lambda x: custom.elementwise(lambda x, y: x * y, gradient=lambda x: x, name="f"),
    "gradient_gives_too_few": lambda x: K.gradients(
        custom.elementwise(lambda x, y: x * y, gradient=lambda x, y, g: g, name="f")(x, 2.0), [x]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str, golden: Callable[[str, str], None]) -> None:
    with pytest.raises(TensorcError) as caught:
        ERRORS[name](K.placeholder((3,), name=f"x_of_{name}"))
    assert isinstance(caught.value, ArgumentError | DTypeError | ValueError)
    text = re.sub(r"test_custom\.py:\d+", "test_custom.py:N", str(caught.value))
    golden(f"errors/custom_{name}.txt", re.sub(r"at line \d+", "at line N", text))


def test_check_finds_what_is_wrong() -> None:
    wrong = custom.elementwise(lambda x: x * x, gradient=lambda x: 3 * x, name="wrong")
    with pytest.raises(AssertionError, match=r"wrong\(f64\[2,3\]\): the gradient in operand 0 and differences differ"):
        custom.check(wrong)




# -- fingerprints


def test_fingerprints_cover_all_that_is_read() -> None:
    def made(factor: object, inner: str = "x + 1") -> Callable[..., object]:
        names: dict[str, object] = {"FACTOR": factor, "np": np, "numba": numba}
        exec(f"@numba.njit\ndef g(x):\n    return {inner}\ndef f(x, y=2.0):\n    return FACTOR * g(x) in (1, 2) or y",
             names)
        return names["f"]  # type: ignore[return-value]

    first = digest(made(1.0))  # type: ignore[arg-type]
    assert first is not None
    assert digest(made(1.0)) == first  # type: ignore[arg-type]
    others = [made(1), made(2.0), made((1.0,)), made(np.ones(3)), made(1.0, "x + 2"), made(1.0, "x - 1")]
    assert len({first, *map(digest, others)}) == 7  # type: ignore[arg-type]
    assert digest(made(object())) is None  # type: ignore[arg-type]


def test_what_cannot_be_told_is_compiled_each_time_and_not_kept() -> None:
    class Settings:
        factor = 2.0

    settings = Settings()
    factor = settings.factor
    assert digest(lambda x: x * settings.factor) is None
    assert digest(lambda x: x * factor) is not None


def test_a_recurrent_layer_with_an_activation_of_ones_own() -> None:
    act = custom.elementwise(softsign)
    x, w = K.placeholder((None, 5, 4), name="x"), K.variable(np.eye(4), name="w")

    def step(row: K.Tensor, states: list[K.Tensor]) -> tuple[K.Tensor, list[K.Tensor]]:
        new = act(row + K.dot(states[0], w))
        return new, [new]

    last, _, _ = K.rnn(step, x, [K.zeros_like(x[:, 0])])
    f = K.function([x], [last, *K.gradients(K.sum(last), [w])])
    values = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("f")

    def run(w: np.ndarray) -> np.ndarray:
        state = np.zeros((3, 4))
        for t in range(5):
            state = softsign(values[:, t] + state @ w)
        return state

    got, slope = f([values])
    np.testing.assert_allclose(got, run(np.eye(4)), rtol=1e-5)
    for place in ((0, 0), (2, 1)):
        step_ = np.zeros((4, 4))
        step_[place] = 1e-6
        want = (run(np.eye(4) + step_).sum() - run(np.eye(4) - step_).sum()) / 2e-6
        np.testing.assert_allclose(slope[place], want, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("bfloat16", 1.6e-2)])
def test_half_precision_is_computed_in_single(dtype: str, tolerance: float) -> None:
    """Of exp(x) − exp(x) · (1 − 2⁻¹²), half precision would leave nothing."""
    x = K.placeholder((None,), dtype=dtype)
    small = custom.elementwise(lambda x: math.exp(x) - math.exp(x) * (1 - 2.0**-12), name="small")
    got, slope = K.function([x], [small(x), *K.gradients(K.sum(small(x)), [x])])([np.array([0.0, 1.0], dtype)])
    assert got.dtype == slope.dtype == dtype
    np.testing.assert_allclose(got, np.exp([0, 1]) / 2**12, rtol=tolerance)
    np.testing.assert_allclose(slope, np.exp([0, 1]) / 2**12, rtol=tolerance)


def test_functions_of_the_c_library() -> None:
    gamma = custom.elementwise(lambda x: math.lgamma(x) + math.gamma(x), name="gammas",
                               gradient=custom.NoGradient("not needed"))
    custom.check(gamma, [custom.sample(t, span=(0.5, 4.0)) for t in ("f32[37]", "f64[37]", "f32[]")])
