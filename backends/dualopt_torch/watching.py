"""How updates of tensors are measured: see `dualopt.watch`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch

from dualopt.microbatches import GRADIENT, Evidence
from dualopt.proposal import Proposal
from dualopt.watch import Monitor
from dualopt.watch.measurement import Library, Measurement

from .execute import recorded
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


class Watching(torch.optim.Optimizer):
    """The part of `Optimizer` that has a monitor."""

    monitor: Monitor | None = None

    def _measurement(self, proposal: Proposal, count: int, evidence: Evidence) -> Measurement | None:
        """What measures this update, if a monitor wants that; nothing can be read while a graph is captured."""
        if self.monitor is None:
            return None
        one = {name: x[GRADIENT] for name, x in islice(evidence.items(), 1) if x}  # captured, if all are
        return None if recorded(one) or not self.monitor.due(proposal, count) else Measurement(LIBRARY)
