"""How θ may move, as a table: what each motion reads besides the row, and how it is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..motion import ADDITIVE, AVERAGED, Additive, Averaged, Targeted
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
    return Targeted(shrink(o)) if "target_rms" in o else Additive(shrink(o))


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

WAYS = {
    w.name: w
    for w in (
        Way(ADDITIVE, "θ+ = a θ + η u", "", SHRINKING | {"target_rms": None}, _additive),
        Way(
            AVERAGED,
            "z moves additively; its weighted mean x is evaluated, gradients are taken between them",
            "arXiv 2405.15682, 2605.23061",
            SHRINKING | AVERAGING,
            _averaged,
        ),
    )
}
