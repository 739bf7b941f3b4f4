"""Every row × every motion × every shrink × every norm: it runs, or a recipe says what is wrong with it.

The combinations come from the tables of the catalogue alone, so that rows, motions, coordinates and rules are
covered by being there. Of a row under a motion these are tried:

    all kinds of shrink, strict masks and targets; all norms with each of these
    every other choice and switch, one at a time, away from its default
    every optional number, and every number whose default is 0, stated
    an example of every rule that it can break

A combination that is refused names the row or the coordinate, and why; any other makes 12 updates with varying Δτ on
small odd matrices, a stack and an empty parameter (vectors for rows that are for vectors), and stays finite while
everything in it moves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from dualopt import ENTRIES, replay
from dualopt.catalog import complete, least_ndim
from dualopt.catalog.meaning import RULES, applicable
from dualopt.catalog.meaning import of as meaningless
from dualopt.catalog.ways import WAYS
from dualopt.coordinates import COORDINATES
from dualopt.directions.polar import EXACT
from dualopt.errors import RecipeError
from dualopt.recipe import Group
from dualopt.shrink import KINDS
from dualopt_conformance import inputs

UPDATES = 12  # each kind of gradient more than once
STEP = 0.02
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "matrices": {"odd": (3, 5), "stack": (2, 3, 2), "empty": (3, 0)},
    "kernels": {"odd": (3, 2, 2), "stack": (2, 3, 2), "empty": (3, 0, 2)},
    "vectors": {"odd": (5,), "stack": (2, 3), "empty": (0,)},
}
SHRINKS: tuple[dict[str, Any], ...] = (
    {},
    *({"shrink": kind, "shrink_half_life": 2e4} for kind in KINDS),
    {"shrink": "cautious", "strict_mask": True, "shrink_half_life": 2e4},
    {"target_rms": 0.9},
    {"shrink": "cautious", "target_rms": 0.9, "shrink_half_life": 2e4},
)
PRODUCT = ("shrink", "strict_mask", "shrink_half_life", "target_rms", "norm", "motion")  # varied together


def alternatives(key: str, default: Any) -> list[Any]:
    """Other values of a coordinate than its default; a library's factorisation is not for this tier."""
    found = COORDINATES[key]
    if found.kind == "switch":
        return [value for value in (True, False) if value != default]
    if found.kind == "choice":
        return [value for value in found.choices if value not in (default, EXACT)]
    if default is None or default == 0:
        middle = 0.5 * (found.low + found.high) if math.isfinite(found.high) else found.low + 0.5
        middle = found.low + 2 if found.kind == "count" else middle  # a larger count is that much more work
        return [5e3 if found.kind == "half-life" else middle]
    return []


def combinations(name: str, motion: str) -> Iterator[tuple[dict[str, Any], bool]]:
    """(options, whether they are of the full product only) of a row under a motion.

    A part of the product is enough from day to day: a row in all its options as published, and as it stands under
    every other motion.
    """
    uses, own = ENTRIES[name].under(motion), motion == ENTRIES[name].motion
    norms = COORDINATES["norm"].choices if "norm" in uses else (None,)
    plain = {} if own else {"motion": motion}
    for norm, shrink in itertools.product(norms, SHRINKS):
        usual = (norm == uses.get("norm") and (own or not shrink)) or (own and not shrink)
        yield plain | shrink | ({} if norm is None or norm == uses.get("norm") else {"norm": norm}), not usual
    for key, default in uses.items():
        if key not in PRODUCT:
            for value in alternatives(key, default):
                yield plain | {key: value}, not own
    for rule in applicable(uses):
        yield plain | dict(rule.example), not own


def named(options: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items()) or "as published"


CASES = [
    pytest.param(name, options, id=f"{name}: {named(options)}", marks=[pytest.mark.long] if full else [])
    for name in ENTRIES
    for motion in WAYS
    for options, full in combinations(name, motion)
]


def refusal(name: str, options: dict[str, Any]) -> str | None:
    """What a recipe says against it; None if nothing."""
    try:
        Group(name, options)
    except RecipeError as error:
        return str(error)
    return None


@cache
def given(shapes: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Parameters and gradients; `replay` leaves what it is given as it is."""
    named = SHAPES[shapes]
    grads = inputs.gradients(named, UPDATES + 3, kinds=("bell", "six_decades", "zeros"))
    return inputs.parameters(named), list(grads)


def ran(name: str, options: dict[str, Any]) -> None:
    """12 updates; AssertionError unless everything is finite and moves."""
    full = complete(name, options)
    group = {"optimizer": name, **({"step": STEP} if "step" in full else {}), **options}
    vectors = least_ndim(name, full) == 1
    conv = options.get("norm") == "spectral_conv"
    params, grads = given("vectors" if vectors else "kernels" if conv else "matrices")
    several = full.get("estimator", "std") != "std"  # it is made of microbatches
    updates = [grads[t : t + 4] if several else grads[t] for t in range(UPDATES)]
    found = replay(group, params, updates, inputs.increments(UPDATES))
    least = 1 if "target_rms" in options else UPDATES // 2  # η solved is 0 where u grows weights too large already
    for key, x in params.items():
        trail = [x, *(p[key] for p in found.params)]
        assert all(np.isfinite(y).all() for y in trail), key
        assert all(np.isfinite(y).all() for s in found.state for y in s[key].values()), key
        moved = sum(not np.array_equal(one, other) for one, other in itertools.pairwise(trail))
        assert moved >= least or x.size == 0, f"{key} moved in {moved} of {UPDATES} updates"


@pytest.mark.parametrize(("name", "options"), CASES)
def test_it_runs_or_is_refused_with_a_reason(name: str, options: dict[str, Any]) -> None:
    says = refusal(name, options)
    if says is None:
        ran(name, options)
    else:
        assert name in says or any(key in says for key in options), says


def test_the_catalogue_lists_what_is_refused() -> None:
    """Whatever a recipe refuses stands in the tables with its reason: that is what `dualopt list` prints."""
    unlisted = []
    for case in CASES:
        name, options = case.values
        says = refusal(name, options)  # type: ignore[arg-type]
        if says is not None and " does not use '" not in says:
            reasons = [one.why for one in meaningless(ENTRIES[name])]  # type: ignore[index]
            reasons += [rule.says.partition("{")[0] for rule in RULES]
            if not any(reason and reason in says for reason in reasons):
                unlisted.append(says)
    assert not unlisted, "\n".join(dict.fromkeys(unlisted))


def test_the_product_is_of_everything() -> None:
    """Every row runs as published, every motion moves some row, and every rule is broken by some combination."""
    outcomes = [(case.values[0], case.values[1], refusal(*case.values)) for case in CASES]  # type: ignore[misc]
    accepted = [(name, options) for name, options, says in outcomes if says is None]
    assert {name for name, options in accepted if not options} == set(ENTRIES)
    assert {str(options.get("motion", ENTRIES[name].motion)) for name, options in accepted} == set(WAYS)
    refused = [says for _, _, says in outcomes if says is not None]
    for rule in RULES:
        assert any(rule.says.partition("{")[0] in says for says in refused), rule.what
    assert len(refused) < len(outcomes)
