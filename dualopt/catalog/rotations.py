"""Rows that were published with a multiplicative motion."""

from __future__ import annotations

from typing import Any

from ..directions import Descent
from ..directions.elementwise import Identity, Rms
from ..memory import Memories, Readout
from ..motion import MULTIPLICATIVE, TRANSPORTED
from ..signal import Gradient
from .entry import Entry, Options, Parts, retained

PION: dict[str, Any] = {
    "step": 1e-4,
    "memory_half_life": retained(0.9),
    "second_memory_half_life": retained(0.999),
    "second_memory": False,
    "readout": 1.0,
    "bias_correction": False,
    "eps": 1e-8,
}


def _pion(o: Options) -> Parts:
    """The transported variant squares its memory instead of the gradient."""
    corrected, second = bool(o["bias_correction"]), bool(o["second_memory"])
    memory = Memories(second=second, of_memory=o["motion"] == TRANSPORTED)
    return Gradient(), memory, Descent(Readout(corrected), Rms(corrected) if second else Identity())


ROTATIONS = (
    Entry(
        "pion",
        "rotations of the weights from both sides; defaults of its authors' code",
        "arXiv 2605.12492",
        PION,
        _pion,
        motion=MULTIPLICATIVE,
        ours="exponential = 'cayley'; readout and bias_correction; other directions under its motions",
    ),
)
