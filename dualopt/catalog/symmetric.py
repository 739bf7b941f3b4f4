"""Rows whose direction commutes with the symmetries of a layer: see `directions.symmetry`."""

from __future__ import annotations

from typing import Any

from ..directions import Descent
from ..directions.polar import POLAR_EXPRESS, Way
from ..directions.symmetry import BEFORE, Lines, Spectral
from ..memory import Memories, Readout
from ..signal import Gradient
from .entry import Entry, Options, Parts, retained
from .spectral import POLAR_WAY, matrices

SOURCE = "arXiv 2605.18106"
LINES: dict[str, Any] = {"step": 1e-3, "memory_half_life": retained(0.95), "readout": 1.0, "eps": 1e-8}
POLARGRAD: dict[str, Any] = {
    **LINES,
    "polar": POLAR_EXPRESS.name,
    **POLAR_WAY,
    "nuclear_power": "1",
    "centred": False,
}


def _along(geometry: Lines | Spectral) -> Parts:
    return Gradient(), Memories(), Descent(Readout(), geometry)


def _spectral(o: Options) -> Parts:
    return _along(Spectral(o["polar"], o["nuclear_power"], bool(o["centred"]), o.get("order"), Way.of(o)))


def _rows(o: Options) -> Parts:
    return _along(Lines(centred=bool(o["centred"])))


def _columns(o: Options) -> Parts:
    return _along(Lines(axis=-2))


SYMMETRIC = (
    Entry(
        "polargrad",
        "damped polar factor times ν^α; right- and left-spectral are this one matrix",
        SOURCE,
        POLARGRAD,
        _spectral,
        matrices,
    ),
    Entry(
        "hybrid_polargrad",
        "the same of rows of length 1, or rows of length 1 of it",
        SOURCE,
        {**POLARGRAD, "order": BEFORE},
        _spectral,
        matrices,
    ),
    Entry(
        "row_norm",
        "every row of the memory over its length: rows are tokens, neurons, experts",
        SOURCE,
        {**LINES, "centred": False},
        _rows,
        matrices,
    ),
    Entry(
        "column_norm",
        "every column of the memory over its length: columns are neurons",
        SOURCE,
        LINES,
        _columns,
        matrices,
    ),
)
