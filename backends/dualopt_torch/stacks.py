"""Iterations on stacks of matrices that belong to whoever iterates: in place, in memory that is used again.

A stack is (count, m, n), in the type that its products are carried out in, and is handed on in that type. No operation
here is another than in `products` and `dualopt.directions.polar.work`; only where results are written is.
"""

from __future__ import annotations

import math
from functools import partial

import torch

from dualopt.exact import Overlay
from dualopt.recursion import Namespace
from dualopt.scaling import area, power_of_two

from .namespace import FAST
from .products import Float32, Narrow, one_by_one

_users = getattr(torch._C, "_storage_Use_Count", None)  # private to torch; without it every array is new
ALONE = 2  # users of a storage with one tensor: that, and the object that is asked


class Workspace:
    """Memory that arrays are made in. Blocks in which no tensor lies any more are given out again.

    There are never more blocks than there were arrays at one time, because one that is too small makes way for its
    successor.
    """

    def __init__(self) -> None:
        self.blocks: list[torch.Tensor] = []

    def empty(self, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """An array that is not filled."""
        size = math.prod(shape) * dtype.itemsize
        spare = [x for x in self.blocks if x.device == device and _unused(x)]
        block = min((x for x in spare if x.numel() >= size), key=torch.Tensor.numel, default=None)
        if block is None:
            if spare:
                smaller = max(spare, key=torch.Tensor.numel)
                self.blocks = [x for x in self.blocks if x is not smaller]
                del smaller, spare
            block = torch.empty(size, dtype=torch.uint8, device=device)
            if _users is not None:
                self.blocks.append(block)
        return block[:size].view(dtype).view(shape)


def _unused(block: torch.Tensor) -> bool:
    return _users is not None and _users(block.untyped_storage()._cdata) == ALONE


class Float32Stack(Float32):
    """float32, in a workspace."""

    def __init__(self, xp: Namespace, space: Workspace) -> None:
        super().__init__(xp)
        self.space = space

    def place(self, shape: torch.Size, like: torch.Tensor) -> torch.Tensor | None:
        return None if one_by_one(like) else self.space.empty(shape, like.dtype, like.device)

    def level(self, z: torch.Tensor) -> torch.Tensor:
        top = self.widen(torch.linalg.vector_norm(z, math.inf, dim=(-2, -1), keepdim=True))
        factor = 2.0 ** -area(tuple(z.shape)) / power_of_two(self.xp, top)
        return z.mul_(factor.to(z.dtype))  # powers of two, which round nothing

    def leave(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def mixed(self, b: float, r: torch.Tensor, c: float, s: torch.Tensor) -> torch.Tensor:
        return self._kept(self._wide(r).mul_(b).add_(s, alpha=c), r)

    def times(self, d: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        return self._kept(self._wide(r).mul_(d), r)

    def shifted(self, a: float, z: torch.Tensor, d: torch.Tensor | None = None) -> torch.Tensor:
        found = self._wide(z)
        found.diagonal(dim1=-2, dim2=-1).add_(a)
        return self._kept(found if d is None else found.mul_(d), z)

    def _wide(self, x: torch.Tensor) -> torch.Tensor:
        """A copy in float32."""
        return self.space.empty(x.shape, torch.float32, x.device).copy_(x)

    def _kept(self, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """x in the type of `like`, rounded once."""
        return x if x.dtype == like.dtype else self.space.empty(x.shape, like.dtype, x.device).copy_(x)


class NarrowStack(Float32Stack, Narrow):
    """bfloat16, where the stack is, in a workspace."""


def stacked(space: Workspace) -> Overlay:
    """The fast tier for stacks."""
    works = {"float32_work": partial(Float32Stack, space=space), "bfloat16_work": partial(NarrowStack, space=space)}
    return Overlay(FAST, "stacked", **works)
