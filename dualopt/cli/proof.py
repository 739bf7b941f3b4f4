"""The proof: recorded gradients through every backend, all parameters and state compared bit by bit.

A closed loop amplifies the rounding of forward and backward passes, so two trainings drift apart whatever
their optimizers do. Here every backend gets the same gradients, and in the exact tier nothing may differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualopt_conformance.metric import bit_differences

from ..digest import digest
from ..errors import RecipeError
from ..recipe import Recipe
from ..replay import drive
from .output import table

Array = np.ndarray[Any, Any]
Named = Mapping[str, Array]


@dataclass(frozen=True)
class Agreement:
    """What was compared between one backend and the first.

    Attributes:
        arrays: parameters and state arrays, counted once per update.
        elements: their elements.
        differing: elements whose bits differ.
        first: the first difference in words, or None.
    """

    backends: tuple[str, str]
    updates: int
    arrays: int
    elements: int
    differing: int
    first: str | None

    @property
    def holds(self) -> bool:
        """True if something was compared, and nothing differs."""
        return self.elements > 0 and self.differing == 0


@dataclass(frozen=True)
class Proof:
    """Every backend against the first, and a digest of the final parameters and state of each."""

    tier: str
    agreements: tuple[Agreement, ...]
    digests: Mapping[str, str]

    @property
    def holds(self) -> bool:
        """True if at least two backends were compared, and all agree."""
        return bool(self.agreements) and all(agreement.holds for agreement in self.agreements)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        compared = [{**vars(a), "backends": list(a.backends), "holds": a.holds} for a in self.agreements]
        return {"tier": self.tier, "holds": self.holds, "agreements": compared, "digests": dict(self.digests)}


def proof_table(proof: Proof, title: str) -> None:
    """One line per pair of backends."""
    columns = ("backends", "updates", "arrays", "elements", "with other bits")
    rows = [
        (" = ".join(a.backends) if a.holds else " / ".join(a.backends), f"{a.updates:,}", f"{a.arrays:,}",
         f"{a.elements:,}", f"{a.differing:,}")
        for a in proof.agreements
    ]  # fmt: skip
    table(title, columns, rows)


def walk(
    recipe: Recipe, params: Named, grads: Sequence[Named], backend: str, tier: str, count: int | None = None
) -> Iterator[dict[str, Array]]:
    """parameter/NAME and state/NAME/KEY of `backend` after every update; `count` is Δτ, None for the recipe's."""
    increments = None if count is None else itertools.repeat(count)
    for moment in drive(recipe, params, grads, increments, backend=backend, tier=tier):
        found = {f"parameter/{name}": x for name, x in moment.params.items()}
        yield found | {f"state/{n}/{key}": x for n, s in moment.state.items() for key, x in s.items()}


def prove(
    recipe: Recipe,
    params: Named,
    grads: Sequence[Named],
    backends: Sequence[str],
    *,
    tier: str = "exact",
    count: int | None = None,
    show: Callable[[int], None] = lambda update: None,
) -> Proof:
    """Drive all `backends` in lockstep over `grads` and compare each with the first after every update.

    `show` is called with the number of every update that has been compared.

    Raises: DualoptError for gradients, parameters, backends or tiers that do not fit.
    """
    walks = [walk(recipe, params, grads, backend, tier, count) for backend in backends]
    tallies = [_Tally() for _ in backends[1:]]
    last: tuple[dict[str, Array], ...] = ()
    for update, last in enumerate(zip(*walks, strict=True), 1):
        for tally, other in zip(tallies, last[1:], strict=True):
            tally.add(update, last[0], other)
        show(update)
    return Proof(
        tier,
        tuple(
            Agreement((backends[0], b), t.updates, t.arrays, t.elements, t.differing, t.first)
            for b, t in zip(backends[1:], tallies, strict=True)
        ),
        {backend: digest(arrays.items()) for backend, arrays in zip(backends, last, strict=bool(last))},
    )


class _Tally:
    """Running totals of one comparison."""

    def __init__(self) -> None:
        self.updates = self.arrays = self.elements = self.differing = 0
        self.first: str | None = None

    def add(self, update: int, one: Named, other: Named) -> None:
        if one.keys() != other.keys():
            raise RecipeError(f"update {update}: {sorted(one.keys() ^ other.keys())[0]!r} is on one side only")
        self.updates = update
        for name, x in one.items():
            differ = bit_differences(x, other[name])
            self.arrays += 1
            self.elements += x.size
            self.differing += int(differ.sum())
            if self.first is None and differ.any():
                index = tuple(int(i) for i in np.argwhere(differ)[0])
                values = f"{float(x[index]).hex()} and {float(other[name][index]).hex()}"
                self.first = f"update {update}: {name} at {list(index)} is {values}"
