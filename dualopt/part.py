"""What the parts of a row have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .clock import Clock
from .recursion import Action, Arrays, Shape


@dataclass(frozen=True)
class Stage:
    """A part that is elementwise and needs neither scalars nor sums, unless a subclass says otherwise.

    Subclasses are frozen dataclasses, so parts, and with them rows, compare and hash by value.
    """

    local: ClassVar[bool] = True
    averages: ClassVar[bool] = False  # of motions: weights are evaluated at another point than θ
    whole: ClassVar[bool] = False
    shaped: ClassVar[bool] = False
    unit: ClassVar[bool] = False  # of directions: of length 1, however long the gradients are
    degree: ClassVar[float | None] = None  # of directions: gradients times c > 0, all of them, give u times c^degree
    linear: ClassVar[bool] = False  # of directions: without products of matrices, though not elementwise
    largest: ClassVar[float] = math.inf  # entry of a gradient that it can work with

    @property
    def apart(self) -> tuple[str, ...]:
        return ()

    def tally(self, action: Action, clock: Clock) -> dict[str, float]:
        return {}

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        return {}


def key(name: str, channel: str) -> str:
    """The state key of memory `name` in `channel`: ``m``, or ``m_in`` for the channel "in"."""
    return f"{name}_{channel}" if channel else name


def in_channel(state: Mapping[str, object], names: tuple[str, ...], channel: str) -> Arrays:
    """The memories of one channel under their plain names."""
    return {name: state[key(name, channel)] for name in names if key(name, channel) in state}
