"""Which device programs run on: asked for in the environment, in a `with`, or for a function; and what there is.

A GPU that is asked for and is not there is an error, with what was found and what is missing: nothing runs elsewhere
than where it was told to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tensorc import settings
from tensorc.errors import ArgumentError, DeviceError

DEVICES = ("cpu", "cuda")
_current: ContextVar[str | None] = ContextVar("device", default=None)


@contextmanager
def device(name: str) -> Iterator[None]:
    """Functions that are made inside the `with` run on this device, `cpu` or `cuda`.

    Raises: ArgumentError for another name, DeviceError for a device that nothing runs on.
    """
    before = _current.set(chosen(name, "tensorc.device"))
    try:
        yield
    finally:
        _current.reset(before)


def chosen(asked: str | None, by: str) -> str:
    """The device of a function: `asked` for by its maker, or by a `with`, or by TENSORC_DEVICE, else `cpu`.

    Raises: ArgumentError for an unknown name, DeviceError for a device that nothing runs on.
    """
    if asked is None:
        asked, by = _current.get(), "tensorc.device"
    if asked is None:
        asked, by = settings.DEVICE.text or "cpu", settings.DEVICE.name
    if asked not in DEVICES:
        raise ArgumentError(f"{by}: {asked!r} is no device; known are {', '.join(DEVICES)}")
    if asked == "cuda":
        need_gpu(by)
    return asked


def need_gpu(by: str) -> None:
    """Raises DeviceError where there is no GPU to run on, with what was found and what is missing."""
    try:
        from tensorc.runtime.cuda.device import device
        device()
    except DeviceError as error:
        found = [line for line in gpus() if line != str(error)]
        raise DeviceError(f"{by} asks for a GPU, but {error}\n  here: {'; '.join([*found, compiler()])}") from None


def gpus() -> list[str]:
    """A line for each GPU, or one that says why there is none."""
    from tensorc.runtime.cuda.driver import gpus

    try:
        return list(map(str, gpus())) or ["a driver is there, but no GPU"]
    except DeviceError as error:
        return [str(error)]


def libraries() -> str:
    """What does products and convolutions on a GPU, or what to install for that to be NVIDIA's libraries."""
    from tensorc.runtime.cuda.libraries.calls import INSTALL, missing

    lacking = missing()
    if lacking:
        return f"no libraries for products and convolutions, {', '.join(lacking)} missing: {INSTALL}"
    return "products by cuBLASLt, convolutions by cuDNN"


def compiler() -> str:
    """What makes machine code for a GPU here, or what to install for that."""
    from tensorc.codegen.cuda.compile import INSTALL, missing

    lacking = missing()
    if lacking:
        return f"no compiler for its kernels, {', '.join(lacking)} missing: {INSTALL}"
    from importlib.metadata import version

    return f"kernels are compiled by numba-cuda {version('numba-cuda')}, with or without a GPU"
