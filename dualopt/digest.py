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


def mix(x: Words) -> Words:
    """A bijection of 64-bit words in which every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def digest_array(name: str, x: np.ndarray[Any, Any], start: int = 0) -> int:
    """The share of one array, or of the part of it that begins at flat index `start`."""
    bits = np.ascontiguousarray(x).reshape(-1)
    bits = bits.view(f"u{bits.dtype.itemsize}").astype(np.uint64)
    key = np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
    index = np.arange(start, start + bits.size, dtype=np.uint64)
    return int(mix(bits + mix(index + key)).sum(dtype=np.uint64))


def digest(arrays: Iterable[tuple[str, np.ndarray[Any, Any]]]) -> str:
    """16 hexadecimal digits for named arrays, in any order."""
    return f"{sum(digest_array(name, x) for name, x in arrays) % 2**64:016x}"


def snapshot_digest(snapshot: Snapshot) -> str:
    """The digest of all parameters and state."""
    parameters = ((f"parameter/{name}", x) for name, x in snapshot.parameters.items())
    state = ((f"state/{name}/{key}", x) for name, s in snapshot.state.items() for key, x in s.items())
    return digest([*parameters, *state])
