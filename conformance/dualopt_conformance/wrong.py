"""Wrong formulas, and how they take the place of the right ones: what the tables of mutants are written with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dualopt.directions import Descent
from dualopt.directions.elementwise import Rms
from dualopt.directions.norm_balls import MATRIX, Ball, SpectralBall
from dualopt.directions.polar import SETS, newton_schulz
from dualopt.exact import Overlay
from dualopt.memory import Memories
from dualopt.motion import Additive, Targeted
from dualopt.planned import PlannedGroup
from dualopt.proposal import Proposal
from dualopt.recursion import Shape
from dualopt.scaling import unit
from dualopt.shrink import Cautious
from dualopt.signal import AMBIENT
from dualopt.views import View

from .alterations import EXACT, Array, Maker, altered, rewired, single
from .walk import Arrays, Moved, States, Step

Formula = Callable[..., Any]
Quintics = tuple[tuple[float, float, float], ...]


def signal(change: Callable[[Array], Array]) -> Maker:
    """Another gradient."""
    return altered(before=lambda theta, s, g: (theta, s, np.asarray(change(g), np.float32)))


def memory(m: Formula | None = None, v: Formula | None = None) -> Maker:
    """Another m+ of (m, g, k), another v+ of (v, g, m+, m, k)."""

    def fold(self: Memories, xp: Any, state: Arrays, g: Arrays, k: Any) -> Arrays:
        s = Memories.__call__(self, xp, dict(state), dict(g), k)
        if m and self.first:
            s["m"] = m(state["m"], g[AMBIENT], k)
        if v and self.second:
            s["v"] = v(state["v"], g[AMBIENT], s.get("m"), state.get("m"), k)
        return s

    return altered(rewired(Memories, __call__=fold))


def lazy(self: Memories, xp: Any, state: Arrays, g: Arrays, k: Any) -> Arrays:
    """Memories are left alone where the gradient is 0."""
    s = Memories.__call__(self, xp, dict(state), dict(g), k)
    return {key: xp.where(g[AMBIENT] == 0, state[key], x) for key, x in s.items()}


def old_memory_read() -> Maker:
    """The memory passes on what it was, and the direction reads that."""

    def fold(self: Memories, xp: Any, state: Arrays, g: Arrays, k: Any) -> Arrays:
        return Memories.__call__(self, xp, dict(state), dict(g), k) | {"was": state["m"]}

    def read(self: Descent, xp: Any, s: Arrays, g: Arrays, k: Any) -> Arrays:
        return Descent.__call__(self, xp, {**s, "m": s["was"]}, dict(g), k)

    return altered(rewired(Memories, __call__=fold), rewired(Descent, __call__=read))


def coupled(self: Any, xp: Any, theta: Array, evidence: Arrays, k: Any) -> Arrays:
    """g + λθ with λ = c_a/η: plain descent would shrink as much."""
    return {AMBIENT: evidence["gradient"] + (k["c_a"] / k["eta"]) * theta}


def rms(u: Formula) -> Maker:
    """Another u of (xp, z, v̂, k), v̂ the corrected second memory."""

    def formula(self: Rms, xp: Any, z: Array, s: Arrays, k: Any) -> Array:
        found: Array = u(xp, z, k["r_v"] * s["v"] if self.corrected else s["v"], k)
        return found

    return altered(rewired(Rms, __call__=formula))


def atom(kind: type[Ball], formula: Callable[[Any, Array], Array]) -> Maker:
    """Another atom of a norm ball."""
    return altered(rewired(kind, atom=lambda self, xp, z: formula(xp, z)))


OUT_IN = "√(out/in)"  # of a kernel, without the number of its positions


def scaling(name: str) -> Maker:
    """Another scale of a norm ball: a name of the core's, or `OUT_IN`."""

    def scale(self: Ball, shape: Shape) -> float:
        if name == OUT_IN:
            return math.sqrt(shape[0] / shape[1])
        return Ball.scale(replace(self, scaling=name), shape)

    return altered(rewired(Ball, scale=scale))


def polynomials(
    change: Callable[[Quintics], Quintics] = lambda steps: steps, *, safety: float = 0, by: Any = unit
) -> Maker:
    """Newton-Schulz with other coefficients, another safety, or of a matrix normalised otherwise."""

    def iterate(self: SpectralBall, xp: Any, z: Array) -> Array:
        chosen = SETS[self.method]
        x = by(xp, z, MATRIX) * (1 / (safety or chosen.safety))
        return np.asarray(newton_schulz(xp, x, change(chosen.steps)))

    return altered(rewired(SpectralBall, atom=iterate))


def unguarded(steps: Quintics, safety: float) -> Quintics:
    """The polynomials of x instead of x/safety."""
    return tuple((a * safety, b * safety**3, c * safety**5) for a, b, c in steps[:-1]) + steps[-1:]


def unscaled_unit(eps: float) -> Formula:
    """Z / (‖Z‖ + ε) without a power of two against underflow; 0 for 0."""

    def by(xp: Any, z: Array, axes: Any) -> Array:
        length = xp.sqrt(xp.sum(z * z, axis=axes, keepdims=True)) + eps
        found: Array = z * (1 / xp.where(length > 0, length, xp.ones_like(length)))
        return found

    return by


def over_largest(xp: Any, z: Array) -> Array:
    """Columns over their largest entry."""
    largest = xp.max(xp.abs(z), axis=-2, keepdims=True)
    found: Array = z * (1 / xp.where(largest > 0, largest, xp.ones_like(largest)))
    return found


def products(rounding: Callable[[Array], Array]) -> Maker:
    """Matrix products of rounded factors."""
    return altered(xp=Overlay(EXACT, "rounded", matmul=lambda a, b: EXACT.matmul(rounding(a), rounding(b))))


def tensor_float(x: Array) -> Array:
    """The 11 digits that a TF32 unit reads."""
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def truncated(x: Array) -> Array:
    """The upper half of a float32: bfloat16 towards zero."""
    return np.asarray(np.asarray(x, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def motion(formula: Formula) -> Maker:
    """Another θ+ of (θ, u, c_a θ, k), η being solved for if there is a target."""

    def move(self: Additive, xp: Any, theta: Array, u: Arrays, s: Arrays, k: Any) -> tuple[Array, Arrays]:
        if isinstance(self, Targeted):
            k = {**k, "eta": self.solve(xp, k)}
        return formula(theta, u[AMBIENT], self.shrink(xp, theta, u[AMBIENT], k), k), s

    return altered(rewired(Additive, __call__=move))


def mask(grows: Callable[[Array, Array], Array]) -> Maker:
    """A cautious shrink with another mask of (u, θ)."""

    def lost(self: Cautious, xp: Any, theta: Array, u: Array, k: Any) -> Array:
        found: Array = xp.where(grows(u, theta), k["c_a"] * theta, xp.zeros_like(theta))
        return found

    return altered(rewired(Cautious, __call__=lost))


def root(sign: float) -> Maker:
    """Targeted with always the same root, +1 the larger and −1 the smaller."""

    def solve(self: Targeted, xp: Any, k: Any) -> Any:
        sigma, nu, excess = k["sum_wu"], k["sum_uu"], k["excess"]
        found = (sign * xp.sqrt(np.maximum(sigma * sigma - nu * excess, 0)) - sigma) / nu
        return np.clip(found, np.float32(0), np.float32(k["eta"]))

    return altered(rewired(Targeted, solve=solve))


def pool_of_unshrunk() -> Maker:
    """Targeted with sums of θ instead of a θ."""
    pool = lambda self, xp, theta, u, k: Targeted.pool(self, xp, theta, u, {**k, "c_a": 0.0})  # noqa: E731
    return altered(rewired(Targeted, pool=pool))


def unclamped() -> Maker:
    """Targeted without a largest η."""
    return altered(rewired(Targeted, solve=lambda self, xp, k: Targeted.solve(self, xp, {**k, "eta": math.inf})))


def from_retention(name: str) -> Maker:
    """A complement 1 − β of a β rounded to float32."""
    return altered(scalars=lambda k, action: {name: 1 - single(1 - k[name])})


def previous_increment() -> Step:
    """Δτ of the update before."""
    last: list[int] = []

    def step(planned: PlannedGroup, theta: Arrays, state: States, gradient: Arrays, proposal: Proposal) -> Moved:
        last.append(proposal.dtau)
        stale = altered(clock=lambda own, run: replace(own, dtau=last[-2:][0]))
        return stale()(planned, theta, state, gradient, proposal)

    return step


def transposed_scale(v: View) -> View:
    return replace(v, logical=(*v.logical[:-2], v.logical[-1], v.logical[-2]))


def as_stored(v: View) -> View:
    return replace(v, axes=tuple(range(len(v.stored))), logical=v.stored, seen=v.stored)


def one_matrix(v: View) -> View:
    return v if len(v.seen) < 3 else replace(v, seen=(math.prod(v.seen[:-1]), v.seen[-1]))


def kernel_positions(v: View) -> View:
    """(out, in, *k) as the matrix out·in × k."""
    return v if len(v.stored) < 4 else replace(v, seen=(math.prod(v.stored[:2]), math.prod(v.stored[2:])))


class Reordered(View):
    """A kernel flattened as (out, *k, in), and unfolded as (out, in, *k)."""

    def apply(self, xp: Any, x: Array) -> Array:
        if len(self.stored) > 2:
            x = xp.permute_dims(x, (0, *range(2, len(self.stored)), 1))
        found: Array = xp.reshape(x, self.seen)
        return found


def reordered(v: View) -> View:
    return Reordered(v.stored, v.axes, v.logical, v.seen, v.portable)
