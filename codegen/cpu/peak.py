"""A kernel that does nothing but multiply and add in registers: what a processor can do at most."""

from __future__ import annotations

from tensorc.codegen.cpu.target import Target
from tensorc.ir.types import DType, f64

UNITS = 64
"""Units of parallel work."""

STEPS = 1 << 14
"""Steps of a unit, in each of which every accumulator is multiplied and added to once."""


def operations(dtype: DType, target: Target) -> int:
    """What one run does, a multiply-add being two."""
    return 2 * UNITS * STEPS * _accumulators(target) * _lanes(dtype, target)


def multiply_adds(dtype: DType, target: Target) -> str:
    """The LLVM IR of the kernel `multiply_adds`, which writes a number to its one buffer so as to be needed.

    More accumulators than an instruction takes cycles, times the instructions begun in a cycle, keep all units busy.
    """
    kind = "double" if dtype is f64 else "float"
    vector = f"<{_lanes(dtype, target)} x {kind}>"
    names = [f"%a{i}" for i in range(_accumulators(target))]
    half = f"splat ({kind} 0.5)"

    lines = [
        "define internal void @multiply_adds(i64 %first, i64 %last, ptr %buffers, ptr %sizes) {",
        "entry:",
        "  %units = sub i64 %last, %first",
        f"  %steps = mul i64 %units, {STEPS}",
        "  br label %step",
        "step:",
        "  %i = phi i64 [ 0, %entry ], [ %next, %step ]",
    ]
    for i, a in enumerate(names):
        lines.append(f"  {a} = phi {vector} [ splat ({kind} {i}.0), %entry ], [ {a}_next, %step ]")
    for a in names:
        lines.append(f"  {a}_product = fmul contract {vector} {a}, {half}")
        lines.append(f"  {a}_next = fadd contract {vector} {a}_product, {half}")
    lines += [
        "  %next = add i64 %i, 1",
        "  %more = icmp slt i64 %next, %steps",
        "  br i1 %more, label %step, label %end",
        "end:",
        f"  %total0 = fadd {vector} %a0_next, zeroinitializer",
    ]
    lines += [f"  %total{i} = fadd {vector} %total{i - 1}, {a}_next" for i, a in enumerate(names) if i]
    lines += [
        f"  %sum = extractelement {vector} %total{len(names) - 1}, i64 0",
        "  %place = load ptr, ptr %buffers, align 8",
        f"  store volatile {kind} %sum, ptr %place, align 8",
        "  ret void",
        "}",
        f"define internal i64 @multiply_adds_units(ptr %sizes) alwaysinline {{ ret i64 {UNITS} }}",
        f"define internal i64 @multiply_adds_work(ptr %sizes) alwaysinline {{ ret i64 {operations(dtype, target)} }}",
    ]
    return "\n".join(lines) + "\n"


def _lanes(dtype: DType, target: Target) -> int:
    return target.bits // (8 * dtype.size)


def _accumulators(target: Target) -> int:
    return 12 if target.registers < 32 else 24
