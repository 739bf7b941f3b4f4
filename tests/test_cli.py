"""The command line: what it prints, and its exit status. 0 fine, 1 different, 2 bad input, 3 missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualopt import namespace, tensors
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


def test_convert_prints_a_recipe_and_moves_it() -> None:
    knobs = ["convert", "--from", "torch-adamw", "--lr", 3e-4, "--weight-decay", 0.1, "--betas", "0.9,0.95"]
    batch = ["--batch", 512, "--sequence", 1024, "--to-batch", 64]
    found = data(*knobs, *batch, "--memories", "second")
    assert found["recipe"]["count"] == {"unit": "tokens", "per_update": 512 * 1024}
    assert found["half_lives"]["second_memory_half_life"]["updates"] == pytest.approx(13.5134, rel=1e-5)
    assert found["to"]["knobs"]["betas"] == pytest.approx([0.9, 0.95 ** (1 / 8)])
    text = run(*knobs, *batch).stdout
    assert "[[group]]" in text
    assert "Time constants" in text
    assert "0.98691628" in text


def test_convert_without_an_image_says_so() -> None:
    found = data("convert", "--from", "torch-muon", "--lr", 0.02, "--batch", 64, "--to-batch", 8)
    assert found["to"]["knobs"] is None
    assert "Nesterov" in found["to"]["reason"]
    assert "No raw knobs" in run("convert", "--from", "torch-muon", "--lr", 0.02, "--batch", 64, "--to-batch", 8).stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from", "torch-adamv", "--lr", "1"], "did you mean"),
        (["--from", "lion-pytorch", "--lr", "1e-4", "--betas", "0.99,0.9"], "negative weight"),
        (["--from", "torch-adamw", "--lr", "1e-4", "--betas", "0.9"], "two numbers"),
        (["--from", "torch-adamw", "--lr", "1e-4", "--to-batch", "3"], "--to-batch needs --batch"),
        (["--from", "torch-adamw", "--lr", "1e-4", "--sequence", "3"], "--sequence needs --batch"),
        (["--from", "torch-adamw", "--lr", "1e-4", "--batch", "0"], "at least 1"),
    ],
)
def test_convert_refuses(arguments: list[str], says: str) -> None:
    assert says in run("convert", *arguments, status=2).stderr


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
