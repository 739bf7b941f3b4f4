"""Products of matrices, each by the fastest route that rounds as it should.

    bfloat16   native, where the device has units for it; elsewhere float32 takes its place, which rounds less
    float32    never TF32 or bfloat16 inside, whatever the process has asked for (`true_float32`); on AMD CPUs with
               AVX-512, where MKL keeps to narrower instructions, through oneDNN if this build of torch has that

float16 is nowhere used: CPUs emulate it.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from dualopt.directions.polar.work import Work

from .triton.symmetric import product

LEAST = 64  # of the sides of a product through oneDNN: below, its overhead counts
U = 2.0**-24


@lru_cache(maxsize=8)
def multiplies_bfloat16(device: torch.device) -> bool:
    """Has the device units that multiply matrices of bfloat16? Without them products take far longer than float32's."""
    if device.type == "cuda":
        return bool(torch.cuda.get_device_capability(device) >= (8, 0))
    return bool(device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def true_float32() -> Iterator[None]:
    """float32 products are float32 inside, not TF32 or bfloat16, whichever of torch's switches asks for these."""
    libraries: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    new = [x for x in libraries if hasattr(x, "fp32_precision")]  # from torch 2.9 on; old and new ones do not mix
    before = [x.fp32_precision for x in new] if new else [torch.get_float32_matmul_precision()]
    if set(before) <= {"ieee", "none", "highest"}:
        yield
        return
    _ask(new, ["ieee"] * len(new) if new else ["highest"])
    try:
        yield
    finally:
        _ask(new, before)


def _ask(libraries: list[Any], precisions: list[str]) -> None:
    for x, precision in zip(libraries, precisions, strict=False):
        x.fp32_precision = precision
    if not libraries:
        torch.set_float32_matmul_precision(precisions[0])


def linear(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """u v through oneDNN, for u (m, k) and v (k, n)."""
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(u, v.mT, None, "none", [], "")
    return found


def amd() -> bool:
    """Is the CPU of AMD's make?"""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")[:1000]
    except OSError:
        return "AuthenticAMD" in platform.processor()


@lru_cache(maxsize=1)
def by_linear() -> bool:
    """Is `linear`, which is private to torch, there, right, and faster than MKL?"""
    if not (amd() and torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkl.is_available()):  # type: ignore[no-untyped-call]
        return False
    u, v = (torch.linspace(-1, 1, 65 * 80).reshape(65, 80).sin(), torch.linspace(1, 2, 80 * 96).reshape(80, 96).cos())
    try:
        error = (linear(u, v).double() - u.double() @ v.double()).abs()
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((error <= 80 * U * (u.abs() @ v.abs())).all())


def one_by_one(like: torch.Tensor) -> bool:
    """Are products of such arrays carried out matrix by matrix, through oneDNN?"""
    return like.dtype == torch.float32 and like.device.type == "cpu" and by_linear()


def matmul(u: torch.Tensor, v: torch.Tensor, /, out: torch.Tensor | None = None) -> torch.Tensor:
    """u v, of stacks too; in `out`, or in an array of its own."""
    shapes = *u.shape[-2:], v.shape[-1] if v.ndim else 0
    if u.dtype != v.dtype or u.ndim < 2 or u.shape[:-2] != v.shape[:-2] or min(shapes) < LEAST or not one_by_one(u):
        return torch.matmul(u, v, out=out)
    if math.prod(u.shape[:-2]) == 1:
        return linear(u, v.reshape(v.shape[-2:]))
    found = torch.empty((*u.shape[:-1], shapes[2]), dtype=u.dtype) if out is None else out
    places = found.reshape(-1, *found.shape[-2:])
    for place, a, b in zip(places, u.reshape(-1, *u.shape[-2:]), v.reshape(-1, *v.shape[-2:]), strict=True):
        place.copy_(linear(a, b))
    return found


class Float32(Work):
    """float32, or float64, with sums in place."""

    def place(self, shape: torch.Size, like: torch.Tensor) -> torch.Tensor | None:
        """Where a result of the type of `like` is written; None: in an array of its own."""
        return None

    def product(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return matmul(u, v, self.place(u.shape[:-1] + v.shape[-1:], u))

    def sum(self, a: float, x: torch.Tensor, u: torch.Tensor, v: torch.Tensor, c: float = 1.0) -> torch.Tensor:
        found = self.product(u, v)
        return found.mul_(c).add_(x, alpha=a) if c != 1 else found.add_(x, alpha=a)


class Narrow(Float32):
    """bfloat16 as it is stored, and products in it, where the device has them; else float32."""

    def narrow(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.bfloat16) if multiplies_bfloat16(x.device) else x

    def widen(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.float32) if x.dtype == torch.bfloat16 else x

    def product(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if u.dtype != torch.bfloat16:
            return super().product(u, v)
        return product(u, v, self.place(u.shape[:-1] + v.shape[-1:], u))

    def sum(self, a: float, x: torch.Tensor, u: torch.Tensor, v: torch.Tensor, c: float = 1.0) -> torch.Tensor:
        if u.dtype != torch.bfloat16:
            return super().sum(a, x, u, v, c)
        stacks = (y.reshape(-1, *y.shape[-2:]) for y in (x, u, v))
        return torch.baddbmm(*stacks, beta=a, alpha=c, out=self.place(x.shape, x)).reshape(x.shape)
