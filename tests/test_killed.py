"""A run that is killed at any moment, on a full disk and without leave to write: nothing is lost beyond the last
interval, nothing corrupt is resumed, and a resumed run has the bits of one that nobody touched."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualopt import checkpoint, durable, tensors
from dualopt.checkpoint import Snapshot
from dualopt.errors import CheckpointError
from dualopt.series import Series
from dualopt.workload.run import Run
from dualopt.workload.train import train

from . import killed

ROOT = Path(__file__).parents[1]


def carried_out(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.killed", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("framework", "number", "most"),
    [
        ("numpy", 10, 0.08),
        pytest.param("numpy", 200, 0.12, marks=LONG),
        pytest.param("torch", 20, 0.4, marks=LONG),
    ],
)
def test_a_killed_run_goes_on(framework: str, number: int, most: float) -> None:
    if framework == "torch":
        pytest.importorskip("torch")
    found = carried_out("kills", "--framework", framework, "--number", str(number), "--most", str(most))
    assert found["ended"] == []  # nobody stopped but by a signal, and the last one finished
    assert found["kills"] == number
    assert found["updates"] > number  # most lives got further
    assert found["least_lost"] >= 0
    assert found["most_lost"] <= found["interval"]
    assert found["corrupt"] == []
    assert found["checkpoint_equal"]
    assert found["metrics_equal"]
    assert found["left_over"] == [
        "checkpoint.1.safetensors",
        "checkpoint.safetensors",
        "manifest.json",
        "metrics.jsonl",
    ]
    assert framework == "torch" or number < 100 or found["in_a_write"] > 5  # kills hit what they are meant to hit


@pytest.mark.parametrize(("hindrance", "told"), [("full", "File too large"), ("locked", "Permission denied")])
def test_what_cannot_be_written_is_said_and_nothing_is_lost(hindrance: str, told: str) -> None:
    found = carried_out(hindrance)
    assert found["begun"] == found["finished"] == "done"
    assert found["said"].startswith("CheckpointError: ")
    assert f"cannot be written: {told}" in found["said"]
    assert found["unchanged"]
    assert found["corrupt"] == []
    assert found["checkpoint_equal"]
    assert found["metrics_equal"]


# ---- the series


def numbered(i: int) -> Snapshot:
    return Snapshot({"w": np.full(5, i, np.float32)}, {}, {"": i, "w": i}, {})


def filled(path: Path, keep: int, number: int) -> Series:
    series = Series(path / "c.safetensors", keep)
    for i in range(1, number + 1):
        series.save(numbered(i), metadata={"update": str(i)})
    return series


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_the_last_ones_are_kept(tmp_path: Path, keep: int) -> None:
    assert Series(tmp_path / "c.safetensors", keep).load(pytest.fail) is None
    for number in (1, 6):
        there = tmp_path / str(number)
        there.mkdir()
        series = filled(there, keep, number)
        kept = [checkpoint.load(path)[1]["update"] for path in series.files()]
        assert kept == [str(i) for i in range(number, max(number - keep, 0), -1)]
        names = ["c.safetensors", *(f"c.{i}.safetensors" for i in range(1, keep))][: len(kept)]
        assert [path.name for path in series.files()] == names
        assert sorted(p.name for p in there.iterdir()) == sorted(names)


def test_what_is_damaged_is_set_aside_with_a_message(tmp_path: Path) -> None:
    series, told = filled(tmp_path, 3, 3), list[str]()
    content = bytearray(series.path.read_bytes())
    content[-1] ^= 1
    series.path.write_bytes(content)
    found = series.load(told.append)
    assert found is not None
    assert found[1] == {"update": "2"}
    assert len(told) == 1
    assert "c.safetensors: its checksum says" in told[0]
    assert told[0].endswith(f"Used instead: {tmp_path / 'c.1.safetensors'}")
    assert (tmp_path / "c.damaged.safetensors").read_bytes() == content
    assert series.load(pytest.fail) is not None  # nothing is wrong any more
    series.save(numbered(3), metadata={"update": "3"})
    assert [checkpoint.load(p)[1]["update"] for p in series.files()] == ["3", "2"]
    for path in series.files():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint here is intact"):
        series.load(pytest.fail)


@pytest.mark.parametrize(("code", "passed_over"), [(errno.EIO, True), (errno.EACCES, False)])
def test_what_the_disk_has_lost_is_passed_over_and_what_is_locked_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, passed_over: bool
) -> None:
    series, told, real = filled(tmp_path, 2, 2), list[str](), tensors._header

    def refusing(file: Any) -> Any:
        if Path(file.name) == series.path:
            raise OSError(code, os.strerror(code))
        return real(file)

    monkeypatch.setattr(tensors, "_header", refusing)
    if passed_over:
        found = series.load(told.append)
        assert found is not None
        assert found[1] == {"update": "1"}
        assert "Input/output error" in told[0]
        return
    with pytest.raises(CheckpointError, match="Permission denied"):
        series.load(pytest.fail)
    assert series.path.exists()


def test_a_checkpoint_of_another_version_is_not_passed_over(tmp_path: Path) -> None:
    series = filled(tmp_path, 2, 2)
    tensors.write(series.path, {}, {"dualopt.format": "99"})
    before = series.path.read_bytes()
    with pytest.raises(CheckpointError, match="format '99'"):
        series.load(pytest.fail)
    assert series.path.read_bytes() == before


@pytest.mark.parametrize("after", range(6))
def test_a_save_that_ends_between_two_operations_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Every rename and every synchronisation of a save is made the last one."""
    series, left = filled(tmp_path, 3, 3), iter(range(after))
    rename, synchronise = Path.replace, durable.synchronise

    def stop() -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    def replace(self: Path, target: Path) -> Path:
        stop()
        return rename(self, target)

    def put(directory: Path) -> None:
        stop()
        synchronise(directory)

    with monkeypatch.context() as m:
        m.setattr(Path, "replace", replace)
        m.setattr(durable, "synchronise", put)
        with pytest.raises(KeyboardInterrupt):
            series.save(numbered(4), metadata={"update": "4"})
    found = series.load(pytest.fail)
    assert found is not None
    assert found[1]["update"] == ("3" if after == 0 else "4")
    series.save(numbered(5), metadata={"update": "5"})
    kept = [checkpoint.load(path)[1]["update"] for path in series.files()]
    assert kept[:2] == ["5", "3" if after == 0 else "4"]
    assert kept == sorted(kept, reverse=True)


def test_a_run_with_a_damaged_checkpoint_goes_on_from_the_one_before(tmp_path: Path) -> None:
    text = killed.load_text()
    lives, whole = (killed.Lives(tmp_path / name, killed.Trainer, text) for name in ("run", "whole"))
    lives.train(14)
    whole.train(21)
    content = lives.series.path.read_bytes()
    lives.series.path.write_bytes(content[: len(content) // 2])
    (tmp_path / "run" / ".checkpoint.safetensors.1.tmp").touch()
    with pytest.warns(RuntimeWarning, match=r"checkpoint.safetensors: .*Used instead: .*checkpoint.1.safetensors"):
        lives.train(21)
    assert lives.series.path.read_bytes() == whole.series.path.read_bytes()
    assert lives.rows() == whole.rows()
    assert not list((tmp_path / "run").glob(".*"))


def test_a_second_process_may_not_train_in_the_same_directory(tmp_path: Path) -> None:
    lives = killed.Lives(tmp_path / "run", killed.Trainer, killed.load_text())
    lives.train(7)
    before = {path.name: path.read_bytes() for path in lives.path.iterdir()}
    refused = pytest.raises(CheckpointError, match="another process is training here")
    with Run.open(lives.path).alone():
        with refused:
            lives.train(14)
        with refused:
            Run.create(lives.path, lives.told)
        with refused:
            train(killed.Trainer(killed.CONFIG), lives.text, replace(killed.SETTINGS, updates=14), Run.open(lives.path))
    assert {path.name: path.read_bytes() for path in lives.path.iterdir()} == before
    lives.train(14)


def test_the_names_of_new_directories_are_put_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lives, done = killed.Lives(tmp_path / "runs" / "deep", killed.Trainer, killed.load_text()), list[Path]()
    monkeypatch.setattr(durable, "synchronise", done.append)
    Run.create(lives.path, lives.told)
    assert set(done) == {tmp_path, tmp_path / "runs", lives.path}
