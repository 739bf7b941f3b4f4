"""Records: written by one process, judged by another that has numpy alone, refused when anything is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dualopt
from dualopt import namespace, tensors
from dualopt_conformance import closed
from dualopt_conformance.cases import EVERY
from dualopt_conformance.cli import main
from dualopt_conformance.compare import compare
from dualopt_conformance.manifest import MANIFEST, NotComparableError, hashes, load, sealed
from dualopt_conformance.record import record
from dualopt_conformance.workers import WorkerError, mapped

ROOT = Path(dualopt.__file__).parents[1]
GLOBS = ("sgdm/usual", "adamw/bfloat16", "lion/float16", "muon.in_out/usual", "rotational_sgdm/float16")
STREAM = "adamw.inv/usual"
CASE = "sgdm/usual"


def run(*arguments: str | Path, env: Mapping[str, str] | None = None, python: str | Path = sys.executable) -> Any:
    """The command in a process of its own."""
    command = [str(python), "-m", "dualopt_conformance", *map(str, arguments)]
    kept = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "DUALOPT_TEXT")}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, env=kept | dict(env or {}), cwd="/"
    )


def recorded(path: Path, backend: str, *more: str, env: Mapping[str, str] | None = None) -> Path:
    globs = [x for glob in (*GLOBS, STREAM) for x in ("--cases", glob)]
    done = run("record", "--backend", backend, *globs, *more, "--out", path, env=env)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """numpy with one thread and with two, each recorded by a process of its own."""
    where = tmp_path_factory.mktemp("records")
    return tuple(
        recorded(where / name, "numpy", env={"OMP_NUM_THREADS": n, "OPENBLAS_NUM_THREADS": n})
        for name, n in (("one", "1"), ("two", "2"))
    )  # type: ignore[return-value]


def status(*arguments: str | Path) -> int:
    """The exit status of the command in this process."""
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return int(stopped.value.code or 0)


def test_two_processes_agree(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    verdict = compare(two)
    assert verdict.holds
    assert verdict.compared > 100_000
    seen = {(c.case, c.tier, c.experiment, c.sides) for c in verdict.checks}
    assert len(seen) == len(verdict.checks)
    for case in GLOBS:
        assert (case, "exact", "free", ("one", "two")) in seen
        for side in ("one", "two"):
            for tier in ("exact", "fast"):
                assert {(case, tier, e, ("oracle", side)) for e in ("lockstep", "free")} <= seen
    assert {(t, e) for case, t, e, _ in seen if case == STREAM} == {("exact", "free"), ("fast", "free")}
    assert {case for case, _, e, _ in seen if e == "closed"} == {f"closed/{EVERY[n].entry}" for n in GLOBS}
    exact = [c for c in verdict.checks if c.tier == "exact" and c.experiment in ("lockstep", "free")]
    assert {c.differing for c in exact} == {0}
    assert {c.experiment for c in verdict.checks} == {"lockstep", "free", "oracle", "closed"}
    assert status("compare", *two) == 0
    told = capsys.readouterr().out
    assert told.startswith("PASS")
    assert "one" in told
    assert "two" in told


@pytest.mark.long
@pytest.mark.parametrize("backend", ["torch", "mlx", "strict"])
def test_backends_agree(two: tuple[Path, Path], tmp_path: Path, backend: str) -> None:
    """Another library, in another process with another number of threads: not a bit apart in the exact tier."""
    if backend not in namespace.installed():
        pytest.skip(f"{backend} is not installed")
    threads = ("--threads", "2") if backend == "torch" else ()
    tier = ("--tier", "exact", "--without-loop") if backend == "strict" else ()
    other = recorded(tmp_path / backend, backend, *threads, *tier, env={"MLX_ENABLE_TF32": "0"})
    verdict = compare((two[0], other))
    assert verdict.holds
    exact = [c for c in verdict.checks if c.tier == "exact" and c.experiment in ("lockstep", "free")]
    assert {c.differing for c in exact} == {0}
    assert {c.sides for c in exact} == {("oracle", "one"), ("oracle", backend), ("one", backend)}
    assert compare((other, two[0], two[1])).holds


def test_records_of_one_name(two: tuple[Path, Path], tmp_path: Path) -> None:
    twin = Path(shutil.copytree(two[0], tmp_path / "one"))
    assert [side.label for side in compare((two[0], twin, two[1])).sides] == ["one (1)", "one (2)", "two"]


def test_facts(two: tuple[Path, Path]) -> None:
    """A manifest says what ran, and the derived scalars to the bit."""
    record = load(two[1])
    wanted = {"backend", "framework", "device", "numpy", "python", "system", "processor", "time", "flushes", "dualopt"}
    assert wanted <= set(record.facts)
    entry = record.cases[CASE]
    eta = entry["scalars"]["1"]["tall"]["eta"]
    assert 0 < float.fromhex(eta) < 0.1
    assert entry["recipe"]["group"][0]["memory_half_life"] == 3370.0
    assert "memory_half_life" in json.dumps(entry["recipe"])
    group = json.dumps(record.cases["muon.in_out/usual"]["recipe"])
    assert "polar" in group


def test_a_bit_is_found_and_named(two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One bit of one element of m after update 3: which case, step, tensor, index and side."""
    one, bad = two[0], altered(two[1], tmp_path, "exact", f"{CASE}/lockstep/3/tall/m", flip)
    assert status("compare", one, bad) == 1
    told = capsys.readouterr().out
    (found,) = [c for c in compare((one, bad)).failures if c.experiment == "lockstep"]
    assert found.first is not None
    assert (found.case, found.first.update, found.first.tensor, found.first.index) == (CASE, 3, "m of tall", (2, 1))
    assert found.first.oracle == found.first.left != found.first.right
    for part in (CASE, "m of tall", found.first.left, found.first.right):
        assert part in told


def test_the_first_update_that_differs(two: tuple[Path, Path], tmp_path: Path) -> None:
    """A digest that differs in the middle of a trajectory names its update and the side that is off."""

    def off(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        x[700:] += np.uint64(1)
        return x

    bad = altered(two[1], tmp_path, "exact", f"{CASE}/digests", off)
    verdict = compare((two[0], bad))
    (pair,) = [c for c in verdict.failures if c.sides == ("one", bad.name)]
    assert "update 701" in pair.note
    assert any(c.sides == ("oracle", bad.name) for c in verdict.failures)
    assert not any(c.sides == ("oracle", "one") for c in verdict.failures)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.25])
def test_numbers_out_of_bounds_fail(two: tuple[Path, Path], tmp_path: Path, value: float) -> None:
    def put(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        x[0, 0] = value
        return x

    for experiment in ("lockstep/1", "free/1000"):
        bad = altered(two[1], tmp_path / experiment, "fast", f"{CASE}/{experiment}/tall", put)
        verdict = compare((bad,))
        assert verdict.exit_status == 1
        failed = {c.experiment for c in verdict.failures}
        assert experiment.partition("/")[0] in failed


def test_a_loss_that_differs_fails(two: tuple[Path, Path], tmp_path: Path) -> None:
    for change in (lambda x: x + 0.5, lambda x: x * 0 + 3.5, lambda x: x * np.nan):
        bad = altered(two[1], tmp_path / str(id(change)), "fast", "closed/adamw/1/loss", change)
        failed = compare((two[0], bad)).failures
        assert [c.case for c in failed] == ["closed/adamw"]


# ---- damage


def flip(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    x.view(np.uint32)[2, 1] ^= np.uint32(1)
    return x


def copied(path: Path, to: Path) -> Path:
    return Path(shutil.copytree(path, to / "damaged"))


def reseal(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and seal it as if the recorder had written it."""
    manifest = json.loads((path / MANIFEST).read_text())
    change(manifest)
    (path / MANIFEST).write_text(json.dumps(sealed({k: v for k, v in manifest.items() if k != "sha256"})))


def altered(
    path: Path, to: Path, stem: str, key: str, change: Callable[[Any], Any] | None, *, manifest: bool = True
) -> Path:
    """A copy in which one tensor is changed, or removed, and the manifest made to fit."""
    to.mkdir(parents=True, exist_ok=True)
    out = copied(path, to)
    file = tensors.read(out / f"{stem}.safetensors")
    arrays = dict(load(path).arrays[stem])  # float32 throughout
    assert key in arrays
    if change is None:
        del arrays[key]
    else:
        arrays[key] = np.asarray(change(arrays[key].copy()))
    narrow = {k: d for k, d in file.dtypes.items() if k in arrays and d in ("BF16", "F16")}
    tensors.write(out / f"{stem}.safetensors", arrays, {}, narrow)
    if manifest:
        reseal(out, lambda m: m["tensors"].update({stem: hashes(arrays)}))
    return out


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path, Path], Path]:
    """Damage that is a change of the manifest, sealed again."""

    def damage(path: Path, to: Path) -> Path:
        out = copied(path, to)
        reseal(out, change)
        return out

    return damage


def bytewise(name: str, change: Callable[[bytes], bytes | None]) -> Callable[[Path, Path], Path]:
    """Damage that is a change of a file; None removes it."""

    def damage(path: Path, to: Path) -> Path:
        out = copied(path, to)
        data = change((out / name).read_bytes())
        if data is None:
            (out / name).unlink()
        else:
            (out / name).write_bytes(data)
        return out

    return damage


def tensor(stem: str, key: str, change: Callable[[Any], Any] | None, **more: Any) -> Callable[[Path, Path], Path]:
    return lambda path, to: altered(path, to, stem, key, change, **more)


def an_empty_directory(path: Path, to: Path) -> Path:
    (to / "empty").mkdir()
    return to / "empty"


def _swap(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


THETA, M = f"{CASE}/lockstep/3/tall", f"{CASE}/lockstep/3/tall/m"
DAMAGE: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "no such directory": (lambda path, to: to / "nowhere", "is this a record"),
    "a file, no directory": (lambda path, to: path / MANIFEST, "is this a record"),
    "empty directory": (an_empty_directory, "is this a record"),
    "no manifest": (bytewise(MANIFEST, lambda data: None), "is this a record"),
    "manifest truncated": (bytewise(MANIFEST, lambda data: data[: len(data) // 2]), "no valid JSON"),
    "manifest empty": (bytewise(MANIFEST, lambda data: b""), "no valid JSON"),
    "manifest a list": (bytewise(MANIFEST, lambda data: b"[1]"), "not the manifest"),
    "manifest with another key": (edited(lambda m: m.update(more=1)), "more"),
    "manifest without a key": (edited(lambda m: m.pop("closed")), "closed"),
    "manifest edited": (bytewise(MANIFEST, lambda data: data.replace(b': "no"', b': "yes"')), "edited"),
    "manifest of other types": (edited(lambda m: m.update(tiers="exact")), "types"),
    "no tier": (edited(lambda m: m.update(tiers=[])), "types"),
    "another schema": (edited(lambda m: m.update(schema=99)), "schema 99"),
    "another suite": (edited(lambda m: m.update(suite=99)), "suite 99"),
    "other inputs": (edited(lambda m: m["cases"][CASE].update(inputs="0" * 64)), "other inputs"),
    "another recipe": (edited(lambda m: m["cases"][CASE]["recipe"]["group"][0].update(step=0.3)), "another recipe"),
    "an unknown case": (edited(lambda m: m["cases"].update({"x/y": m["cases"][CASE]})), "'x/y'"),
    "no case": (edited(lambda m: m.update(cases={})), "no case in common"),
    "another text": (edited(lambda m: m["closed"].update(sha256="0" * 64)), "different texts"),
    "a tier too many": (edited(lambda m: m.update(tiers=["exact"])), "lists tensors"),
    "no reference": (bytewise("reference.safetensors", lambda data: None), "cannot be read"),
    "no tensors": (bytewise("exact.safetensors", lambda data: None), "cannot be read"),
    "tensors empty": (bytewise("fast.safetensors", lambda data: b""), "too few"),
    "tensors truncated": (bytewise("exact.safetensors", lambda data: data[:-1]), "bytes of data"),
    "header garbage": (bytewise("exact.safetensors", lambda data: data[:8] + b"x" + data[9:]), "header"),
    "one bit of data": (bytewise("exact.safetensors", _swap), "its checksum says"),
    "one tensor gone": (tensor("exact", THETA, None, manifest=False), "changed after"),
    "one tensor gone, resealed": (tensor("exact", THETA, None), f"lacks '{THETA}'"),
    "a state array gone, resealed": (tensor("fast", M, None), f"lacks '{M}'"),
    "another shape": (tensor("exact", THETA, lambda x: x[:-1]), "should be float32(7, 3)"),
    "another type": (tensor("fast", THETA, lambda x: x.astype(np.float64)), "float64(7, 3)"),
    "a reference of its own": (tensor("reference", f"{CASE}/after/3/tall/m", flip), "not the reference"),
    "a start of its own": (tensor("reference", f"{CASE}/start/1/tall", flip), "not the reference"),
    "exemptions of its own": (tensor("reference", f"{CASE}/undecided/tall", lambda x: x + 1), "undecided"),
    "fewer updates": (tensor("exact", f"{CASE}/digests", lambda x: x[:-1]), "digests"),
    "losses gone": (tensor("exact", "closed/adamw/0/loss", None), "lacks 'closed/adamw/0/loss'"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_damage_is_refused(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, first: bool
) -> None:
    """Exit 2 with one line that says what is wrong, on either side of a comparison."""
    damage, told = DAMAGE[name]
    bad = damage(two[1], tmp_path)
    assert status("compare", *((bad, two[0]) if first else (two[0], bad))) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert told in captured.err
    assert len(captured.err.strip().splitlines()) == 1


def test_there_are_twenty_kinds_of_damage() -> None:
    assert len(DAMAGE) >= 20


def test_no_tier_in_common(two: tuple[Path, Path], tmp_path: Path) -> None:
    fast = recorded(tmp_path / "fast", "numpy", "--tier", "fast", "--without-loop")
    exact = copied(two[0], tmp_path)
    (exact / "fast.safetensors").unlink()

    def drop(manifest: dict[str, Any]) -> None:
        manifest["tiers"] = ["exact"]
        del manifest["tensors"]["fast"]

    reseal(exact, drop)
    with pytest.raises(NotComparableError, match="no tier in common"):
        compare((fast, exact))
    assert {c.tier for c in compare((two[0], fast)).checks} == {"fast"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("record", "--backend", "nothing", "--out", "OUT"), "nothing"),
        (("record", "--backend", "numpy", "--out", "OUT", "--cases", "adamv/*"), "no case matches"),
        (("record", "--backend", "numpy", "--out", "OUT", "--tier", "exakt"), "exakt"),
        (("record", "--backend", "numpy", "--out", "OUT", "--device", "gpu"), "gpu"),
        (("record", "--backend", "numpy", "--out", "."), "not an empty directory"),
        (("record", "--backend", "numpy"), "--out"),
        (("mutants", "nothing-like-it"), "no mutant"),
        (("compare",), "DIR"),
        (("judge",), "judge"),
    ],
)
def test_what_cannot_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    """Exit 3 with a message, and nothing is left behind."""
    out = tmp_path / "out"
    assert status(*(str(out) if a == "OUT" else a for a in arguments)) == 3
    assert told in capsys.readouterr().err
    assert not out.exists()


def test_the_recorder_switches_tf32_off(tmp_path: Path) -> None:
    """Also where a library reads its switch once, unless somebody has set it; then the backend refuses (or not)."""
    code = (
        "import atexit, os; from dualopt_conformance.cli import main; "
        "atexit.register(lambda: print(os.environ['MLX_ENABLE_TF32'])); "
        "main(['record', '--backend', 'nothing', '--out', 'x'])"
    )
    kept = {key: value for key, value in os.environ.items() if key != "MLX_ENABLE_TF32"}
    for env, told in ((kept, "0"), ({**kept, "MLX_ENABLE_TF32": "1"}, "1")):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
        assert done.stdout.strip() == told


def test_a_crash_is_no_verdict(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualopt_conformance.cli.compare", lambda *_: 1 // 0)
    assert status("compare", "anything") == 3
    assert "a defect" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualopt_conformance.cli.compare", lambda *_: pytest.fail("the records were judged"))
    (tmp_path / "file").write_text("")
    assert status("report", "anything", "--out", tmp_path / "file") == 3
    assert "file" in capsys.readouterr().err


def test_what_was_left_out_is_said(two: tuple[Path, Path], tmp_path: Path) -> None:
    """A verdict on a part of the suite does not read like one on all of it."""
    warnings = compare(two).warnings
    assert f"{len({*GLOBS, STREAM})} of the suite's {len(EVERY)} cases were compared" in warnings
    assert not any("tier" in w or "loop" in w for w in warnings)
    part = recorded(tmp_path / "part", "numpy", "--tier", "exact", "--without-loop")
    warnings = compare((two[0], part)).warnings
    assert "the fast tier was not compared" in warnings
    assert "the closed loop was not compared" in warnings


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("list") == 0
    assert len(capsys.readouterr().out.splitlines()) == len(EVERY)


def test_no_process_outlives_its_recorder() -> None:
    """Not even one that was killed at work."""
    code = (
        "import os, time; from dualopt_conformance.workers import Worker; from threading import Thread; "
        "worker = Worker(1); Thread(target=worker.do, args=(time.sleep, 600), daemon=True).start(); time.sleep(0.5); "
        "print(worker.process.pid, flush=True); os._exit(1)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(int(done.stdout), 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(int(done.stdout), signal.SIGKILL)
    pytest.fail("the process still runs")


def test_work_comes_back_in_order() -> None:
    """What fails in a process fails here, and one that dies is no result."""
    tasks = [str(x) for x in range(12)]
    assert list(mapped(int, tasks, 2, least=1)) == list(range(12))
    with pytest.raises(ValueError, match="invalid literal"):
        list(mapped(int, [*tasks, "x"], 2, least=1))
    with pytest.raises(WorkerError, match="status 7"):
        list(mapped(os._exit, [7, 7], 2, least=1))


@pytest.mark.long
def test_several_processes_record_what_one_does(tmp_path: Path) -> None:
    globs = ("sgdm/*", "lion/*", "adamw/bfloat16")
    one, two = (record(tmp_path / f"{n}", "numpy", globs=globs, loops=False, processes=n) for n in (1, 2))
    assert load(one).manifest["tensors"] == load(two).manifest["tensors"]
    assert load(one).cases == load(two).cases
    verdicts = [compare((one, two), processes=n) for n in (1, 2)]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0].holds


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that can import numpy, dualopt and nothing else."""
    where = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(where / "venv")], check=True)
    packages = where / "packages"
    packages.mkdir()
    site = Path(np.__file__).parents[1]
    for source in (*site.glob("numpy*"), Path(dualopt.__file__).parent, Path(closed.__file__).parent):
        (packages / source.name).symlink_to(source)
    (home,) = (where / "venv").glob("lib/python*/site-packages")
    (home / "only.pth").write_text(f"{packages}\n")
    return where / "venv" / "bin" / "python"


def test_numpy_is_enough_to_judge(two: tuple[Path, Path], bare: Path, tmp_path: Path) -> None:
    code = "import sys, importlib.util as u; sys.exit(any(u.find_spec(n) for n in sys.argv[1:]))"
    subprocess.run([bare, "-c", code, "torch", "mlx", "array_api_compat", "typer", "rich", "safetensors"], check=True)
    done = run("compare", *two, python=bare)
    assert done.returncode == 0, done.stderr
    done = run("compare", *two, "--json", python=bare)
    assert json.loads(done.stdout)["holds"] is True
    done = run("report", *two, "--without-mutants", "--out", tmp_path / "report", python=bare)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.md", "report.xml", "report.html"}


def test_the_command_needs_no_extra(bare: Path) -> None:
    """`dualopt conformance` is the same command, and does not import what other commands need."""
    code = "import sys; sys.argv[1:] = ['conformance', 'list', 'sgdm/usual']; from dualopt.cli import main; main()"
    done = subprocess.run([bare, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sgdm/usual" in done.stdout
