"""Elementwise rows of the fast tier: one call of a rule's kernel for every long parameter, and one for many short ones.

Short parameters are copied end to end, updated as one array and copied back. Their state needs no copies: `placed`
lays the state of parameters that begin together end to end for good, and `state[p]` holds views of it. Where not all
of them have gradients, or they have not lived the same, a call covers a run of neighbours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dualopt.buckets import JOINED, joined
from dualopt.planned import PlannedGroup

from .kernels import Kernel, compiled
from .registers import eager
from .route import Tensors, Update

States = Mapping[str, Tensors]
_address = torch.Tensor.data_ptr

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


def flat(tensors: list[torch.Tensor], out: torch.Tensor | None = None) -> torch.Tensor:
    """All elements end to end, each tensor in the order of its indices; a single tensor is not copied."""
    if len(tensors) == 1 and out is None:
        return tensors[0]
    return torch.cat([x if x.ndim == 1 else x.reshape(-1) for x in tensors], out=out)


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
        self._laid: dict[str, Laid] = {}

    def __call__(self, update: Update) -> Collection[str]:
        """Update every parameter whose elements lie in memory as those of its state do."""
        group, theta = update.planned.group.name, update.theta
        if self.tier != "fast" or not update.planned.row.local:
            return ()
        laid = self._laid.get(group)
        if laid is None or laid.theta is not theta:
            laid = self._laid[group] = Laid(update, self.compiled)
        calls = Calls(update, laid, self._scalar_tensor)
        done: list[str] = []
        for bucket in laid.buckets:
            if bucket(calls):
                done += bucket.names
        torch.autograd.graph.increment_version([theta[name] for name in done])  # as every in-place operation does
        return done


class Laid:
    """What stays from update to update of a group: its buckets and their kernels."""

    def __init__(self, update: Update, compiles: bool | None) -> None:
        self.theta, self.row = update.theta, update.planned.row
        sizes = sum(x.numel() for x in self.theta.values())
        self.compiles = compiles if compiles is not None else sizes >= COMPILE_FROM
        self.buckets = [Long(names[0]) if len(names) == 1 else Short(names) for names in _buckets(self.theta)]
        self._kernels: dict[tuple[Any, ...], Kernel] = {}
        self._buffers: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}

    def buffer(self, tensors: list[torch.Tensor]) -> torch.Tensor:
        """An array for the elements of all of these, in memory that buckets use one after the other."""
        at = tensors[0].dtype, tensors[0].device
        if at not in self._buffers:
            self._buffers[at] = torch.empty(JOINED, dtype=at[0], device=at[1])
        return self._buffers[at][: sum(x.numel() for x in tensors)]

    def kernel(
        self, arrays: tuple[torch.Tensor, ...], keys: tuple[str, ...], measured: tuple[str, ...], compiles: bool
    ) -> Kernel:
        """For arrays (θ, *evidence, *state) like these."""
        kind = (compiles, arrays[0].device, keys, measured, *[x.dtype for x in arrays])
        if kind not in self._kernels:
            make = compiled if compiles else eager
            self._kernels[kind] = make(self.row, keys, measured, arrays)
        return self._kernels[kind]


class Calls:
    """The kernel calls of one update of a group. They share the tensors of equal scalars."""

    def __init__(self, update: Update, laid: Laid, scalar_tensor: Any) -> None:
        self.update, self.laid = update, laid
        self._scalar_tensor = scalar_tensor
        self._slots: dict[tuple[int, torch.device], torch.Tensor] = {}

    def __call__(
        self, arrays: tuple[torch.Tensor, ...], keys: tuple[str, ...], measured: tuple[str, ...], k: Mapping[str, float]
    ) -> None:
        """One kernel call on (θ, *evidence, *state)."""
        theta, *others = arrays
        compiles = self.laid.compiles and theta.numel() >= LEAST
        kernel = self.laid.kernel(arrays, keys, measured, compiles)
        kernel(theta, self._scalars(k, theta) if compiles else k, *others)

    def _scalars(self, k: Mapping[str, float], theta: torch.Tensor) -> torch.Tensor:
        at = id(k), theta.device
        if at not in self._slots:
            self._slots[at] = self._scalar_tensor(k, (self.update.planned.group.name, len(self._slots)), theta)
        return self._slots[at]


class Long:
    """One parameter, and views of its memory and that of its state, for as long as these stay where they are."""

    def __init__(self, name: str) -> None:
        self.names = (name,)
        self._at: object = None
        self._strides: tuple[int, ...] = ()
        self._views: tuple[torch.Tensor, ...] = ()  # θ and state; empty if the memory of one is no dense stretch

    def __call__(self, calls: Calls) -> bool:
        """Update it; False, and nothing happens, where its memory is not one dense stretch."""
        (name,) = self.names
        x, kept, given = calls.update.theta[name], calls.update.state[name], calls.update.evidence[name]
        at = x.stride(), *map(_address, (x, *kept.values()))
        if at != self._at:
            self._at, self._strides = at, x.stride()
            whole = _dense(x) and all(s.stride() == x.stride() for s in kept.values())
            self._views = tuple(_run(a, 0, x.numel()) for a in (x, *kept.values())) if whole else ()
        if not self._views:
            return False
        theta, *state = self._views
        measured = [
            e if e.stride() == self._strides else torch.empty_like(x, dtype=e.dtype).copy_(e) for e in given.values()
        ]
        arrays = (theta, *(_run(e, 0, x.numel()) for e in measured), *state)
        calls(arrays, tuple(kept), tuple(given), calls.update.k[name])
        return True


class Short:
    """Some parameters that are gathered into one array, and the runs in which their state lies end to end."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._at: object = None
        self._runs: list[Run] = []
        self._joint = torch.empty(0)  # θ of all of them,
        self._pieces: tuple[torch.Tensor, ...] = ()  # and views of each

    def __call__(self, calls: Calls) -> bool:
        """Update them; False, and nothing happens, where they do not match."""
        names, update = self.names, calls.update
        given, k = [update.evidence[name] for name in names], [update.k[name] for name in names]
        keys, measured = tuple(update.state[names[0]]), tuple(given[0])
        if any(g.keys() != given[0].keys() for g in given):
            return False
        kept = [s for name in names for s in update.state[name].values()]
        places = {id(own): i for i, own in reversed([*enumerate(k)])}
        cohorts = [places[id(own)] for own in k] if len(places) > 1 else [0] * len(k)
        tensors = [update.theta[name] for name in names]
        at = *map(_address, kept), *cohorts
        if at != self._at:
            self._runs = _runs(names, update, cohorts) if all(s.is_contiguous() for s in kept) else []
            self._joint = calls.laid.buffer(tensors)
            self._pieces, self._at = _views(self._joint, tensors), at
        if not self._runs:
            return False
        here = flat(tensors, self._joint)
        found = [flat([g[key] for g in given]) for key in measured]
        for run in self._runs:
            arrays = (here[run.part], *(e[run.part] for e in found), *run.state)
            calls(arrays, keys, measured, update.k[run.first])
        torch._foreach_copy_(tensors, self._pieces)
        return True


@dataclass(frozen=True)
class Run:
    """Consecutive parameters with one set of scalars and state that lies end to end: where they stand in the array of
    all, and that state."""

    first: str
    part: slice
    state: tuple[torch.Tensor, ...]


def _runs(names: tuple[str, ...], update: Update, cohorts: list[int]) -> list[Run]:
    theta, state = update.theta, update.state
    found: list[Run] = []
    first, start, end, cohort = names[0], 0, 0, cohorts[0]
    follows: list[int] = []

    def close() -> None:
        found.append(Run(first, slice(start, end), tuple(_run(s, 0, end - start) for s in state[first].values())))

    for name, own in zip(names, cohorts, strict=True):
        starts = [s.data_ptr() for s in state[name].values()]
        if end > start and (own != cohort or starts != follows):
            close()
            first, start, cohort = name, end, own
        end += theta[name].numel()
        follows = [p + s.numel() * s.element_size() for p, s in zip(starts, state[name].values(), strict=True)]
    close()
    return found
