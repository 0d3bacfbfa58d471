"""What programs run on here."""

from __future__ import annotations


def devices() -> str:
    """The processor with its vectors and threads; the GPU, and what is missing for one."""
    from tensorc.codegen.cpu.target import Target
    from tensorc.runtime.devices import compiler, gpus
    from tensorc.runtime.threads import num_threads

    target = Target.host()
    threads = num_threads()
    cpu = (f"{target.cpu} ({target.architecture}), vectors of {target.bits} bits, "
           f"{threads} thread{'s' if threads > 1 else ''}")
    return "\n".join([f"cpu   {cpu}", "cuda  " + "\n      ".join([*gpus(), compiler()])])
