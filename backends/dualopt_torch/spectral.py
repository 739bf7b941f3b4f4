"""Rows with a polar factor, in the fast tier: factors of a stack of matrices, all else in place.

An update has three stages (`dualopt.staged`). The first and the last go parameter by parameter, on views of the user's
own storage wherever strides allow: kernels, stacks of experts and blocks are not copied. What the first one reads is
written into a stack of the type that the products are carried out in; the stacks hold matrices of one shape and
orientation, and `CHUNK` bytes at most, and share one workspace, so that memory beside the model is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch

from dualopt.directions.polar import BFLOAT16, BOUNDS, EXACT, SETS
from dualopt.planned import PlannedGroup
from dualopt.staged import Staged, staged

from .kernels import working
from .namespace import FAST
from .products import multiplies_bfloat16, one_by_one
from .route import Tensors, Update, keep
from .stacks import Workspace, stacked

Scalars = Mapping[str, float]
Copied = tuple[str, torch.Tensor, torch.Tensor]  # a parameter's name, an array as it is stored and as the row sees it

CHUNK = 2**24  # most bytes of a stack, and
PIECE = 2**20  # most elements of what is updated at once around it, unless one matrix has more


@dataclass(frozen=True)
class Piece:
    """Matrices that are updated at once: a parameter, or a part of its stack, as the row sees it."""

    theta: torch.Tensor
    state: Tensors
    evidence: Tensors
    k: Scalars

    @property
    def count(self) -> int:
        return math.prod(self.theta.shape[:-2])


def stored_type(stages: Staged, like: torch.Tensor) -> torch.dtype:
    """The type of a stack: what is normalised first is float32."""
    normalise = stages.way.normalise or SETS[stages.method].normalise
    narrow = stages.way.work == BFLOAT16 and normalise in BOUNDS and multiplies_bfloat16(like.device)
    return torch.bfloat16 if narrow else torch.float32


class Spectral:
    """The route for rows that `staged` knows, in float32 or narrower."""

    def __call__(self, update: Update) -> Collection[str]:
        """Update the parameters that it is for, in place; their names."""
        planned, theta = update.planned, update.theta
        stages = staged(planned.row)
        if stages is None or stages.method == EXACT:
            return ()
        names = [name for name, x in theta.items() if x.numel() and x.dtype != torch.float64]
        buckets: dict[tuple[object, ...], list[Piece]] = {}
        copied: list[Copied] = []
        for name in names:
            whole = Piece(
                _seen(planned, name, theta[name], copied),
                {key: _seen(planned, name, x, copied, key) for key, x in update.state[name].items()},
                planned.measured(FAST, name, update.evidence[name]),
                update.k[name],
            )
            most = min(PIECE, CHUNK // stored_type(stages, whole.theta).itemsize)
            buckets.setdefault((*whole.theta.shape[-2:], whole.theta.device), []).extend(_parts(whole, most))
        space = Workspace()
        for pieces in buckets.values():
            for chunk in _chunks(stages, pieces):
                _update(stages, chunk, space)
        for name, stored, seen in copied:
            stored.copy_(planned.views[name].undo(FAST, seen))
        return names


def _seen(
    planned: PlannedGroup,
    name: str,
    x: torch.Tensor,
    copied: list[Copied],
    key: str | None = None,
) -> torch.Tensor:
    """A parameter or state as the row sees it; noted in `copied` where that is not a view of it."""
    if key in planned.row.apart:
        return x
    seen: torch.Tensor = planned.views[name].apply(FAST, x)
    if seen.untyped_storage()._cdata != x.untyped_storage()._cdata:
        copied.append((name, x, seen))
    return seen


def _parts(whole: Piece, most: int) -> Iterator[Piece]:
    """A piece in parts of `most` elements along its first axis, where that is one of stacks."""
    theta = whole.theta
    arrays = (*whole.state.values(), *whole.evidence.values())
    if theta.numel() <= most or theta.ndim < 3 or any(x.shape[:1] != theta.shape[:1] for x in arrays):
        yield whole
        return
    length = max(1, most // math.prod(theta.shape[1:]))
    for start in range(0, theta.shape[0], length):
        part = slice(start, start + length)
        state, evidence = ({key: x[part] for key, x in a.items()} for a in (whole.state, whole.evidence))
        yield Piece(theta[part], state, evidence, whole.k)


def _chunks(stages: Staged, pieces: list[Piece]) -> Iterator[list[Piece]]:
    """The pieces in lists of `CHUNK` bytes at most; one by one where products are not batched."""
    stack = torch.empty(0, dtype=stored_type(stages, pieces[0].theta), device=pieces[0].theta.device)
    most = 1 if one_by_one(stack) else CHUNK // stack.itemsize
    chunk: list[Piece] = []
    size = 0
    for piece in pieces:
        if chunk and size + piece.theta.numel() > most:
            yield chunk
            chunk, size = [], 0
        chunk.append(piece)
        size += piece.theta.numel()
    yield chunk


def _update(stages: Staged, pieces: list[Piece], space: Workspace) -> None:
    """One update of the matrices of one stack."""
    like = pieces[0].theta
    shape = torch.Size((sum(p.count for p in pieces), *like.shape[-2:]))
    z = space.empty(shape, stored_type(stages, like), like.device)
    places = torch.split(z, [p.count for p in pieces])
    for p, place in zip(pieces, places, strict=True):
        measured = {key: working(x) for key, x in p.evidence.items()}
        s, read = stages.before(FAST, working(p.theta), p.state, measured, p.k)
        keep(p.state, s)
        place.copy_(read.reshape(place.shape))
    o = torch.split(stages.factor(stacked(space), z), [p.count for p in pieces])
    for p, found in zip(pieces, o, strict=True):
        moved, s = stages.after(FAST, working(p.theta), p.state, working(found.reshape(p.theta.shape)), p.k)
        p.theta.copy_(moved)
        keep(p.state, s)
