"""How far apart two arrays are.

    scaled ULP       E = |x − y| / ulp_T(max(s, tiny_T)), elementwise, in float64
    bit differences  the elements whose bytes differ: −0 and 0 do, two equal NaNs do not
    normwise         ‖x − y‖₂ / ‖x‖₂

ulp_T(s) is the spacing of the numbers of type T in the binade of s. s is the magnitude that the value
was computed from, not the value itself: where large terms cancel, an error of half an ulp of *them* is
legitimate, and a distance counted in ulps of the small result says nothing. Below tiny_T, the smallest
normal number, the spacing is constant; a subnormal number flushed to zero counts by its own size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_TYPES = {  # digits, tiny
    "float64": (53, 2.0**-1022),
    "float32": (24, 2.0**-126),
    "bfloat16": (8, 2.0**-126),
    "float16": (11, 2.0**-14),
}


def ulp(scale: Any, dtype: str) -> Array:
    """The spacing of `dtype` in the binade of |scale|, at least that at the smallest normal number.

    Raises:
        KeyError: for an unknown dtype.
    """
    digits, tiny = _TYPES[dtype]
    _, exponent = np.frexp(np.maximum(np.abs(np.asarray(scale, dtype=np.float64)), tiny))
    return np.asarray(np.ldexp(1.0, exponent - digits))


def scaled_ulp(x: Any, y: Any, scale: Any = None, dtype: str = "float32") -> Array:
    """E, elementwise. Equal infinities and two NaNs are 0 apart; other non-finite pairs are ∞ apart.

    Args:
        x: the reference.
        y: what is compared with it, of the same shape.
        scale: s; |x| if None.
        dtype: T, a name of a floating-point type.

    Raises:
        ValueError: the shapes differ.
    """
    x, y = _pair(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    finite = np.isfinite(x) & np.isfinite(y)
    apart = np.abs(np.where(finite, x, 0.0) - np.where(finite, y, 0.0))
    unit = ulp(np.where(finite, x, 1.0) if scale is None else scale, dtype)
    return np.where(same, 0.0, np.where(finite, apart / unit, np.inf))


def bit_differences(x: Array, y: Array) -> Array:
    """A boolean array: which elements differ in their bytes.

    Raises:
        ValueError: the shapes or dtypes differ.
    """
    x, y = _pair(np.asarray(x), np.asarray(y))
    if x.dtype != y.dtype:
        raise ValueError(f"dtypes {x.dtype} and {y.dtype} cannot be compared bit by bit")
    word = np.dtype(f"u{x.dtype.itemsize}")
    return np.asarray(np.ascontiguousarray(x).view(word) != np.ascontiguousarray(y).view(word)).reshape(x.shape)


def normwise(x: Any, y: Any) -> float:
    """‖x − y‖₂ / ‖x‖₂ over all elements, free of overflow; 0 for equal arrays, ∞ if only x is zero."""
    x, y = _pair(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
    largest = max(np.max(np.abs(x), initial=0.0), np.max(np.abs(y), initial=0.0))
    if largest == 0:
        return 0.0
    apart, length = np.linalg.norm(x / largest - y / largest), np.linalg.norm(x / largest)
    return float(apart / length) if length > 0 else np.inf


def _pair(x: Array, y: Array) -> tuple[Array, Array]:
    if x.shape != y.shape:
        raise ValueError(f"shapes {x.shape} and {y.shape} cannot be compared")
    return x, y
