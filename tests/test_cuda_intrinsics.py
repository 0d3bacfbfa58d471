"""The intrinsics of GPU kernels: their LLVM, compiled for this machine, does what their NumPy says."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
import pytest
from llvmlite import binding, ir

from tensorc.codegen.cpu.compile import compile_text
from tensorc.codegen.cpu.compile import load as load_image
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.cuda.intrinsics import BITS, INTRINSICS, REGISTERS, Intrinsic, llvm_type
from tensorc.codegen.cuda.scalars import RECIPES
from tensorc.codegen.scalars import SCALARS
from tensorc.ir.types import DType, boolean, i32, i64


def signatures(each: Intrinsic) -> list[tuple[DType, ...]]:
    """The dtypes an intrinsic takes."""
    if each.name.startswith("philox"):
        return [(i64, i64, i64, i32)]
    return [given for given in itertools.product(REGISTERS, repeat=each.arity) if each.result(given) is not None]


def numbers(dtype: DType, count: int) -> Any:
    """Numbers of a dtype, its extremes among them."""
    rng = np.random.default_rng(count)
    if dtype.is_bool:
        return rng.random(count) < 0.5
    if dtype is BITS:
        return rng.integers(0, 1 << 16, count).astype(np.uint16)
    if dtype.is_float:
        hard = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e10, -1e10, 127.5, -128.5, 2.0**31, 2.0**63, -(2.0**63)])
        found = np.where(rng.random(count) < 0.6, rng.choice(hard, count), rng.normal(size=count) * 99)
        return found.astype(dtype.numpy)
    limits = np.iinfo(dtype.numpy)
    hard = np.array([limits.min, limits.max, 0, 1, 2, 7], dtype.numpy)
    small = rng.integers(max(limits.min, -9), 9, count).astype(dtype.numpy)
    return np.where(rng.random(count) < 0.4, rng.choice(hard, count), small)


def compiled(each: Intrinsic, dtypes: tuple[DType, ...]) -> Any:
    """The intrinsic over arrays, as a function of addresses."""
    result = each.result(dtypes)
    assert result is not None
    module = ir.Module()
    byte = ir.IntType(8)
    memory = [byte if d.is_bool else llvm_type(d) for d in (*dtypes, result)]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.PointerType(m) for m in memory]), "apply")
    b = ir.IRBuilder(function.append_basic_block())
    loaded = [b.load(a) for a in function.args[:-1]]
    values = [b.trunc(v, ir.IntType(1)) if d.is_bool else v for v, d in zip(loaded, dtypes, strict=True)]
    found = each.build(b, dtypes, values)
    b.store(b.zext(found, byte) if result.is_bool else found, function.args[-1])
    b.ret_void()
    text = "\n".join(line for line in str(module).splitlines() if not line.startswith("target"))
    image = compile_text(str(binding.parse_assembly(text)), Target.host()).image
    library = load_image(image, ["apply"])
    call = library.function("apply", None, *[ctypes.c_void_p] * len(memory))
    return lambda *arrays: call(*(a.ctypes.data for a in arrays))


@pytest.mark.parametrize("each", INTRINSICS.values(), ids=lambda each: each.name)
def test_llvm_agrees_with_numpy(each: Intrinsic) -> None:
    assert signatures(each)
    for dtypes in signatures(each):
        run = compiled(each, dtypes)
        columns = [numbers(d, 60 + k) [:60] for k, d in enumerate(dtypes)]
        if each.name in ("quo", "rem"):
            columns = [np.abs(columns[0] // 2), np.abs(columns[1] // 2) + 1]
        if each.name.startswith("philox"):
            columns[-1] = np.arange(60, dtype=np.int32) % (4 if each.name.endswith("32") else 2)
        with np.errstate(all="ignore"):
            want = np.asarray(each.numpy(*columns))
        result = each.result(dtypes)
        assert result is not None
        got = np.empty(60, result.numpy)
        for k in range(60):
            run(*(c[k:k + 1].copy() for c in columns), cell := np.empty(1, result.numpy))
            got[k] = cell[0]
        np.testing.assert_array_equal(got, want.astype(result.numpy), err_msg=f"{each.name} of {dtypes}")


def test_every_scalar_function_has_a_recipe() -> None:
    assert {name for name, s in SCALARS.items() if s.source is None} == RECIPES.keys()
    assert INTRINSICS["maximum"].result((boolean, boolean)) is boolean
