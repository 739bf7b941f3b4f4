"""How updates of MLX arrays are measured: see `dualopt.watch`.

An eager update is measured like those of every backend. Inside of a compiled step the host sees no arrays: such a step
is traced twice, once as it is, and once with the sums as further outputs, which the host reads after the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from dualopt.proposal import Proposal
from dualopt.watch import Monitor
from dualopt.watch.measure import SUMS
from dualopt.watch.measurement import Library, Measurement, unjoined

from .namespace import FAST
from .parameters import working
from .state import State


def _numbers(sums: mx.array) -> list[float]:
    found: Any = sums.tolist()
    return list(found)


LIBRARY = Library(
    xp=FAST,
    working=working,
    kept=lambda x: x,  # arrays are values: the old one stays as it is
    joined=lambda sums: mx.stack(list(sums)),
    numbers=_numbers,
)


class Watching:
    """The monitor of an optimizer, and what its measuring trace leaves in `sink`."""

    def __init__(self, store: State) -> None:
        self.monitor: Monitor | None = None
        self.sink: dict[str, mx.array] = {"sums": mx.zeros(1), "layout": mx.zeros(1, mx.int32)}
        self._store = store
        self._tracing = False

    def due(self, proposal: Proposal, count: int) -> bool:
        """Whether a monitor wants this update."""
        return self.monitor is not None and self.monitor.due(proposal, count)

    def measuring(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """`step` with its update measured, to be compiled: it runs when it is traced."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self._tracing = True
            try:
                return step(*args, **kwargs)
            finally:
                self._tracing = False

        return run

    def measurement(self, proposal: Proposal, count: int, *, traced: bool) -> Measurement | None:
        """What measures this update, if it is to be measured."""
        return Measurement(LIBRARY) if (self._tracing if traced else self.due(proposal, count)) else None

    def measured(self, found: Measurement, proposal: Proposal, count: int, *, traced: bool) -> None:
        """The update has happened; while it is traced the sums and what they are become outputs."""
        if not traced:
            if self.monitor is not None:
                self.monitor.write(proposal, count, found.sums())
            return
        sums, places = found.joined(), self._store.places
        if sums is not None:
            codes = [(places[name] - 1) * len(SUMS) + SUMS.index(key) for name, key in found.layout]
            self.sink |= {"sums": sums, "layout": mx.array(codes, mx.int32)}

    def write(self, proposal: Proposal, count: int) -> None:
        """Hand on what a compiled update has measured, if it happened."""
        if self._store.tree["step"].item() == self._store.updates or self.monitor is None:
            return
        codes: Any = self.sink["layout"].tolist()
        layout = [(self._store.names[code // len(SUMS)], SUMS[code % len(SUMS)]) for code in codes]
        self.monitor.write(proposal, count, unjoined(layout, _numbers(self.sink["sums"])))
