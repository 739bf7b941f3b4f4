"""An update with one polar factor, in three stages: only the second one multiplies matrices.

    before   s, z = before(θ, s, g)        the memories after the gradient, and what is read from them
    factor   o    = factor(z)              the polar factor: (..., m, n), without scalars, matrix by matrix
    after    θ+, s+ = after(θ, s, o)       what is remembered of it, the direction, and the motion

`step` of such a row is the three of them one after the other, operation by operation. A backend may carry the first
and the last out parameter by parameter, in place, and the factors of all parameters of one shape as one stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from . import halves
from .directions import Descent
from .directions.norm_balls import SpectralBall
from .directions.normuon import PolarRows
from .directions.polar import Way
from .recursion import Array, Arrays, Namespace, Row, Scalars
from .signal import AMBIENT, Gradient, GradientPlusL2


class Staged(Protocol):
    """The three stages of a row. Arguments are those of `recursion.step`; s has all keys of the state."""

    @property
    def row(self) -> Row: ...

    @property
    def method(self) -> str:
        """The set of coefficients, or "exact"."""
        ...

    @property
    def way(self) -> Way:
        """How it is iterated."""
        ...

    def before(
        self, xp: Namespace, theta: Array, state: Arrays, evidence: Arrays, k: Scalars
    ) -> tuple[Arrays, Array]: ...
    def factor(self, xp: Namespace, z: Array) -> Array: ...
    def after(self, xp: Namespace, theta: Array, s: Arrays, o: Array, k: Scalars) -> tuple[Array, Arrays]: ...


@dataclass(frozen=True)
class Steepest:
    """Steepest descent in a spectral norm: the factor is in the direction."""

    row: Row
    direction: Descent
    ball: SpectralBall

    @property
    def method(self) -> str:
        return self.ball.method

    @property
    def way(self) -> Way:
        return self.ball.way

    def before(self, xp: Namespace, theta: Array, state: Arrays, evidence: Arrays, k: Scalars) -> tuple[Arrays, Array]:
        return halves.before(xp, self.row, theta, state, evidence, k)

    def factor(self, xp: Namespace, z: Array) -> Array:
        return self.ball.atom(xp, z)

    def after(self, xp: Namespace, theta: Array, s: Arrays, o: Array, k: Scalars) -> tuple[Array, Arrays]:
        return self.row.motion(xp, theta, {AMBIENT: self.ball.along(o, k)}, s, k)


@dataclass(frozen=True)
class RowsOfFactor:
    """The factor is remembered, row by row: it is in the memory."""

    row: Row
    memory: PolarRows

    @property
    def method(self) -> str:
        return self.memory.method

    @property
    def way(self) -> Way:
        return self.memory.way

    def before(self, xp: Namespace, theta: Array, state: Arrays, evidence: Arrays, k: Scalars) -> tuple[Arrays, Array]:
        g = self.row.signal(xp, theta, evidence, k)
        s = {**state, **self.memory.first(xp, state, g, k)}
        return s, self.memory.readout(xp, s, AMBIENT, g[AMBIENT], k)

    def factor(self, xp: Namespace, z: Array) -> Array:
        return self.memory.factor(xp, z)

    def after(self, xp: Namespace, theta: Array, s: Arrays, o: Array, k: Scalars) -> tuple[Array, Arrays]:
        s = {**s, **self.memory.rows(xp, s, AMBIENT, o, k)}
        return self.row.motion(xp, theta, self.row.direction(xp, s, {AMBIENT: o}, k), s, k)


def staged(row: Row) -> Staged | None:
    """The stages of a row with one polar factor of what it remembers; None for other rows, and motions that pool."""
    if type(row.signal) not in (Gradient, GradientPlusL2) or row.motion.pools or row.whole:
        return None
    if type(row.memory) is PolarRows:
        return RowsOfFactor(row, row.memory)
    if row.memory.local and type(row.direction) is Descent and type(row.direction.geometry) is SpectralBall:
        return Steepest(row, row.direction, row.direction.geometry)
    return None
