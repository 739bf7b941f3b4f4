"""How θ may move, as a table: what each motion reads besides the row, and how it is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..counts import half_life
from ..lie import SkewPair
from ..memory import Memories
from ..motion import (
    ADDITIVE,
    AVERAGED,
    HYPERBALL,
    MULTIPLICATIVE,
    ROTATIONAL,
    SPHERE,
    TRANSPORTED,
    Additive,
    Averaged,
    Multiplicative,
    Targeted,
    Transported,
)
from ..motion.held import Held
from ..motion.rotational import LISTING, Rotational
from ..motion.settled import Settled
from ..motion.sphere import Geodesic, Hyperball, SingleHalfLife
from ..noise import noise_of
from ..recursion import Direction, Memory, Motion, Signal
from ..shrink import Cautious, Corrected, Direct, Shrink
from ..signal import Gradient

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Refusal:
    """Rows that a motion does not take: `why` completes "MOTION does not take ROW: "."""

    why: str
    when: Callable[[Signal, Memory, Direction], bool]


@dataclass(frozen=True)
class Way:
    """A motion of the catalogue.

    Attributes:
        name: as recipes write it: ``motion = "..."``.
        summary: one line.
        source: where it comes from.
        defaults: the coordinates that it reads, besides those of the row; None: optional.
        build: (options, signal, memory, direction) -> the motion.
        replaces: coordinates of rows that have no meaning under it.
        least_ndim: dimensions that its parameters have at least.
        without: why coordinates that other motions read, or that it replaces, mean nothing under it.
        refuses: the rows that it does not take.
        signal: in whose coordinates rows remember under it, channel by channel; None: their own.
    """

    name: str
    summary: str
    source: str
    defaults: Mapping[str, Any]
    build: Callable[[Options, Signal, Memory, Direction], Motion]
    replaces: tuple[str, ...] = ()
    least_ndim: int = 0
    without: Mapping[str, str] = field(default_factory=dict)
    refuses: tuple[Refusal, ...] = ()
    signal: SkewPair | None = None

    def refusal(self, signal: Signal, memory: Memory, direction: Direction) -> str | None:
        """Why it does not take a row with these parts; None if it does."""
        return next((r.why for r in self.refuses if r.when(signal, memory, direction)), None)


def shrink(o: Options) -> Shrink:
    """The shrink that the options name."""
    return {"direct": Direct(), "corrected": Corrected(), "cautious": Cautious(bool(o.get("strict_mask")))}[o["shrink"]]


def _additive(o: Options, signal: Signal, memory: Memory, direction: Direction) -> Motion:
    if "steady_rms" in o:
        return Settled(shrink(o), noise_of(direction, o))
    if "target_rms" in o:
        return Held(shrink(o)) if o.get("solve") == "shrink" else Targeted(shrink(o))
    return Additive(shrink(o))


def _rotational(o: Options, signal: Signal, memory: Memory, direction: Direction) -> Motion:
    noise, unit, centred = noise_of(direction, o), o["rotation_unit"], bool(o["rotation_centred"])
    return Rotational(noise, unit, centred, o["rotation_algorithm"])


def _sphere(o: Options, signal: Signal, memory: Memory, direction: Direction) -> Motion:
    return SingleHalfLife()


def _hyperball(o: Options, signal: Signal, memory: Memory, direction: Direction) -> Motion:
    return Geodesic() if o["retraction"] == "slerp" else Hyperball()


def _averaged(o: Options, signal: Signal, memory: Memory, direction: Direction) -> Motion:
    return Averaged(shrink(o), o["averaging"], o["shrink_at"], bool(o["averaging_counts"]))


SHRINKING: dict[str, Any] = {"shrink_half_life": math.inf, "shrink": "direct", "strict_mask": None}

AVERAGING: dict[str, Any] = {
    "interpolation": 0.9,
    "shrink_at": "z",
    "averaging": "step",
    "averaging_power": 0.0,
    "averaging_counts": False,
}
PION = "Pion, arXiv 2605.12492"
ROTATING: dict[str, Any] = {"exponential": "taylor", "alternate": False}
NOT_ROTATING = dict.fromkeys(
    SHRINKING, "rotations keep the singular values: nothing shrinks, and the step is an angle scale"
) | {
    "target_rms": "rotations keep the RMS of the weights",
    "l2": "the gradient λW of the penalty has no part along a rotation",
}
REMEMBERS = Refusal("it remembers more than m and v", lambda signal, memory, direction: type(memory) is not Memories)
MEASURES = Refusal("it reads more than the gradient", lambda signal, memory, direction: type(signal) is not Gradient)
COUPLES = Refusal(
    "its direction is not elementwise, and would not be skew", lambda signal, memory, direction: not direction.local
)
NO_ANGLE = Refusal(
    "it turns by the memory_half_life, and this row has none",
    lambda signal, memory, direction: "c_m" not in memory.needs,
)
FORGETS = Refusal(
    "it has no memory m to turn with the weights", lambda signal, memory, direction: "c_m" not in memory.needs
)
TARGETS: dict[str, Any] = {"target_rms": None, "solve": None, "steady_rms": None, "correlation": None}
TURNING: dict[str, Any] = {
    "shrink_half_life": half_life(math.sqrt(1 - 2e-4), 1),  # lr · weight_decay = 1e-4
    "rotation_memory_half_life": half_life(0.99, 1),
    "rotation_unit": "row",
    "rotation_centred": True,
    "rotation_algorithm": LISTING,
    "rotation_eps": 1e-8,
    "correlation": None,
}

WAYS = {
    w.name: w
    for w in (
        Way(ADDITIVE, "θ+ = a θ + η u", "", SHRINKING | TARGETS, _additive),
        Way(
            AVERAGED,
            "z moves additively; its weighted mean x is evaluated, gradients are taken between them",
            "arXiv 2405.15682, 2605.23061",
            SHRINKING | AVERAGING,
            _averaged,
        ),
        Way(
            MULTIPLICATIVE,
            "W+ = E(X_out) W E(X_in), rotations; memories of the skew gradients",
            PION,
            ROTATING,
            lambda o, signal, memory, direction: Multiplicative(o["exponential"], o["alternate"]),
            replaces=("l2",),
            least_ndim=2,
            without=NOT_ROTATING,
            refuses=(MEASURES, REMEMBERS, COUPLES),
            signal=SkewPair(),
        ),
        Way(
            TRANSPORTED,
            "the same with memories of the gradient, which turn with the weights",
            PION,
            ROTATING,
            lambda o, signal, memory, direction: Transported(o["exponential"], o["alternate"]),
            replaces=("l2",),
            least_ndim=2,
            without=NOT_ROTATING,
            refuses=(REMEMBERS, FORGETS),
        ),
        Way(
            ROTATIONAL,
            "rows or matrices of fixed length turn by the angle of their equilibrium",
            "arXiv 2305.17212",
            TURNING,
            _rotational,
            ("step", "l2"),
            2,
        ),
        Way(
            SPHERE,
            "matrices of fixed RMS turn by arccos of the memory's retention",
            "JiHa-Kim, RMS spheres",
            {},
            _sphere,
            ("step", "l2"),
            2,
            refuses=(NO_ANGLE,),
        ),
        Way(
            HYPERBALL,
            "matrices of fixed RMS take a step and are retracted",
            "JiHa-Kim, Hyperball",
            {"step": 0.025598, "retraction": "normalise"},
            _hyperball,
            ("l2",),
            2,
        ),
    )
}
