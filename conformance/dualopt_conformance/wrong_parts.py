"""Mutants of what was added to the catalogue: scaled rows, symmetries, spectra, averages, spheres, rotations."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from dualopt import steady
from dualopt.clock import Clock
from dualopt.counts import complement
from dualopt.directions import symmetry
from dualopt.directions.norm_balls import MATRIX
from dualopt.directions.normuon import PolarRows, RowScaled
from dualopt.directions.schatten import Freon, Kaon, MiMuon, Regularized
from dualopt.directions.symmetry import AFTER, BEFORE, Lines, Spectral
from dualopt.estimators.shampoo import Factors, Rooted
from dualopt.estimators.sophia import Clipped, Curved, denominator
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

from .alterations import Entry, RowChange, altered, exchanged, rewired


def having(kind: type[Any], **changed: Any) -> RowChange:
    """A row in which the parts that are a `kind` have other fields."""

    def within(x: Any) -> Any:
        if isinstance(x, kind):
            return replace(x, **changed)
        if is_dataclass(x) and not isinstance(x, type):
            return replace(x, **{f.name: within(getattr(x, f.name)) for f in fields(x)})
        return x

    return within


# ---- rows of a polar factor


def _rows(square: Any) -> RowChange:
    """v of another mean of (xp, z, o)."""

    def fold(self: PolarRows, xp: Namespace, state: Arrays, g: Arrays, k: Scalars) -> Arrays:
        s = PolarRows.__call__(self, xp, dict(state), dict(g), k)
        z = self.read(xp, s, g[AMBIENT], k)
        return {**s, "v": blend(state["v"], square(xp, z, s["o"]), k["c_rows"])}

    return rewired(PolarRows, __call__=fold)


def _mean(xp: Namespace, x: Array, axis: Any) -> Array:
    return xp.sum(x, axis=axis, keepdims=True) * (1 / math.prod(np.atleast_1d([x.shape[i] for i in np.atleast_1d(axis)])))


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
    ("rows of the memory", "v of z² instead of O²", altered(_rows(lambda xp, z, o: _mean(xp, z * z, -1))), "normuon/usual"),
    (
        "rows summed",
        "v of the sum of squares, not their mean",
        altered(_rows(lambda xp, z, o: xp.sum(o * o, axis=-1, keepdims=True))),
        "normuon/usual",
    ),
    ("rows with c_m", "one half-life for both", altered(scalars=lambda k, a: {"c_rows": k["c_m"]}), "sf_normuon/usual"),
    ("rows of RMS 1", "0.2 forgotten", altered(scalars=lambda k, a: {"scale": 5 * k["scale"]}), "normuon/usual"),
    ("length of O forgotten", "‖u‖ = f instead of f ‖O‖", altered(rewired(RowScaled, __call__=_short)), "normuon.mup/usual"),
    ("rows not scaled", "u = O", altered(scalars=lambda k, a: {"eps": 1e9, "scale": k["scale"]}), "normuon.naive/usual"),
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
    ("ν of each matrix", "instead of one for all experts", altered(rewired(Spectral, __call__=_alone)), "polargrad/usual"),
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
    ("smoothing absolute", "ε in the units of Z", altered(having(Regularized, relative=False)), "regularized_muon/usual"),
    (
        "smoothing over r",
        "ε in units of ‖Z‖_F/r instead of √r",
        altered(scalars=lambda k, a: {"smoothing": k["smoothing"] ** 2 / a["smoothing"]}),
        "regularized_muon/usual",
    ),
    ("not smoothed", "the polar factor", altered(scalars=lambda k, a: {"smoothing": 0.0}), "regularized_muon.absolute/usual"),
    ("gap ignored", "always the polar factor", altered(scalars=lambda k, a: {"gap": 0.0}), "mimuon.absolute/usual"),
    ("gap absolute", "τ in the units of Z", altered(having(MiMuon, relative=False), scalars=lambda k, a: {"gap": 1e9 * k["gap"]}), "mimuon/usual"),
    ("gap relative", "τ in units of σ₁", altered(having(MiMuon, relative=True)), "mimuon.absolute/usual"),
    ("exponent off", "0.66 for 2/3", altered(having(Freon, exponent=0.66)), "freon/usual"),
    ("powers summed", "over (Σ σ^q)^(1/q) instead of the mean's", altered(rewired(Freon, weights=_summed_powers)), "freon/usual"),
    ("one map less", "T − 1 times", altered(having(Kaon, iterations=4)), "kaon/usual"),
    ("factor not squared", "σ (1 − σ²) instead of σ (1 − σ²)²", altered(rewired(Kaon, iterated=_squared)), "kaon.two/usual"),
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
    ("one side for both", "R's root on the left of a square", altered(rewired(Rooted, __call__=_later)), "shampoo/usual"),
    ("roots in every update", "whatever the interval", altered(scalars=lambda k, a: {"fresh": 1.0}), "shampoo/usual"),
    ("factors not corrected", "r_f = 1", altered(scalars=lambda k, a: {"r_f": 1.0}), "shampoo/usual"),
    ("factors with c_m", "one half-life for both", altered(scalars=lambda k, a: {"c_f": k["c_m"]}), "shampoo.always/usual"),
)

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
    ("weights without counts", "w = η² τ^r instead of Δτ η² τ^r", altered(having(Averaged, by_count=False)), "sf_adamw.counts/usual"),
    ("weights in proportion to η", "instead of η²", altered(scalars=lambda k, a: {"c_x": k["c_x"] ** 0.5}), "sf_normuon/usual"),
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
    return (entries_root(theta) * s["R"]) * turned, s


def _by_length(self: Geodesic, xp: Namespace, w: Array, along: Array, k: Scalars) -> tuple[Array, Array]:
    """Along u as it is."""
    return w + (k["s_turn"] * along - k["c_turn"] * w), moves(xp, along)


SPHERES: tuple[Entry, ...] = (
    ("rows not projected", "d = u", altered(rewired(Rotational, __call__=_not_projected)), "rotational_lion/usual"),
    ("rows not retracted", "their length drifts", altered(rewired(Rotational, __call__=_not_retracted)), "rotational_sgdm/usual"),
    ("rows not centred", "p̄ = 0", altered(having(Rotational, centred=False)), "rotational_adamw/usual"),
    ("ν not corrected", "r_ν = 1", altered(scalars=lambda k, a: {"r_nu": 1.0}), "rotational_adamw/usual"),
    ("no amplification", "η̂_r with S = 1", altered(rewired(Rotational, angle=_lonely)), "rotational_lion.arcsine/usual"),
    ("arcsine for linear", "instead of (2/π) S", altered(having(Noise, correlation=ARCSINE)), "rotational_lion/usual"),
    ("listing for reference", "p̂ = p/‖p‖ instead of p/n", altered(having(Rotational, algorithm=LISTING)), "rotational_adamw.reference/usual"),
    ("hyperball projected", "only the tangent part of u", altered(rewired(Hyperball, turn=_projected)), "hyperball/usual"),
    ("sphere left", "no retraction", altered(rewired(Sphere, __call__=_flat)), "hyperball/usual"),
    ("chord for arc", "Ŵ + φ D", altered(scalars=lambda k, a: {"c_turn": 0.0}), "single_half_life/usual"),
    ("not tangent", "D = u", altered(rewired(Geodesic, turn=_by_length)), "single_half_life/usual"),
    (
        "angle of the complement",
        "φ = 1 − q instead of arccos q",
        altered(rewired(SingleHalfLife, angle=lambda self, action, clock: SingleHalfLife.angle(self, action, clock) ** 2 / 2)),
        "single_half_life/usual",
    ),
    ("retraction for slerp", "u is not projected", altered(exchanged(Geodesic, Hyperball())), "hyperball.slerp/usual"),
)

# ---- rotations


def _first_order(self: Multiplicative, xp: Namespace, w: Array, x: Array) -> Array:
    return w + xp.matmul(w, x)


def _one_way(self: Multiplicative, xp: Namespace, w: Array, x: Arrays) -> Array:
    return Multiplicative.rotated(self, xp, w, {**x, OUT: -x[OUT]})


def _left_alone(self: Transported, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
    return Transported.__call__(self, xp, theta, u, s, k)[0], s


def _symmetric(self: SkewPair, xp: Namespace, theta: Array, evidence: Arrays, k: Scalars) -> Arrays:
    g = evidence["gradient"]
    p, q = xp.matmul(xp.matrix_transpose(theta), g), xp.matmul(g, xp.matrix_transpose(theta))
    return {IN: p, OUT: q}


ROTATIONS: tuple[Entry, ...] = (
    ("first order", "I + X", altered(rewired(Multiplicative, _right=_first_order)), "pion/usual pion.first/usual"),
    ("left side backwards", "E(−X_out)", altered(rewired(Multiplicative, rotated=_one_way)), "pion/usual"),
    ("Taylor for Cayley", "I + X + X²/2", altered(having(Multiplicative, exponential="taylor")), "pion.cayley/usual"),
    ("angle without √(mn)", "a length, not an RMS", altered(scalars=lambda k, a: {"length": 0.2 * k["length"]}), "pion/usual"),
    ("rates not skew", "WᵀG", altered(rewired(SkewPair, __call__=_symmetric)), "pion/usual"),
    ("sides exchanged", "even updates from the right", altered(scalars=lambda k, a: {"use_in": k["use_out"], "use_out": k["use_in"]}), "pion.alternate/usual"),
    ("memory left behind", "m does not turn", altered(rewired(Transported, __call__=_left_alone)), "pion.transported/usual"),
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
    ("steady state to first order", "1 − a² ≈ 2 (1 − a)", altered(scalars=lambda k, a: {"eta": k["eta"] * (1 + k["c_a"] / 4)}), "adamw.steady/usual"),
    ("steady RMS doubled", "2ρ", altered(action=lambda a: {"steady_rms": 2 * a["steady_rms"]}), "lion.steady/usual lion.linear/usual"),
)

PARTS = {
    "scaled rows": ROWS,
    "symmetry": SYMMETRIES,
    "spectrum": SPECTRA,
    "curvature": CURVATURE,
    "average": AVERAGES,
    "sphere": SPHERES,
    "rotation": ROTATIONS,
    "target": TARGETS,
}
