"""Every named optimizer as one row: signal + memory + direction + motion, defaults, source.

Default half-lives are in updates; a recipe multiplies them by its `per_update`. A coordinate whose
default is None is optional. `step` defaults are those of the sources.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .coordinates import COORDINATES, Value, hint
from .counts import half_life
from .directions import Descent
from .directions.elementwise import Identity, Rms, Sign
from .directions.norm_balls import MUON_SCALES, SpectralBall, ball
from .directions.polar import EXACT, POLAR_EXPRESS, QUINTIC
from .errors import RecipeError, nearest
from .memory import Current, Memories, Readout
from .motion import Additive, Targeted
from .recursion import Direction, Memory, Motion, Row, Signal
from .shrink import Cautious, Corrected, Direct, Shrink
from .signal import Gradient, GradientPlusL2

Options = Mapping[str, Any]  # coordinate -> checked value
Parts = tuple[Signal, Memory, Direction]


@dataclass(frozen=True)
class Entry:
    """A row of the catalogue before its options are chosen."""

    name: str
    summary: str
    source: str
    defaults: Mapping[str, Any]
    parts: Callable[[Options], Parts]
    least_ndim: Callable[[Options], int] = lambda options: 0

    @property
    def uses(self) -> tuple[str, ...]:
        """The coordinates that this row reads."""
        return tuple(self.defaults)


def _retained(beta: float) -> float:
    """The half-life, in updates, of a retention per update."""
    return half_life(beta, 1)


_ADDITIVE: dict[str, Any] = {
    "shrink_half_life": math.inf,
    "shrink": "direct",
    "strict_mask": None,
    "target_rms": None,
}
_ADAM: dict[str, Any] = {
    "step": 1e-3,
    "memory_half_life": _retained(0.9),
    "second_memory_half_life": _retained(0.999),
    "readout": 1.0,
    "bias_correction": True,
    "eps": 1e-8,
}


def _signal(o: Options) -> Signal:
    return GradientPlusL2() if o.get("l2") else Gradient()


def _first(geometry: Identity | Sign) -> Callable[[Options], Parts]:
    """Rows with one memory and an elementwise direction."""
    return lambda o: (_signal(o), Memories(), Descent(Readout(bool(o.get("bias_correction"))), geometry))


def _adam(o: Options) -> Parts:
    corrected = bool(o["bias_correction"])
    return _signal(o), Memories(second=True), Descent(Readout(corrected), Rms(corrected))


def _rmsprop(o: Options) -> Parts:
    return Gradient(), Memories(first=False, second=True), Descent(Current(), Rms(bool(o["bias_correction"])))


def _muon(o: Options) -> Parts:
    return Gradient(), Memories(), Descent(Readout(), SpectralBall(MUON_SCALES[o["scale"]], o["polar"], "scale"))


def _norm_ball(o: Options) -> Parts:
    return Gradient(), Memories(), Descent(Readout(), ball(o["norm"], o["polar"]))


def _ball_ndim(o: Options) -> int:
    return ball(o["norm"]).least_ndim


ENTRIES = {
    e.name: e
    for e in (
        Entry(
            "sgdm",
            "memory of gradients, read out and followed",
            "Polyak (1964), Nesterov (1983)",
            {"step": 0.1, "memory_half_life": _retained(0.9), "readout": 1.0, "bias_correction": False, "l2": 0.0}
            | _ADDITIVE,
            _first(Identity()),
        ),
        Entry(
            "rmsprop",
            "gradient over its root mean square",
            "Tieleman and Hinton (2012)",
            {"step": 1e-3, "second_memory_half_life": _retained(0.99), "bias_correction": False, "eps": 1e-8}
            | _ADDITIVE,
            _rmsprop,
        ),
        Entry(
            "sign_sgdm",
            "sign of the memory",
            "arXiv 1802.04434",
            {"step": 1e-3, "memory_half_life": _retained(0.9), "readout": 1.0} | _ADDITIVE,
            _first(Sign()),
        ),
        Entry(
            "adamw", "memory over its root mean square, decoupled shrink", "arXiv 1711.05101", _ADAM | _ADDITIVE, _adam
        ),
        Entry(
            "adam_l2",
            "Adam with an L2 penalty in the gradient",
            "arXiv 1412.6980",
            _ADAM | {"l2": 0.0} | _ADDITIVE,
            _adam,
        ),
        Entry(
            "lion",
            "sign of a readout; μ = β₁/β₂",
            "arXiv 2302.06675",
            {"step": 1e-4, "memory_half_life": _retained(0.99), "readout": 0.9 / 0.99} | _ADDITIVE,
            _first(Sign()),
        ),
        Entry(
            "muon",
            "polar factor of the memory with a factor for the shape",
            "Jordan et al. (2024); torch.optim.Muon",
            {
                "step": 0.02,
                "memory_half_life": _retained(0.95),
                "readout": 0.95,
                "polar": QUINTIC.name,
                "scale": "keller_jordan",
            }
            | _ADDITIVE,
            _muon,
            lambda o: 2,
        ),
        Entry(
            "scion",
            "steepest descent in a norm, as in its authors' code",
            "arXiv 2502.07529",
            {
                "step": 1e-3,
                "memory_half_life": _retained(0.9),
                "readout": 1.0,
                "norm": "spectral",
                "polar": QUINTIC.name,
            }
            | _ADDITIVE,
            _norm_ball,
            _ball_ndim,
        ),
        Entry(
            "scionc",
            "the same in half-lives with direct shrink",
            "Kim, ScionC (2026)",
            {
                "step": 0.035,
                "memory_half_life": _retained(0.95),
                "readout": 1.0,
                "norm": "spectral",
                "polar": POLAR_EXPRESS.name,
            }
            | _ADDITIVE,
            _norm_ball,
            _ball_ndim,
        ),
    )
}


def entry(name: object, where: str = "optimizer") -> Entry:
    """The entry called `name`; RecipeError with the nearest valid name otherwise."""
    if not isinstance(name, str) or name not in ENTRIES:
        raise RecipeError(
            f"{where}: {name!r} is not an optimizer; known are {', '.join(ENTRIES)}{nearest(str(name), ENTRIES)}"
        )
    return ENTRIES[name]


def check(name: str, stated: Options, where: str) -> dict[str, Value]:
    """The stated coordinates of a row, each checked.

    Raises:
        RecipeError: unknown names (with the nearest), values out of range, coordinates that the row
            does not use (with those it uses), and combinations without meaning.
    """
    found = entry(name, where)
    checked: dict[str, Value] = {}
    for key, value in stated.items():
        if key not in COORDINATES:
            raise RecipeError(f"{where}: unknown key {key!r}{hint(key, COORDINATES)}")
        if key not in found.uses:
            raise RecipeError(f"{where}: {name} does not use {key!r}; it uses {', '.join(found.uses)}")
        checked[key] = COORDINATES[key].check(value, where)
    full = {**found.defaults, **checked}
    if full.get("strict_mask") is not None and full["shrink"] != "cautious":
        raise RecipeError(f"{where}: strict_mask belongs to shrink = 'cautious', but shrink = {full['shrink']!r}")
    if "polar" in checked and "norm" in full and not str(full["norm"]).startswith("spectral"):
        raise RecipeError(f"{where}: norm = {full['norm']!r} has no polar factor; drop 'polar'")
    return checked


def complete(
    name: str, stated: Options, *, per_update: float = 1.0, unit: float = 1.0, exact_polar: bool = False
) -> dict[str, Value]:
    """All coordinates of a row in the base unit: stated half-lives times `unit`, default ones times `per_update`.

    `exact_polar` is the float64 rule: a polar method that is not stated is the exact polar factor.
    """
    full: dict[str, Value] = {}
    for key, default in entry(name).defaults.items():
        value, factor = (stated[key], unit) if key in stated else (default, per_update)
        if value is None:
            continue
        if key == "polar" and key not in stated and exact_polar:
            value = EXACT
        full[key] = float(value) * factor if COORDINATES[key].kind == "half-life" else value
    return full


def _shrink(o: Options) -> Shrink:
    return {"direct": Direct(), "corrected": Corrected(), "cautious": Cautious(bool(o.get("strict_mask")))}[o["shrink"]]


def row(name: str, options: Options) -> Row:
    """The row called `name` with its structural choices taken from `options` (as from `complete`)."""
    found = entry(name)
    signal, memory, direction = found.parts(options)
    motion: Motion = Targeted(_shrink(options)) if "target_rms" in options else Additive(_shrink(options))
    resolved = {key: str(value) for key, value in options.items() if COORDINATES[key].kind in ("choice", "switch")}
    if not str(resolved.get("norm", "spectral")).startswith("spectral"):
        resolved.pop("polar", None)
    return Row(name, signal, memory, direction, motion, found.source, resolved)
