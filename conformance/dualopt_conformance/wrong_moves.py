"""Mutants of averaged motion, of motions on spheres, of rotations and of steps that hold a size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dualopt import steady
from dualopt.clock import Clock
from dualopt.counts import complement
from dualopt.directions.norm_balls import MATRIX
from dualopt.lie import IN, OUT, SkewPair
from dualopt.memory import Memories, blend
from dualopt.motion import Averaged, Multiplicative, Transported
from dualopt.motion.held import Held
from dualopt.motion.rotational import LISTING, UNITS, Rotational
from dualopt.motion.sphere import Geodesic, Hyperball, SingleHalfLife, Sphere, entries_root, moves
from dualopt.motion.tangent import tangent
from dualopt.noise import ARCSINE, Noise
from dualopt.recursion import Array, Arrays, Namespace, Scalars
from dualopt.scaling import unit
from dualopt.shrink import Direct, Shrink
from dualopt.signal import AMBIENT

from .alterations import Entry, altered, exchanged, having, rewired

# ---- averages


def _stale(self: Averaged, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
    """x of the z before this update."""
    x = blend(s["x"], s["z"], k["c_x"])
    z = self.lead(xp, theta, u, s, k)
    return blend(x, z, k["c_y"]), {**s, "x": x, "z": z}


AVERAGES: tuple[Entry, ...] = (
    ("mean of the old z", "x + c (z − x)", altered(rewired(Averaged, __call__=_stale)), "sf_adamw/usual"),
    ("β and 1 − β", "exchanged", altered(scalars=lambda k, a: {"c_y": 1 - k["c_y"]}), "sf_adamw/usual"),
    ("gradients at x", "β = 1", altered(scalars=lambda k, a: {"c_y": 0.0}), "sf_normuon/usual"),
    ("shrink at z", "instead of y", altered(having(Averaged, shrink_at="z")), "sf_adamw/usual"),
    ("shrink at y", "instead of z", altered(having(Averaged, shrink_at="y")), "sf_normuon/usual"),
    ("weights of another power", "w = η² τ", altered(action=lambda a: {"averaging_power": 1.0}), "sf_adamw.step/usual"),
    (
        "weights without counts",
        "w = η² τ^r instead of Δτ η² τ^r",
        altered(having(Averaged, by_count=False)),
        "sf_adamw.counts/usual",
    ),
    (
        "weights in proportion to η",
        "instead of η²",
        altered(scalars=lambda k, a: {"c_x": k["c_x"] ** 0.5}),
        "sf_normuon/usual",
    ),
    (
        "sums of another parameter",
        "Σw of the run",
        altered(clock=lambda own, run: replace(own, sums=run.sums)),
        "sf_adamw/usual",
    ),
)

# ---- spheres


def _not_projected(self: Rotational, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> Any:
    """d = u."""
    axis, n = UNITS[self.over], s["n"]
    d = u[AMBIENT]
    nu = blend(s["nu"], xp.sum(d * d, axis=axis, keepdims=True), k["c_nu"])
    rms = xp.sqrt(k["r_nu"] * nu) + k["eps_nu"]
    moved = theta + (k["eta_r"] * (n * (xp.ones_like(n) / rms))) * d
    return n * unit(xp, self._centre(xp, moved), axis), {**s, "nu": nu}


def _not_retracted(self: Rotational, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> Any:
    axis, n = UNITS[self.over], s["n"]
    d = tangent(xp, u[AMBIENT], unit(xp, theta, axis), axis)
    nu = blend(s["nu"], xp.sum(d * d, axis=axis, keepdims=True), k["c_nu"])
    rms = xp.sqrt(k["r_nu"] * nu) + k["eps_nu"]
    return theta + (k["eta_r"] * (n * (xp.ones_like(n) / rms))) * d, {**s, "nu": nu}


def _lonely(self: Rotational, action: Any, clock: Clock) -> float:
    return steady.angle(complement(2 * clock.q_shrink * clock.dtau, action["shrink_half_life"]), 1.0)


def _projected(self: Hyperball, xp: Namespace, w: Array, along: Array, k: Scalars) -> tuple[Array, Array]:
    along = unit(xp, tangent(xp, along, w, MATRIX), MATRIX)
    return w + k["eta"] * along, moves(xp, along)


def _flat(self: Sphere, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
    """The step alone."""
    turned, _ = self.turn(xp, unit(xp, theta, MATRIX), unit(xp, u[AMBIENT], MATRIX), k)
    return (entries_root(theta) * s["radius"]) * turned, s


def _by_length(self: Geodesic, xp: Namespace, w: Array, along: Array, k: Scalars) -> tuple[Array, Array]:
    """Along u as it is."""
    return w + (k["s_turn"] * along - k["c_turn"] * w), moves(xp, along)


SPHERES: tuple[Entry, ...] = (
    ("rows not projected", "d = u", altered(rewired(Rotational, __call__=_not_projected)), "rotational_lion/usual"),
    (
        "rows not retracted",
        "their length drifts",
        altered(rewired(Rotational, __call__=_not_retracted)),
        "rotational_sgdm/usual",
    ),
    ("rows not centred", "p̄ = 0", altered(having(Rotational, centred=False)), "rotational_adamw/usual"),
    ("ν not corrected", "r_ν = 1", altered(scalars=lambda k, a: {"r_nu": 1.0}), "rotational_adamw/usual"),
    (
        "no amplification",
        "η̂_r with S = 1",
        altered(rewired(Rotational, angle=_lonely)),
        "rotational_lion.arcsine/usual",
    ),
    ("arcsine for linear", "instead of (2/π) S", altered(having(Noise, correlation=ARCSINE)), "rotational_lion/usual"),
    (
        "listing for reference",
        "p̂ = p/‖p‖ instead of p/n",
        altered(having(Rotational, algorithm=LISTING)),
        "rotational_adamw.reference/usual",
    ),
    (
        "hyperball projected",
        "only the tangent part of u",
        altered(rewired(Hyperball, turn=_projected)),
        "hyperball/usual",
    ),
    ("sphere left", "no retraction", altered(rewired(Sphere, __call__=_flat)), "hyperball/usual"),
    ("chord for arc", "Ŵ + φ D", altered(scalars=lambda k, a: {"c_turn": 0.0}), "single_half_life/usual"),
    ("not tangent", "D = u", altered(rewired(Geodesic, turn=_by_length)), "single_half_life/usual"),
    (
        "angle of the complement",
        "φ = 1 − q instead of arccos q",
        altered(
            rewired(
                SingleHalfLife, angle=lambda self, action, clock: SingleHalfLife.angle(self, action, clock) ** 2 / 2
            )
        ),
        "single_half_life/usual",
    ),
    ("retraction for slerp", "u is not projected", altered(exchanged(Geodesic, Hyperball())), "hyperball.slerp/usual"),
)

# ---- rotations


def _first_order(self: Multiplicative, xp: Namespace, w: Array, x: Array) -> Array:
    return w + xp.matmul(w, x)


def _one_way(self: Multiplicative, xp: Namespace, w: Array, x: Arrays) -> Array:
    return Multiplicative.rotated(self, xp, w, {**x, OUT: -x[OUT]})


def _left_alone(
    self: Transported, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars
) -> tuple[Array, Arrays]:
    return Transported.__call__(self, xp, theta, u, s, k)[0], s


def _symmetric(self: SkewPair, xp: Namespace, theta: Array, evidence: Arrays, k: Scalars) -> Arrays:
    g = evidence["gradient"]
    p, q = xp.matmul(xp.matrix_transpose(theta), g), xp.matmul(g, xp.matrix_transpose(theta))
    return {IN: p, OUT: q}


ROTATIONS: tuple[Entry, ...] = (
    ("first order", "I + X", altered(rewired(Multiplicative, _right=_first_order)), "pion/usual pion.first/usual"),
    ("left side backwards", "E(−X_out)", altered(rewired(Multiplicative, rotated=_one_way)), "pion/usual"),
    ("Taylor for Cayley", "I + X + X²/2", altered(having(Multiplicative, exponential="taylor")), "pion.cayley/usual"),
    (
        "angle without √(mn)",
        "a length, not an RMS",
        altered(scalars=lambda k, a: {"length": 0.2 * k["length"]}),
        "pion/usual",
    ),
    ("rates not skew", "WᵀG", altered(rewired(SkewPair, __call__=_symmetric)), "pion/usual"),
    (
        "sides exchanged",
        "even updates from the right",
        altered(scalars=lambda k, a: {"use_in": k["use_out"], "use_out": k["use_in"]}),
        "pion.alternate/usual",
    ),
    (
        "memory left behind",
        "m does not turn",
        altered(rewired(Transported, __call__=_left_alone)),
        "pion.transported/usual",
    ),
    ("v of g in transport", "instead of m²", altered(having(Memories, of_memory=False)), "pion.transported/usual"),
)

# ---- targets


def _farther(self: Held, xp: Namespace, k: Scalars) -> Array:
    """The root that is farther from 0."""
    nearest = k["sum_pa"] / k["sum_pp"]
    root = np.sqrt(np.maximum(nearest * nearest - k["excess"] / k["sum_pp"], 0))
    return nearest + (root if nearest > 0 else -root)


TARGETS: tuple[Entry, ...] = (
    ("root farther from 0", "the weights turn round", altered(rewired(Held, solve=_farther)), "adamw.held/usual"),
    ("mask of the target ignored", "every entry shrinks", altered(exchanged(Shrink, Direct())), "lion.held/usual"),  # type: ignore[arg-type]
    ("target of each, held", "its own d for each", altered(apart=True), "adamw.held/usual"),
    (
        "steady state to first order",
        "1 − a² ≈ 2 (1 − a)",
        altered(scalars=lambda k, a: {"eta": k["eta"] * (1 + k["c_a"] / 4)}),
        "adamw.steady/usual",
    ),
    (
        "steady RMS doubled",
        "2ρ",
        altered(action=lambda a: {"steady_rms": 2 * a["steady_rms"]}),
        "lion.steady/usual lion.linear/usual",
    ),
)

PARTS = {"average": AVERAGES, "sphere": SPHERES, "rotation": ROTATIONS, "target": TARGETS}
