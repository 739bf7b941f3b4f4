"""Which of several workers computes which direction: longest first, each to the worker that has least to do.

    cost of a stack of k matrices m × n with s = min(m, n), l = max(m, n)

        products of matrices      k (4 s² l + 2 s³)       one step of an iteration: X Xᵀ, its square, and times X
        lines and lengths         k m n

All directions that multiply matrices take about as many steps, so their number is left out; a direction that only
brings lines to a length costs next to nothing beside them. Longest-processing-time-first is within 4/3 of the best
assignment (Graham, SIAM J. Appl. Math. 17, 1969). Ties are broken by the order of the names and of the workers, so
that every process finds the same assignment without asking the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from .recursion import Shape


def flops(shape: Shape, *, linear: bool = False) -> int:
    """The cost of the direction of a parameter that its row sees in `shape`: (n,) or (..., m, n).

    Args:
        linear: no products of matrices.
    """
    if linear or len(shape) < 2:
        return math.prod(shape)
    short, long = sorted(shape[-2:])
    return math.prod(shape[:-2]) * (4 * short * short * long + 2 * short**3)


def assign(costs: Mapping[str, int], workers: int) -> dict[str, int]:
    """{name: worker} for workers 0 … `workers` − 1, in the order of `costs`."""
    busy = [0] * workers
    found: dict[str, int] = {}
    for name in sorted(costs, key=lambda name: -costs[name]):  # stable: equal costs in the order given
        worker = busy.index(min(busy))
        found[name] = worker
        busy[worker] += costs[name]
    return {name: found[name] for name in costs}
