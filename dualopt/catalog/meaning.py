"""Which combinations mean nothing, and why, as data: `catalog.check` refuses them, `dualopt list` prints them.

Three tables: the rules here, of coordinates against each other; and of every motion in `ways` the rows that it does
not take (`refuses`) and the coordinates that have no place under it (`without`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..coordinates import COORDINATES
from ..directions.polar import BFLOAT16, EXACT, FAST, FORMS, NORMALISES, PRESETS
from ..directions.symmetry import AFTER, POWERS
from ..motion import ROTATIONAL
from ..noise import Noise, noise_of
from .entry import Entry, Parts
from .ways import WAYS

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Meeting:
    """What a rule judges: all coordinates of a row (None: optional), the stated ones, and the parts they make."""

    full: Options
    stated: Options
    parts: Parts


@dataclass(frozen=True)
class Rule:
    """A combination without meaning.

    Attributes:
        over: the coordinates that it is about, first the one to drop; only a row that uses all of them can break it.
        what: the combination, in words.
        why: what is wrong with it.
        example: coordinates that break it.
        broken: whether it is there.
        says: the error; a format string over all coordinates.
    """

    over: tuple[str, ...]
    what: str
    why: str
    example: Options
    broken: Callable[[Meeting], bool]
    says: str


def _without_second(key: str) -> Rule:
    return Rule(
        over=(key, "second_memory"),
        what=f"{key} with second_memory = false",
        why="there is no v then",
        example={key: 1e3 if key.endswith("half_life") else 1e-6, "second_memory": False},
        broken=lambda met: key in met.stated and not met.full["second_memory"],
        says=f"{key} belongs to second_memory = true, but second_memory = false",
    )


def _iterated(key: str, example: object) -> tuple[Rule, Rule, Rule]:
    return (
        Rule(
            over=(key, "polar"),
            what=f"{key} with polar = {' or '.join(map(repr, PRESETS))}",
            why="a preset says how its set is iterated",
            example={key: example, "polar": FAST},
            broken=lambda met: key in met.stated and met.stated.get("polar") in PRESETS,
            says="polar = {polar!r} states " + f"{key!r}, too; drop it, or name a set of coefficients instead",
        ),
        Rule(
            over=(key, "polar"),
            what=f"{key} with polar = {EXACT!r}",
            why="the exact polar factor is not iterated",
            example={key: example, "polar": EXACT},
            broken=lambda met: key in met.stated and met.full["polar"] == EXACT,
            says=f"polar = {EXACT!r} is not iterated; drop {key!r}",
        ),
        Rule(
            over=(key, "norm"),
            what=f"{key} unless norm is one of the spectral ones",
            why="the others have no polar factor",
            example={key: example, "norm": "column"},
            broken=lambda met: key in met.stated and not str(met.full["norm"]).startswith("spectral"),
            says="norm = {norm!r} has no polar factor; " + f"drop {key!r}",
        ),
    )


# A stated coordinate -> those that it takes the place of.
INSTEAD = {"steady_rms": ("step",)}
TURNS = {"motion": ROTATIONAL}


RULES = (
    Rule(
        over=("strict_mask", "shrink"),
        what="strict_mask unless shrink = 'cautious'",
        why="it says which entries the cautious mask takes",
        example={"strict_mask": True, "shrink": "direct"},
        broken=lambda met: met.full["strict_mask"] is not None and met.full["shrink"] != "cautious",
        says="strict_mask belongs to shrink = 'cautious', but shrink = {shrink!r}",
    ),
    Rule(
        over=("polar", "norm"),
        what="polar unless norm is one of the spectral ones",
        why="the others have no polar factor",
        example={"polar": "quintic", "norm": "column"},
        broken=lambda met: "polar" in met.stated and not str(met.full["norm"]).startswith("spectral"),
        says="norm = {norm!r} has no polar factor; drop 'polar'",
    ),
    Rule(
        over=("nuclear_power", "order"),
        what=f"nuclear_power with order = {AFTER!r}",
        why="rows are brought to length 1 last, so ν^α cancels",
        example={"nuclear_power": next(iter(POWERS)), "order": AFTER},
        broken=lambda met: "nuclear_power" in met.stated and met.full["order"] == AFTER,
        says="order = {order!r} brings rows to length 1, so ν^α cancels; drop 'nuclear_power'",
    ),
    *_iterated("polar_form", FORMS[1]),
    *_iterated("polar_scaling", NORMALISES[1]),
    *_iterated("polar_work", BFLOAT16),
    *_iterated("iterations", 3),
    _without_second("second_memory_half_life"),
    _without_second("eps"),
    Rule(
        over=("solve", "target_rms"),
        what="solve without target_rms",
        why="it names what the target is reached by",
        example={"solve": "shrink"},
        broken=lambda met: "solve" in met.stated and met.full["target_rms"] is None,
        says="solve names what target_rms is reached by; state target_rms, or drop 'solve'",
    ),
    Rule(
        over=("shrink_half_life", "solve"),
        what="shrink_half_life with solve = 'shrink'",
        why="the shrink of every update is solved for",
        example={"solve": "shrink", "target_rms": 0.9, "shrink_half_life": 1e4},
        broken=lambda met: met.full["solve"] == "shrink" and "shrink_half_life" in met.stated,
        says="solve = 'shrink' finds the shrink of every update; drop 'shrink_half_life'",
    ),
    Rule(
        over=("solve", "shrink"),
        what="solve = 'shrink' with shrink = 'corrected'",
        why="the shrink of every update is solved for",
        example={"solve": "shrink", "target_rms": 0.9, "shrink": "corrected"},
        broken=lambda met: met.full["solve"] == "shrink" and met.full["shrink"] == "corrected",
        says="solve = 'shrink' finds the shrink of every update; shrink is direct or cautious then",
    ),
    Rule(
        over=("steady_rms", "step"),
        what="steady_rms with step",
        why="it takes the place of the step",
        example={"steady_rms": 0.9, "step": 0.1, "shrink_half_life": 1e4},
        broken=lambda met: "steady_rms" in met.stated and "step" in met.stated,
        says="steady_rms takes the place of 'step'; drop one of them",
    ),
    Rule(
        over=("steady_rms", "target_rms"),
        what="steady_rms with target_rms",
        why="they are two ways to an RMS",
        example={"steady_rms": 0.9, "target_rms": 0.9, "shrink_half_life": 1e4},
        broken=lambda met: "steady_rms" in met.stated and "target_rms" in met.stated,
        says="steady_rms and target_rms are two ways to an RMS; drop one of them",
    ),
    Rule(
        over=("steady_rms", "shrink"),
        what="steady_rms with shrink = 'cautious'",
        why="it derives the step for a shrink of all entries",
        example={"steady_rms": 0.9, "shrink": "cautious", "shrink_half_life": 1e4},
        broken=lambda met: "steady_rms" in met.stated and met.full["shrink"] == "cautious",
        says="steady_rms derives the step for a shrink of all entries, and shrink = 'cautious' leaves some out",
    ),
    Rule(
        over=("steady_rms",),
        what="steady_rms of a row whose updates have no known size",
        why="their size is the gradient's",
        example={"steady_rms": 0.9, "shrink_half_life": 1e4},
        broken=lambda met: "steady_rms" in met.stated and not _noise(met).sized,
        says="steady_rms needs an update of known size, and that of this row is the gradient's; state a step",
    ),
    Rule(
        over=("steady_rms", "shrink_half_life"),
        what="steady_rms without a finite shrink_half_life",
        why="without shrink there is no steady state",
        example={"steady_rms": 0.9},
        broken=lambda met: "steady_rms" in met.stated and met.full["shrink_half_life"] == math.inf,
        says="steady_rms needs a finite shrink_half_life: without shrink there is no steady state",
    ),
    Rule(
        over=("shrink_half_life", "motion"),
        what="motion = 'rotational' without a finite shrink_half_life",
        why="without shrink there is no steady state whose angle it could turn by",
        example=TURNS | {"shrink_half_life": math.inf},
        broken=lambda met: met.full["motion"] == ROTATIONAL and met.full["shrink_half_life"] == math.inf,
        says="motion = 'rotational' needs a finite shrink_half_life: without shrink there is no steady state",
    ),
    Rule(
        over=("correlation", "motion"),
        what="correlation without motion = 'rotational' or steady_rms",
        why="nothing else reads it",
        example={"correlation": "linear"},
        broken=lambda met: (
            "correlation" in met.stated and met.full["motion"] != ROTATIONAL and "steady_rms" not in met.stated
        ),
        says="correlation is used by motion = 'rotational' and by steady_rms; drop it",
    ),
    Rule(
        over=("correlation",),
        what="correlation of a direction without signs",
        why="the correlation of other directions is linear",
        example=TURNS | {"correlation": "linear"},
        broken=lambda met: "correlation" in met.stated and not _noise(met).signs,
        says="correlation is a choice for directions that are signs; drop it",
    ),
)


def _noise(met: Meeting) -> Noise:
    return noise_of(met.parts[2], {key: value for key, value in met.full.items() if value is not None})


def applicable(uses: Options) -> list[Rule]:
    """The rules that a row with these coordinates can break."""
    return [rule for rule in RULES if all(key in uses for key in rule.over)]


def broken(entry: Entry, full: Options, stated: Options) -> list[Rule]:
    """The rules that a row breaks with all of its coordinates, of which some are stated."""
    met = Meeting(full, stated, _parts(entry, full))
    return [rule for rule in applicable(full) if rule.broken(met)]


def not_taken(entry: Entry, full: Options) -> str | None:
    """Why the motion in `full` does not take the row; None if it does."""
    return WAYS[full["motion"]].refusal(*_parts(entry, full))


def _parts(entry: Entry, full: Options) -> Parts:
    return entry.parts({key: value for key, value in full.items() if value is not None})


def _choices(entry: Entry, uses: Options) -> dict[str, tuple[str, ...]]:
    """{coordinate of the row itself: what may be chosen besides its default}."""
    kinds = {key: COORDINATES[key].choices for key in entry.own if key in uses and COORDINATES[key].kind == "choice"}
    return {k: tuple(v for v in entry.only.get(k, every) if v != uses[k]) for k, every in kinds.items()}


@dataclass(frozen=True)
class Meaningless:
    """A combination of a row without meaning, and why, in words."""

    what: str
    why: str


def of(entry: Entry) -> list[Meaningless]:
    """All that means nothing with this row: motions, coordinates under the others, and combinations."""
    found: list[Meaningless] = []
    rules: list[Rule] = []
    reasons: dict[tuple[str, str], list[str]] = {}  # (coordinate, why) -> motions
    for motion, way in WAYS.items():
        uses = entry.under(motion)
        why = not_taken(entry, uses)
        if why is not None:
            found.append(Meaningless(f"motion = {motion!r}", why))
            continue
        for key, choices in _choices(entry, uses).items():
            refused = {value: not_taken(entry, {**uses, key: value}) for value in choices}
            for reason in dict.fromkeys(why for why in refused.values() if why is not None):
                named = ", ".join(repr(value) for value, why in refused.items() if why == reason)
                found.append(Meaningless(f"{key} = {named} with motion = {motion!r}", reason))
        for key, reason in way.without.items():
            if key in entry.own or any(key in other.defaults for other in WAYS.values()):
                reasons.setdefault((key, reason), []).append(repr(motion))
        rules += [rule for rule in applicable(uses) if rule not in rules]
    together: dict[tuple[str, str], list[str]] = {}  # (motions, why) -> coordinates
    for (key, reason), motions in reasons.items():
        together.setdefault((" or ".join(motions), reason), []).append(key)
    found += [Meaningless(f"{', '.join(k)} with motion = {motions}", why) for (motions, why), k in together.items()]
    found += [
        Meaningless(f"{k} other than {', '.join(few)}", f"it is not for {entry.name}") for k, few in entry.only.items()
    ]
    return found + [Meaningless(rule.what, rule.why) for rule in rules]
