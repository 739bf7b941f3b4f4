"""Recipes by somebody who means harm: a clean error or a valid object, in little time and memory, and nothing else.

Every test counts how far its examples got.
"""

from __future__ import annotations

import contextlib
import tomllib
from collections import Counter as Tally
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt import Count, Group, Recipe
from dualopt.catalog import ENTRIES
from dualopt.coordinates import COORDINATES
from dualopt.counts import UNITS
from dualopt.errors import DualoptError
from dualopt.plan import Plan
from dualopt.schedules import SHAPES
from dualopt.workload.model import GPTConfig, parameter_shapes

from .fuzz import EXAMPLES, FUZZ, NUMBERS, VALUES, WORDS, cheap, mutated

ROOT = Path(__file__).parents[1]
TEXTS = [p.read_bytes() for p in sorted([*ROOT.glob("recipes/*.toml"), *ROOT.glob("dualopt/workload/*.toml")])]
KEYS = st.one_of(st.sampled_from(["name", "match", "ndim", "orientation", "view", "blocks", "optional"]), WORDS)
LIKELY = st.one_of(
    st.floats(0, 1e9), st.integers(0, 10**9), st.booleans(), st.sampled_from(["cautious", "direct", "spectral"]), VALUES
)


def fitting(key: str) -> st.SearchStrategy[Any]:
    """Values of a coordinate that are often right."""
    one = COORDINATES[key]
    if one.kind == "switch":
        return st.booleans()
    if one.kind == "choice":
        return st.sampled_from(one.choices)
    return st.one_of(st.floats(one.low, min(one.high, 1e9)), st.integers(1, 9), NUMBERS)


GROUPS = st.builds(
    lambda name, own, odd: {"optimizer": name, **own, **odd},
    st.one_of(st.sampled_from(list(ENTRIES)), VALUES),
    st.dictionaries(st.sampled_from(list(COORDINATES)), LIKELY, max_size=5),
    st.dictionaries(KEYS, VALUES, max_size=1),
)
SCHEDULE = st.dictionaries(
    st.sampled_from(["shape", "warmup", "total", "decay", "floor", "drives"]),
    st.one_of(st.sampled_from([*SHAPES, "step", "both"]), LIKELY),
    max_size=5,
)
COUNT = st.dictionaries(
    st.sampled_from(["unit", "per_update", "samples_per_epoch", "tokens_per_sample"]),
    st.one_of(st.sampled_from(UNITS), st.integers(1, 10**6), VALUES),
    max_size=4,
)
PLAIN = st.sampled_from([{"optimizer": name} for name in ENTRIES])
TABLES = st.one_of(
    VALUES,
    st.fixed_dictionaries(
        {"group": st.one_of(st.lists(st.one_of(PLAIN, GROUPS), min_size=1, max_size=2), VALUES)},
        optional={
            "count": st.one_of(COUNT, VALUES),
            "schedule": st.one_of(SCHEDULE, VALUES),
            "shrink_schedule": st.one_of(SCHEDULE, VALUES),
            "nonfinite": st.one_of(st.sampled_from(["raise", "skip"]), VALUES),
        },
    ),
)


MODELS: tuple[Mapping[str, tuple[int, ...]], ...] = (
    {"w": (3, 4), "b": (4,), "k": (2, 3, 2, 2), "s": (), "e": (0, 2)},
    {"w": (3, 4), "v": (4, 3), "z": (2, 2)},
    parameter_shapes(GPTConfig(layers=1, width=8, heads=2, context=4)),
)


def carried_out(recipe: Recipe, reached: Tally[str]) -> None:
    """A recipe that exists comes back from its text, and has scalars or a clean error on any model."""
    reached["valid"] += 1
    again = Recipe.from_dict(tomllib.loads(recipe.to_toml()))
    assert again == recipe
    assert again.digest() == recipe.digest()
    for shapes in MODELS:
        with contextlib.suppress(DualoptError):
            plan = Plan(recipe, shapes)
            reached["planned"] += 1
            for count in (None, 1, 2**40):
                proposal = plan.propose(count, shapes)
                assert all(isinstance(x, float) for k in proposal.scalars.values() for x in k.values())
                plan.commit(proposal)
            reached["updated"] += 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of default half-lives
def test_recipe_files(tmp_path: Path) -> None:
    reached, path = Tally[str](), tmp_path / "recipe.toml"

    @FUZZ
    @given(content=st.one_of(mutated(st.sampled_from(TEXTS)), mutated(st.binary(max_size=60))))
    def run(content: bytes) -> None:
        path.write_bytes(content)
        with cheap(), contextlib.suppress(DualoptError):
            carried_out(Recipe.load(path), reached)

    run()
    assert reached["valid"] > EXAMPLES // 20
    assert reached["updated"] > EXAMPLES // 40


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_recipe_tables() -> None:
    reached = Tally[str]()

    @FUZZ
    @given(table=TABLES)
    def run(table: Any) -> None:
        with cheap(), contextlib.suppress(DualoptError):
            carried_out(Recipe.from_dict(table), reached)

    run()
    assert reached["updated"] > EXAMPLES // 80


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_likely_groups() -> None:
    """Less is refused at the door, more gets as far as an update."""
    reached, rest = Tally[str](), Group("sgdm", name="rest", optional=True)

    @FUZZ
    @given(name=st.sampled_from(list(ENTRIES)), group=st.data())
    def run(name: str, group: st.DataObject) -> None:
        keys = group.draw(st.sets(st.sampled_from(sorted(ENTRIES[name].uses)), max_size=3))
        own = {key: group.draw(fitting(key)) for key in sorted(keys)}
        with cheap(), contextlib.suppress(DualoptError):
            carried_out(Recipe((Group(name, own), rest), Count("tokens", 64)), reached)

    run()
    assert reached["updated"] > EXAMPLES // 5


def test_recipes_of_any_size(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole
    with cheap(), pytest.raises(DualoptError, match="too large"):
        Recipe.load(path)
