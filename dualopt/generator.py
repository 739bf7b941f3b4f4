"""Counter-based random numbers in integers: the same bits on every machine and framework.

Philox 4x32-10 (Salmon et al., SC 2011) maps a 128-bit counter and a 64-bit key to four 32-bit words
by integer arithmetic alone. Word i of a stream is a pure function of (seed, name, i), so a stream can
be entered anywhere, and nothing depends on the order in which streams are read.

Floating-point values are made from integers by one exact conversion and one multiplication; no
logarithm or cosine is involved, because no two libraries round those alike.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
LOW = 0xFFFFFFFF
_LOW, _HALF = np.uint64(LOW), np.uint64(32)

Key = tuple[int, int]

Words = np.ndarray[Any, np.dtype[np.uint32]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


def mixed(c0: Any, c1: Any, c2: Any, c3: Any, key: Key) -> tuple[Any, Any, Any, Any]:
    """Philox 4x32-10 of the counter (c0, c1, c2, c3) under ``key``: four words of 32 bits.

    Words are integers, or arrays of 64 bits of any library; products of signed ones may wrap around.
    """
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32 & LOW) ^ c1 ^ k0, p1 & LOW, (p0 >> 32 & LOW) ^ c3 ^ k1, p0 & LOW
        k0, k1 = k0 + _WEYL[0] & LOW, k1 + _WEYL[1] & LOW
    return c0, c1, c2, c3


def philox(counter: np.ndarray[Any, Any], key: Key) -> Words:
    """The same of ``counter`` (..., 4) of 32-bit words; shape (..., 4)."""
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    return np.stack(mixed(c0, c1, c2, c3, key), axis=-1).astype(np.uint32)


def key_of(text: str) -> Key:
    """A key of 64 bits made of a text."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


class Stream:
    """The stream of words that belongs to (seed, name).

    Every method takes ``start``, the index of the first value wanted, and holds no position of its own.
    """

    def __init__(self, seed: int, name: str) -> None:
        self.key = key_of(f"{seed}/{name}")

    def words(self, n: int, start: int = 0) -> Words:
        """``n`` words of 32 bits."""
        first, last = start // 4, -(-(start + n) // 4)
        block = np.arange(first, last, dtype=np.uint64)
        zero = np.zeros_like(block)
        counter = np.stack([block & _LOW, block >> _HALF, zero, zero], axis=-1)
        return philox(counter, self.key).reshape(-1)[start - 4 * first :][:n]

    def below(self, bound: int, n: int, start: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
        """``n`` integers in [0, bound), bound <= 2**32, by the high half of a product."""
        return ((self.words(n, start).astype(np.uint64) * np.uint64(bound)) >> _HALF).astype(np.int64)

    def uniform(self, shape: tuple[int, ...], start: int = 0) -> Floats:
        """float32, an odd multiple of 2**-23 in (-1, 1): symmetric, never 0."""
        words = self.words(math.prod(shape), start)
        odd = 2 * (words >> np.uint32(9)).astype(np.int64) + 1 - 2**23
        floats: Floats = odd.astype(np.float32) * np.float32(2.0**-23)
        return floats.reshape(shape)

    def bell(self, shape: tuple[int, ...], start: int = 0) -> Floats:
        """float32 with mean 0 and variance 1, nearly normal: a sum of eight 16-bit integers (|x| < 4.9)."""
        n = math.prod(shape)
        halves = self.words(4 * n, 4 * start).view(np.uint16).reshape(n, 8)
        total = 2 * halves.sum(axis=1, dtype=np.int64) - 8 * (2**16 - 1)
        spread = math.sqrt(8 * (2.0**32 - 1) / 3)  # of 2x - (2**16 - 1) for x uniform on 16 bits
        floats: Floats = total.astype(np.float32) * np.float32(1.0 / spread)
        return floats.reshape(shape)
