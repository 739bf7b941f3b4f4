"""A case carried out: a worker for each peer, built, then timed in turns while all others wait."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from .cases import Case, Turns
from .link import GoneError, Link, RefusedError
from .peers import Peer
from .record import DIED, OK, Measured, Side
from .surroundings import available, load, variables

BUILD, ANSWER = 150.0, 180.0  # seconds that a worker has
FEWEST, PATIENCE = 3, 4

Tell = Callable[[str], None]


class Worker(Protocol):
    """What is asked of a `Link`."""

    def send(self, **request: Any) -> None: ...

    def receive(self, within: float) -> dict[str, Any]: ...

    def ask(self, within: float, **request: Any) -> dict[str, Any]: ...

    def close(self) -> None: ...


Open = Callable[[bool], Worker]  # with a cache of its own or not -> a worker


@dataclass
class Place:
    """A peer at work: its worker while there is one, what was measured, and what its first step added."""

    peer: Peer
    measured: Measured
    worker: Worker | None = None
    moved: list[float] = field(default_factory=list)

    def carry_out(self, within: float, **request: Any) -> dict[str, Any] | None:
        """The answer; None if there is none any more, and then `measured` says why."""
        return self._noted(lambda worker: worker.ask(within, **request))

    def send(self, **request: Any) -> None:
        self._noted(lambda worker: worker.send(**request))

    def receive(self, within: float) -> dict[str, Any] | None:
        return self._noted(lambda worker: worker.receive(within))

    def close(self) -> None:
        if self.worker is not None:
            self.worker.close()
        self.worker = None

    def _noted(self, call: Callable[[Worker], Any]) -> Any:
        if self.worker is None:
            return None
        try:
            return call(self.worker)
        except RefusedError as error:
            self.measured.stopped(error.kind, str(error))
        except GoneError as error:
            self.measured.stopped(DIED, str(error))
        self.close()
        return None


def order(number: int, turn: int) -> list[int]:
    """Who comes when in a round: each time another begins, and every second time it goes backwards, so that no peer
    always comes after the same one."""
    first = turn // 2 % number if number else 0
    forward = [(first + i) % number for i in range(number)]
    return forward[::-1] if turn % 2 else forward


def affordable(turns: Turns, peers: Sequence[Measured]) -> Turns:
    """As many rounds as the budget has time for; if not even one in each run, then `FEWEST` in one run, which saves
    building; and one alone where those would take `PATIENCE` times the budget."""
    steps = [peer.phases[-1]["second"] for peer in peers if peer.status == OK]
    again = 2 * sum(steps) * (turns.runs - 1)
    once = sum(max((turns.least + 1) * step, turns.seconds) for step in steps)
    for rounds in range(turns.rounds, 0, -1):
        if again + turns.runs * rounds * once <= turns.budget:
            return replace(turns, rounds=rounds)
    few = min(FEWEST, turns.runs * turns.rounds)
    few = few if few * once <= PATIENCE * turns.budget else min(few, 1)
    return replace(turns, runs=1, rounds=few) if turns.rounds else turns


def carried_out(case: Case, opened: Open, jobs: int, tell: Tell) -> Side:
    """All peers of a case. What one cannot do is in its place in the result, and stops no other."""
    side = Side(
        case.name, case.kind, case.rule, case.dtype, case.workload.name, case.workload.tensors,
        case.workload.parameters, case.reference, case.about or case.workload.about, load=load(),
    )  # fmt: skip
    begun = time.monotonic()
    places = [Place(peer, Measured(peer.name, peer.family)) for peer in case.peers]
    side.peers = [place.measured for place in places]
    free = available()
    if free is not None and case.bytes > 0.8 * free:
        for place in places:
            place.measured.stopped("absent", f"needs about {case.bytes / 2**30:.0f} GiB of memory, more than there is")
        return side
    try:
        _build(case, places, opened, jobs, tell, again=False)
        case = replace(case, turns=affordable(case.turns, [p.measured for p in places]))
        for run in range(case.turns.runs):
            if run:
                _build(case, places, opened, jobs, tell, again=not case.cold)
            _rounds(case, places, run, tell)
        _facts(places, tell)
    finally:
        for place in places:
            place.close()
    side.reference = _compare(places, case.reference)
    side.seconds = round(time.monotonic() - begun, 1)
    return side


def _build(case: Case, places: Sequence[Place], opened: Open, jobs: int, tell: Tell, *, again: bool) -> None:
    """Build everything anew, `jobs` at a time; a cold case with new processes, one at a time."""
    alive = [place for place in places if place.measured.status == OK]
    jobs = 1 if case.cold else jobs
    for i in range(0, len(alive), jobs):
        batch = alive[i : i + jobs]
        for place in batch:
            tell(f"{place.peer.name}: {'builds' if again else 'starts'}")
            if not again:
                place.close()
                place.worker = opened(case.cold)
            place.send(do="build", task=vars(case.task(place.peer)), distribution=place.peer.distribution)
        for place in batch:
            built = place.receive(BUILD)
            if built is not None:
                place.measured.phases.append(built["phases"])
                place.measured.version = built["version"]
                place.moved = built["moved"]


def _rounds(case: Case, places: Sequence[Place], run: int, tell: Tell) -> None:
    turns = case.turns
    asked = {"least": turns.least, "most": turns.most, "seconds": turns.seconds}
    for place in places:
        if turns.rounds and place.worker is not None:
            place.measured.runs.append([])
    for round_ in range(turns.rounds):
        # Who is gone leaves a gap in no other's turns: the rounds of a run are compared one by one.
        for i in order(len(places), run * turns.rounds + round_):
            place = places[i]
            tell(f"{place.peer.name}: run {run + 1} of {turns.runs}, round {round_ + 1} of {turns.rounds}")
            answer = place.carry_out(ANSWER, do="turn", **asked)
            if answer is not None:
                place.measured.runs[-1].append(answer["times"])


def _facts(places: Sequence[Place], tell: Tell) -> None:
    for place in places:
        if place.worker is not None:
            tell(f"{place.peer.name}: looks at its result")
        answer = place.carry_out(ANSWER, do="facts")
        if answer is not None:
            place.measured.facts = answer["facts"]


def _compare(places: Sequence[Place], reference: str) -> str:
    """Cosines between first steps, whether peers do the same: with that of the reference, or if that is not there with
    that of the first who is. Returns: with whose."""
    there = {place.peer.name: place.moved for place in places if place.moved and place.measured.status == OK}
    name = reference if reference in there else next(iter(there), reference)
    for place in places:
        if reference and name in there and len(place.moved) == len(there[name]) and place.measured.status == OK:
            place.measured.cosine = cosine(there[name], place.moved)
    return name if reference else ""


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """Of the angle between two vectors."""
    product = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return product / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


@contextlib.contextmanager
def processes(checkout: Path, python: str) -> Iterator[Open]:
    """What opens workers of an interpreter. Caches of cold ones last as long as this context."""
    with tempfile.TemporaryDirectory(prefix="dualopt-bench-") as kept:

        def opened(cold: bool) -> Worker:
            cache = tempfile.mkdtemp(dir=kept) if cold else None
            return Link(python, variables(checkout, cache), checkout)

        yield opened


def usual_jobs() -> int:
    """How many workers build at a time: one for each core."""
    return os.cpu_count() or 1
