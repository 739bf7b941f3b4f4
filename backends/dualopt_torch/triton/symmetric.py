"""X Xᵀ, symmetric by construction, at half the multiplications.

The lower triangle is computed, tile by tile; it is written twice, the second time transposed.

cuBLAS has tuned code for whole products, and this kernel is one size of tile, so which of the two is faster is found
out on the device, once for every size (`product`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch

from . import installed

TILE, DEPTH = 128, 64  # rows and columns of a tile; terms that are added up at a time
OPTIONS = {"num_warps": 8, "num_stages": 3, "enable_fp_fusion": True}
TRIES = 5

SOURCE = '''
@triton.jit
def symmetric(
    x, y, n, k, x_batch, x_row, x_term, y_batch, TILE: tl.constexpr, DEPTH: tl.constexpr,
):
    """y = x xᵀ, the tiles (i, j) with i >= j and their mirrors. y is in C order."""
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
    out = total.to(y.dtype.element_ty)
    inside = (rows[:, None] < n) & (rows[:, None] >= columns[None, :])
    y += batch * y_batch
    tl.store(y + rows[:, None] * n + columns[None, :], out, mask=inside)
    tl.store(y + columns[:, None] * n + rows[None, :], tl.trans(out), mask=tl.trans(inside))
'''


@lru_cache(maxsize=2)
def kernel(interpreted: bool = False) -> Any:
    """The kernel of `SOURCE`."""
    from .source import module_of

    return module_of(SOURCE, interpreted)["symmetric"]


def gram(x: torch.Tensor, out: torch.Tensor | None = None, interpreted: bool = False) -> torch.Tensor:
    """x xᵀ for x (..., n, k) of any strides; (..., n, n) of its type, in C order, in `out` if given."""
    *batch, n, k = x.shape
    flat = x.reshape(math.prod(batch), n, k)
    y = torch.empty((*batch, n, n), dtype=x.dtype, device=x.device) if out is None else out
    y = y.view(flat.shape[0], n, n)
    tiles = -(-n // TILE)
    if y.numel():
        grid = tiles * (tiles + 1) // 2, flat.shape[0]
        update = kernel(interpreted)
        update[grid](flat, y, n, k, *flat.stride(), y.stride(0), TILE=TILE, DEPTH=DEPTH, **OPTIONS)
    return y.reshape(*batch, n, n)


def is_gram(u: torch.Tensor, v: torch.Tensor) -> bool:
    """True if v is the very memory of u, transposed."""
    return u.data_ptr() == v.data_ptr() and u.mT.shape == v.shape and u.mT.stride() == v.stride()


def product(u: torch.Tensor, v: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """u v of bfloat16 matrices, by the kernel where v = uᵀ, on a CUDA device on which that is faster.

    It is written into `out`, in C order, if given.
    """

    def whole() -> torch.Tensor:
        return torch.matmul(u, v, out=out)

    if u.is_cuda and installed() and is_gram(u, v):
        key = u.device, u.dtype, u.shape, u.stride()
        if faster(key, lambda: gram(u, out), whole):
            return gram(u, out)
    return whole()


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
