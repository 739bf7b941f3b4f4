"""Products that are symmetric by construction, X Xᵀ and b R + c R² of a symmetric R, at half the multiplications.

The lower triangle is computed, tile by tile; it is written twice, the second time transposed. Only what is exactly
symmetric may be mirrored: making nearly symmetric factors symmetric costs accuracy in bfloat16.

cuBLAS has tuned code for whole products, and this kernel is one size of tile, so which of the two is faster is found
out on the device, once for every size (`faster`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch

TILE, DEPTH = 128, 64  # rows and columns of a tile; terms that are added up at a time
OPTIONS = {"num_warps": 8, "num_stages": 3, "enable_fp_fusion": True}
TRIES = 5

SOURCE = '''
@triton.jit
def symmetric(
    x, r, y, n, k, x_batch, x_row, x_term, r_batch, r_row, r_column, y_batch, b, c,
    ADD: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
):
    """y = c x xᵀ, or b r + c x xᵀ, the tiles (i, j) with i >= j and their mirrors. y is in C order."""
    pair = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    i = ((tl.sqrt(8.0 * pair + 1.0) - 1.0) / 2.0).to(tl.int32)
    i = tl.where((i + 1) * (i + 2) // 2 <= pair, i + 1, i)  # of a root that was rounded
    i = tl.where(i * (i + 1) // 2 > pair, i - 1, i)
    j = pair - i * (i + 1) // 2
    rows, columns = i * TILE + tl.arange(0, TILE), j * TILE + tl.arange(0, TILE)
    terms = tl.arange(0, DEPTH)
    left = x + batch * x_batch + rows[:, None] * x_row + terms[None, :] * x_term
    right = x + batch * x_batch + columns[:, None] * x_row + terms[None, :] * x_term
    total = tl.full((TILE, TILE), 0.0, tl.float32)
    for start in range(0, k, DEPTH):
        more = terms[None, :] < k - start
        u = tl.load(left, mask=(rows[:, None] < n) & more, other=0.0)
        v = tl.load(right, mask=(columns[:, None] < n) & more, other=0.0)
        total = tl.dot(u, tl.trans(v), total, input_precision="ieee")
        left += DEPTH * x_term
        right += DEPTH * x_term
    total = total * c
    inside = (rows[:, None] < n) & (rows[:, None] >= columns[None, :])
    if ADD:
        at = r + batch * r_batch + rows[:, None] * r_row + columns[None, :] * r_column
        total += b * tl.load(at, mask=inside, other=0.0).to(tl.float32)
    out = total.to(y.dtype.element_ty)
    y += batch * y_batch
    tl.store(y + rows[:, None] * n + columns[None, :], out, mask=inside)
    tl.store(y + columns[:, None] * n + rows[None, :], tl.trans(out), mask=tl.trans(inside))
'''


@lru_cache(maxsize=2)
def kernel(interpreted: bool = False) -> Any:
    """The kernel of `SOURCE`."""
    from .source import module_of

    return module_of(SOURCE, interpreted)["symmetric"]


def gram(x: torch.Tensor, interpreted: bool = False) -> torch.Tensor:
    """x xᵀ for x (..., n, k) of any strides; (..., n, n) of its type."""
    return _launched(x, None, 0.0, 1.0, interpreted)


def quadratic(b: float, r: torch.Tensor, c: float, interpreted: bool = False) -> torch.Tensor:
    """b r + c r² for a symmetric r (..., n, n)."""
    return _launched(r, r, b, c, interpreted)


def _launched(x: torch.Tensor, r: torch.Tensor | None, b: float, c: float, interpreted: bool) -> torch.Tensor:
    *batch, n, k = x.shape
    flat = x.reshape(math.prod(batch), n, k)
    added = flat if r is None else r.reshape(math.prod(batch), n, n)
    y = torch.empty((flat.shape[0], n, n), dtype=x.dtype, device=x.device)
    tiles = -(-n // TILE)
    if y.numel():
        grid = tiles * (tiles + 1) // 2, flat.shape[0]
        strides = *flat.stride(), *added.stride(), y.stride(0)
        kernel(interpreted)[grid](
            flat, added, y, n, k, *strides, b, c, ADD=r is not None, TILE=TILE, DEPTH=DEPTH, **OPTIONS
        )
    return y.reshape(*batch, n, n)


_measured: dict[tuple[Any, ...], bool] = {}


def faster(
    key: tuple[Any, ...],
    ours: Callable[[], torch.Tensor],
    theirs: Callable[[], torch.Tensor],
    time: Callable[[Callable[[], torch.Tensor]], float] | None = None,
) -> bool:
    """True if `ours` took less time than `theirs` on the device, measured when `key` is met for the first time.

    While a step is being captured nothing can be measured, and what is not known yet is False.
    """
    if key not in _measured:
        if time is None and torch.cuda.is_current_stream_capturing():
            return False
        taken = time or _milliseconds
        _measured[key] = taken(ours) < taken(theirs)
    return _measured[key]


def _milliseconds(run: Callable[[], torch.Tensor]) -> float:
    """The least of some runs, after one that compiles."""
    run()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(TRIES + 1)]  # type: ignore[no-untyped-call]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    marks[-1].synchronize()
    return min(float(start.elapsed_time(end)) for start, end in pairwise(marks))
