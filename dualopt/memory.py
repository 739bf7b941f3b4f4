"""F: exponential memories of the signal, and how they are read out.

    m+ = m + c_m (g − m)          c_m = 1 − 2^(−Δτ/h_m)
    v+ = v + c_v (g² − v)         c_v = 1 − 2^(−Δτ/h_v)
    z  = μ m+ + (1 − μ) g         written z = m+ + c_μ (g − m+),  c_μ = 1 − μ

All are one `blend`, in the form that carries the complement: exact at c = 0, and free of the error of a
float32 β (relative 8e-3 in 1 − β at Δτ = 256, h = 1e9). State starts at 0, so a memory of age τ has
total weight 1 − 2^(−τ/h); the readout has 1 − μ 2^(−τ/h). Bias correction divides by these, with τ the
cumulative count of the parameter, so it is right for varying Δτ and for parameters that joined late.

`of_memory`: v remembers the squares of m+ instead, v+ = v + c_v (m+² − v).

The readout covers the known forms: μ = 1 plain memory, μ = β Nesterov, μ = β₁/β₂ Lion.
"""

from __future__ import annotations

from dataclasses import dataclass

from .clock import Clock
from .counts import complement
from .part import Stage, key
from .recursion import Action, Array, Arrays, Namespace, Scalars, Shape
from .signal import AMBIENT

NAMES = ("m", "v")  # the keys of the state, part of the interface


def blend(x: Array, y: Array, c: float | Array) -> Array:
    """x + c (y − x): the point a fraction c of the way from x to y."""
    return x + c * (y - x)


@dataclass(frozen=True)
class Memories(Stage):
    """m (first moment) and v (second moment) in every channel of g, each in the shape of its channel."""

    first: bool = True
    second: bool = False
    of_memory: bool = False
    channels: tuple[str, ...] = (AMBIENT,)

    @property
    def apart(self) -> tuple[str, ...]:
        return tuple(key(name, channel) for channel in self.channels if channel != AMBIENT for name in self._names)

    @property
    def _names(self) -> list[str]:
        kept = {"m": self.first, "v": self.second}
        return [name for name in NAMES if kept[name]]

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        first: dict[str, tuple[str, ...]] = {"c_m": ("memory_half_life",)} if self.first else {}
        return first | ({"c_v": ("second_memory_half_life",)} if self.second else {})

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        return {name: complement(clock.dtau, action[used]) for name, (used,) in self.needs.items()}

    def init(self, xp: Namespace, g: Arrays) -> Arrays:
        return {key(name, channel): xp.zeros_like(x) for channel, x in g.items() for name in self._names}

    def __call__(self, xp: Namespace, state: Arrays, g: Arrays, k: Scalars) -> Arrays:
        s = {}
        for channel, x in g.items():
            if self.first:
                name = key("m", channel)
                s[name] = blend(state[name], x, k["c_m"])
            if self.second:
                name, squared = key("v", channel), s[key("m", channel)] if self.of_memory else x
                s[name] = blend(state[name], squared * squared, k["c_v"])
        return s


@dataclass(frozen=True)
class Readout(Stage):
    """z = μ m + (1 − μ) g, divided by its total weight 1 − μ 2^(−τ/h_m) if `corrected`."""

    corrected: bool = False

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        plain: dict[str, tuple[str, ...]] = {"c_mu": ("readout",)}
        return plain | ({"r_m": ("readout", "memory_half_life")} if self.corrected else {})

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        mu = action["readout"]
        found = {"c_mu": 1 - mu}
        if self.corrected:
            found["r_m"] = 1 / ((1 - mu) + mu * complement(clock.tau, action["memory_half_life"]))
        return found

    def __call__(self, xp: Namespace, s: Arrays, g: Array, k: Scalars) -> Array:
        z = blend(s["m"], g, k["c_mu"])
        return k["r_m"] * z if self.corrected else z


@dataclass(frozen=True)
class Current(Stage):
    """z = g: no first memory is read."""

    def __call__(self, xp: Namespace, s: Arrays, g: Array, k: Scalars) -> Array:
        return g


Reader = Readout | Current
