"""Philox4x32-10 over NumPy: the meaning of every random number of the compiler.

A block of four 32-bit words is a pure function of a counter (the element's index and the step, 64 bits each) and a key
(the seed, 64 bits).  Compiled code gives the same bits.

Source: Salmon, Moraes, Dror & Shaw, Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tensorc.ir.types import DType, f32, f64

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEP = (0x9E3779B9, 0xBB67AE85)


def philox(index: ArrayLike, seed: ArrayLike, step: ArrayLike) -> NDArray[np.uint32]:
    """The block of each element.

    Args:
        index: which element, the low half of the counter; int64, any shape.
        seed: the key; int64, broadcasts with `index`.
        step: which draw, the high half of the counter; int64, broadcasts with `index`.

    Returns: uint32 of the broadcast shape + (4,).
    """
    index, seed, step = np.broadcast_arrays(*(np.asarray(x, np.int64).astype(np.uint64) for x in (index, seed, step)))
    c0, c1 = _halves(index)
    c2, c3 = _halves(step)
    k0, k1 = _halves(seed)

    for turn in range(ROUNDS):
        if turn:
            k0, k1 = _low(k0 + np.uint64(KEY_STEP[0])), _low(k1 + np.uint64(KEY_STEP[1]))
        high0, low0 = _halves_of_product(c0, MULTIPLIERS[0])
        high1, low1 = _halves_of_product(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0

    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def uniform(index: ArrayLike, seed: ArrayLike, step: ArrayLike, word: ArrayLike, dtype: DType) -> NDArray[Any]:
    """Uniform numbers in [0, 1).

    f32: the upper 24 bits of word `word` (0 to 3) of the block, over 2^24.
    f64: the upper 27 bits of word 2·`word` and the upper 26 of the next one (`word` is 0 or 1), over 2^53.
    `word` broadcasts with the others.

    Raises: ValueError for another dtype or a word the block has not.
    """
    if dtype not in (f32, f64):
        raise ValueError(f"uniform numbers are f32 or f64, not {dtype}")
    word = np.asarray(word, np.intp)
    if ((word < 0) | (word >= (4 if dtype is f32 else 2))).any():
        raise ValueError(f"a block has no {dtype} number {word}")

    block = philox(index, seed, step)
    if dtype is f32:
        return np.asarray((_word(block, word) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24))

    upper = (_word(block, 2 * word) >> np.uint32(5)).astype(np.float64)
    lower = (_word(block, 2 * word + 1) >> np.uint32(6)).astype(np.float64)
    return np.asarray((upper * 2.0**26 + lower) * 2.0**-53)


def _word(block: NDArray[np.uint32], word: NDArray[np.intp]) -> NDArray[np.uint32]:
    """Word `word` of each block."""
    shape = np.broadcast_shapes(block.shape[:-1], word.shape)
    chosen = np.broadcast_to(word, shape)[..., None]
    return np.take_along_axis(np.broadcast_to(block, (*shape, 4)), chosen, axis=-1)[..., 0]


def _low(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return x & np.uint64(0xFFFFFFFF)


def _halves(x: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The low and the high 32 bits."""
    return _low(x), x >> np.uint64(32)


def _halves_of_product(x: NDArray[np.uint64], multiplier: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The high and the low 32 bits of a product of 32-bit numbers."""
    product = x * np.uint64(multiplier)
    return product >> np.uint64(32), _low(product)
