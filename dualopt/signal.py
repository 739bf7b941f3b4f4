"""What enters the memory: the gradient in the coordinates of the motion, {channel: array}."""

from __future__ import annotations

from dataclasses import dataclass

from .clock import Clock
from .part import Stage
from .recursion import Action, Array, Arrays, Namespace, Scalars, Shape

AMBIENT = ""  # the channel of a motion that acts on θ itself


@dataclass(frozen=True)
class Gradient(Stage):
    """g = ∇f(θ), as measured."""

    def zeros(self, xp: Namespace, theta: Array) -> Arrays:
        return {AMBIENT: xp.zeros_like(theta)}

    def __call__(self, xp: Namespace, theta: Array, evidence: Arrays, k: Scalars) -> Arrays:
        return {AMBIENT: evidence["gradient"]}


@dataclass(frozen=True)
class GradientPlusL2(Gradient):
    """g = ∇f(θ) + λθ: the penalty ½λ‖θ‖² enters the memories (Adam + L2, SGD's weight_decay)."""

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"l2": ("l2",)}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        return {"l2": action["l2"]}

    def __call__(self, xp: Namespace, theta: Array, evidence: Arrays, k: Scalars) -> Arrays:
        return {AMBIENT: evidence["gradient"] + k["l2"] * theta}


def penalised(action: Action) -> Gradient:
    """The signal of a row that has `l2`: without a penalty it is the gradient."""
    return GradientPlusL2() if action.get("l2") else Gradient()


@dataclass(frozen=True)
class Measured(Gradient):
    """The gradient, and of the evidence what else is there: a channel each, which memories may read."""

    names: tuple[str, ...] = ()

    def __call__(self, xp: Namespace, theta: Array, evidence: Arrays, k: Scalars) -> Arrays:
        return {AMBIENT: evidence["gradient"]} | {name: evidence[name] for name in self.names if name in evidence}
