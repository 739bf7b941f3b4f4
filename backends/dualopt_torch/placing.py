"""Where elementwise updates find their arrays: which lie together, and views of the memory of one or of many."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from dualopt.buckets import joined
from dualopt.planned import PlannedGroup

from .route import Tensors


def placed(
    planned: PlannedGroup, fresh: Mapping[str, Tensors], like: Tensors, *, flat_storage: bool = False
) -> dict[str, Tensors]:
    """The same state where elementwise updates find it: in the strides of θ, that of short parameters end to end, or
    that of all."""
    if not planned.row.local:
        return {name: {key: x.contiguous() for key, x in s.items()} for name, s in fresh.items()}
    out = {}
    for names in buckets({name: like[name] for name in fresh}, whole=flat_storage):
        if len(names) == 1:
            p = like[names[0]]
            out[names[0]] = {key: torch.empty_like(p, dtype=x.dtype).copy_(x) for key, x in fresh[names[0]].items()}
            continue
        parts = {key: flat([fresh[name][key] for name in names]) for key in fresh[names[0]]}
        cut = {key: views(x, [like[name] for name in names]) for key, x in parts.items()}
        out |= {name: {key: each[i] for key, each in cut.items()} for i, name in enumerate(names)}
    return {name: out.get(name, s) for name, s in fresh.items()}


def buckets(theta: Tensors, *, whole: bool = False) -> tuple[tuple[str, ...], ...]:
    """The names by what is updated together; `whole`: all that are alike, and in the order of their indices."""
    if whole:
        order = {name: x for name, x in theta.items() if x.is_contiguous()}
        everything = sum(x.numel() for x in order.values())
        others = {name: x for name, x in theta.items() if name not in order}
        return *joined(*_seen(order), small=everything, most=everything), *joined(*_seen(others))
    return joined(*_seen(theta))


def _seen(theta: Tensors) -> tuple[dict[str, int], dict[str, tuple[torch.dtype, torch.device]]]:
    """Sizes and kinds."""
    return {name: x.numel() for name, x in theta.items()}, {name: (x.dtype, x.device) for name, x in theta.items()}


def flat(tensors: list[torch.Tensor], out: torch.Tensor | None = None) -> torch.Tensor:
    """All elements end to end, each tensor in the order of its indices; a single tensor is not copied."""
    if len(tensors) == 1 and out is None:
        return tensors[0]
    return torch.cat([x if x.ndim == 1 else x.reshape(-1) for x in tensors], out=out)


def views(joint: torch.Tensor, like: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Pieces of `joint` in the shapes of `like`."""
    found: tuple[torch.Tensor, ...] = torch._utils._unflatten_dense_tensors(joint, like)  # type: ignore[no-untyped-call]
    return found


def run_of(x: torch.Tensor, start: int, size: int) -> torch.Tensor:
    """`size` elements of the memory of x, from `start` elements behind its first."""
    return torch.as_strided(x, (size,), (1,), x.storage_offset() + start)


def dense(x: torch.Tensor) -> bool:
    """True if the elements of x fill its stretch of memory."""
    return x.is_contiguous() or torch.empty_like(x, device="meta").stride() == x.stride()
