"""CUDA kernels in Triton, generated from the core's programs or held to its formulas."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec


@lru_cache(maxsize=1)
def installed() -> bool:
    """True if Triton can be imported; torch brings it along where it has CUDA."""
    return find_spec("triton") is not None
