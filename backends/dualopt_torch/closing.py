"""Float32 tensors stored in the type of their parameters, as a `storage` says: the last line of an update.

Long ones are stored by one kernel for each storage and type, where kernels are compiled; short ones are joined first,
and stored at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from dualopt.buckets import SMALL, pieces
from dualopt.recursion import Namespace
from dualopt.rounding import WORD, Storage, draws, first, key_of_parameter, placed

from .casts import casts
from .elementwise import COMPILE_FROM
from .kernels import Kernel, inductor
from .namespace import COMPILED, FAST
from .placing import flat
from .route import OnDevice, Tensors

Scalars = Mapping[str, Any]  # floats, or `OnDevice`


@dataclass(frozen=True)
class Closed:
    """What is to be stored of a parameter, from the place `start` of its elements.

    Attributes:
        x: float32.
        theta, kept: where it is stored, with the state of the storage.
    """

    name: str
    start: int
    x: torch.Tensor
    theta: torch.Tensor
    kept: Tensors


class Closing:
    """Stores tensors.

    Args:
        compiled: force kernels on or off; None: on for long tensors.
        scalar_tensor: that of the executor.
    """

    def __init__(self, compiled: bool | None, scalar_tensor: Callable[..., torch.Tensor]) -> None:
        self.compiled = compiled
        self._scalar_tensor = scalar_tensor
        self._at: dict[tuple[str, int, torch.device], torch.Tensor] = {}
        self._places: dict[tuple[str, int, int, torch.device], torch.Tensor] = {}

    def __call__(self, storage: Storage, slot: tuple[object, ...], k: Scalars, parts: Sequence[Closed]) -> None:
        """Store tensors of one device, one type and one set of scalars, whose word has its place in `slot`."""
        if not storage.random and not storage.narrow:  # θ is x, to nearest
            torch._foreach_copy_([part.theta for part in parts], [part.x for part in parts])
            return
        word = self._word(k, slot, parts[0].x) if storage.random else parts[0].x  # which is not read
        for part in parts:
            if part.x.numel() > SMALL:
                self._long(storage, part, word)
        self._short(storage, [part for part in parts if 0 < part.x.numel() <= SMALL], word)

    def _word(self, k: Scalars, slot: tuple[object, ...], like: torch.Tensor) -> torch.Tensor:
        word = {name: k[name] for name in WORD}
        return torch.stack(list(word.values())) if isinstance(k, OnDevice) else self._scalar_tensor(word, slot, like)

    def _long(self, storage: Storage, part: Closed, word: torch.Tensor) -> None:
        at = part.name, part.start, part.x.device
        if at not in self._at:
            numbers = first(part.start), *key_of_parameter(part.name)
            self._at[at] = torch.tensor(numbers, dtype=torch.int32, device=part.x.device)
        arrays = [part.x, part.theta, *part.kept.values()]
        if not all(x.is_contiguous() for x in arrays):
            _store(storage, FAST, self._at[at], word, *arrays)
            return
        arrays = [x.view(-1) for x in arrays]
        compiles = part.x.numel() >= COMPILE_FROM if self.compiled is None else self.compiled
        if storage.random and compiles:
            _kernel(storage, tuple((x.dtype, x.device) for x in arrays))(self._at[at], word, *arrays)
            torch.autograd.graph.increment_version(
                [part.theta, *part.kept.values()]
            )  # as every in-place operation does
        elif storage.random:
            _store(storage, FAST, self._at[at], word, *arrays)
        else:  # compilers leave out a cast to a narrow type and back, which is what Kahan's c is made of
            for start, end in pieces(part.x.numel()):
                _store(storage, FAST, self._at[at], word, *(x[start:end] for x in arrays))

    def _short(self, storage: Storage, parts: Sequence[Closed], word: torch.Tensor) -> None:
        if not parts:
            return
        sizes = [part.x.numel() for part in parts]
        places = flat([self._placed(part) for part in parts]) if storage.random else None
        x = flat([part.x.reshape(-1) for part in parts])
        stored = [[part.theta, *part.kept.values()] for part in parts]
        found = _rounded(storage, FAST, x, parts[0].theta, places, word)
        for tensors, new in zip(zip(*stored, strict=True), found, strict=True):
            parts_of = zip(torch.split(new, sizes), tensors, strict=True)
            torch._foreach_copy_(list(tensors), [piece.reshape(old.shape) for piece, old in parts_of])

    def _placed(self, part: Closed) -> torch.Tensor:
        """The places of a short part: made once for each, whichever others it is stored with."""
        at = part.name, part.start, part.x.numel(), part.x.device
        if at not in self._places:
            index = casts(part.x.device).index(first(part.start), part.x.numel())
            self._places[at] = placed(index, key_of_parameter(part.name))
        return self._places[at]


def _rounded(
    storage: Storage,
    xp: Namespace,
    x: torch.Tensor,
    like: torch.Tensor,
    places: torch.Tensor | None,
    word: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """(θ+, *its state) of x; `places` has the shape of x."""
    here = casts(x.device, xp)
    drawn = None if places is None else draws(places, here.word(*word.unbind()))
    theta, beside = storage.closed(here, x, like, drawn)
    return theta, *(beside[key] for key in storage.keys)


def _store(
    storage: Storage, xp: Namespace, at: torch.Tensor, word: torch.Tensor, x: torch.Tensor, *stored: torch.Tensor
) -> None:
    """In place on θ and its state; `at` is where x begins, and the key of its parameter."""
    places = None
    if storage.random:
        start, *key = at.unbind()
        places = placed(casts(x.device).index(0, x.numel()) + start, key).reshape(x.shape)
    for old, new in zip(stored, _rounded(storage, xp, x, stored[0], places, word), strict=True):
        old.copy_(new)


@lru_cache(maxsize=64)
def _kernel(storage: Storage, like: tuple[tuple[torch.dtype, torch.device], ...]) -> Kernel:
    """`_store` for arrays (x, θ, *state) of these types with one axis, compiled."""

    def store(at: torch.Tensor, word: torch.Tensor, *arrays: torch.Tensor) -> tuple[()]:
        _store(storage, COMPILED, at, word, *arrays)
        return ()

    arrays = [torch.empty(COMPILE_FROM, dtype=dtype, device=device) for dtype, device in like]
    at = torch.empty(3, dtype=torch.int32, device=arrays[0].device)
    return inductor(store, at, torch.empty(2, device=arrays[0].device), *arrays)
