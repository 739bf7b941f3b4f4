"""optax, with `add_decayed_weights` put at the start of the chain or before the learning rate."""

from __future__ import annotations

from ..families import ADAM, LION, MUON, RMSPROP, SGD
from ..family import Fields
from ..knobs import Knob, Source
from .common import (
    EPS,
    MASK,
    NESTEROV_ADAM,
    NEWTON_SCHULZ,
    STEPS,
    decay,
    free,
    lr,
    never,
    switch,
)


def _optax_nesterov(f: Fields) -> tuple[str, ...]:
    if not (f["nesterov"] and f["beta1"]):
        return ()
    return (
        "with nesterov it weighs the memory by 1/(1 − β^(t+1)) and the gradient by 1/(1 − β^t): its first updates, "
        "until β^t is small, weigh the memory less than a recipe does",
    )


_CHAIN = {  # optax.add_decayed_weights, put before the memory or between it and the learning rate
    "add_decayed_weights": decay(0.0, added=True),
    "add_decayed_weights_at": Knob(
        "start", means=("decoupled",), choices={"start": False, "before learning rate": True}, added=True
    ),
}

OPTAX = (
    Source(
        "optax-adamw",
        "optax.adamw",
        ADAM,
        {
            "learning_rate": lr(),
            "b1": Knob(0.9, "retention", ("beta1",)),
            "b2": Knob(0.999, "retention", ("beta2",)),
            "eps": EPS,
            "eps_root": never(0.0, "rows add ε to the root, not to v"),
            "mu_dtype": free(None),
            "weight_decay": decay(1e-4),
            "mask": MASK,
            "nesterov": NESTEROV_ADAM,
        },
    ),
    Source(
        "optax-adam",
        "optax.adam",
        ADAM,
        {
            "learning_rate": lr(),
            "b1": Knob(0.9, "retention", ("beta1",)),
            "b2": Knob(0.999, "retention", ("beta2",)),
            "eps": EPS,
            "eps_root": never(0.0, "rows add ε to the root, not to v"),
            "mu_dtype": free(None),
            "nesterov": NESTEROV_ADAM,
            **_CHAIN,
        },
    ),
    Source(
        "optax-sgd",
        "optax.sgd",
        SGD,
        {
            "learning_rate": lr(),
            "momentum": Knob(None, "retention", ("beta1",), none=0.0),
            "nesterov": switch(False, "nesterov"),
            "accumulator_dtype": free(None),
            **_CHAIN,
        },
    ),
    Source(
        "optax-rmsprop",
        "optax.rmsprop",
        RMSPROP,
        {
            "learning_rate": lr(),
            "decay": Knob(0.9, "retention", ("beta2",)),
            "eps": EPS,
            "initial_scale": never(0.0, "memories start at 0"),
            "eps_in_sqrt": Knob(True, only=(False,), why="rows add ε to the root; state eps_in_sqrt = False there"),
            "centered": never(False, "no row subtracts the square of a mean gradient"),
            "momentum": never(None, "it remembers directions, and rows remember gradients"),
            "nesterov": free(False),
            "bias_correction": switch(False, "bias_correction"),
        },
    ),
    Source(
        "optax-lion",
        "optax.lion",
        LION,
        {
            "learning_rate": lr(),
            "b1": Knob(0.9, "retention", ("beta1",)),
            "b2": Knob(0.99, "retention", ("beta2",)),
            "mu_dtype": free(None),
            "weight_decay": decay(1e-3),
            "mask": MASK,
        },
    ),
    Source(
        "optax-muon",
        "optax.contrib.muon",
        MUON,
        {
            "learning_rate": lr(),
            "ns_coeffs": NEWTON_SCHULZ,
            "ns_steps": STEPS,
            "beta": Knob(0.95, "retention", ("beta1",)),
            "eps": free(1e-8),
            "weight_decay": decay(0.0),
            "weight_decay_mask": MASK,
            "mu_dtype": free(None),
            "nesterov": switch(True, "nesterov"),
            "adaptive": never(False, "muon has no dual norm; polargrad multiplies by it with nuclear_power = 1"),
            "preconditioning": never("frobenius", "the polar_scaling of a recipe is another"),
            "adam_b1": free(0.9),  # of the other parameters, which are a group of their own
            "adam_b2": free(0.999),
            "adam_eps_root": free(0.0),
            "adam_weight_decay": free(0.0),
            "adam_learning_rate": free(None),
            "muon_weight_dimension_numbers": never(None, "views and blocks of a group say what is a matrix"),
            "consistent_rms": Knob(None, means=("scale",), choices={None: "keller_jordan", 0.2: "moonlight"}),
        },
        inexact=_optax_nesterov,
    ),
)
