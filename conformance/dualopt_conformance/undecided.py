"""What rounding may decide: signs, masks, ranks, gaps, and whether there is a tangent part at all.

An element is undecided from the first update on in which rounding could have turned what it depends on. Free runs in
the fast tier leave it out and count it: no envelope holds where two right answers are far apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dualopt.directions.elementwise import Sign
from dualopt.directions.norm_balls import MATRIX, SignBall
from dualopt.directions.polar import EXACT
from dualopt.directions.schatten import Freon, MiMuon
from dualopt.exact import exact
from dualopt.memory import blend
from dualopt.motion import Averaged
from dualopt.motion.rotational import UNITS, Rotational
from dualopt.motion.sphere import Geodesic, Sphere
from dualopt.motion.tangent import ROUNDING, projected
from dualopt.planned import PlannedGroup
from dualopt.recursion import Row, propose
from dualopt.scaling import unit
from dualopt.shrink import Cautious
from dualopt.signal import AMBIENT

from .cases import Case
from .metric import ulp
from .walk import Moment

Array = np.ndarray[Any, Any]
UNDECIDED = 16  # ulp of what a sign was computed from, below which rounding could turn it
_TIER = exact(np)


def decides(row: Row) -> bool:
    """True if the row takes signs or masks, a rank, or a gap of singular values, which rounding may turn.

    Clipping and the larger of two numbers are no decisions: what they choose between is equal where it turns. Whether
    there is a tangent part is one (`projects`).
    """
    geometry, shrink = getattr(row.direction, "geometry", None), getattr(row.motion, "shrink", None)
    ranked = isinstance(geometry, MiMuon | Freon) or getattr(geometry, "method", "") == EXACT
    return ranked or isinstance(geometry, Sign | SignBall) or isinstance(shrink, Cautious)


def projects(row: Row) -> bool:
    """True if the motion takes the tangent part of u, and to a length that does not depend on it."""
    return isinstance(row.motion, Rotational | Geodesic)


def judged_freely(case: Case) -> bool:
    """False where free runs in the fast tier are only shown: rows that multiply matrices and take masks, microbatches.

    No bound is derived for what is folded from a stream.
    """
    return not case.streams and not (case.spectral and decides(case.row))


def unsures(moment: Moment) -> dict[str, Array]:
    """By parameter, the elements that rounding may have decided in an update; what decides nothing is left out."""
    row = moment.planned.row
    found = _signs(moment) if decides(row) else {}
    if projects(row):
        found |= {name: found.get(name, False) | _radial(moment, name) for name in moment.gradient}
    return found


def _signs(moment: Moment) -> dict[str, Array]:
    """Where the readout, or what a mask compares with it, is so small beside what it was computed from that rounding
    decides its sign. Motions that normalise carry that to all of a row or matrix."""
    masked = isinstance(getattr(moment.planned.row.motion, "shrink", None), Cautious)
    found = {}
    for name, g in moment.gradient.items():
        k, s = moment.proposal.scalars[name], moment.state_after[name]
        unsure = np.zeros(g.shape, bool)
        if "m" in s and "c_mu" in k:
            z = blend(s["m"], g, np.float32(k["c_mu"]))
            scale = np.maximum(np.abs(s["m"]), np.abs(moment.state[name]["m"]))
            unsure |= _small(z, np.maximum(scale, k["c_m"] * np.abs(g)))
        if masked:
            unsure |= _small(_compared(moment, name), 1.0)
        found[name] = _spread(moment.planned, name, unsure)
    return found


def _radial(moment: Moment, name: str) -> Array:
    """The rows or matrices of which u is parallel to θ, up to rounding: ‖u − <u, w> w‖ <= 2 · 16 ε ‖u‖.

    The core takes a tangent part of at most 16 ε ‖u‖ for rounding, and that is at most 16 ε ‖u‖ (`tangent`). So from
    twice that on every evaluation finds one, and up to there some may. Computed in the exact tier, as pins need it.
    """
    planned, k = moment.planned, moment.proposal.scalars[name]
    view, row = planned.views[name], planned.row
    if not view.size:
        return np.zeros(moment.theta[name].shape, bool)
    with np.errstate(under="ignore", over="ignore"):
        theta, g = (view.apply(np, x[name]) for x in (moment.theta, moment.gradient))
        state = planned.seen(np, name, dict(moment.state[name]))
        u = propose(_TIER, row, theta, state, {"gradient": g}, k)[2][AMBIENT]
        axis = _axis(row.motion)
        _, tangential, all_of_it = projected(_TIER, u, unit(_TIER, theta, axis), axis)
    eps = float(np.finfo(np.float32).eps)
    radial = (tangential <= (2 * ROUNDING * eps) ** 2 * all_of_it) & (all_of_it > 0)
    return np.asarray(view.undo(np, np.broadcast_to(radial, theta.shape)))


def _axis(motion: Any) -> int | tuple[int, ...]:
    """The dimensions that a motion normalises together."""
    return UNITS[motion.over] if isinstance(motion, Rotational) else MATRIX


def _compared(moment: Moment, name: str) -> Array:
    """What shrinks: z of an average unless it is θ, and θ."""
    motion = moment.planned.row.motion
    at_z = isinstance(motion, Averaged) and motion.shrink_at == "z"
    return np.asarray(moment.state[name]["z"] if at_z else moment.theta[name])


def _spread(planned: PlannedGroup, name: str, unsure: Array) -> Array:
    """All that is normalised together with an element that is unsure."""
    motion, view = planned.row.motion, planned.views[name]
    if not isinstance(motion, Rotational | Sphere) or not unsure.size:
        return unsure
    seen = np.asarray(view.apply(np, unsure))
    return np.asarray(view.undo(np, np.broadcast_to(seen.any(axis=_axis(motion), keepdims=True), seen.shape)))


def _small(x: Array, scale: Any) -> Array:
    """0 < scale, and |x| at most UNDECIDED of its ulp; an exact 0 made of zeros is decided."""
    return np.asarray((np.abs(x) <= UNDECIDED * ulp(scale, "float32")) & (np.asarray(scale) > 0))
