"""The workloads, each said once in the K API and once for every peer.

A workload takes named float32 (or int32) arrays and gives one result.  `numpy` is the meaning; the other peers are
optional.  Training steps keep their parameters on the peer's side: `build` returns a step without arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
WORKLOADS: dict[str, Workload] = {}


@dataclass(frozen=True)
class Workload:
    """A computation in several libraries' terms; each function takes the library's module and the arrays."""

    name: str
    group: str
    inputs: Callable[[np.random.Generator], Arrays]
    numpy: Callable[..., Any]
    tensorc: Callable[..., Any]
    jax: Callable[..., Any] | None = None
    torch: Callable[..., Any] | None = None
    bytes: float = 0.0                           # moved at the least, for GB/s
    flops: float = 0.0
    note: str = field(default="")


def add(name: str, group: str, inputs: Callable[[np.random.Generator], Arrays], **how: Any) -> None:
    WORKLOADS[name] = Workload(name, group, inputs, **how)


def normal(**shapes: tuple[int, ...]) -> Callable[[np.random.Generator], Arrays]:
    """Standard normal float32 arrays of these shapes."""
    return lambda r: {k: r.standard_normal(s, dtype=np.float32) for k, s in shapes.items()}


def chain(o: Any, x: Any, y: Any) -> Any:
    return o.abs(x * y + 2 * x - 3 * y) * 0.5 + o.maximum(x, y) - x * x


def transcendental(o: Any, x: Any) -> Any:
    a = o.abs(x)
    gelu = 0.5 * x * (1 + o.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))
    return gelu + o.tanh(x) / (1 + o.exp(-x)) + o.log(1 + o.exp(-a)) + (a + 0.5) ** 1.3


def softmax(np: Any, x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def logsumexp(np: Any, x: np.ndarray) -> np.ndarray:
    m = x.max(1, keepdims=True)
    return np.log(np.exp(x - m).sum(1)) + m[:, 0]


def layer_norm(o: Any, x: Any, g: Any, b: Any) -> Any:
    centred = x - o.mean(x, axis=1, keepdims=True)
    return centred / o.sqrt(o.mean(centred * centred, axis=1, keepdims=True) + 1e-3) * g + b


M = 1 << 20
ROWS = normal(x=(4096, 1024))

add("affine_8", "overhead", normal(x=(8,)), numpy=lambda np, x: x * 2 + 1, tensorc=lambda K, x: x * 2 + 1,
    jax=lambda jnp, x: x * 2 + 1, torch=lambda torch, x: x * 2 + 1)
add("chain_10m", "elementwise", normal(x=(10_000_000,), y=(10_000_000,)), numpy=chain, tensorc=chain, jax=chain,
    torch=chain, bytes=120e6, flops=110e6)
add("transcendental_4m", "elementwise", normal(x=(4_000_000,)), numpy=transcendental,
    tensorc=lambda K, x: (0.5 * x * (1 + K.tanh(0.7978845608 * (x + 0.044715 * x * x * x))) + K.tanh(x) * K.sigmoid(x)
                          + K.log(1 + K.exp(-K.abs(x))) + K.pow(K.abs(x) + 0.5, 1.3)),
    jax=transcendental, torch=transcendental, bytes=32e6)
add("bias_relu", "elementwise", normal(x=(32, 56, 56, 64), b=(64,)), numpy=lambda np, x, b: np.maximum(x + b, 0),
    tensorc=lambda K, x, b: K.relu(K.bias_add(x, b)), jax=lambda jnp, x, b: jnp.maximum(x + b, 0),
    torch=lambda torch, x, b: torch.relu(x + b), bytes=2 * 32 * 56 * 56 * 64 * 4)
add("sum_all", "reductions", normal(x=(4096, 4096)), numpy=lambda np, x: x.sum(), tensorc=lambda K, x: K.sum(x),
    jax=lambda jnp, x: x.sum(), torch=lambda torch, x: x.sum(), bytes=64 * M)
add("sum_axis1", "reductions", normal(x=(4096, 4096)), numpy=lambda np, x: x.sum(1),
    tensorc=lambda K, x: K.sum(x, axis=1), jax=lambda jnp, x: x.sum(1), torch=lambda torch, x: x.sum(1), bytes=64 * M)
add("softmax_rows", "reductions", ROWS, numpy=softmax, tensorc=lambda K, x: K.softmax(x),
    jax=lambda jnp, x: __import__("jax").nn.softmax(x), torch=lambda torch, x: torch.softmax(x, -1), bytes=32 * M)
add("logsumexp_axis1", "reductions", ROWS, numpy=logsumexp, tensorc=lambda K, x: K.logsumexp(x, axis=1),
    jax=lambda jnp, x: __import__("jax").nn.logsumexp(x, 1), torch=lambda torch, x: torch.logsumexp(x, 1),
    bytes=16 * M)
add("variance_axis0", "reductions", ROWS, numpy=lambda np, x: x.var(0), tensorc=lambda K, x: K.var(x, axis=0),
    jax=lambda jnp, x: x.var(0), torch=lambda torch, x: x.var(0, correction=0), bytes=16 * M)
add("layer_norm", "reductions", normal(x=(4096, 1024), g=(1024,), b=(1024,)), numpy=layer_norm, tensorc=layer_norm,
    jax=layer_norm, torch=lambda torch, x, g, b: torch.nn.functional.layer_norm(x, (1024,), g, b, 1e-3), bytes=32 * M)
add("dot_1024", "linear algebra", normal(a=(1024, 1024), b=(1024, 1024)), numpy=lambda np, a, b: a @ b,
    tensorc=lambda K, a, b: K.dot(a, b), jax=lambda jnp, a, b: a @ b, torch=lambda torch, a, b: a @ b,
    flops=2 * 1024**3)
add("dense_relu", "linear algebra", normal(x=(128, 784), w=(784, 512), b=(512,)),
    numpy=lambda np, x, w, b: np.maximum(x @ w + b, 0), tensorc=lambda K, x, w, b: K.relu(K.bias_add(K.dot(x, w), b)),
    jax=lambda jnp, x, w, b: jnp.maximum(x @ w + b, 0), torch=lambda torch, x, w, b: torch.relu(x @ w + b),
    flops=2 * 128 * 784 * 512)
add("transpose_0231", "linear algebra", normal(x=(32, 64, 56, 56)),
    numpy=lambda np, x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)),
    tensorc=lambda K, x: K.permute_dimensions(x, (0, 2, 3, 1)), jax=lambda jnp, x: jnp.transpose(x, (0, 2, 3, 1)),
    torch=lambda torch, x: x.permute(0, 2, 3, 1).contiguous(), bytes=2 * 32 * 64 * 56 * 56 * 4)
add("embedding", "linear algebra", lambda r: {"t": r.standard_normal((50_000, 128), dtype=np.float32),
                                              "i": r.integers(0, 50_000, (32, 100)).astype(np.int32)},
    numpy=lambda np, t, i: t[i], tensorc=lambda K, t, i: K.gather(t, i), jax=lambda jnp, t, i: t[i],
    torch=lambda torch, t, i: t[i.long()], bytes=2 * 3200 * 128 * 4)
