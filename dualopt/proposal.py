"""One update before it happens: which parameters take which scalars."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

from .clock import Clock
from .recursion import Shape


@dataclass(frozen=True)
class Cohort:
    """Parameters of a group that have lived the same, and take the same scalars.

    Attributes:
        group: its index.
        names: of the parameters.
        shape: the logical shape of them all; of no meaning where scalars do not depend on it.
        clock: of the update.
        scalars: k.
    """

    group: int
    names: tuple[str, ...]
    shape: Shape
    clock: Clock
    scalars: dict[str, float]


@dataclass(frozen=True)
class Proposal:
    """One update before it happens: nothing in the plan has changed yet."""

    dtau: int
    names: tuple[str, ...]
    cohorts: tuple[Cohort, ...]  # a partition of the names
    steps: tuple[float, ...]  # η of each group

    def only(self, names: Collection[str]) -> Proposal:
        """The same update of these parameters alone."""
        cohorts = (replace(c, names=tuple(n for n in c.names if n in names)) for c in self.cohorts)
        return replace(
            self, names=tuple(n for n in self.names if n in names), cohorts=tuple(c for c in cohorts if c.names)
        )

    @cached_property
    def clocks(self) -> dict[str, Clock]:
        """{name: clock}."""
        return {name: cohort.clock for cohort in self.cohorts for name in cohort.names}

    @cached_property
    def scalars(self) -> dict[str, dict[str, float]]:
        """{name: k}; those of a cohort are one object."""
        return {name: cohort.scalars for cohort in self.cohorts for name in cohort.names}
