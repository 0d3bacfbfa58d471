"""Operations of users on a GPU: scalar functions inlined in the text, loops of their own by the ordinary schedules."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_machine import planned
from test_cuda_programs import agree, both
from test_custom import SCALARS, grown, newton, softsign
from test_custom_op import decayed_sum, histogram, running_max
from test_straight import BRANCHES

from tensorc import backend as K
from tensorc import custom
from tensorc.codegen.cuda.assemble import CudaAssembly, assemble
from tensorc.codegen.cuda.compile import cubin, missing, ptx
from tensorc.codegen.cuda.emit import emit
from tensorc.codegen.cuda.lockstep import run
from tensorc.codegen.loopir import Buffer, Call, Kernel, Load, Store
from tensorc.codegen.scalars import add_foreign
from tensorc.codegen.straight import straight
from tensorc.errors import DeviceError
from tensorc.ir import dims
from tensorc.ir.types import boolean, f32, f64, i64

pytestmark = pytest.mark.usefixtures("registry")
RNG = np.random.default_rng(8)


def assembled(function: Any, *inputs: Any) -> CudaAssembly:
    return assemble(planned(function.compiled.apart(inputs).graph))


@pytest.mark.parametrize("name", SCALARS)
def test_values_and_derived_gradients(name: str) -> None:
    count = SCALARS[name].__code__.co_argcount
    inputs = [K.placeholder((None, 5)) for _ in range(count)]
    y = custom.elementwise(SCALARS[name], name=name)(*inputs)
    slopes = [g for g in K.gradients(K.sum(y), inputs) if g is not None]
    values = [RNG.normal(size=(9, 5)).astype(np.float32) for _ in inputs]
    agree(K.function(inputs, [y, *slopes]), *values, tolerance=1e-4)


def test_random_branches_and_arithmetic() -> None:
    generator = random.Random(4)
    for number in range(8):
        names: dict[str, Any] = {"math": math}
        exec(f"def f(x, y):\n{grown(generator, 2)}    return a + b\n", names)
        x, y = (K.placeholder((None,), dtype="float64") for _ in range(2))
        f = K.function([x, y], [custom.elementwise(names["f"], name=f"grown{number}")(x, y)])
        agree(f, *RNG.uniform(-3, 3, (2, 50)), tolerance=1e-12)


@pytest.mark.parametrize(("dtypes", "function"), [
    (["float16"], softsign),
    (["bfloat16"], softsign),
    (["bfloat16", "float16"], lambda x, y: x + y),
    (["float32", "float64"], lambda x, y: x + y),
    (["float32", "int64"], lambda x, i: x * i),
    (["uint8", "int8"], lambda i, j: i - j),
    (["int32"], lambda i: i / 2),
    (["int64", "int64"], lambda i, j: (i // j + i % j) * (i << 3) - (i >> 2) + (i & j) - (i | j) + (i ^ j)),
    (["int64"], lambda i: max(min(abs(i), 5), 2)),
    (["float32"], lambda x: int(x)),
    (["float32"], lambda x: x > 0),
    (["bool", "bool"], lambda p, q: p and not q or p == q),
    (["bool", "float32"], lambda p, x: x if p else -x),
])
def test_dtypes(dtypes: list[str], function: Callable[..., float]) -> None:
    inputs = [K.placeholder((None,), dtype=d) for d in dtypes]
    values = [RNG.integers(0, 2 if d == "bool" else 9, 37).astype(d) for d in dtypes]
    agree(K.function(inputs, [custom.elementwise(function, name="typed")(*inputs)]), *values, tolerance=1e-6)


def test_what_has_no_answer_is_not_a_number() -> None:
    quotient = custom.elementwise(lambda x, y: math.sqrt(x) / y, name="quotient")
    whole = custom.elementwise(lambda i, j: i // j + i % j, name="whole")
    x, i = K.placeholder((4,)), K.placeholder((4,), dtype="int64")
    function = K.function([x, i], [quotient(x, x), quotient(1.0, x), whole(i, 0), whole(7, i)])
    got, want = both(function, np.array([-1, 0, math.inf, math.nan], "f"), np.array([0, 2, -1, -(2**63)]))
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(mine, theirs)


# What Numba seldom makes, in LLVM IR.

INTEGERS = """
define internal i64 @custom.scalar(i64 %x, i64 %y) {
entry:
  %small = trunc i64 %x to i32
  %wide = zext i32 %small to i64
  %s1 = call i64 @llvm.smax.i64(i64 %x, i64 %y)
  %s2 = call i64 @llvm.umin.i64(i64 %x, i64 %y)
  %s3 = call i64 @llvm.ctpop.i64(i64 %y)
  %s4 = lshr i64 %x, 60
  %s5 = urem i64 %x, 1000
  %s6 = sdiv i64 %x, %y
  %c = icmp ugt i64 %x, %y
  %d = icmp sle i64 %x, %y
  %e = xor i1 %c, %d
  %f = sext i1 %e to i64
  %t1 = add i64 %wide, %s1
  %t2 = add i64 %t1, %s2
  %t3 = add i64 %t2, %s3
  %t4 = add i64 %t3, %s4
  %t5 = add i64 %t4, %s5
  %t6 = add i64 %t5, %s6
  %t7 = add i64 %t6, %f
  ret i64 %t7
}
"""


def integers(x: int, y: int) -> int:
    mask = 2**64 - 1
    quotient = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
    total = ((x & (2**32 - 1)) + max(x, y) + min(x & mask, y & mask) + (y & mask).bit_count() + ((x & mask) >> 60)
             + (x & mask) % 1000 + quotient - (((x & mask) > (y & mask)) != (x <= y)))
    return (total + 2**63) % 2**64 - 2**63


def computed(source: str, dtype: Any, *arrays: Any) -> Any:
    """A function in LLVM IR on arrays, by the text for a GPU in lock-step."""
    assert straight(source) is not None
    fn = add_foreign("written", len(arrays), lambda given: dtype, np.add, lambda given: source, np.add)
    kinds = {"int64": i64, "float64": f64, "float32": f32}
    names = [f"x{k}" for k in range(len(arrays))]
    buffers = [Buffer(n, kinds[a.dtype.name], (a.size,)) for n, a in zip(names, arrays, strict=True)]
    loads = tuple(Load(b.name, (dims.symbol("i"),), b.dtype) for b in buffers)
    kernel = Kernel("k", (), (*buffers, Buffer("y", dtype, (arrays[0].size,), "out")), (("i", arrays[0].size),),
                    (Store("y", (dims.symbol("i"),), Call(fn, loads, dtype)),))
    out = np.zeros(arrays[0].size, dtype.numpy)
    run(emit(kernel, aligned=False), [*arrays, out], {})
    return out


def test_integers_as_llvm_has_them() -> None:
    x = RNG.integers(-(2**62), 2**62, 40)
    y = np.where(np.arange(40) % 2 == 0, RNG.integers(1, 99, 40), -RNG.integers(1, 99, 40))
    np.testing.assert_array_equal(computed(INTEGERS, i64, x, y),
                                  [integers(int(a), int(b)) for a, b in zip(x, y, strict=True)])


@pytest.mark.parametrize(("predicate", "meaning"), [
    ("oeq", lambda a, b: a == b), ("one", lambda a, b: a < b or a > b), ("olt", lambda a, b: a < b),
    ("oge", lambda a, b: a >= b), ("ord", lambda a, b: a == a and b == b), ("uno", lambda a, b: a != a or b != b),
    ("ueq", lambda a, b: not (a < b or a > b)), ("une", lambda a, b: a != b), ("ult", lambda a, b: not a >= b),
    ("ugt", lambda a, b: not a <= b), ("ule", lambda a, b: not a > b), ("uge", lambda a, b: not a < b),
])
def test_comparisons_with_nan(predicate: str, meaning: Callable[[float, float], bool]) -> None:
    source = (f"define internal i1 @custom.scalar(double %x, double %y) {{\nentry:\n"
              f"  %c = fcmp {predicate} double %x, %y\n  ret i1 %c\n}}\n")
    x, y = (a.ravel() for a in np.meshgrid([0.0, 1.0, math.nan], [0.0, 1.0, math.nan]))
    want = [meaning(a, b) for a, b in zip(x, y, strict=True)]
    np.testing.assert_array_equal(computed(source, boolean, x, y), want)


def test_a_choice_of_blocks() -> None:
    x, y = RNG.normal(size=(2, 30)).astype(np.float32)
    want = np.where(x > 0, np.where(y < 1, x * y, y), np.exp(x))
    np.testing.assert_allclose(computed(BRANCHES, f32, x, y), want, rtol=1e-6)


# Code, and what has none.


@pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())}")
@pytest.mark.parametrize("name", ["softsign", "pieces", "every_function", "steps"])
def test_it_is_inlined_in_the_machine_code(name: str) -> None:
    x = K.placeholder((None,))
    y = custom.elementwise(SCALARS[name], name=name)(x * 2) + 1
    (source,) = assembled(K.function([x], [y]), np.ones(3, "f")).sources.values()
    text = ptx(source)
    code = cubin(text)
    assert "call" not in re.sub(r"\.callseq.*", "", text)
    assert code.spilled == 0
    assert re.search(r"ld\.global\.v4\.f32", text)
    if name in ("softsign", "steps"):
        assert ".f64" not in text


def test_a_function_with_a_loop_says_that_it_has_no_code_for_a_gpu() -> None:
    x = K.placeholder((None,))
    root = custom.elementwise(newton, gradient=lambda x: 0.5 / math.sqrt(x))
    with pytest.raises(DeviceError, match=r"newton is a function of your own with a loop or a table, .* for a GPU"):
        assembled(K.function([x], [root(x)]), np.ones(3, "f"))


# Loops of users.


def test_loops_of_ones_own() -> None:
    x, rate = K.placeholder((None, 40)), K.placeholder(())
    values = RNG.uniform(0, 1, (7, 40)).astype(np.float32)
    agree(K.function([x], [custom.op(running_max)(x), custom.op(histogram)(x, bins=7)]), values)
    agree(K.function([x, rate], [custom.op(decayed_sum)(x, rate, reverse=True)]), values, np.float32(0.5))


class products:
    """x · y, as loops."""

    def infer(x, y):
        return x.with_shape((x.shape[0], y.shape[1]))

    def reference(x, y):
        return x @ y

    def kernel(k, x, y, out):
        with k.grid(x.shape[0], y.shape[1]) as (i, j):
            total = k.accumulator("add")
            with k.loop(x.shape[1]) as s:
                total.add(x[i, s] * y[s, j])
            out[i, j] = total.value

    gradient = custom.NoGradient("it is not needed")
    samples = (custom.sample("f32[3,5]", "f32[5,4]"),)


def test_a_product_that_a_user_wrote_runs_in_tiles() -> None:
    x, y = K.placeholder((None, 33)), K.placeholder((33, 20))
    function = K.function([x, y], [custom.op(products)(x, y)])
    values = RNG.normal(size=(70, 33)).astype(np.float32), RNG.normal(size=(33, 20)).astype(np.float32)
    agree(function, *values, tolerance=1e-4)
    (source,) = assembled(function, *values).sources.values()
    assert source.schedule.startswith("tiles of 64 by 64")
