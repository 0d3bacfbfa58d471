"""Times tensorc beside its peers: one process a peer, taking turns, so that a noisy machine is noisy for all.

    python benchmarks/run.py                                   # every workload, beside NumPy
    python benchmarks/run.py --peer jax=/path/to/python --peer torch=/path/to/python --only softmax_rows

`taskset -c 0` before it gives every peer one thread.

A cell is the median over rounds of each round's fastest call, in microseconds, and its ratio to the best peer.  The
first result of every peer is compared with NumPy's in float64.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from workloads import WORKLOADS, Arrays, Workload  # noqa: E402


def arrays_of(workload: Workload) -> Arrays:
    return workload.inputs(np.random.default_rng(zlib.crc32(workload.name.encode())))


def processors() -> int:
    """Processors that this process may run on, each of which every peer gives a thread."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def built(peer: str, workload: Workload) -> Callable[[], Any]:
    """One call of a workload in a peer's library, arrays where the library likes them."""
    arrays = arrays_of(workload)
    if peer == "numpy":
        return lambda: workload.numpy(np, **arrays)
    if peer == "jax":
        import jax

        assert workload.jax is not None
        compiled = jax.jit(lambda **a: workload.jax(jax.numpy, **a))  # type: ignore[misc]
        held = {k: jax.numpy.asarray(v) for k, v in arrays.items()}
        return lambda: compiled(**held).block_until_ready()
    if peer == "torch":
        import torch

        torch.set_num_threads(processors())
        tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
        return lambda: workload.torch(torch, **tensors)  # type: ignore[misc]
    from tensorc import backend as K

    symbols = {k: K.placeholder(shape=v.shape, dtype=str(v.dtype), name=k) for k, v in arrays.items()}
    function = K.function(list(symbols.values()), [workload.tensorc(K, **symbols)], name=workload.name)
    values = list(arrays.values())
    return lambda: function(values)[0]


def serve(peer: str) -> None:
    """A peer's process: a workload's name per line in, a line of JSON out; `time` repeats the last one built."""
    call: Callable[[], Any] = lambda: None  # noqa: E731
    for line in sys.stdin:
        name = line.strip()
        if name != "time":
            workload = WORKLOADS[name]
            if getattr(workload, peer) is None:
                print(json.dumps({"absent": True}), flush=True)
                continue
            call = built(peer, workload)
            wanted = workload.numpy(np, **{k: v.astype(np.float64) if v.dtype == np.float32 else v
                                           for k, v in arrays_of(workload).items()})
            start = time.perf_counter()
            got = np.asarray(call())
            first = time.perf_counter() - start
            error = float(np.max(np.abs(got - wanted) / (np.abs(wanted).max() + 1e-30))) if got.size else 0.0
            print(json.dumps({"first": first, "error": error}), flush=True)
            continue
        best, end = float("inf"), time.perf_counter() + 0.05
        while time.perf_counter() < end:
            start = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - start)
        print(json.dumps({"best": best}), flush=True)


class Peer:
    """A peer's process, asked by name."""

    def __init__(self, name: str, python: str) -> None:
        self.name = name
        self.process = subprocess.Popen([python, str(HERE / "run.py"), "--serve", name], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, what: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help="numpy, jax or torch")
    parser.add_argument("--only", default="", help="workloads, with commas between")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    named = dict(p.split("=", 1) for p in options.peer) or {"numpy": sys.executable}
    peers = [Peer(n, python) for n, python in {**named, "tensorc": sys.executable}.items()]
    print("| workload | " + " | ".join(p.name for p in peers) + " | to the best peer |")
    print("|---|" + "--:|" * (len(peers) + 1))
    for name in options.only.split(",") if options.only else WORKLOADS:
        there = [p for p in peers if (answer := p.ask(name)).get("error", 1.0) < 1e-4 or answer.get("first") is None]
        there = [p for p in there if getattr(WORKLOADS[name], p.name) is not None]
        times: dict[str, list[float]] = {p.name: [] for p in there}
        for turn in range(options.rounds):
            for p in there if turn % 2 else reversed(there):
                times[p.name].append(p.ask("time")["best"] * 1e6)
        medians = {n: statistics.median(t) for n, t in times.items()}
        best = min((t for n, t in medians.items() if n != "tensorc"), default=float("nan"))
        cells = [f"{medians[p.name]:.1f}" if p.name in medians else "—" for p in peers]
        ratio = f"{medians['tensorc'] / best:.2f}" if "tensorc" in medians else "wrong"
        print(f"| {name} | " + " | ".join(cells) + f" | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
