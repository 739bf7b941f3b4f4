"""The same row in other words: legitimate ways to write an update, equal in real numbers.

    plain       as the core has it
    textbook    m+ = β m + c g,   z = μ m+ + c_μ g,   θ+ = a θ + η u
                with β = 1 − c, μ = 1 − c_μ and a = 1 − c_a made on the host and rounded once; cautious shrink
                gives θ+ = (θ − c_a θ) + η u
                averaged: z+ = a z + η u (if z shrinks), x+ = (1 − c) x + c z+, y+ = β x+ + (1 − β) z+
                on spheres: Ŵ ← cos φ Ŵ + sin φ D
                rotations: W (I + X + X²/2) as W + W X + (W X) X/2, summed from left to right

Parts within parts are reworded, too, and parts that add something to one of these.

Each form turns a row into one that the core's `step` carries out in any namespace. Scalars must be floats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from dualopt.estimators.adam import Moments
from dualopt.estimators.shampoo import Factors
from dualopt.estimators.sophia import Curved
from dualopt.memory import Memories, Readout
from dualopt.motion import Additive, Averaged, Multiplicative, Targeted, Transported
from dualopt.motion.held import Held
from dualopt.motion.settled import Settled
from dualopt.motion.sphere import Geodesic, SingleHalfLife, moves
from dualopt.part import key
from dualopt.recursion import Array, Arrays, Namespace, Row, Scalars
from dualopt.shrink import Cautious, Shrink
from dualopt.signal import AMBIENT

Form = Callable[[Row], Row]


@dataclass(frozen=True)
class RetainedMemories(Memories):
    """m+ = β m + c_m g and v+ = β v + c_v g²."""

    def __call__(self, xp: Namespace, state: Arrays, g: Arrays, k: Scalars) -> Arrays:
        s = {}
        for channel, x in g.items():
            if self.first:
                name = key("m", channel)
                s[name] = (1 - k["c_m"]) * state[name] + k["c_m"] * x
            if self.second:
                name, square = key("v", channel), s[key("m", channel)] if self.of_memory else x
                s[name] = (1 - k["c_v"]) * state[name] + k["c_v"] * (square * square)
        return s


@dataclass(frozen=True)
class WeightedReadout(Readout):
    """z = μ m + c_μ g, corrected as ever."""

    def __call__(self, xp: Namespace, s: Arrays, g: Array, k: Scalars) -> Array:
        z = (1 - k["c_mu"]) * s["m"] + k["c_mu"] * g
        return k["r_m"] * z if self.corrected else z


def _retained(shrink: Shrink, xp: Namespace, theta: Array, u: Array, k: Scalars) -> Array:
    """The shrunk weights."""
    if isinstance(shrink, Cautious):
        return theta - shrink(xp, theta, u, k)
    return (1 - k["c_a"]) * theta


@dataclass(frozen=True)
class RetainedAdditive(Additive):
    """θ+ = a θ + η u: the shrunk weights first."""

    def __call__(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        along = u[AMBIENT]
        return _retained(self.shrink, xp, theta, along, k) + k["eta"] * along, s


@dataclass(frozen=True)
class RetainedSettled(RetainedAdditive, Settled):
    """The same; its step is of the host."""


@dataclass(frozen=True)
class RetainedTargeted(Targeted):
    """The same with the η that brings the group to its RMS."""

    def __call__(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        along = u[AMBIENT]
        pooled = k if "sum_wu" in k else {**k, **self.pool(xp, theta, u, k)}
        return _retained(self.shrink, xp, theta, along, k) + self.solve(xp, pooled) * along, s


@dataclass(frozen=True)
class StepFirst(Held):
    """(θ + η u) − d P∘θ."""

    def __call__(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        along = u[AMBIENT]
        pooled = k if "sum_pp" in k else {**k, **self.pool(xp, theta, u, k)}
        lost = self.shrink(xp, theta, along, {**k, "c_a": self.solve(xp, pooled)})
        return (theta + k["eta"] * along) - lost, s


@dataclass(frozen=True)
class WeightedAveraged(Averaged):
    """z+ = a z + η u, x+ = (1 − c) x + c z+, y+ = β x+ + (1 − β) z+."""

    def lead(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> Array:
        along = u[AMBIENT]
        if self.shrink_at == "z":
            return _retained(self.shrink, xp, s["z"], along, k) + k["eta"] * along
        return (s["z"] - self.shrink(xp, theta, along, k)) + k["eta"] * along

    def average(self, xp: Namespace, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        x = (1 - k["c_x"]) * s["x"] + k["c_x"] * s["z"]
        return (1 - k["c_y"]) * x + k["c_y"] * s["z"], {**s, "x": x}


@dataclass(frozen=True)
class TurnedGeodesic(Geodesic):
    def turn(self, xp: Namespace, w: Array, along: Array, k: Scalars) -> tuple[Array, Array]:
        """cos φ Ŵ + sin φ D."""
        d = self.ahead(xp, w, along)
        return (1 - k["c_turn"]) * w + k["s_turn"] * d, moves(xp, d)


@dataclass(frozen=True)
class TurnedSingle(TurnedGeodesic, SingleHalfLife):
    """The same by the angle of a half-life."""


@dataclass(frozen=True)
class SummedMultiplicative(Multiplicative):
    """W + W X + (W X) X/2, from left to right."""

    def _right(self, xp: Namespace, w: Array, x: Array) -> Array:
        if self.exponential == "cayley":
            return super()._right(xp, w, x)
        wx = xp.matmul(w, x)
        return (w + wx) + xp.matmul(0.5 * wx, x)


@dataclass(frozen=True)
class SummedTransported(Transported, SummedMultiplicative):
    """The same of weights and memory."""


@dataclass(frozen=True)
class RetainedFactors(Factors, RetainedMemories):
    """m+ = β m + c g beside L and R."""


@dataclass(frozen=True)
class RetainedMoments(Moments, RetainedMemories):
    """The same with squares that were measured."""


@dataclass(frozen=True)
class RetainedCurved(Curved, RetainedMemories):
    """m+ = β m + c g beside h."""


_IN_WORDS: dict[type[Any], type[Any]] = {
    Memories: RetainedMemories,
    Moments: RetainedMoments,
    Factors: RetainedFactors,
    Curved: RetainedCurved,
    Readout: WeightedReadout,
    Additive: RetainedAdditive,
    Settled: RetainedSettled,
    Targeted: RetainedTargeted,
    Held: StepFirst,
    Averaged: WeightedAveraged,
    Geodesic: TurnedGeodesic,
    SingleHalfLife: TurnedSingle,
    Multiplicative: SummedMultiplicative,
    Transported: SummedTransported,
}


def _reworded(part: Any) -> Any:
    """The part in textbook form, and those within it."""
    if not is_dataclass(part) or isinstance(part, type):
        return part
    kind = _IN_WORDS.get(type(part), type(part))
    return kind(**{f.name: _reworded(getattr(part, f.name)) for f in fields(part)})


def textbook(row: Row) -> Row:
    """The row in the form of textbooks and of most libraries."""
    found: Row = _reworded(row)
    return found


FORMS: dict[str, Form] = {"plain": lambda row: row, "textbook": textbook}
