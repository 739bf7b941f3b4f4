"""One update over all processes.

Elementwise rows are updated where they lie. Of the rows that can be cut (`dualopt.halves`) every process carries out
what is elementwise on what it holds; the directions are shared out by cost (`dualopt.assignment`), over all groups at
once. What is sent travels while elementwise groups are updated. Rows that cannot be cut are carried out whole by every
process that holds them whole, and refused where none does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from dualopt import halves
from dualopt.assignment import assign
from dualopt.errors import DistributionError
from dualopt.plan import Plan
from dualopt.planned import PlannedGroup
from dualopt.views import view

from ..execute import Executor
from ..kernels import working
from ..products import true_float32
from ..route import Tensors, Update, keep
from .dtensors import local, locals_of
from .layouts import Layout


def check(plan: Plan) -> None:
    """DistributionError for the first group that cannot be updated while its parameters are sharded."""
    for planned in plan.groups:
        why = None if planned.row.local else halves.obstacle(planned.row)
        why = why if planned.group.clip is None else "clip needs the norm of whole gradients"
        if why is not None and planned.names:
            raise DistributionError(
                f"group {planned.group.name!r}: {planned.row.name} cannot be carried out on sharded parameters: {why}. "
                "Use DistributedDataParallel, whose processes hold whole parameters, or another row"
            )


def divides(plan: Plan) -> bool:
    """True if there are directions to share out."""
    return any(halves.divisible(planned) and planned.names for planned in plan.groups)


@dataclass(frozen=True)
class Piece:
    """What this process holds of one parameter, after the first half of its update."""

    update: Update
    theta: torch.Tensor
    s: Tensors


@dataclass(frozen=True)
class Held:
    """The pieces of a group of sharded parameters `of`, which lie `at` these addresses."""

    of: Tensors
    at: tuple[int, ...]
    planned: PlannedGroup
    theta: Tensors
    state: Mapping[str, Tensors]


class Divided(Executor):
    """The executor of an optimizer that is one of several."""

    def __init__(self, tier: str, compiled: bool | None, layout: Layout) -> None:
        super().__init__(tier, compiled)
        self.layout = layout
        self._owners: dict[tuple[str, ...], dict[str, int]] = {}
        self._local: dict[str, Held] = {}

    def carry_out(self, updates: Sequence[Update]) -> None:
        """One update of these groups, in place; all processes call this with the same groups and parameters."""
        with true_float32():
            self._carry_out(updates)

    def _carry_out(self, updates: Sequence[Update]) -> None:
        here = [self._held(update) for update in updates] if self.layout.sharded else list(updates)
        opened = [self._storing.whole(u, self.layout.starts) for u in here if u.planned.row.storage is not None]
        self._opened([*(u for u in here if u.planned.row.storage is None), *(o.update for o in opened)])
        for one in opened:
            one.close(self._storing.closing)
            self._elementwise.forget(one.update.planned.group.name)

    def _opened(self, here: Sequence[Update]) -> None:
        """These updates, on tensors that need not be stored otherwise."""
        cut = [update for update in here if halves.divisible(update.planned)]
        others = [update for update in here if not halves.divisible(update.planned)]
        owners = self._assigned(cut)
        if not owners:
            self._all_routed(others)
            return
        dtype = working(next(iter(cut[0].theta.values()))[:0]).dtype
        z: Tensors = {}
        pieces: dict[str, Piece] = {}
        for update in cut:
            self._before(update, owners, z, pieces)
        come = self.layout.collect(z, owners, dtype)
        if self.layout.sharded:
            self._all_routed(others)
        own, z = come(), {}
        u: Tensors = {}
        for update in cut:
            mine = {name: own[name] for name in update.theta if name in own}
            u |= halves.directions(self.xp, update.planned, mine, update.k)
        gone = self.layout.spread(u, owners, dtype)
        if not self.layout.sharded:
            self._all_routed(others)
        self._after(pieces, gone())

    def _all_routed(self, updates: Sequence[Update]) -> None:
        for update in updates:
            self._routed(update)

    def _before(self, update: Update, owners: Mapping[str, int], z: Tensors, pieces: dict[str, Piece]) -> None:
        row, layout = update.planned.row, self.layout
        for name, x in update.theta.items():
            if name not in owners:  # it is empty
                continue
            theta, evidence = working(x), {key: working(e) for key, e in update.evidence[name].items()}
            kept = update.state[name]
            s, read = halves.before(self.xp, row, theta, kept, evidence, update.k[name])
            keep(kept, s)
            pieces[name] = Piece(update, theta, {**s, **kept})
            if layout.sharded or owners[name] == layout.wire.rank:
                z[name] = read

    def _after(self, pieces: Mapping[str, Piece], u: Tensors) -> None:
        for name, piece in pieces.items():
            update = piece.update
            kept = update.state[name]
            moved, s = halves.after(self.xp, update.planned.row, piece.theta, u[name], piece.s, update.k[name], kept)
            update.theta[name].copy_(moved)
            keep(kept, s)

    def _assigned(self, cut: Sequence[Update]) -> dict[str, int]:
        """The process that computes the direction, for every parameter that is not empty."""
        names = tuple(name for update in cut for name in update.theta)
        if names not in self._owners:
            costs = {name: x for update in cut for name, x in halves.costs(update.planned, update.theta).items()}
            self._owners = {names: assign(costs, self.layout.wire.size)}
        return self._owners[names]

    def _held(self, update: Update) -> Update:
        """The same update of what this process holds. Its parameters stay the same objects as long as they are there,
        which is what kernels are kept by."""
        group = update.planned.group.name
        found = self._local.get(group)
        at = tuple(local(x).data_ptr() for x in update.theta.values())
        if found is None or found.of is not update.theta or found.at != at:
            theta = locals_of(update.theta)
            state = {name: locals_of(update.state[name]) for name in theta}
            planned = _of_pieces(update.planned, theta) if update.planned.row.local else update.planned
            found = self._local[group] = Held(update.theta, at, planned, theta, state)
        evidence = {name: locals_of(update.evidence[name]) for name in found.theta}
        return Update(found.planned, found.theta, found.state, evidence, update.k)


def _of_pieces(planned: PlannedGroup, theta: Tensors) -> PlannedGroup:
    """The same elementwise group, whose parameters are these pieces."""
    return replace(planned, views={name: view(tuple(x.shape), least_ndim=0) for name, x in theta.items()})
