"""Measures tensorc on an NVIDIA GPU, in less than ten minutes; torch and jax beside it where they are installed.

    pip install 'tensorc[cuda]'                   # or 'tensorc[cuda-libraries]', for cuBLASLt and cuDNN
    python benchmarks/gpu.py --out gpu.json       # a table, and the same with versions and date as JSON
    python benchmarks/gpu.py --only memory,launches --budget 60

Everything stays on the device while it is timed.  A time is the least of several turns of the wall clock over many
calls in a row, all of them finished, so it holds what the host adds.  A part that fails, or whose share of the time is
spent, leaves the others alone.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from gpu_training import STEPS  # noqa: E402

from tensorc import backend as K  # noqa: E402
from tensorc.errors import DeviceError  # noqa: E402

PACKAGES = ("tensorc", "numpy", "numba", "numba-cuda", "nvidia-nvvm", "nvmath-python", "nvidia-cublas",
            "nvidia-cudnn-frontend", "nvidia-cudnn-cu13", "torch", "jax")
Row = dict[str, Any]


class Bench:
    """What the parts share.

    Attributes:
        tiny: whether sizes are so small that the numbers mean nothing.
        copied: bytes a second that a copy on the device moves, read and written; NaN before that is known.
    """

    def __init__(self, tiny: bool) -> None:
        from tensorc.runtime.cuda.device import device

        self.on, self.tiny = device(), tiny
        self.copied = float("nan")
        self.elements = 1 << (10 if tiny else 26)

    def synchronise(self) -> None:
        with self.on.current() as cu:
            cu.cuCtxSynchronize()

    def seconds(self, call: Callable[[], Any], done: Callable[[], Any] | None = None) -> float:
        """Seconds a call takes, in a row of calls that take about 50 ms together."""
        done = done or self.synchronise
        for _ in range(1 if self.tiny else 3):
            call()
        done()
        start = time.perf_counter()
        call()
        done()
        once = max(time.perf_counter() - start, 1e-6)
        count, best = 1 if self.tiny else max(3, min(2000, round(0.05 / once))), float("inf")
        for _ in range(1 if self.tiny else 5):
            start = time.perf_counter()
            for _ in range(count):
                call()
            done()
            best = min(best, (time.perf_counter() - start) / count)
        return best

    def normal(self, *shape: int, dtype: str = "float32") -> Any:
        """Random numbers, made on the device."""
        drawn = K.cast(K.random_normal(shape, seed=7), dtype)
        return K.function([], [drawn], device="cuda", device_outputs=True)([])[0]

    def function(self, arrays: Sequence[Any], build: Callable[..., Any], name: str) -> Callable[[], Any]:
        """A call of an expression over arrays that are there already."""
        symbols = [K.placeholder(shape=a.shape, dtype=str(a.dtype)) for a in arrays]
        built = build(*symbols)
        outputs = list(built) if isinstance(built, list | tuple) else [built]
        function = K.function(symbols, outputs, name=name, device="cuda", device_outputs=True)
        values = list(arrays)
        return lambda: function(values)

    def torch(self) -> Any:
        """PyTorch where it is installed and sees the device, without TF32; else None."""
        try:
            import torch
        except ImportError:
            return None
        if not torch.cuda.is_available():
            return None
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        return torch


@contextmanager
def setting(name: str, value: str) -> Iterator[None]:
    """A variable of the environment within a block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


@contextmanager
def in_turn() -> Iterator[None]:
    """Graphs that are recorded within the block do one thing after the other."""
    from tensorc.runtime.cuda.binding import CudaBinding

    CudaBinding.in_turn = True
    try:
        yield
    finally:
        CudaBinding.in_turn = False


# -- the parts


def copy(b: Bench) -> Iterator[Row]:
    """What the device's memory gives a plain copy: what others are measured by."""
    size = b.elements * 4
    with b.on.current() as cu, b.on.lanes.lent() as lane:
        source, target = b.on.memory.take(size, lane), b.on.memory.take(size, lane)
        took = b.seconds(lambda: cu.cuMemcpyDtoDAsync_v2(target.address, source.address, size, lane.stream))
    b.copied = 2 * size / took
    yield {"name": f"copy of {size >> 20} MB", "seconds": took, "bytes": 2 * size}


def layer_norm(x: Any, g: Any, b: Any) -> Any:
    centred = x - K.mean(x, axis=1, keepdims=True)
    return centred / K.sqrt(K.mean(K.square(centred), axis=1, keepdims=True) + 1e-3) * g + b


def memory(b: Bench) -> Iterator[Row]:
    """What ought to take as long as its memory is moved."""
    n = b.elements
    flat = b.normal(n), b.normal(n)
    wide = 16 if b.tiny else 1024
    work: list[tuple[str, tuple[Any, ...], Callable[..., Any], float]] = [
        ("relu(x)", flat[:1], K.relu, 8 * n),
        ("tanh(x·y + 1)", flat, lambda x, y: K.tanh(x * y + 1), 12 * n),
        ("chain of 10 operations", flat,
         lambda x, y: K.abs(x * y + 2 * x - 3 * y) * 0.5 + K.maximum(x, y) - x * x, 12 * n),
        ("sum of all", flat[:1], K.sum, 4 * n),
    ]
    for columns in (wide, 4 * wide):
        x = b.normal(n // columns, columns)
        row = b.normal(columns)
        work += [
            (f"softmax, rows of {columns}", (x,), K.softmax, 8 * n),
            (f"layer normalisation, rows of {columns}", (x, row, row), layer_norm, 8 * n),
            (f"sums of rows of {columns}", (x,), lambda x: K.sum(x, axis=1), 4 * n),
            (f"sums of columns, {columns} of them", (x,), lambda x: K.sum(x, axis=0), 4 * n),
            (f"transpose, rows of {columns}", (x,), K.transpose, 8 * n),
        ]
    images = b.normal(n // (64 * 16), 64, 4, 4)
    work.append(("channels first to last, 64", (images,), lambda x: K.permute_dimensions(x, (0, 2, 3, 1)), 8 * n))
    for name, arrays, build, moved in work:
        yield {"name": name, "seconds": b.seconds(b.function(arrays, build, "memory")), "bytes": moved}


def products(b: Bench) -> Iterator[Row]:
    """Matrix products by a library, by our kernels and by torch."""
    large, batch = (16, 2) if b.tiny else (4096, 64)
    forms: list[tuple[str, tuple[tuple[int, ...], ...], Callable[..., Any], Callable[..., Any], float]] = [
        (f"{large}³", ((large, large), (large, large)), K.dot, lambda t, x, w: x @ w, 2 * large**3),
        (f"{large}³, left operand transposed", ((large, large), (large, large)),
         lambda x, w: K.dot(K.transpose(x), w), lambda t, x, w: x.T @ w, 2 * large**3),
        ("dense layer of relu, 128 × 784 × 512", ((128, 784), (784, 512), (512,)),
         lambda x, w, c: K.relu(K.dot(x, w) + c), lambda t, x, w, c: t.relu(t.addmm(c, x, w)), 2 * 128 * 784 * 512),
        (f"batch of {batch}, {large // 8}³", ((batch, large // 8, large // 8),) * 2, K.batch_dot,
         lambda t, x, w: x @ w, 2 * batch * (large // 8)**3),
    ]
    if b.tiny:
        forms = forms[:2]
    for dtype in ("float32", "float16", "bfloat16"):
        for name, shapes, build, other, flops in forms:
            arrays = [b.normal(*shape, dtype=dtype) for shape in shapes]
            yield {"name": f"{dtype} {name}", "flops": flops, **by_each_way(b, arrays, build, other)}


def convolutions(b: Bench) -> Iterator[Row]:
    """Convolutions and their gradients, the same three ways."""
    n, side, channels = (1, 4, 8) if b.tiny else (32, 56, 64)

    def gradient(of: int) -> Callable[..., Any]:
        return lambda x, w, g: K.gradients(K.sum(K.conv2d(x, w, padding="same") * g), [(x, w)[of]])

    def torch_gradient(of: int) -> Callable[..., Any]:
        def call(t: Any, x: Any, w: Any, g: Any) -> Any:
            make = t.nn.grad.conv2d_input if of == 0 else t.nn.grad.conv2d_weight
            return make(x.shape, w, g, padding=1) if of == 0 else make(x, w.shape, g, padding=1)
        return call

    flops = 2 * n * side**2 * channels**2 * 9
    for dtype in ("float32", "float16", "bfloat16"):
        x, g = (b.normal(n, side, side, channels, dtype=dtype) for _ in range(2))
        w = b.normal(3, 3, channels, channels, dtype=dtype)
        for name, arrays, build, other in (
            ("forward", (x, w), lambda x, w: K.conv2d(x, w, padding="same"),
             lambda t, x, w: t.nn.functional.conv2d(x, w, padding=1)),
            ("input gradient", (x, w, g), gradient(0), torch_gradient(0)),
            ("weight gradient", (x, w, g), gradient(1), torch_gradient(1)),
        ):
            yield {"name": f"{dtype} 3×3 {name}, {n} × {side}² × {channels}", "flops": flops,
                   **by_each_way(b, arrays, build, other, images=True)}


def by_each_way(b: Bench, arrays: Sequence[Any], build: Callable[..., Any], other: Callable[..., Any],
                images: bool = False) -> Row:
    """Seconds of a product: as tensorc does it here, by our kernels alone, with TF32, by torch."""
    from tensorc.runtime.cuda.libraries.calls import are_wanted

    row: Row = {"seconds": b.seconds(b.function(arrays, build, "product"))}
    if are_wanted():
        with setting("TENSORC_CUDA_LIBRARIES", "0"):
            row["our kernel"] = b.seconds(b.function(arrays, build, "product"))
        if str(arrays[0].dtype) == "float32":
            with setting("TENSORC_TF32", "1"):
                row["with TF32"] = b.seconds(b.function(arrays, build, "product"))
    if (torch := b.torch()) is not None:
        tensors = [torch.from_dlpack(a) for a in arrays]
        if images:         # [n, h, w, c] to torch's [n, c, h, w] over the same memory; weights to [co, ci, h, w]
            order = {4: (0, 3, 1, 2)}
            tensors = [t.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last) if i == 1
                       else t.permute(order[t.ndim]) for i, t in enumerate(tensors)]
        row["torch"] = b.seconds(lambda: other(torch, *tensors), torch.cuda.synchronize)
    return row


def training(b: Bench) -> Iterator[Row]:
    """Steps of training, whose parameters stay on the device."""
    for step in STEPS:
        sizes = step.tiny if b.tiny else step.sizes
        row: Row = {"name": f"{step.name}, {sizes}", "seconds": b.seconds(step.tensorc(b, sizes))}
        with in_turn():
            row["one launch after the other"] = b.seconds(step.tensorc(b, sizes))
        if (torch := b.torch()) is not None:
            for name, compiled in (("torch", False), ("torch.compile", True)):
                row[name] = tried(b, partial(with_torch, torch, step, sizes, compiled))
        if importlib.util.find_spec("jax") is not None:
            row["jax"] = tried(b, partial(step.jax, sizes))
        yield row


Step = tuple[Callable[[], Any], Callable[[], Any]]
"""A step, and what waits for the last one."""


def with_torch(torch: Any, step: Any, sizes: tuple[int, ...], compiled: bool) -> Step:
    return step.torch(torch, sizes, compiled), torch.cuda.synchronize


def tried(b: Bench, make: Callable[[], Step]) -> float | str:
    """Seconds of a step, or why it failed."""
    try:
        return b.seconds(*make())
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"


def launches(b: Bench) -> Iterator[Row]:
    """What the host adds: a small kernel alone, and many that follow one another, as graphs and one by one."""
    from tensorc.runtime.cuda import binding

    steps, rows = (4, 3) if b.tiny else (200, 8)
    x = b.normal(rows, 32)
    w = K.variable(np.eye(32, dtype=np.float32))

    def many(x: Any) -> Any:
        for _ in range(steps):
            x = K.cumsum(K.dot(x, w), axis=1)       # two kernels that cannot be one
        return x

    alone = b.seconds(b.function([x], lambda x: x * 2 + 1, "one"))
    yield {"name": "a call of one small kernel, as a graph", "seconds": alone}
    took = b.seconds(b.function([x], many, "many"))
    yield {"name": f"{2 * steps} small kernels as a graph, each", "seconds": took / (2 * steps)}
    before = binding.can_be_recorded
    binding.can_be_recorded = lambda *_: False  # type: ignore[assignment]
    try:
        alone = b.seconds(b.function([x], lambda x: x * 2 + 1, "one"))
        yield {"name": "a call of one small kernel, without", "seconds": alone}
        took = b.seconds(b.function([x], many, "many"))
        yield {"name": f"{2 * steps} small kernels, launched one by one, each", "seconds": took / (2 * steps)}
    finally:
        binding.can_be_recorded = before


PARTS: dict[str, tuple[Callable[[Bench], Iterator[Row]], float]] = {
    "copy": (copy, 0.04), "memory": (memory, 0.22), "launches": (launches, 0.08), "products": (products, 0.2),
    "convolutions": (convolutions, 0.2), "training": (training, 0.26),
}
"""Each part with its share of the time."""


# -- what is told


def about(b: Bench) -> Row:
    """The device, the driver, versions and the date."""
    from tensorc.runtime.cuda.driver import driver, number

    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    cuda = number(driver().cuDriverGetVersion)
    kernel = Path("/proc/driver/nvidia/version")
    return {
        "device": b.on.gpu.name, "capability": ".".join(map(str, b.on.gpu.capability)),
        "driver": kernel.read_text().splitlines()[0] if kernel.is_file() else None,
        "cuda of the driver": f"{cuda // 1000}.{cuda % 1000 // 10}",
        "python": platform.python_version(), "system": platform.platform(),
        "versions": {p: found for p in PACKAGES if (found := version(p))},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "tiny": b.tiny,
    }


def told(row: Row, copied: float) -> str:
    """A row of the table: microseconds, what that is of a copy's bandwidth or in TFLOP/s, and the others' times."""
    if "error" in row:
        return f"  {row['name']:48} {row['error']}"
    took = row["seconds"]
    cells = [f"{took * 1e6:11.1f} µs"]
    if "bytes" in row:
        cells.append(f"{row['bytes'] / took / 1e9:8.1f} GB/s {100 * row['bytes'] / took / copied:6.1f} % of a copy")
    if "flops" in row:
        cells.append(f"{row['flops'] / took / 1e12:8.2f} TFLOP/s")
    others = {k: v for k, v in row.items() if k not in ("name", "part", "seconds", "bytes", "flops")}
    cells += [f"{k} {v * 1e6:.1f} µs ({took / v:.2f})" if isinstance(v, float) else f"{k}: {v}"
              for k, v in others.items()]
    return f"  {row['name']:48} {'   '.join(cells)}"


def measured(b: Bench, names: Sequence[str], budget: float) -> Iterator[Row]:
    """Every row of the parts, an error in place of what failed."""
    total = sum(PARTS[name][1] for name in names)
    for name in names:
        part, share = PARTS[name]
        end = time.monotonic() + budget * share / total
        try:
            for row in part(b):
                yield {"part": name, **row}
                if time.monotonic() > end:
                    yield {"part": name, "name": "…", "error": "the time for this part is spent"}
                    break
        except Exception as error:
            traceback.print_exc(limit=-3)
            yield {"part": name, "name": "…", "error": f"{type(error).__name__}: {error}"}
        K.clear_session()


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--budget", type=float, default=480, help="seconds for all of it, 480 by default")
    parser.add_argument("--tiny", action="store_true", help="sizes that show only that it runs")
    options = parser.parse_args(arguments)
    try:
        b = Bench(options.tiny)
    except DeviceError as error:
        parser.exit(1, f"there is nothing to measure: {error}\n")
    facts = about(b)
    print("\n".join(f"{k}: {v}" for k, v in facts.items()), flush=True)
    rows: list[Row] = []
    for row in measured(b, options.only.split(","), options.budget):
        if not rows or rows[-1]["part"] != row["part"]:
            print(f"\n{row['part']}", flush=True)
        print(told(row, b.copied), flush=True)
        rows.append(row)
        if options.out is not None:         # after every row, so that a machine that goes away takes nothing along
            options.out.write_text(json.dumps({**facts, "copy": b.copied, "rows": rows}, indent=1), encoding="utf-8")
    return rows


if __name__ == "__main__":
    main()
