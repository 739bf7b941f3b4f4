"""What a row makes of gradients that are noise: how long its updates agree, and how large they are.

    geometry              c_u² per entry                     c_k
    signs                 scale²                             arcsine
    Adam's Rms            1/S: the RMS of z over that of g   linear
    polar factor          scale² / max(m, n)                 linear (an upper estimate, see `steady`)
    columns, rows         scale²/m, scale²/n                 linear
    Frobenius, vector     scale² / number of entries         linear
    the readout itself    unknown: that of the gradient      linear

c_u² is that of a full-rank readout without zero lines; a polar factor by a coefficient set is off by the square
of its singular values, which predictions know (`analysis.spectra`). A row whose direction is none of these turns,
but has no known size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import steady
from .clock import Clock
from .counts import complement
from .directions.elementwise import Rms, Sign
from .directions.norm_balls import Ball, LineBall, SignBall, SpectralBall
from .recursion import Action, Direction, Shape

ARCSINE, LINEAR = "arcsine", "linear"
CORRELATIONS = (ARCSINE, LINEAR)


@dataclass(frozen=True)
class Noise:
    """How a row responds to noise.

    Attributes:
        geometry: of its direction; None: not one of those above.
        remembers: it has a memory_half_life; otherwise every update is of one gradient.
        reads: it has a readout; otherwise μ = 1.
        correlation: of its updates, if they are signs: ``arcsine``, or ``linear`` for (2/π) S.
    """

    geometry: Any = None
    remembers: bool = True
    reads: bool = True
    correlation: str = ARCSINE

    @property
    def coordinates(self) -> tuple[str, ...]:
        """What `memory` reads of an action."""
        return (("memory_half_life",) if self.remembers else ()) + (("readout",) if self.reads else ())

    @property
    def signs(self) -> bool:
        return isinstance(self.geometry, Sign | SignBall)

    @property
    def sized(self) -> bool:
        """True if c_u² is known."""
        return isinstance(self.geometry, Sign | Rms | Ball)

    def memory(self, action: Action, clock: Clock) -> tuple[float, float]:
        """(μ, 1 − β) of this update; (0, 1) for a row without a memory."""
        if not self.remembers:
            return 0.0, 1.0
        return action["readout"] if self.reads else 1.0, complement(clock.dtau, action["memory_half_life"])

    def amplification(self, c_a: float, mu: float, c: float) -> float:
        """A, to all orders in 1 − a; (2/π) S for signs with the linear correlation."""
        if not self.signs:
            return steady.linear(c_a, mu, c)
        if self.correlation == ARCSINE:
            return steady.arcsine(c_a, mu, c)
        return steady.SMALL_SIGNS * steady.readout(mu, c)

    def square(self, shape: Shape, mu: float, c: float) -> float:
        """c_u² per entry, for a parameter of this logical shape; `sized` rows only."""
        g = self.geometry
        if isinstance(g, Rms):
            return 1 / steady.readout(mu, c)
        if not isinstance(g, Ball):
            return 1.0
        m, n = (shape[-2], shape[-1]) if len(shape) > 1 else (1, shape[0] if shape else 1)
        if g.scaling == "√(out/in)/k":  # its logical shape is (out, in, *kernel)
            m, n = shape[0], math.prod(shape[1:])
        if isinstance(g, SignBall):
            count = 1
        elif isinstance(g, SpectralBall):
            count = max(m, n)
        elif isinstance(g, LineBall):
            count = m if g.axis == -2 else n
        else:
            count = n if g.axes == (-1,) else m * n  # type: ignore[attr-defined]
        return g.scale(shape) ** 2 / max(count, 1)


ANY = Noise()  # a memory, its readout, and a direction of no known size


def noise_of(direction: Direction, options: Mapping[str, Any]) -> Noise:
    """How the row with this direction and these coordinates responds to noise."""
    return Noise(
        getattr(direction, "geometry", None),
        "memory_half_life" in options,
        "readout" in options,
        str(options.get("correlation") or ARCSINE),
    )
