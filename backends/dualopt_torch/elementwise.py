"""Elementwise rows of the fast tier: one call of a rule's kernel for every long parameter, and one for many short ones.

Short parameters are copied end to end, updated as one array and copied back. Their state needs no copies: `placed`
lays the state of parameters that begin together end to end for good, and `state[p]` holds views of it. Where not all
of them have gradients, or they have not lived the same, a call covers a run of neighbours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from operator import is_
from typing import Any

import torch

from dualopt.buckets import JOINED

from .kernels import Kernel, compiled
from .placing import buckets, dense, flat, run_of, views
from .registers import eager
from .route import Tensors, Update

States = Mapping[str, Tensors]
_address = torch.Tensor.data_ptr

COMPILE_FROM = 2**20  # elements of a group; below, compiling costs more than it saves
MOST_RUNS = 8  # of parameters that lie end to end; beyond, and beyond an eighth of them, short ones are joined
LEAST = 2  # elements of an array that a kernel takes


class Elementwise:
    """The route; `tier`, `compiled` and `flat_storage` as those of the executor."""

    def __init__(self, tier: str, compiled: bool | None, scalar_tensor: Any, *, flat_storage: bool = False) -> None:
        self.tier, self.compiled, self.flat_storage = tier, compiled, flat_storage
        self._scalar_tensor = scalar_tensor
        self._laid: dict[str, Laid] = {}

    def forget(self, group: str) -> None:
        """Let go of the parameters of a group that were widened for one update."""
        self._laid.pop(group, None)

    def __call__(self, update: Update) -> Collection[str]:
        """Update every parameter whose elements lie in memory as those of its state do."""
        group, theta = update.planned.group.name, update.theta
        if self.tier != "fast" or not update.planned.row.local:
            return ()
        laid = self._laid.get(group)
        if laid is None or laid.theta is not theta:
            laid = self._laid[group] = Laid(update, self.compiled, flat_storage=self.flat_storage)
        calls = Calls(update, laid, self._scalar_tensor)
        done: list[str] = []
        for stretch in laid.stretches:
            if stretch(calls):
                done += stretch.names
        for bucket in laid.buckets if len(done) < len(theta) else ():
            if bucket.names[0] not in done and bucket(calls):
                done += bucket.names
        torch.autograd.graph.increment_version([theta[name] for name in done])  # as every in-place operation does
        return done


class Laid:
    """What stays from update to update of a group: its buckets and their kernels."""

    def __init__(self, update: Update, compiles: bool | None, *, flat_storage: bool) -> None:
        self.theta, self.row = update.theta, update.planned.row
        sizes = sum(x.numel() for x in self.theta.values())
        self.compiles = compiles if compiles is not None else sizes >= COMPILE_FROM
        whole = buckets(self.theta, whole=True) if flat_storage else ()
        of = [{name: self.theta[name] for name in names} for names in whole] if flat_storage else [self.theta]
        cut = chain.from_iterable(map(buckets, of))  # each of one stretch
        self.buckets = [Long(names[0]) if len(names) == 1 else Short(names) for names in cut]
        self.stretches = [Stretch(names) for names in whole]
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
            whole = dense(x) and all(s.stride() == x.stride() for s in kept.values())
            self._views = tuple(run_of(a, 0, x.numel()) for a in (x, *kept.values())) if whole else ()
        if not self._views:
            return False
        theta, *state = self._views
        measured = [
            e if e.stride() == self._strides else torch.empty_like(x, dtype=e.dtype).copy_(e) for e in given.values()
        ]
        arrays = (theta, *(run_of(e, 0, x.numel()) for e in measured), *state)
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
        cohorts = _cohorts(k)
        tensors = [update.theta[name] for name in names]
        at = *map(_address, kept), *cohorts
        if at != self._at:
            self._runs = _runs(names, update, cohorts) if all(s.is_contiguous() for s in kept) else []
            self._joint = calls.laid.buffer(tensors)
            self._pieces, self._at = views(self._joint, tensors), at
        if not self._runs:
            return False
        here = flat(tensors, self._joint)
        found = [flat([g[key] for g in given]) for key in measured]
        for run in self._runs:
            arrays = (here[run.part], *(e[run.part] for e in found), *run.state)
            calls(arrays, keys, measured, update.k[run.first])
        torch._foreach_copy_(tensors, self._pieces)
        return True


class Stretch:
    """Parameters that lie end to end, as their gradients and their state do (`flat`), in runs of such neighbours."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._held: tuple[object, ...] = ()  # of the update before: where the tensors are from,
        self._arrays: list[tuple[torch.Tensor, ...]] = []  # the tensors, θ, evidence and state of each parameter,
        self._at: list[int] = []  # and their addresses
        self._runs: list[tuple[str, tuple[torch.Tensor, ...]]] = []

    def __call__(self, calls: Calls) -> bool:
        """Update them; False, and nothing happens, where there are many runs, or arrays that are not dense."""
        update, names, k = calls.update, self.names, calls.update.k
        first = update.evidence[names[0]], update.state[names[0]]
        held = update.theta, update.evidence, update.state
        if len(held) != len(self._held) or not all(map(is_, held, self._held)):
            if any(update.evidence[name].keys() != first[0].keys() for name in names):
                return False
            self._arrays = [
                (update.theta[name], *update.evidence[name].values(), *update.state[name].values()) for name in names
            ]
            self._held, self._at = held, []
        alike = all(map(is_, map(k.__getitem__, names), repeat(k[names[0]])))
        cohorts = [0] * len(names) if alike else _cohorts([k[name] for name in names])
        at = [*map(_address, chain.from_iterable(self._arrays)), *cohorts]
        if at != self._at:
            self._at, self._runs = at, self._found(self._arrays, cohorts)
        if not self._runs:
            self._held, self._arrays = (), []  # gradients are not kept alive
        for name, joint in self._runs:
            calls(joint, tuple(first[1]), tuple(first[0]), k[name])
        return bool(self._runs)

    def _found(
        self, arrays: list[tuple[torch.Tensor, ...]], cohorts: list[int]
    ) -> list[tuple[str, tuple[torch.Tensor, ...]]]:
        """The name of the first of each run, and its arrays; none where a call each is no gain."""
        kinds = {tuple(x.dtype for x in own) for own in arrays}
        if len(kinds) > 1 or not all(x.is_contiguous() for own in arrays for x in own):
            return []
        runs: list[tuple[int, int]] = []  # the first of them, and how many elements
        follows: list[int] = []
        for i, own in enumerate(arrays):
            starts = [*map(_address, own)]
            if i and starts == follows and cohorts[i] == cohorts[i - 1]:
                runs[-1] = runs[-1][0], runs[-1][1] + own[0].numel()
            else:
                runs.append((i, own[0].numel()))
            follows = [start + x.numel() * x.element_size() for start, x in zip(starts, own, strict=True)]
        if len(runs) > max(MOST_RUNS, len(arrays) // MOST_RUNS):
            return []
        return [(self.names[i], tuple(run_of(x, 0, size) for x in arrays[i])) for i, size in runs]


def _cohorts(k: list[Mapping[str, float]]) -> list[int]:
    """For each the place of the first that has its scalars."""
    places = {id(own): i for i, own in reversed([*enumerate(k)])}
    return [places[id(own)] for own in k] if len(places) > 1 else [0] * len(k)


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
        found.append(Run(first, slice(start, end), tuple(run_of(s, 0, end - start) for s in state[first].values())))

    for name, own in zip(names, cohorts, strict=True):
        starts = [s.data_ptr() for s in state[name].values()]
        if end > start and (own != cohort or starts != follows):
            close()
            first, start, cohort = name, end, own
        end += theta[name].numel()
        follows = [p + s.numel() * s.element_size() for p, s in zip(starts, state[name].values(), strict=True)]
    close()
    return found
