"""Where parameters lie, and how whole matrices come together on the process that has to have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Protocol

import torch

from .dtensors import local
from .wire import Wire

Tensors = dict[str, torch.Tensor]
Owners = Mapping[str, int]  # {name: process}, the same everywhere, in one order
Arrival = Callable[[], Tensors]


class Layout(Protocol):
    """How arrays of the shapes of the parameters lie over the processes."""

    wire: Wire

    @property
    def sharded(self) -> bool: ...

    @property
    def starts(self) -> Mapping[str, int]:
        """The place, in the whole array, of the first element that this process holds; 0 where that is left out."""
        ...

    def collect(self, pieces: Tensors, owners: Owners, dtype: torch.dtype) -> Arrival:
        """From what every process holds: those arrays, whole, whose owner this process is."""
        ...

    def spread(self, arrays: Tensors, owners: Owners, dtype: torch.dtype) -> Arrival:
        """From whole arrays on their owners: what this process holds of every array."""
        ...


class Replicated:
    """Every process holds everything, and all the same."""

    sharded = False
    starts: Mapping[str, int] = {}

    def __init__(self, wire: Wire, parameters: Tensors) -> None:
        self.wire = wire
        self._shapes = {name: tuple(p.shape) for name, p in parameters.items()}

    def collect(self, pieces: Tensors, owners: Owners, dtype: torch.dtype) -> Arrival:
        """Nothing has to be sent."""
        own = {name: pieces[name] for name, owner in owners.items() if owner == self.wire.rank}
        return lambda: own

    def spread(self, arrays: Tensors, owners: Owners, dtype: torch.dtype) -> Arrival:
        """Every process sends its arrays, end to end, to all others."""
        of = [[name for name, owner in owners.items() if owner == r] for r in range(self.wire.size)]
        mine = _flat([arrays[name] for name in of[self.wire.rank]], dtype, self.wire.device)
        flight = self.wire.publish(mine, [sum(prod(self._shapes[n]) for n in names) for names in of])

        def arrived() -> Tensors:
            return {
                name: x
                for names, buffer in zip(of, flight.wait(), strict=True)
                for name, x in _cut(buffer, {name: self._shapes[name] for name in names}).items()
            }

        return arrived


class Sharded:
    """Every process holds some of the first axis of every array."""

    sharded = True

    def __init__(self, wire: Wire, parameters: Tensors) -> None:
        self.wire = wire
        self._pieces = {name: _pieces(tuple(p.shape), wire.size) for name, p in parameters.items()}
        for name, p in parameters.items():
            held = tuple(local(p).shape)
            assert held == self._pieces[name][wire.rank], (name, held)
        self.starts: Mapping[str, int] = {
            name: sum(map(prod, shapes[: wire.rank])) for name, shapes in self._pieces.items()
        }

    def collect(self, pieces: Tensors, owners: Owners, dtype: torch.dtype) -> Arrival:
        of = self._of(owners)
        own = of[self.wire.rank]
        sent = _flat([pieces[name] for names in of for name in names], dtype, self.wire.device)
        splits = [sum(pieces[name].numel() for name in names) for names in of]
        lengths = [sum(prod(self._pieces[name][r]) for name in own) for r in range(self.wire.size)]
        flight = self.wire.exchange(sent, splits, lengths)

        def arrived() -> Tensors:
            parts = [_cut(x, {name: self._pieces[name][r] for name in own}) for r, x in enumerate(flight.wait())]
            return {name: torch.cat([part[name] for part in parts]) for name in own}

        return arrived

    def spread(self, arrays: Tensors, owners: Owners, dtype: torch.dtype) -> Arrival:
        of, rank = self._of(owners), self.wire.rank
        cut = {name: torch.split(arrays[name], [shape[0] for shape in self._pieces[name]]) for name in of[rank]}
        parts = [[cut[name][r] for name in of[rank]] for r in range(self.wire.size)]
        sent = _flat([x for part in parts for x in part], dtype, self.wire.device)
        here = [{name: self._pieces[name][rank] for name in names} for names in of]
        lengths = [sum(map(prod, shapes.values())) for shapes in here]
        flight = self.wire.exchange(sent, [sum(x.numel() for x in part) for part in parts], lengths)

        def arrived() -> Tensors:
            return {
                name: x
                for shapes, buffer in zip(here, flight.wait(), strict=True)
                for name, x in _cut(buffer, shapes).items()
            }

        return arrived

    def _of(self, owners: Owners) -> list[list[str]]:
        return [[name for name, owner in owners.items() if owner == r] for r in range(self.wire.size)]


def _pieces(shape: tuple[int, ...], processes: int) -> list[tuple[int, ...]]:
    """The shapes of all pieces of an array that is cut along its first axis."""
    rows, *rest = shape
    each = -(-rows // processes)
    ends = [min(rows, each * r) for r in range(processes + 1)]
    return [(ends[r + 1] - ends[r], *rest) for r in range(processes)]


def _flat(arrays: Sequence[torch.Tensor], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """All elements end to end."""
    return torch.cat([torch.empty(0, dtype=dtype, device=device), *[x.reshape(-1) for x in arrays]])


def _cut(buffer: torch.Tensor, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """The inverse."""
    parts = torch.split(buffer, [prod(shape) for shape in shapes.values()])
    return {name: x.reshape(shape) for (name, shape), x in zip(shapes.items(), parts, strict=True)}
