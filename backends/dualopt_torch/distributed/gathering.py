"""A snapshot of everything, on one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from dualopt.checkpoint import Snapshot

from ..arrays import to_numpy
from .dtensors import whole

if TYPE_CHECKING:
    from ..saving import Saving


def gathered(optimizer: Saving, process: int = 0) -> Snapshot | None:
    """The portable snapshot, on one process; None on the others.

    All processes call this. One array after the other is put together on each of them and dropped again, except on
    `process`: `snapshot()` is the same, and keeps everything everywhere.

    Args:
        process: its rank among all.
    """
    keeps = dist.get_rank() == process

    def array(x: torch.Tensor) -> np.ndarray[Any, Any]:
        full = whole(x)
        return to_numpy(full) if keeps else np.empty(0, np.float32)

    found = optimizer.snapshot_by(array)
    return found if keeps else None
