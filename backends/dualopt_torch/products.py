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

import torch

from dualopt.directions.polar.work import Work
from dualopt.scaling import area, power_of_two

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
    """float32 products are float32, not TF32 or bfloat16, inside."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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


def matmul(u: torch.Tensor, v: torch.Tensor, /) -> torch.Tensor:
    """u v, of stacks too."""
    shapes = *u.shape[-2:], v.shape[-1] if v.ndim else 0
    if u.dtype != torch.float32 or u.device.type != "cpu" or u.ndim < 2 or v.ndim < 2 or min(shapes) < LEAST:
        return torch.matmul(u, v)
    if v.dtype != torch.float32 or u.shape[:-2] != v.shape[:-2] or not by_linear():
        return torch.matmul(u, v)
    if math.prod(u.shape[:-2]) == 1:
        return linear(u, v.reshape(v.shape[-2:]))
    out = torch.empty((math.prod(u.shape[:-2]), shapes[0], shapes[2]), dtype=u.dtype)
    for i, (a, b) in enumerate(zip(u.reshape(-1, *u.shape[-2:]), v.reshape(-1, *v.shape[-2:]), strict=True)):
        out[i] = linear(a, b)
    return out.reshape(*u.shape[:-1], shapes[2])


class Float32(Work):
    """float32, or float64, with sums in place."""

    def product(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return matmul(u, v)

    def sum(self, a: float, x: torch.Tensor, u: torch.Tensor, v: torch.Tensor, c: float = 1.0) -> torch.Tensor:
        found = matmul(u, v)
        return found.mul_(c).add_(x, alpha=a) if c != 1 else found.add_(x, alpha=a)


class Narrow(Float32):
    """bfloat16 as it is stored, and products in it, where the device has them; else float32."""

    def narrow(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.bfloat16) if multiplies_bfloat16(x.device) else x

    def widen(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.float32) if x.dtype == torch.bfloat16 else x

    def product(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return product(u, v) if u.dtype == torch.bfloat16 else matmul(u, v)

    def sum(self, a: float, x: torch.Tensor, u: torch.Tensor, v: torch.Tensor, c: float = 1.0) -> torch.Tensor:
        if u.dtype != torch.bfloat16:
            return super().sum(a, x, u, v, c)
        stacks = (y.reshape(-1, *y.shape[-2:]) for y in (x, u, v))
        return torch.baddbmm(*stacks, beta=a, alpha=c).reshape(x.shape)


class Float32Stack(Float32):
    """The same on a stack that belongs to whoever iterates: levelled in place, and handed on as it is kept."""

    def level(self, z: torch.Tensor) -> torch.Tensor:
        top = self.widen(torch.linalg.vector_norm(z, math.inf, dim=(-2, -1), keepdim=True))
        factor = 2.0 ** -area(tuple(z.shape)) / power_of_two(self.xp, top)
        return z.mul_(factor.to(z.dtype))  # powers of two, which round nothing

    def leave(self, x: torch.Tensor) -> torch.Tensor:
        return x


class NarrowStack(Float32Stack, Narrow):
    """The same in bfloat16, where the stack is."""
