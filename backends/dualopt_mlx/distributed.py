"""Several MLX processes that train one model: directions of whole matrices are shared out, decisions are common.

Every process holds all parameters and is given the same gradients, as `mlx.nn.average_gradients` leaves them. Then
every process holds all memories, too, and an update differs from that of one process only here:

    u of whole matrices    each by one process (`dualopt.halves`, `dualopt.assignment`), gathered once per update
    one decision           what to do is compared by the host before anything changes (`dualopt.agreement`); inside a
                           compiled step a gradient that is not finite anywhere masks the update everywhere

`all_gather` takes as much of every process, so what is shorter is filled up with zeros. In bytes, with P processes of
which p computes N_p entries of u, 4 of them each: P (P − 1) 4 max N_p over all processes; the least is (P − 1) 4 Σ N_p.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import mlx.core as mx
from mlx import nn

from dualopt import halves
from dualopt.agreement import Traffic
from dualopt.assignment import assign
from dualopt.errors import DistributionError
from dualopt.executor import stored
from dualopt.plan import Plan
from dualopt.planned import PlannedGroup
from dualopt.recursion import Scalars
from dualopt.rounding import opened

from .casts import casts
from .namespace import EXACT, FAST
from .parameters import working

Arrays = dict[str, mx.array]
Moved = dict[str, tuple[mx.array, Arrays]]
WORD = 4  # bytes: u is float32


@dataclass(frozen=True)
class Given:
    """One update of a group, as an executor takes it: every mapping by the names of the parameters with gradients."""

    planned: PlannedGroup
    theta: Arrays
    state: Mapping[str, Arrays]
    evidence: Mapping[str, Arrays]
    k: Mapping[str, Scalars]


@dataclass(frozen=True)
class Directed:
    """A parameter after the first half of its update: s+ and the whole u."""

    s: Arrays
    u: mx.array


class Sharing:
    """One of several processes, and what it does with the others.

    Args:
        group: those that hold the same parameters.
        tier: of the optimizer.
    """

    def __init__(self, group: mx.distributed.Group, tier: str) -> None:
        self.group, self.rank, self.size = group, group.rank(), group.size()
        self.traffic = Traffic()
        self._xp = EXACT if tier == "exact" else FAST
        self._casts = casts(self._xp)
        self._owners: dict[tuple[str, ...], dict[str, int]] = {}

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """The largest of each, over all processes."""
        self._decided(len(numbers))
        found: Any = mx.distributed.all_max(mx.array(list(numbers), mx.int64), group=self.group)
        return [int(x) for x in found.tolist()]

    def worst(self, bad: mx.array) -> mx.array:
        """The largest, over all processes, of a 0-d int32 array, on the device."""
        self._decided(0.5)
        return mx.distributed.all_max(bad, group=self.group)

    def directed(self, updates: Sequence[Given]) -> dict[str, Directed]:
        """Every parameter that is not empty of these divisible groups; all processes call this with the same."""
        owners = self._assigned(updates)
        if not owners:  # all are empty
            return {}
        shapes: dict[str, tuple[int, ...]] = {}
        s: dict[str, Arrays] = {}
        own: dict[str, mx.array] = {}
        for update in updates:
            row, z = update.planned.row, dict[str, mx.array]()
            for name, theta in update.theta.items():
                if name in owners:
                    shapes[name] = theta.shape
                    x, kept = opened(row.storage, working, theta, update.state[name])
                    s[name], read = halves.before(self._xp, row, x, kept, update.evidence[name], update.k[name])
                    if owners[name] == self.rank:
                        z[name] = read
            own |= halves.directions(self._xp, update.planned, z, update.k)
        u = self._gathered(own, owners, shapes)
        return {name: Directed(s[name], u[name]) for name in owners}

    def moved(self, update: Given, directed: Mapping[str, Directed]) -> Moved:
        """{name: (θ+, s+)} of one of these groups, as they are stored; empty parameters pass through."""

        def after(planned: PlannedGroup, theta: Arrays, state: Any, evidence: Any, k: Any) -> Moved:
            out = {name: (x, state[name]) for name, x in theta.items()}
            for name in out.keys() & directed.keys():
                (x, kept), found = out[name], directed[name]
                out[name] = halves.after(self._xp, planned.row, x, found.u, found.s, k[name], kept)
            return out

        return stored(after, self._casts)(update.planned, update.theta, update.state, update.evidence, update.k)

    def _gathered(
        self, own: Arrays, owners: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, mx.array]:
        """Every u, from those that are here and those that others have."""
        of = [[name for name, owner in owners.items() if owner == r] for r in range(self.size)]
        lengths = [sum(prod(shapes[name]) for name in names) for names in of]
        longest = max(lengths)
        parts = [mx.reshape(own[name], (-1,)) for name in of[self.rank]]
        filled = mx.concatenate([*parts, mx.zeros(longest - lengths[self.rank])])
        others = WORD * longest * (self.size - 1)
        self.traffic.sent += others
        self.traffic.received += others
        self.traffic.collectives += 1
        rows = mx.reshape(mx.distributed.all_gather(filled, group=self.group), (self.size, longest))
        found: dict[str, mx.array] = {}
        for names, row in zip(of, rows, strict=True):
            at = 0
            for name in names:
                n = prod(shapes[name])
                found[name] = mx.reshape(row[at : at + n], shapes[name])
                at += n
        return found

    def _assigned(self, updates: Sequence[Given]) -> dict[str, int]:
        """The process that computes the direction, for every parameter that is not empty."""
        names = tuple(name for update in updates for name in update.theta)
        if names not in self._owners:
            costs = {name: x for update in updates for name, x in halves.costs(update.planned, update.theta).items()}
            self._owners = {names: assign(costs, self.size)}
        return self._owners[names]

    def _decided(self, numbers: float) -> None:
        self.traffic.decided += int(8 * numbers)
        self.traffic.collectives += 1


def joined(model: Any, plan: Plan, share: mx.distributed.Group | bool | None, tier: str) -> Sharing | None:
    """How an optimizer of `model` works with others; None if it works alone.

    Args:
        share: the processes that hold the same parameters; True: all; None or False: this one alone.

    Raises:
        DistributionError: a matrix is held in pieces by its layer, and its row needs it whole.
    """
    _require_whole(model, plan)
    if share is None or share is False:
        return None
    return Sharing(mx.distributed.init() if share is True else share, tier)


def _require_whole(model: Any, plan: Plan) -> None:
    if not isinstance(model, nn.Module):
        return
    for path, module in model.named_modules():  # type: ignore[no-untyped-call]
        kind = type(module).__name__
        if kind not in ("AllToShardedLinear", "ShardedToAllLinear"):
            continue
        for planned in plan.groups:
            name = next((n for n in planned.names if n.startswith(f"{path}.")), None)
            if name is not None and planned.group.clip is not None:
                raise DistributionError(
                    f"{name!r} is a piece of a matrix: it belongs to a {kind}, and no process knows the length of "
                    f"its gradient. Drop clip of group {planned.group.name!r}, or replicate the layer"
                )
            if name is not None and planned.row.storage is not None and planned.row.storage.random:
                raise DistributionError(
                    f"{name!r} is a piece of a matrix: it belongs to a {kind}, and no process knows the places of its "
                    f"entries. Choose another rounding for group {planned.group.name!r}, or replicate the layer"
                )
            if name is not None and not planned.row.local:
                raise DistributionError(
                    f"{name!r} is a piece of a matrix: it belongs to a {kind}. {planned.row.name} in group "
                    f"{planned.group.name!r} needs whole matrices: give it an elementwise row, or replicate the layer"
                )
