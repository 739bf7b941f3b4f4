"""The raw knobs of other libraries' optimizers, with the defaults of their signatures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..directions.norm_balls import NORMS
from ..errors import RecipeError, nearest

# The knobs of every optimizer with its library's defaults; `lr` is always stated.
SIGNATURES: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("torch", "adamw"): {"weight_decay": 0.01, "betas": (0.9, 0.999), "eps": 1e-8},
    ("torch", "adam"): {"weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-8},
    ("torch", "sgd"): {"weight_decay": 0.0, "momentum": 0.0, "nesterov": False, "dampening": 0.0},
    ("torch", "muon"): {
        "weight_decay": 0.1, "momentum": 0.95, "nesterov": True, "scale_rule": "original",
    },
    ("mlx", "adamw"): {
        "weight_decay": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "bias_correction": False,
    },
    ("mlx", "adam"): {"betas": (0.9, 0.999), "eps": 1e-8, "bias_correction": False},
    ("mlx", "sgd"): {"weight_decay": 0.0, "momentum": 0.0, "nesterov": False, "dampening": 0.0},
    ("mlx", "lion"): {"weight_decay": 0.0, "betas": (0.9, 0.99)},
    ("mlx", "muon"): {"weight_decay": 0.01, "momentum": 0.95, "nesterov": True},
    ("lion-pytorch", "lion"): {"weight_decay": 0.0, "betas": (0.9, 0.99)},
    ("scion", "scion"): {"momentum": 1.0, "scale": 1.0, "unconstrained": False, "norm": "spectral"},
}  # fmt: skip
SCALE_RULES = {"original": "keller_jordan", "match_rms_adamw": "moonlight"}  # torch's name -> ours
OPTIMIZERS = tuple(dict.fromkeys(name for _, name in SIGNATURES))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _betas(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(_number(b) and 0 <= b < 1 for b in value)


Check = tuple[str, Callable[[Any], bool]]  # what is valid, in words and as a test

_SWITCH: Check = ("true or false", lambda v: isinstance(v, bool))
_FROM_ZERO: Check = ("a finite number >= 0", lambda v: _number(v) and v >= 0)
_KNOBS: dict[str, Check] = {
    "lr": _FROM_ZERO,
    "weight_decay": _FROM_ZERO,
    "betas": ("two numbers in [0, 1)", _betas),
    "momentum": ("in [0, 1)", lambda v: _number(v) and 0 <= v < 1),
    "nesterov": _SWITCH,
    "dampening": ("in [0, 1]", lambda v: _number(v) and 0 <= v <= 1),
    "eps": ("> 0", lambda v: _number(v) and v > 0),
    "bias_correction": _SWITCH,
    "scale_rule": (f"one of {', '.join(SCALE_RULES)}", lambda v: v in SCALE_RULES),
    "norm": (f"one of {', '.join(NORMS)}", lambda v: v in NORMS),
    "scale": _FROM_ZERO,
    "unconstrained": _SWITCH,
}
_OVERRIDES: Mapping[str, dict[str, Check]] = {
    "scion": {"momentum": ("in (0, 1]", lambda v: _number(v) and 0 < v <= 1)},
}


@dataclass(frozen=True)
class Coupled:
    """The raw knobs of an optimizer in the convention of a library; None means the library's default.

    Args:
        optimizer: ``adamw``, ``adam``, ``sgd``, ``lion``, ``muon`` or ``scion``.
        lr: the peak learning rate.
        library: ``torch``, ``mlx``, ``lion-pytorch`` or ``scion``; empty for the first that has the optimizer.
        momentum: Polyak's μ (SGD), the retention of the memory (Muon), or one minus it (Scion).
        scale_rule: torch's ``adjust_lr_fn`` of Muon.
        scale: the radius that Scion multiplies its update with.

    Raises:
        RecipeError: an unknown name, a knob that this library's optimizer does not have, a bad value.
    """

    optimizer: str
    lr: float
    library: str = ""
    weight_decay: float | None = None
    betas: tuple[float, float] | None = None
    momentum: float | None = None
    nesterov: bool | None = None
    dampening: float | None = None
    eps: float | None = None
    bias_correction: bool | None = None
    scale_rule: str | None = None
    norm: str | None = None
    scale: float | None = None
    unconstrained: bool | None = None

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise RecipeError(
                f"{self.optimizer!r} is not one of {', '.join(OPTIMIZERS)}{nearest(str(self.optimizer), OPTIMIZERS)}"
            )
        homes = libraries(self.optimizer)
        if self.library and self.library not in homes:
            raise RecipeError(f"{self.optimizer} is known from {', '.join(homes)}, not from {self.library!r}")
        object.__setattr__(self, "library", self.library or homes[0])
        signature = {"lr": self.lr, **SIGNATURES[self.library, self.optimizer]}
        for knob, (words, valid) in (_KNOBS | _OVERRIDES.get(self.library, {})).items():
            value = getattr(self, knob)
            if value is None and knob != "lr":
                object.__setattr__(self, knob, signature.get(knob))
                continue
            if knob not in signature:
                raise RecipeError(f"{self.label} has no {knob}; it has {', '.join(signature)}")
            if not valid(value):
                raise RecipeError(f"{self.label}: {knob} must be {words}, got {value!r}")
        if self.betas is not None:
            object.__setattr__(self, "betas", tuple(self.betas))

    @property
    def label(self) -> str:
        """The optimizer and its library, for messages."""
        return f"{self.optimizer} of {self.library}"

    def to_dict(self) -> dict[str, Any]:
        """The knobs that this optimizer has."""
        stated = dataclasses.asdict(self)
        return {key: value for key, value in stated.items() if value is not None}


def libraries(optimizer: str) -> tuple[str, ...]:
    """The libraries whose `optimizer` is known here."""
    return tuple(library for library, name in SIGNATURES if name == optimizer)
