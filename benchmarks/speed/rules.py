"""The optimizers that are compared, with the knobs that every library is given.

`group` is the same in dualopt's coordinates, made by `dualopt.convert`: ours and torch's AdamW are one update.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RULES: dict[str, dict[str, Any]] = {
    "adamw": {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1},
    "lion": {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.1},
    "sgdm": {"lr": 1e-2, "momentum": 0.9},
    "muon": {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1},
}
_SOURCES = {"adamw": "torch-adamw", "lion": "lion-pytorch", "sgdm": "torch-sgd", "muon": "torch-muon"}
ROW = "row:"  # a rule of dualopt's catalogue, at its defaults: "row:rmsprop"


def knobs(rule: str, *left_out: str) -> dict[str, Any]:
    """The knobs of a rule, less those that a library does not have."""
    return {knob: value for knob, value in RULES[rule].items() if knob not in left_out}


def group(rule: str, per_update: int, **more: Any) -> Mapping[str, Any]:
    """The group of a recipe that does the same; `more` replaces and adds coordinates."""
    if rule.startswith(ROW):
        return {"optimizer": rule.removeprefix(ROW), **more}
    from dualopt.convert import Knobs, source, to_action

    return to_action(Knobs(source(_SOURCES[rule]), **RULES[rule]), per_update).to_dict() | more
