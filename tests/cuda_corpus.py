"""Every kernel of the test corpus as PTX and machine code for each capability, and what must hold of them.

    pytest -n auto tests/cuda_corpus.py

The corpus is every operation's samples, with sizes known and unknown, their gradients, and the whole programs that
other tests run: some 1,900 kernels.  That takes minutes, so these tests run where they are named, as .ci/run does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest
from cuda_machine import planned
from test_cuda_programs import PROGRAMS, SEEDS, grown
from test_cuda_registry import LENGTHY, of_gradients, of_known, of_unknown
from test_registry import COMPUTING, DIFFERENTIABLE

from tensorc.codegen.cuda.assemble import assemble
from tensorc.codegen.cuda.compile import CAPABILITIES, Cubin, cubin, missing, ptx
from tensorc.codegen.cuda.source import Source
from tensorc.codegen.cuda.text import spelled
from tensorc.ir.node import Op
from tensorc.ir.types import f64

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())}")

REGISTERS, SHARED = 64 << 10, 48 << 10
"""What the blocks of a multiprocessor have together; the bytes of shared memory that one block has without asking."""

BLOCKS = {"elementwise": 3, "loops": 2, "rows": 1, "transposes": 4, "products": 2}
"""How many blocks there must be registers for at a time, by kind of kernel.  Those of rows have up to 1024 threads."""

TABLES = re.compile(r"libdevice\.(sin|cos)f?\(")
"""Functions of libdevice that keep a table in local memory and have steps in float64, for arguments above 10^5."""

EMPTY = "range(I(0), I(0), I(1))"
"""The head of a loop over nothing, of whose accesses nothing is left."""


def kind(source: Source) -> str:
    """What a kernel is, of those that BLOCKS names."""
    if source.schedule.startswith("tiles"):
        return "transposes" if "shared memory" in source.schedule else "products"
    if "for each point" in source.schedule:
        return "rows"
    return "loops" if re.search(r"for \w+ in range\(I\(", source.text) else "elementwise"


def faults(source: Source, text: str, code: Cubin, capability: tuple[int, int]) -> Iterator[str]:
    """What is wrong with a kernel's code."""
    if f".target sm_{capability[0]}{capability[1]}" not in text or not code.code.startswith(b"\x7fELF"):
        yield "it is no code for this capability"
    if code.spilled:
        yield f"{code.spilled} bytes are spilled"
    if ".local" in text and not TABLES.search(source.text):
        yield "registers are indexed by a variable"
    if ".f64" in text and not knows_f64(source) and not TABLES.search(source.text):
        yield "float64 in a kernel of other numbers"
    fits = REGISTERS // (-(-code.registers // 8) * 8 * source.threads)
    if fits < BLOCKS[kind(source)]:
        yield f"{code.registers} registers: a multiprocessor takes {fits} blocks"
    if code.shared > SHARED:
        yield f"{code.shared} bytes of shared memory"
    if EMPTY not in source.text:
        yield from narrow_accesses(source, text)


def knows_f64(source: Source) -> bool:
    """Whether float64 is meant."""
    return f64 in source.dtypes or re.search(r"float64|_f64|uniform64", source.text) is not None


def narrow_accesses(source: Source, text: str) -> Iterator[str]:
    """The vectors of the schedule that the code does not move with one instruction each."""
    sizes = dict(zip(map(spelled, source.buffers), (d.size for d in source.dtypes), strict=True))
    wanted: Counter[tuple[str, int]] = Counter()
    for what, width, buffer in re.findall(r"\b(load|store)(\d)(?:_below)?\((\w+),", source.text):
        wanted[what, int(width) * sizes[buffer]] += 1
    found: Counter[tuple[str, int]] = Counter()
    for what, width, bits in re.findall(r"\b(ld|st)\.global(?:\.nc)?(?:\.v(\d))?\.[busf](\d+)", text):
        found["load" if what == "ld" else "store", int(width or 1) * int(bits) // 8] += 1
    for (what, size), count in wanted.items():
        if found[what, size] < count:
            yield f"{count} {what}s of {size} bytes are meant, there are {found[what, size]}"


def check(sources: Iterable[Source]) -> None:
    told = []
    for source in sources:
        for capability in CAPABILITIES:
            text = ptx(source, capability)
            told += [f"{source}sm_{capability}: {fault}"
                     for fault in faults(source, text, cubin(text, capability), capability)]
    assert not told, "\n\n".join(told)


@pytest.mark.parametrize("op", COMPUTING, ids=lambda op: op.name)
def test_values(op: Op) -> None:
    check(of_known(op).assembly.sources.values())


@pytest.mark.parametrize("op", [op for op in COMPUTING if not op.name.startswith(LENGTHY)], ids=lambda op: op.name)
def test_values_for_unknown_sizes(op: Op) -> None:
    check(of_unknown(op).assembly.sources.values())


@pytest.mark.parametrize("op", [op for op in DIFFERENTIABLE if op.name != "windows"], ids=lambda op: op.name)
def test_gradients(op: Op) -> None:
    check(of_gradients(op).assembly.sources.values())


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    function, *inputs = PROGRAMS[name]()
    check(assemble(planned(function.compiled.apart(inputs).graph)).sources.values())


@pytest.mark.parametrize("seeds", SEEDS, ids=str)
def test_grown_graphs(seeds: range) -> None:
    for seed in seeds:
        check(assemble(planned(grown(seed)[1])).sources.values())
