"""docs/convert.md: its tables are generated, its commands and files work."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from dualopt.convert import SOURCES, files
from dualopt.convert.tables import markdown, states

pytest.importorskip("typer")
from typer.testing import CliRunner

from dualopt.cli.app import app

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/convert.md").read_text(encoding="utf-8")
TOML = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"^    dualopt (convert .*)$", TEXT, re.MULTILINE)


def test_tables_are_those_of_the_code() -> None:
    assert TEXT.endswith(f"\n{markdown()}"), "python -m dualopt.convert.tables"
    assert f"\n{states()}\n" in TEXT
    assert all(f"| `{name}` |" in markdown() for name in SOURCES)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_work(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "knobs.toml").write_text(TOML[0], encoding="utf-8")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    if "--checkpoint" in command:
        torch = pytest.importorskip("torch")
        model = torch.nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(3)).sum().backward()
        optimizer.step()
        torch.save(model.state_dict(), "model.pt")
        torch.save(optimizer.state_dict(), "adamw.pt")
    done = CliRunner().invoke(app, shlex.split(command))
    assert done.exit_code == 0, done.output
    out = re.search(r"--out (\S+)", command)
    assert out is None or files.read(tmp_path / out[1]).recipe.groups


def test_the_commands_were_found() -> None:
    assert len(COMMANDS) == 6
    assert files.from_tables(tomllib.loads(TOML[0])).recipe.schedule.drives == "both"


def test_what_is_not_exact_is_named() -> None:
    """Every source that has something to say about it is in the list, and no other."""
    listed = TEXT.partition('says "not exact", and what:')[2].partition("A schedule of the recipe")[0]
    named = {name for name in re.findall(r"`([a-z-]+)`", listed) if name in SOURCES}
    assert named == {s.name for s in SOURCES.values() if s.inexact is not type(s).inexact}
