"""Rows published for schedule-free motion, and NorMuon, which one of them wraps."""

from __future__ import annotations

from typing import Any

from ..directions import Descent
from ..directions.elementwise import Rms
from ..directions.normuon import PolarRows, RowScaled
from ..directions.polar import QUINTIC, Way
from ..memory import Current, Memories
from ..motion import AVERAGED
from ..signal import Gradient
from .entry import Entry, Options, Parts, retained
from .spectral import POLAR_WAY, matrices

NORMUON: dict[str, Any] = {
    "step": 0.01,
    "memory_half_life": retained(0.95),
    "second_memory_half_life": retained(0.95),
    "readout": 1.0,
    "polar": QUINTIC.name,
    **POLAR_WAY,
    "scale": "rms",
    "eps": 1e-8,
}


def _normuon(o: Options) -> Parts:
    return Gradient(), PolarRows(o["polar"], way=Way.of(o)), RowScaled(o["scale"])


def _sf_adamw(o: Options) -> Parts:
    return Gradient(), Memories(first=False, second=True), Descent(Current(), Rms(bool(o["bias_correction"])))


AVERAGING = (
    Entry(
        "normuon",
        "polar factor of the memory, its rows brought to one scale by a memory of their squares",
        "arXiv 2510.05491; its authors' code and dion by scale, readout and eps",
        NORMUON,
        _normuon,
        matrices,
    ),
    Entry(
        "sf_normuon",
        "NorMuon, schedule-free: shrink at z, one setting for all horizons",
        "arXiv 2605.23061",
        NORMUON | {"step": 0.008, "memory_half_life": retained(0.8)},
        _normuon,
        matrices,
        motion=AVERAGED,
        moving={"shrink_half_life": retained(1 - 0.008 * 0.05)},
        ours="shrink in half-lives, so that it does not follow the step in a warm-up; no official code",
    ),
    Entry(
        "sf_adamw",
        "gradient over its root mean square, schedule-free",
        "arXiv 2405.15682; schedulefree 1.4",
        {
            "step": 2.5e-3,
            "second_memory_half_life": retained(0.999),
            "bias_correction": True,
            "eps": 1e-8,
        },
        _sf_adamw,
        motion=AVERAGED,
        moving={"shrink_at": "y", "averaging": "largest_step"},
    ),
)
