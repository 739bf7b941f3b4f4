"""The same row in other words: legitimate ways to write an update, equal in real numbers.

    plain       as the core has it
    textbook    m+ = β m + c g,   z = μ m+ + c_μ g,   θ+ = a θ + η u
                with β = 1 − c, μ = 1 − c_μ and a = 1 − c_a made on the host and rounded once; cautious shrink
                gives θ+ = (θ − c_a θ) + η u

Each form turns a row into one that the core's `step` carries out in any namespace. Scalars must be floats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from dualopt.directions import Descent
from dualopt.memory import Memories, Readout
from dualopt.motion import Additive, Targeted
from dualopt.part import key
from dualopt.recursion import Array, Arrays, Namespace, Row, Scalars
from dualopt.shrink import Cautious
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
                name = key("v", channel)
                s[name] = (1 - k["c_v"]) * state[name] + k["c_v"] * (x * x)
        return s


@dataclass(frozen=True)
class WeightedReadout(Readout):
    """z = μ m + c_μ g, corrected as ever."""

    def __call__(self, xp: Namespace, s: Arrays, g: Array, k: Scalars) -> Array:
        z = (1 - k["c_mu"]) * s["m"] + k["c_mu"] * g
        return k["r_m"] * z if self.corrected else z


def _retained(motion: Additive, xp: Namespace, theta: Array, u: Array, k: Scalars) -> Array:
    """The shrunk weights."""
    if isinstance(motion.shrink, Cautious):
        return theta - motion.shrink(xp, theta, u, k)
    return (1 - k["c_a"]) * theta


@dataclass(frozen=True)
class RetainedAdditive(Additive):
    """θ+ = a θ + η u: the shrunk weights first."""

    def __call__(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        along = u[AMBIENT]
        return _retained(self, xp, theta, along, k) + k["eta"] * along, s


@dataclass(frozen=True)
class RetainedTargeted(Targeted):
    """The same with the η that brings the group to its RMS."""

    def __call__(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        along = u[AMBIENT]
        pooled = k if "sum_wu" in k else {**k, **self.pool(xp, theta, u, k)}
        return _retained(self, xp, theta, along, k) + self.solve(xp, pooled) * along, s


_IN_WORDS: dict[type[Any], type[Any]] = {
    Memories: RetainedMemories,
    Readout: WeightedReadout,
    Additive: RetainedAdditive,
    Targeted: RetainedTargeted,
}


def _reworded(part: Any) -> Any:
    """The part in textbook form; one that has no other form is returned as it is."""
    if type(part) not in _IN_WORDS:
        return part
    return _IN_WORDS[type(part)](**{f.name: getattr(part, f.name) for f in fields(part)})


def textbook(row: Row) -> Row:
    """The row in the form of textbooks and of most libraries."""
    direction = row.direction
    if isinstance(direction, Descent):
        direction = replace(direction, read=_reworded(direction.read))
    return replace(row, memory=_reworded(row.memory), direction=direction, motion=_reworded(row.motion))


FORMS: dict[str, Form] = {"plain": lambda row: row, "textbook": textbook}
