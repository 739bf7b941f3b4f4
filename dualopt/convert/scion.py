"""Scion and ScionC: norms under the names of their authors, and the weight of the newest gradient, not a retention.

Scion (momentum, scale)    β = 1 − momentum, η = lr·scale, a = 1 − lr
ScionC (weight_decay)      η = lr, a = 1 − weight_decay at the peak of lr; corrected: 1 − a² ∝ lr²
"""

from __future__ import annotations

import math
from typing import Any

from ..directions.polar import POLAR_EXPRESS, QUINTIC
from ..recursion import Action
from .family import At, Family, Fields, Image

# (norm, normalized, max) of the authors' code -> ours. The first of two is the one that is written.
SCION_NORMS: dict[tuple[str, bool, bool], str] = {
    ("Spectral", True, False): "spectral",
    ("Spectral", True, True): "spectral_max",
    ("Spectral", False, False): "spectral_in",
    ("Spectral", False, True): "spectral_in",  # max(1, √m) is √m
    ("SpectralConv", True, False): "spectral_conv",
    ("Sign", True, False): "sign",
    ("Sign", False, False): "sign_in",
    ("ColNorm", False, False): "column",
    ("ColNorm", True, False): "column_in",
    ("RowNorm", True, False): "row",
    ("RowNorm", False, False): "row_in",
    ("BiasRMS", True, False): "bias_rms",
}
NORM_KEYS: dict[str, dict[str, Any]] = {  # norm -> the keys of its norm_kwargs, with their defaults
    "Spectral": {"max": False, "normalized": True, "steps": 5},
    "SpectralConv": {"steps": 5},
    "Sign": {"zero_init": False, "normalized": True},
    "ColNorm": {"normalized": False, "transpose": False},
    "RowNorm": {"normalized": True, "transpose": False},
    "BiasRMS": {},
}


def _scion_norm(f: Fields, at: At) -> tuple[str, Fields, Fields]:
    """(our norm, polar coordinates, other keys of the group)."""
    given = dict(f["norm_keys"] or {})
    keys = NORM_KEYS[f["norm"]]
    odd = next((key for key in given if key not in keys), None)
    if odd is not None:
        raise at.error(f"{f['norm']} has no {odd!r} in norm_kwargs; it has {', '.join(keys) or 'none'}")
    for key, value in given.items():
        if type(value) is not type(keys[key]):
            raise at.error(f"norm_kwargs: {key} is like {keys[key]!r}, got {value!r}")
    full: Fields = {"normalized": True, "max": False, "transpose": False, "steps": 5, **keys, **given}
    norm = SCION_NORMS[f["norm"], full["normalized"], full["max"]]
    polar: Fields = {}
    if norm.startswith("spectral"):
        polar = {"polar": f["polar"]} | ({} if full["steps"] == 5 else {"iterations": float(full["steps"])})
    return norm, polar, {"orientation": "in_out"} if full["transpose"] else {}


def _scion(f: Fields, at: At) -> Image:
    norm, polar, own = _scion_norm(f, at)
    options = {"step": f["lr"] * f["scale"], "norm": norm, "readout": 0.0, **polar}
    if f["newest"] < 1:
        options |= {"memory_half_life": at.life_of_loss(f["newest"]), "readout": 1.0}
    return Image("scion", options | {"shrink_half_life": math.inf if f["free"] else at.life_of_loss(f["lr"])}, own)


def _scion_back(row: str, action: Action, own: Action, at: At) -> Fields:
    """Without shrink only lr·scale is determined, and scale is 1."""
    lost = at.lost(action["shrink_half_life"])
    return {
        **_scion_shared(action, own, at),
        "lr": lost or action["step"],
        "scale": action["step"] / lost if lost else 1.0,
        "free": not lost,
    }


def _scion_shared(action: Action, own: Action, at: At) -> Fields:
    ours, beta = action["norm"], at.beta(action)[0]
    name, keys = next(
        ((n, (normal, most)) for (n, normal, most), norm in SCION_NORMS.items() if norm == ours), ("", ())
    )
    if not name:
        raise at.error(f"it has no norm = {ours!r}")
    given: Fields = dict(zip(("normalized", "max"), keys, strict=True))
    given |= {"transpose": own.get("orientation") == "in_out"}
    polar = None
    if ours.startswith("spectral"):
        polar, given["steps"] = action["polar"], int(action.get("iterations", 5))
    known = NORM_KEYS[name]
    if given["transpose"] and "transpose" not in known:
        raise at.error(f"{name} sees matrices as they are stored, but orientation = 'in_out'")
    return {
        "newest": at.lost(action["memory_half_life"]) if beta else 1.0,
        "norm": name,
        "norm_keys": {key: given[key] for key in given if key in known and given[key] != known[key]} or None,
        "polar": polar,
    }


SCION = Family(
    ("scion", "scionc"),
    {
        "lr": None,
        "newest": 1.0,
        "norm": None,
        "norm_keys": None,
        "scale": 1.0,
        "free": False,
        "polar": QUINTIC.name,
    },
    _scion,
    _scion_back,
    {
        "step": "lr · scale",
        "memory_half_life": "1 − newest",
        "readout": "1; 0 without memory",
        "shrink_half_life": "lr; 0 if free",
        "norm": "norm, with norm_keys",
    },
)


def _corrected(f: Fields, at: At) -> Image:
    norm, polar, own = _scion_norm(f, at)
    options = {"step": f["lr"], "norm": norm, "readout": 0.0, **polar}
    if f["newest"] < 1:
        options |= {"memory_half_life": at.life_of_loss(f["newest"]), "readout": 1.0}
    options["shrink_half_life"] = at.life_of_loss(f["lost"])
    return Image("scionc", options | ({"shrink": "corrected"} if f["corrected"] else {}), own)


def _corrected_back(row: str, action: Action, own: Action, at: At) -> Fields:
    found = _scion_shared(action, own, at) | {"lr": action["step"], "exact": True}
    return found | {"lost": at.lost(action["shrink_half_life"]), "corrected": action["shrink"] == "corrected"}


SCIONC = Family(
    ("scionc", "scion"),
    {
        "lr": None,
        "newest": 0.1,
        "norm": None,
        "norm_keys": None,
        "lost": 0.0,
        "corrected": True,
        "exact": False,
        "polar": POLAR_EXPRESS.name,
    },
    _corrected,
    _corrected_back,
    {
        "step": "lr",
        "memory_half_life": "1 − newest",
        "shrink_half_life": "lost, of an update at the peak",
        "shrink": "'corrected' if corrected",
        "norm": "norm, with norm_keys",
    },
    shrinks=("direct", "corrected"),
)
