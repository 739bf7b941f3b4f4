"""`dualopt predict`: what it prints and writes, what it reads, what it refuses, and that it needs no framework."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualopt import checkpoint, tensors

pytest.importorskip("typer")
pytest.importorskip("rich")
from typer.testing import CliRunner, Result

from dualopt.cli.app import app

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
MUON = ROOT / "recipes/muon.toml"


def run(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def data(*arguments: object) -> Any:
    return json.loads(run("predict", *arguments, "--json").stdout)


def refused(*arguments: object) -> str:
    result = run("predict", *arguments, status=2)
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    return line


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_fits_eighty_columns(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = run("predict", recipe).stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "Time constants" in text
    assert "…" not in text


def test_numbers_as_json() -> None:
    found = data(MUON)
    assert (found["updates"], found["end"], found["base"]) == (240, 245_760, "tokens")
    hidden = next(g for g in found["groups"] if g["name"] == "hidden")
    assert hidden["shrink_half_life"] == pytest.approx(716_800)
    assert hidden["left"] == pytest.approx(2 ** (-245_760 / 716_800))
    assert hidden["period"] == pytest.approx(716_800 * np.log2(10))
    assert len(hidden["curves"]["count"]) == len(hidden["curves"]["rms"]) == 240
    gains = next(g for g in found["groups"] if g["name"] == "gains")
    assert gains["shrink_half_life"] == "inf"
    assert any("never forgets" in text for text in found["warnings"])


def test_another_count_and_another_batch() -> None:
    """Half-lives are of counts: at 8 times the batch there are an eighth of the updates, and the same is left."""
    one, eight = data(MUON), data(MUON, "--per-update", 8192)
    assert eight["updates"] == 30
    for a, b in zip(one["groups"], eight["groups"], strict=True):
        assert b["left"] == pytest.approx(a["left"])
        assert b["memory_half_life"] == a["memory_half_life"]
        assert b["seen"][0]["turns"] is None or b["seen"][0]["turns"] > a["seen"][0]["turns"]
    assert data(MUON, "--count", 10_240)["updates"] == 10
    assert "number" in refused(MUON, "--per-update", 0)


def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for recipe in (MUON, ROOT / "recipes/symmetry-compatible.toml"):
        out = tmp_path / recipe.stem / "deeper"
        text = run("predict", recipe, "--out", out).stdout
        assert "prediction.png" in text
        assert (out / "prediction.png").read_bytes().startswith(b"\x89PNG")
        assert json.loads((out / "prediction.json").read_text())["groups"]
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(MUON, "--out", tmp_path / "file")


def test_a_picture_of_a_recipe_of_which_little_is_known(tmp_path: Path) -> None:
    """No sizes, no shrink, no step: panels say so."""
    pytest.importorskip("matplotlib")
    recipe = tmp_path / "r.toml"
    recipe.write_text('[[group]]\noptimizer = "sgdm"\nstep = 0.0\n')
    run("predict", recipe, "--out", tmp_path, "--count", 1)
    assert (tmp_path / "prediction.png").exists()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint of dualopt: one parameter of half precision, one not, and state that is none of either."""
    path = tmp_path / "checkpoint.safetensors"
    weights = {"a": np.full((4, 6), 0.5, np.float32), "b": np.full((3,), 2.0, np.float32)}
    state = {"a": {"m": np.ones((4, 6), np.float32)}}
    checkpoint.save(path, checkpoint.Snapshot(weights, state, {"a": 1, "b": 1, "": 1}, {"a": "BF16"}), metadata={})
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text('[[group]]\noptimizer = "adamw"\nstep = 1e-3\nshrink_half_life = 6000\n')
    return path


def test_checkpoints_give_sizes_and_types(recipe: Path, model: Path, tmp_path: Path) -> None:
    found = data(recipe, "--model", model)
    (group,) = found["groups"]
    assert {s["pattern"]: (s["start"], s["assumed"]) for s in group["seen"]} == {"a": (0.5, False), "b": (2.0, False)}
    assert any("'a' is bfloat16" in text for text in found["warnings"])
    assert not any("bfloat16" in text for text in data(recipe, "--model", model, "--dtype", "float32")["warnings"])
    plain = tmp_path / "weights.safetensors"
    tensors.write(plain, {"x.w": np.ones((2, 2), np.float32), "steps": np.ones(1, np.int64)}, {})
    assert [s["pattern"] for s in data(recipe, "--model", plain)["groups"][0]["seen"]] == ["x.w"]


def test_shapes_alone_are_marked(recipe: Path, tmp_path: Path) -> None:
    shapes = tmp_path / "shapes.json"
    shapes.write_text('{"a": [4, 12], "b": [7]}')
    found = {s["pattern"]: s for s in data(recipe, "--model", shapes)["groups"][0]["seen"]}
    assert found["a"]["start"] == pytest.approx(1 / 6)
    assert found["b"]["start"] == 1
    assert found["a"]["assumed"]
    assert "~0.167" in run("predict", recipe, "--model", shapes).stdout


def test_bad_input(recipe: Path, model: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "model.pt"
    pickled.write_bytes(pickle.dumps({"a": 1}))
    assert "save the weights as safetensors" in refused(recipe, "--model", pickled)
    assert "cannot be read" in refused(recipe, "--model", tmp_path / "none.safetensors")
    assert "cannot be read" in refused(recipe, "--model", tmp_path / "none.json")
    assert "cannot be read" in refused(tmp_path / "none.toml")
    assert "--dtype is one of" in refused(recipe, "--dtype", "bfloat61")
    assert "--curvature is a finite number" in refused(recipe, "--curvature", "nan")
    assert "--slope is a finite number" in refused(recipe, "--slope", 0)
    assert "positive whole number" in refused(recipe, "--count", 0)
    assert "state the per_update" in refused(recipe, "--count", 10**9)
    (tmp_path / "cut.safetensors").write_bytes(model.read_bytes()[:-4])
    assert "damaged" in refused(recipe, "--model", tmp_path / "cut.safetensors")
    empty = tmp_path / "empty.safetensors"
    tensors.write(empty, {"n": np.ones(1, np.int64)}, {})
    assert "holds no parameters" in refused(recipe, "--model", empty)
    matched = tmp_path / "m.toml"
    matched.write_text('[[group]]\noptimizer = "adamw"\nmatch = ["z"]\n')
    assert "no group matches" in refused(matched, "--model", model)


# ---- without a framework

COMMANDS = {
    "predict": ["predict", str(MUON)],
    "predict, many groups and updates": ["predict", str(ROOT / "recipes/symmetry-compatible.toml"), "--json"],
    "explain": ["explain", str(MUON), "--scalars", "--dry"],
    "convert": ["convert", "torch-adamw", "lr=1e-3", "--per-update", "8", "--batch", "64"],
    "list": ["list"],
}
CHILD = """
import sys
sys.argv = ["dualopt", *sys.argv[1:]]
from dualopt.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
found = {name.partition(".")[0] for name in sys.modules} & {"torch", "mlx", "jax", "matplotlib", "array_api_strict"}
assert not found, found
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_answers_without_a_framework(name: str) -> None:
    """What takes long is to import one; `benchmarks/commands.py` measures how quick the answers are."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *COMMANDS[name]], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
