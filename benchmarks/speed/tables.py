"""What is shown of a record, as rows of texts: the same on the terminal and on the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from .goals import FACT, GOALS, SECONDS
from .ratios import MISSED, REACHED, STRETCH, UNKNOWN, Spread, Verdict, digits, judged, phase, ratio, relative
from .record import OK, Measured, Record, Side

NONE = "–"
SAME = 0.9  # a cosine below this: another rule than the reference's
WORDS = {STRETCH: "beyond the goal", REACHED: "reached", MISSED: "missed", UNKNOWN: "undecided"}


@dataclass(frozen=True)
class Table:
    """A title, columns and rows; `notes` follow."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...] = ()


def goals(record: Record) -> Table:
    """The goals of the cases that were carried out, with what was measured."""
    columns = ("case", "dualopt", "over", "measured", "goal", "second", "")
    rows = [_goal(judged(goal, record)) for goal in GOALS if record.case(goal.case) is not None]
    return Table("Goals", columns, rows)


def _goal(found: Verdict) -> tuple[str, ...]:
    goal = found.goal
    unit = " s" if goal.of == SECONDS else ""
    value = NONE if found.value is None else f"{found.value.middle:g}" if goal.of == FACT else f"{found.value}{unit}"
    word = (
        WORDS[found.word] + (", within the spread" if found.close else "") + (f"; {found.note}" if found.note else "")
    )
    return (
        goal.case, goal.ours.removeprefix("dualopt").strip(", ") or "default", found.peer or goal.key, value,
        f"{goal.goal:g}{unit}", f"{goal.stretch:g}{unit}", word,
    )  # fmt: skip


def of(side: Side) -> Table:
    """The table of a case."""
    return {"polar": _polar, "start": _start, "life": _life}.get(side.kind, _steps)(side)


def heading(side: Side) -> str:
    """What a case is, and how often it was timed."""
    size = (
        f"{side.tensors} tensors, {millions(side.parameters)} parameters in {side.dtype}; " if side.parameters else ""
    )
    runs = next((peer.runs for peer in side.peers if peer.turns), [])
    often = f"; {_number(len(runs), 'run')} of {_number(len(runs[0]), 'round')}" if runs else ""
    return f"{side.name}: {size}{side.about}{often}"


def _number(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def millions(n: int) -> str:
    """A number of parameters."""
    return f"{n / 1e6:.1f} M" if n >= 1e5 else f"{n:,}"


def ours(side: Side) -> Measured | None:
    """The first of dualopt's."""
    return next((peer for peer in side.peers if peer.family == "dualopt"), None)


def _cell(spread: Spread | None) -> str:
    return NONE if spread is None else str(spread)


def _label(peer: Measured) -> str:
    mine = peer.name.startswith(("dualopt", "stream", "products", "no optimizer", "import"))
    return peer.name if mine or not peer.version else f"{peer.name} {peer.version}"


def _present(side: Side) -> Iterator[Measured]:
    yield from (peer for peer in side.peers if peer.status == OK)


def ordered(side: Side) -> list[Measured]:
    """The peers with turns, the fastest first, by what is shown: ratios within rounds."""
    found = [peer for peer in _present(side) if peer.turns]
    base = side.floor or (found[0] if found else None)
    times = {peer.name: ratio(peer, base) for peer in found}
    return sorted(found, key=lambda p: spread.middle if (spread := times[p.name]) else 0.0)


def _missing(side: Side) -> tuple[str, ...]:
    """One sentence for each peer that has no numbers."""
    words = {"absent": "does not run here", "failed": "failed", "died": "died"}
    return tuple(f"{p.name} {words[p.status]}: {p.reason}." for p in side.peers if p.status != OK)


def _steps(side: Side) -> Table:
    """Time of dualopt over each peer's, and of each over the floor's; the fastest first."""
    first, floor = ours(side), side.floor
    name = "dualopt" if first is None else first.name
    columns = ("", f"{name} / it", f"it / {floor.name}" if floor else "", "same first step")
    rows = []
    for peer in ordered(side):
        mine = _cell(ratio(first, peer)) if peer is not first else "1"
        against = _cell(ratio(peer, floor)) if floor is not None and peer is not floor else "1" if floor else ""
        rows.append((_label(peer), mine, against, _same(side, peer)))
    return Table(heading(side), columns, rows, _missing(side))


def _same(side: Side, peer: Measured) -> str:
    if peer.cosine is None:
        return ""
    if peer.name == side.reference:
        return "compared with"
    return f"{peer.cosine:.3f}" + ("" if peer.cosine >= SAME else ", another rule")


def _polar(side: Side) -> Table:
    """Times over torch's Newton-Schulz, or the second peer where that is not among them, and over the products."""
    base = side.peer("torch Muon") or next((p for p in side.peers if p.family == "torch"), None)
    floor = side.floor
    against = base.name if base is not None else ""
    spectra = next((tuple(p.facts) for p in _present(side) if p.family != "floor" and p.facts), ())
    columns = ("max |σ − 1|, relative error", f"it / {against}", f"it / {floor.name if floor else ''}", *spectra)
    rows = []
    for peer in ordered(side):
        errors = [" ".join(f"{e:.2g}" for e in peer.facts.get(s, ())) for s in spectra]
        times = (_cell(ratio(peer, other)) if peer is not other else "1" for other in (base, floor))
        rows.append((_label(peer), *times, *errors))
    return Table(heading(side), columns, rows, _missing(side))


def _start(side: Side) -> Table:
    """Phases in units of an import: of what the reference builds, if that is a module, else of what it needs."""
    unit = side.peer(side.reference)
    modules = side.rule == "import"
    key, keys = ("build", ("build",)) if modules else ("import", ("import", "build", "first", "second"))
    names = {"import": "import", "build": "build", "first": "first step", "second": "second step"}
    columns = ("", f"it / {side.reference}") if modules else ("", *(f"{names[k]} / import of torch" for k in keys))
    rows = [(_label(p), *(_cell(relative(p, k, unit, key)) for k in keys)) for p in _present(side)]
    return Table(heading(side), columns, rows, _missing(side))


def _life(side: Side) -> Table:
    """How many times code was compiled again."""
    steps = max((sum(map(len, run)) + 3 for p in side.peers for run in p.runs), default=0)
    rows = [(p.name, str(p.facts.get("recompiles", NONE))) for p in _present(side)]
    return Table(heading(side), ("", f"compiled again in {steps:,} steps"), rows, _missing(side))


def scaling(record: Record) -> Table | None:
    """Cost against size; the cost per parameter in units of that at the middle size."""
    sides = [side for side in record.cases if side.name.startswith("scale ")]
    costs = {side.name: _cost(side) for side in sides}
    known = [side for side in sides if costs[side.name] is not None]
    if not known:
        return None
    unit = costs[known[len(known) // 2].name] or 1.0
    columns = ("parameters", "dualopt / stream", "dualopt / torch fused", "per parameter", "first step / smallest")
    first = phase(ours(known[0]), "first")
    rows = []
    for side in known:
        own, compiled = ours(side), phase(ours(side), "first")
        relative = compiled.middle / first.middle if compiled and first else None
        rows.append(
            (
                millions(side.parameters),
                _cell(ratio(own, side.floor)),
                _cell(ratio(own, side.peer("torch fused"))),
                digits((costs[side.name] or 0.0) / unit),
                NONE if relative is None else digits(relative),
            )
        )
    title = "Cost against size: AdamW on GPTs of 148 tensors, each started with an empty cache of compiled code"
    return Table(title, columns, rows, tuple(note for side in sides for note in _missing(side)))


def _cost(side: Side) -> float | None:
    """Seconds per parameter of a step of dualopt's."""
    own = ours(side)
    return median(own.turns) / side.parameters if own is not None and own.status == OK and own.turns else None
