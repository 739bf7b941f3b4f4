"""What watches an optimizer: when an update is measured, what is expected of it, and what is written."""

from __future__ import annotations

import fnmatch
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..analysis.course import MOST_UPDATES
from ..analysis.following import run_end
from ..errors import CheckpointError, CountError, DualoptError, RecipeError
from ..plan import Plan
from ..proposal import Proposal
from . import stream
from .forecast import Forecast, forecasts
from .header import identity, made, paced
from .reading import Reading, mean, reading
from .stream import Data

SHARE = 0.005  # of the time that measuring may take by its own clock: half of 1 %, as it also cuts queues short
TRIALS = 2  # updates that are measured before their cost is known: the first of all pays for compilers too
AGREE = 1e-6  # relative: a step that is further from the recipe's was written by someone else

Sums = Mapping[str, Mapping[str, float]]


class Watchable(Protocol):
    """What a native optimizer is to a monitor."""

    plan: Plan
    dtypes: Mapping[str, str]  # how parameters are stored
    monitor: Monitor | None


class Writer(Protocol):
    """What takes numbers over time: TensorBoard's ``SummaryWriter``, and what is like it."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any: ...

    def flush(self) -> Any: ...


class Monitor:
    """Measures some updates of an optimizer and appends them, beside what was expected, to a file.

    Training is not changed by it, not in a bit. It needs no call: ``step`` or ``update`` see to it.

    Args:
        optimizer: of `dualopt.optimizer`, on either framework.
        path: the file (see `stream`), usually metrics.jsonl. One of the same run is gone on with; what was measured
            after the optimizer's count is taken back.
        every: measure every so many updates of the usual size; None: as often as takes less than 1 % of the time.
        parameters: globs of parameters that are also written one by one.
        end: the count at which the run ends, if the recipe's schedule does not say so.
        per_update: the count of most updates, if it is not the recipe's.
        writer: takes every number as ``group/quantity`` too: see `board`, or any ``SummaryWriter``.
        clock: seconds.

    Raises:
        CheckpointError: the file is of another run, is damaged, or cannot be written.
        CountError: `every`, `end` or `per_update` is no positive integer.
        RecipeError: a glob that matches no parameter.
    """

    def __init__(
        self,
        optimizer: Watchable,
        path: str | Path,
        *,
        every: int | None = None,
        parameters: Iterable[str] = (),
        end: int | None = None,
        per_update: int | None = None,
        writer: Writer | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        for name, value in (("every", every), ("end", end), ("per_update", per_update)):
            if value is not None and (type(value) is not int or value < 1):
                raise CountError(f"{name} is a positive whole number, got {value!r}")
        self.path, self.every = Path(path), every
        self._optimizer, self._plan = optimizer, optimizer.plan
        self._usual = self._plan.recipe.count.per_update if per_update is None else per_update
        self._paced = paced(self._plan, self._usual)
        self._singled = _matching(self._plan, parameters)
        most = MOST_UPDATES * self._usual
        self._end = min(run_end(self._plan)[0] if end is None else end, most)
        self._writer, self._clock = writer, clock
        self.measured = 0  # updates, by this object
        self.cost = 0.0  # seconds, of the last one
        self._began = self._ended = 0.0
        self._header: Data | None = None
        self._forecasts: tuple[Forecast, ...] = ()
        self._strayed: set[int] = set()  # groups whose step is not the recipe's any more
        stream.writable(self.path)
        if self.path.exists() and self.path.stat().st_size:
            self._known(stream.read(self.path).header)
        optimizer.monitor = self

    def due(self, proposal: Proposal, count: int) -> bool:
        """Whether the update from `count` that is about to happen is measured; its cost is counted from here."""
        now = self._clock()
        if self.every is None:
            wanted = self.measured < TRIALS or now - self._ended >= self.cost / SHARE
        else:
            span = self.every * self._usual
            wanted = self._header is None or (count + proposal.dtau) // span > count // span
        if wanted:
            self._began = now
        return wanted

    def write(self, proposal: Proposal, count: int, sums: Sums) -> None:
        """Append what an update that was due has measured.

        A file that cannot be written ends the watching with a warning: training goes on.

        Args:
            proposal: what was carried out.
            count: τ before it.
            sums: {parameter: {sum: number}}, see `measure`.
        """
        try:
            self._write(proposal, count, sums)
        except (OSError, DualoptError) as error:
            self._optimizer.monitor = None
            warnings.warn(f"{self.path}: no longer written, as {error}; training goes on", RuntimeWarning, stacklevel=4)
        self.measured += 1
        self._ended = self._clock()
        self.cost = self._ended - self._began

    def _write(self, proposal: Proposal, count: int, sums: Sums) -> None:
        plan = self._plan
        sizes = {name: plan.groups[plan.group_of[name]].views[name].size for name in sums}
        if self._header is None:
            self._open(count, {name: math.sqrt(one["theta"] / sizes[name]) for name, one in sums.items()})
        clocks, scalars = proposal.clocks, proposal.scalars
        readings = {
            name: reading(plan.groups[plan.group_of[name]], one, sizes[name], scalars[name])
            for name, one in sums.items()
        }
        groups = {}
        for i, planned in enumerate(plan.groups):
            here = [name for name in planned.names if name in readings]
            aged = [name for name in here if clocks[name].tau == count + proposal.dtau]
            whole = len(aged) == sum(view.size > 0 for view in planned.views.values())
            if here:
                found = mean([(sizes[name], readings[name]) for name in here])
                expected = self._expected(i, proposal, count) if whole else {}
                groups[planned.group.name] = {
                    "measured": _numbers(found),
                    "expected": expected,
                    "parameters": len(here),
                }
        record: Data = {"count": count + proposal.dtau, "dtau": proposal.dtau, "groups": groups}
        singled = {name: _numbers(readings[name]) for name in self._singled if name in readings}
        stream.append(self.path, record | ({"parameters": singled} if singled else {}))
        self._tell(record)

    def _expected(self, i: int, proposal: Proposal, count: int) -> dict[str, float]:
        """What is expected of group i; less of an update of an unusual size, nothing once its step is another's."""
        end = count + proposal.dtau
        usual = self._usual
        while end > self._forecasts[i].updates * usual and self._forecasts[i].curves:
            if not self._extended(end):
                return {}
        forecast = self._forecasts[i]
        found = forecast.at(end)
        if forecast.eta is not None and found:
            eta, step = float(forecast.eta[end // usual - 1]), proposal.steps[i]
            if abs(step - eta) > AGREE * max(abs(eta), abs(step)):
                self._strayed.add(i)
        if i in self._strayed:
            return {}
        return found if proposal.dtau == usual else {key: x for key, x in found.items() if key == "rms"}

    def _extended(self, end: int) -> bool:
        """Follow the run as far again; False if that cannot be."""
        assert self._header is not None
        before = max(f.updates for f in self._forecasts)
        if before >= MOST_UPDATES:
            return False
        updates = max(2 * before, end // self._usual)
        self._forecasts = forecasts(self._paced, self._header["starts"], updates, self._optimizer.dtypes)
        return max(f.updates for f in self._forecasts) > before

    def _open(self, count: int, starts: Mapping[str, float]) -> None:
        """Go on with the file, or begin it."""
        if count and self.path.exists() and self.path.stat().st_size:
            stream.rewind(self.path, count)
            header = stream.read(self.path).header
            self._known(header)
        else:
            header = made(identity(self._plan), self._paced, {} if count else starts, self._end, self._optimizer.dtypes)
            stream.begin(self.path, header)
        self._header = header
        updates = max(1, round(self._end / self._usual))
        self._forecasts = forecasts(self._paced, header["starts"], updates, self._optimizer.dtypes)

    def _known(self, header: Data) -> None:
        """CheckpointError for a file of other parameters or of another recipe."""
        own = identity(self._plan)
        other = next((key for key, value in own.items() if header.get(key) != value), None)
        if other is not None:
            raise CheckpointError(
                f"{self.path}: holds a run of another {'recipe' if other == 'recipe' else 'model'}; remove it "
                "or choose another path"
            )

    def _tell(self, record: Data) -> None:
        if self._writer is None:
            return
        for group, found in record["groups"].items():
            for kind, suffix in (("measured", ""), ("expected", " expected")):
                for name, x in found[kind].items():
                    self._writer.add_scalar(f"{group}/{name}{suffix}", x, record["count"])
        self._writer.flush()


def _matching(plan: Plan, globs: Iterable[str]) -> tuple[str, ...]:
    if isinstance(globs, str):
        raise RecipeError(f"parameters is a list of globs, got the string {globs!r}")
    found: dict[str, None] = {}
    for glob in globs:
        matched = fnmatch.filter(plan.shapes, glob)
        if not matched:
            raise RecipeError(f"parameters: no parameter matches {glob!r}")
        found |= dict.fromkeys(matched)
    return tuple(found)


def _numbers(found: Reading) -> dict[str, float]:
    return {name: x for name, x in found.items() if x is not None}
