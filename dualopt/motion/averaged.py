"""Schedule-free motion: the fast point z moves additively, its weighted mean x is what counts.

    z+ = a z + η u                       as z + (η u − c_a z); gradients, and with them u, are taken at y
    x+ = x + c (z+ − x)                  c = w_t / Σ_{k≤t} w_k: x is the mean of z_1 … z_t with weights w
    y+ = x+ + (1 − β)(z+ − x+)           = (1 − β) z+ + β x+, the parameter itself; β = `interpolation`

θ is y; z and x start at θ and are kept in the working type, so a half-precision y is rounded from them anew
in every update. Evaluation and deployment are at x (`evaluate`), which needs no horizon: at any time it is
what a schedule would have had to decay to. β is a weight of points, not a retention: it does not change
with the batch size.

Weights, in float64 on the host, where Σw is a running sum of each parameter's own:

    averaging = "step"             w = η_t²                      SF-NorMuon (arXiv 2605.23061)
    averaging = "largest_step"     w = (max_{k≤t} η_k)²          SF-AdamW (arXiv 2405.15682) as its authors run it
    averaging_power = r            times τ_t^r; the published t^r if Δτ is constant
    averaging_counts               times Δτ_t: the mean over counts instead of over updates (ours)

As long as Σw = 0 (η = 0 so far) c is 0 and x stays.

`shrink_at` says what shrinks z: ``"z"`` itself, which bounds it for normalised directions, as SF-NorMuon
requires: ‖z‖ ≤ max(‖z_0‖, η ‖u‖/(1 − a)); or ``"y"``, z+ = z + (η u − c_a y), as the code of SF-AdamW does.
All kinds of shrink apply; the cautious one compares u with the point that shrinks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..clock import Clock
from ..memory import blend
from ..recursion import Action, Array, Arrays, Namespace, Scalars, Shape
from ..signal import AMBIENT
from .additive import Additive

WEIGHTS = ("step", "largest_step")
SHRUNK = ("z", "y")
TOTAL, LARGEST = "weight_sum", "largest_step"  # the running sums: Σw, and max η where weights read it


@dataclass(frozen=True)
class Averaged(Additive):
    """The recursion of the module over the additive motion of any row."""

    weights: str = "step"  # of WEIGHTS
    shrink_at: str = "z"  # of SHRUNK
    by_count: bool = False

    averages: ClassVar[bool] = True

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        behind = ("step", "averaging", "averaging_power", "averaging_counts")
        return super().needs | {"c_x": behind, "c_y": ("interpolation",)}

    def tally(self, action: Action, clock: Clock) -> dict[str, float]:
        eta = clock.q * action["step"]
        sums: dict[str, float] = {}
        if self.weights == "largest_step":
            eta = sums[LARGEST] = max(eta, clock.sums.get(LARGEST, 0.0))
        return {TOTAL: clock.sums.get(TOTAL, 0.0) + self._weight(eta, action, clock)} | sums

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        eta = clock.sums[LARGEST] if self.weights == "largest_step" else clock.q * action["step"]
        total = clock.sums[TOTAL]
        share = self._weight(eta, action, clock) / total if total else 0.0
        return super().scalars(action, clock, shape) | {"c_x": share, "c_y": 1 - action["interpolation"]}

    def _weight(self, eta: float, action: Action, clock: Clock) -> float:
        """w of this update, from the η that it reads."""
        weight: float = eta**2 * clock.tau ** action["averaging_power"]
        return weight * clock.dtau if self.by_count else weight

    def init(self, xp: Namespace, theta: Array) -> Arrays:
        return {"z": 1.0 * theta, "x": 1.0 * theta}  # arrays of their own

    def __call__(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        return self.average(xp, {**s, "z": self.lead(xp, theta, u, s, k)}, k)

    def lead(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> Array:
        """z+, the only one of the three that u enters."""
        along = u[AMBIENT]
        shrunk = s["z"] if self.shrink_at == "z" else theta
        return s["z"] + (k["eta"] * along - self.shrink(xp, shrunk, along, k))

    def average(self, xp: Namespace, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        """(y+, s+), with z+ in s."""
        x = blend(s["x"], s["z"], k["c_x"])
        return blend(x, s["z"], k["c_y"]), {**s, "x": x}

    def evaluate(self, xp: Namespace, theta: Array, state: Arrays, k: Scalars) -> Array:
        return state["x"]
