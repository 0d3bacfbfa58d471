"""Kernels for a GPU compiled to PTX and machine code, without one: what is in the text, how many registers it takes.

Without the packages of `tensorc[cuda]` these tests are skipped; the checks of .ci/run install them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from cuda_machine import planned
from loop_cases import CASES

from tensorc.codegen import loopir as ir
from tensorc.codegen.cuda.assemble import assemble
from tensorc.codegen.cuda.compile import CAPABILITIES, Cubin, cubin, missing, ptx
from tensorc.codegen.cuda.emit import emit
from tensorc.codegen.cuda.schedule import Points, Rows, Tile, schedule
from tensorc.codegen.cuda.source import Source
from tensorc.codegen.transform import bake
from tensorc.errors import DeviceError
from tensorc.ir.parse import parse
from tensorc.ir.types import f64

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())}")


def corpus() -> Iterator[tuple[str, ir.Kernel]]:
    """The cases of the loop IR, in their first dtype, rows of 1024 where these make a difference."""
    for name, case in CASES.items():
        for number, k in enumerate(case.make(case.dtypes[0])):
            yield f"{name}_{number}" if number else name, k
            baked = bake(k, {"m": 1024})
            if "m" in k.sizes and schedule(baked) != schedule(k):
                yield f"{name}_1024", baked


KERNELS = dict(corpus())
ON_BOTH = ("softmax_1024", "flat_chain", "transpose", "argmax1", "column_add")


@functools.cache
def made(name: str, capability: tuple[int, int] = (9, 0)) -> tuple[Source, str, Cubin]:
    source = emit(KERNELS[name])
    text = ptx(source, capability)
    return source, text, cubin(text, capability)


def holds_f64(k: ir.Kernel) -> bool:
    return any(b.dtype is f64 for b in k.buffers) or any(e.dtype is f64 for e in ir.expressions(k.body))


@pytest.mark.parametrize("name", KERNELS)
def test_machine_code(name: str) -> None:
    """Nothing spills or is indexed in memory of a thread, and every block fits the registers there are."""
    source, text, code = made(name)
    assert code.code.startswith(b"\x7fELF")
    assert code.spilled == 0
    assert ".local" not in text, "registers are indexed by a variable"
    assert 0 < code.registers * source.threads <= 65536
    assert code.registers <= 64
    assert holds_f64(KERNELS[name]) or ".f64" not in text, "float64 in a kernel of float32"


@pytest.mark.parametrize("name", ON_BOTH)
@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
def test_capabilities(name: str, capability: tuple[int, int]) -> None:
    _, text, code = made(name, capability)
    assert f".target sm_{capability[0]}{capability[1]}" in text
    assert code.spilled == 0


@pytest.mark.parametrize(
    ("name", "how", "loads", "stores"),
    [
        ("flat_chain", Points, 6, 2),          # three operands, two vectors of each
        ("updated", Points, 4, 2),
        ("softmax_1024", Rows, 3, 2),
        ("row_add_1024", Rows, 1, 0),
        ("chain_1024", Points, 2, 1),
    ],
)
def test_wide_accesses(name: str, how: type, loads: int, stores: int) -> None:
    source, text, _ = made(name)
    assert isinstance(schedule(KERNELS[name]), how)
    assert len(re.findall(r"ld\.global\.v4\.(f32|b32|u32)", text)) >= loads, source.text
    assert len(re.findall(r"st\.global\.v4\.(f32|b32|u32)", text)) >= stores, source.text


@pytest.mark.parametrize("name", ["row_add_1024", "transpose", "flat_chain"])
def test_indices_of_64_bits(name: str) -> None:
    """The same text once more: sizes are passed as 64 bits, and offsets are computed so."""
    source, narrow, _ = made(name)
    text = ptx(replace(source, wide=True))
    code = cubin(text)
    assert len(re.findall(r"\.param \.u64", text)) > len(re.findall(r"\.param \.u64", narrow))
    assert ".param .u32" in narrow
    assert ".param .u32" not in text
    assert re.search(r"mul\.lo\.s64|mad\.lo\.s64|shl\.b64", text)
    assert code.spilled == 0
    assert code.registers * source.threads <= 65536


def test_a_transpose_goes_through_shared_memory() -> None:
    source, text, code = made("transpose")
    assert isinstance(schedule(KERNELS["transpose"]), Tile)
    assert code.shared == 4 * 32 * 33
    assert "bar.sync" in text
    assert source.threads == 256


ROWS = {
    "softmax": """
        graph softmax(x: f32[n,1024])
          %0 = softmax(x) {axis=1}
          return %0
    """,
    "layer_normalisation": """
        graph normalised(x: f32[n,1024])
          %0 = mean(x) {axes=[1], keepdims=true}
          %1 = variance(x) {axes=[1], keepdims=true}
          %2 = sub(x, %0)
          %3 = rsqrt(%1)
          %4 = mul(%2, %3)
          return %4
    """,
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_known_length_is_read_once(name: str) -> None:
    """The loops go through a row three times; it stays in registers in between."""
    (graph,) = parse(ROWS[name])
    (source,) = assemble(planned(graph)).sources.values()
    text = ptx(source)
    code = cubin(text)
    assert len(re.findall(r"ld\.global", text)) == 1024 // (4 * source.threads)
    assert len(re.findall(r"ld\.global\.v4", text)) == 1024 // (4 * source.threads)
    assert code.spilled == 0


def test_a_sum_of_unknown_length_is_read_in_vectors() -> None:
    """As far as they are full; the rest of the last one is read element by element."""
    (graph,) = parse("graph total(x: f32[n,10])\n  %0 = sum(x) {axes=[0,1], keepdims=false}\n  return %0\n")
    for source in assemble(planned(graph)).sources.values():
        assert "over r2×4" in source.schedule
        text = ptx(source)
        assert re.search(r"ld\.global\.v4\.f32", text)
        assert re.search(r"ld\.global\.f32", text)


PRODUCTS = {
    "product": """
        graph product(x: f32[n,k], w: f32[k,m], b: f32[m])
          %0 = matmul(x, w) {transpose_a=false, transpose_b=false}
          %1 = add(%0, b)
          %2 = maximum(%1, 0.0:f32)
          return %2
    """,
    "narrow_product": """
        graph narrow(x: f32[n,256], w: f32[256,10])
          %0 = matmul(x, w) {transpose_a=false, transpose_b=false}
          return %0
    """,
    "convolution": """
        graph convolution(x: f32[n,28,28,16], w: f32[3,3,16,32])
          %0 = conv(x, w) {strides=[1,1], dilations=[1,1], low=[1,1], shape=[28,28], groups=1}
          return %0
    """,
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_tiles_of_products_stay_in_registers(name: str) -> None:
    (graph,) = parse(PRODUCTS[name])
    (source,) = assemble(planned(graph)).sources.values()
    text = ptx(source)
    code = cubin(text)
    assert "tiles of" in source.schedule
    assert code.spilled == 0
    assert ".local" not in text
    assert code.registers <= 128
    assert 0 < code.shared <= 48 << 10
    assert ".f64" not in text


@pytest.mark.parametrize("wide", [False, True])
def test_parameters_are_as_the_host_packs_them(wide: bool) -> None:
    """An address of 8 bytes for each buffer, then 4 or 8 bytes for each size, as the driver finds in the code."""
    source = replace(emit(KERNELS["softmax"]), wide=wide)
    declared = re.findall(r"\.param \.(\w+)", ptx(source).partition(")")[0])
    assert declared == ["u64"] * len(source.buffers) + ["u64" if wide else "u32"] * len(source.sizes)
    assert source.sizes


def test_a_gpu_that_the_compiler_does_not_know_is_named() -> None:
    text = made("argmax1")[1]
    with pytest.raises(DeviceError, match=r"nvJitLink makes no code for compute capability 99\.0: "):
        cubin(text, (99, 0))
