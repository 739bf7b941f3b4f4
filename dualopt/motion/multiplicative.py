"""θ moves by rotations from both sides: W+ = E(X_out) W E(X_in), X skew, which keeps singular values.

    X_• = α A_•         α = 0.2 η √(mn) / ‖W A_in + A_out W‖_F

so the first-order change W X_in + X_out W has RMS 0.2 η: η is an angle scale, not a length, and nothing
shrinks. A_in (..., n, n) and A_out (..., m, m) are the skew directions. Where W A_in + A_out W = 0, W stays.

    taylor    E(X) = I + X + X²/2               as published. A rotation by the angle φ multiplies lengths by
                                                √(1 + φ⁴/4): singular values grow, a little in every update
    cayley    E(X) = (I − X/2)⁻¹ (I + X/2)      orthogonal, so singular values stay (ours)

With `alternate` odd updates rotate from the right ("in") and even ones from the left, counted per parameter
from 1; α then has the active term alone, and all memories accumulate in every update.

E is never formed: W E(X) = W + (WX + ½ (WX)X) and W + (WX)(I − X/2)⁻¹, so a small rotation adds small terms
to W, and no rotation adds 0. α has no ε (1e-12 in the source); norms are scaled, so that none overflows.
Source: Pion (arXiv 2605.12492).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..clock import Clock
from ..factorise import inverse
from ..factorise.jacobi import identity
from ..lie import IN, OUT, pair
from ..part import Stage
from ..recursion import Action, Array, Arrays, Namespace, Scalars, Shape
from ..scaling import power_of_two
from ..signal import AMBIENT

RMS = 0.2  # of the first-order change, per unit of η
EXPONENTIALS = ("taylor", "cayley")
UPDATES = "updates"  # the running sum that counts them


@dataclass(frozen=True)
class Multiplicative(Stage):
    """W+ = E(α A_out) W E(α A_in); the direction's channels "in" and "out" are A_in and A_out."""

    exponential: str = "taylor"
    alternate: bool = False

    local: ClassVar[bool] = False
    shaped: ClassVar[bool] = True
    pools: ClassVar[bool] = False

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        names = ("length", "use_in", "use_out") if self.alternate else ("length",)
        return {name: ("step" if name == "length" else "alternate",) for name in names}

    def tally(self, action: Action, clock: Clock) -> dict[str, float]:
        return {UPDATES: clock.sums.get(UPDATES, 0.0) + 1} if self.alternate else {}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        found = {"length": clock.q * action["step"] * RMS * math.sqrt(math.prod(shape[-2:]))}
        if self.alternate:
            odd = clock.sums[UPDATES] % 2
            found |= {"use_in": odd, "use_out": 1 - odd}
        return found

    def init(self, xp: Namespace, theta: Array) -> Arrays:
        return {}

    def pool(self, xp: Namespace, theta: Array, u: Arrays, k: Scalars) -> Arrays:
        return {}

    def __call__(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        return self.rotated(xp, theta, self.rotation(xp, theta, u, k)), s

    def evaluate(self, xp: Namespace, theta: Array, state: Arrays, k: Scalars) -> Array:
        return theta

    def rotation(self, xp: Namespace, w: Array, a: Arrays, k: Scalars) -> Arrays:
        """{"in": X_in, "out": X_out} from the directions A."""
        a_in, a_out = a[IN], a[OUT]
        if self.alternate:
            a_in, a_out = k["use_in"] * a_in, k["use_out"] * a_out
        first = xp.matmul(w, a_in) + xp.matmul(a_out, w)
        scale = power_of_two(xp, xp.max(xp.abs(first), axis=(-2, -1), keepdims=True))
        inverse = xp.ones_like(scale) / scale
        y = first * inverse
        length = xp.sqrt(xp.sum(y * y, axis=(-2, -1), keepdims=True))
        one = xp.ones_like(length)
        still = length == 0
        alpha = k["length"] * xp.where(still, xp.zeros_like(length), inverse * (one / xp.where(still, one, length)))
        return {IN: alpha * a_in, OUT: alpha * a_out}

    def rotated(self, xp: Namespace, w: Array, x: Arrays) -> Array:
        """E(X_out) W E(X_in)."""
        right = self._right(xp, w, x[IN])
        # E(X) W = (Wᵀ E(Xᵀ))ᵀ, and Xᵀ = −X
        return xp.matrix_transpose(self._right(xp, xp.matrix_transpose(right), -x[OUT]))

    def _right(self, xp: Namespace, w: Array, x: Array) -> Array:
        """W E(X)."""
        wx = xp.matmul(w, x)
        if self.exponential == "cayley":
            return w + xp.matmul(wx, inverse(xp, identity(xp, x) - 0.5 * x))
        return w + (wx + 0.5 * xp.matmul(wx, x))


@dataclass(frozen=True)
class Transported(Multiplicative):
    """The same, with memories of the gradient itself: A are the skew parts of the ambient direction u,

    A_in = Wᵀu − uᵀW,   A_out = uWᵀ − Wuᵀ,   and the memory turns with the weights:  m+ ← E_out m+ E_in.

    Any direction will do. v is not transported.
    """

    def __call__(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        x = self.rotation(xp, theta, pair(xp, theta, u[AMBIENT]), k)
        return self.rotated(xp, theta, x), {**s, "m": self.rotated(xp, s["m"], x)}
