"""How long a deep network takes to compile and to load: residual blocks with batch normalisation, gradients and Adam.

    python benchmarks/compile_time.py                     # 50 layers: cold, with an empty store, and from the store
    python benchmarks/compile_time.py --layers 20 --stages

Each time is of a process of its own, wall seconds with processor seconds beside them: importing, building the graph
with its gradients, and the first step, which compiles or loads the program and runs it once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

WIDTHS = (16, 32, 64)


def step_of(layers: int) -> tuple[Any, list[Any]]:
    """A training step of a residual network of so many convolutions and a dense layer, and arrays for it."""
    import numpy as np

    from tensorc import backend as K

    rng = np.random.default_rng(0)
    weights: list[Any] = []

    def weight(*shape: int) -> Any:
        fan_in = int(np.prod(shape[:-1]))
        weights.append(K.variable(rng.normal(size=shape, scale=(2 / fan_in) ** 0.5).astype("float32")))
        return weights[-1]

    def normalised(h: Any, channels: int) -> Any:
        gamma, beta = K.ones((channels,)), K.zeros((channels,))
        weights.extend((gamma, beta))
        return K.normalize_batch_in_training(h, gamma, beta, [0, 1, 2])[0]

    def convolved(h: Any, before: int, after: int, stride: int = 1) -> Any:
        return normalised(K.conv2d(h, weight(3, 3, before, after), (stride, stride), "same"), after)

    x = K.placeholder(shape=(None, 32, 32, 3), name="x")
    y = K.placeholder(shape=(None,), dtype="int32", name="y")
    h, channels, left = K.relu(convolved(x, 3, WIDTHS[0])), WIDTHS[0], layers - 2
    blocks = left // 2
    for block in range(blocks):
        width = WIDTHS[block * len(WIDTHS) // blocks]
        stride = 1 if width == channels else 2
        inner = convolved(K.relu(convolved(h, channels, width, stride)), width, width)
        if stride == 2:
            h = K.conv2d(h, weight(1, 1, channels, width), (2, 2), "same")
        h, channels = K.relu(inner + h), width
    if left % 2:
        h = K.relu(convolved(h, channels, channels))
    logits = K.bias_add(K.dot(K.mean(h, axis=[1, 2]), weight(channels, 10)), weight(10))
    loss = K.mean(K.sparse_categorical_crossentropy(y, logits, from_logits=True))

    t = K.variable(0.0)
    now = t + 1
    rate = 1e-3 * K.sqrt(1 - K.pow(K.constant(0.999), now)) / (1 - K.pow(K.constant(0.9), now))
    updates = [(t, now)]
    for p, g in zip(weights, K.gradients(loss, weights), strict=True):
        m, v = K.zeros(K.int_shape(p)), K.zeros(K.int_shape(p))
        new_m, new_v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * K.square(g)
        updates += [(m, new_m), (v, new_v), (p, p - rate * new_m / (K.sqrt(new_v) + 1e-7))]
    step = K.function([x, y], [loss], updates=updates, name="step")
    arrays = [rng.normal(size=(4, 32, 32, 3)).astype("float32"), rng.integers(0, 10, 4).astype("int32")]
    return step, arrays


def once(layers: int, stages: bool) -> None:
    """One process's work, told on a line."""
    start = time.perf_counter()
    import tensorc.backend  # noqa: F401

    imported = time.perf_counter()
    step, arrays = step_of(layers)
    built = time.perf_counter()
    if stages:
        step = staged(step)
    step(arrays)
    ran = time.perf_counter()
    print(f"import {imported - start:.2f}  build {built - imported:.2f}  first step {ran - built:.2f}  "
          f"processor {time.process_time():.2f}")


def staged(step: Any) -> Any:
    """The step, having said how long each pass takes."""
    from tensorc.passes.manager import Context

    last = time.perf_counter()

    def observe(name: str, graph: Any) -> None:
        nonlocal last
        now = time.perf_counter()
        print(f"  {name:10} {now - last:6.2f} s  {len(graph.nodes)} nodes")
        last = now

    step.compiled.pipeline.run(step.compiled.graph, Context(observers=(observe,)))
    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=50)
    parser.add_argument("--stages", action="store_true", help="how long each pass takes, too")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        return once(options.layers, options.stages)
    with tempfile.TemporaryDirectory() as store:
        command = [sys.executable, __file__, "--once", "--layers", str(options.layers)]
        for title, more in (("cold", ["--stages"] if options.stages else []), ("warm", [])):
            print(f"{title}:")
            sys.stdout.flush()
            subprocess.run([*command, *more], check=True, env={**os.environ, "TENSORC_CACHE": store})
    return None


if __name__ == "__main__":
    main()
