"""Philox4x32-10, the counter-based generator, and the uniform numbers made of its words.

Source: Salmon, Moraes, Dror & Shaw, Parallel random numbers: as easy as 1, 2, 3 (SC 2011).  Bit-equal with
`tensorc.ops.philox`.
"""

from __future__ import annotations

from tensorc.codegen.cpu.vectormath import Instructions
from tensorc.ir.types import f32, f64, i32, i64
from tensorc.ops.philox import KEY_STEP, MULTIPLIERS, ROUNDS

LOW_WORD = 0xFFFFFFFF


def words(o: Instructions, index: str, seed: str, step: str) -> list[str]:
    """The four 32-bit words of the block, each in the low half of an i64 lane."""
    wide = o.like(i64)

    def low(x: str) -> str:
        return wide.binary("and", x, wide.c(LOW_WORD))

    def high(x: str) -> str:
        return wide.binary("lshr", x, wide.c(32))

    c0, c1, c2, c3 = low(index), high(index), low(step), high(step)
    key = [low(seed), high(seed)]

    for turn in range(ROUNDS):
        if turn:
            key = [low(wide.plus(k, wide.c(s))) for k, s in zip(key, KEY_STEP, strict=True)]
        first = wide.times(c0, wide.c(MULTIPLIERS[0]))
        second = wide.times(c2, wide.c(MULTIPLIERS[1]))
        c0 = wide.binary("xor", wide.binary("xor", high(second), c1), key[0])
        c2 = wide.binary("xor", wide.binary("xor", high(first), c3), key[1])
        c1, c3 = low(second), low(first)
    return [c0, c1, c2, c3]


def uniform32(o: Instructions, index: str, seed: str, step: str, word: str) -> str:
    """The upper 24 bits of word `word` (0 to 3) of the block, over 2^24: f32 in [0, 1)."""
    wide, narrow, out = o.like(i64), o.like(i32), o.like(f32)
    blocks = words(o, index, seed, step)

    chosen = blocks[3]
    for k in (2, 1, 0):
        chosen = wide.select(narrow.compare("eq", word, narrow.c(k)), blocks[k], chosen)

    bits = wide.convert("trunc", wide.binary("lshr", chosen, wide.c(8)), narrow)
    return out.times(narrow.convert("sitofp", bits, out), out.c(2.0**-24))


def uniform64(o: Instructions, index: str, seed: str, step: str, word: str) -> str:
    """27 bits of word 2 `word` and 26 bits of the next one (`word` is 0 or 1), over 2^53: f64 in [0, 1)."""
    wide, narrow, out = o.like(i64), o.like(i32), o.like(f64)
    w0, w1, w2, w3 = words(o, index, seed, step)

    first = narrow.compare("eq", word, narrow.c(0))
    upper, lower = wide.select(first, w0, w2), wide.select(first, w1, w3)

    def number(x: str, shift: int) -> str:
        bits = wide.convert("trunc", wide.binary("lshr", x, wide.c(shift)), narrow)
        return narrow.convert("sitofp", bits, out)

    total = out.plus(out.times(number(upper, 5), out.c(2.0**26)), number(lower, 6))
    return out.times(total, out.c(2.0**-53))
