"""Greedy minimax composition of odd quintics: where the coefficients of the Polar Express sets come from.

For singular values in [ℓ, u] the best p(x) = a x + b x³ + c x⁵ has the smallest E = max |p(x) − 1|. It touches the
band at four points, with 1 − p = E, −E, E, −E at ℓ < q < r < u, where q and r are the zeros of p′ (`best`). What p
leaves is in [ℓ′, 2 − ℓ′] with ℓ′ = p(ℓ), which is where the next one begins: the composition of greedy choices is the
best one.

*Cushion*: a p that is best on all of [ℓ, u] for a tiny ℓ is steep at 0 and far from 1 elsewhere. It is made for
[k u, u] instead where ℓ < k u, and scaled so that what it makes of [ℓ, u] lies evenly about 1.

``python -m dualopt.directions.polar.express`` prints the sets of `sets` as they are there.
Source: Amsel et al., Polar Express (arXiv 2505.16932), whose published coefficients have the cushion below.
"""

from __future__ import annotations

import math

import numpy as np

from .sets import Quintic, value

CUSHION = 0.02407327424182761  # the authors'
ROUNDS, CLOSE = 100, 1e-15  # of the exchange; it converges quadratically


def best(low: float, high: float) -> Quintic:
    """The odd quintic that is nearest to 1 on [low, high], 0 < low < high, by Remez' exchange."""
    q, r, error = (3 * low + high) / 4, (low + 3 * high) / 4, math.inf
    for _ in range(ROUNDS):
        rows = [[x, x**3, x**5, sign] for x, sign in ((low, 1), (q, -1), (r, 1), (high, -1))]
        a, b, c, found = (float(x) for x in np.linalg.solve(rows, np.ones(4)))
        root = math.sqrt(max(9 * b * b - 20 * a * c, 0.0))  # p′ = a + 3 b x² + 5 c x⁴
        q, r = (math.sqrt((-3 * b + sign * root) / (10 * c)) for sign in (-1, 1))
        if abs(found - error) <= CLOSE:
            break
        error = found
    return a, b, c


def composed(least: float, steps: int, cushion: float = CUSHION) -> tuple[Quintic, ...]:
    """The best `steps` quintics for singular values in [least, 1], one after the other."""
    low, high, found = least, 1.0, []
    for _ in range(steps):
        a, b, c = best(max(low, cushion * high), high)
        if low < cushion * high:
            middle = (value((a, b, c), low) + value((a, b, c), high)) / 2
            a, b, c = a / middle, b / middle, c / middle
        found.append((a, b, c))
        low = value((a, b, c), low)
        high = 2 - low
    return tuple(found)


if __name__ == "__main__":
    for least, steps in ((1e-3, 5), (3.2e-3, 4)):
        print(f"# {steps} steps, ℓ = {least:g}", *(f"{step}," for step in composed(least, steps)), sep="\n")
