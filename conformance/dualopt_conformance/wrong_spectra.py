"""Mutants of directions that scale rows, keep symmetries or reshape spectra, and of curvature and factors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from dualopt.directions import symmetry
from dualopt.directions.norm_balls import MATRIX
from dualopt.directions.normuon import PolarRows, RowScaled
from dualopt.directions.schatten import Freon, Kaon, MiMuon, Regularized
from dualopt.directions.symmetry import AFTER, BEFORE, Lines, Spectral
from dualopt.estimators.shampoo import Factors, Rooted
from dualopt.estimators.sophia import Clipped, Curved, denominator
from dualopt.memory import blend
from dualopt.recursion import Array, Arrays, Namespace, Scalars
from dualopt.scaling import unit
from dualopt.signal import AMBIENT

from .alterations import Entry, RowChange, altered, having, rewired

# ---- rows of a polar factor


def _rows(square: Any) -> RowChange:
    """v of another mean of (xp, z, o)."""

    def fold(self: PolarRows, xp: Namespace, state: Arrays, g: Arrays, k: Scalars) -> Arrays:
        s = PolarRows.__call__(self, xp, dict(state), dict(g), k)
        z = self.read(xp, s, g[AMBIENT], k)
        return {**s, "v": blend(state["v"], square(xp, z, s["o"]), k["c_rows"])}

    return rewired(PolarRows, __call__=fold)


def _mean(xp: Namespace, x: Array, axis: Any) -> Array:
    return xp.sum(x, axis=axis, keepdims=True) * (
        1 / math.prod(np.atleast_1d([x.shape[i] for i in np.atleast_1d(axis)]))
    )


def _short(self: RowScaled, xp: Namespace, s: Arrays, g: Arrays, k: Scalars) -> Arrays:
    """Of length `scale`, without that of O."""
    o, v = s["o"], s["v"]
    rows = o * (xp.ones_like(v) / (xp.sqrt(v) + k["eps"]))
    return {AMBIENT: -(k["scale"] * unit(xp, rows, MATRIX))}


ROWS: tuple[Entry, ...] = (
    (
        "one scale for the matrix",
        "v is the mean square of all of O",
        altered(_rows(lambda xp, z, o: _mean(xp, o * o, MATRIX) + xp.zeros_like(o[..., :1]))),
        "normuon/usual",
    ),
    (
        "rows of the memory",
        "v of z² instead of O²",
        altered(_rows(lambda xp, z, o: _mean(xp, z * z, -1))),
        "normuon/usual",
    ),
    (
        "rows summed",
        "v of the sum of squares, not their mean",
        altered(_rows(lambda xp, z, o: xp.sum(o * o, axis=-1, keepdims=True))),
        "normuon/usual",
    ),
    ("rows with c_m", "one half-life for both", altered(scalars=lambda k, a: {"c_rows": k["c_m"]}), "sf_normuon/usual"),
    ("rows of RMS 1", "0.2 forgotten", altered(scalars=lambda k, a: {"scale": 5 * k["scale"]}), "normuon/usual"),
    (
        "length of O forgotten",
        "‖u‖ = f instead of f ‖O‖",
        altered(rewired(RowScaled, __call__=_short)),
        "normuon.mup/usual",
    ),
    (
        "rows not scaled",
        "u = O",
        altered(scalars=lambda k, a: {"eps": 1e9, "scale": k["scale"]}),
        "normuon.naive/usual",
    ),
)

# ---- symmetries


def _alone(self: Spectral, xp: Namespace, z: Array, s: Arrays, k: Scalars) -> Array:
    """ν of every matrix by itself."""
    orth = self.orth(xp, z, k)
    slope = xp.sum(z * orth, axis=MATRIX, keepdims=True)
    floor = xp.zeros_like(slope) + k["eps"]
    return -(xp.where(slope > floor, slope, floor) * orth)


def _begins_centred(self: Spectral, xp: Namespace, z: Array, s: Arrays, k: Scalars) -> Array:
    """Centred before rows are normalised, and never after."""
    return Spectral.__call__(replace(self, centred=False), xp, symmetry.centred(xp, z), s, k)


SYMMETRIES: tuple[Entry, ...] = (
    (
        "ν of each matrix",
        "instead of one for all experts",
        altered(rewired(Spectral, __call__=_alone)),
        "polargrad/usual",
    ),
    ("√ν for ν", "α = 1/2", altered(having(Spectral, power="0.5")), "polargrad/usual"),
    ("no ν", "α = 0", altered(having(Spectral, power="0")), "polargrad.root/usual"),
    ("rows after", "instead of before", altered(having(Spectral, rows=AFTER)), "hybrid_polargrad/usual"),
    ("rows before", "instead of after", altered(having(Spectral, rows=BEFORE)), "hybrid_polargrad.after/usual"),
    ("centre forgotten", "C is the identity", altered(having(Spectral, centred=False)), "polargrad.centred/usual"),
    (
        "centred at the start alone",
        "as in the authors' code",
        altered(rewired(Spectral, __call__=_begins_centred)),
        "hybrid_polargrad.centred/usual",
    ),
    ("centre of rows forgotten", "C is the identity", altered(having(Lines, centred=False)), "row_norm.centred/usual"),
    ("rows by columns", "columns of length 1", altered(having(Lines, axis=-2)), "row_norm/usual"),
    ("columns by rows", "rows of length 1", altered(having(Lines, axis=-1)), "column_norm/usual"),
    ("no ε in a line", "lengths are exactly 1", altered(scalars=lambda k, a: {"eps": 0.0}), "row_norm/underflow"),
    ("no ε in a column", "lengths are exactly 1", altered(scalars=lambda k, a: {"eps": 0.0}), "column_norm/underflow"),
)

# ---- spectra


def _summed_powers(self: Freon, xp: Namespace, sigma: Array, present: Array) -> Array:
    """Over the sum of powers, not their mean."""
    q = 2 * (1 - self.exponent)
    x = xp.where(present, sigma, xp.ones_like(sigma))
    total = np.sum(np.where(present, x**q, 0), axis=-1, keepdims=True)
    return np.where(present, x ** (q - 1) * np.where(total > 0, total, 1) ** ((1 - q) / q), 0).astype(np.float32)


def _squared(self: Kaon, xp: Namespace, x: Array) -> Array:
    """X ← 4.1 (I − X Xᵀ) X."""
    for _ in range(self.iterations):
        x = 4.1 * (x - xp.matmul(xp.matmul(x, xp.matrix_transpose(x)), x))
    return x


SPECTRA: tuple[Entry, ...] = (
    (
        "smoothing absolute",
        "ε in the units of Z",
        altered(having(Regularized, relative=False)),
        "regularized_muon/usual",
    ),
    (
        "smoothing over r",
        "ε in units of ‖Z‖_F/r instead of √r",
        altered(scalars=lambda k, a: {"smoothing": k["smoothing"] ** 2 / a["smoothing"]}),
        "regularized_muon/usual",
    ),
    (
        "not smoothed",
        "the polar factor",
        altered(scalars=lambda k, a: {"smoothing": 0.0}),
        "regularized_muon.absolute/usual",
    ),
    ("gap ignored", "always the polar factor", altered(scalars=lambda k, a: {"gap": 0.0}), "mimuon.absolute/usual"),
    (
        "gap absolute",
        "τ in the units of Z",
        altered(having(MiMuon, relative=False), scalars=lambda k, a: {"gap": 1e9 * k["gap"]}),
        "mimuon/usual",
    ),
    ("gap relative", "τ in units of σ₁", altered(having(MiMuon, relative=True)), "mimuon.absolute/usual"),
    ("exponent off", "0.66 for 2/3", altered(having(Freon, exponent=0.66)), "freon/usual"),
    (
        "powers summed",
        "over (Σ σ^q)^(1/q) instead of the mean's",
        altered(rewired(Freon, weights=_summed_powers)),
        "freon/usual",
    ),
    ("one map less", "T − 1 times", altered(having(Kaon, iterations=4)), "kaon/usual"),
    (
        "factor not squared",
        "σ (1 − σ²) instead of σ (1 − σ²)²",
        altered(rewired(Kaon, iterated=_squared)),
        "kaon.two/usual",
    ),
)

# ---- curvature and factors


def _curvature(square: Any) -> RowChange:
    def fold(self: Curved, xp: Namespace, state: Arrays, g: Arrays, k: Scalars) -> Arrays:
        s = Curved.__call__(self, xp, dict(state), dict(g), k)
        return {**s, "h": blend(state["h"], square(xp, g[AMBIENT], s["m"]), k["c_v"])}

    return rewired(Curved, __call__=fold)


def _unclipped(self: Clipped, xp: Namespace, s: Arrays, g: Arrays, k: Scalars) -> Arrays:
    return {AMBIENT: -self.read(xp, s, g[AMBIENT], k) / denominator(s["h"], k)}


def _later(self: Rooted, xp: Namespace, s: Arrays, g: Arrays, k: Scalars) -> Arrays:
    """The root of the right side on both sides of a square z."""
    z = self.read(xp, s, g[AMBIENT], k)
    left = s["root_R"] if z.shape[-1] == z.shape[-2] else s["root_L"]
    return {AMBIENT: -xp.matmul(xp.matmul(left, z), s["root_R"])}


def _square_root(self: Factors, xp: Namespace, factor: Array, k: Scalars) -> Array:
    root = Factors.root(self, xp, factor, k)
    return xp.matmul(root, root)


CURVATURE: tuple[Entry, ...] = (
    ("h of |g|", "not squared", altered(_curvature(lambda xp, g, m: xp.abs(g))), "sophia/usual"),
    ("h of m", "the memory's square", altered(_curvature(lambda xp, g, m: m * m)), "sophia/usual"),
    ("not clipped", "u = −z/p", altered(rewired(Clipped, __call__=_unclipped)), "sophia/usual"),
    ("ρ forgotten", "p = h + ε", altered(scalars=lambda k, a: {"rho_n": 1.0}), "sophia/usual"),
    ("inverse square roots", "(L + ε)^(−1/2)", altered(rewired(Factors, root=_square_root)), "shampoo/usual"),
    (
        "one side for both",
        "R's root on the left of a square",
        altered(rewired(Rooted, __call__=_later)),
        "shampoo/usual",
    ),
    ("factors not corrected", "r_f = 1", altered(scalars=lambda k, a: {"r_f": 1.0}), "shampoo/usual"),
    (
        "factors with c_m",
        "one half-life for both",
        altered(scalars=lambda k, a: {"c_f": k["c_m"]}),
        "shampoo.always/usual",
    ),
)

PARTS = {"scaled rows": ROWS, "symmetry": SYMMETRIES, "spectrum": SPECTRA, "curvature": CURVATURE}
