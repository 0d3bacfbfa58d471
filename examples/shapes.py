"""Images of shapes, rendered: discs, rings, squares, triangles, stars and crosses, turned, moved, shaded, in noise.

A shape is a signed distance, negative inside and in pixels; ink is how far a pixel is inside, so edges are smooth.
"""

import numpy as np

NAMES = ("disc", "ring", "square", "triangle", "star", "cross")


def disc(x, y, size):
    return np.hypot(x, y) - 0.9 * size


def ring(x, y, size):
    return np.abs(disc(x, y, size)) - 0.18 * size


def square(x, y, size):
    return np.maximum(np.abs(x), np.abs(y)) - 0.8 * size


def triangle(x, y, size):
    return np.maximum(np.abs(x) * np.sqrt(3) / 2 + y / 2, -y) - 0.5 * size


def star(x, y, size):
    """Five points: the distance to the edge, found in one tenth of the circle, which holds half a point."""
    angle = np.abs((np.arctan2(y, x) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    radius = np.hypot(x, y)
    outer, inner = 1.15 * size, 0.45 * size
    edge = np.array([inner * np.cos(np.pi / 5) - outer, inner * np.sin(np.pi / 5)])
    px, py = radius * np.cos(angle) - outer, radius * np.sin(angle)
    return (px * edge[1] - py * edge[0]) / np.hypot(*edge)


def cross(x, y, size):
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.minimum(x, y) - 0.28 * size, np.maximum(x, y) - size)


SHAPES = (disc, ring, square, triangle, star, cross)


def render(count, pixels, seed):
    """`count` images as float32 (count, pixels, pixels, 1), and the shapes they show as int32 (count,)."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(len(SHAPES), size=count)
    rows, columns = np.mgrid[:pixels, :pixels] - (pixels - 1) / 2

    images = np.empty((count, pixels, pixels, 1), "float32")
    for image, kind in zip(images, kinds, strict=True):
        size = rng.uniform(0.2, 0.32) * pixels
        right, down = rng.uniform(-0.12, 0.12, 2) * pixels
        turn = rng.uniform(0, 2 * np.pi)
        paper, ink = rng.permutation([rng.uniform(0, 0.35), rng.uniform(0.65, 1)])

        x, y = columns - right, rows - down
        x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
        inside = np.clip(0.5 - SHAPES[kind](x, y, size), 0, 1)
        image[:, :, 0] = paper + (ink - paper) * inside
        image += rng.normal(0, 0.12, image.shape)
    return images, kinds.astype("int32")
