"""The row with parts that `Bounds` can follow: the same functions, bounded as `polar_bounds` and `factorised` say.

All else of a row is followed as it is, operation by operation. After a polar factor, of which each matrix deviates by
at most ‖E‖_F, no entry deviates by more; sums over k entries of it by √k of that at most.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from dualopt.directions.norm_balls import SpectralBall
from dualopt.directions.normuon import PolarRows
from dualopt.directions.schatten import Freon, Kaon, MiMuon, Regularized
from dualopt.directions.symmetry import Spectral, damped
from dualopt.estimators.shampoo import SIDES, Factors, Rooted
from dualopt.recursion import Arrays, Row, Scalars
from dualopt.scaling import unit
from dualopt.signal import AMBIENT

from .arithmetic import Array, U
from .bounded import Bounded, Truth
from .bounds import Bounds
from .factorised import MARGIN, MATRIX, Spectrum, backward, derivative, frobenius, made, off, polar_factor
from .polar_bounds import iterated, polar_bound


@dataclass(frozen=True)
class PolarBall(SpectralBall):
    def atom(self, xp: Bounds, z: Any) -> Bounded:
        return polar_bound(xp, z, self.method, self.way)


@dataclass(frozen=True)
class FollowedRows(PolarRows):
    def factor(self, xp: Bounds, z: Any) -> Bounded:
        return polar_bound(xp, z, self.method, self.way)


@dataclass(frozen=True)
class FollowedRegularized(Regularized):
    def factor(self, xp: Bounds, x: Any) -> Bounded:
        return polar_bound(xp, x, self.method, self.way)


@dataclass(frozen=True)
class FollowedSpectral(Spectral):
    def orth(self, xp: Bounds, x: Any, k: Scalars) -> Bounded:
        m, n = x.shape[-2:]
        whole = polar_bound(xp, damped(xp, x, k["root_eps"]), self.method, self.way)
        found: Bounded = whole[..., :m, :n]
        return found


@dataclass(frozen=True)
class FollowedKaon(Kaon):
    def iterated(self, xp: Bounds, x: Any) -> Bounded:
        a = xp.number(4.1)
        once = replace(self, iterations=1)
        advances = [lambda y: Kaon.iterated(once, xp, y)] * self.iterations
        return iterated(xp, x, x, [((a, -2 * a, a),)] * self.iterations, advances)


@dataclass(frozen=True)
class FollowedMiMuon(MiMuon):
    """The gap is undecided where it is within ‖E‖ of τ for every singular value that takes part."""

    def __call__(self, xp: Bounds, z: Any, s: Arrays, k: Scalars) -> Bounded:
        found = Spectrum(xp, z)
        tau, e = xp.number(k["gap"]), found.error
        largest = found.sigma.max(axis=-1)[..., None, None]
        least, within = (tau * largest, 2 * e + tau * e) if self.relative else (tau, 2 * e)
        within = within + 4 * U * largest
        apart = np.abs(found.sigma[..., :, None] - found.sigma[..., None, :])
        others = ~np.eye(apart.shape[-1], dtype=bool)

        def close(among: Array, by: Array | float) -> Array:
            pairs = among[..., :, None] & among[..., None, :] & others
            return np.asarray((pairs & (apart < by)).any(axis=MATRIX, keepdims=True))

        must, may = close(found.sure, least - within), close(found.possible, least + within)
        chosen: Bounded = xp.where(Truth(close(found.kept, least), may & ~must), z, polar_factor(xp, z))
        return -chosen


@dataclass(frozen=True)
class FollowedFreon(Freon):
    def __call__(self, xp: Bounds, z: Any, s: Arrays, k: Scalars) -> Bounded:
        q, x = 2 * (1 - self.exponent), unit(xp, z, MATRIX)
        found = Spectrum(xp, x)
        weights = self.weights(xp, xp.exact(found.sigma), found.kept)
        w, kept = weights.x, found.kept
        nearer = np.where(kept, np.maximum(found.sigma - found.error[..., 0], 0.0), 0.0)
        size = np.where(kept, found.sigma, 1.0)
        scale = np.where(kept, w / size ** (q - 1), 0.0).max(axis=-1, keepdims=True)  # σ̄^(1−q)
        with np.errstate(divide="ignore", invalid="ignore"):
            there = np.where(kept & (nearer > 0), scale * nearer ** (q - 1), np.where(kept, np.inf, 0.0))
            slope = np.where(kept & (nearer > 0), abs(q - 1) * there / nearer, np.where(kept, np.inf, 0.0))
            steepest = derivative(nearer, there, slope)
        powers = np.where(kept, size ** (q - 1), 0.0)
        total = np.where(kept, size**q, 0.0).sum(axis=-1)
        mean = abs(1 - q) * np.sqrt((powers**2).sum(axis=-1)) / np.where(total > 0, total, 1.0)  # of log σ̄^(1−q)
        length = frobenius(found.joined(w))
        rounded = np.sqrt((weights.e**2).sum(axis=-1))[..., None, None] + found.rounding(xp, w)
        norm = MARGIN * (steepest + mean[..., None, None] * length) * found.error + rounded
        floor = 2 * max(x.shape[-2:]) * U
        return -made(xp, x, found, w, norm, scale[..., None] * max(1.0, floor ** (q - 1)))


class Root(Bounded):
    """(r_f F + ε)^(−1/4), and what `FollowedRooted` needs: Q, d_j (arithmetics, ..., n), ‖E‖, and the rounding."""

    __slots__ = ("basis", "error", "rounded", "slopes")

    basis: Array
    error: Array
    rounded: Array
    slopes: Array


@dataclass(frozen=True)
class FollowedFactors(Factors):
    def root(self, xp: Bounds, factor: Any, k: Scalars) -> Root:
        r, eps = xp.number(k["r_f"]), xp.number(k["eps"])
        symmetric = 0.5 * (factor + xp.matrix_transpose(factor))
        values, q = np.linalg.eigh(r * symmetric.x)
        values = np.maximum(values, 0.0)
        error = r * off(symmetric) + backward(xp, r * symmetric.x)
        low = np.maximum(values - error[..., 0], 0.0).min(axis=-1, keepdims=True) + eps
        here = values + eps
        f = here**-0.25
        apart = here - low
        near = apart < 1e-6 * low
        slopes = np.where(near, 0.25 * low**-1.25, (low**-0.25 - f) / np.where(near, 1.0, apart))
        n = q.shape[-1]
        units = xp.column("add", symmetric.ndim)
        rounded = (15 + 5 * n) * U * units * f.sum(axis=-1)[..., None, None]  # 10 u of f, products, and vectors
        x = (q * f[..., None, :]) @ np.swapaxes(q, -1, -2)
        most = frobenius(np.broadcast_to((low**-0.25)[..., None] * np.eye(n), (*low.shape[:-1], n, n)))
        norm = np.minimum(error * slopes.max(axis=-1)[..., None, None], most) + rounded
        found = Root(xp, x, np.abs(x) + 2.0**-140, np.zeros((len(xp.arithmetics), *x.shape)), norm=MARGIN * norm)
        found.basis, found.slopes, found.error, found.rounded = q, slopes, error, rounded
        return found


@dataclass(frozen=True)
class FollowedRooted(Rooted):
    """f(L) z f(R): the deviation of each root as far as z and the other one let it pass, and of both."""

    def __call__(self, xp: Bounds, s: Arrays, g: Arrays, k: Scalars) -> Arrays:
        left, right = (s[f"root_{side}"] for side in SIDES)
        if not (isinstance(left, Root) and isinstance(right, Root)):
            return super().__call__(xp, s, g, k)
        exactly = {f"root_{side}": xp.exact(root.x) for side, root in zip(SIDES, (left, right), strict=True)}
        u = super().__call__(xp, {**s, **exactly}, g, k)[AMBIENT]
        z = self.read(xp, s, g[AMBIENT], k).x
        zt = np.swapaxes(z, -1, -2)
        norm = _passed(left, z @ right.x) + _passed(right, zt @ left.x)
        norm = norm + left.rounded * _passed(right, zt) + right.rounded * _passed(left, z)
        norm = norm + left.rounded * right.rounded * frobenius(z)
        across = (np.swapaxes(left.basis, -1, -2) @ z @ right.basis) ** 2
        both = left.slopes[..., :, None] ** 2 * across * right.slopes[..., None, :] ** 2
        norm = norm + left.error * right.error * np.sqrt(both.sum(axis=MATRIX, keepdims=True))
        u.norm = MARGIN * norm
        return {AMBIENT: u}


def _passed(root: Root, z: Array) -> Array:
    """‖(f(A + E) − f(A) + rounding) z‖."""
    along = np.sum((np.swapaxes(root.basis, -1, -2) @ z) ** 2, axis=-1)
    return np.asarray(
        root.error * np.sqrt((root.slopes**2 * along).sum(axis=-1))[..., None, None] + root.rounded * frobenius(z)
    )


_FOLLOWED: dict[type[Any], type[Any]] = {
    SpectralBall: PolarBall,
    PolarRows: FollowedRows,
    Regularized: FollowedRegularized,
    Spectral: FollowedSpectral,
    Kaon: FollowedKaon,
    MiMuon: FollowedMiMuon,
    Freon: FollowedFreon,
    Factors: FollowedFactors,
    Rooted: FollowedRooted,
}


def followed(part: Any) -> Any:
    """The part, or row, with every part in it replaced that has to be."""
    if not is_dataclass(part) or isinstance(part, type):
        return part
    own: type[Any] = type(part)
    for kind, with_bounds in _FOLLOWED.items():
        if isinstance(part, kind) and not isinstance(part, with_bounds):
            own = type(with_bounds.__name__, (with_bounds, own), {})
    return own(**{f.name: followed(getattr(part, f.name)) for f in fields(part)})


def bounding(row: Row) -> Row:
    """The row with parts that `Bounds` can follow; the same function otherwise."""
    return replace(row, **{name: followed(getattr(row, name)) for name in ("memory", "direction", "motion")})
