"""How updates of tensors are measured: see `dualopt.watch`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch

from dualopt.microbatches import GRADIENT, Evidence
from dualopt.proposal import Proposal
from dualopt.watch import Monitor
from dualopt.watch.measurement import Library, Measurement

from .distributed.layouts import Layout
from .execute import Executor, recorded
from .kernels import working
from .namespace import FAST
from .route import Update


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
    _execute: Executor
    _layout: Layout | None

    def _carry_out(self, updates: Sequence[Update], measured: Measurement | None) -> None:
        """These updates, and their measurement. It keeps what it compares: of one group at a time, unless groups are
        to be updated together."""
        if measured is None:
            self._execute.carry_out(updates)
            return
        for together in [updates] if self._layout is not None else [[u] for u in updates]:
            for u in together:
                measured.before(u.planned, u.theta, u.state, u.evidence, u.k)
            self._execute.carry_out(together)
            for u in together:
                measured.after(u.planned, u.theta, u.state)

    def _measurement(self, proposal: Proposal, count: int, evidence: Evidence) -> Measurement | None:
        """What measures this update, if a monitor wants that; nothing can be read while a graph is captured."""
        if self.monitor is None:
            return None
        one = {name: x[GRADIENT] for name, x in islice(evidence.items(), 1) if x}  # captured, if all are
        return None if recorded(one) or not self.monitor.due(proposal, count) else Measurement(LIBRARY)
