"""y_i = b_i y_{i−1} + x_i, the one loop behind every number here, for a million updates in some milliseconds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..counts import LN2

Floats = np.ndarray[Any, np.dtype[np.float64]]


def floats(x: Any) -> Floats:
    return np.asarray(x, np.float64)


def complements(counts: Any, half_life: float) -> Floats:
    """`counts.complement` of many increments at once."""
    return -np.expm1(-LN2 * floats(counts) / half_life)


def forward(b: Any, x: Any, start: float = 0.0) -> Floats:
    """(y_1, ..., y_n) with y_0 = `start`; b and x are (n,) or numbers, not both numbers.

    Rows of about √n elements run side by side, each from 0; then the last element of each row enters the next
    through the product of its b. For b >= 0 nothing cancels, and the relative error is n roundings at most.
    """
    b, x = np.broadcast_arrays(floats(b), floats(x))
    n = x.size
    if not n:
        return np.zeros(0)
    width = math.isqrt(n - 1) + 1
    rows = -(-n // width)
    kept, y = np.ones((width, rows)), np.zeros((width, rows))  # transposed: what runs side by side is contiguous
    for filled, given in ((kept, b), (y, x)):
        padded = np.zeros(rows * width)
        padded[:n] = given
        filled[:] = padded.reshape(rows, width).T
    for i in range(1, width):
        y[i] += kept[i] * y[i - 1]
        kept[i] *= kept[i - 1]
    entering, before = np.empty(rows), start
    for j, (last, product) in enumerate(zip(y[-1].tolist(), kept[-1].tolist(), strict=True)):
        entering[j] = before
        before = last + product * before
    return np.ascontiguousarray((y + kept * entering).T).reshape(-1)[:n]


def backward(b: Any, x: Any) -> Floats:
    """(y_1, ..., y_n) with y_i = x_i + b_{i+1} y_{i+1} and y_n = x_n; b_1 is not read."""
    b, x = np.broadcast_arrays(floats(b), floats(x))
    return forward(np.append(0.0, b[:0:-1]), x[::-1])[::-1] if x.size else np.zeros(0)
