"""Programs with loops take numbers too small to be normal for zeros, as Keras' other backends do in all.

A state or a gradient that fades from step to step passes through them on its way to zero, and processors need over a
hundred cycles for each: two hundred steps of an LSTM's training took seven times as long as two of a hundred.

    i64 tc_flush_denormals()        from now on, in this thread; returns the mode before
    void tc_set_float_mode(i64)     the mode again

The mode is part of a job, so that all threads compute alike.
"""

from __future__ import annotations

from tensorc.codegen.cpu.target import Target

EXPORTS = ("tc_flush_denormals", "tc_set_float_mode")

DECLARATIONS = """declare i64 @tc_flush_denormals()
declare void @tc_set_float_mode(i64)
"""


def emit_float_mode(target: Target) -> str:
    """The LLVM IR of EXPORTS and of `i64 float_mode()`; where the mode is not known how to set, it stays as it is."""
    return MODES.get(target.architecture, NO_MODE) + FLUSH.format(bits=FLUSHING.get(target.architecture, 0))


FLUSHING = {"x86_64": 0x8040, "aarch64": 1 << 24}
"""The bits that flush results, on x86 operands too."""

MODES = {
    "x86_64": """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)

define internal i64 @float_mode() {
  %place = alloca i32, align 4
  call void @llvm.x86.sse.stmxcsr(ptr %place)
  %narrow = load i32, ptr %place, align 4
  %mode = zext i32 %narrow to i64
  ret i64 %mode
}

define void @tc_set_float_mode(i64 %mode) {
  %place = alloca i32, align 4
  %narrow = trunc i64 %mode to i32
  store i32 %narrow, ptr %place, align 4
  call void @llvm.x86.sse.ldmxcsr(ptr %place)
  ret void
}
""",
    "aarch64": """
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)

define internal i64 @float_mode() {
  %mode = call i64 @llvm.aarch64.get.fpcr()
  ret i64 %mode
}

define void @tc_set_float_mode(i64 %mode) {
  call void @llvm.aarch64.set.fpcr(i64 %mode)
  ret void
}
""",
}

NO_MODE = """
define internal i64 @float_mode() {
  ret i64 0
}

define void @tc_set_float_mode(i64 %mode) {
  ret void
}
"""

FLUSH = """
define i64 @tc_flush_denormals() {{
  %before = call i64 @float_mode()
  %flushing = or i64 %before, {bits}
  call void @tc_set_float_mode(i64 %flushing)
  ret i64 %before
}}
"""
