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

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)

Words = np.ndarray[Any, np.dtype[np.uint32]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


def philox(counter: np.ndarray[Any, Any], key: tuple[int, int]) -> Words:
    """Philox 4x32-10 of ``counter`` (..., 4) of 32-bit words under ``key``; shape (..., 4)."""
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (p1 >> _HALF) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _HALF) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


class Stream:
    """The stream of words that belongs to (seed, name).

    Every method takes ``start``, the index of the first value wanted, and holds no position of its own.
    """

    def __init__(self, seed: int, name: str) -> None:
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        self.key = (int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little"))

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
