"""mlx.optimizers."""

from __future__ import annotations

from ..families import ADAM, LION, MUON, RMSPROP, SGD
from ..knobs import Knob, Source
from ..layout import Layout
from .common import (
    BETAS,
    EPS,
    STEPS,
    decay,
    lr,
    switch,
)

MLX_ADAM = Layout({"m": "m", "v": "v"}, updates="step", shared=True)

MLX = (
    Source(
        "mlx-adamw",
        "mlx.optimizers.AdamW",
        ADAM,
        {
            "learning_rate": lr(),
            "betas": BETAS,
            "eps": EPS,
            "weight_decay": decay(0.01),
            "bias_correction": switch(False, "bias_correction"),
        },
        layout=MLX_ADAM,
    ),
    Source(
        "mlx-adam",
        "mlx.optimizers.Adam",
        ADAM,
        {"learning_rate": lr(), "betas": BETAS, "eps": EPS, "bias_correction": switch(False, "bias_correction")},
        fixed={"decoupled": False},
        layout=MLX_ADAM,
    ),
    Source(
        "mlx-sgd",
        "mlx.optimizers.SGD",
        SGD,
        {
            "learning_rate": lr(),
            "momentum": Knob(0.0, "retention", ("beta1",)),
            "weight_decay": decay(0.0),
            "dampening": Knob(0.0, "fraction", ("dampening",)),
            "nesterov": switch(False, "nesterov"),
        },
        layout=Layout({"v": "m"}, heavy_ball=True, updates="step", shared=True),
    ),
    Source(
        "mlx-rmsprop",
        "mlx.optimizers.RMSprop",
        RMSPROP,
        {"learning_rate": lr(), "alpha": Knob(0.99, "retention", ("beta2",)), "eps": EPS},
        layout=Layout({"v": "v"}, updates="step", shared=True),
    ),
    Source(
        "mlx-lion",
        "mlx.optimizers.Lion",
        LION,
        {
            "learning_rate": lr(),
            "betas": Knob((0.9, 0.99), "pair", ("beta1", "beta2")),
            "weight_decay": decay(0.0),
        },
        layout=Layout({"m": "m"}, updates="step", shared=True),
    ),
    Source(
        "mlx-muon",
        "mlx.optimizers.Muon",
        MUON,
        {
            "learning_rate": lr(),
            "momentum": Knob(0.95, "retention", ("beta1",)),
            "weight_decay": decay(0.01),
            "nesterov": switch(True, "nesterov"),
            "ns_steps": STEPS,
        },
        fixed={"decoupled": False},
        layout=Layout({"v": "m"}, updates="step", shared=True),
    ),
)
