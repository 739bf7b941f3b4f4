"""Updates of rows with a `storage`: carried out on float32 tensors, and stored in the type of the parameters.

Masters are updated where they lie. For the others parameters are widened into memory that is freed again: elementwise
rows in pieces of `PIECE` elements, matrices in batches of `BATCH`, and motions that pool all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from dualopt.buckets import pieces
from dualopt.rounding import Storage

from .closing import Closed, Closing
from .kernels import working
from .route import Tensors, Update

PIECE = 2**20  # elements of an elementwise row that are widened at once
BATCH = 2**22  # of matrices, unless one has more


@dataclass(frozen=True)
class Part:
    """A parameter, or some elements of its memory, with what belongs to them.

    Attributes:
        name, label: of the parameter, and of this part of it.
        theta, kept, rest: as they are stored: the part, the state of its storage, and that of its row.
        evidence: of the part.
        start: the place of its first element.
    """

    name: str
    label: str
    theta: torch.Tensor
    kept: Tensors
    rest: Tensors
    evidence: Tensors
    start: int


class Opened:
    """An update of some parts on float32 tensors."""

    def __init__(self, update: Update, storage: Storage, parts: list[Part]) -> None:
        self.storage, self.parts = storage, parts
        k = {part.label: update.k[part.name] for part in parts}
        theta = {part.label: storage.opened(working, part.theta, part.kept) for part in parts}
        state = {part.label: part.rest for part in parts}
        evidence = {part.label: part.evidence for part in parts}
        self.update = Update(update.planned, theta, state, evidence, k)

    def close(self, closing: Closing) -> None:
        """Store what has been updated, parts of one type and word together."""
        alike: dict[tuple[torch.dtype, torch.device, int], list[Part]] = {}
        sets: dict[int, int] = {}
        for part in self.parts:
            x, k = self.update.theta[part.label], self.update.k[part.label]
            which = sets.setdefault(id(k), len(sets))
            alike.setdefault((part.theta.dtype, x.device, which), []).append(part)
        for (_, _, which), parts in alike.items():
            here = [Closed(p.name, p.start, self.update.theta[p.label], p.theta, p.kept) for p in parts]
            slot = (self.update.planned.group.name, "word", which)
            closing(self.storage, slot, self.update.k[parts[0].label], here)


class Storing:
    """Carries out updates of rows with a storage.

    Args:
        fast: the tier.
        closing: stores what has been updated.
    """

    def __init__(self, fast: bool, closing: Closing) -> None:
        self.fast, self.closing = fast, closing
        self._anchored: dict[str, tuple[Tensors, tuple[Tensors, Mapping[str, Tensors]]]] = {}

    def __call__(self, update: Update, run: Callable[[Update], None]) -> None:
        """Carry out an update; `run` does so in place on float32 tensors."""
        storage = update.planned.row.storage
        assert storage is not None
        if storage.anchored:
            opened = self._masters(update, storage)
            run(opened.update)
            opened.close(self.closing)
            return
        for parts in self._together(update, storage):
            opened = Opened(update, storage, parts)
            run(opened.update)
            opened.close(self.closing)

    def whole(self, update: Update, starts: Mapping[str, int]) -> Opened:
        """The update of all parameters at once, of which these tensors begin at the places `starts`."""
        storage = update.planned.row.storage
        assert storage is not None
        return Opened(update, storage, [_whole(update, storage, n, starts.get(n, 0)) for n in update.theta])

    def _masters(self, update: Update, storage: Storage) -> Opened:
        """All of them. They stay the same objects as long as the parameters do, which is what kernels are kept by."""
        group = update.planned.group.name
        of, kept = self._anchored.get(group, (None, None))
        fresh = self.whole(update, {})
        if of is not update.theta or kept is None:
            kept = fresh.update.theta, fresh.update.state
            self._anchored[group] = update.theta, kept  # and no evidence: gradients are not kept alive
        fresh.update = Update(update.planned, *kept, fresh.update.evidence, fresh.update.k)
        return fresh

    def _together(self, update: Update, storage: Storage) -> Iterator[list[Part]]:
        """The parts in lists that are widened together."""
        row, theta = update.planned.row, update.theta
        most = PIECE if row.local else BATCH
        if row.motion.pools:
            yield [_whole(update, storage, name, 0) for name in theta]
            return
        found: list[Part] = []
        size = 0
        for name, x in theta.items():
            if row.local and self.fast and x.numel() > most and _contiguous(x, update.state[name]):
                yield from ([part] for part in _pieces(update, storage, name))
                continue
            if found and size + x.numel() > most:
                yield found
                found, size = [], 0
            found.append(_whole(update, storage, name, 0))
            size += x.numel()
        if found:
            yield found


def _whole(update: Update, storage: Storage, name: str, start: int) -> Part:
    state = update.state[name]
    kept = {key: state[key] for key in storage.keys}
    rest = {key: x for key, x in state.items() if key not in kept}
    return Part(name, name, update.theta[name], kept, rest, update.evidence[name], start)


def _contiguous(theta: torch.Tensor, state: Tensors) -> bool:
    return theta.is_contiguous() and all(x.is_contiguous() for x in state.values())


def _pieces(update: Update, storage: Storage, name: str) -> Iterator[Part]:
    """A parameter whose memory is contiguous, as its state's is, in pieces with one axis."""
    whole = _whole(update, storage, name, 0)
    flat = [{key: x.reshape(-1) for key, x in a.items()} for a in (whole.kept, whole.rest, whole.evidence)]
    theta = whole.theta.view(-1)
    for start, end in pieces(theta.numel(), PIECE):
        kept, rest, evidence = ({key: x[start:end] for key, x in a.items()} for a in flat)
        yield Part(name, f"{name}[{start}:{end}]", theta[start:end], kept, rest, evidence, start)
