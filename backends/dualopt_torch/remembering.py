"""The memories of parameters: made before the first update, and lined up with them for the next ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from operator import is_, itemgetter
from typing import Any

import torch

from dualopt.plan import Plan
from dualopt.planned import PlannedGroup

from .elementwise import placed
from .namespace import EXACT
from .parameters import Named

LINED = ("_lines", "_kept", "_all_kept", "_chosen")  # attributes that are found again where they are missing


@dataclass(frozen=True)
class Line:
    """A group, θ and memories of those of its parameters that are updated; `all`: no other group is."""

    planned: PlannedGroup
    theta: Named
    state: dict[str, Named]
    all: bool
    of_state: tuple[str, ...]  # the keys of every parameter's state

    def present(self, kept: Mapping[str, Mapping[str, Any]]) -> bool:
        """True if `kept`, by name, holds the very tensors of `state`."""
        if not self.of_state:
            return True
        here = map(itemgetter(*self.of_state), map(kept.__getitem__, self.state))
        held = chain.from_iterable(here) if len(self.of_state) > 1 else here
        return all(map(is_, held, chain.from_iterable(map(dict.values, self.state.values()))))


class Remembering(torch.optim.Optimizer):
    """The part of `Optimizer` that keeps ``state``."""

    plan: Plan
    _named: Named

    def _forget_lines(self) -> None:
        """Line up anew before the next update."""
        self._lines: list[Line] = []
        self._kept: dict[str, dict[str, Any]] = {}  # by name, of what is lined up
        self._all_kept: list[dict[str, Any]] = []
        self._chosen: tuple[str, ...] = ()

    def _lined(self, names: tuple[str, ...]) -> list[Line]:
        """The groups with those of their parameters that are updated, and the memories of these."""
        if names == self._chosen and self._untouched():
            return self._lines
        chosen, self._lines = frozenset(names), []
        for planned in self.plan.groups:
            here = [name for name in planned.names if name in chosen]
            if here:
                self._make(planned, here)
                state = {name: _tensors(self.state[self._named[name]]) for name in here}
                theta = {name: self._named[name] for name in here}
                self._lines.append(Line(planned, theta, state, len(here) == len(names), tuple(state[here[0]])))
        self._kept = {name: self.state[self._named[name]] for name in names}
        self._chosen, self._all_kept = (), list(self.state.values())  # `step` names them when it has succeeded
        return self._lines

    def _untouched(self) -> bool:
        """True if `state` holds the very tensors that were lined up."""
        if len(self.state) != len(self._all_kept) or not all(map(is_, self.state.values(), self._all_kept)):
            return False
        try:
            return all(line.present(self._kept) for line in self._lines)
        except KeyError:  # a memory is missing
            return False

    def _state(self, name: str) -> Named:
        """The memories of a parameter, made before its first update in its working type."""
        kept = self.state[self._named[name]]
        if not kept.get("tau"):
            self._make(self.plan.groups[self.plan.group_of[name]], [name])
        return _tensors(kept)

    def _make(self, planned: PlannedGroup, names: Iterable[str]) -> None:
        """Make the memories of those parameters that have none yet."""
        fresh = {name: self._start(name) for name in names if not self.state[self._named[name]].get("tau")}
        for name, memories in placed(planned, fresh, self._named).items() if fresh else ():
            self.state[self._named[name]].update(tau=0, **memories)

    def _start(self, name: str) -> Named:
        p = self._named[name]
        dtype = torch.float64 if p.dtype == torch.float64 else torch.float32
        theta = p.detach().to(dtype, memory_format=torch.contiguous_format)
        return self.plan.groups[self.plan.group_of[name]].start(EXACT, name, theta)

    def _memories(self, name: str) -> Named:
        """The memories of a parameter, or what they will begin with."""
        return self._state(name) if self.state.get(self._named[name], {}).get("tau") else self._start(name)


def _tensors(kept: Mapping[str, Any]) -> Named:
    return {key: x for key, x in kept.items() if isinstance(x, torch.Tensor)}
