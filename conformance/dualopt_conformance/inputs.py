"""Parameters and gradients made from the integer generator: the same bits on every machine.

Every element is an integer times constants of float32, in a fixed order of roundings, so no library's
logarithm, product or random generator has a say in them.

    kind          what it tries
    bell          nearly normal, mean 0, variance 1
    six_decades   each element times 1e-6 ... 1: magnitudes side by side
    six_rows      each row times 1e-6 ... 1: a wide spectrum
    tiny          times 1e-18: squares are close to the smallest float32
    huge          times 1e15: squares are large, sums of squares larger
    faint         times 1e-25: numbers whose squares vanish
    subnormal     times 2^-130: numbers around and below the smallest normal one
    zeros         half of the elements, and with some luck whole rows, exactly 0 (either sign)
    ties          −1, 0 or 1 times a power of two: sums that cancel exactly, equal magnitudes
    low_rank      a matrix of rank 1 (a vector: constant magnitude)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from dualopt.generator import Stream

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

SHAPES: Mapping[str, Shape] = {
    "scalar": (),
    "empty": (0,),
    "empty_matrix": (3, 0),
    "vector": (7,),
    "long": (1025,),
    "one": (1, 1),
    "square": (5, 5),
    "tall": (7, 3),
    "wide": (3, 7),
    "row": (1, 6),
    "column": (6, 1),
    "stack": (2, 4, 3),
    "kernel": (4, 2, 3, 3),
}
_DECADES = np.array([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0], np.float32)


def _bell(stream: Stream, shape: Shape) -> Array:
    return stream.bell(shape)


def _integers(stream: Stream, shape: Shape, bound: int) -> Array:
    """Integers in [0, bound), independent of what `bell` and `uniform` read."""
    n = int(np.prod(shape, dtype=np.int64))
    return stream.below(bound, n, start=1 << 40).reshape(shape)


def _six_decades(stream: Stream, shape: Shape) -> Array:
    return stream.bell(shape) * _DECADES[_integers(stream, shape, len(_DECADES))]


def _six_rows(stream: Stream, shape: Shape) -> Array:
    rows = (*shape[:-1], 1) if shape else ()
    return stream.bell(shape) * _DECADES[_integers(stream, rows, len(_DECADES))]


def _zeros(stream: Stream, shape: Shape) -> Array:
    kept = _integers(stream, shape, 2).astype(np.float32)
    if len(shape) > 1:
        kept = kept * _integers(stream, (*shape[:-1], 1), 3).astype(bool)
    return stream.bell(shape) * kept


def _ties(stream: Stream, shape: Shape) -> Array:
    signs = _integers(stream, shape, 3).astype(np.float32) - np.float32(1)
    powers = np.array([0.25, 0.5, 1.0, 2.0], np.float32)
    return signs * powers[stream.below(4, signs.size).reshape(shape)]


def _low_rank(stream: Stream, shape: Shape) -> Array:
    if len(shape) < 2:
        return np.sign(stream.uniform(shape))
    left = stream.bell((*shape[:-1], 1))
    return left * stream.bell((*shape[:-2], 1, shape[-1]), start=1 << 20)


KINDS: Mapping[str, Callable[[Stream, Shape], Array]] = {
    "bell": _bell,
    "six_decades": _six_decades,
    "six_rows": _six_rows,
    "tiny": lambda stream, shape: stream.bell(shape) * np.float32(1e-18),
    "huge": lambda stream, shape: stream.bell(shape) * np.float32(1e15),
    "faint": lambda stream, shape: stream.bell(shape) * np.float32(1e-25),
    "subnormal": lambda stream, shape: stream.bell(shape) * np.float32(2.0**-130),
    "zeros": _zeros,
    "ties": _ties,
    "low_rank": _low_rank,
}


def array(kind: str, shape: Shape, seed: int, name: str) -> Array:
    """A float32 array of one of `KINDS`: a pure function of its arguments."""
    return np.asarray(KINDS[kind](Stream(seed, f"{kind}/{name}"), shape), dtype=np.float32)


def parameters(shapes: Mapping[str, Shape], seed: int = 0, kind: str = "bell") -> dict[str, Array]:
    """One array for every named shape."""
    return {name: array(kind, shape, seed, f"parameter/{name}") for name, shape in shapes.items()}


def gradients(
    shapes: Mapping[str, Shape], updates: int, seed: int = 0, kinds: tuple[str, ...] = ("bell",)
) -> Iterator[dict[str, Array]]:
    """One {name: array} per update; update t is of the kind ``kinds[t % len(kinds)]``."""
    for t in range(updates):
        kind = kinds[t % len(kinds)]
        yield {name: array(kind, shape, seed, f"gradient/{t}/{name}") for name, shape in shapes.items()}


def series(kinds: tuple[str, ...], shape: Shape, updates: int, seed: int, name: str) -> Array:
    """(updates, *shape): one array per update, that of update t of the kind ``kinds[t % len(kinds)]``.

    A shorter series is the beginning of a longer one.
    """
    found = np.empty((updates, *shape), np.float32)
    for i, kind in enumerate(kinds):
        found[i :: len(kinds)] = array(kind, (len(range(i, updates, len(kinds))), *shape), seed, f"{i}/{name}")
    return found


def increments(updates: int, seed: int = 0, least: int = 1, most: int = 1024) -> list[int]:
    """Varying Δτ in [least, most]."""
    return [least + int(x) for x in Stream(seed, "increments").below(most - least + 1, updates)]
