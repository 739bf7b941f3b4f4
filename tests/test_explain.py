"""What a recipe does to a model: rows, coordinates, scalars, dry runs; and the recipes that are shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dualopt
from dualopt.errors import CountError, RecipeError
from dualopt.plaintext import aligned, listing, paragraph, readable
from dualopt.recipe import Recipe
from dualopt.workload.model import GPTConfig, parameter_shapes

ROOT = Path(__file__).parents[1]
SHIPPED = [ROOT / "dualopt/workload/gpt.toml", *sorted((ROOT / "recipes").glob("*.toml"))]

RECIPE: dict[str, Any] = {
    "count": {"unit": "tokens", "per_update": 1000},
    "schedule": {"shape": "linear", "warmup": 2000, "total": 100_000},
    "group": [
        {"name": "table", "match": "table", "optimizer": "scionc", "norm": "column", "orientation": "in_out"},
        {"name": "conv", "match": "conv.*", "optimizer": "scionc", "norm": "spectral_conv", "step": 0.1},
        {"name": "stack", "match": "experts", "optimizer": "muon", "memory_half_life": 5000},
        {"name": "rest", "optimizer": "adamw", "shrink_half_life": 1e6},
    ],
}
SHAPES = {
    "table": (10, 4),
    "conv.0.weight": (8, 3, 3, 3),
    "conv.1.weight": (8, 3, 3, 3),
    "conv.2.weight": (16, 8, 3, 3),
    "experts": (5, 4, 6),
    "gain": (4,),
    "scalar": (),
}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_recipes_fit_the_gpt(path: Path) -> None:
    for config in (GPTConfig(), GPTConfig(layers=1, width=16, heads=2, context=8, hidden_multiple=2)):
        shapes = parameter_shapes(config)
        found = dualopt.explain(shapes, path, dry=True)
        assert sorted(name for row in found.rows for name in row.names) == sorted(shapes)
    assert Recipe.load(path).schedule.total is not None


def test_there_are_shipped_recipes() -> None:
    assert len(SHIPPED) >= 5


def test_rows_say_which_parameter_gets_what() -> None:
    rows = {row.pattern: row for row in dualopt.explain(SHAPES, RECIPE).rows}
    assert rows.keys() == {"table", "conv.*.weight", "conv.2.weight", "experts", "gain", "scalar"}
    assert rows["conv.*.weight"].names == ("conv.0.weight", "conv.1.weight")
    assert (rows["table"].group, rows["table"].optimizer, rows["table"].view) == ("table", "scionc", "4 × 10 (T)")
    assert rows["conv.2.weight"].view == "16 × 72"
    assert rows["experts"].view == "5 of 4 × 6"
    assert rows["gain"].view == rows["scalar"].view == "elements"


def test_coordinates_are_stated_or_default_and_in_counts() -> None:
    groups = {g.name: g for g in dualopt.explain(SHAPES, RECIPE).groups}
    stack = groups["stack"].coordinates
    assert (stack["memory_half_life"].value, stack["memory_half_life"].stated) == (5000.0, True)
    default = groups["table"].coordinates["memory_half_life"]
    assert default.value == pytest.approx(13_513.407) or default.value == pytest.approx(13_513.4, rel=1e-4)
    assert not default.stated
    assert "polar" in groups["conv"].coordinates
    assert "polar" not in groups["table"].coordinates
    assert (groups["conv"].parameters, groups["conv"].entries) == (3, 2 * 216 + 1152)


def test_scalars_are_those_of_the_update_that_ends_at_a_count() -> None:
    found = dualopt.explain(SHAPES, RECIPE, scalars=True, count=50_000)
    by = {(s.group, s.shape, s.count): s.values for s in found.scalars}
    assert len(by) == len(found.scalars)
    first, later = by["conv", (8, 3, 3, 3), 1000], by["conv", (8, 3, 3, 3), 50_000]
    assert first["eta"] == pytest.approx(0.05)  # half way up the warm-up
    assert later["eta"] == pytest.approx(0.1 * 50 / 98)
    assert first["scale"] == pytest.approx((8 / 3) ** 0.5 / 9)
    assert by["rest", (), 50_000]["r_m"] == pytest.approx(1 / (1 - 0.9**50))
    # The same numbers as in training.
    group = {"optimizer": "adamw", "shrink_half_life": 1e6}
    replayed = dualopt.replay(group, {"w": np.ones(2)}, [{"w": np.ones(2)}], 1000)
    told = dualopt.explain({"w": (2,)}, {"count": RECIPE["count"], "group": [group]}, scalars=True)
    assert dict(told.scalars[0].values) == replayed.scalars[0]["w"]


def test_the_table_and_the_json_hold_the_same() -> None:
    found = dualopt.explain(SHAPES, RECIPE, scalars=True, dry=True)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    text = found.table()
    for row in data["parameters"]:
        assert row["pattern"] in text
    for scalars in data["scalars"]:
        for value in scalars["values"].values():
            assert value["hex"] in text
            assert value["decimal"] in text
            assert float.fromhex(value["hex"]) == float(value["decimal"])
    assert data["groups"][1]["coordinates"]["shrink_half_life"] == {"value": "inf", "stated": False}
    assert data["dry"] == found.dry == 6
    assert "never" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_dry_run_is_off_unless_asked_for() -> None:
    found = dualopt.explain(SHAPES, RECIPE)
    assert found.dry is None
    assert "dry run" not in found.table()
    assert found.scalars == ()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"group": [{"optimizer": "muon"}]}, RecipeError, "needs a matrix"),
        ({"group": [{"optimizer": "muon", "ndim": 2}]}, RecipeError, "no group matches"),
        ({"group": [*RECIPE["group"], {"name": "none", "optimizer": "lion"}]}, RecipeError, "is empty"),
        ({"group": [{"optimizer": "adamm"}]}, RecipeError, "did you mean"),
    ],
)
def test_errors_are_found_before_training(change: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        dualopt.explain(SHAPES, RECIPE | change)


def test_counts_and_models_are_checked() -> None:
    with pytest.raises(RecipeError, match="before the first update"):
        dualopt.explain(SHAPES, RECIPE, scalars=True, count=10)
    with pytest.raises(CountError):
        dualopt.explain(SHAPES, RECIPE, scalars=True, count=-1)
    with pytest.raises(RecipeError, match="model or a mapping"):
        dualopt.explain([1], RECIPE)


def test_convolutions_of_both_frameworks_are_seen_alike() -> None:
    torch, nn = pytest.importorskip("torch"), pytest.importorskip("mlx.nn")
    recipe = {"group": [{"match": "weight", "optimizer": "scionc", "norm": "spectral_conv"}, {"optimizer": "lion"}]}
    theirs = [dualopt.explain(conv(3, 8, 5), recipe, scalars=True, dry=True) for conv in (torch.nn.Conv2d, nn.Conv2d)]
    assert [row.shape for found in theirs for row in found.rows if row.pattern == "weight"] == [
        (8, 3, 5, 5),
        (8, 5, 5, 3),
    ]
    assert theirs[0].scalars == theirs[1].scalars
    assert {row.view for found in theirs for row in found.rows} == {"8 × 75", "elements"}


def test_tied_parameters_of_a_model_are_named() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 6, bias=False), "b": torch.nn.Linear(4, 6, bias=False)})
    model["b"].weight = model["a"].weight
    (row,) = dualopt.explain(model, {"group": [{"optimizer": "adamw"}]}).rows
    assert (row.pattern, row.tied) == ("a.weight", ("b.weight",))
    assert "a.weight = b.weight" in dualopt.explain(model, {"group": [{"optimizer": "adamw"}]}).table()


def test_plain_text() -> None:
    assert [readable(x) for x in (0.1, 1234.5678, 12_113_443_261.4, float("inf"))] == [
        "0.1",
        "1,234.57",
        "12,113,443,261",
        "inf",
    ]
    assert aligned([("a", "bb"), ("ccc",)]) == "a    bb\nccc"
    assert paragraph(listing(["a = 1", "b = 2"]), 9, indent=1, hanging=1) == " a = 1,\n  b = 2"
