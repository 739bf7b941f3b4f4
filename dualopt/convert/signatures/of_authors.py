"""What authors published of their own: Lion, Scion, ScionC, Muon."""

from __future__ import annotations

from typing import Any

from ..families import LION, MUON
from ..family import Fields
from ..knobs import Knob, Source
from ..layout import Layout
from ..scion import NORM_KEYS, SCION, SCIONC
from .common import (
    BALL,
    ONE_BUFFER,
    STEPS,
    decay,
    free,
    in_bfloat16,
    lr,
    never,
    switch,
)


def _norm(default: str, **more: Any) -> Knob:
    choices = {name: name for name in ("Auto", *NORM_KEYS)}
    why = (
        "it chooses by the number of dimensions; write a group for each: SpectralConv (3 and 4), Spectral (2), BiasRMS"
    )
    return Knob(default, means=("norm",), choices=choices, only=tuple(NORM_KEYS), why=why, **more)


def _scionin_bfloat16(f: Fields) -> tuple[str, ...]:
    return in_bfloat16(f) if str(f["norm"]).startswith("Spectral") else ()


def _approximate(f: Fields) -> tuple[str, ...]:
    if not f["corrected"] or f["exact"]:
        return ()
    return (
        "with exact = False it shrinks by q²·weight_decay where the step is q of its peak, and a recipe by "
        f"1 − √(1 − q²(1 − a²)): less, by at most {f['lost'] / 2:.1e} of it, and equal at the peak",
    )


AUTHORS = (
    Source(
        "lion-pytorch",
        "lion_pytorch.Lion",
        LION,
        {
            "lr": lr(1e-4),
            "betas": Knob((0.9, 0.99), "pair", ("beta1", "beta2")),
            "weight_decay": decay(0.0),
            "use_triton": free(False),
            "decoupled_weight_decay": never(False, "weight_decay is the loss per update then; state weight_decay/lr"),
        },
        layout=Layout({"exp_avg": "m"}),
    ),
    Source(
        "scion",
        "scion.Scion",
        SCION,
        {
            "lr": lr(1e-3),
            "momentum": Knob(1.0, "weight", ("newest",)),
            "norm": _norm("Auto"),
            "norm_kwargs": Knob(None, "any", ("norm_keys",)),
            "scale": Knob(1.0, "rate", ("scale",)),
            "unconstrained": switch(False, "free"),
        },
        layout=ONE_BUFFER,
        inexact=_scionin_bfloat16,
    ),
    Source(
        "scionc",
        "train_gpt_scion_corrected.py (arXiv 2512.08217)",
        SCIONC,
        {
            "lr": lr(),
            "momentum": Knob(0.1, "weight", ("newest",)),
            "weight_decay": Knob(2.0**-12, "fraction", ("lost",)),
            "corrected": switch(True, "corrected"),
            "exact": switch(False, "exact"),
            "norm": _norm("Spectral", added=True),
            "norm_kwargs": Knob(None, "any", ("norm_keys",), added=True),
        },
        inexact=_approximate,
    ),
    Source(
        "keller-jordan-muon",
        "muon.Muon",
        MUON,
        {"lr": lr(0.02), "weight_decay": decay(0.0), "momentum": Knob(0.95, "retention", ("beta1",))},
        layout=ONE_BUFFER,
        inexact=in_bfloat16,
    ),
    Source(
        "heavy-ball-muon",
        "muon.Muon of 2024, dion",
        MUON,
        {
            "lr": lr(0.02),
            "momentum": Knob(0.95, "retention", ("beta1",)),
            "nesterov": switch(True, "nesterov"),
            "ns_steps": STEPS,
            "weight_decay": decay(0.0),
        },
        layout=BALL,
        inexact=in_bfloat16,
    ),
)
