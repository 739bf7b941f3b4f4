"""How large the updates of a row are on noise: c_u² = E‖u‖² per entry, and the largest RMS that u can have.

`noise` knows the directions whose steps can be derived from a radius. These are the others of the catalogue:

    direction                             c_u² per entry
    NorMuon, scale "rms"                  0.04
            with Muon's factors f         f² / max(m, n)
    rows, columns of length 1             1/n, 1/m
    damped polar factor, α = 0            1 / max(m, n)
      rows brought to length 1 last       as rows
    powers of singular values, c = 0, ½   1 / max(m, n)

All else depends on the gradient: its size (α > 0, SGDM), its spectrum (other powers, smoothed polar factors) or its
curvature (Sophia, Shampoo). Their weights turn at a known speed, if they shrink, but have no known length.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..directions.elementwise import Identity, Rms
from ..directions.norm_balls import SCALES
from ..directions.normuon import ROW_SCALES, RowScaled
from ..directions.schatten import Freon
from ..directions.symmetry import AFTER, Lines, Spectral
from ..noise import Noise
from ..recursion import Direction, Shape


@dataclass(frozen=True)
class Size:
    """Mean squares per entry.

    Attributes:
        noise: c_u² in the steady state of noise; None: not known.
        most: that of a gradient which never changes, and of normalised directions the largest; None: not known.
    """

    noise: float | None = None
    most: float | None = None

    @classmethod
    def fixed(cls, square: float) -> Size:
        return cls(square, square)


def size_of(direction: Direction, noise: Noise, shape: Shape, mu: float, c: float) -> Size:
    """c_u² of a direction on a parameter of this logical shape, read out by μ from a memory with 1 − β = c."""
    g = noise.geometry
    if isinstance(g, Rms):
        return Size(noise.square(shape, mu, c), 1.0)
    if noise.sized:
        return Size.fixed(noise.square(shape, mu, c))
    if 0 in shape or len(shape) < 2:
        return Size()
    m, n = shape[-2:]
    if isinstance(direction, RowScaled):
        scale = SCALES[ROW_SCALES[direction.scale]](shape)
        return Size.fixed(scale**2 / (m * n if direction.scale == "rms" else max(m, n)))
    if isinstance(g, Lines) or (isinstance(g, Spectral) and g.rows == AFTER):
        line = m if isinstance(g, Lines) and g.axis == -2 else n
        return Size.fixed(1 / line)  # centred, too: rows of mean 0 keep it but for the spread of their lengths
    if isinstance(g, Spectral) and g.power == "0":
        return Size.fixed(min(m - 1 if g.centred else m, n) / (m * n))
    if isinstance(g, Freon) and g.exponent in (0.0, 0.5):
        return Size.fixed(1 / max(m, n))
    return Size()


def linear_in_gradient(noise: Noise) -> bool:
    """True for directions that have a threshold of curvature: z itself, and z over a root that changes slowly."""
    return isinstance(noise.geometry, Identity | Rms)
