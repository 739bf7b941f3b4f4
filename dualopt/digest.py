"""A flight recorder: one 64-bit number per update that every bit of θ and state enters.

    digest = Σ mix(bits of the element + mix(index + key of the array))    (mod 2^64)

The sum does not depend on the order of the elements or arrays, so it is the same whatever the sharding;
two logs of digests give the first update that differs. `mix` is the finaliser of SplitMix64 (Steele, Lea
and Flood, OOPSLA 2014).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from .checkpoint import Snapshot

Words = np.ndarray[Any, np.dtype[np.uint64]]

BLOCK = 2**15  # elements that are mixed at a time: what the mixing needs besides stays in the cache


def mix(x: Words) -> Words:
    """A bijection of 64-bit words in which every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def places(name: str, start: int, size: int) -> Words:
    """What every element of an array adds to its bits: a word for its name and its flat index, from `start` on."""
    key = np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
    return mix(np.arange(start, start + size, dtype=np.uint64) + key)


def words(x: np.ndarray[Any, Any]) -> Words:
    """The bits of every element, in C order."""
    bits = np.ascontiguousarray(x).reshape(-1)
    return bits.view(f"u{bits.dtype.itemsize}").astype(np.uint64)


def total(bits: Words, where: Words) -> int:
    """The sum over elements with these bits in these `places`."""
    return int(mix(bits + where).sum(dtype=np.uint64))


def digest_array(name: str, x: np.ndarray[Any, Any], start: int = 0) -> int:
    """The share of one array, or of the part of it that begins at flat index `start`."""
    flat, found = np.ascontiguousarray(x).reshape(-1), 0
    for at in range(0, flat.size, BLOCK):
        block = words(flat[at : at + BLOCK])
        found += total(block, places(name, start + at, block.size))
    return found % 2**64


def digest(arrays: Iterable[tuple[str, np.ndarray[Any, Any]]]) -> str:
    """16 hexadecimal digits for named arrays, in any order."""
    return f"{sum(digest_array(name, x) for name, x in arrays) % 2**64:016x}"


def snapshot_digest(snapshot: Snapshot) -> str:
    """The digest of all parameters and state."""
    parameters = ((f"parameter/{name}", x) for name, x in snapshot.parameters.items())
    state = ((f"state/{name}/{key}", x) for name, s in snapshot.state.items() for key, x in s.items())
    return digest([*parameters, *state])
