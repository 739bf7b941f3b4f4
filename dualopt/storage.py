"""Half precision in numpy: how parameters narrower than float32 are stored, widened and rounded.

numpy has no bfloat16: its bits are kept as uint16, the upper half of a float32. A float16 is numpy's own.
Widening is exact; narrowing rounds once, to nearest, ties to even; too large becomes infinity, NaN stays NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Numpy = np.ndarray[Any, Any]

UNIT = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}  # the most, relative to
# itself, that a number is rounded by: half a spacing over the least of a binade

_QUIET = np.uint32(0x40)  # set in a NaN, whose other bits may all be in the half that is dropped


def _bfloat16(x: Numpy) -> Numpy:
    """The bits of float32 numbers rounded to bfloat16, uint16."""
    bits = np.asarray(x).view(np.uint32)
    kept, dropped = bits >> np.uint32(16), bits & np.uint32(0xFFFF)
    up = dropped + (kept & np.uint32(1)) > 0x8000  # more than half, or half and odd
    return np.where(np.isnan(x), kept | _QUIET, kept + up).astype(np.uint16)


def _float16(x: Numpy) -> Numpy:
    with np.errstate(over="ignore"):
        return np.asarray(x, dtype=np.float16)


_NARROW = {"bfloat16": _bfloat16, "float16": _float16}
HALF = tuple(_NARROW)


def working(dtype: str) -> str:
    """The name of the type that parameters stored as `dtype` are computed in."""
    return "float64" if dtype == "float64" else "float32"


def store(x: Numpy, dtype: str) -> Numpy:
    """A copy of any real array as it is stored in `dtype`; half precision goes through float32."""
    copy = np.array(x, dtype=working(dtype))
    return _NARROW[dtype](copy) if dtype in _NARROW else copy


def widen(x: Numpy) -> Numpy:
    """The working array of a stored one: float32 of half precision, everything else as it is."""
    if x.dtype.itemsize != 2:
        return x
    if x.dtype == np.uint16:
        return np.asarray(x.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return x.astype(np.float32)


def narrow(x: Numpy, like: Numpy) -> Numpy:
    """A working array as `like` is stored."""
    if like.dtype.itemsize != 2:
        return x
    return _bfloat16(x) if like.dtype == np.uint16 else _float16(x)


def dropped(x: Numpy) -> int:
    """How many bits of a float32 the type of a stored array lacks."""
    return 0 if x.dtype.itemsize != 2 else 16 if x.dtype == np.uint16 else 13


def index(start: int, n: int) -> Numpy:
    """n places from `start`, int32, which wrap around."""
    return np.arange(start, start + n).astype(np.int32)


def word(high: float, low: float) -> int:
    """The word of `rounding.WORD`."""
    return int(high) * 2**16 + int(low)


def rounded(x: Numpy, dtype: str) -> Numpy:
    """The values of x that half precision keeps, as float32; for other types x itself."""
    if dtype not in HALF:
        return x
    with np.errstate(over="ignore"):
        return widen(store(x, dtype))
