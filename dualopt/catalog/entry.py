"""What a row of the catalogue consists of before its options are chosen, and how it meets a motion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..counts import half_life
from ..fold import Fold, Mean
from ..motion import ADDITIVE
from ..recursion import Direction, Memory, Signal
from .ways import WAYS

Options = Mapping[str, Any]  # coordinate -> checked value
Parts = tuple[Signal, Memory, Direction]


@dataclass(frozen=True)
class Entry:
    """A named optimizer.

    Attributes:
        name: as recipes write it.
        summary: one line.
        source: arXiv id, or who published it where.
        own: the coordinates that its signal, memory and direction read, and its step, with their defaults.
        parts: options -> signal, memory and direction.
        least_ndim: options -> dimensions that its parameters have at least; 0: any shape, elementwise.
        motion: the one it was published with.
        moving: coordinates of that motion whose defaults are here not the motion's.
        only: coordinate -> the choices that it has in this row, where they are not all.
        ours: what of it is not in the source.
        folds: options -> what is made of several gradients per update, by stream.
    """

    name: str
    summary: str
    source: str
    own: Mapping[str, Any]
    parts: Callable[[Options], Parts]
    least_ndim: Callable[[Options], int] = lambda options: 0
    motion: str = ADDITIVE
    moving: Mapping[str, Any] = field(default_factory=dict)
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ours: str = ""
    folds: Callable[[Options], Mapping[str, Fold]] = lambda options: {"gradient": Mean()}

    def under(self, motion: str) -> dict[str, Any]:
        """All coordinates with their defaults when θ moves by `motion`; None: optional."""
        way = WAYS[motion]
        own = {key: value for key, value in self.own.items() if key not in way.replaces}
        moving = self.moving if motion == self.motion else {}
        return {**own, **way.defaults, **moving, "motion": motion}

    @property
    def defaults(self) -> dict[str, Any]:
        """All coordinates with their defaults, as published."""
        return self.under(self.motion)

    @property
    def uses(self) -> tuple[str, ...]:
        """The coordinates that this row reads, as published."""
        return tuple(self.defaults)


def retained(beta: float) -> float:
    """The half-life, in updates, of a retention per update."""
    return half_life(beta, 1)
