"""What rounding does to a trajectory: a float64 run that is off in every update, by as much as float32 may be.

    θ+ and s+        every number that an update changes, and s before the first: by 2^-24 of its magnitude, up or down;
                     θ of rows that multiply matrices by 2^-24 of the root mean square of its matrix, one normwise E
    bfloat16 work    every number that is rounded to it by 2^-8 of its magnitude: other evaluations round elsewhere
    factorisations   of A + E with ‖E‖ = max(m, n) 2^-23 ‖A‖, what `factorised` takes backward stable to mean

Signs are drawn. An evaluation in float32 that is sound is off by about that much. So the distance of this run from
the oracle is what a sound one may have, wherever one update makes much of the errors of those before it; and where it
is beyond what errors of 1 E add up to when no update amplifies them,

    E_t > 4 √t + 1,

rounding decides where the trajectory goes, and it says nothing about who rounded how.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from dualopt.directions.polar.work import BITS, Rounded
from dualopt.exact import Overlay
from dualopt.generator import Stream
from dualopt.planned import PlannedGroup
from dualopt.proposal import Proposal

from .arithmetic import U
from .walk import Arrays, Moved, States, Step

Array = np.ndarray[Any, Any]
MATRIX = (-2, -1)
DRAWN = 2**20


@cache
def _drawn() -> Array:
    return U * (2.0 * Stream(0, "nudge").below(2, DRAWN) - 1)


class Signs:
    """−2^-24 or 2^-24, drawn; after `DRAWN` of them, once more from another place."""

    def __init__(self) -> None:
        self._read = 0

    def __call__(self, shape: tuple[int, ...]) -> Array:
        count = math.prod(shape)
        if self._read + count > DRAWN:
            self._read = (self._read + count) % 1009
        found = _drawn()[self._read : self._read + count] if count <= DRAWN else np.resize(_drawn(), count)
        self._read += count
        return found.reshape(shape)


class Nudge:
    """x off by one E; where `before` is given, in those elements that differ from it."""

    def __init__(self, signs: Signs, normwise: bool) -> None:
        self._signs, self._normwise = signs, normwise

    def __call__(self, x: Array, before: Array | None = None) -> Array:
        x = x.astype(np.float64)
        size = rms(x) if self._normwise and x.ndim > 1 and x.size else np.abs(x)
        off = x + size * self._signs(x.shape)
        return off if before is None else np.where(x != before, off, x)


def rms(x: Array) -> Array:
    """The root mean square of each matrix, (..., 1, 1)."""
    return np.asarray(np.sqrt(np.mean(x * x, axis=MATRIX, keepdims=True)))


class Narrowed(Rounded):
    """Work in bfloat16, off by one unit of it wherever the definition rounds."""

    def __init__(self, xp: Any) -> None:
        super().__init__(xp)
        self._signs = Signs()

    def narrow(self, x: Array) -> Array:
        rounded: Array = super().narrow(x)
        return rounded * (1 + 2.0**-BITS / U * self._signs(x.shape))


class Factorisations:
    """numpy's `linalg`, of A + E."""

    def __init__(self, signs: Signs) -> None:
        self._signs = signs

    def eigh(self, a: Array) -> Any:
        near = self._near(a)
        return np.linalg.eigh(0.5 * (near + np.swapaxes(near, -1, -2)))

    def inv(self, a: Array) -> Array:
        return np.linalg.inv(self._near(a))

    def svd(self, a: Array, full_matrices: bool = False) -> Any:
        return np.linalg.svd(self._near(a), full_matrices=full_matrices)

    def svdvals(self, a: Array) -> Array:
        return np.linalg.svdvals(self._near(a))

    def _near(self, a: Array) -> Array:
        return a + 2 * max(a.shape[-2:]) * rms(a) * self._signs(a.shape) if a.size else a


def nudged(double: Callable[[Any], Step], normwise: bool) -> Step:
    """The step that `double` makes of a namespace, off in every update."""
    signs = Signs()
    nudge, nudge_theta, begun = Nudge(signs, False), Nudge(signs, normwise), set[str]()
    execute = double(Overlay(np, "nudged", linalg=Factorisations(signs), bfloat16_work=Narrowed))

    def step(planned: PlannedGroup, theta: Arrays, state: States, gradient: Arrays, proposal: Proposal) -> Moved:
        state = {n: s if n in begun else {k: nudge(x) for k, x in s.items()} for n, s in state.items()}
        begun.update(state)
        moved = execute(planned, theta, state, gradient, proposal)
        return {
            n: (nudge_theta(x, theta[n]), {k: nudge(y, state[n][k]) for k, y in s.items()})
            for n, (x, s) in moved.items()
        }

    return step
