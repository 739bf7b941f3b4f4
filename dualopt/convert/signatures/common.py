"""Arguments that several optimizers have, and what is not exact of several."""

from __future__ import annotations

from typing import Any

from ..family import Fields
from ..knobs import Knob
from ..layout import Layout


def lr(default: Any = None) -> Knob:
    return Knob(kind="rate", means=("lr",)) if default is None else Knob(default, "rate", ("lr",))


def decay(default: float, **more: Any) -> Knob:
    return Knob(default, "rate", ("decay",), **more)


def switch(default: bool, *means: str) -> Knob:
    return Knob(default, "switch", means)


def never(default: Any, why: str) -> Knob:
    """An argument of which only the default has an image."""
    return Knob(default, only=(default,), why=why)


def free(default: Any) -> Knob:
    """An argument about speed, memory or storage."""
    return Knob(default)


BETAS = Knob((0.9, 0.999), "pair", ("beta1", "beta2"))
EPS = Knob(1e-8, "positive", ("eps",))
AMSGRAD = never(False, "no row keeps the largest v")
MAXIMIZE = never(False, "rows descend; negate the loss")
TORCH_SPEED = {"foreach": free(None), "capturable": free(False), "differentiable": free(False)}
NEWTON_SCHULZ = Knob(
    (3.4445, -4.7750, 2.0315),
    only=((3.4445, -4.7750, 2.0315),),
    why="of coefficients recipes have named sets, see polar in `dualopt list muon`",
)
STEPS = Knob(5, "steps", ("iterations",))
NESTEROV_ADAM = never(
    False, "it corrects the memory by 1 − β^(t+1) and the gradient by 1 − β^t, and rows the whole readout by 1 − μβ^t"
)
MASK = never(None, "groups of a recipe say which parameters shrink")


ONE_BUFFER = Layout({"momentum_buffer": "m"})
BALL = Layout({"momentum_buffer": "m"}, heavy_ball=True)


def in_bfloat16(f: Fields) -> tuple[str, ...]:
    return ("its polar factor is computed in bfloat16: polar_work = 'bfloat16' rounds the iterates as often",)
