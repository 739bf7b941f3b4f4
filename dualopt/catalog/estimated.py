"""Rows whose update is estimated from microbatches, or could be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..directions import Descent
from ..directions.elementwise import Rms
from ..estimators import FOUR, STD
from ..estimators.adam import Moments, adam_direction, adam_fold
from ..estimators.shampoo import MEASURED, Factored, Factors, Rooted
from ..estimators.sophia import Clipped, Curvature, Curved, Half
from ..fold import Fold, Mean
from ..memory import Memories, Readout
from ..signal import Gradient, Measured
from .entry import Entry, Options, Parts, retained
from .spectral import matrices

SOPHIA: dict[str, Any] = {
    "step": 1e-3,
    "memory_half_life": retained(0.965),
    "second_memory_half_life": retained(0.99),
    "readout": 1.0,
    "hessian": "squares",
    "rho": 0.05,
    "labels": 1.0,
    "eps": 1e-12,
    "estimator": STD,
}

SHAMPOO: dict[str, Any] = {
    "step": 1e-3,
    "memory_half_life": retained(0.9),
    "second_memory_half_life": retained(0.95),
    "readout": 1.0,
    "bias_correction": True,
    "root_interval": 10.0,
    "eps": 1e-6,
    "estimator": STD,
}


def adamw(o: Options) -> Parts:
    """AdamW by its estimator."""
    read, rms = Readout(bool(o["bias_correction"])), Rms(bool(o["bias_correction"]))
    if o["estimator"] == STD:
        return Gradient(), Memories(second=True), Descent(read, rms)
    return Measured(("square", "error", "update")), Moments(), adam_direction(o["estimator"], read, rms)


def adamw_folds(o: Options) -> Mapping[str, Fold]:
    if o["estimator"] == STD:
        return {"gradient": Mean()}
    corrected = bool(o["bias_correction"])
    return {"gradient": adam_fold(o["estimator"], Readout(corrected), Rms(corrected))}


def _sophia(o: Options) -> Parts:
    sampled, corrected = o["hessian"] == "samples", o["estimator"] in ("inv", "full")
    return Measured(("sample", "square", "error")), Curved(sampled=sampled, corrected=corrected), Clipped(Readout())


def _sophia_folds(o: Options) -> Mapping[str, Fold]:
    chosen = str(o["estimator"])
    if o["hessian"] == "squares":
        return {"gradient": Mean() if chosen == STD else Curvature(chosen)}
    own: Fold = Half() if chosen in ("cf", "full") else Mean()
    return {"gradient": own, "samples": Curvature(chosen, "sample", numerator=False)}


def _shampoo(o: Options) -> Parts:
    corrected = bool(o["bias_correction"])
    return Measured(MEASURED), Factors(corrected=corrected), Rooted(Readout(corrected))


def _shampoo_folds(o: Options) -> Mapping[str, Fold]:
    return {"gradient": Mean() if o["estimator"] == STD else Factored(str(o["estimator"]))}


ESTIMATED = (
    Entry(
        "shampoo",
        "memory between the inverse fourth roots of memories of G Gᵀ and Gᵀ G",
        "arXiv 1802.09568; estimators arXiv 2605.20756",
        SHAMPOO,
        _shampoo,
        matrices,
        ours="the correction for age",
        folds=_shampoo_folds,
        only={"estimator": FOUR},
    ),
    Entry(
        "sophia",
        "memory over an estimate of the diagonal curvature, clipped",
        "arXiv 2305.14342; estimators arXiv 2605.20756",
        SOPHIA,
        _sophia,
        folds=_sophia_folds,
        only={"estimator": FOUR},
    ),
)
