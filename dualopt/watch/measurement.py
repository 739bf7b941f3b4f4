"""One measured update: what is kept until the parameters have moved, and the sums of all of them, read at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..planned import PlannedGroup
from ..recursion import Array, Arrays, Namespace, Scalars
from ..rounding import opened
from . import measure

States = Mapping[str, Arrays]


@dataclass(frozen=True)
class Library:
    """What measuring needs of an array library.

    Attributes:
        xp: its fast namespace.
        working: stored array -> the array that is computed with.
        kept: array -> one that keeps its values when the parameter moves.
        joined: 0-d arrays -> one array of them, (n,).
        numbers: that array -> floats.
    """

    xp: Namespace
    working: Callable[[Array], Array]
    kept: Callable[[Array], Array]
    joined: Callable[[Sequence[Array]], Array]
    numbers: Callable[[Array], Sequence[float]]


class Measurement:
    """`before` and `after` for every group of the update, then `joined`; arrays as they are stored."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._points: Arrays = {}
        self._sums: dict[str, Arrays] = {}

    def before(
        self, planned: PlannedGroup, theta: Arrays, state: States, evidence: States, k: Mapping[str, Scalars]
    ) -> None:
        """The update of these parameters is about to happen. Empty ones are not measured."""
        xp, working = self._library.xp, self._library.working
        for name, x in theta.items():
            view = planned.views[name]
            if not view.size:
                continue
            here, rest = opened(planned.row.storage, working, x, state[name])
            kept, seen = planned.seen(xp, name, rest), view.apply(xp, here)
            measured = planned.measured(xp, name, {key: working(y) for key, y in evidence[name].items()})
            point = kept["z"] if planned.row.motion.averages else seen
            self._sums[name] = measure.before(xp, planned.row, seen, kept, measured, k[name], point=point)
            self._points[name] = self._library.kept(self._point(planned, x, state[name]))

    def after(self, planned: PlannedGroup, theta: Arrays, state: States) -> None:
        """The same parameters have been updated."""
        working = self._library.working
        for name in theta:
            if name in self._points:
                moved = self._point(planned, theta[name], state[name])
                sums = measure.after(self._library.xp, working(self._points.pop(name)), working(moved))
                self._sums[name] |= sums

    def _point(self, planned: PlannedGroup, theta: Array, state: Arrays) -> Array:
        """What moves: θ as it is stored, or where its storage keeps more, all of it."""
        if planned.row.motion.averages:
            return state["z"]
        storage = planned.row.storage
        return theta if storage is None else storage.opened(self._library.working, theta, state)

    @property
    def layout(self) -> tuple[tuple[str, str], ...]:
        """(parameter, sum) of every number of `joined`."""
        return tuple((name, key) for name, sums in self._sums.items() for key in sums)

    def joined(self) -> Array | None:
        """All sums in one array, in the order of `layout`; None if nothing was measured."""
        arrays = [x for sums in self._sums.values() for x in sums.values()]
        return self._library.joined(arrays) if arrays else None

    def sums(self) -> dict[str, dict[str, float]]:
        """{parameter: {sum: number}}."""
        joined = self.joined()
        return {} if joined is None else unjoined(self.layout, self._library.numbers(joined))


def unjoined(layout: Sequence[tuple[str, str]], numbers: Sequence[Any]) -> dict[str, dict[str, float]]:
    """{parameter: {sum: number}} of what `Measurement.joined` holds."""
    found: dict[str, dict[str, float]] = {}
    for (name, key), x in zip(layout, numbers, strict=True):
        found.setdefault(name, {})[key] = float(x)
    return found
