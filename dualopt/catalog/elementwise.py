"""Rows whose direction depends on each entry alone: they take parameters of any shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..directions import Descent, Geometry
from ..directions.elementwise import Identity, Rms, Sign
from ..estimators import STD
from ..memory import Current, Memories, Readout
from ..motion.rotational import REFERENCE
from ..signal import Gradient, penalised
from .entry import Entry, Options, Parts, retained
from .estimated import adamw, adamw_folds

ADAM: dict[str, Any] = {
    "step": 1e-3,
    "memory_half_life": retained(0.9),
    "second_memory_half_life": retained(0.999),
    "readout": 1.0,
    "bias_correction": True,
    "eps": 1e-8,
}
LION: dict[str, Any] = {"step": 1e-4, "memory_half_life": retained(0.99), "readout": 0.9 / 0.99}


def first(geometry: Geometry) -> Callable[[Options], Parts]:
    """Rows with one memory and an elementwise direction."""
    return lambda o: (penalised(o), Memories(), Descent(Readout(bool(o.get("bias_correction"))), geometry))


def adam(o: Options) -> Parts:
    """Adam's memories and direction; the reference implementation of its rotation does not correct m."""
    corrected = bool(o["bias_correction"])
    reader = Readout(corrected and o.get("rotation_algorithm") != REFERENCE)
    return penalised(o), Memories(second=True), Descent(reader, Rms(corrected))


def _rmsprop(o: Options) -> Parts:
    return Gradient(), Memories(first=False, second=True), Descent(Current(), Rms(bool(o["bias_correction"])))


ELEMENTWISE = (
    Entry(
        "sgdm",
        "memory of gradients, read out and followed",
        "Polyak (1964), Nesterov (1983)",
        {"step": 0.1, "memory_half_life": retained(0.9), "readout": 1.0, "bias_correction": False, "l2": 0.0},
        first(Identity()),
    ),
    Entry(
        "rmsprop",
        "gradient over its root mean square",
        "Tieleman and Hinton (2012)",
        {"step": 1e-3, "second_memory_half_life": retained(0.99), "bias_correction": False, "eps": 1e-8},
        _rmsprop,
    ),
    Entry(
        "sign_sgdm",
        "sign of the memory",
        "arXiv 1802.04434",
        {"step": 1e-3, "memory_half_life": retained(0.9), "readout": 1.0},
        first(Sign()),
    ),
    Entry(
        "adamw",
        "memory over its root mean square, decoupled shrink",
        "arXiv 1711.05101; estimators arXiv 2605.20756",
        ADAM | {"estimator": STD},
        adamw,
        folds=adamw_folds,
    ),
    Entry("adam_l2", "Adam with an L2 penalty in the gradient", "arXiv 1412.6980", ADAM | {"l2": 0.0}, adam),
    Entry("lion", "sign of a readout; μ = β₁/β₂", "arXiv 2302.06675", LION, first(Sign())),
)
