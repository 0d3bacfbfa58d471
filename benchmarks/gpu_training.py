"""Steps of training for benchmarks/gpu.py: the same network, loss and optimizer in tensorc, torch and jax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from tensorc import backend as K

RATE = 1e-3


@dataclass(frozen=True)
class Perceptron:
    """Dense layers of relu, cross-entropy, Adam."""

    name = "perceptron by Adam"
    sizes = (4096, 784, 2048, 2048, 10)
    tiny = (8, 12, 16, 10)

    @staticmethod
    def arrays(sizes: tuple[int, ...]) -> tuple[Any, Any, list[Any]]:
        rng = np.random.default_rng(3)
        rows, first, *rest = sizes
        x = rng.standard_normal((rows, first), dtype=np.float32)
        y = np.eye(sizes[-1], dtype=np.float32)[rng.integers(0, sizes[-1], rows)]
        params: list[Any] = []
        for taken, given in zip((first, *rest), rest, strict=False):
            params += [rng.standard_normal((taken, given), dtype=np.float32) * (2 / taken) ** 0.5,
                       np.zeros(given, np.float32)]
        return x, y, params

    def tensorc(self, bench: Any, sizes: tuple[int, ...]) -> Callable[[], Any]:
        values = self.arrays(sizes)
        params = [K.variable(p) for p in values[2]]
        x, y = (K.placeholder(shape=v.shape) for v in values[:2])
        h = x
        for i in range(0, len(params), 2):
            h = K.dot(h if i == 0 else K.relu(h), params[i]) + params[i + 1]
        return stepped(x, y, h, params, values[:2])

    def torch(self, torch: Any, sizes: tuple[int, ...], compiled: bool) -> Callable[[], Any]:
        x, y, params = self.arrays(sizes)
        layers: list[Any] = []
        for i in range(0, len(params), 2):
            layers += [torch.nn.Linear(*params[i].shape), torch.nn.ReLU()]
        return torch_step(torch, torch.nn.Sequential(*layers[:-1]), torch.from_numpy(x), torch.from_numpy(y), compiled)

    def jax(self, sizes: tuple[int, ...]) -> tuple[Callable[[], Any], Callable[[], Any]]:
        import jax

        def logits(params: Any, x: Any) -> Any:
            for i in range(0, len(params), 2):
                x = (x if i == 0 else jax.nn.relu(x)) @ params[i] + params[i + 1]
            return x

        return jax_step(logits, *self.arrays(sizes))


@dataclass(frozen=True)
class Convolutions:
    """Three convolutions of 3×3 with relu, the second and third by steps of two, a mean and a dense layer; Adam."""

    name = "convolutions by Adam"
    sizes = (128, 64, 32)
    tiny = (2, 8, 8)

    @staticmethod
    def arrays(sizes: tuple[int, ...]) -> tuple[Any, Any, list[Any]]:
        rng = np.random.default_rng(3)
        rows, side, channels = sizes
        x = rng.standard_normal((rows, side, side, 3), dtype=np.float32)
        y = np.eye(10, dtype=np.float32)[rng.integers(0, 10, rows)]
        widths = (3, channels, 2 * channels, 4 * channels)
        params: list[Any] = []
        for taken, given in pairwise(widths):
            params += [rng.standard_normal((3, 3, taken, given), dtype=np.float32) * (2 / 9 / taken) ** 0.5,
                       np.zeros(given, np.float32)]
        return x, y, [*params, rng.standard_normal((widths[-1], 10), dtype=np.float32) / 10, np.zeros(10, np.float32)]

    def tensorc(self, bench: Any, sizes: tuple[int, ...]) -> Callable[[], Any]:
        values = self.arrays(sizes)
        params = [K.variable(p) for p in values[2]]
        x, y = (K.placeholder(shape=v.shape) for v in values[:2])
        h = x
        for i in range(0, 6, 2):
            strides = (1, 1) if i == 0 else (2, 2)
            h = K.relu(K.bias_add(K.conv2d(h, params[i], strides=strides, padding="same"), params[i + 1]))
        return stepped(x, y, K.dot(K.mean(h, axis=[1, 2]), params[6]) + params[7], params, values[:2])

    def torch(self, torch: Any, sizes: tuple[int, ...], compiled: bool) -> Callable[[], Any]:
        x, y, params = self.arrays(sizes)
        layers: list[Any] = []
        for i in range(0, 6, 2):
            taken, given = params[i].shape[2:]
            layers += [torch.nn.Conv2d(taken, given, 3, 1 if i == 0 else 2, 1), torch.nn.ReLU()]
        layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(*params[6].shape)]
        images = torch.from_numpy(x).permute(0, 3, 1, 2)
        net = torch.nn.Sequential(*layers).to(memory_format=torch.channels_last)
        return torch_step(torch, net, images, torch.from_numpy(y), compiled)

    def jax(self, sizes: tuple[int, ...]) -> tuple[Callable[[], Any], Callable[[], Any]]:
        import jax

        def logits(params: Any, h: Any) -> Any:
            for i in range(0, 6, 2):
                strides = (1, 1) if i == 0 else (2, 2)
                order = "NHWC", "HWIO", "NHWC"
                h = jax.lax.conv_general_dilated(h, params[i], strides, "SAME", dimension_numbers=order)
                h = jax.nn.relu(h + params[i + 1])
            return h.mean((1, 2)) @ params[6] + params[7]

        return jax_step(logits, *self.arrays(sizes))


STEPS: tuple[Perceptron | Convolutions, ...] = (Perceptron(), Convolutions())


def stepped(x: Any, y: Any, logits: Any, params: list[Any], values: tuple[Any, Any]) -> Callable[[], Any]:
    """A step of tensorc, whose data lies on the device."""
    loss = K.mean(K.categorical_crossentropy(y, logits, from_logits=True))
    updates = []
    for p, g in zip(params, K.gradients(loss, params), strict=True):
        m, v = K.zeros(K.int_shape(p)), K.zeros(K.int_shape(p))
        mean, square = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * K.square(g)
        updates += [(m, mean), (v, square), (p, p - RATE * mean / (K.sqrt(square) + 1e-7))]
    there = K.function([x, y], [x + 0, y + 0], device="cuda", device_outputs=True)(list(values))
    step = K.function([x, y], [loss], updates, device="cuda", device_outputs=True)
    return lambda: step(there)


def torch_step(torch: Any, net: Any, x: Any, y: Any, compiled: bool) -> Callable[[], Any]:
    net, x, y = net.cuda(), x.cuda(), y.cuda()
    adam = torch.optim.Adam(net.parameters(), lr=RATE, fused=True)

    def forward(x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(net(x), y)

    run = torch.compile(forward) if compiled else forward

    def step() -> Any:
        adam.zero_grad(set_to_none=True)
        loss = run(x, y)
        loss.backward()
        adam.step()
        return loss

    return step


def jax_step(logits: Callable[..., Any], x: Any, y: Any,
             params: list[Any]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A step, and what waits for the last one."""
    import jax
    import jax.numpy as jnp

    def loss(params: Any, x: Any, y: Any) -> Any:
        return -(jax.nn.log_softmax(logits(params, x)) * y).sum(1).mean()

    @jax.jit
    def step(state: Any, x: Any, y: Any) -> Any:
        params, means, squares = state
        gradients = jax.grad(loss)(params, x, y)
        means = [0.9 * m + 0.1 * g for m, g in zip(means, gradients, strict=True)]
        squares = [0.999 * v + 0.001 * g * g for v, g in zip(squares, gradients, strict=True)]
        params = [p - RATE * m / (jnp.sqrt(v) + 1e-7) for p, m, v in zip(params, means, squares, strict=True)]
        return params, means, squares

    zeros = [np.zeros_like(p) for p in params]
    held = [jax.device_put((params, zeros, zeros))]
    data = jax.device_put((x, y))

    def call() -> None:
        held[0] = step(held[0], *data)

    return call, lambda: jax.block_until_ready(held[0])
