"""Saving and loading: torch's state_dict, and the portable snapshot of every backend.

torch's own `load_state_dict` casts floating-point state to the parameter's type, which would round the
float32 memories of a bfloat16 parameter; `_install` puts them in place as they were saved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

import dualopt
from dualopt.checkpoint import Origin, Snapshot, require, require_dtypes, require_recipe
from dualopt.errors import CheckpointError
from dualopt.plan import RUN
from dualopt.proposal import Proposal

from .arrays import HALF, to_numpy
from .distributed.dtensors import is_sharded, local, piece_of, whole
from .namespace import EXACT
from .remembering import Remembering

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]

TYPES = {torch.float32: "F32", torch.float64: "F64", **HALF}
VERSIONS = f"dualopt {dualopt.__version__}, torch {torch.__version__}"


class Saving(Remembering):
    """The part of `Optimizer` that saves and loads."""

    tier: str
    _written: list[float]
    _ready: Proposal | None
    _captured: bool
    _before: tuple[dict[str, int], dict[str, dict[str, float]]]
    _aside: dict[str, Any] | None

    def _roll_back(self) -> None:
        """Undo an `advance` that no step has used."""
        raise NotImplementedError

    def _settle(self) -> None:
        """Take over what steps on the device did."""
        raise NotImplementedError

    def discard(self) -> None:
        """Forget what `accumulate` has folded since the last step."""
        raise NotImplementedError

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from `state_dict()` of the same recipe and parameters; float32 state stays float32.

        Raises:
            CheckpointError: other groups, coordinates, parameters or shapes; nothing has changed.
        """
        self._settle()
        groups, saved = state_dict.get("param_groups", []), state_dict.get("state", {})
        if len(groups) != len(self.param_groups):
            raise CheckpointError(f"the saved optimizer has {len(groups)} groups, this one {len(self.param_groups)}")
        for mine, other, planned in zip(self.param_groups, groups, self.plan.groups, strict=True):
            for key in ("name", "optimizer", "param_names", *planned.action):
                if mine[key] != other.get(key):
                    raise CheckpointError(
                        f"group {mine['name']!r}: {key} is {other.get(key)!r} in the saved optimizer, "
                        f"{mine[key]!r} here; continue with the recipe it was saved with"
                    )
        pairs = zip(groups, self.param_groups, strict=True)
        named = {i: n for g, mine in pairs for i, n in zip(g.get("params", ()), mine["param_names"], strict=False)}
        state = {named[i]: dict(values) for i, values in saved.items() if i in named}
        counts = {RUN: max((int(g.get("tau", 0)) for g in groups), default=0)}
        counts |= {name: int(state.get(name, {}).get("tau", 0)) for name in self._named}
        memories = {n: {k: x for k, x in values.items() if isinstance(x, torch.Tensor)} for n, values in state.items()}
        sums = {
            n: {k: x for k, x in values.items() if isinstance(x, float)} for n, values in state.items() if counts[n]
        }
        self._check_state({n: {k: np.shape(x) for k, x in s.items()} for n, s in memories.items()}, counts)
        self.plan.check(counts, sums)
        self._roll_back()
        before = self.plan.saved_counts(), self.plan.saved_sums()
        self.plan.restore(counts, sums)
        try:
            super().load_state_dict(dict(state_dict))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self.plan.restore(*before)
            raise CheckpointError(f"not the state of this optimizer: {error}") from error
        self._captured = False
        self.discard()
        self._install(memories, counts)
        self._written = [group["lr"] for group in self.param_groups]

    def snapshot(self) -> Snapshot:
        """Parameters, state and counts as numpy arrays: the portable checkpoint, without an unused `advance`.

        The parameters are those that are trained, also while others are evaluated. Where parameters are sharded all
        processes call this, and get all of it: `distributed.gathered` is for one of them.
        """
        return self.snapshot_by(lambda x: to_numpy(whole(x)))

    def snapshot_by(self, array: Callable[[torch.Tensor], np.ndarray[Any, Any]]) -> Snapshot:
        """The same, whose arrays are made by `array`."""
        self._settle()
        used = self._ready is None or self._captured
        counts, sums = (self.plan.saved_counts(), self.plan.saved_sums()) if used else self._before
        parameters = {name: array(p) for name, p in {**self._named, **(self._aside or {})}.items()}
        state = {
            name: {k: array(x) for k, x in self.state[p].items() if isinstance(x, torch.Tensor)}
            if self.state.get(p, {}).get("tau")
            else {}
            for name, p in self._named.items()
        }
        dtypes = {name: HALF[p.dtype] for name, p in self._named.items() if p.dtype in HALF}
        origin = Origin(self.plan.recipe.to_toml(), self.tier, VERSIONS)
        return Snapshot(parameters, state, dict(counts), dtypes, sums, origin)

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot of any backend, in training. CheckpointError if it does not fit; nothing has
        changed then."""
        self._settle()
        require(snapshot, {name: tuple(p.shape) for name, p in self._named.items()}, where="snapshot")
        require_dtypes(snapshot, {name: TYPES[p.dtype] for name, p in self._named.items()}, where="snapshot")
        require_recipe(snapshot, self.plan.recipe, where="snapshot")
        state = {name: s for name, s in snapshot.state.items() if s}
        self._check_state({n: {k: tuple(x.shape) for k, x in s.items()} for n, s in state.items()}, snapshot.counts)
        self.plan.check(snapshot.counts, snapshot.sums)
        self._roll_back()
        self.discard()
        self.plan.restore(snapshot.counts, snapshot.sums)
        for name, x in snapshot.parameters.items():
            p = self._named[name]
            local(p).copy_(piece_of(torch.from_numpy(np.array(x)), p))
        self._aside = None
        self.state.clear()
        self._install(
            {n: {k: torch.from_numpy(np.array(x)) for k, x in s.items()} for n, s in state.items()}, snapshot.counts
        )
        for i, group in enumerate(self.param_groups):
            group["tau"] = self.plan.tau
            if self.plan.scheduled:
                group["lr"] = self._written[i] = self.plan.current_step(i)

    def _check_state(self, shapes: Mapping[str, Mapping[str, tuple[int, ...]]], counts: Mapping[str, int]) -> None:
        """CheckpointError if saved memories are not those of this recipe's rows."""
        for name in self._named:
            planned = self.plan.groups[self.plan.group_of[name]]
            p = self._named[name].detach()
            like = torch.empty(p.shape, device="meta") if is_sharded(p) else p.to(torch.float32)
            start = planned.start(EXACT, name, like)
            expected = {k: tuple(x.shape) for k, x in start.items()} if counts.get(name, 0) or name in shapes else {}
            if dict(shapes.get(name, {})) != expected:
                raise CheckpointError(
                    f"state of {name!r}: saved {dict(shapes.get(name, {}))}, {planned.row.name} keeps {expected}; to "
                    f"begin with its weights alone: transplant.restarted(snapshot, [{name!r}])"
                )

    def _install(self, state: Mapping[str, Mapping[str, torch.Tensor]], counts: Mapping[str, int]) -> None:
        """Put saved memories in place in the working type, whatever the parameter's own."""
        for planned in self.plan.groups:
            saved = {}
            for name in planned.names:
                p = self._named[name]
                if name in state:
                    here = {key: piece_of(x, p) for key, x in state[name].items()}
                    saved[name] = {
                        key: x.to(device=p.device, dtype=self._type(name, key), copy=True) for key, x in here.items()
                    }
            for name, memories in self._placed(planned, saved).items():
                self.state[self._named[name]] = {"tau": counts[name], **self.plan.sums[name], **memories}
