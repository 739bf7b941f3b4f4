"""Which coordinates of a row mean something together, as a table.

`catalog.check` refuses what breaks a rule, and `dualopt list` prints the rules. Which rows a motion takes, and which
coordinates have no meaning under it, stands with the motion in `ways`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """A combination without meaning.

    Attributes:
        over: the coordinates that it is about, first the one to drop; only a row that uses all of them can break it.
        what: the combination, in words.
        why: what is wrong with it.
        example: coordinates that break it.
        broken: (all coordinates, the stated ones) -> whether it is there.
        says: the error; a format string over all coordinates.
    """

    over: tuple[str, ...]
    what: str
    why: str
    example: Options
    broken: Callable[[Options, Options], bool]
    says: str


def _without_second(key: str) -> Rule:
    return Rule(
        over=(key, "second_memory"),
        what=f"{key} with second_memory = false",
        why="there is no v then",
        example={key: 1e3 if key.endswith("half_life") else 1e-6, "second_memory": False},
        broken=lambda full, stated: key in stated and not full["second_memory"],
        says=f"{key} belongs to second_memory = true, but second_memory = false",
    )


RULES = (
    Rule(
        over=("strict_mask", "shrink"),
        what="strict_mask unless shrink = 'cautious'",
        why="it says which entries the cautious mask takes",
        example={"strict_mask": True, "shrink": "direct"},
        broken=lambda full, stated: full["strict_mask"] is not None and full["shrink"] != "cautious",
        says="strict_mask belongs to shrink = 'cautious', but shrink = {shrink!r}",
    ),
    Rule(
        over=("polar", "norm"),
        what="polar unless norm is one of the spectral ones",
        why="the others have no polar factor",
        example={"polar": "quintic", "norm": "column"},
        broken=lambda full, stated: "polar" in stated and not str(full["norm"]).startswith("spectral"),
        says="norm = {norm!r} has no polar factor; drop 'polar'",
    ),
    _without_second("second_memory_half_life"),
    _without_second("eps"),
)


def broken(full: Options, stated: Options) -> list[Rule]:
    """The rules that these coordinates break: all of a row with their values, and those that are stated."""
    return [rule for rule in applicable(full) if rule.broken(full, stated)]


def applicable(uses: Options) -> list[Rule]:
    """The rules that a row with these coordinates can break."""
    return [rule for rule in RULES if all(key in uses for key in rule.over)]
