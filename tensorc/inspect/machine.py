"""What programs run on here."""

from __future__ import annotations


def devices() -> str:
    """The processor with its vectors and threads; the GPU, and what is missing for one."""
    from tensorc.codegen.cpu.target import Target
    from tensorc.ir.text import several
    from tensorc.runtime.devices import compiler, gpus, libraries
    from tensorc.runtime.threads import num_threads

    target = Target.host()
    cpu = f"{target.cpu} ({target.architecture}), vectors of {target.bits} bits, {several(num_threads(), 'thread')}"
    return "\n".join([f"cpu   {cpu}", "cuda  " + "\n      ".join([*gpus(), compiler(), libraries()])])
