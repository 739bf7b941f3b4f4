"""torch.optim."""

from __future__ import annotations

from ..families import ADAM, MUON, RMSPROP, SGD
from ..knobs import Knob, Source
from ..layout import Layout
from .common import (
    AMSGRAD,
    BALL,
    BETAS,
    EPS,
    MAXIMIZE,
    NEWTON_SCHULZ,
    ONE_BUFFER,
    STEPS,
    TORCH_SPEED,
    decay,
    free,
    in_bfloat16,
    lr,
    never,
    switch,
)

TORCH_ADAM = Layout(
    {"exp_avg": "m", "exp_avg_sq": "v"}, updates="step", refused={"max_exp_avg_sq": "Adam with amsgrad = True"}
)
TORCH_RMSPROP = Layout(
    {"square_avg": "v"},
    updates="step",
    refused={"grad_avg": "RMSprop with centered = True", "momentum_buffer": "RMSprop with a momentum"},
)

TORCH = (
    Source(
        "torch-adamw",
        "torch.optim.AdamW",
        ADAM,
        {
            "lr": lr(1e-3),
            "betas": BETAS,
            "eps": EPS,
            "weight_decay": decay(0.01),
            "amsgrad": AMSGRAD,
            "maximize": MAXIMIZE,
            **TORCH_SPEED,
            "fused": free(None),
        },
        layout=TORCH_ADAM,
    ),
    Source(
        "torch-adam",
        "torch.optim.Adam",
        ADAM,
        {
            "lr": lr(1e-3),
            "betas": BETAS,
            "eps": EPS,
            "weight_decay": decay(0.0),
            "amsgrad": AMSGRAD,
            **TORCH_SPEED,
            "maximize": MAXIMIZE,
            "fused": free(None),
            "decoupled_weight_decay": switch(False, "decoupled"),
        },
        layout=TORCH_ADAM,
    ),
    Source(
        "torch-nadam",
        "torch.optim.NAdam",
        ADAM,
        {
            "lr": lr(2e-3),
            "betas": Knob(
                (0.9, 0.999),
                "pair",
                ("beta1", "beta2"),
            ),
            "eps": EPS,
            "weight_decay": decay(0.0),
            "momentum_decay": free(4e-3),
            "decoupled_weight_decay": switch(False, "decoupled"),
            **TORCH_SPEED,
            "maximize": MAXIMIZE,
        },
        refused=lambda f: (
            "its momentum β₁(1 − ½·0.96^(tψ)) changes in every update, and memory and gradient have corrections of "
            "their own; only with betas[0] = 0 a row is the same"
            if f["beta1"]
            else ""
        ),
    ),
    Source(
        "torch-sgd",
        "torch.optim.SGD",
        SGD,
        {
            "lr": lr(1e-3),
            "momentum": Knob(0.0, "retention", ("beta1",)),
            "dampening": Knob(0.0, "fraction", ("dampening",)),
            "weight_decay": decay(0.0),
            "nesterov": switch(False, "nesterov"),
            "maximize": MAXIMIZE,
            "foreach": free(None),
            "differentiable": free(False),
            "fused": free(None),
        },
        fixed={"seeded": True},
        layout=BALL,
    ),
    Source(
        "torch-rmsprop",
        "torch.optim.RMSprop",
        RMSPROP,
        {
            "lr": lr(1e-2),
            "alpha": Knob(0.99, "retention", ("beta2",)),
            "eps": EPS,
            "weight_decay": never(0.0, "it enters the gradient, and the row has no penalty"),
            "momentum": never(0.0, "it remembers directions, and rows remember gradients"),
            "centered": never(False, "no row subtracts the square of a mean gradient"),
            **TORCH_SPEED,
            "maximize": MAXIMIZE,
        },
        layout=TORCH_RMSPROP,
    ),
    Source(
        "torch-muon",
        "torch.optim.Muon",
        MUON,
        {
            "lr": lr(1e-3),
            "weight_decay": decay(0.1),
            "momentum": Knob(0.95, "retention", ("beta1",)),
            "nesterov": switch(True, "nesterov"),
            "ns_coefficients": NEWTON_SCHULZ,
            "eps": free(1e-7),
            "ns_steps": STEPS,
            "adjust_lr_fn": Knob(
                None,
                means=("scale",),
                choices={None: "keller_jordan", "original": "keller_jordan", "match_rms_adamw": "moonlight"},
            ),
        },
        layout=ONE_BUFFER,
        inexact=in_bfloat16,
    ),
)
