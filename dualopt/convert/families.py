"""The families but Scion's, with the formulas of their maps.

    retention β per update       memory_half_life   β = 2^(−Δτ/h)
    decay of the weights         shrink_half_life   a = 1 − lr·weight_decay = 2^(−Δτ/h_a)
    penalty in the gradient      l2                 λ
    Polyak momentum              step               buf = m / (1 − β), so η = lr / (1 − β)
    Nesterov                     readout            μ = β;  plain momentum μ = 1, no momentum μ = 0
    Lion's (β₁, β₂)              readout            h from β₂, μ = β₁/β₂

Of a direction that does not depend on the size of its argument (a sign, a polar factor, a normalised one) η = lr,
whatever the memory.
"""

from __future__ import annotations

import math

from ..directions.polar import QUINTIC
from ..estimators import STD
from ..recursion import Action
from .family import At, Family, Fields, Image


def _adam(f: Fields, at: At) -> Image:
    if f["beta2"] == 0:
        raise at.error("beta2 = 0 remembers no squares, and a half-life is > 0")
    options = {"step": f["lr"], **at.memory(f["beta1"]), "second_memory_half_life": at.life(f["beta2"])}
    options |= {"bias_correction": f["bias_correction"], "eps": f["eps"], **at.shrink(f, f["lr"])}
    return Image("adamw" if f["decoupled"] else "adam_l2", options)


def _adam_back(row: str, action: Action, own: Action, at: At) -> Fields:
    at.fixed(action, "estimator", STD, "it knows of no microbatches")
    beta1, _ = at.beta(action)
    return {
        "lr": action["step"],
        "beta1": beta1,
        "beta2": at.kept(action["second_memory_half_life"]),
        **{key: action[key] for key in ("bias_correction", "eps")},
        **at.decay(action),
    }


ADAM = Family(
    ("adamw", "adam_l2"),
    {
        "lr": None,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "decay": 0.0,
        "decoupled": True,
        "bias_correction": True,
    },
    _adam,
    _adam_back,
    {
        "step": "lr",
        "memory_half_life": "beta1",
        "second_memory_half_life": "beta2",
        "shrink_half_life": "lr · decay, if decoupled",
        "l2": "decay, if not decoupled",
        "eps": "eps",
        "bias_correction": "bias_correction",
    },
)


def _rmsprop(f: Fields, at: At) -> Image:
    if f["beta2"] == 0:
        raise at.error("a smoothing constant of 0 remembers no squares, and a half-life is > 0")
    options = {"step": f["lr"], "second_memory_half_life": at.life(f["beta2"]), "eps": f["eps"]}
    return Image("rmsprop", options | {"bias_correction": f["bias_correction"]})


def _rmsprop_back(row: str, action: Action, own: Action, at: At) -> Fields:
    at.fixed(action, "shrink_half_life", math.inf, "it has no weight decay")
    found = {"lr": action["step"], "beta2": at.kept(action["second_memory_half_life"])}
    return found | {key: action[key] for key in ("eps", "bias_correction")}


RMSPROP = Family(
    ("rmsprop",),
    {"lr": None, "beta2": 0.99, "eps": 1e-8, "bias_correction": False},
    _rmsprop,
    _rmsprop_back,
    {"step": "lr", "second_memory_half_life": "beta2", "eps": "eps", "bias_correction": "bias_correction"},
)


def _sgd(f: Fields, at: At) -> Image:
    beta, dampening = f["beta1"], f["dampening"]
    if f["nesterov"] and not beta:
        raise at.error("nesterov needs a momentum")
    if dampening and (f["nesterov"] or not beta):
        raise at.error(f"dampening = {dampening!r} goes with plain momentum only")
    if dampening and f["seeded"] and not at.continued:
        raise at.error(
            f"dampening = {dampening!r} has no image: the buffer starts with the undamped first gradient; use "
            "dampening = 0. (A state with a buffer can be taken over)"
        )
    options = {"step": f["lr"] * (1 - dampening) / (1 - beta), **at.memory(beta, beta if f["nesterov"] else 1.0)}
    return Image("sgdm", options | at.shrink(f, f["lr"]))


def _sgd_back(row: str, action: Action, own: Action, at: At) -> Fields:
    """Of equivalent pairs (lr, dampening) the one with dampening 0."""
    at.fixed(action, "bias_correction", False, "it has no bias correction")
    beta, nesterov = at.beta(action, nesterov=True)
    lr = action["step"] * (at.lost(action["memory_half_life"]) if beta else 1.0)
    decay = at.decay({**action, "step": lr})
    return {"lr": lr, "beta1": beta, "nesterov": nesterov, "dampening": 0.0, "seeded": None, **decay}


SGD = Family(
    ("sgdm",),
    {
        "lr": None,
        "beta1": 0.0,
        "nesterov": False,
        "dampening": 0.0,
        "seeded": False,
        "decay": 0.0,
        "decoupled": False,
    },
    _sgd,
    _sgd_back,
    {
        "step": "lr · (1 − dampening)/(1 − beta1)",
        "memory_half_life": "beta1",
        "readout": "beta1 if nesterov, else 1; 0 without momentum",
        "l2": "decay, if not decoupled",
        "shrink_half_life": "lr · decay, if decoupled",
    },
)


def _lion(f: Fields, at: At) -> Image:
    first, second = f["beta1"], f["beta2"]
    if first > second:
        raise at.error(
            f"beta1 = {first!r} > beta2 = {second!r} gives the newest gradient a negative weight; "
            "readout = beta1/beta2 is at most 1"
        )
    options = {"step": f["lr"], **at.memory(second, first / second if second else 0.0)}
    return Image("lion", options | {"shrink_half_life": at.life_of_loss(f["lr"] * f["decay"])})


def _lion_back(row: str, action: Action, own: Action, at: At) -> Fields:
    beta = at.kept(action["memory_half_life"])
    return {
        "lr": action["step"],
        "beta1": action["readout"] * beta,
        "beta2": beta,
        "decay": at.decay(action)["decay"],
    }


LION = Family(
    ("lion",),
    {"lr": None, "beta1": 0.9, "beta2": 0.99, "decay": 0.0},
    _lion,
    _lion_back,
    {
        "step": "lr",
        "memory_half_life": "beta2",
        "readout": "beta1/beta2",
        "shrink_half_life": "lr · decay",
    },
)


def _muon(f: Fields, at: At) -> Image:
    beta = f["beta1"]
    options = {"step": f["lr"], **at.memory(beta, beta if f["nesterov"] else 1.0)}
    options |= {"polar": QUINTIC.name, "scale": f["scale"], **at.shrink(f, f["lr"])}
    return Image("muon", options | _taken(f))


def _muon_back(row: str, action: Action, own: Action, at: At) -> Fields:
    beta, nesterov = at.beta(action, nesterov=True)
    found = {"lr": action["step"], "beta1": beta, "nesterov": nesterov, "scale": action["scale"]}
    return found | at.decay(action) | _iterated(action, at)


def _taken(f: Fields) -> Fields:
    """The coordinate `iterations`, stated where it is not what the set has."""
    return {} if f["iterations"] == len(QUINTIC.steps) else {"iterations": float(f["iterations"])}


def _iterated(action: Action, at: At) -> Fields:
    """The number of steps of the quintic, which is the only set that these libraries have."""
    at.fixed(action, "polar", QUINTIC.name, f"its polar factor is {QUINTIC.name!r}")
    return {"iterations": int(action.get("iterations", len(QUINTIC.steps)))}


MUON = Family(
    ("muon",),
    {
        "lr": None,
        "beta1": 0.95,
        "nesterov": True,
        "decay": 0.0,
        "decoupled": True,
        "scale": "keller_jordan",
        "iterations": len(QUINTIC.steps),
    },
    _muon,
    _muon_back,
    {
        "step": "lr",
        "memory_half_life": "beta1",
        "readout": "beta1 if nesterov, else 1",
        "shrink_half_life": "lr · decay, if decoupled",
        "l2": "decay, if not decoupled",
        "scale": "scale",
        "iterations": "iterations, if not 5",
    },
)
