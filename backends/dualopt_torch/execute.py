"""How torch carries out one update of a group, in place on the user's parameters.

exact    the core's recursion in the exact namespace, eagerly
fast     elementwise rows on CUDA: one launch for all tensors of a group (`triton`), where Triton is installed.
         Elsewhere as arrays of one dimension (`elementwise`), from 2**20 elements of a group by one compiled kernel
         per rule (`kernels`), scalars in one persistent tensor, so neither schedules, varying Δτ nor new shapes
         recompile it. Rows with a polar factor as stacks of matrices (`spectral`). Everything else eagerly in the
         fast namespace.

Half-precision parameters are widened to float32, and rounded once when they are stored: to nearest here, and by
`storing` where their group says how.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from dualopt.executor import Execute, executor
from dualopt.planned import PlannedGroup

from .closing import Closing
from .elementwise import Elementwise
from .kernels import working
from .namespace import EXACT, FAST
from .products import true_float32
from .route import OnDevice, Route, Tensors, Update
from .spectral import Spectral
from .storing import Storing
from .triton import installed
from .triton.multi_tensor import MultiTensor


def capturing() -> bool:
    """True while a CUDA graph is being captured."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def recorded(gradients: Mapping[str, torch.Tensor]) -> bool:
    """True while operations are being recorded rather than carried out."""
    if capturing():
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


class Executor:
    """Carries out updates in one tier, and owns the scalar tensors.

    A group goes through the routes in order; each updates the parameters that it is for, and the last one all
    that are left. With `launched` one of them is that of one launch for all tensors, whose tables the host writes.
    """

    def __init__(
        self, tier: str, compiled: bool | None = None, *, launched: bool = True, flat_storage: bool = False
    ) -> None:
        self.tier, self.launched, self.flat_storage = tier, launched, flat_storage
        self.compiled = compiled if compiled is not None else (None if can_compile() else False)
        self.xp = EXACT if tier == "exact" else FAST
        self._plain = executor(self.xp)
        self._scalars: dict[tuple[Any, ...], torch.Tensor] = {}
        closing = Closing(self.compiled if tier == "fast" else False, self.scalar_tensor)
        self._storing = Storing(tier == "fast", closing)
        launches = launched and tier == "fast" and torch.cuda.is_available() and installed()
        self._elementwise = Elementwise(tier, self.compiled, self.scalar_tensor, flat_storage=flat_storage)
        self._routes: tuple[Route, ...] = (
            *((MultiTensor(),) if launches else ()),
            self._elementwise,
            *((Spectral(),) if tier == "fast" else ()),
            self._recursion,
        )

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made from; scalar tensors and kernels are made anew."""
        own = {"launched": self.launched, "flat_storage": self.flat_storage}
        return {"tier": self.tier, "compiled": self.compiled, **own}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__init__(**saved)  # type: ignore[misc]

    def scalar_tensor(self, values: Mapping[str, Any], slot: tuple[Any, ...], like: torch.Tensor) -> torch.Tensor:
        """The persistent tensor of one set of scalars, refilled; its address never changes."""
        if isinstance(values, OnDevice):
            return values.vector
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        key = (*slot, dtype, like.device)
        filled = torch.tensor(list(values.values()), dtype=dtype)
        if key not in self._scalars:
            self._scalars[key] = filled.to(like.device)
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
        self.carry_out([Update(planned, theta, state, evidence, k)])

    def carry_out(self, updates: Sequence[Update]) -> None:
        """One update of several groups, in place."""
        with true_float32():
            for update in updates:
                storage = update.planned.row.storage
                if storage is None:
                    self._routed(update)
                    continue
                self._storing(update, self._routed)
                if not storage.anchored:
                    self._elementwise.forget(update.planned.group.name)

    def _routed(self, update: Update) -> None:
        for route in self._routes:
            done = route(update)
            if len(done) == len(update.theta):
                return
            update = update.without(done)

    def _recursion(self, update: Update) -> Collection[str]:
        """Everything, by the core's recursion."""
        theta, state = update.theta, update.state
        moved = self._plain(
            update.planned,
            {n: working(x) for n, x in theta.items()},
            {n: state[n] for n in theta},
            {n: {key: working(x) for key, x in update.evidence[n].items()} for n in theta},
            {n: update.k[n] for n in theta},
        )
        for name, (new, s) in moved.items():
            theta[name].copy_(new)
            for key, value in s.items():
                state[name][key].copy_(value)
        return theta


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
