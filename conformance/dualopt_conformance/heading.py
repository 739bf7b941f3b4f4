"""u, the direction of an update, by itself: recorded at a few updates, and held to what it declares.

    direction/T    u of the backend from start/T, of the rows below; in the reference of numpy's exact tier

A row whose direction has a length that does not depend on the gradient's says so, and u alone shows whether it is kept:

    sign                 every entry is 0 or ± the scale
    rows, columns, ‖·‖   0, or as long as the scale to (n/2 + 9) 2^-24: squares and their sum n/2, root 2, reciprocal 4,
                         and three products and scales
    polar factor         no singular value above the largest of the coefficient set's map; of those of the readout that
                         the set is made for, none below its band; to the rounding that `polar_bounds` derives, and
                         never above 2, which no rounding brings about

Only the motion is another one, which leaves u where θ would be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from dualopt.directions import Descent
from dualopt.directions.elementwise import Identity, Sign
from dualopt.directions.norm_balls import Ball, LineBall, SignBall, SpectralBall
from dualopt.directions.normuon import RMS, RowScaled
from dualopt.directions.polar import EXACT, SETS
from dualopt.directions.polar.iterations import scaled
from dualopt.part import Stage
from dualopt.recursion import Arrays, Namespace, Scalars, propose
from dualopt.signal import AMBIENT

from .arithmetic import NATIVE, Array, U
from .bounds import Bounds
from .cases import Case
from .factorised import MARGIN, off
from .followed import bounding
from .origins import MOST
from .polar_bounds import polar_bound
from .walk import Moment, moments

MATRIX = (-2, -1)
_XP = Bounds((NATIVE,))
_GRID = 2**12


@dataclass(frozen=True)
class Shown(Stage):
    """The motion to u itself; the state is kept."""

    motion: Any

    pools: ClassVar[bool] = False

    @property
    def local(self) -> bool:  # type: ignore[override]
        return bool(self.motion.local)

    @property
    def apart(self) -> tuple[str, ...]:
        return tuple(self.motion.apart)

    def __call__(self, xp: Namespace, theta: Any, u: Arrays, s: Arrays, k: Scalars) -> tuple[Any, Arrays]:
        return u[AMBIENT], s

    def init(self, xp: Namespace, theta: Any) -> Arrays:
        return dict(self.motion.init(xp, theta))

    def pool(self, xp: Namespace, theta: Any, u: Arrays, k: Scalars) -> Arrays:
        return {}

    def evaluate(self, xp: Namespace, theta: Any, state: Arrays, k: Scalars) -> Any:
        return theta


def declares(case: Case) -> bool:
    """True if u is recorded: its length is declared, and the case is one of those that every variant meets."""
    direction = case.row.direction
    kept = isinstance(direction, RowScaled) and direction.scale == RMS
    ball = isinstance(direction, Descent) and isinstance(direction.geometry, Sign | Ball)
    return (kept or ball) and case.situation.name == "usual" and not case.streams


def marks(updates: int) -> tuple[int, ...]:
    """The updates whose u is recorded: the first, a middle and the last one of lockstep."""
    found = moments(updates)
    return tuple(sorted({found[0], found[len(found) // 2], found[-1]}))


def shown(m: Moment) -> Moment:
    """The update that leaves u in the place of θ."""
    row = replace(m.planned.row, motion=Shown(m.planned.row.motion))
    cohorts = tuple(replace(c, scalars={key: c.scalars[key] for key in row.needs}) for c in m.proposal.cohorts)
    return replace(m, planned=replace(m.planned, row=row), proposal=replace(m.proposal, cohorts=cohorts))


# ---- what is declared


def departed(m: Moment, name: str, u: Array) -> Array:
    """The elements of u, as the row sees it, that belong to something that is not as declared."""
    row, k = m.planned.row, m.proposal.scalars[name]
    u = u.astype(np.float64)
    scale = float(np.float32(k.get("scale", 1.0)))
    geometry = getattr(row.direction, "geometry", None)
    if isinstance(geometry, Sign | SignBall):
        return np.asarray((u != 0) & (np.abs(u) != scale))
    if isinstance(geometry, SpectralBall):
        return np.broadcast_to(_off_band(m, name, geometry, u / scale), u.shape)
    axes = (geometry.axis,) if isinstance(geometry, LineBall) else getattr(geometry, "axes", MATRIX)
    length = np.sqrt(np.sum(u * u, axis=axes, keepdims=True))
    entries = math.prod(u.shape[i] for i in axes)
    far = np.abs(length / scale - 1) > MARGIN * (entries / 2 + 9) * U
    return np.broadcast_to(~np.isfinite(length) | ((length != 0) & far), u.shape)


def _off_band(m: Moment, name: str, geometry: SpectralBall, atom: Array) -> Array:
    """The matrices whose singular values are not as the coefficient set has them, (..., 1, 1)."""
    finite = np.isfinite(atom).all(axis=MATRIX)
    found = np.linalg.svd(np.where(np.isfinite(atom), atom, 0.0), compute_uv=False)
    z = _readout(np, m, name)
    if geometry.method == EXACT:
        sigma = np.linalg.svd(z, compute_uv=False)
        sigma, least, low, high = sigma / np.maximum(sigma[..., :1], 1e-300), 0.5, 1.0, 1.0
    else:
        chosen = SETS[geometry.method]
        sigma = np.linalg.svd(scaled(np, z, geometry.way.normalise or chosen.normalise), compute_uv=False)
        least, (low, high) = chosen.least, band(geometry.method, geometry.way.steps)
    meant = sigma > least * (1 + 2.0**-10)

    def outside(slack: Any) -> Array:
        slack = slack + 2.0**-20  # the float64 of the map, and that of the grid
        return np.asarray((found > np.minimum(high + slack, MOST)) | (meant & (found < low - slack)))

    bad = outside(0.0)
    if bad.any():  # then it is worth while to derive what rounding may do
        bad = outside(bound_of(m, name, geometry)[..., 0])
    return np.asarray(bad.any(axis=-1) | ~finite)[..., None, None]


def bound_of(m: Moment, name: str, geometry: SpectralBall) -> Array:
    """How far rounding may bring the polar factor of an update, in the Frobenius norm, (..., 1, 1)."""
    with np.errstate(all="ignore"):
        found = off(polar_bound(_XP, _readout(_XP, m, name), geometry.method, geometry.way))
    return np.asarray(found[0])


def _readout(xp: Any, m: Moment, name: str) -> Any:
    """−z in float64, or with its bound."""
    row, view = m.planned.row, m.planned.views[name]
    read = replace(row, direction=replace(row.direction, geometry=Identity()))  # type: ignore[type-var]
    array = _XP.array if xp is _XP else np.float64
    state = {key: array(x) for key, x in m.planned.seen(np, name, dict(m.state[name])).items()}
    theta, g = (array(view.apply(np, x[name])) for x in (m.theta, m.gradient))
    with np.errstate(all="ignore"):
        return propose(xp, bounding(read), theta, state, {"gradient": g}, m.proposal.scalars[name])[2][AMBIENT]


@lru_cache(maxsize=64)
def band(method: str, steps: int | None) -> tuple[float, float]:
    """What a set makes of singular values that it is meant for at least, and of any in [0, 1] at most."""
    chosen = SETS[method] if steps is None else SETS[method].taking(steps)
    meant = [chosen.response(chosen.least ** (i / _GRID)) for i in range(_GRID + 1)]
    below = [chosen.response(chosen.least * i / _GRID) for i in range(_GRID)]
    return min(meant), max(*meant, *below)
