"""θ+ = a θ + η u, computed as θ + (η u − c_a θ): the two small terms meet first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..clock import Clock
from ..part import Stage
from ..recursion import Action, Array, Arrays, Namespace, Scalars, Shape
from ..shrink import Direct, Shrink
from ..signal import AMBIENT


@dataclass(frozen=True)
class Additive(Stage):
    """θ+ = θ + (η u − c_a θ), with η = q · step."""

    shrink: Shrink = Direct()

    pools: ClassVar[bool] = False

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"eta": ("step",)} | self.shrink.needs

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        return {"eta": clock.q * action["step"]} | self.shrink.scalars(action, clock, shape)

    def init(self, xp: Namespace, theta: Array) -> Arrays:
        return {}

    def pool(self, xp: Namespace, theta: Array, u: Arrays, k: Scalars) -> Arrays:
        return {}

    def __call__(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        along = u[AMBIENT]
        return theta + (k["eta"] * along - self.shrink(xp, theta, along, k)), s

    def evaluate(self, xp: Namespace, theta: Array, state: Arrays, k: Scalars) -> Array:
        return theta
