"""NorMuon: the polar factor of the momentum with its rows brought to one scale, in all its published forms.

    m+ = m + c_m (g − m)             z = μ m+ + (1 − μ) g
    O  = polar(z)                    (..., m, n); transient: used in this update, not kept
    v+ = v + c_v (mean_j O² − v)     (..., m, 1): one number per output row
    Ô  = O / (√v+ + ε)               rows of one scale
    u  = −scale · Ô / ‖Ô‖_F

    scale = "rms"                                0.2 √(mn): every entry is 0.2 in the root mean square
    scale = "keller_jordan", "mup", "moonlight", "naive"
                                                 f ‖O‖_F with Muon's factor f of the shape: as long as Muon's

    published as                                 scale            μ     ε
    Algorithm 1 of arXiv 2510.05491              rms              1     1e-8
    its authors' code                            keller_jordan    β     1e-10
    dion, by its `adjust_lr`                     mup, moonlight   1     1e-8

v has no bias correction: a common factor of all rows drops out with ‖Ô‖_F, and so does an ε that published
codes add to ‖Ô‖_F as well (1e-8 or less beside a length of about √(mn)); there is none here, as in `unit`. A zero
matrix gives zero, and so does a zero row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..clock import Clock
from ..counts import complement
from ..memory import Memories, Readout, blend
from ..part import Stage, in_channel, key
from ..recursion import Action, Array, Arrays, Namespace, Scalars, Shape
from ..scaling import unit
from .norm_balls import MATRIX, MUON_SCALES, SCALES
from .polar import PLAIN, Way, polar

RMS = "rms"
ROW_SCALES = {RMS: "0.2 √(mn)", **MUON_SCALES}


@dataclass(frozen=True)
class PolarRows(Stage):
    """m, z, O and v of the module; O is passed on under ``o``."""

    method: str
    first: Memories = field(default_factory=Memories)
    read: Readout = field(default_factory=Readout)
    way: Way = PLAIN

    local: ClassVar[bool] = False

    @property
    def apart(self) -> tuple[str, ...]:
        return ("v",)

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        # Not c_v: squares of O cannot overflow, whatever the gradient.
        rows: dict[str, tuple[str, ...]] = {"c_rows": ("second_memory_half_life", "polar")}
        return self.first.needs | self.read.needs | rows

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        rows = {"c_rows": complement(clock.dtau, action["second_memory_half_life"])}
        return self.first.scalars(action, clock, shape) | self.read.scalars(action, clock, shape) | rows

    def init(self, xp: Namespace, g: Arrays) -> Arrays:
        # g is 0 here, and its sums are too; a slice of an empty array would not be standard.
        rows = {key("v", channel): xp.sum(x, axis=-1, keepdims=True) for channel, x in g.items()}
        return self.first.init(xp, g) | rows

    def __call__(self, xp: Namespace, state: Arrays, g: Arrays, k: Scalars) -> Arrays:
        s = self.first(xp, state, g, k)
        for channel, x in g.items():
            o = self.factor(xp, self.readout(xp, s, channel, x, k))
            s |= self.rows(xp, state, channel, o, k)
        return s

    def readout(self, xp: Namespace, s: Arrays, channel: str, g: Array, k: Scalars) -> Array:
        """z of one channel, from s+."""
        return self.read(xp, in_channel(s, ("m",), channel), g, k)

    def rows(self, xp: Namespace, state: Arrays, channel: str, o: Array, k: Scalars) -> Arrays:
        """v+ and O of one channel."""
        v = key("v", channel)
        mean = xp.sum(o * o, axis=-1, keepdims=True) * (1 / o.shape[-1])
        return {v: blend(state[v], mean, k["c_rows"]), key("o", channel): o}

    def factor(self, xp: Namespace, z: Array) -> Array:
        """O."""
        return polar(xp, z, self.method, self.way)


@dataclass(frozen=True)
class RowScaled(Stage):
    """u of the module, from O and v; `scale` is a key of `ROW_SCALES`."""

    scale: str = RMS

    local: ClassVar[bool] = False
    unit: ClassVar[bool] = True
    degree: ClassVar[float | None] = 0.0
    shaped: ClassVar[bool] = True

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"eps": ("eps",), "scale": ("scale",)}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        scale = 1.0 if 0 in shape else SCALES[ROW_SCALES[self.scale]](shape)
        return {"eps": float(action["eps"]), "scale": scale}

    def __call__(self, xp: Namespace, s: Arrays, g: Arrays, k: Scalars) -> Arrays:
        u = {}
        for channel in g:
            o, v = s[key("o", channel)], s[key("v", channel)]
            direction = unit(xp, o * (xp.ones_like(v) / (xp.sqrt(v) + k["eps"])), MATRIX)
            if self.scale != RMS:
                direction = direction * xp.sqrt(xp.sum(o * o, axis=MATRIX, keepdims=True))
            u[channel] = -(k["scale"] * direction)
        return u
