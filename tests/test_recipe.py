"""Recipes: every kind of bad input and what its message says, round trips, units, assignment, schedules."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dualopt
from dualopt import ENTRIES, Count, Group, Recipe, Schedule
from dualopt.catalog.meaning import broken, not_taken
from dualopt.convert import files
from dualopt.coordinates import COORDINATES
from dualopt.errors import CountError, RecipeError
from dualopt.motion import MOTIONS
from dualopt.plan import Plan
from dualopt.recipe import NONFINITE
from dualopt.schedules import SHAPES
from dualopt.shrink import KINDS
from dualopt.views import ORIENTATIONS, VIEWS

ROOT = Path(dualopt.__file__).resolve().parent.parent
ADAMW = {"optimizer": "adamw"}
NAN, INF = math.nan, math.inf


# ---- bad input: what is stated -> what the message says


def adamw(**options: Any) -> dict[str, Any]:
    return {"group": [{"optimizer": "adamw", **options}]}


def scionc(**options: Any) -> dict[str, Any]:
    return {"group": [{"optimizer": "scionc", **options}]}


def scheduled(**options: Any) -> dict[str, Any]:
    return {"group": [ADAMW], "schedule": options}


def counted(**options: Any) -> dict[str, Any]:
    return {"group": [ADAMW], "count": options}


BAD: tuple[tuple[dict[str, Any], str], ...] = (
    # names
    ({"groups": [ADAMW]}, r"unknown key 'groups'; did you mean 'group'\?"),
    (counted(units="tokens"), r"\[count\] unknown key 'units'; did you mean 'unit'\?; keys are unit, per_update"),
    (scheduled(shapes="linear"), r"\[schedule\] unknown key 'shapes'; did you mean 'shape'\?"),
    (adamw(memory_halflife=3), r"group 'group 1': unknown key 'memory_halflife'; did you mean 'memory_half_life'"),
    (adamw(name="head", stp=3), r"group 'head': unknown key 'stp'; did you mean 'step'"),
    ({"group": [{"optimizer": "adam"}]}, r"'adam' is not an optimizer; known are sgdm, .*; did you mean 'adamw'"),
    ({"group": [{"optimizer": 3}]}, r"3 is not an optimizer"),
    ({"group": [{"step": 3}]}, r"group 'group 1': names no optimizer; known are sgdm,"),
    (scionc(norm="spectrl"), r"norm = 'spectrl' is not one of spectral, .*; did you mean 'spectral'"),
    (scionc(norm=2), r"norm = 2 is not one of"),
    (
        scionc(polar="newton"),
        r"polar = 'newton' is not one of accurate, fast, exact, quintic, five, polar_express, express_5, express_4",
    ),
    (adamw(shrink="coupled"), r"shrink = 'coupled' is not one of direct, cautious, corrected"),
    (scheduled(shape="cosin"), r"\[schedule\] shape: 'cosin' is not one of .*; did you mean 'cosine'"),
    # units
    (counted(unit="token"), r"\[count\] unit: 'token' is not one of .*; did you mean 'tokens'"),
    (counted(unit="epochs"), r"'epochs' needs samples_per_epoch"),
    (counted(unit="updates", per_update=64), r"an update counts as 1 update, got 64"),
    (counted(unit="tokens", per_update=0.5), r"\[count\] per_update: an update counts a positive whole number"),
    (counted(unit="tokens", per_update=-1), r"\[count\] per_update: .*got -1"),
    # numbers
    *((adamw(memory_half_life=h), r"memory_half_life must be finite and > 0") for h in (0, -1, NAN, -INF, INF)),
    *((adamw(shrink_half_life=h), r"shrink_half_life must be > 0 \(inf means 'never'\)") for h in (-1, NAN, -INF)),
    (adamw(step=10**400), r"step must be finite and >= 0"),
    (adamw(lr=1e-3), r"unknown key 'lr'; in half-lives it is step \(`dualopt convert`"),
    (adamw(weight_decay=0.1), r"unknown key 'weight_decay'; in half-lives it is shrink_half_life"),
    (adamw(match=5), r"match is a list of one or more globs, got 5"),
    (adamw(view="matrix"), r"view is one of stack, conv"),
    (scionc(norm="spectral_conv", view="stack"), r"drop view = 'stack'"),
    ({"group": [{**ADAMW, "shrink": "corrected"}], "schedule": {"drives": "both"}}, r"follows the step by itself"),
    ({"group": [{**ADAMW, "shrink": "corrected"}], "schedule": {"shape": "equal-weight"}}, r"follows the step"),
    ({"group": [{**ADAMW, "shrink": "corrected"}], "shrink_schedule": {}}, r"follows the step by itself"),
    (scheduled(floor=0.5), r"shape = 'constant' does not use 'floor'"),
    (adamw(shrink_half_life=0), r"group 'group 1': shrink_half_life must be > 0"),
    *((adamw(step=x), r"step must be finite and >= 0, got") for x in (-1e-9, NAN, INF)),
    *((adamw(readout=x), r"readout must be in \[0, 1\], got") for x in (-0.1, 1.1, NAN)),
    *((adamw(step=x), r"step is a number, got") for x in ("0.1", True, None, [1])),
    (adamw(eps=0), r"eps must be finite and > 0"),
    (adamw(target_rms=0), r"target_rms must be finite and > 0"),
    (adamw(bias_correction=1), r"bias_correction is true or false, got 1"),
    # combinations
    (adamw(norm="sign"), r"adamw does not use 'norm'; it uses step, memory_half_life, second_memory"),
    (adamw(strict_mask=True), r"strict_mask belongs to shrink = 'cautious', but shrink = 'direct'"),
    (adamw(strict_mask=False, shrink="corrected"), r"strict_mask belongs to shrink = 'cautious'"),
    (scionc(norm="column", polar="quintic"), r"norm = 'column' has no polar factor; drop 'polar'"),
    # schedules
    *((scheduled(shape=s), rf"shape = '{s}' needs 'total'") for s in ("linear", "cosine", "warmup-stable-decay")),
    (scheduled(shape="warmup-stable-decay", total=9), r"needs 'decay'"),
    (scheduled(shape="cosine", total=9, decay=1), r"does not use 'decay'"),
    (scheduled(total=9), r"shape = 'constant' does not use 'total'"),
    (scheduled(shape="linear", total=9, warmup=10), r"warmup \+ decay exceed total"),
    (scheduled(shape="warmup-stable-decay", total=9, warmup=5, decay=5), r"warmup \+ decay exceed total"),
    (scheduled(shape="linear", total=9, floor=1.5), r"floor: the fraction of the peak step that remains, got 1.5"),
    (scheduled(warmup=-1), r"warmup: must be a finite number >= 0, got -1"),
    (scheduled(warmup=True), r"warmup: must be a finite number >= 0, got True"),
    (scheduled(shape="linear", total=NAN), r"total: must be a finite number"),
    (scheduled(shape="equal-weight", warmup=1), r"has neither warmup nor floor"),
    (scheduled(drives="shrink"), r"drives: 'shrink' is neither 'step' nor 'both'"),
    ({**scheduled(drives="both"), "shrink_schedule": {}}, r"already drives the shrink; drop \[shrink_schedule\]"),
    ({**scheduled(shape="equal-weight"), "shrink_schedule": {}}, r"already drives the shrink"),
    ({"group": [ADAMW], "shrink_schedule": {"drives": "both"}}, r"is a plain shape without 'drives'"),
    # groups
    ({}, r"no \[\[group\]\]: nothing would be trained"),
    ({"group": []}, r"no \[\[group\]\]"),
    ({"group": ADAMW}, r"written \[\[group\]\], with two brackets"),
    ({"group": ["adamw"]}, r"a table of keys and values, got 'adamw'"),
    ({"group": [{**ADAMW, "name": "a"}] * 2}, r"two groups are called 'a'"),
    (adamw(match=[]), r"match is a list of one or more globs"),
    (adamw(match=[3]), r"match is a list of one or more globs, got \[3\]"),
    (adamw(ndim=-1), r"ndim is a whole number >= 0, got -1"),
    (adamw(ndim=True), r"ndim is a whole number >= 0"),
    (adamw(name=""), r"group name: a non-empty string"),
    (adamw(orientation="transposed"), r"orientation is one of out_in, in_out"),
    ({**adamw(), "nonfinite": "ignore"}, r"nonfinite is one of raise, skip, trust, got 'ignore'"),
    ({"group": [ADAMW], "count": 3}, r"\[count\] is a table, got 3"),
)


@pytest.mark.parametrize(("table", "message"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_input(table: dict[str, Any], message: str) -> None:
    with pytest.raises((RecipeError, CountError), match=message):
        Recipe.from_dict(table)


MODEL = {"embed.weight": (9, 4), "block.0.weight": (4, 4), "block.0.bias": (4,), "conv": (8, 3, 5), "scale": ()}
UNFIT: tuple[tuple[list[dict[str, Any]], str], ...] = (
    ([{**ADAMW, "match": "block.*"}], r"no group matches 'embed.weight' \(9, 4\), 'conv' .*; add a last group"),
    ([{**ADAMW, "ndim": 1}], r"no group matches 'embed.weight'"),
    (
        [{**ADAMW, "name": "first"}, {**ADAMW, "name": "late", "match": ["embed*"]}],
        r"group 'late' is empty: no parameter is left for embed\*",
    ),
    ([{**ADAMW, "match": ["head"]}, {**ADAMW, "name": "rest"}], r"'group 1' is empty"),
    ([{"optimizer": "muon"}], r"muon needs a matrix, but got 'block.0.bias' \(4,\), 'scale' \(\); set ndim or match"),
    (
        [{"optimizer": "scionc", "norm": "column"}],
        r"norm = 'column' needs a matrix, but got 'block.0.bias' \(4,\)",
    ),
    (
        [{"optimizer": "scionc", "norm": "spectral_conv"}],
        r"norm = 'spectral_conv' needs a convolution kernel, but got 'embed.weight' \(9, 4\)",
    ),
    ([{**ADAMW, "orientation": "in_out"}], r"orientation = 'in_out' needs a matrix, but got 'block.0.bias'"),
)


@pytest.mark.parametrize(("groups", "message"), UNFIT, ids=[str(i) for i in range(len(UNFIT))])
def test_recipes_that_do_not_fit_the_model(groups: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({"group": groups}).assign(MODEL)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[count\n", "not valid TOML"),
        (b"nonfinite = 1979-05-27\xff", "not valid TOML"),
        (b"[[group]]\noptimizer = 'adamw'\noptimizer = 'lion'", "not valid TOML"),
        (b"[[group]]\noptimizer = 'adamw'\nstep = -1", "step must be finite and >= 0, got -1"),
        (b"[count]\nunit = 'days'\n[[group]]\noptimizer = 'adamw'", "'days' is not one of"),
        (None, "cannot be read"),
    ],
)
def test_errors_in_files_name_the_file(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


# ---- round trips and digests


def values(name: str) -> st.SearchStrategy[Any]:
    c = COORDINATES[name]
    if c.kind == "switch":
        return st.booleans()
    if c.kind == "choice":
        return st.sampled_from(c.choices)
    if c.kind == "half-life":
        finite = st.floats(0, exclude_min=True, allow_infinity=False) | st.integers(1, 10**9)
        return finite | st.just(INF) if c.never else finite
    if c.kind == "count":
        return st.integers(int(c.low), int(c.high))
    return st.floats(c.low, min(c.high, 1e300), exclude_min=c.open_low)


def _of(row: str, key: str) -> st.SearchStrategy[Any]:
    only = ENTRIES[row].only.get(key)
    return st.sampled_from(only) if only else values(key)


@st.composite
def groups(draw: st.DrawFn, name: str) -> dict[str, Any]:
    row = draw(st.sampled_from(list(ENTRIES)))
    motion = draw(st.sampled_from(MOTIONS))
    if not_taken(ENTRIES[row], ENTRIES[row].under(motion)) is not None:
        motion = ENTRIES[row].motion
    uses = ENTRIES[row].under(motion)
    chosen = draw(st.sets(st.sampled_from(sorted(uses.keys() - {"motion"}))))
    options = {key: draw(_of(row, key)) for key in sorted(chosen)}
    options |= {"motion": motion} if motion != ENTRIES[row].motion or draw(st.booleans()) else {}
    if not_taken(ENTRIES[row], {**uses, **options}) is not None:  # an estimator reads more than the gradient
        options.pop("estimator")
    while rules := broken(ENTRIES[row], {**uses, **options}, options):  # what is dropped may leave another alone
        del options[rules[0].over[0]]
    own = {"name": name, "optimizer": row, "match": draw(st.lists(st.text(min_size=1), min_size=1, max_size=3))}
    if draw(st.booleans()):
        own |= {"ndim": draw(st.integers(0, 5)), "orientation": draw(st.sampled_from(ORIENTATIONS))}
    if options.get("norm") != "spectral_conv" and draw(st.booleans()):
        own["view"] = draw(st.sampled_from(VIEWS))
    if options.get("norm") != "spectral_conv" and draw(st.booleans()):
        by, flags = draw(st.sampled_from(["parts", "size"])), draw(st.tuples(st.booleans(), st.booleans()))
        own["blocks"] = {"axis": draw(st.integers(0, 3)), by: draw(st.integers(1, 10**6))}
        own["blocks"] |= dict(zip(("interleaved", "joined"), flags, strict=True))
    if draw(st.booleans()):
        own["optional"] = draw(st.booleans())
    return own | options


SCHEDULES = st.one_of(
    st.builds(dict, warmup=st.floats(0, 9), drives=st.sampled_from(["step", "both"])),
    st.builds(dict, shape=st.sampled_from(["linear", "cosine"]), total=st.floats(10, 1e9), floor=st.floats(0, 1)),
    st.just({"shape": "warmup-stable-decay", "warmup": 1, "total": 9.5, "decay": 3}),
    st.builds(dict, shape=st.sampled_from([s for s in SHAPES if s.startswith("equal")])),
)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.text(min_size=1), min_size=1, max_size=3, unique=True))
    table: dict[str, Any] = {
        "group": [draw(groups(name)) for name in names],
        "schedule": draw(SCHEDULES),
        "nonfinite": draw(st.sampled_from(NONFINITE)),
        "count": {"unit": "tokens", "per_update": draw(st.integers(1, 10**12)), "tokens_per_sample": 512},
    }
    plain = table["schedule"].get("drives") != "both" and not table["schedule"].get("shape", "").startswith("eq")
    own = {"shrink_schedule": {"shape": "linear", "total": 7}} if plain and draw(st.booleans()) else {}
    if own or not plain:  # corrected shrink follows the step by itself
        table["group"] = [g for g in table["group"] if g.get("shrink") != "corrected"] or [ADAMW]
    return table | own


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[group]]\noptimizer = 'adamw'\nndim = 0x" + "f" * 4000, "an integer of more than 64 bits"),
        ("[count]\nper_update = 9223372036854775808", "an integer of more than 64 bits"),
        ("blocks = " + "[" * 3000, "nested too deeply"),
    ],
)
def test_what_toml_cannot_hold_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    for read in (Recipe.load, files.read):
        with pytest.raises(RecipeError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_a_constant_shrink_schedule_says_nothing() -> None:
    plain = Recipe.from_dict({"group": [ADAMW]})
    stated = Recipe.from_dict({"group": [ADAMW], "shrink_schedule": {}})
    assert stated == plain
    assert stated.digest() == plain.digest()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (0, "a recipe is a table"),
        ({**scheduled(warmup=10**400)}, "must be a finite number"),
        ({"group": [{**ADAMW, "shrink": 10**400}]}, "is not one of"),
    ],
)
def test_numbers_and_tables_of_no_size_are_refused(table: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict(table)


@given(tables())
def test_a_recipe_survives_its_text(table: dict[str, Any]) -> None:
    recipe = Recipe.from_dict(table)
    again = Recipe.from_dict(tomllib.loads(recipe.to_toml()))
    assert again == recipe
    assert again.to_toml() == recipe.to_toml()
    assert again.digest() == recipe.digest()
    assert hash(again) == hash(recipe)
    for g, stated in zip(recipe.groups, table["group"], strict=True):
        assert g.options == {key: value for key, value in stated.items() if key in COORDINATES}


TEXT = """
nonfinite = "skip"

[count]
unit = "tokens"
per_update = 16_384

[schedule]
shape = "warmup-stable-decay"
warmup = 1_600_000
total = 33_000_000
decay = 4_900_000

[[group]]
name = "hidden"
match = ["blocks.*.weight"]
ndim = 2
optimizer = "scionc"
norm = "spectral"
step = 0.035
memory_half_life = 2.2e5
shrink_half_life = inf

[[group]]
name = "rest"
optimizer = "adamw"
shrink = "cautious"
strict_mask = true
"""


def test_a_digest_is_forever() -> None:
    """Digests are recorded beside results: the same recipe must have the same one in every version."""
    recipe = Recipe.from_dict(tomllib.loads(TEXT))
    assert recipe.digest() == "0006ae3d129a48b90f7d6dd1d09557e7c5d35f2a021f4868f65aacead095ea84"
    reordered = {key: tomllib.loads(TEXT)[key] for key in ("group", "schedule", "count", "nonfinite")}
    assert Recipe.from_dict(reordered).digest() == recipe.digest()
    changed = TEXT.replace("0.035", "0.036")
    assert Recipe.from_dict(tomllib.loads(changed)).digest() != recipe.digest()


# ---- assignment and units


def test_the_first_match_wins() -> None:
    recipe = Recipe(
        (
            Group("adamw", name="vectors", ndim=1),
            Group("scionc", {"norm": "column"}, name="embedding", match=("embed*",)),
            Group("muon", name="blocks", match=("head", "block.*")),  # * crosses dots
            Group("lion", name="rest"),
        )
    )
    assigned = recipe.assign(MODEL)
    names = {name: recipe.groups[i].name for name, i in assigned.items()}
    assert names == {
        "embed.weight": "embedding",
        "block.0.weight": "blocks",
        "block.0.bias": "vectors",
        "conv": "rest",
        "scale": "rest",
    }
    assert list(assigned) == list(MODEL)


def test_epochs_are_counted_in_samples() -> None:
    table = {
        "count": {"unit": "epochs", "per_update": 64, "samples_per_epoch": 1000},
        "schedule": {"shape": "linear", "warmup": 1, "total": 5},
        "group": [{"optimizer": "adamw", "step": 0.5, "shrink_half_life": 2.5}],
    }
    plan = Plan(Recipe.from_dict(table), {"w": (2,)})
    action = plan.groups[0].action
    assert action["shrink_half_life"] == 2500
    assert action["memory_half_life"] == pytest.approx(64 * ENTRIES["adamw"].defaults["memory_half_life"])  # type: ignore[operator]
    for tau, eta in ((64, 0.5 * 64 / 1000), (1000, 0.5), (3000, 0.25), (5000, 0.0)):
        proposal = plan.propose(tau - plan.tau, ["w"])
        plan.commit(proposal)
        assert proposal.scalars["w"]["eta"] == pytest.approx(eta, rel=1e-15)
        assert proposal.steps == (proposal.scalars["w"]["eta"],)


@pytest.mark.parametrize("factor", [7, 256])
def test_the_unit_does_not_matter(factor: int) -> None:
    """The same training stated in samples and in tokens has the same scalars, to the bit."""

    def plan(unit: str, worth: int) -> Plan:
        half_lives = {"memory": 40, "second_memory": 700, "shrink": 1000}
        group = {"optimizer": "adamw"} | {f"{key}_half_life": h * worth for key, h in half_lives.items()}
        schedule = {"shape": "cosine", "warmup": 8 * worth, "total": 64 * worth, "drives": "both"}
        table = {"count": {"unit": unit, "per_update": 4 * worth}, "schedule": schedule, "group": [group]}
        return Plan(Recipe.from_dict(table), {"w": (2,)})

    samples, tokens = plan("samples", 1), plan("tokens", factor)
    for count in (4, 4, 9, 1, 16):
        one, other = samples.propose(count, ["w"]), tokens.propose(count * factor, ["w"])
        samples.commit(one)
        tokens.commit(other)
        assert one.scalars == other.scalars


# ---- schedules


ENDS: tuple[tuple[dict[str, Any], dict[float, float]], ...] = (
    ({}, {0: 1, 1: 1, 1e9: 1}),
    ({"warmup": 10}, {0: 0, 1: 0.1, 5: 0.5, 10: 1, 11: 1}),
    ({"shape": "linear", "total": 10}, {0: 1, 5: 0.5, 10: 0, 11: 0}),
    ({"shape": "linear", "warmup": 10, "total": 20, "floor": 0.2}, {0: 0, 10: 1, 15: 0.6, 20: 0.2, 99: 0.2}),
    ({"shape": "linear", "warmup": 10, "total": 10}, {5: 0.5, 9.5: 0.95, 10: 0, 11: 0}),
    ({"shape": "cosine", "total": 12, "floor": 0.1}, {0: 1, 4: 0.775, 6: 0.55, 8: 0.325, 12: 0.1, 13: 0.1}),
    (
        {"shape": "warmup-stable-decay", "warmup": 2, "total": 10, "decay": 4},
        {0: 0, 1: 0.5, 2: 1, 6: 1, 7: 0.75, 9: 0.25, 10: 0, 50: 0},
    ),
    ({"shape": "warmup-stable-decay", "total": 10, "decay": 0, "floor": 0.5}, {0: 1, 9.9: 1, 10: 0.5}),
)


@pytest.mark.parametrize(("options", "expected"), ENDS, ids=[str(i) for i in range(len(ENDS))])
def test_schedules_at_their_ends(options: dict[str, Any], expected: dict[float, float]) -> None:
    step, both = Schedule(**options), Schedule(**options, drives="both")
    for tau, q in expected.items():
        assert step.q(tau) == pytest.approx(q, rel=1e-14, abs=1e-15)
        assert step.at(tau, 1, 100, 1) == (step.q(tau), 1.0)
        assert both.at(tau, 1, 100, 1) == (step.q(tau), step.q(tau))


@pytest.mark.parametrize("shape", [s for s in SHAPES if s.startswith("equal-weight")])
def test_equal_weight_schedules_at_their_ends(shape: Any) -> None:
    schedule = Schedule(shape)
    assert schedule.q_equal(0, 1000, 10) == pytest.approx(1, rel=1e-15)
    assert schedule.at(50, 10, INF, 10) == (1.0, 1.0)
    q = [schedule.q_equal(tau, 1000, 10) for tau in range(0, 500, 5)]
    assert all(later < earlier for earlier, later in pairwise(q))
    if shape == "equal-weight":
        assert schedule.at(1000, 10, 1000, 10) == pytest.approx((0.5, 1.0))


def test_the_shrink_can_have_a_schedule_of_its_own() -> None:
    recipe = Recipe.from_dict(
        {
            "group": [{"optimizer": "sgdm", "shrink_half_life": 10}],
            "schedule": {"shape": "linear", "total": 4},
            "shrink_schedule": {"shape": "linear", "total": 2},
        }
    )
    plan = Plan(recipe, {"w": (2,)})
    for q, q_shrink in ((0.75, 0.5), (0.5, 0.0), (0.25, 0.0)):
        proposal = plan.propose(None, ["w"])
        plan.commit(proposal)
        assert proposal.scalars["w"]["eta"] == pytest.approx(0.1 * q)
        assert proposal.scalars["w"]["c_a"] == pytest.approx(1 - 2 ** (-q_shrink / 10), abs=1e-16)


# ---- the catalogue and the package


@pytest.mark.parametrize("name", ENTRIES)
def test_every_row_is_complete(name: str) -> None:
    """Defaults pass their own checks, every coordinate is known, and each is behind a scalar or a choice."""
    found = ENTRIES[name]
    stated = {key: value for key, value in found.defaults.items() if value is not None}
    for rule in broken(found, found.defaults, stated):
        del stated[rule.over[0]]
    assert Group(name, stated).options == stated
    assert set(found.uses) <= set(COORDINATES)
    assert found.summary
    assert found.source
    for options in [{"shrink": shrink} for shrink in KINDS if "shrink" in found.uses] or [{}]:
        planned = Plan(Recipe((Group(name, options),)), {"w": (3, 4)}).groups[0]
        numbers = {used for scalar in planned.row.needs.values() for used in scalar}
        assert numbers <= set(planned.action)


@pytest.mark.parametrize("module", ["dualopt", "dualopt_conformance"])
def test_importing_takes_no_framework(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "roots = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        "print(*sorted(root for root in roots if not root.startswith('_')))"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "conformance")])
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(result.stdout.split()) <= {"array_api_compat", "dualopt", "dualopt_conformance", "numpy"}


def test_the_count_of_a_recipe_defaults_to_updates() -> None:
    recipe = Recipe.from_dict({"group": [ADAMW]})
    assert recipe.count == Count("updates", 1)
    assert recipe.to_dict() == {"group": [{"name": "group 1", "match": ["*"], "optimizer": "adamw"}]}
