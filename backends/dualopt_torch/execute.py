"""How torch carries out one update of a group, in place on the user's parameters.

exact    the core's recursion in the exact namespace, eagerly
fast     elementwise rows on CUDA: one launch for all tensors of a group (`triton`), where Triton is installed.
         Elsewhere, from 2**20 elements on: one dynamic 1-D kernel per rule, compiled from the core's own `step`,
         one call per tensor, scalars in one persistent tensor, so neither schedules, varying Δτ nor new shapes
         recompile it. Everything else eagerly in the fast namespace.

Half-precision parameters are widened to float32, and rounded once when they are stored.
"""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any

import torch

from dualopt.executor import Execute, executor
from dualopt.planned import PlannedGroup
from dualopt.recursion import Part, Row, step

from .namespace import COMPILED, EXACT, FAST
from .triton import installed
from .triton.multi_tensor import MultiTensor

Tensors = dict[str, torch.Tensor]
Kernel = Callable[..., None]
# (group, θ, state, evidence, k), keyed by parameter name -> the names that it has updated, in place
Route = Callable[
    [PlannedGroup, Tensors, Mapping[str, Tensors], Mapping[str, Tensors], Mapping[str, Mapping[str, float]]],
    Collection[str],
]

COMPILE_FROM = 2**20  # elements of a group; below, compiling costs more than it saves
KERNEL_FROM = 64  # elements of a tensor; sizes 0 and 1 would specialise the dynamic shape


def working(x: torch.Tensor) -> torch.Tensor:
    """x in the type that it is computed in: float32, or float64 for float64."""
    return x if x.dtype == torch.float64 else x.to(torch.float32)


def recorded(gradients: Mapping[str, torch.Tensor]) -> bool:
    """True while operations are being recorded rather than carried out."""
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        return True
    g = next(iter(gradients.values()), None)
    fake = torch._subclasses.fake_tensor.FakeTensor
    return g is not None and (isinstance(g, fake) or torch._is_functional_tensor(g) or torch.compiler.is_compiling())


def compiler() -> str | None:
    """The path of the C++ compiler that torch's own needs; None if there is none here."""
    if sys.platform == "win32":
        return None
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)


def can_compile() -> bool:
    """True if torch's compiler has what it needs here."""
    return compiler() is not None


@lru_cache(maxsize=256)
def kernel(parts: tuple[Part, ...], name: str, keys: tuple[str, ...], measured: tuple[str, ...]) -> Kernel:
    """One compiled in-place update for all rows with these parts: (θ, k, *evidence, *state), 1-D, of one length."""
    row = Row(name, *parts)  # type: ignore[arg-type]
    scalars = tuple(row.needs)

    def update(theta: torch.Tensor, k: torch.Tensor, *arrays: torch.Tensor) -> None:
        evidence = {key: working(x) for key, x in zip(measured, arrays, strict=False)}
        kept = dict(zip(keys, arrays[len(measured) :], strict=True))
        named = dict(zip(scalars, k.unbind(), strict=True))
        moved, s = step(COMPILED, row, working(theta), kept, evidence, named)
        theta.copy_(moved)
        for key, old in kept.items():
            old.copy_(s[key])

    # The compiler keeps one cache per code object; a code object per rule keeps the rules apart.
    own = update.__code__.replace(co_name=f"update_{name}")
    distinct = types.FunctionType(own, update.__globals__, own.co_name, None, update.__closure__)
    return torch.compile(distinct, dynamic=True, fullgraph=True)


def flat(x: torch.Tensor) -> torch.Tensor:
    """A 1-D alias of a contiguous tensor that is no view: views carry their base into the compiler's guards."""
    alias = torch.empty(0, dtype=x.dtype, device=x.device)
    return alias.set_(x.untyped_storage(), x.storage_offset(), (x.numel(),), (1,))


def _plain_storage(x: torch.Tensor, state: Tensors) -> bool:
    """True if the k-th element in memory is the same one in a parameter and in all of its state."""
    return x.is_contiguous() and all(s.is_contiguous() for s in state.values())


class Executor:
    """Carries out updates in one tier, and owns the scalar tensors.

    A group goes through the routes in order; each updates the parameters that it is for, and the last one all
    that are left.
    """

    def __init__(self, tier: str, compiled: bool | None = None) -> None:
        self.tier = tier
        self.compiled = compiled if compiled is not None else (None if can_compile() else False)
        self._plain = executor(EXACT if tier == "exact" else FAST)
        self._scalars: dict[tuple[Any, ...], torch.Tensor] = {}
        launched = (MultiTensor(),) if tier == "fast" and torch.cuda.is_available() and installed() else ()
        self._routes: tuple[Route, ...] = (*launched, self._kernels, self._recursion)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made from; scalar tensors and kernels are made anew."""
        return {"tier": self.tier, "compiled": self.compiled}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__init__(saved["tier"], saved["compiled"])  # type: ignore[misc]

    def scalar_tensor(self, values: Mapping[str, float], slot: tuple[Any, ...], like: torch.Tensor) -> torch.Tensor:
        """The persistent tensor of one set of scalars, refilled; its address never changes."""
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        key = (*slot, dtype, like.device)
        filled = torch.tensor(list(values.values()), dtype=dtype)
        if key not in self._scalars:
            self._scalars[key] = filled.to(like.device)
            torch._dynamo.mark_static(self._scalars[key], 0)
        else:
            self._scalars[key].copy_(filled, non_blocking=True)
        return self._scalars[key]

    def __call__(
        self,
        planned: PlannedGroup,
        theta: Tensors,
        state: Mapping[str, Tensors],
        evidence: Mapping[str, Tensors],
        k: Mapping[str, Mapping[str, float]],
    ) -> None:
        """One update of a group, in place on `theta` and `state`."""
        rest = dict(theta)
        for route in self._routes:
            done = route(planned, rest, state, evidence, k)
            rest = {name: x for name, x in rest.items() if name not in done}
            if not rest:
                return

    def _kernels(
        self,
        planned: PlannedGroup,
        theta: Tensors,
        state: Mapping[str, Tensors],
        evidence: Mapping[str, Tensors],
        k: Mapping[str, Mapping[str, float]],
    ) -> Collection[str]:
        """Elementwise rows of the fast tier by compiled kernels."""
        if self.tier != "fast" or self.compiled is False or not planned.row.local:
            return ()
        big = sum(x.numel() for x in theta.values()) >= COMPILE_FROM
        fits = {n: x for n, x in theta.items() if x.numel() >= KERNEL_FROM and _plain_storage(x, state[n])}
        if not (self.compiled or big):
            return ()
        self._launch(planned, fits, state, evidence, k)
        return fits

    def _recursion(
        self,
        planned: PlannedGroup,
        theta: Tensors,
        state: Mapping[str, Tensors],
        evidence: Mapping[str, Tensors],
        k: Mapping[str, Mapping[str, float]],
    ) -> Collection[str]:
        """Everything, by the core's recursion."""
        moved = self._plain(
            planned,
            {n: working(x) for n, x in theta.items()},
            {n: state[n] for n in theta},
            {n: {key: working(x) for key, x in evidence[n].items()} for n in theta},
            {n: k[n] for n in theta},
        )
        for name, (new, s) in moved.items():
            theta[name].copy_(new)
            for key, value in s.items():
                state[name][key].copy_(value)
        return theta

    def _launch(
        self,
        planned: PlannedGroup,
        theta: Tensors,
        state: Mapping[str, Tensors],
        evidence: Mapping[str, Tensors],
        k: Mapping[str, Mapping[str, float]],
    ) -> None:
        """The compiled route: one kernel call per tensor."""
        slots: dict[tuple[int, torch.device], torch.Tensor] = {}
        for name, x in theta.items():
            values = k[name]
            at = id(values), x.device
            if at not in slots:
                slots[at] = self.scalar_tensor(values, (planned.group.name, len(slots)), x)
            keys, measured = tuple(state[name]), tuple(evidence[name])
            update = kernel(planned.row.parts, planned.row.name, keys, measured)
            arrays = [flat(evidence[name][key].contiguous()) for key in measured]
            update(flat(x), slots[at], *arrays, *(flat(state[name][key]) for key in keys))
            torch.autograd.graph.increment_version(x)  # as every in-place operation does


def functional(tier: str) -> Execute:
    """The same as a function that returns new arrays: what `replay` drives. A fast tier always compiles."""
    run = Executor(tier, compiled=can_compile() or False if tier == "fast" else False)

    def execute(
        planned: PlannedGroup, theta: Any, state: Any, evidence: Any, k: Any
    ) -> dict[str, tuple[torch.Tensor, Tensors]]:
        new = {name: x.clone() for name, x in theta.items()}
        kept = {name: {key: x.clone() for key, x in s.items()} for name, s in state.items()}
        run(planned, new, kept, evidence, k)
        return {name: (new[name], kept[name]) for name in new}

    return execute
