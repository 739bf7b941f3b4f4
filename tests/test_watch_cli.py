"""`dualopt watch` and `train --monitor`: what they print, draw and refuse, and that no framework is needed to look."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
from typer.testing import CliRunner, Result

import dualopt
from dualopt.cli import watching
from dualopt.cli.app import app
from dualopt.watch.board import board
from dualopt.watch.page import written
from dualopt.watch.panels import COSINE, LINEAR, LOG, Panel, panels, short
from dualopt.watch.stream import NAME, read
from dualopt.watch.terminal import sparkline
from dualopt.watch.verdict import number

from .watched import Torch, noise, normal, recipe

WIDTHS = (60, 80, 120, 200)


def run(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def refused(*arguments: object) -> str:
    result = run(*arguments, status=2)
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    return line


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of three groups: on noise, with gradients that agree and small numbers, and one that is never measured."""
    path = tmp_path_factory.mktemp("several") / NAME
    groups = [
        {"name": "matrices & <more>", "optimizer": "muon", "match": ["w*"], "step": 0.01},
        {"name": "vectors", "optimizer": "adamw", "match": ["v*"], "step": 1e-7, "shrink_half_life": 1e9},
        {"name": "frozen", "optimizer": "sgdm", "match": ["*"], "step": 1e-3},
    ]
    table = {"count": {"unit": "samples", "per_update": 10}, "group": groups}
    shapes = {"w1": (6, 5), "w2": (3, 4), "v": (500,), "other": (2, 2)}
    run = Torch(normal(shapes, scale=1e-4), dualopt.Recipe.from_dict(table))
    dualopt.Monitor(run.optimizer, path, every=2, end=400)
    still = normal({"v": (500,)}, seed=1)
    for t in range(20):
        run.step(normal({"w1": (6, 5), "w2": (3, 4)}, seed=t) | {n: -g for n, g in still.items()})
    return path


@pytest.mark.parametrize("width", WIDTHS)
def test_the_view_fits_the_terminal(several: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No number is cut, at any width."""
    monkeypatch.setenv("COLUMNS", str(width))
    text = run("watch", several).stdout
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "200 of 400 samples, 50%; 11 updates measured" in text
    assert "matrices & <more>: muon, 2 parameters, 42 entries" in text
    assert "nothing measured yet" in text
    assert "towards gradients that agree" in " ".join(text.split())
    assert ("▄" in text) == (width >= 80)
    for line in re.findall(r"RMS of the update +(\S+) +(\S+) +(\S+)", text):
        assert all(re.fullmatch(r"[0-9.]+(e−\d\d)?", cell) for cell in line)


def test_numbers_as_json(several: Path) -> None:
    found = json.loads(run("watch", several, "--json").stdout)
    assert (found["count"], found["end"], found["measured"]) == (200, 400, 11)
    matrices, vectors, frozen = found["groups"]
    assert matrices["quantities"]["shrink"]["meaning"] == "within"
    assert vectors["quantities"]["u_theta"]["meaning"] in ("agree", "within")
    assert vectors["quantities"]["g_m"] == {
        "measured": pytest.approx(1.0),
        "expected": 0.0,
        "band": pytest.approx([-4 / 500**0.5, 4 / 500**0.5]),
        "meaning": "agree",
    }
    assert frozen == {"name": "frozen", "count": None, "quantities": {}}
    assert json.loads(run("watch", several.parent, "--json").stdout) == found  # a run directory


class Reader(HTMLParser):
    """Tags that are closed in order, and what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [str(value) for key, value in attrs if key in ("src", "href", "xlink:href")]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)
        assert tag not in ("script", "link", "img", "iframe")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("path", "circle")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_pictures(several: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    png, html = tmp_path / "deep/w.png", tmp_path / "w.html"
    noise(
        tmp_path / "one", recipe(), shapes={"w": (4, 3)}, updates=6, every=2
    )  # a picture of many panels takes seconds
    text = run("watch", tmp_path / "one", "--png", png).stdout + run("watch", several, "--html", html).stdout
    assert str(png) in text.replace("\n", "")
    assert png.read_bytes().startswith(b"\x89PNG")
    page = Reader()
    page.feed(html.read_text())
    assert page.open == []
    assert page.loads == []
    assert not re.search(r"url\(|@import|https?:", html.read_text())
    assert "matrices & <more>: muon, 2 parameters, 42 entries" in page.texts
    assert html.read_text().count('<svg width="260"') == 18
    assert html.read_text() == written(read(several))
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused("watch", several, "--html", tmp_path / "file/x.html")
    assert "cannot be written" in refused("watch", several, "--png", tmp_path)


def test_panels(several: Path) -> None:
    watched = read(several)
    matrices, vectors, frozen = (panels(watched, group) for group in watched.header["groups"])
    assert [p.scale for p in matrices] == [LOG, LOG, LOG, LINEAR, COSINE, COSINE]
    assert all(p.empty and not p.outside for p in frozen)
    assert all(not p.empty for p in matrices)
    agree = vectors[-1]
    assert agree.outside == agree.measured
    assert 0.95 < agree.place(1.0) <= 1.0
    for panel in (*matrices, *vectors, *frozen):
        assert panel.low < panel.high
        assert all(0 <= panel.place(y) <= 1 for _, y in (*panel.measured, *panel.curve))
        assert 2 <= len(panel.ticks) <= 9
        assert all(0 <= panel.place(y) <= 1 for y in panel.ticks)


def test_axes() -> None:
    one = Panel("rms", "", LOG, -3.0, 0.0, (), (), (), ())
    assert one.ticks == pytest.approx((1e-3, 1e-2, 1e-1, 1.0))
    assert [one.place(y) for y in (0.0, 1e-9, 1e-3, 1.0, 7.0)] == pytest.approx([0, 0, 0, 1, 1])
    two = Panel("u_theta", "", COSINE, -0.4, 0.4, (), (), (), ())
    assert two.ticks == pytest.approx((-0.4, -0.2, 0.0, 0.2, 0.4))
    assert [short(x) for x in (0.0, 1.5e6, 245_760, 2e-5, -0.3)] == ["0", "1.5\u2009M", "246\u2009k", "2e−5", "−0.3"]
    assert [number(x) for x in (None, 0.0, -1.234e-5, 0.98765)] == ["–", "0", "−1.23e−05", "0.988"]
    assert sparkline([0, 1, None, None, 2, 3], 0, 3, 3) == "▂ ▇"
    assert sparkline([1, 1], 1, 1, 8) == "▅▅"
    assert sparkline([], 0, 0, 8) == ""


def test_what_is_refused(several: Path, tmp_path: Path) -> None:
    assert "cannot be read" in refused("watch", tmp_path / "x")
    assert "cannot be read" in refused("watch", tmp_path)
    (tmp_path / "empty").write_bytes(b"")
    assert "nothing has been measured yet" in refused("watch", tmp_path / "empty")
    (tmp_path / "other").write_bytes(b'{"update": 1, "count": 10, "loss": 3.0}\n')
    assert "not the file of a monitor" in refused("watch", tmp_path / "other")
    (tmp_path / "binary").write_bytes(b"\x89PNG\xff\n")
    assert "line 1 is damaged" in refused("watch", tmp_path / "binary")
    assert "--follow" in refused("watch", several, "--follow", "--png", tmp_path / "w.png")
    assert "give both" in refused("train", "--every", 3, "--out", tmp_path)


def test_following(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added is shown; Ctrl-C ends it."""
    path, now = tmp_path / NAME, []
    noise(path, recipe(), shapes={"w": (4, 3)}, updates=10, every=2)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))

    def pause(seconds: float) -> None:
        now.append(seconds)
        if len(now) == 1:
            path.write_bytes(whole)
        elif len(now) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", pause)
    text = run("watch", path, "--follow").stdout
    assert "6 updates measured" in text
    assert len(now) == 3
    path.write_bytes(whole)
    monkeypatch.setattr(watching.time, "sleep", lambda seconds: path.unlink())
    assert "is gone" in run("watch", path, "--follow", status=2).stderr


def test_looking_needs_no_framework(several: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from dualopt.cli.app import app\n"
        f"app(['watch', {str(several)!r}, '--html', {str(tmp_path / 'w.html')!r}], standalone_mode=False)\n"
        "assert not {'torch', 'mlx', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_training_with_a_monitor(tmp_path: Path) -> None:
    """A run that is resumed has no count twice, and one that is not begins anew."""
    options: list[Any] = ["train", "--framework", "torch", "--layers", 1, "--width", 16, "--heads", 2, "--context", 16]
    options += ["--updates", 6, "--no-plot", "--json", "--monitor", "--every", 2, "--out", tmp_path]
    run(*options)
    first = read(tmp_path / "torch")
    assert len(first.records) == 4
    assert first.header["end"] == first.records[-1]["count"]
    assert all(group["expected"] for record in first.records for group in record["groups"].values())
    with (tmp_path / "torch" / NAME).open("ab") as file:
        file.write(b"{")
    run(*options, "--resume")
    assert read(tmp_path / "torch") == first


def test_tensorboard_is_no_dependency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed a line says so, and the run goes on."""
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    options: list[Any] = ["train", "--framework", "torch", "--layers", 1, "--width", 16, "--heads", 2, "--context", 16]
    options += ["--updates", 1, "--no-plot", "--json", "--monitor", "--tensorboard", "--out", tmp_path]
    assert "pip install tensorboard" in run(*options).stderr
    assert len(read(tmp_path / "torch").records) == 1
    assert not (tmp_path / "torch/tensorboard").exists()
    assert "give both" in refused("train", "--tensorboard", "--out", tmp_path / "x")


def test_events_for_tensorboard(tmp_path: Path) -> None:
    """Read by its own reader: a run that goes on takes back what it measured before from there on."""
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for counts in ((10, 20, 30), (20, 40)):
        writer = board(tmp_path)
        assert writer is not None
        for count in counts:
            writer.add_scalar("all/rms", 0.5 + count, count)
        writer.flush()
        time.sleep(1.1)  # names of event files have seconds
    found = loader.EventAccumulator(str(tmp_path))
    found.Reload()
    assert [(x.step, x.value) for x in found.Scalars("all/rms")] == [(10, 10.5), (20, 20.5), (40, 40.5)]


def test_the_file_is_read_while_it_is_written(tmp_path: Path) -> None:
    path, found = tmp_path / NAME, []
    writer = threading.Thread(
        target=lambda: noise(path, recipe(), shapes={"w": (30, 30)}, updates=200, every=1), daemon=True
    )
    writer.start()
    while writer.is_alive():
        if path.exists():
            found.append(len(read(path).records))
        time.sleep(0.002)
    assert found == sorted(found)
    assert len(read(path).records) == 200
