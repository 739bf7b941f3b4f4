"""The variants: recipe groups that together meet every option that changes a formula.

The first of each entry of the catalogue bears the entry's name alone. Half-lives are counts; the mean increment of
the situations is 512.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dualopt import ENTRIES
from dualopt.directions.norm_balls import MUON_SCALES, NORMS
from dualopt.directions.normuon import RMS, ROW_SCALES
from dualopt.directions.polar import FIVE, PRESETS, QUINTIC, SETS
from dualopt.directions.symmetry import AFTER
from dualopt.estimators import ESTIMATORS, FOUR, STD
from dualopt.motion import AVERAGED, HYPERBALL, MULTIPLICATIVE, ROTATIONAL, SPHERE, TRANSPORTED
from dualopt.motion.rotational import LITERAL, REFERENCE

Table = Mapping[str, Any]

LIVES: dict[str, Any] = {"memory_half_life": 3370.0, "shrink_half_life": 15_000.0}
SQUARES: dict[str, Any] = {"second_memory_half_life": 30_000.0}
STATED: dict[str, dict[str, Any]] = {
    "rmsprop": {**SQUARES, "shrink_half_life": 15_000.0, "step": 0.01},
    "adamw": {**LIVES, **SQUARES, "step": 0.01},
    "adam_l2": {**LIVES, **SQUARES, "step": 0.01, "l2": 0.02},
    "sgdm": {**LIVES, "step": 0.1},
    "sf_adamw": {**SQUARES, "shrink_half_life": 15_000.0, "step": 0.01},
    "pion": {"memory_half_life": 3370.0, **SQUARES, "second_memory": True, "step": 0.1},
    "rotational_adamw": {**LIVES, **SQUARES},
    "rotational_lion": LIVES,
    "rotational_sgdm": LIVES,
    "single_half_life": {"memory_half_life": 3370.0},
    "hyperball": {"memory_half_life": 3370.0, "step": 0.02},
}


@dataclass(frozen=True)
class Variant:
    """A recipe group. `streams`: its updates have several microbatches; `samples`: and some of sampled labels."""

    name: str
    table: Table
    streams: bool = False
    samples: bool = False


def every() -> Iterator[Variant]:
    """All of them, the entries first."""
    base = _entries()
    yield from (Variant(name, table) for name, table in base.items())
    for tables in (_elementwise, _norms, _polar, _spectral, _averaged, _spheres, _rotations):
        yield from (Variant(name, table) for name, table in tables(base))
    yield from _estimated(base)


def _entries() -> dict[str, dict[str, Any]]:
    base = {name: {"optimizer": name, **LIVES, "step": 0.02} for name in ENTRIES}
    base |= {name: {"optimizer": name, **stated} for name, stated in STATED.items()}
    for name, table in base.items():  # the oracle runs the same coefficient set, so every case names it
        if "polar" in ENTRIES[name].defaults:
            table["polar"] = ENTRIES[name].defaults["polar"]
    return base


Base = Mapping[str, dict[str, Any]]
Named = Iterator[tuple[str, Table]]


def _without(table: Table, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in keys}


def _elementwise(base: Base) -> Named:
    """Readouts, shrinks, targets and steady states."""
    yield "sgdm.nesterov", {**base["sgdm"], "readout": 0.9, "bias_correction": True, "l2": 0.01}
    yield "sgdm.cautious", {**base["sgdm"], "shrink": "cautious", "step": 1e-9}  # u θ underflows
    yield "sgdm.unbounded", {**base["sgdm"], "shrink_half_life": float("inf")}
    yield "rmsprop.corrected", {**base["rmsprop"], "bias_correction": True, "shrink": "cautious"}
    yield "adamw.cautious", {**base["adamw"], "shrink": "cautious", "readout": 0.95}
    yield "adamw.strict", {**base["adamw"], "shrink": "cautious", "strict_mask": True}
    yield "adamw.corrected", {**base["adamw"], "shrink": "corrected"}
    yield "adamw.target", {**base["adamw"], "target_rms": 1.1, "step": 3.0}  # a root between 0 and the step
    yield "adamw.uncorrected", {**base["adamw"], "bias_correction": False, "readout": 0.5, "eps": 1e-3}
    yield "adamw.long", {**base["adamw"], "second_memory_half_life": 1e9, "shrink_half_life": 1e9}
    # Weights that are too large and a penalty that pulls them in: the smaller root.
    yield "adam_l2.target", {**base["adam_l2"], "l2": 1.0, "target_rms": 0.8, "step": 5.0}
    yield "lion.cautious", {**base["lion"], "shrink": "cautious"}
    held = {"target_rms": 1.05, "solve": "shrink"}
    yield "adamw.held", {**_without(base["adamw"], "shrink_half_life"), **held}
    yield "lion.held", {**_without(base["lion"], "shrink_half_life"), **held, "shrink": "cautious"}
    steady = {"steady_rms": 0.5}
    yield "adamw.steady", {**_without(base["adamw"], "step"), **steady, "readout": 0.9}
    yield "lion.steady", {**_without(base["lion"], "step"), **steady, "shrink": "corrected"}
    yield "lion.linear", {**_without(base["lion"], "step"), **steady, "correlation": "linear"}


def _norms(base: Base) -> Named:
    """Every norm, scale and orientation."""
    for scale in MUON_SCALES:
        yield f"muon.{scale}", {**base["muon"], "scale": scale, "readout": 0.95}
    yield "muon.in_out", {**base["muon"], "orientation": "in_out"}
    plain = {name: _without(base[name], "polar") for name in ("scion", "scionc")}
    yield "scion.sign", {**plain["scion"], "norm": "sign"}
    for norm in NORMS:
        named = base if norm.startswith("spectral") else plain
        yield f"scionc.{norm}", {**named["scionc"], "norm": norm, "readout": 0.9}
    yield "scionc.target", {**plain["scionc"], "norm": "frobenius", "target_rms": 1.02, "step": 8.0}  # as above
    yield "scionc.cautious", {**base["scionc"], "shrink": "cautious"}


def _polar(base: Base) -> Named:
    """Coefficient sets, forms and scalings of Newton–Schulz; blocks."""
    muon = base["muon"]
    for name in SETS:
        if name != QUINTIC.name:
            yield f"muon.{name}", {**muon, "polar": name}
    yield "muon.gram", {**muon, "polar_form": "gram"}
    yield "muon.moment", {**muon, "polar_scaling": "moment"}
    yield "muon.eighth_moment", {**muon, "polar": FIVE.name, "polar_scaling": "eighth_moment", "polar_form": "gram"}
    for preset in PRESETS:
        yield f"muon.{preset}", {**muon, "polar": preset}
        yield f"muon.two_{preset}", {**muon, **PRESETS[preset], "iterations": 2}  # before the restart
    yield "muon.bfloat16", {**muon, "polar_work": "bfloat16"}
    yield "muon.two_bfloat16", {**muon, "polar_work": "bfloat16", "iterations": 2}  # few enough for a bound
    yield "muon.gram_bfloat16", {**muon, "polar_work": "bfloat16", "polar_form": "gram"}
    yield "muon.three", {**muon, "iterations": 3}
    yield "muon.nine", {**muon, "iterations": 9, "polar_form": "gram", "polar_scaling": "moment"}
    yield "muon.steady", {**_without(muon, "step"), "steady_rms": 0.5}
    yield "muon.blocks", {**muon, "blocks": {"axis": 0, "parts": 2, "interleaved": True}}
    yield "polargrad.blocks", {**base["polargrad"], "blocks": {"axis": 1, "size": 2}}


def _spectral(base: Base) -> Named:
    """Rows that reshape singular values, scale rows, or commute with symmetries."""
    yield "regularized_muon.absolute", {**base["regularized_muon"], "relative": False, "smoothing": 0.5}
    yield "mimuon.absolute", {**base["mimuon"], "relative": False, "gap": 0.5}
    for name, exponent in (("zero", 0.0), ("half", 0.5), ("one", 1.0)):
        yield f"freon.{name}", {**base["freon"], "exponent": exponent}
    yield "kaon.two", {**base["kaon"], "iterations": 2}
    for scale in ROW_SCALES:
        if scale != RMS:
            yield f"normuon.{scale}", {**base["normuon"], "scale": scale, "readout": 0.95}
    for name, power in (("flat", "0"), ("root", "0.5")):
        yield f"polargrad.{name}", {**base["polargrad"], "nuclear_power": power}
    yield "polargrad.centred", {**base["polargrad"], "centred": True}
    yield "hybrid_polargrad.after", {**base["hybrid_polargrad"], "order": AFTER}
    yield "hybrid_polargrad.centred", {**base["hybrid_polargrad"], "centred": True}
    yield "row_norm.centred", {**base["row_norm"], "centred": True}
    yield "row_norm.cautious", {**base["row_norm"], "shrink": "cautious"}
    yield "shampoo.uncorrected", {**base["shampoo"], "bias_correction": False, "readout": 0.9}
    yield "shampoo.always", {**base["shampoo"], "root_interval": 1.0}


def _averaged(base: Base) -> Named:
    """Schedule-free motion: weights, the point that shrinks, other rows."""
    sf = base["sf_adamw"]
    yield "sf_adamw.step", {**sf, "averaging": "step", "shrink_at": "z"}
    yield "sf_adamw.counts", {**sf, "averaging_counts": True, "averaging_power": 1.5, "interpolation": 0.5}
    yield "sf_adamw.cautious", {**sf, "shrink": "cautious"}
    yield "sf_normuon.largest", {**base["sf_normuon"], "averaging": "largest_step", "shrink_at": "y"}
    yield "sgdm.averaged", {**base["sgdm"], "motion": AVERAGED, "interpolation": 0.0}
    yield "muon.averaged", {**base["muon"], "motion": AVERAGED, "shrink": "corrected"}


def _spheres(base: Base) -> Named:
    """Rotations by the angle of the equilibrium and of a half-life, and steps of a given angle."""
    adamw, lion = base["rotational_adamw"], base["rotational_lion"]
    tensor, free = {"rotation_unit": "tensor"}, {"rotation_centred": False}
    yield "rotational_adamw.tensor", {**adamw, **tensor}
    yield "rotational_adamw.free", {**adamw, **free, "readout": 0.9}
    for algorithm in (LITERAL, REFERENCE):
        yield f"rotational_adamw.{algorithm}", {**adamw, "rotation_algorithm": algorithm}
        whole = {**tensor, **free, "rotation_algorithm": algorithm}
        yield f"rotational_adamw.{algorithm}_tensor_free", {**adamw, **whole}
    yield "rotational_adamw.tensor_free", {**adamw, **tensor, **free}
    yield "rotational_lion.arcsine", {**lion, "correlation": "arcsine"}
    turning = {"motion": ROTATIONAL}
    yield "scionc.rotational", {**_without(base["scionc"], "step"), **turning}
    yield "sign_sgdm.rotational", {**_without(base["sign_sgdm"], "step"), **turning, **tensor}
    yield "scionc.sphere", {**_without(base["scionc"], "step", "shrink_half_life"), "motion": SPHERE}
    yield "hyperball.slerp", {**base["hyperball"], "retraction": "slerp"}
    yield "adamw.hyperball", {**_without(base["adamw"], "shrink_half_life"), "motion": HYPERBALL}


def _rotations(base: Base) -> Named:
    """Both multiplicative motions, both exponentials, one side at a time or both."""
    pion = base["pion"]
    yield "pion.first", {**_without(pion, *SQUARES), "second_memory": False, "readout": 0.9, "bias_correction": True}
    for motion in (MULTIPLICATIVE, TRANSPORTED):
        for exponential in ("taylor", "cayley"):
            for alternate in (False, True):
                told = [motion] if motion == TRANSPORTED else []
                told += [exponential] if exponential == "cayley" else []
                told += ["alternate"] if alternate else []
                if told:
                    options = {"motion": motion, "exponential": exponential, "alternate": alternate}
                    yield f"pion.{'_'.join(told)}", {**pion, **options}
    yield "muon.transported", {**_without(base["muon"], "shrink_half_life"), "motion": TRANSPORTED}
    yield "adamw.multiplicative", {**_without(base["adamw"], "shrink_half_life"), "motion": MULTIPLICATIVE}


def _estimated(base: Base) -> Iterator[Variant]:
    """Evidence from a stream of microbatches, and of sampled labels."""
    yield Variant("lion.accumulated", base["lion"], streams=True)
    for estimator in ESTIMATORS:
        if estimator != STD:
            yield Variant(f"adamw.{estimator}", {**base["adamw"], "estimator": estimator}, streams=True)
    yield Variant("adamw.inv_plain", {**base["adamw"], "estimator": "inv", "bias_correction": False}, streams=True)
    for estimator in FOUR:
        table = {**base["sophia"], "estimator": estimator}
        if estimator != STD:
            yield Variant(f"sophia.{estimator}", table, streams=True)
            yield Variant(f"shampoo.{estimator}", {**base["shampoo"], "estimator": estimator}, streams=True)
        sampled = {**table, "hessian": "samples", "labels": 8.0}
        yield Variant(f"sophia.{estimator}_samples", sampled, streams=True, samples=True)
