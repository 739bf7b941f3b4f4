"""The torch namespaces: `exact` and `fast`, over array-api-compat's torch."""

from __future__ import annotations

import torch
from array_api_compat import torch as base

from dualopt.exact import Overlay, exact

from .products import Float32, Narrow, matmul


def correct_sqrt(x: torch.Tensor) -> torch.Tensor:
    """√x, correctly rounded in float32.

    On x86 CPUs torch.sqrt may be one ulp off (it calls a vector library); a float64 root rounded to
    float32 is right by the double-rounding theorem. A device without float64 (MPS) has only its own root.
    """
    if x.dtype != torch.float32 or x.device.type == "mps":
        return torch.sqrt(x)
    return torch.sqrt(x.to(torch.float64)).to(torch.float32)


def sign(x: torch.Tensor) -> torch.Tensor:
    """sign(x), NaN for NaN as the standard says, in a form that compilers make one pass of."""
    return torch.where(x == x, torch.sign(x), x)  # noqa: PLR0124  (a NaN equals nothing)


EXACT = exact(base, sqrt=correct_sqrt)
# Eager: the correct root, so that elementwise rows have the bits of the exact tier. Compiled code has a
# correctly rounded root of its own, and `COMPILED` leaves it in one pass.
FAST = Overlay(base, "fast", sqrt=correct_sqrt, sign=sign, matmul=matmul, float32_work=Float32, bfloat16_work=Narrow)
COMPILED = Overlay(base, "compiled", sign=sign)
