"""How θ may move, as a table: what each motion reads besides the row, and how it is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..counts import half_life
from ..motion import ADDITIVE, HYPERBALL, ROTATIONAL, SPHERE, Additive, Targeted
from ..motion.held import Held
from ..motion.rotational import LISTING, Rotational
from ..motion.settled import Settled
from ..motion.sphere import Geodesic, Hyperball, SingleHalfLife
from ..noise import noise_of
from ..recursion import Direction, Memory, Motion, Signal
from ..shrink import Cautious, Corrected, Direct, Shrink

Options = Mapping[str, Any]


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
    """

    name: str
    summary: str
    source: str
    defaults: Mapping[str, Any]
    build: Callable[[Options, Signal, Memory, Direction], Motion]
    replaces: tuple[str, ...] = ()
    least_ndim: int = 0


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


SHRINKING: dict[str, Any] = {"shrink_half_life": math.inf, "shrink": "direct", "strict_mask": None}

TARGETS: dict[str, Any] = {"target_rms": None, "solve": None, "steady_rms": None, "correlation": None}
ROTATING: dict[str, Any] = {
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
            ROTATIONAL,
            "rows or matrices of fixed length turn by the angle of their equilibrium",
            "arXiv 2305.17212",
            ROTATING,
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
