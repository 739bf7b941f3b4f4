"""Rows whose direction reshapes singular values."""

from __future__ import annotations

from typing import Any

from ..directions import Descent
from ..directions.polar import POLAR_EXPRESS, Way
from ..directions.schatten import Freon, Kaon, MiMuon, Regularized
from ..memory import Memories, Readout
from ..signal import Gradient
from .entry import Entry, Options, Parts, retained
from .spectral import POLAR_WAY, matrices

COMMON: dict[str, Any] = {"step": 0.02, "memory_half_life": retained(0.95), "readout": 1.0}


def along(geometry: Regularized | MiMuon | Freon | Kaon) -> Parts:
    """One memory, read out and reshaped."""
    return Gradient(), Memories(), Descent(Readout(), geometry)


def _regularized(o: Options) -> Parts:
    return along(Regularized(o["polar"], Way.of(o), bool(o["relative"])))


def _mimuon(o: Options) -> Parts:
    return along(MiMuon(bool(o["relative"])))


def _freon(o: Options) -> Parts:
    return along(Freon(float(o["exponent"])))


def _kaon(o: Options) -> Parts:
    return along(Kaon(int(o["iterations"])))


SCHATTEN = (
    Entry(
        "regularized_muon",
        "smoothed polar factor: small singular values stay small",
        "arXiv 2605.23871",
        COMMON | {"smoothing": 0.1, "relative": True, "polar": POLAR_EXPRESS.name, **POLAR_WAY},
        _regularized,
        matrices,
        ours="the default ε, and that it is relative",
    ),
    Entry(
        "mimuon",
        "polar factor where singular values are apart, else the memory itself",
        "arXiv 2605.19619",
        COMMON | {"gap": 1e-3, "relative": True},
        _mimuon,
        matrices,
        ours="the default τ, and that it is relative",
    ),
    Entry(
        "freon",
        "any power of the singular values, over their power mean",
        "arXiv 2605.11181",
        COMMON | {"exponent": 2 / 3},
        _freon,
        matrices,
    ),
    Entry(
        "kaon",
        "a random spectrum: a chaotic map of the singular values",
        "arXiv 2605.11181",
        COMMON | {"iterations": 5.0},
        _kaon,
        matrices,
    ),
)
