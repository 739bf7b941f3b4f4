"""What no optimizer can be faster than: a pass over the same bytes, and the same products.

*stream*: one pass over one array for each array of the step: all are read, and those that a step writes are written in
place. One compiled loop with one multiplication and one addition per array, over contiguous arrays of one length, so
that nothing but memory matters.

*products*: the matrix products of five steps of Newton-Schulz in the form that needs fewest at every shape, one batch
for each shape, with the operands and the results in place. With r = long/short side, in units of 2 short³: 10 r + 5 of
the standard form, or of the Gram form with one restart 4 r + 14.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..subject import Subject, Task
from .torch_arrays import multiplies_bfloat16

FASTEST = "fastest"  # type of products: bfloat16 where the CPU multiplies it, else float32
GRAM_FROM = 1.5
STEPS = 5


def stream(task: Task) -> Subject:
    size = sum(map(math.prod, task.shapes.values()))
    read = [torch.full((size,), 0.01, dtype=getattr(torch, dtype)) for dtype in task.options["read"]]
    written = [torch.full((size,), 0.01, dtype=getattr(torch, dtype)) for dtype in task.options["written"]]

    def once(arrays: list[torch.Tensor], changed: list[torch.Tensor]) -> None:
        total = sum(x.to(torch.float32) for x in arrays)
        for x in changed:
            x.copy_(x * 0.999 + total * 1e-3)

    def start() -> Callable[[], object]:
        compiled = torch.compile(once, dynamic=False, fullgraph=True)
        return lambda: compiled(read, written)

    return Subject(start, list, moves=False)


def products(task: Task) -> Subject:
    work = task.options["work"]
    dtype = torch.bfloat16 if work == FASTEST and multiplies_bfloat16() else torch.float32
    alike: dict[tuple[int, int], int] = {}
    for shape in task.shapes.values():
        short, long = sorted(shape[-2:])
        alike[short, long] = alike.get((short, long), 0) + math.prod(shape[:-2])

    def start() -> Callable[[], object]:
        calls = [call for (m, n), k in alike.items() for call in _iteration(k, m, n, dtype)]

        def step() -> None:
            for a, b, out in calls:
                torch.bmm(a, b, out=out)

        return step

    return Subject(start, list, facts=lambda: {"work": str(dtype).removeprefix("torch.")}, moves=False)


def _iteration(k: int, m: int, n: int, dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """The products for k matrices (m, n), m <= n, as arguments of bmm."""
    x, square = (torch.full((k, m, s), 1e-3, dtype=dtype) for s in (n, m))
    wide, small = torch.empty_like(x), torch.empty_like(square)
    gram, power, applied = (x, x.mT, small), (square, square, small), (square, x, wide)
    if n < GRAM_FROM * m:
        return [gram, power, applied] * STEPS
    # Steps 1 and 2, restart, 3 to 5: a Gram matrix and an X each time; R² in all, Q and twice R in 1 + 2 of them.
    return [gram] * 2 + [power] * (STEPS + 3 * 3) + [applied] * 2
