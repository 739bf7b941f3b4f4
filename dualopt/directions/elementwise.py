"""Elementwise directions: u depends on each entry of the readout alone. −0 and 0 move nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..clock import Clock
from ..counts import complement
from ..part import Stage
from ..recursion import Action, Array, Arrays, Namespace, Scalars, Shape


@dataclass(frozen=True)
class Identity(Stage):
    """u = −z: descent along the readout itself."""

    degree: ClassVar[float | None] = 1.0

    def __call__(self, xp: Namespace, z: Array, s: Arrays, k: Scalars) -> Array:
        return -z


@dataclass(frozen=True)
class Sign(Stage):
    """u = −sign(z), with sign(0) = 0."""

    unit: ClassVar[bool] = True
    degree: ClassVar[float | None] = 0.0

    def __call__(self, xp: Namespace, z: Array, s: Arrays, k: Scalars) -> Array:
        return -xp.sign(z)


@dataclass(frozen=True)
class Rms(Stage):
    """u = −z / (√v̂ + ε), v̂ = v / (1 − 2^(−τ/h_v)) if `corrected`, else v. ε stands outside the root."""

    corrected: bool = True

    degree: ClassVar[float | None] = 0.0

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        root: dict[str, tuple[str, ...]] = {"r_v": ("second_memory_half_life",)} if self.corrected else {}
        return root | {"eps": ("eps",)}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        found = {"eps": float(action["eps"])}
        if self.corrected:
            found["r_v"] = 1 / complement(clock.tau, action["second_memory_half_life"])
        return found

    def __call__(self, xp: Namespace, z: Array, s: Arrays, k: Scalars) -> Array:
        return -z / (self.root(xp, s["v"], k) + k["eps"])

    def root(self, xp: Namespace, v: Array, k: Scalars) -> Array:
        """√v̂."""
        return xp.sqrt(k["r_v"] * v if self.corrected else v)
