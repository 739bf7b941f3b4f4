"""The maps between raw knobs and actions, one pair for every family of optimizers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .. import catalog
from ..counts import LN2, complement, half_life, increment, retention
from ..directions.polar import QUINTIC
from ..errors import RecipeError
from ..estimators import STD
from ..recipe import Group
from .knobs import SCALE_RULES, SIGNATURES, Coupled, libraries

Options = dict[str, Any]
Action = Mapping[str, Any]


def to_action(coupled: Coupled, per_update: int) -> Group:
    """The recipe group that does what `coupled` does at a batch of `per_update` counts.

    Half-lives are in the base unit of the count. Raises: RecipeError if no row does the same.
    """
    at = _At(increment(per_update, "per_update"), coupled.library, coupled.label)
    row, forward, _ = _FAMILIES[coupled.optimizer]
    return Group(row, forward(coupled, at))


def to_coupled(group: Group, per_update: int, library: str = "") -> Coupled:
    """The raw knobs that do what `group` does at a batch of `per_update` counts: the inverse of `to_action`.

    `library` names the convention; empty takes the first library that has an image. Raises: RecipeError if
    there is none.
    """
    where = f"group {group.name!r}"
    optimizer = next((name for name, (row, *_) in _FAMILIES.items() if row == group.optimizer), None)
    optimizer = "scion" if group.optimizer == "scionc" else optimizer
    if optimizer is None:
        raise RecipeError(f"{where}: {group.optimizer} has no image among {', '.join(_FAMILIES)}")
    homes = libraries(optimizer)
    if library and library not in homes:
        raise RecipeError(f"{where}: {optimizer} is known from {', '.join(homes)}, not from {library!r}")
    every = increment(per_update, "per_update")
    action = catalog.complete(group.optimizer, group.options, per_update=every)
    for key, plain in (("motion", "additive"), ("shrink", "direct"), ("target_rms", None), ("steady_rms", None)):
        if action.get(key) != plain:
            raise RecipeError(f"{where}: raw knobs have no image of {key} = {action[key]!r}")
    failures = []
    for home in (library,) if library else homes:
        at = _At(every, home, f"{where}: {optimizer} of {home}")
        try:
            return Coupled(optimizer, library=home, **at.fitting(_FAMILIES[optimizer][2](action, at), optimizer))
        except RecipeError as error:
            failures.append(error)
    raise failures[0]


@dataclass(frozen=True)
class _At:
    """One increment in one library's convention; `where` begins the messages."""

    per_update: int
    library: str
    where: str

    def error(self, why: str) -> RecipeError:
        return RecipeError(f"{self.where}: {why}")

    def life_of_loss(self, lost: float) -> float:
        """h with 1 − 2^(−Δτ/h) = lost: the inverse of `complement`, as exact for small losses."""
        if lost >= 1:
            raise self.error(f"one update would lose {lost:g} of what it shrinks; a half-life loses less than 1")
        return math.inf if lost == 0 else -LN2 * self.per_update / math.log1p(-lost)

    def lost(self, life: float) -> float:
        return complement(self.per_update, life)

    def kept(self, life: float) -> float:
        return retention(self.per_update, life)

    def memory(self, beta: float, readout: float = 1.0) -> Options:
        """A first memory of retention `beta`; at 0 the newest gradient is read instead."""
        if not beta:
            return {"readout": 0.0}
        return {"memory_half_life": half_life(beta, self.per_update), "readout": readout}

    def beta(self, action: Action, *, nesterov: bool = False) -> tuple[float, bool]:
        """(β, Nesterov) of a memory that is read plainly, not at all or, if `nesterov`, by its own β."""
        beta, mu = self.kept(action["memory_half_life"]), action["readout"]
        if mu in (0.0, 1.0):
            return beta * mu, False
        if not nesterov:
            raise self.error(f"it reads its memory plainly; readout must be 1 or 0, not {mu:.6g}")
        if not math.isclose(mu, beta, rel_tol=1e-9):
            raise self.error(f"Nesterov reads with the retention per update, here {beta:.6g}, but readout = {mu:.6g}")
        return beta, True

    def decay(self, action: Action) -> float:
        """weight_decay with 1 − lr·weight_decay = a."""
        lost = self.lost(action["shrink_half_life"])
        if lost and not action["step"]:
            raise self.error("weights that shrink without a step have no weight_decay: it is per lr")
        return lost / action["step"] if lost else 0.0

    def fixed(self, action: Action, key: str, value: object, why: str) -> None:
        if action[key] != value:
            raise self.error(f"{why}, but {key} = {action[key]!r}")

    def fitting(self, found: Options, optimizer: str) -> Options:
        """`found` without the knobs that this library lacks, which must be as if they were there."""
        signature = {"lr": None, **SIGNATURES[self.library, optimizer]}
        implied = {"bias_correction": True, "scale_rule": "original", "weight_decay": 0.0}
        for knob in found.keys() - signature.keys():
            if found[knob] != implied[knob]:
                raise self.error(f"it has no {knob}, but the action needs {found[knob]!r}")
        return {knob: value for knob, value in found.items() if knob in signature}


def _adam(c: Coupled, at: _At) -> Options:
    first, second = c.betas or (0.0, 0.0)
    if second == 0:
        raise at.error("beta2 = 0 remembers no squares, and a half-life is > 0")
    options = {"step": c.lr, **at.memory(first), "second_memory_half_life": half_life(second, at.per_update)}
    options |= {"bias_correction": c.bias_correction is not False, "eps": c.eps}
    decay = c.weight_decay or 0.0
    if c.optimizer == "adam":
        return options | {"l2": decay}
    return options | {"shrink_half_life": at.life_of_loss(c.lr * decay)}


def _adam_back(action: Action, at: _At) -> Options:
    if action.get("estimator", STD) != STD:
        at.fixed(action, "estimator", STD, "it knows of no microbatches")
    betas = at.beta(action)[0], at.kept(action["second_memory_half_life"])
    found = {"lr": action["step"], "betas": betas}
    found |= {key: action[key] for key in ("bias_correction", "eps")}
    if "l2" not in action:
        return found | {"weight_decay": at.decay(action)}
    at.fixed(action, "shrink_half_life", math.inf, "weight_decay is a penalty in the gradient")
    return found | {"weight_decay": action["l2"]}


def _sgd(c: Coupled, at: _At) -> Options:
    beta, dampening = c.momentum or 0.0, c.dampening or 0.0
    if c.nesterov and not beta:
        raise at.error("nesterov needs a momentum")
    if dampening and (c.nesterov or not beta):
        raise at.error(f"dampening = {dampening!r} goes with plain momentum only")
    if dampening and c.library == "torch":
        raise at.error(
            f"dampening = {dampening!r} has no image: torch starts its buffer with the undamped first "
            "gradient; use dampening = 0"
        )
    step = c.lr * (1 - dampening) / (1 - beta)
    return {"step": step, **at.memory(beta, beta if c.nesterov else 1.0), "l2": c.weight_decay}


def _sgd_back(action: Action, at: _At) -> Options:
    """Of MLX's equivalent pairs (lr, dampening) the one with dampening 0."""
    at.fixed(action, "shrink_half_life", math.inf, "weight_decay is a penalty in the gradient")
    at.fixed(action, "bias_correction", False, "it has no bias correction")
    beta, nesterov = at.beta(action, nesterov=True)
    lr = action["step"] * (at.lost(action["memory_half_life"]) if beta else 1.0)
    return {"lr": lr, "momentum": beta, "nesterov": nesterov, "weight_decay": action["l2"]}


def _lion(c: Coupled, at: _At) -> Options:
    first, second = c.betas or (0.0, 0.0)
    if first > second:
        raise at.error(
            f"beta1 = {first!r} > beta2 = {second!r} gives the newest gradient a negative weight; "
            "readout = beta1/beta2 is at most 1"
        )
    options = {"step": c.lr, **at.memory(second, first / second if second else 0.0)}
    return options | {"shrink_half_life": at.life_of_loss(c.lr * (c.weight_decay or 0.0))}


def _lion_back(action: Action, at: _At) -> Options:
    beta = at.kept(action["memory_half_life"])
    return {"lr": action["step"], "betas": (action["readout"] * beta, beta), "weight_decay": at.decay(action)}


def _muon(c: Coupled, at: _At) -> Options:
    beta, decay = c.momentum or 0.0, c.weight_decay or 0.0
    if decay and c.library == "mlx":
        raise at.error(
            f"weight_decay = {decay!r} has no image: MLX adds it to the gradient before the memory; "
            "use weight_decay = 0 (its default is 0.01)"
        )
    options = {"step": c.lr, **at.memory(beta, beta if c.nesterov else 1.0), "polar": QUINTIC.name}
    options |= {"scale": SCALE_RULES[c.scale_rule or "original"]}
    return options | {"shrink_half_life": at.life_of_loss(c.lr * decay)}


def _muon_back(action: Action, at: _At) -> Options:
    rules = {scale: rule for rule, scale in SCALE_RULES.items()}
    if action["scale"] not in rules:
        raise at.error(f"scale is one of {', '.join(rules)}, but scale = {action['scale']!r}")
    at.fixed(action, "polar", QUINTIC.name, f"its polar factor is {QUINTIC.name!r}")
    if at.library == "mlx":
        at.fixed(action, "shrink_half_life", math.inf, "MLX's weight_decay enters the gradient")
    beta, nesterov = at.beta(action, nesterov=True)
    found = {"lr": action["step"], "momentum": beta, "nesterov": nesterov}
    return found | {"scale_rule": rules[action["scale"]], "weight_decay": at.decay(action)}


def _scion(c: Coupled, at: _At) -> Options:
    norm, momentum = c.norm or "spectral", 1.0 if c.momentum is None else c.momentum
    options = {"step": c.lr * (1.0 if c.scale is None else c.scale), "norm": norm, "readout": 0.0}
    if momentum < 1:
        options |= {"memory_half_life": at.life_of_loss(momentum), "readout": 1.0}
    if norm.startswith("spectral"):
        options["polar"] = QUINTIC.name
    return options | {"shrink_half_life": math.inf if c.unconstrained else at.life_of_loss(c.lr)}


def _scion_back(action: Action, at: _At) -> Options:
    """Without shrink only lr·scale is determined, and scale is 1."""
    if action["norm"].startswith("spectral"):
        at.fixed(action, "polar", QUINTIC.name, f"its polar factor is {QUINTIC.name!r}")
    beta, _ = at.beta(action)
    lost = at.lost(action["shrink_half_life"])
    return {
        "lr": lost or action["step"],
        "scale": action["step"] / lost if lost else 1.0,
        "unconstrained": not lost,
        "momentum": at.lost(action["memory_half_life"]) if beta else 1.0,
        "norm": action["norm"],
    }


_FAMILIES: Mapping[
    str, tuple[str, Callable[[Coupled, _At], Options], Callable[[Action, _At], Options]]
] = {  # optimizer -> its row, and the two maps
    "adamw": ("adamw", _adam, _adam_back),
    "adam": ("adam_l2", _adam, _adam_back),
    "sgd": ("sgdm", _sgd, _sgd_back),
    "lion": ("lion", _lion, _lion_back),
    "muon": ("muon", _muon, _muon_back),
    "scion": ("scion", _scion, _scion_back),
}
