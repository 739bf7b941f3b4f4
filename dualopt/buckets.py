"""Which arrays one call updates: small ones joined, matrices of one shape stacked, long ones in pieces.

A call costs the host the same for ten elements as for ten thousand, so

    joined    elementwise rows: arrays of at most `SMALL` elements, end to end in one array of at most `JOINED`;
              each longer one alone
    stacks    all others: matrices of one shape in a stack of at most `STACK` elements
    pieces    where a call passes over its arrays several times: so long that these passes stay in the cache

Only names, sizes and kinds are seen here. A kind is whatever must be equal for two arrays to be updated together:
type, device, scalars. The bits of a parameter do not depend on its company.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping

from .recursion import Shape

SMALL = 2**14  # a copy of as many elements takes about as long as a call
JOINED = 2**18  # bounds the memory of the copies, which stay in the cache
STACK = 2**22  # bounds the transient memory

Names = tuple[str, ...]


def joined(
    sizes: Mapping[str, int], kinds: Mapping[str, Hashable], *, small: int = SMALL, most: int = JOINED
) -> tuple[Names, ...]:
    """The names in tuples to be updated as one array, in the order given; empty arrays are left out.

    Args:
        sizes: {name: elements}.
        kinds: {name: what is equal within a tuple}.
        small: the elements up to which an array is joined to others.
        most: of a joined array.
    """
    found: list[list[str]] = []
    open_: dict[Hashable, tuple[list[str], int]] = {}  # kind -> the bucket that takes more, and its elements
    for name, size in sizes.items():
        if size > small:
            found.append([name])
        elif size:
            bucket, taken = open_.get(kinds[name], ([], most))
            if taken + size > most:
                bucket, taken = [], 0
                found.append(bucket)
            bucket.append(name)
            open_[kinds[name]] = bucket, taken + size
    return tuple(tuple(bucket) for bucket in found)


def stacks(shapes: Mapping[str, Shape], kinds: Mapping[str, Hashable], *, most: int = STACK) -> tuple[Names, ...]:
    """The names in tuples of one shape and kind, of at most `most` elements or a single name. No array is empty."""
    found: dict[Hashable, list[str]] = {}
    for name, shape in shapes.items():
        found.setdefault((shape, kinds[name]), []).append(name)
    cut: list[Names] = []
    for same in found.values():
        each = max(1, most // math.prod(shapes[same[0]]))
        cut.extend(tuple(same[i : i + each]) for i in range(0, len(same), each))
    return tuple(cut)


def pieces(size: int, most: int = JOINED) -> Iterator[tuple[int, int]]:
    """(start, end) of consecutive pieces of an array of `size` elements."""
    return ((start, min(start + most, size)) for start in range(0, size, most))
