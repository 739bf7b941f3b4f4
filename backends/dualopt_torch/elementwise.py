"""Elementwise rows of the fast tier: one call of a rule's kernel for every long parameter, and one for many short ones.

Short parameters are copied end to end, updated as one array and copied back. Their state needs no copies: `placed`
lays the state of parameters that begin together end to end for good, and `state[p]` holds views of it. Where not all
of them have gradients, or they have not lived the same, a call covers a run of neighbours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch

from dualopt.buckets import joined
from dualopt.planned import PlannedGroup

from .kernels import blocked, compiled
from .route import Tensors, Update

States = Mapping[str, Tensors]
Values = Mapping[str, Mapping[str, float]]

COMPILE_FROM = 2**20  # elements of a group; below, compiling costs more than it saves
LEAST = 2  # elements of an array that a kernel takes


def placed(planned: PlannedGroup, fresh: Mapping[str, Tensors], like: Tensors) -> dict[str, Tensors]:
    """The same state where elementwise updates find it: in the strides of θ, that of short parameters end to end."""
    if not planned.row.local:
        return {name: {key: x.contiguous() for key, x in s.items()} for name, s in fresh.items()}
    out = {}
    for names in _buckets({name: like[name] for name in fresh}):
        if len(names) == 1:
            p = like[names[0]]
            out[names[0]] = {key: torch.empty_like(p, dtype=x.dtype).copy_(x) for key, x in fresh[names[0]].items()}
            continue
        parts = {key: flat([fresh[name][key] for name in names]) for key in fresh[names[0]]}
        views = {key: _views(x, [like[name] for name in names]) for key, x in parts.items()}
        out |= {name: {key: each[i] for key, each in views.items()} for i, name in enumerate(names)}
    return {name: out.get(name, s) for name, s in fresh.items()}


def _buckets(theta: Tensors) -> tuple[tuple[str, ...], ...]:
    kinds = {name: (x.dtype, x.device) for name, x in theta.items()}
    return joined({name: x.numel() for name, x in theta.items()}, kinds)


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    """All elements end to end, each tensor in the order of its indices; a single tensor is not copied."""
    if len(tensors) == 1:
        return tensors[0]
    found: torch.Tensor = torch._utils._flatten_dense_tensors(tensors)  # type: ignore[no-untyped-call]
    return found


def _views(joint: torch.Tensor, like: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Pieces of `joint` in the shapes of `like`."""
    found: tuple[torch.Tensor, ...] = torch._utils._unflatten_dense_tensors(joint, like)  # type: ignore[no-untyped-call]
    return found


def _run(x: torch.Tensor, start: int, size: int) -> torch.Tensor:
    """`size` elements of the memory of x, from `start` elements behind its first."""
    return torch.as_strided(x, (size,), (1,), x.storage_offset() + start)


def _dense(x: torch.Tensor) -> bool:
    """True if the elements of x fill its stretch of memory."""
    return x.is_contiguous() or torch.empty_like(x, device="meta").stride() == x.stride()


class Elementwise:
    """The route; `tier` and `compiled` as those of the executor."""

    def __init__(self, tier: str, compiled: bool | None, scalar_tensor: Any) -> None:
        self.tier, self.compiled = tier, compiled
        self._scalar_tensor = scalar_tensor
        self._buckets: dict[str, tuple[Tensors, bool, tuple[tuple[str, ...], ...]]] = {}

    def __call__(self, update: Update) -> Collection[str]:
        """Update every parameter whose elements lie in memory as those of its state do."""
        group, theta = update.planned.group.name, update.theta
        if self.tier != "fast" or not update.planned.row.local:
            return ()
        if group not in self._buckets or self._buckets[group][0] is not theta:
            big = sum(x.numel() for x in theta.values()) >= COMPILE_FROM
            self._buckets[group] = theta, big, _buckets(theta)
        _, big, buckets = self._buckets[group]
        call = Calls(update, self.compiled if self.compiled is not None else big, self._scalar_tensor)
        done: list[str] = []
        for names in buckets:
            if call.long(names[0]) if len(names) == 1 else call.short(names):
                done += names
        return done


class Calls:
    """The kernel calls of one update of a group. They share the tensors of equal scalars."""

    def __init__(self, update: Update, compiles: bool, scalar_tensor: Any) -> None:
        self.update, self.compiles = update, compiles
        self._scalar_tensor = scalar_tensor
        self._slots: dict[tuple[int, torch.device], torch.Tensor] = {}

    def long(self, name: str) -> bool:
        """Update one parameter; False, and nothing happens, where its memory is not one dense stretch."""
        x, kept, given = self.update.theta[name], self.update.state[name], self.update.evidence[name]
        if not (_dense(x) and all(s.stride() == x.stride() for s in kept.values())):
            return False
        measured = [
            e if e.stride() == x.stride() else torch.empty_like(x, dtype=e.dtype).copy_(e) for e in given.values()
        ]
        arrays = tuple(_run(a, 0, x.numel()) for a in (x, *measured, *kept.values()))
        self._call(arrays, tuple(kept), tuple(given), self.update.k[name])
        torch.autograd.graph.increment_version(x)  # as every in-place operation does
        return True

    def short(self, names: tuple[str, ...]) -> bool:
        """Update some that are gathered into one array; False, and nothing happens, where they do not match."""
        theta, state, evidence = self.update.theta, self.update.state, self.update.evidence
        keys, measured = tuple(state[names[0]]), tuple(evidence[names[0]])
        if any(tuple(evidence[name]) != measured for name in names):
            return False
        if not all(s.is_contiguous() for name in names for s in state[name].values()):
            return False
        tensors = [theta[name] for name in names]
        here = flat(tensors)
        found = [flat([evidence[name][key] for name in names]) for key in measured]
        start = 0
        for first, size in _runs(names, theta, state, self.update.k):
            arrays = (
                here[start : start + size],
                *(e[start : start + size] for e in found),
                *(_run(state[first][key], 0, size) for key in keys),
            )
            self._call(arrays, keys, measured, self.update.k[first])
            start += size
        torch._foreach_copy_(tensors, _views(here, tensors))
        return True

    def _call(
        self, arrays: tuple[torch.Tensor, ...], keys: tuple[str, ...], measured: tuple[str, ...], k: Mapping[str, float]
    ) -> None:
        """One kernel call on (θ, *evidence, *state)."""
        planned, (theta, *others) = self.update.planned, arrays
        if not self.compiles or theta.numel() < LEAST:
            blocked(planned.row, keys, measured)(theta, k, *others)
            return
        at = id(k), theta.device
        if at not in self._slots:
            self._slots[at] = self._scalar_tensor(k, (planned.group.name, len(self._slots)), theta)
        compiled(planned.row, keys, measured, arrays)(theta, self._slots[at], *others)


def _runs(names: tuple[str, ...], theta: Tensors, state: States, k: Values) -> Iterator[tuple[str, int]]:
    """(first name, elements) of consecutive names with one set of scalars and state that lies end to end."""
    first, size = names[0], 0
    ends: list[int] = []
    for name in names:
        starts = [s.data_ptr() for s in state[name].values()]
        if size and (k[name] is not k[first] or starts != ends):
            yield first, size
            first, size = name, 0
        size += theta[name].numel()
        ends = [p + s.numel() * s.element_size() for p, s in zip(starts, state[name].values(), strict=True)]
    yield first, size
