"""Compare records, with numpy alone: are they of the same thing, and do they agree?

The first record is what the others are compared with; each is also held to the reference and to float64
arithmetic, so that a difference comes with the side that is off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dualopt.namespace import TIERS

from . import closed, heading
from .bench import Bench, tensor_of
from .bitwise import together
from .cases import EVERY, Case
from .checks import alone
from .digests import digest_of_all
from .manifest import REFERENCE, Array, NotComparableError, Record, hashes, load
from .pins import pinned
from .verdict import FAIL, PASS, Check, Finding, Side, Verdict
from .walk import checkpoints, digest_of_start, moments
from .workers import mapped

Show = Callable[[str, int, int], None]
LEARNED = 0.9  # the final loss of the fast tier must be below this part of the first one


def compare(
    directories: Sequence[str | Path], show: Show = lambda what, done, of: None, processes: int | None = None
) -> Verdict:
    """The verdict on one or more records. `processes`: as `workers.mapped` takes it.

    Raises:
        NotComparableError: damaged records, or records of different suites, inputs, recipes, texts, tiers or
            cases; the message says which and what to do.
    """
    records = _labelled([load(directory) for directory in directories])
    warnings = _same_thing(records)
    cases = [name for name in EVERY if all(name in record.cases for record in records)]
    tiers = [tier for tier in records[0].tiers if all(tier in record.tiers for record in records)]
    checks: list[Check] = []
    apart = [_by_case(record) for record in records]
    trials = [Trial(name, tuple(tiers), tuple(each[name] for each in apart)) for name in cases]
    for i, (trial, found) in enumerate(zip(trials, mapped(tried, trials, processes, least=16), strict=True)):
        show(trial.name, i, len(trials))
        checks += found
    for tier in tiers:
        if all(record.manifest["closed"] for record in records):
            for record in records[1:]:
                checks += _closed(records[0], record, tier)
    commands = {record.label: _command(record) for record in records}
    told = (_with_command(check, commands) for check in checks)
    return Verdict(tuple(Side(record.label, record.facts) for record in records), tuple(told), tuple(warnings))


@dataclass(frozen=True)
class Trial:
    """What is needed to judge a case: of every record, its tensors and facts."""

    name: str
    tiers: tuple[str, ...]
    records: tuple[Record, ...]


def tried(trial: Trial) -> list[Check]:
    """All checks of a case. NotComparableError if its reference is another one."""
    case, (first, *others) = EVERY[trial.name], trial.records
    for record in trial.records:
        _check_reference(record, case)
    bench = Bench(case, first.arrays[REFERENCE])
    found = [check for tier in trial.tiers for record in trial.records for check in alone(bench, record, tier)]
    if "exact" in trial.tiers:
        found += [check for record in others for check in together(bench, first, record)]
    return found


def _command(record: Record) -> str:
    """What records one case of it again."""
    return f"dualopt conformance record --backend {record.facts.get('backend', 'NAME')} --out DIR --cases"


def _with_command(check: Check, commands: Mapping[str, str]) -> Check:
    """A failing check with the command that repeats its case on the side that may be off."""
    if check.status != FAIL or check.experiment == "closed":
        return check
    told = [check.note] if check.note else []
    if check.first is not None and check.experiment == "lockstep" and check.first.tensor in EVERY[check.case].shapes:
        case = EVERY[check.case]
        agrees = check.tier == "exact" and heading.declares(case) and check.first.update in heading.marks(case.updates)
        told.append(
            "u and its memories agree, so the motion is off"
            if agrees
            else "its memories agree, so the direction u or the motion is off"
        )
    return replace(check, note="; ".join([*told, f"repeat: {commands[check.sides[1]]} '{check.case}'"]))


def _labelled(records: list[Record]) -> list[Record]:
    """The records with labels that tell them apart."""
    if not records:
        raise NotComparableError("no record was named")
    labels = [record.label for record in records]
    same = [label for label in labels if labels.count(label) > 1]
    return [
        replace(record, label=f"{record.label} ({i})") if record.label in same else record
        for i, record in enumerate(records, 1)
    ]


def _same_thing(records: Sequence[Record]) -> list[str]:
    """Refuse what cannot be compared; warnings about what may explain a difference."""
    first, warnings = records[0], []
    common = set.intersection(*(set(record.cases) for record in records))
    if not common:
        raise NotComparableError("the records have no case in common: record the same cases on both sides")
    if not set.intersection(*(set(record.tiers) for record in records)):
        told = "; ".join(f"{record.label}: {', '.join(record.tiers)}" for record in records)
        raise NotComparableError(f"the records have no tier in common ({told})")
    for record in records:
        for name, entry in record.cases.items():
            if name not in EVERY or name not in pinned():
                raise NotComparableError(f"{record.label}: {name!r} is not a case of this suite; record again")
            if entry["inputs"] != pinned()[name]["inputs"]:
                raise NotComparableError(f"{record.label}: {name} was recorded with other inputs; record again")
            if entry["recipe"] != EVERY[name].recipe.to_dict():
                raise NotComparableError(f"{record.label}: {name} was recorded with another recipe; record again")
        texts = [r.manifest["closed"] and r.manifest["closed"]["sha256"] for r in (first, record)]
        if all(texts) and texts[0] != texts[1]:
            raise NotComparableError(
                f"{first.label} and {record.label} learned from different texts ($DUALOPT_TEXT); use one on both sides"
            )
        if len(record.cases) > len(common):
            warnings.append(f"{record.label} has {len(record.cases)} cases, of which {len(common)} were compared")
        versions = [r.facts.get("dualopt", "") for r in (first, record)]
        if versions[0] != versions[1]:
            warnings.append(f"{first.label} ran dualopt {versions[0]}, {record.label} {versions[1]}")
        odd = [n for n in sorted(common) if record.cases[n]["scalars"] != first.cases[n]["scalars"]]
        if odd:
            warnings.append(
                f"the scalars derived on the host differ between {first.label} and {record.label} in {odd[0]}"
                f"{f' and {len(odd) - 1} more cases' if odd[1:] else ''}: their C libraries round differently"
            )
    return [*_left_out(records, common), *warnings]


def _left_out(records: Sequence[Record], common: set[str]) -> Iterator[str]:
    """What a verdict on these records says nothing about."""
    if len(common) < len(EVERY):
        yield f"{len(common)} of the suite's {len(EVERY)} cases were compared"
    missing = [tier for tier in TIERS if not all(tier in record.tiers for record in records)]
    if missing:
        yield f"the {' and '.join(missing)} tier was not compared"
    if not all(record.manifest["closed"] for record in records):
        yield "the closed loop was not compared"


def _by_case(record: Record) -> dict[str, Record]:
    """The record in parts, one for each case."""
    few = {"facts": record.facts, "tiers": list(record.tiers)}
    found = {name: Record(record.label, few, {stem: {} for stem in record.arrays}) for name in record.cases}
    parts: dict[str, dict[str, dict[str, Array]]] = {}
    for stem, arrays in record.arrays.items():
        for key, x in arrays.items():
            variant, situation, _ = key.split("/", 2)
            parts.setdefault(f"{variant}/{situation}", {}).setdefault(stem, {})[key] = x
    return {name: replace(one, arrays={**one.arrays, **parts.get(name, {})}) for name, one in found.items()}


def _check_reference(record: Record, case: Case) -> None:
    """The reference of a case in a record is that of this suite. NotComparableError if it is not."""
    pins, mine = pinned()[case.id], record.arrays[REFERENCE]
    together: dict[str, dict[str, Array]] = {}
    for key, x in mine.items():
        _, _, experiment, update, tensor = (*key.split("/", 4), "")[:5]
        if experiment in ("start", "after"):
            together.setdefault(f"{experiment}/{update}", {})[tensor] = x
    digests = {place: digest_of_all(named.items()) for place, named in together.items()}
    marks = [] if case.streams else moments(case.updates)
    wanted = {f"after/{t}": t for t in (*checkpoints(case.updates), *marks)} | {f"start/{t}": t - 1 for t in marks}
    for place, t in wanted.items():
        known = pins["digests"].get(str(t)) if t else f"{digest_of_start(case):016x}"
        if f"{digests.get(place, 0):016x}" != known:
            raise NotComparableError(
                f"{record.label}: {case.id}/{place} is not the reference of this suite; record again"
            )
    undecided = {key: x for key, x in mine.items() if key.startswith(f"{case.id}/undecided/")}
    if hashes(undecided).get(f"{case.id}/undecided") != pins["undecided"]:
        raise NotComparableError(f"{record.label}: {case.id}/undecided is not that of this suite; record again")


def _closed(left: Record, right: Record, tier: str) -> Iterator[Check]:
    """Losses of the closed loop: within the spread over seeds of the first record."""
    for row in (row for row in closed.ROWS if all(row in r.manifest["closed"]["rows"] for r in (left, right))):
        losses = [[tensor_of(r, tier, f"closed/{row}/{seed}/loss") for seed in closed.SEEDS] for r in (left, right)]
        finals = [[closed.final(x) for x in side] for side in losses]
        spread = max(finals[0]) - min(finals[0])
        gaps = [abs(a - b) for a, b in zip(*finals, strict=True)]
        parted = [
            np.flatnonzero(np.not_equal(*(tensor_of(r, tier, f"closed/{row}/{seed}/digests") for r in (left, right))))
            for seed in closed.SEEDS
        ]
        first = min((int(x[0]) + 1 for x in parted if x.size), default=0)
        learned = tier != "fast" or all(
            b < LEARNED * x[0] for side, f in zip(losses, finals, strict=True) for x, b in zip(side, f, strict=True)
        )
        good = all(math.isfinite(gap) and gap <= spread for gap in gaps) and learned
        at = int(np.argmax(gaps))
        told = f"losses {finals[0][at]:.6f} and {finals[1][at]:.6f}, spread over seeds {spread:.4f}"
        told += f"; parted in update {first}" if first else "; not a bit apart"
        yield Check(
            f"closed/{row}", tier, "closed", (left.label, right.label), PASS if good else FAIL,
            compared=sum(x.size for x in losses[0]), worst=max(gaps), budget=spread, note=told,
            first=None if good else Finding(
                closed.UPDATES[tier], "loss", (closed.SEEDS[at],), finals[0][at].hex(), finals[1][at].hex(),
                error=max(gaps), budget=spread,
            ),
        )  # fmt: skip
