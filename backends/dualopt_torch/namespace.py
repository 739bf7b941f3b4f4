"""The torch namespaces: `exact` and `fast`, over array-api-compat's torch."""

from __future__ import annotations

from functools import lru_cache

import torch
from array_api_compat import torch as base

from dualopt.directions.polar.work import Work
from dualopt.exact import Overlay, exact

from .triton.symmetric import product


def correct_sqrt(x: torch.Tensor) -> torch.Tensor:
    """√x, correctly rounded in float32.

    On x86 CPUs torch.sqrt may be one ulp off (it calls a vector library); a float64 root rounded to
    float32 is right by the double-rounding theorem. A device without float64 (MPS) has only its own root.
    """
    if x.dtype != torch.float32 or x.device.type == "mps":
        return torch.sqrt(x)
    return torch.sqrt(x.to(torch.float64)).to(torch.float32)


@lru_cache(maxsize=8)
def multiplies_bfloat16(device: torch.device) -> bool:
    """Has the device units that multiply matrices of bfloat16? Without them products take far longer than float32's."""
    if device.type == "cuda":
        return bool(torch.cuda.get_device_capability(device) >= (8, 0))
    return bool(device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def sign(x: torch.Tensor) -> torch.Tensor:
    """sign(x), NaN for NaN as the standard says, in a form that compilers make one pass of."""
    return torch.where(x == x, torch.sign(x), x)  # noqa: PLR0124  (a NaN equals nothing)


class Narrow(Work):
    """bfloat16 as it is stored; products in it where the device has them, else of what it holds in float32."""

    def narrow(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.bfloat16)

    def widen(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.float32)

    def product(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if multiplies_bfloat16(u.device):
            return product(u, v)
        return self.narrow(torch.matmul(self.widen(u), self.widen(v)))

    def sum(self, a: float, x: torch.Tensor, u: torch.Tensor, v: torch.Tensor, c: float = 1.0) -> torch.Tensor:
        found: torch.Tensor
        if not multiplies_bfloat16(u.device):
            found = super().sum(a, x, u, v, c)
            return found
        stacks = (y.reshape(-1, *y.shape[-2:]) for y in (x, u, v))
        found = torch.baddbmm(*stacks, beta=a, alpha=c)
        return found.reshape(x.shape)


EXACT = exact(base, sqrt=correct_sqrt)
# Eager: the correct root, so that elementwise rows have the bits of the exact tier. Compiled code has a
# correctly rounded root of its own, and `COMPILED` leaves it in one pass.
FAST = Overlay(base, "fast", sqrt=correct_sqrt, sign=sign, bfloat16_work=Narrow)
COMPILED = Overlay(base, "compiled", sign=sign)
