"""What was measured: plain data, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from dualopt.errors import DataError

FORMAT = 1
MACHINE = ("processor", "cores", "system", "python", "settings")  # surroundings whose records belong together
OK, ABSENT, FAILED, DIED = "ok", "absent", "failed", "died"

Run = list[list[float]]  # the seconds of every timed step, by round


@dataclass
class Measured:
    """A peer in a case.

    Attributes:
        status: OK; ABSENT (not installed, or does not do this here), FAILED or DIED, and `reason` says why.
        version: of its distribution.
        phases: seconds of "import", "build", "first" and "second", for each time that it was built.
        runs: the timed steps.
        cosine: of what its first step added and what the first step of the case's reference added.
        facts: what else it found out.
    """

    name: str
    family: str
    status: str = OK
    reason: str = ""
    version: str | None = None
    phases: list[dict[str, float]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    cosine: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def turns(self) -> list[float]:
        """The median of every turn, in seconds; in the order of the rounds."""
        return [median(turn) for run in self.runs for turn in run]

    def stopped(self, status: str, reason: str) -> None:
        self.status, self.reason = status, reason


@dataclass
class Side:
    """Peers side by side: a case that was carried out."""

    name: str
    kind: str
    rule: str
    dtype: str
    workload: str
    tensors: int
    parameters: int
    reference: str
    about: str
    seconds: float = 0.0
    load: float | None = None
    peers: list[Measured] = field(default_factory=list)

    def peer(self, name: str) -> Measured | None:
        return next((peer for peer in self.peers if peer.name == name), None)

    @property
    def floor(self) -> Measured | None:
        return next((peer for peer in self.peers if peer.family == "floor" and peer.status == OK), None)


@dataclass
class Record:
    """A whole run. `surroundings`: where it was measured."""

    surroundings: dict[str, Any]
    cases: list[Side] = field(default_factory=list)

    def case(self, name: str) -> Side | None:
        return next((case for case in self.cases if case.name == name), None)

    def beside(self, before: Record | None) -> Record:
        """This with the cases of an earlier record that it does not have; revisions of both are named.

        Raises: DataError if that is of another machine.
        """
        if before is None:
            return self
        here, there = self.surroundings, before.surroundings
        other = next((key for key in MACHINE if here.get(key) != there.get(key)), None)
        if other is not None:
            raise DataError(f"the earlier record is of {other} {there.get(other)!r}, this is {here.get(other)!r}")
        names = {case.name for case in self.cases}
        kept = [case for case in before.cases if case.name not in names]
        revisions = [r for s in (there, here) if kept or s is here for r in str(s.get("revision") or "").split(", ")]
        return Record({**here, "revision": ", ".join(dict.fromkeys(filter(None, revisions)))}, [*kept, *self.cases])

    def brief(self) -> Record:
        """The same with one number for each turn, its median."""

        def short(peer: Measured) -> Measured:
            return replace(peer, runs=[[[float(f"{median(turn):.4g}")] for turn in run] for run in peer.runs])

        cases = [replace(case, peers=[short(peer) for peer in case.peers]) for case in self.cases]
        return Record(self.surroundings, cases)

    def save(self, path: Path) -> None:
        data = {"format": FORMAT, **asdict(self)}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_rounded(data), separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Record:
        """Raises: DataError for a file that is not such a record."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format"] != FORMAT:
                raise DataError(f"{path}: a record of format {data['format']}, this is {FORMAT}; measure again")
            cases = [Side(**{**case, "peers": [Measured(**peer) for peer in case["peers"]]}) for case in data["cases"]]
            return cls(data["surroundings"], cases)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a record of `dualopt bench` ({error})") from error


def _rounded(value: Any) -> Any:
    """Five digits are more than a time has."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {key: _rounded(x) for key, x in value.items()}
    return [_rounded(x) for x in value] if isinstance(value, list) else value
