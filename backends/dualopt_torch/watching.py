"""How updates of tensors are measured: see `dualopt.watch`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dualopt.watch.measurement import Library

from .kernels import working
from .namespace import FAST


def _joined(sums: Sequence[torch.Tensor]) -> torch.Tensor:
    """In one tensor, on the device of the first: one transfer to the host."""
    return torch.stack([x.to(sums[0].device) for x in sums])


def _numbers(sums: torch.Tensor) -> list[float]:
    found: list[float] = sums.tolist()
    return found


LIBRARY = Library(
    xp=FAST,
    working=lambda x: working(x.detach()),
    kept=lambda x: x.detach().clone(),
    joined=_joined,
    numbers=_numbers,
)
