"""Legitimate rewrites of the newer parts of the catalogue: rows, averages, spheres, rotations, roots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dualopt.directions.norm_balls import MATRIX
from dualopt.directions.normuon import PolarRows, RowScaled
from dualopt.directions.polar import SETS
from dualopt.directions.schatten import Kaon, Regularized
from dualopt.directions.symmetry import Lines, Spectral, damped
from dualopt.estimators.shampoo import Factors, Rooted
from dualopt.estimators.sophia import Clipped, denominator
from dualopt.memory import blend
from dualopt.motion import Averaged, Multiplicative
from dualopt.motion.held import Held
from dualopt.motion.rotational import UNITS, Rotational
from dualopt.motion.sphere import Geodesic, Sphere, moves
from dualopt.motion.tangent import tangent
from dualopt.recursion import Array, Arrays, Namespace, Scalars
from dualopt.scaling import length, unit
from dualopt.signal import AMBIENT

from .alterations import Entry, altered, rewired
from .rearranged import other_side, polynomial_first

# ---- averages


def _between(self: Averaged, xp: Namespace, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
    """y = (1 − β) z + β x."""
    x = blend(s["x"], s["z"], k["c_x"])
    return k["c_y"] * s["z"] + (1 - k["c_y"]) * x, {**s, "x": x}


def _weighted(self: Averaged, xp: Namespace, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
    """x+ = (1 − c) x + c z+."""
    x = (1 - k["c_x"]) * s["x"] + k["c_x"] * s["z"]
    return blend(x, s["z"], k["c_y"]), {**s, "x": x}


def _shrunk_first(self: Averaged, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> Array:
    """(z − c_a p) + η u."""
    at = s["z"] if self.shrink_at == "z" else theta
    return (s["z"] - self.shrink(xp, at, u[AMBIENT], k)) + k["eta"] * u[AMBIENT]


# ---- iterations within other parts


def _by(step: Any) -> Any:
    """Newton–Schulz with x+ of (x, a, b, c) in another arrangement, wherever a part iterates it."""

    def polar(xp: Namespace, z: Array, method: str) -> Array:
        chosen = SETS[method]
        x: Array = unit(xp, z, MATRIX) * (1 / chosen.safety)
        for a, b, c in chosen.steps:
            x = step(x, a, b, c)
        return x

    def orth(self: Spectral, xp: Namespace, x: Array, k: Scalars) -> Array:
        m, n = x.shape[-2:]
        return polar(xp, damped(xp, x, k["root_eps"]), self.method)[..., :m, :n]

    return altered(
        rewired(PolarRows, factor=lambda self, xp, z: polar(xp, z, self.method)),
        rewired(Regularized, factor=lambda self, xp, x: polar(xp, x, self.method)),
        rewired(Spectral, orth=orth),
    )


def _as_quintic(self: Kaon, xp: Namespace, x: Array) -> Array:
    """4.1 X − 8.2 R X + 4.1 R² X."""
    for _ in range(self.iterations):
        x = other_side(x, 4.1, -8.2, 4.1)
    return x


# ---- rows and lines


def _divided(self: RowScaled, xp: Namespace, s: Arrays, g: Arrays, k: Scalars) -> Arrays:
    """O / (√v + ε), and over its length at last."""
    rows = s["o"] / (xp.sqrt(s["v"]) + k["eps"])
    size = length(xp, rows, MATRIX)
    size = xp.where(size == 0, xp.ones_like(size), size)
    own = 1.0 if self.scale == "rms" else length(xp, s["o"], MATRIX)
    return {AMBIENT: -((k["scale"] * own) * (rows / size))}


def _over(self: Lines, xp: Namespace, z: Array, s: Arrays, k: Scalars) -> Array:
    """z / (‖z‖ + ε), lengths in the units of z."""
    return -(z / (length(xp, z, self.axis) + k["eps"]))


# ---- spheres


def _retracted(self: Rotational, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> Any:
    """p and its step are centred apart, and n goes into the factor."""
    axis, n = UNITS[self.over], s["n"]
    d = tangent(xp, u[AMBIENT], unit(xp, theta, axis), axis)
    nu = blend(s["nu"], xp.sum(d * d, axis=axis, keepdims=True), k["c_nu"])
    one = xp.ones_like(n)
    step = ((k["eta_r"] * n) * d) * (one / (xp.sqrt(k["r_nu"] * nu) + k["eps_nu"]))
    moved = self._centre(xp, theta) + self._centre(xp, step)
    size = length(xp, moved, axis)
    return moved * (n * (one / xp.where(size == 0, one, size))), {**s, "nu": nu}


def _cosine(self: Geodesic, xp: Namespace, w: Array, along: Array, k: Scalars) -> tuple[Array, Array]:
    """cos φ Ŵ + sin φ D."""
    d = self.ahead(xp, w, along)
    return (1 - k["c_turn"]) * w + k["s_turn"] * d, moves(xp, d)


def _root_mean_squares(self: Sphere, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> Any:
    """Directions of RMS 1 in the place of length 1."""
    root = (theta.shape[-2] * theta.shape[-1]) ** 0.5
    w, along = (root * unit(xp, x, MATRIX) for x in (theta, u[AMBIENT]))
    turned, moving = self.turn(xp, (1 / root) * w, (1 / root) * along, k)
    return xp.where(moving, s["radius"] * (root * unit(xp, turned, MATRIX)), theta), s


# ---- rotations


def _left_first(self: Multiplicative, xp: Namespace, w: Array, x: Arrays) -> Array:
    """E_out W first."""
    left = xp.matrix_transpose(self._right(xp, xp.matrix_transpose(w), -x["out"]))
    return self._right(xp, left, x["in"])


def _solved(xp: Namespace, w: Array, x: Array) -> Array:
    """W + W X (I − X/2)⁻¹ by solving."""
    one = np.eye(x.shape[-1], dtype=np.float32)
    turned = np.linalg.solve(np.swapaxes(one - np.float32(0.5) * x, -1, -2), np.swapaxes(xp.matmul(w, x), -1, -2))
    return np.asarray(w + np.swapaxes(turned, -1, -2))


def _summed(xp: Namespace, w: Array, x: Array) -> Array:
    """(W + W X) + W X X/2."""
    wx = xp.matmul(w, x)
    return np.asarray((w + wx) + xp.matmul(0.5 * wx, x))


def _right(self: Multiplicative, xp: Namespace, w: Array, x: Array) -> Array:
    return (_solved if self.exponential == "cayley" else _summed)(xp, w, x)


# ---- curvature, factors, targets


def _clipped_first(self: Clipped, xp: Namespace, s: Arrays, g: Arrays, k: Scalars) -> Arrays:
    """clip(z, ±p) / p."""
    z, p = self.read(xp, s, g[AMBIENT], k), denominator(s["h"], k)
    return {AMBIENT: -(np.clip(z, -p, p) / p)}


def _right_first(self: Rooted, xp: Namespace, s: Arrays, g: Arrays, k: Scalars) -> Arrays:
    """root_L (z root_R)."""
    z = self.read(xp, s, g[AMBIENT], k)
    return {AMBIENT: -xp.matmul(s["root_L"], xp.matmul(z, s["root_R"]))}


def _power(self: Factors, xp: Namespace, factor: Array, k: Scalars) -> Array:
    """λ^(−1/4) by a power, of the library's own eigenvectors."""
    values, vectors = np.linalg.eigh(factor)
    d = (np.float32(k["r_f"]) * np.maximum(values, 0) + np.float32(k["eps"])) ** np.float32(-0.25)
    return np.asarray((vectors * d[..., None, :]) @ np.swapaxes(vectors, -1, -2))


def _whole_root(self: Held, xp: Namespace, k: Scalars) -> Array:
    """The root of ξ d² − 2 χ d + excess without division by ξ first, in float64."""
    xi, chi, excess = (np.asarray(k[name], np.float64) for name in ("sum_pp", "sum_pa", "excess"))
    inside = chi * chi - xi * excess
    if not (xi > 0 and inside > 0):
        return Held.solve(self, xp, k)
    root = np.sqrt(inside)
    return np.asarray(excess / (chi + (root if chi >= 0 else -root)), np.float32)


_POLAR = (
    "normuon/usual normuon.mup/usual sf_normuon/usual polargrad/usual hybrid_polargrad/usual regularized_muon/usual"
)

PARTS: Mapping[str, tuple[Entry, ...]] = {
    "averages": (
        (
            "y between x and z",
            "(1 − β) z + β x",
            altered(rewired(Averaged, average=_between)),
            "sf_adamw/* sf_normuon/usual",
        ),
        (
            "x as a weighted mean",
            "(1 − c) x + c z",
            altered(rewired(Averaged, average=_weighted)),
            "sf_adamw/* sf_adamw.counts/usual",
        ),
        (
            "z shrunk first",
            "(z − c_a p) + η u",
            altered(rewired(Averaged, lead=_shrunk_first)),
            "sf_adamw/* sf_adamw.step/usual sf_normuon/usual",
        ),
    ),
    "iterations": (
        ("larger Gram matrix", "of all iterated parts", _by(other_side), _POLAR),
        ("polynomials first", "of all iterated parts", _by(polynomial_first), _POLAR),
        (
            "map as a quintic",
            "on the other side",
            altered(rewired(Kaon, iterated=_as_quintic)),
            "kaon/usual kaon.two/usual",
        ),
    ),
    "rows and lines": (
        (
            "rows divided",
            "O / (√v + ε) over its length",
            altered(rewired(RowScaled, __call__=_divided)),
            "normuon/* normuon.mup/usual sf_normuon/usual",
        ),
        ("lines divided", "z / (‖z‖ + ε)", altered(rewired(Lines, __call__=_over)), "row_norm/* column_norm/*"),
    ),
    "spheres": (
        (
            "retraction in another order",
            "centred apart, n in the factor",
            altered(rewired(Rotational, __call__=_retracted)),
            "rotational_adamw/usual rotational_lion/* rotational_sgdm/usual",
        ),
        (
            "cosine and sine",
            "cos φ Ŵ + sin φ D",
            altered(rewired(Geodesic, turn=_cosine)),
            "single_half_life/usual hyperball.slerp/usual",
        ),
        (
            "directions of RMS 1",
            "in the place of length 1",
            altered(rewired(Sphere, __call__=_root_mean_squares)),
            "single_half_life/usual hyperball/usual",
        ),
    ),
    "rotations": (
        (
            "left side first",
            "(E_out W) E_in",
            altered(rewired(Multiplicative, rotated=_left_first)),
            "pion/usual pion.cayley/usual pion.transported/usual",
        ),
        (
            "series from left to right, or solved",
            "(W + W X) + ½ (W X) X",
            altered(rewired(Multiplicative, _right=_right)),
            "pion/usual pion.cayley/usual pion.transported_cayley/usual",
        ),
    ),
    "curvature and targets": (
        ("clipped before division", "clip(z, ±p) / p", altered(rewired(Clipped, __call__=_clipped_first)), "sophia/*"),
        (
            "right root first",
            "root_L (z root_R)",
            altered(rewired(Rooted, __call__=_right_first)),
            "shampoo/usual shampoo.uncorrected/usual",
        ),
        (
            "root by a power",
            "λ^(−1/4) of the library's eigenvectors",
            altered(rewired(Factors, root=_power)),
            "shampoo/usual shampoo.always/usual",
        ),
        (
            "whole equation",
            "solved in float64",
            altered(rewired(Held, solve=_whole_root)),
            "adamw.held/usual lion.held/usual",
        ),
    ),
}
