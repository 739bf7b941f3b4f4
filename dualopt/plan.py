"""The host side of training: which parameter gets which row, and the scalars of every update.

A `Plan` is made from a recipe and the shapes of the parameters. For each update it *proposes* clocks and
scalars without changing anything, and *commits* them once the arrays have been updated, so an error in
between leaves no trace. Backends carry a proposal out (see `executor`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from . import cautions
from .clock import Clock
from .counts import LARGEST_COUNT, increment
from .errors import CheckpointError, CountError, GradientError, RecipeError, nearest
from .planned import bind
from .proposal import Cohort, Proposal
from .recipe import Recipe
from .recursion import Shape
from .storage import HALF

RUN = ""  # the name under which counts hold the run's own τ
LARGEST_SQUARED = 2.0**63  # its square, and that over a bias correction, are float32 numbers
MOST_UPDATES = 2**22  # that `set_out` sums over: some seconds


class Plan:
    """A recipe bound to parameters, and the counts that they have lived.

    Args:
        recipe: what to do.
        shapes: {parameter name: shape}, in model order.
        float64: the working type is float64 (unstated polar methods are then exact).
        layout: of convolution kernels.
        dtypes: {parameter name: "bfloat16", ...}; those that are left out are not of half precision.

    Raises:
        RecipeError: as `Recipe.assign`.
    """

    def __init__(
        self,
        recipe: Recipe,
        shapes: Mapping[str, Shape],
        *,
        float64: bool = False,
        layout: str = "channels_first",
        dtypes: Mapping[str, str] | None = None,
    ) -> None:
        self.recipe = recipe = recipe.fitted(shapes)
        assigned = recipe.assign(shapes)
        halved = {assigned[name] for name, dtype in (dtypes or {}).items() if dtype in HALF}
        own: list[dict[str, Shape]] = [
            {n: shapes[n] for n in shapes if assigned[n] == i} for i in range(len(recipe.groups))
        ]
        self.groups = tuple(
            bind(g, own[i], recipe, float64=float64, layout=layout, half=i in halved)
            for i, g in enumerate(recipe.groups)
        )
        self.group_of = assigned
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.tau = 0  # of the run: what schedules read
        self._live(dict.fromkeys(shapes, 0), {name: {} for name in shapes})
        self._shaped = tuple(planned.row.shaped for planned in self.groups)
        unit = recipe.count.to_base(1.0)
        self._schedule = recipe.schedule.scaled(unit)
        self._shrink_schedule = recipe.shrink_schedule and recipe.shrink_schedule.scaled(unit)
        cautions.unstated(recipe.count, self.groups)

    def largest(self, name: str) -> float:
        """The largest entry of a gradient of this parameter: neither signal nor memory of squares may overflow."""
        planned = self.groups[self.group_of[name]]
        needs, view, largest = planned.row.needs, planned.views[name], planned.row.signal.largest
        if "c_nu" in needs:  # of squared lengths
            return min(largest, LARGEST_SQUARED / math.sqrt(max(view.size, 1)))
        if "c_f" in needs:  # squares of all entries are added up
            return min(largest, LARGEST_SQUARED / math.sqrt(max(1, math.prod(view.seen[-2:]))))
        return min(largest, LARGEST_SQUARED if "c_v" in needs else math.inf)

    @cached_property
    def harmless(self) -> float:
        """A length up to which any gradient can be worked with; finite in float32."""
        return min([2.0**127, *(self.largest(name) for name in self.shapes)])

    def known(self, name: str) -> None:
        """GradientError for a name that is not a parameter of the plan."""
        if name not in self.group_of:
            raise GradientError(f"gradient of {name!r}: no such parameter{nearest(name, self.group_of)}")

    @property
    def counts(self) -> dict[str, int]:
        """The count of each parameter: what bias corrections read."""
        self._settle()
        return self._counts

    @property
    def sums(self) -> dict[str, Mapping[str, float]]:
        """The running sums of each parameter: see `Clock`."""
        self._settle()
        return self._sums

    def _live(self, counts: dict[str, int], sums: dict[str, Mapping[str, float]]) -> None:
        """Go on from these counts and running sums."""
        self._counts, self._sums = counts, sums
        self._last: tuple[Cohort, ...] = ()  # of the last update; an update of the same names needs no others
        self._names: tuple[str, ...] = ()
        self._settled = True

    def _settle(self) -> None:
        """Write the clocks of the last update down by name, where that was put off."""
        if not self._settled:
            for cohort in self._last:
                self._counts |= dict.fromkeys(cohort.names, cohort.clock.tau)
                self._sums |= dict.fromkeys(cohort.names, cohort.clock.sums)
            self._settled = True

    @property
    def scheduled(self) -> bool:
        """True if the recipe itself moves the step."""
        return self.recipe.schedule.shape != "constant" or self.recipe.schedule.warmup > 0

    def propose(
        self,
        count: int | None,
        names: Iterable[str],
        actions: Sequence[Mapping[str, Any]] | None = None,
        steps: Sequence[float] | None = None,
    ) -> Proposal:
        """The clocks and scalars of the update that adds `count` to the parameters `names`.

        Args:
            count: Δτ in the base unit; None for the recipe's `per_update`.
            names: the parameters that have gradients; the others neither move nor age.
            actions: the coordinates of each group, where they may have been changed since the start.
            steps: η of each group where something else than the recipe sets it.

        Raises:
            CountError: `count` is not a positive integer, or takes the run past 2⁶³ − 1.
            GradientError: a name that is not a parameter of the plan.
            RecipeError: coordinates so large or small that no scalars can be made from them.
        """
        dtau = self.recipe.count.per_update if count is None else increment(count)
        if self.tau + dtau > LARGEST_COUNT:
            raise CountError(f"count: {dtau} after {self.tau} is past 2^63 - 1; count in a larger unit")
        try:
            return self._proposed(dtau, tuple(names), actions, steps)
        except ArithmeticError as error:
            raise RecipeError(
                f"an update of {dtau} after {self.tau} has no scalars in float64 ({error}); "
                "state coordinates of usual size"
            ) from error

    def _proposed(
        self,
        dtau: int,
        chosen: tuple[str, ...],
        actions: Sequence[Mapping[str, Any]] | None,
        steps: Sequence[float] | None,
    ) -> Proposal:
        drives = [self._drive(i, dtau, actions, steps) for i in range(len(self.groups))]
        cohorts = []
        for cohort in self._last if chosen == self._names else self._cohorts(chosen):
            action, q, q_shrink = drives[cohort.group]
            row, clock = self.groups[cohort.group].row, cohort.clock.tick(dtau, q, q_shrink)
            clock = replace(clock, sums=row.tally(action, clock))
            cohorts.append(replace(cohort, clock=clock, scalars=row.scalars(action, clock, cohort.shape)))
        return Proposal(dtau, chosen, tuple(cohorts), tuple(action.get("step", 0.0) * q for action, q, _ in drives))

    def _cohorts(self, names: tuple[str, ...]) -> list[Cohort]:
        """These parameters by what they have lived: up to now, without scalars."""
        found: dict[tuple[int, Shape, int, tuple[tuple[str, float], ...]], list[str]] = {}
        counts, sums = self.counts, self.sums
        for name in names:
            self.known(name)
            i = self.group_of[name]
            shape = self.groups[i].views[name].logical if self._shaped[i] else ()
            found.setdefault((i, shape, counts[name], tuple(sums[name].items())), []).append(name)
        return [
            Cohort(i, tuple(alike), shape, Clock(tau, 0, sums=dict(lived)), {})
            for (i, shape, tau, lived), alike in found.items()
        ]

    def _drive(
        self, i: int, dtau: int, actions: Sequence[Mapping[str, Any]] | None, steps: Sequence[float] | None
    ) -> tuple[Mapping[str, Any], float, float]:
        """(coordinates, q, q_shrink) of group i for the next update."""
        action = self.groups[i].action if actions is None else {**self.groups[i].action, **actions[i]}
        tau = self.tau + dtau
        if steps is None:
            q, q_shrink = self.scheduled_at(tau, dtau, action.get("shrink_half_life", math.inf))
        else:
            name, peak = self.groups[i].group.name, action.get("step", 0.0)
            if steps[i] and "step" not in action:
                raise RecipeError(
                    f"group {name!r}: {self.groups[i].row.name} has no step, so lr cannot be {steps[i]!r}"
                )
            if steps[i] and not peak:
                raise RecipeError(f"group {name!r}: step = 0 is the peak of η, which {steps[i]!r} exceeds")
            q = steps[i] / peak if peak else 1.0
            if q > 1 and action.get("shrink") == "corrected":
                raise RecipeError(
                    f"group {name!r}: shrink = 'corrected' is relative to the peak step = {peak!r}, which "
                    f"{steps[i]!r} exceeds; state the highest η as the step"
                )
            q_shrink = q if self.recipe.schedule.drives == "both" else 1.0
            if self._shrink_schedule is not None:
                q_shrink = self._shrink_schedule.q(tau)
        return action, q, q_shrink

    def scheduled_at(self, tau: int, dtau: int, shrink_half_life: float) -> tuple[float, float]:
        """(q, q_shrink) that the recipe has for the update from `tau − dtau` to `tau` with this shrink half-life."""
        q, q_shrink = self._schedule.at(tau, dtau, shrink_half_life, self.recipe.count.per_update)
        return q, q_shrink if self._shrink_schedule is None else self._shrink_schedule.q(tau)

    def current_step(self, i: int) -> float:
        """η of the last update of group i under the recipe's schedule."""
        return self.step_at(i, self.tau)

    def step_at(self, i: int, tau: int) -> float:
        """The same for the update that ended at `tau`; the peak before the first one.

        Raises:
            CountError: a schedule that cannot be followed so far.
        """
        planned, per_update = self.groups[i], self.recipe.count.per_update
        if not tau:
            return planned.step
        q, _ = self._schedule.at(tau, min(per_update, tau), planned.shrink_half_life, per_update)
        return planned.step * q

    def commit(self, proposal: Proposal) -> None:
        """Make the proposal's clocks the present; call when the arrays have been updated."""
        if proposal.names != self._names:
            self._settle()
        self.tau += proposal.dtau
        self._last, self._names, self._settled = proposal.cohorts, proposal.names, False

    def saved_counts(self) -> dict[str, int]:
        """The count of every parameter, and under `RUN` that of the run."""
        return {RUN: self.tau, **self.counts}

    def set_out(self, count: int) -> None:
        """Begin at `count` instead of 0, as if all parameters had lived through updates of the usual size.

        Running sums are those of such a life, whose first update is smaller if the size does not divide `count`.

        Raises:
            RecipeError: too many updates to sum over.
        """
        usual = self.recipe.count.per_update
        lived = dict.fromkeys(range(len(self.groups)), Clock(0, 0))
        summing = [i for i, planned in enumerate(self.groups) if planned.sums]
        ends = range(count % usual or usual, count + 1, usual) if summing else ()
        if len(ends) > MOST_UPDATES:
            raise RecipeError(
                f"a count of {count} is {len(ends)} updates of per_update = {usual}, too many to sum over; "
                "state the per_update of the run"
            )
        self.tau = 0
        for tau in ends:
            for i in summing:
                action, q, q_shrink = self._drive(i, tau - self.tau, None, None)
                clock = lived[i].tick(tau - self.tau, q, q_shrink)
                lived[i] = replace(clock, sums=self.groups[i].row.tally(action, clock))
            self.tau = tau
        self.tau = count
        self._live(dict.fromkeys(self.counts, count), {name: lived[i].sums for name, i in self.group_of.items()})

    def saved_sums(self) -> dict[str, dict[str, float]]:
        """The running sums of the parameters that have some."""
        return {name: dict(sums) for name, sums in self.sums.items() if sums}

    def restore(self, saved: Mapping[str, int], sums: Mapping[str, Mapping[str, float]]) -> None:
        """Continue from `saved_counts` and `saved_sums`.

        Raises:
            CheckpointError: as `check`; nothing has changed then.
        """
        self.check(saved, sums)
        counts = {name: count for name, count in saved.items() if name != RUN}
        self.tau = saved[RUN]
        self._live(counts, {name: dict(sums.get(name, {})) for name in counts})

    def check(self, saved: Mapping[str, int], sums: Mapping[str, Mapping[str, float]]) -> None:
        """CheckpointError unless these are saved counts and sums of this plan's parameters and rows."""
        tau, counts = saved.get(RUN, -1), {name: count for name, count in saved.items() if name != RUN}
        if set(counts) != set(self.counts):
            odd = sorted(set(counts) ^ set(self.counts))[0]
            raise CheckpointError(
                f"saved counts are of other parameters than this model's: {odd!r} is on one side only"
            )
        whole = all(type(c) is int and 0 <= c <= tau for c in (*counts.values(), tau))
        if not whole or tau > LARGEST_COUNT:
            raise CheckpointError(
                "saved counts are not whole numbers between 0 and the count of the run, which is at most 2^63 - 1"
            )
        for name in {*counts, *sums}:
            self._check_sums(name, sums.get(name, {}), counts.get(name, 0))
        try:
            for i in range(len(self.groups)):
                self.step_at(i, tau)
        except CountError as error:
            raise CheckpointError(f"saved counts reach {tau}: {error}") from error

    def _check_sums(self, name: str, sums: Mapping[str, float], count: int) -> None:
        """CheckpointError unless these are the sums that a parameter of this age has."""
        planned = self.groups[self.group_of[name]] if name in self.group_of else None
        keys = planned.sums if planned and count else ()
        if set(sums) != set(keys) or not all(math.isfinite(x) for x in sums.values()):
            raise CheckpointError(f"saved running sums of {name!r} are {dict(sums)}; its row keeps {sorted(keys)}")
