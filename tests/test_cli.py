"""The command line: what it prints, and its exit status. 0 fine, 1 different, 2 bad input, 3 missing."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualopt import Count, Recipe, checkpoint, namespace, tensors
from dualopt.errors import CheckpointError
from dualopt.namespace import Backend

pytest.importorskip("typer")
pytest.importorskip("rich")
from typer.testing import CliRunner, Result

from dualopt import cli
from dualopt.cli.app import app
from dualopt.cli.work import FRAMEWORKS
from dualopt.workload.run import Run, first_parting

ROOT = Path(__file__).parents[1]
TINY = ["--layers", "1", "--width", "16", "--heads", "2", "--context", "16", "--batch", "4"]
PRESENT = [name for name in FRAMEWORKS if name in namespace.installed()]
some_framework = pytest.mark.skipif(not PRESENT, reason="neither torch nor mlx is installed")


def run(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result


def data(*arguments: object, status: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", status=status).stdout)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text('[count]\nunit = "tokens"\nper_update = 64\n\n[[group]]\noptimizer = "adamw"\nstep = 0.01\n')
    return path


# ---- list, explain, convert


def test_list_shows_every_optimizer() -> None:
    listed = {entry["name"]: entry for entry in data("list")}
    assert {"adamw", "lion", "muon", "scionc"} <= listed.keys()
    assert listed["adamw"]["defaults"]["shrink_half_life"] == "inf"
    text = run("list").stdout
    assert all(name in text for name in listed)


def test_list_of_one_says_what_means_nothing() -> None:
    (pion,) = data("list", "pion")
    assert pion["motion"] == "multiplicative"
    assert pion["defaults"]["exponential"] == "taylor"
    assert "additive" in pion["motions"]
    why = {one["what"]: one["why"] for one in pion["meaningless"]}
    assert why["eps with second_memory = false"] == "there is no v then"
    assert any("shrink_half_life" in what and "nothing shrinks" in reason for what, reason in why.items())
    text = " ".join(run("list", "muon").stdout.split())
    assert "motion = 'multiplicative': its direction is not elementwise" in text
    assert "polar quintic how the polar factor is computed" in text


def test_list_filters() -> None:
    def names(*arguments: object) -> set[str]:
        return {entry["name"] for entry in data("list", *arguments)}

    assert names("scion*") == {"scion", "scionc"}
    assert "muon" in names("--family", "spectral")
    assert "adamw" not in names("--family", "spectral")
    assert names("--uses", "norm", "--uses", "polar") == {"scion", "scionc", "hyperball"}
    turned = names("--motion", "transported")
    assert {"adamw", "muon", "pion"} <= turned
    assert "rmsprop" not in turned
    assert data("list", "lion", "--motion", "multiplicative")[0]["defaults"]["motion"] == "multiplicative"
    assert "did you mean 'scion'" in run("list", "scoin", status=2).stderr
    assert "did you mean 'transported'" in run("list", "--motion", "transpotred", status=2).stderr


def test_explain_fits_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in (["explain", ROOT / "recipes/muon.toml", "--dry", "--scalars"], ["list"], ["list", "pion"]):
        assert max(len(line) for line in run(*command).stdout.splitlines()) <= 80


def test_explain_reads_shapes(tmp_path: Path, recipe: Path) -> None:
    model = tmp_path / "model.json"
    model.write_text('{"a.0.w": [2, 3], "a.1.w": [2, 3]}')
    found = data("explain", recipe, "--model", model, "--scalars", "--dry")
    assert found["parameters"][0]["pattern"] == "a.*.w"
    assert found["dry"] == 1
    model.write_text('{"a": ["x"]}')
    assert "'a' is a list of whole numbers" in run("explain", recipe, "--model", model, status=2).stderr
    model.write_text("{")
    assert "not valid JSON" in run("explain", recipe, "--model", model, status=2).stderr
    run("explain", recipe, "--model", tmp_path / "none.json", status=2)
    run("explain", recipe, "--model", model, "--gpt", status=2)


def test_errors_are_one_line_and_status_two(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('[[group]]\noptimizer = "adamw"\nstepp = 1\n')
    result = run("explain", bad, status=2)
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert "error: " in result.stderr
    assert "did you mean 'step'" in result.stderr


ADAMW = ["convert", "torch-adamw", "lr=3e-4", "weight_decay=0.1", "betas=0.9,0.95"]
SIZE = ["--per-update", 512 * 1024]


def test_convert_prints_a_recipe(tmp_path: Path) -> None:
    text = run(*ADAMW, *SIZE).stdout
    recipe = Recipe.from_dict(tomllib.loads(text.partition("Time constants")[0]))
    assert recipe.count == Count("tokens", 512 * 1024)
    assert recipe.groups[0].optimizer == "adamw"
    assert "0.95000000" in text
    assert "state drives = 'both'" in " ".join(text.split())
    out = tmp_path / "recipe.toml"
    assert "[[group]]" not in run(*ADAMW, *SIZE, "--out", out).stdout
    assert Recipe.load(out) == recipe
    found = data(*ADAMW, *SIZE)
    assert found["half_lives"]["all"]["second_memory_half_life"]["updates"] == pytest.approx(13.5134, rel=1e-5)
    assert found["exact"] == {"all": True}
    assert data("convert", "torch-adamw")["recipe"].get("count") is None  # updates, and the defaults of the library
    assert data(*ADAMW, "--per-update", 8, "--unit", "samples")["recipe"]["count"]["unit"] == "samples"


def test_convert_takes_knobs_as_they_stand_in_code() -> None:
    same = [["betas=(0.9, 0.95)"], ["betas=[0.9,0.95]"], ["betas=0.9,0.95"]]
    assert len({json.dumps(data("convert", "torch-adamw", "fused=True", "foreach=None", *b)) for b in same}) == 1
    matched = data("convert", "torch-muon", "adjust_lr_fn=match_rms_adamw", "nesterov=false")
    assert matched["recipe"]["group"][0]["scale"] == "moonlight"
    assert not matched["exact"]["all"]
    scion = ["convert", "scion", "norm=ColNorm", "norm_kwargs={transpose=true}"]
    assert data(*scion)["recipe"]["group"][0]["orientation"] == "in_out"


def test_convert_moves_a_recipe() -> None:
    found = data(*ADAMW, *SIZE, "--batch", 64 * 1024, "--memories", "second", "--step", "sqrt")
    assert found["knobs"]["all"]["knobs"]["betas"] == pytest.approx([0.9, 0.95 ** (1 / 8)])
    assert found["knobs"]["all"]["knobs"]["lr"] == pytest.approx(3e-4 / math.sqrt(8))
    told = found["batch"]
    assert (told["before"], told["after"], told["rule"]) == (512 * 1024, 64 * 1024, "sqrt")
    steps = told["groups"]["all"]["steps"]
    assert steps["linear"] == {"factor": 1 / 8, "step": 3e-4 / 8}
    assert found["recipe"]["group"][0]["step"] == steps["sqrt"]["step"]
    assert data(*ADAMW, *SIZE, "--batch", "x0.125")["batch"]["after"] == 64 * 1024
    text = " ".join(run(*ADAMW, *SIZE, "--batch", "x4").stdout.split())
    assert "From 524,288 to 2,097,152 tokens per update (x4), memories = all" in text
    assert "None of the rules is recommended" in text
    smaller = " ".join(run(*ADAMW, *SIZE, "--batch", "x0.25").stdout.split())
    assert re.search(r"all: memories = \w+, step = \w+ did best with adamw at 0.25x the batch, docs/science/", smaller)
    many = data("convert", ROOT / "recipes/muon.toml", "--batch", "x2", "--to", "torch")
    assert set(many["batch"]["groups"]) == {"hidden", "gains", "rest"}
    assert many["batch"]["groups"]["gains"]["no_radius"] == "without shrink weights do not settle"
    assert many["knobs"]["rest"]["knobs"]["from"] == "torch-adamw"
    assert "Nesterov" in many["knobs"]["hidden"]["reason"]
    assert "shrink in proportion to lr" in many["remarks"][0]


KNOBS = """
[count]
unit = "tokens"
per_update = 1024
[schedule]
shape = "linear"
total = 1e6
[[group]]
name = "hidden"
match = ["blocks.*"]
ndim = 2
from = "keller-jordan-muon"
weight_decay = 0.1
[[group]]
name = "gains"
match = ["*norm*"]
optimizer = "lion"
[[group]]
name = "rest"
from = "mlx-adamw"
learning_rate = 1e-3
"""


def test_convert_reads_files_of_knobs(tmp_path: Path) -> None:
    path = tmp_path / "knobs.toml"
    path.write_text(KNOBS)
    found = data("convert", path)
    groups = found["recipe"]["group"]
    assert [(g["name"], g["optimizer"], g["match"]) for g in groups] == [
        ("hidden", "muon", ["blocks.*"]),
        ("gains", "lion", ["*norm*"]),
        ("rest", "adamw", ["*"]),
    ]
    assert (groups[0]["ndim"], groups[2]["bias_correction"]) == (2, False)
    assert found["from"]["rest"]["betas"] == [0.9, 0.999]
    assert found["recipe"]["schedule"]["drives"] == "both"  # as the decay of these libraries follows lr
    assert "1 − a is larger by at most 1.0e-03 of it" in found["remarks"][0]
    (tmp_path / "knobs.json").write_text(json.dumps(tomllib.loads(KNOBS)))
    assert data("convert", tmp_path / "knobs.json") == found
    path.write_text(KNOBS.replace("total = 1e6", 'total = 1e6\ndrives = "step"'))
    assert "drives" not in data("convert", path)["recipe"]["schedule"]
    corrected = '[[group]]\nname = "head"\nfrom = "scionc"\nlr = 0.1\n'
    path.write_text(KNOBS.replace("[[group]]", f"{corrected}[[group]]", 1))
    apart = data("convert", path)
    assert "drives" not in apart["recipe"]["schedule"]
    assert "hidden, rest" in apart["remarks"][0]


def test_convert_lists_what_it_knows() -> None:
    found = data("convert", "--list")
    assert found["sources"]["mlx-adamw"]["path"] == "mlx.optimizers.AdamW"
    assert "bias_correction=False" in found["sources"]["mlx-adamw"]["knobs"]
    text = run("convert", "--list").stdout
    assert all(name in text for name in (*found["sources"], *found["refused"]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name an optimizer"),
        (["torch-adamv"], "did you mean"),
        (["torch-radam"], "no row has"),
        (["lion-pytorch", "betas=0.99,0.9"], "negative weight"),
        (["torch-adamw", "betas=0.9"], "two numbers"),
        (["torch-adamw", "lr"], "written NAME=VALUE"),
        (["torch-adamw", "rate=1"], "has no rate"),
        (["torch-adamw", "lr=abc"], "lr must be"),
        (["torch-adamw", "--batch", "3"], "state unit = 'tokens'"),
        (["torch-adamw", "--per-update", "8", "--batch", "lots"], "a factor such as x4"),
        (["torch-adamw", "--per-update", "8", "--batch", "x0.3"], "whole number"),
        (["torch-adamw", "--per-update", "8", "--batch", "0"], "whole number"),
        (["torch-adamw", "--per-update", "8", "--batch", "x2", "--step", "root"], "rule is one of"),
        (["torch-adamw", "--per-update", "8", "--batch", "x2", "--memories", "first"], "memories is one of"),
        (["torch-adamw", "--per-update", "8", "--batch", "x2", "--step", "radius", "weight_decay=0"], "without shrink"),
        (["torch-adamw", "--per-update", "0"], "positive whole number"),
        (["torch-adamw", "--per-update", "8", "--unit", "epochs"], "tokens or samples"),
        (["torch-adamw", "--step", "sqrt"], "go with --batch"),
        (["torch-adamw", "--out", "/nowhere/recipe.toml"], "cannot be written"),
        (["none.toml"], "cannot be read"),
        (["none.toml", "lr=1"], "states its own knobs"),
    ],
)
def test_convert_refuses(arguments: list[str], says: str) -> None:
    assert says in run("convert", *arguments, status=2).stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "not valid TOML"),
        ("x = 1", "two brackets"),
        ('[[group]]\nfrom = "torch-adamw"\nrate = 1', "group 'group 1': torch-adamw has no rate"),
        ('[[group]]\nname = "a"\nfrom = "adamw"', "group 'a': 'adamw' is not one of"),
        ('[[group]]\nfrom = "torch-adamw"\n[count]\nunit = "token"', "did you mean 'tokens'"),
    ],
)
def test_convert_refuses_files(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "knobs.toml"
    path.write_text(text)
    told = run("convert", path, status=2).stderr
    assert str(path) in told.replace("\n", "")
    assert says in told


# ---- replay


def write_inputs(path: Path, updates: int = 3) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    shapes = {"a.weight": (4, 3), "b": (5,)}
    grads = {
        f"{t:06d}/{name}": rng.standard_normal(shape).astype(np.float32)
        for t in range(1, updates + 1)
        for name, shape in shapes.items()
    }
    tensors.write(path / "gradients.safetensors", grads, {})
    start = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    tensors.write(path / "params.safetensors", start, {})
    return path / "gradients.safetensors", path / "params.safetensors"


def test_replay_agrees_on_all_backends(tmp_path: Path, recipe: Path) -> None:
    gradients, params = write_inputs(tmp_path)
    backends = ["numpy", *PRESENT]
    chosen = [word for name in backends for word in ("--backend", name)]
    found = data("replay", recipe, gradients, params, *chosen)
    assert list(found["digests"]) == backends
    assert len(set(found["digests"].values())) == 1
    assert [a["differing"] for a in found["agreements"]] == [0] * len(PRESENT)
    for agreement in found["agreements"]:
        assert (agreement["updates"], agreement["arrays"], agreement["elements"]) == (3, 18, 3 * 3 * 17)
    assert "digest" in run("replay", recipe, gradients, params, *chosen).stdout


def test_replay_reads_a_single_group(tmp_path: Path) -> None:
    gradients, params = write_inputs(tmp_path)
    group = tmp_path / "group.toml"
    group.write_text('optimizer = "lion"\nstep = 0.1\n')
    whole = tmp_path / "whole.toml"
    whole.write_text('[[group]]\noptimizer = "lion"\nstep = 0.1\n')
    one, other = (data("replay", path, gradients, params, "--backend", "numpy") for path in (group, whole))
    assert one["digests"] == other["digests"]
    group.write_text('optimizer = "lion"\nstepp = 0.1\n')
    assert "group.toml" in run("replay", group, gradients, params, status=2).stderr


def test_replay_fails_on_one_bit(tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that is wrong in the last bit of one element."""
    honest = namespace.load("numpy")

    def crooked(x: Any, dtype: str) -> Any:
        made = np.array(x, dtype=dtype)
        if made.shape == (5,):
            made[2] = np.nextafter(made[2], np.float32(9), dtype=np.float32)
        return made

    liar = Backend("crooked", honest.namespaces, crooked, honest.to_numpy, honest.execute)
    monkeypatch.setitem(namespace._LOADERS, "crooked", lambda: liar)
    monkeypatch.setitem(namespace._loaded, "crooked", liar)
    gradients, params = write_inputs(tmp_path)
    chosen = ["--backend", "numpy", "--backend", "crooked"]
    found = data("replay", recipe, gradients, params, *chosen, status=1)
    assert found["agreements"][0]["differing"] > 0
    assert "update 1: parameter/b" in found["agreements"][0]["first"]
    assert (
        "first difference: update 1: parameter/b" in run("replay", recipe, gradients, params, *chosen, status=1).stdout
    )
    run("replay", recipe, gradients, params, *chosen, "--tier", "fast")  # which promises no equal bits


def test_replay_of_nothing_is_no_proof(tmp_path: Path, recipe: Path) -> None:
    _, params = write_inputs(tmp_path)
    tensors.write(tmp_path / "empty.safetensors", {}, {})
    run("replay", recipe, tmp_path / "empty.safetensors", params, "--backend", "numpy", status=1)
    run("replay", recipe, tmp_path / "none.safetensors", params, status=2)
    run("replay", recipe, tmp_path / "empty.safetensors", params, "--backend", "nunpy", status=2)


# ---- train and demo


@some_framework
def test_train_and_resume(tmp_path: Path) -> None:
    options = [
        "train",
        "--framework",
        PRESENT[0],
        "--out",
        tmp_path / "run",
        *TINY,
        "--recipe",
        ROOT / "recipes/adamw.toml",
    ]
    found = data(*options, "--updates", 4, "--record", 2)
    directory = Path(found["runs"][0]["run"])
    assert found["runs"][0]["updates"] == 4
    assert found["runs"][0]["count"] == 4 * 4 * 16
    assert {p.name for p in directory.iterdir()} >= {"manifest.json", "metrics.jsonl", "checkpoint.safetensors"}
    assert (directory / "gradients.safetensors").exists()
    assert Path(found["plot"]).stat().st_size > 1000
    assert "already holds a run" in run(*options, "--updates", 4, status=2).stderr
    result = run(*options, "--updates", 6, "--resume", "--no-plot")
    assert "validation" in result.stderr
    assert "unigram entropy" in result.stdout


@pytest.mark.parametrize(("one", "other"), [("torch", "mlx"), ("mlx", "torch")])
def test_a_run_moves_to_the_other_framework_by_two_commands(tmp_path: Path, one: str, other: str) -> None:
    """Those of docs/checkpoints.md: the directory is copied, and its run resumed."""
    if {one, other} - set(PRESENT):
        pytest.skip("needs both frameworks")
    here, there = tmp_path / "runs" / "train", tmp_path / "laptop" / "runs" / "train"
    told = (ROOT / "docs/checkpoints.md").read_text(encoding="utf-8")
    copied, resumed = (
        line.split() for line in told.splitlines() if line.startswith(("    scp -r ", "    dualopt train "))
    )
    assert copied == ["scp", "-r", "runs/train/torch", "laptop:runs/train/mlx"]
    assert resumed == ["dualopt", "train", "--framework", "mlx", "--out", "runs/train", "--resume"]
    data("train", "--framework", one, "--out", here, *TINY, "--no-plot", "--updates", 4)
    shutil.copytree(here / one, there / other)
    found = data("train", "--framework", other, "--out", there, "--resume", *TINY, "--no-plot", "--updates", 7)
    assert found["runs"][0]["updates"] == 7
    run_ = Run.open(there / other)
    assert [row["update"] for row in run_.rows() if "loss" in row] == list(range(1, 8))
    assert run_.manifest["framework"]["framework"] == one
    assert [again["framework"]["framework"] for again in run_.manifest["resumed"]] == [other]
    before, after = (checkpoint.load(d / "checkpoint.safetensors")[0] for d in (here / one, there / other))
    assert after.counts[""] == before.counts[""] * 7 // 4
    assert other in after.origin.versions
    assert after.origin.recipe == before.origin.recipe


@some_framework
def test_a_damaged_checkpoint_is_told_on_stderr(tmp_path: Path) -> None:
    options = ["train", "--framework", PRESENT[0], "--out", tmp_path, *TINY, "--no-plot", "--no-digests"]
    run(*options, "--updates", 3)
    run(*options, "--updates", 4, "--resume")
    newest = tmp_path / PRESENT[0] / "checkpoint.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    result = run(*options, "--updates", 5, "--resume")
    assert "warning: " in result.stderr
    assert "checkpoint.1.safetensors" in result.stderr.replace("\n", "")


@some_framework
def test_logs_tell_where_two_runs_parted(tmp_path: Path) -> None:
    """Every update of every log has its digest, unless it is declined; the same bits have the same digests."""
    options = ["train", "--framework", PRESENT[0], *TINY, "--no-plot", "--tier", "exact"]
    runs = {}
    for name, more in {"a": (), "b": (), "seed": ("--seed", 1), "declined": ("--no-digests",)}.items():
        run(*options, "--updates", 3, *more, "--out", tmp_path / name)
        runs[name] = Run.open(tmp_path / name / PRESENT[0])
    digests = [[row["digest"] for row in found.rows() if "loss" in row] for found in (runs["a"], runs["b"])]
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 3
    assert first_parting(runs["a"], runs["b"]) is None
    assert first_parting(runs["a"], runs["seed"]) == 1
    lines = (runs["b"].path / "metrics.jsonl").read_text()
    (runs["b"].path / "metrics.jsonl").write_text(lines.replace(digests[1][1], "0" * 16))
    assert first_parting(runs["a"], runs["b"]) == 2
    with pytest.raises(CheckpointError, match="no digest of the same update"):
        first_parting(runs["a"], runs["declined"])


@some_framework
def test_bad_devices_and_tiers_are_errors(tmp_path: Path) -> None:
    options = ["train", "--framework", PRESENT[0], *TINY, "--updates", 1, "--out", tmp_path / "x"]
    assert "device 'abacus'" in run(*options, "--device", "abacus", status=2).stderr
    assert "tier" in run(*options, "--tier", "exakt", status=2).stderr
    assert not (tmp_path / "x").exists()


@some_framework
def test_training_past_the_schedule_warns(tmp_path: Path) -> None:
    recipe = tmp_path / "short.toml"
    recipe.write_text('[schedule]\nshape = "linear"\ntotal = 3\n\n[[group]]\noptimizer = "lion"\n')
    options = ["train", "--framework", PRESENT[0], "--recipe", recipe, *TINY, "--no-plot"]
    assert data(*options, "--out", tmp_path / "a")["runs"][0]["updates"] == 3  # the recipe says when to stop
    assert "ends 2 updates before" in run(*options, "--out", tmp_path / "b", "--updates", 5).stderr


@some_framework
def test_demo_proves_equality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    options = ["demo", "--out", tmp_path / "demo", *TINY, "--updates", 4, "--record", 2]
    text = run(*options).stdout
    assert "Proof" in text
    assert max(len(line) for line in text.splitlines() if "safetensors" not in line and str(tmp_path) not in line) <= 80
    found = data(*options)  # a second time, beside the first
    assert found["plot"] == str(tmp_path / "demo-2" / "loss.png")
    assert [r["framework"] for r in found["runs"]] == PRESENT
    assert found["proof"]["holds"]
    (agreement,) = found["proof"]["agreements"]
    assert agreement["updates"] == 2
    assert agreement["elements"] > 10_000
    assert (found["drift"] is None) == (len(PRESENT) == 1)
    again = run(*found["replay"].split()[1:])
    assert "exact tier" in again.stdout
    manifest = json.loads((tmp_path / "demo" / PRESENT[0] / "manifest.json").read_text())
    assert manifest["recipe"]["text"].startswith("# The small GPT")


@some_framework
def test_demo_with_one_framework_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FRAMEWORKS:
        if name != PRESENT[0]:
            hide(name, monkeypatch)
    options = ["demo", *TINY, "--updates", 2, "--record", 2]
    found = data(*options, "--out", tmp_path / "a")
    assert found["proof"]["agreements"][0]["backends"] == [PRESENT[0], "numpy"]
    assert found["missing"] == [name for name in FRAMEWORKS if name != PRESENT[0]]
    text = run(*options, "--out", tmp_path / "b").stdout
    assert all(f"dualopt-optim[{name}]" in text for name in found["missing"])


def hide(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a framework look as if it were not installed."""

    def fail() -> Backend:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setitem(namespace._LOADERS, name, fail)
    monkeypatch.delitem(namespace._loaded, name, raising=False)
    monkeypatch.setitem(sys.modules, f"dualopt_{name}", None)


def test_a_missing_framework_is_status_three(tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FRAMEWORKS:
        hide(name, monkeypatch)
    gradients, params = write_inputs(tmp_path)
    for command in (
        ["train", "--framework", "mlx", "--out", tmp_path / "x"],
        ["replay", recipe, gradients, params, "--backend", "torch"],
        ["demo", "--out", tmp_path / "x"],
    ):
        assert "pip install 'dualopt-optim[" in run(*command, status=3).stderr
    assert not (tmp_path / "x").exists()
    run("train", "--framework", "jax", status=2)


# ---- without the extra


@pytest.mark.parametrize("name", ["typer", "rich"])
def test_without_the_extra_the_script_says_so(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [m for m in sys.modules if m.startswith("dualopt.cli.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(sys, "argv", ["dualopt", "list"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 3
    told = capsys.readouterr().err
    assert told == f"dualopt: {name} is not installed; run: pip install 'dualopt-optim[cli]'\n"


def test_the_library_imports_neither_frameworks_nor_the_extra() -> None:
    code = (
        "import sys, dualopt, dualopt.convert, dualopt.cli\n"
        "unwanted = {'torch', 'mlx', 'typer', 'rich', 'matplotlib'} & set(sys.modules)\n"
        "assert not unwanted, unwanted\n"
    )
    paths = [str(ROOT), str(ROOT / "backends"), str(ROOT / "conformance")]
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{code}"], check=True, timeout=60)
