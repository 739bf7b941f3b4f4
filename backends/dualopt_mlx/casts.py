"""What MLX does with arrays of half precision: see `dualopt.rounding`."""

from __future__ import annotations

import mlx.core as mx

from dualopt.recursion import Namespace
from dualopt.rounding import Casts

from .parameters import narrowed, working

_DROPPED = {mx.bfloat16: 16, mx.float16: 13}


def word(high: mx.array, low: mx.array) -> mx.array:
    """The word of `rounding.WORD`, of 0-d arrays, so that it may be traced."""
    whole = mx.stack([high, low]).astype(mx.int32)
    return whole[0] * 2**16 + whole[1]


def casts(xp: Namespace) -> Casts:
    """Those of working arrays in the namespace `xp`."""
    return Casts(
        xp=xp,
        widen=working,
        narrow=narrowed,
        dropped=lambda x: _DROPPED.get(x.dtype, 0),
        bits=lambda x: mx.view(x, mx.int32),
        floats=lambda x: mx.view(x, mx.float32),
        index=lambda start, n: mx.arange(n, dtype=mx.int32) + start,
        word=word,
    )
