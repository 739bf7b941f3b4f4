"""Rows whose direction is steepest in a norm of matrices."""

from __future__ import annotations

from typing import Any

from ..directions import Descent
from ..directions.norm_balls import MUON_SCALES, SpectralBall, ball
from ..directions.polar import POLAR_EXPRESS, QUINTIC, Way
from ..memory import Memories, Readout
from ..signal import Gradient, penalised
from .entry import Entry, Options, Parts, retained

POLAR_WAY: dict[str, Any] = dict.fromkeys(("polar_form", "polar_scaling", "polar_work", "iterations"))
MUON: dict[str, Any] = {
    "step": 0.02,
    "memory_half_life": retained(0.95),
    "readout": 0.95,
    "polar": QUINTIC.name,
    **POLAR_WAY,
    "scale": "keller_jordan",
    "l2": 0.0,
}
SCION: dict[str, Any] = {
    "step": 1e-3,
    "memory_half_life": retained(0.9),
    "readout": 1.0,
    "norm": "spectral",
    "polar": QUINTIC.name,
    **POLAR_WAY,
}
SCIONC: dict[str, Any] = {
    "step": 0.035,
    "memory_half_life": retained(0.95),
    "readout": 1.0,
    "norm": "spectral",
    "polar": POLAR_EXPRESS.name,
    **POLAR_WAY,
}


def matrices(o: Options) -> int:
    """The least dimensions of rows that see matrices."""
    return 2


def _muon(o: Options) -> Parts:
    return (
        penalised(o),
        Memories(),
        Descent(Readout(), SpectralBall(MUON_SCALES[o["scale"]], o["polar"], "scale", Way.of(o))),
    )


def norm_ball(o: Options) -> Parts:
    """Steepest descent of the readout in the norm that the options name."""
    return Gradient(), Memories(), Descent(Readout(), ball(o["norm"], o["polar"], Way.of(o)))


def _ball_ndim(o: Options) -> int:
    return ball(o["norm"]).least_ndim


SPECTRAL = (
    Entry(
        "muon",
        "polar factor of the memory with a factor for the shape",
        "Jordan et al. (2024); torch.optim.Muon",
        MUON,
        _muon,
        matrices,
        only={"scale": tuple(MUON_SCALES)},
    ),
    Entry(
        "scion",
        "steepest descent in a norm, as in its authors' code",
        "arXiv 2502.07529",
        SCION,
        norm_ball,
        _ball_ndim,
    ),
    Entry("scionc", "the same in half-lives with direct shrink", "Kim, ScionC (2026)", SCIONC, norm_ball, _ball_ndim),
)
