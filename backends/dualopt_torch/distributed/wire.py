"""Collectives of one group of processes, and what they have moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from dualopt.agreement import Traffic
from dualopt.errors import DistributionError


class Flight:
    """Communication that has begun. `wait` ends it and returns what has arrived."""

    def __init__(self, works: Sequence[Any], arrived: Any) -> None:
        self._works, self._arrived = works, arrived

    def wait(self) -> Any:
        for work in self._works:
            work.wait()
        return self._arrived


class Wire:
    """The collectives that updates need. Processes are counted from 0 in the group.

    Args:
        group: the processes that have parts of one whole.
        device: of what is sent.
        everybody: those that decide together; None: the group.
    """

    def __init__(
        self, group: dist.ProcessGroup, device: torch.device, everybody: dist.ProcessGroup | None = None
    ) -> None:
        self.group, self.device, self._everybody = group, device, everybody or group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.traffic = Traffic()

    def __getstate__(self) -> dict[str, Any]:
        raise DistributionError("an optimizer that is one of several cannot be copied or pickled: save its state")

    def exchange(self, sent: torch.Tensor, splits: Sequence[int], lengths: Sequence[int]) -> Flight:
        """Send every process its part of `sent`, which is cut by `splits`; arrives: what each has sent here, of so
        many elements."""
        received = sent.new_empty(sum(lengths))
        self.traffic.sent += (sent.numel() - splits[self.rank]) * sent.element_size()
        self.traffic.received += (received.numel() - lengths[self.rank]) * sent.element_size()
        self.traffic.collectives += 1
        work = dist.all_to_all_single(received, sent, list(lengths), list(splits), group=self.group, async_op=True)
        return Flight([work], torch.split(received, list(lengths)))

    def publish(self, mine: torch.Tensor, lengths: Sequence[int]) -> Flight:
        """Send every process the same; arrives: what each has sent, of so many elements."""
        received = [mine if r == self.rank else mine.new_empty(n) for r, n in enumerate(lengths)]
        works = []
        for source, x in enumerate(received):
            if x.numel():
                works.append(dist.broadcast(x, group=self.group, group_src=source, async_op=True))
                size = x.numel() * x.element_size()
                self.traffic.received += size * (source != self.rank)
                self.traffic.sent += size * (self.size - 1) * (source == self.rank)
                self.traffic.collectives += 1
        return Flight(works, received)

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """The largest of each, over everybody."""
        found = torch.tensor(list(numbers), dtype=torch.int64, device=self.device)
        self.traffic.decided += found.numel() * found.element_size()
        self.traffic.collectives += 1
        dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self._everybody)
        return [int(x) for x in found.tolist()]
