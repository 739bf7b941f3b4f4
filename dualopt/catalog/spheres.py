"""Rows that move on spheres: rotation at the speed of the equilibrium, and steps of a given angle."""

from __future__ import annotations

from typing import Any

from ..directions.elementwise import Identity, Sign
from ..motion import HYPERBALL, ROTATIONAL, SPHERE
from .elementwise import ADAM, LION, adam, first
from .entry import Entry, retained
from .spectral import SCIONC, matrices, norm_ball

SGDM: dict[str, Any] = {"step": 0.1, "memory_half_life": retained(0.9), "readout": 1.0, "bias_correction": False}
KOSSON = "arXiv 2305.17212; epfml/rotational-optimizers"
NOTES = "JiHa-Kim, notes and code after ScionC (2026)"

SPHERES = (
    Entry(
        "rotational_adamw",
        "AdamW whose rows turn as in its equilibrium",
        KOSSON,
        ADAM,
        adam,
        matrices,
        ROTATIONAL,
        ours="the default shrink half-life, that of lr · weight_decay = 1e-4",
    ),
    Entry(
        "rotational_lion",
        "Lion whose rows turn as in its equilibrium",
        KOSSON,
        LION,
        first(Sign()),
        matrices,
        ROTATIONAL,
        {"correlation": "linear"},
        ours="as rotational_adamw",
    ),
    Entry(
        "rotational_sgdm",
        "SGDM whose rows turn as in its equilibrium",
        KOSSON,
        SGDM,
        first(Identity()),
        matrices,
        ROTATIONAL,
        ours="as rotational_adamw",
    ),
    Entry(
        "single_half_life",
        "one half-life for the memory and for the direction of the weights",
        NOTES,
        {"step": 0.1, "memory_half_life": 1024.0, "readout": 1.0},  # the step is for motion = "additive"
        first(Identity()),
        matrices,
        SPHERE,
        ours="the default half-life: a step of 0.037 rad, Hyperball's for embeddings",
    ),
    Entry(
        "hyperball",
        "steepest descent in a norm, retracted to a sphere; the step is the one for hidden layers",
        NOTES,
        SCIONC,
        norm_ball,
        matrices,
        HYPERBALL,
    ),
)
