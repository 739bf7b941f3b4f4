"""The tree of arrays behind an optimizer, as `mx.compile` and checkpoints see it.

    step, learning_rate    as MLX users know them: number of updates, η of the first group
    count, counts          τ of the run, and of every parameter in alphabetical order
    sums                   only if rows have running sums: their float64 as two uint32 words each, in alphabetical
                           order of names, and of keys within; 0 before the first update of a parameter
    memory                 {name: {key: array}}, float32, in the parameter's shape
    scalars                {slot: {scalar: 0-d float32}}: what `advance` fills
    control                fresh (scalars not used yet), increment (Δτ), sums (after the update), and what a
                           compiled update has to report: missed (updates without fresh scalars), nonfinite (1 +
                           index of the name)

The dictionaries live as long as the optimizer and only their arrays are replaced, so a compiled function
that captured the tree keeps seeing it. What a compiled update did is known on the device first; the host
reads it when it is needed.

Parameters of one group and shape share a slot until their counts or sums differ. Slots only ever split: a new
assignment has more arrays, for which `mx.compile` traces again instead of reusing the old assignment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from dualopt.errors import CheckpointError, StaleScalarsError
from dualopt.plan import RUN, Plan
from dualopt.proposal import Proposal

from .parameters import flatten, traced

Memory = dict[str, dict[str, mx.array]]
Tree = dict[str, Any]

Sums = dict[str, dict[str, float]]

TRANSIENT = ("scalars.", "control.")  # saved with the rest, and made anew by the next `advance`


@dataclass(frozen=True)
class Report:
    """What the device knows: see the module."""

    fresh: bool
    missed: int
    nonfinite: str | None
    updates: int
    counts: dict[str, int]  # as `Plan.saved_counts`
    sums: Sums  # as `Plan.saved_sums`


class State:
    """The tree of a plan, with the memories at their start."""

    def __init__(self, plan: Plan, memory: Memory) -> None:
        self._plan = plan
        self.names = tuple(sorted(plan.counts))
        self._summed = tuple((n, key) for n in self.names for key in sorted(plan.groups[plan.group_of[n]].sums))
        self.updates = 0
        of = {name: (i, plan.groups[i].views[name].logical) for name, i in plan.group_of.items()}
        first = {place: slot for slot, place in enumerate(dict.fromkeys(of.values()))}
        self._slot = {name: first[place] for name, place in of.items()}
        self.tree: Tree = {"memory": memory, "scalars": {}, "control": {}}
        self._add_slots(self._slot)
        self.write(plan.groups[0].step)

    def _add_slots(self, names: Iterable[str]) -> None:
        for name in names:
            row = self._plan.groups[self._plan.group_of[name]].row
            self.tree["scalars"].setdefault(str(self._slot[name]), {key: mx.array(0, mx.float32) for key in row.needs})

    def _split_slots(self) -> None:
        """Give parameters whose counts or sums have come to differ slots of their own."""
        slots: dict[tuple[object, ...], int] = {}
        kept: set[int] = set()
        moved: list[str] = []
        for name, slot in self._slot.items():
            place = slot, self._plan.counts[name], *self._plan.sums[name].values()
            if place not in slots:
                slots[place] = slot if slot not in kept else len(self.tree["scalars"]) + len(moved)
                if slot in kept:
                    moved.append(name)
                kept.add(slot)
            self._slot[name] = slots[place]
        self._add_slots(moved)

    def write(self, eta: float) -> None:
        """Make the tree say what the host knows: counts, updates, η, and that no scalars are waiting."""
        plan, tree = self._plan, self.tree
        tree["step"] = mx.array(self.updates, mx.uint64)
        tree["learning_rate"] = mx.array(eta, mx.float32)
        tree["count"] = mx.array(plan.tau, mx.int64)
        tree["counts"] = mx.array(np.array([plan.counts[name] for name in self.names], np.int64))
        if self._summed:
            tree["sums"] = self._words(plan.sums)
        self._control(fresh=False, increment=0)

    def _words(self, sums: Mapping[str, Mapping[str, float]]) -> mx.array:
        """Running sums as an array (sums, 2) of uint32."""
        values = [sums[name].get(key, 0.0) for name, key in self._summed]
        return mx.array(np.array(values, np.float64).view(np.uint32).reshape(-1, 2))

    def _sums(self, words: mx.array | None, counts: Mapping[str, int]) -> Sums:
        """The inverse of `_words`, for the parameters that have been updated."""
        found: Sums = {}
        if words is not None:
            values = np.array(words).view(np.float64).ravel().tolist()
            for (name, key), value in zip(self._summed, values, strict=True):
                if counts[name]:
                    found.setdefault(name, {})[key] = value
        return found

    def _control(self, *, fresh: bool, increment: int) -> None:
        self._written = mx.array(fresh)
        self.tree["control"].update(
            fresh=self._written,
            increment=mx.array(increment, mx.int64),
            missed=mx.array(0, mx.int32),
            nonfinite=mx.array(0, mx.int32),
        )
        if self._summed:
            self.tree["control"]["sums"] = self.tree["sums"]

    def fill(self, proposal: Proposal) -> None:
        """Write the scalars of an update to come."""
        self._split_slots()
        filled = set()
        for name, k in proposal.scalars.items():
            slot = self._slot[name]
            if slot not in filled:
                filled.add(slot)
                self.tree["scalars"][str(slot)].update({key: mx.array(x, mx.float32) for key, x in k.items()})
        self.tree["learning_rate"] = mx.array(proposal.steps[0], mx.float32)
        self._control(fresh=True, increment=proposal.dtau)
        if self._summed:
            after = {name: clock.sums for name, clock in proposal.clocks.items()}
            self.tree["control"]["sums"] = self._words({**self._plan.sums, **after})

    def scalars(self, names: Iterable[str]) -> dict[str, dict[str, mx.array]]:
        """{name: {scalar: 0-d array}}."""
        return {name: self.tree["scalars"][str(self._slot[name])] for name in names}

    def keep(self, memory: Mapping[str, Mapping[str, mx.array]]) -> None:
        """Replace memories, array by array."""
        for name, s in memory.items():
            self.tree["memory"][name].update(s)

    def consume(self, finite: Mapping[str, mx.array]) -> mx.array:
        """The bookkeeping of one traced update, on the device: 0-d, whether the update may happen.

        Args:
            finite: for every parameter with a gradient, whether it is finite; 0-d.
        """
        tree, control = self.tree, self.tree["control"]
        fresh = control["fresh"]
        all_finite = mx.all(mx.stack(list(finite.values()))) if finite else mx.array(True)
        ok = mx.logical_and(fresh, all_finite)
        added = control["increment"] * ok.astype(mx.int64)
        tree["count"] = tree["count"] + added
        tree["counts"] = tree["counts"] + added * mx.array(np.array([name in finite for name in self.names], np.int64))
        if self._summed:
            there = mx.array([[name in finite] for name, _ in self._summed])
            tree["sums"] = mx.where(mx.logical_and(ok, there), control["sums"], tree["sums"])
        tree["step"] = tree["step"] + ok.astype(mx.uint64)
        if finite:
            place = mx.array([1 + self.names.index(name) for name in finite], mx.int32)
            bad = mx.max(mx.where(mx.stack(list(finite.values())), mx.zeros_like(place), place))
            control["nonfinite"] = mx.where(fresh, bad, control["nonfinite"])
        control["missed"] = control["missed"] + mx.logical_not(fresh).astype(mx.int32)
        control["fresh"] = mx.logical_and(fresh, mx.array(False))
        return ok

    @property
    def touched(self) -> bool:
        """Whether a compiled function has replaced arrays since the host last wrote or looked."""
        return self.tree["control"]["fresh"] is not self._written

    def captured(self) -> bool:
        """Whether the tree is held by a function that is being traced.

        Raises:
            StaleScalarsError: it was, and the function did not give the arrays back.
        """
        try:
            return self.touched and traced([self.tree["control"]["fresh"]])
        except RuntimeError as error:
            raise StaleScalarsError(
                "the optimizer's arrays were lost in a compiled function: it raised while it was traced, or its "
                "outputs lack opt.state. Use opt.compile(step), or load a checkpoint into a new optimizer"
            ) from error

    def report(self) -> Report | None:
        """What compiled updates did since the host last wrote; None if there were none.

        Raises:
            StaleScalarsError: the arrays are held by a function that is being traced, or were lost in one.
        """
        if not self.touched:
            return None
        if self.captured():
            raise StaleScalarsError(
                "counts, advance() and snapshots belong to the host: use them outside the compiled function"
            )
        tree, control = self.tree, self.tree["control"]
        bad = control["nonfinite"].item()
        counts = dict(zip(self.names, tree["counts"].tolist(), strict=True))
        report = Report(
            fresh=control["fresh"].item(),
            missed=control["missed"].item(),
            nonfinite=self.names[bad - 1] if bad else None,
            updates=tree["step"].item(),
            counts={RUN: tree["count"].item(), **counts},
            sums=self._sums(tree.get("sums"), counts),
        )
        if report.fresh:
            self._written = control["fresh"]
        return report

    def check(self, saved: Any) -> tuple[dict[str, int], Sums, int, Memory]:
        """(counts, sums, updates, memories) of a saved tree; the tree itself is left as it is.

        Raises:
            CheckpointError: missing or unknown entries, other shapes or dtypes.
        """
        own, flat = _lasting(self.tree), _lasting(saved)
        for name in sorted(own.keys() | flat.keys()):
            x, here = flat.get(name), own.get(name)
            if here is None:
                raise CheckpointError(f"the saved state has {name!r}, which this optimizer does not have")
            if not isinstance(x, mx.array):
                raise CheckpointError(f"the saved state has no array {name!r}; save all of opt.state")
            if x.shape != here.shape or x.dtype != here.dtype:
                raise CheckpointError(
                    f"{name!r} is {x.dtype} {x.shape} in the saved state, {here.dtype} {here.shape} here"
                )
        counts = {RUN: flat["count"].item(), **dict(zip(self.names, flat["counts"].tolist(), strict=True))}
        memory = {name: {key: flat[f"memory.{name}.{key}"] for key in s} for name, s in self.tree["memory"].items()}
        return counts, self._sums(flat.get("sums"), counts), flat["step"].item(), memory


def _lasting(tree: Any) -> dict[str, Any]:
    """{dotted name: array} of what a checkpoint must hold."""
    return {name: x for name, x in flatten(tree).items() if not name.startswith(TRANSIENT)}
