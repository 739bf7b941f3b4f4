"""The documentation runs: every code block of README.md and docs/ is carried out, and the site is built of them.

The blocks of a page run in order in one folder, which has the files that the page shows and `recipes/`: Python in one
namespace, commands by the command line itself. A comment above a block, ``<!-- torch -->``, says that it belongs to one
framework; such pages run once for each, with what PRELUDES has of it.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
import typer
from typer.testing import CliRunner

import dualopt.analysis
import dualopt.convert
from docs.generator import docstrings, pictures, rows
from docs.generator.blocks import Block, blocks, files
from dualopt import namespace
from dualopt.catalog import ENTRIES
from dualopt.cli.app import app
from dualopt.convert import files as knob_files
from dualopt.convert import source, tables
from dualopt_conformance.cli import _parser

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "generated" not in path.parts
}
COMMAND = typer.main.get_command(app)

# What takes minutes, or looks at what has taken them: that it would be accepted is tried, and nothing more.
LONG = ("demo", "train", "watch", "bench", "replay", "conformance")
# Code that does not run as it stands, by page and first line, and why not.
NOT_RUN: dict[tuple[str, str], str] = {
    ("docs/distributed.md", 'torch.distributed.init_process_group("gloo")  # "nccl" on GPUs'): (
        "it takes several processes: tests/launched.py is the same, and runs"
    ),
    ("docs/captured.md", "opt.capturable()  # once, before warm-up"): (
        "it takes a CUDA device: tests/test_captured.py has a stand-in for the graph"
    ),
}

MODEL = """
import numpy as np
import torch
model = torch.nn.Sequential()
model.add_module("blocks", torch.nn.Sequential(torch.nn.Linear(4, 4)))
model.add_module("head", torch.nn.Linear(4, 2))
model(torch.ones(3, 4)).sum().backward()
"""
MLX_MODEL = """
import mlx.core as mx
import mlx.nn as nn
import numpy as np
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = [nn.Linear(4, 4)]
        self.head = nn.Linear(4, 2)
    def __call__(self, x):
        return self.head(self.blocks[0](x))
model = Model()
loss_and_grad = nn.value_and_grad(model, lambda x: mx.sum(model(x)))
grads = loss_and_grad(mx.ones((3, 4)))[1]
"""
# Names as a language model has them, for the groups of recipes/symmetry-compatible.toml.
NAMES = """
import dualopt
shapes = {"embed_tokens.weight": (32, 128), "lm_head.weight": (32, 128), "self_attn.q_proj.weight": (256, 128),
          "self_attn.o_proj.weight": (128, 256), "mlp.gate_proj.weight": (64, 128), "norm.weight": (128,)}
"""
# A checkpoint of a model whose names and recipe have changed since.
OLD_AND_NEW = """
import dualopt
recipe = dualopt.Recipe.from_dict({"group": [{"optimizer": "adamw"}]})
"""
HANDED_ON = """
old = made(["fc.weight", "blocks.0.weight", "old_head.weight"])
dualopt.checkpoint.save("old.safetensors", old.snapshot(), metadata={})
opt = made(["up.weight", "blocks.0.weight", "head.weight"])
"""
WATCHED = """
import dualopt
from pathlib import Path
Path("runs/mine").mkdir(parents=True)
recipe = {"schedule": {"shape": "cosine", "total": 100}, "group": [{"optimizer": "adamw"}]}
opt = dualopt.optimizer(model, dualopt.Recipe.from_dict(recipe))
"""
# What a page takes for granted: the model of the reader, and what its training loop has at hand.
PRELUDES = {
    ("README.md", "torch"): MODEL
    + """
tokens_in_this_batch = 16_384
validate = lambda model: None
trees = [{name: torch.ones_like(p) for name, p in model.named_parameters()} for _ in range(2)]
microbatches = [torch.ones(3, 4)] * 2
loss = lambda model, batch: model(batch).sum()
""",
    ("README.md", "mlx"): MLX_MODEL
    + """
tokens_in_this_batch = 16_384
validate = lambda model: None
trees = [grads, grads]
batch = mx.ones((3, 4))
def train_step(batch):
    loss, grads = loss_and_grad(batch)
    opt.update(model, grads)
    return loss
params, counts = {"w": np.ones((4, 4), dtype=np.float32)}, 64
gradients = [params] * 3
""",
    ("docs/distributed.md", "mlx"): MLX_MODEL
    + """
import dualopt
recipe = dualopt.Recipe.from_dict({"group": [{"optimizer": "muon", "match": ["*.weight"]}, {"optimizer": "adamw"}]})
""",
    ("docs/convert.md", "torch"): MODEL
    + """
import dualopt
torch_optimizer = torch.optim.AdamW(model.parameters())
torch_optimizer.step()
torch.save(model.state_dict(), "model.pt")
torch.save(torch_optimizer.state_dict(), "adamw.pt")
""",
    ("docs/from/adamw.md", "torch"): MODEL
    + """
theirs = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)
theirs.step()
torch.save(model.state_dict(), "model.pt")
torch.save(theirs.state_dict(), "adamw.pt")
""",
    ("docs/from/scion.md", "torch"): """
import torch
import dualopt
model = torch.nn.Linear(4, 3, bias=False)
scion = {"state": {0: {"momentum_buffer": torch.ones(3, 4)}}, "param_groups": [{"params": [0], "momentum": 0.1}]}
""",
    ("docs/checkpoints.md", "torch"): OLD_AND_NEW
    + """
import torch
def made(names):
    model = {name: torch.nn.Parameter(torch.ones(2, 3)) for name in names}
    return dualopt.optimizer(model, recipe)
"""
    + HANDED_ON,
    ("docs/checkpoints.md", "mlx"): OLD_AND_NEW
    + """
import mlx.core as mx
def made(names):
    return dualopt.optimizer({name: mx.ones((2, 3)) for name in names}, recipe)
"""
    + HANDED_ON,
    ("docs/watch.md", "torch"): MODEL + WATCHED,
    ("docs/watch.md", "mlx"): MLX_MODEL + WATCHED,
    ("docs/prediction.md", ""): """
import json
import shutil
shutil.copy("recipes/adamw.toml", "recipe.toml")
from pathlib import Path
Path("shapes.json").write_text(json.dumps({"blocks.0.weight": [64, 64], "norm.weight": [64]}))
""",
    ("docs/spheres.md", "torch"): MODEL
    + """
from pathlib import Path
import dualopt
Path("recipe.toml").write_text("[[group]]\\noptimizer = 'adamw'\\n")
""",
    ("docs/symmetry.md", "torch"): NAMES
    + """
import torch
model = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}
""",
    ("docs/symmetry.md", "mlx"): NAMES
    + """
import mlx.core as mx
model = {name: mx.zeros(shape) for name, shape in shapes.items()}
""",
}
NEEDS = {"docs/extending.md": "jax"}  # a package of the development environment, besides frameworks


def _frameworks(page: str) -> list[str]:
    """Under which frameworks the blocks of a page run; "" if they need none."""
    found = {block.only for block in blocks(PAGES[page]) if block.only} | {f for p, f in PRELUDES if p == page and f}
    return sorted(found) or [""]


RUNS = [(page, framework) for page in PAGES for framework in _frameworks(page)]


@pytest.fixture
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a page adds to the catalogue or to the backends is gone afterwards."""
    for owner, name in ((namespace, "_LOADERS"), (namespace, "_loaded"), (namespace, "_packages")):
        monkeypatch.setattr(owner, name, dict(getattr(owner, name)))
    before = dict(ENTRIES)
    yield
    ENTRIES.clear()
    ENTRIES.update(before)


@pytest.mark.parametrize(("page", "framework"), RUNS, ids=lambda value: value or "any")
@pytest.mark.usefixtures("_restored")
def test_blocks_run(page: str, framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in (framework, NEEDS.get(page, "")):
        if package:
            pytest.importorskip(package)
    for name, text in files(PAGES[page]).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    exec(PRELUDES.get((page, framework), ""), names)
    for block in blocks(PAGES[page]):
        if block.only not in ("", framework) or (page, block.text.splitlines()[0]) in NOT_RUN:
            continue
        where = f"{page}:{block.line}"
        for command in block.commands:
            carried_out(command, where)
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(ROOT / page), "exec"), names)
        elif block.language == "toml":
            read(block, where)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "diff":
            patched(block.text, tmp_path)
        else:
            shown(block, where)


def carried_out(line: str, where: str) -> None:
    """A line of a shell: run if it is short, else looked up in what it refers to."""
    program, *words = shlex.split(line)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert words[0] in targets, f"{where}: {line}"
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        found = re.fullmatch(r"([\w-]+)\[([\w,]+)\]", words[1])
        assert found is not None, f"{where}: {line}"
        assert words[0] == "install"
        assert found[1] == project["name"], where
        assert set(found[2].split(",")) <= set(project["optional-dependencies"]), where
    elif words[0] in LONG:
        accepted(words, where)
    else:
        assert program == "dualopt", f"{where}: nobody carries out {line}"
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"{where}: {done.output}"


def accepted(words: list[str], where: str) -> None:
    """The command line takes these words. Nothing is carried out."""
    name, *arguments = words
    if name == "conformance":
        _parser().parse_args(arguments)
        return
    command = COMMAND.get_command(typer.Context(COMMAND), name)
    assert command is not None, f"{where}: dualopt has no {name}"
    command.make_context(name, list(arguments))


def read(block: Block, where: str) -> None:
    """A recipe, a file of knobs, keys of one group, or lines that are a key of a group each."""
    try:
        found = tomllib.loads(block.text)
    except tomllib.TOMLDecodeError:
        for line in block.text.splitlines():
            dualopt.Group.from_dict({"optimizer": "muon", **tomllib.loads(line)})
        return
    if "group" in found:
        assert knob_files.from_tables(found).recipe.groups, where
    else:
        dualopt.Group.from_dict({"optimizer": "muon", **found})


def patched(patch: str, folder: Path) -> None:
    """The patch fits the code, and the row that it adds takes a step."""
    shutil.copytree(ROOT / "dualopt", folder / "dualopt", ignore=shutil.ignore_patterns("__pycache__"))
    apply = ["git", "apply", "-C1", "-"]
    subprocess.run(apply, input=patch, cwd=folder, text=True, check=True, capture_output=True)
    name = re.search(r"^\+ {8}\"(\w+)\",$", patch, re.MULTILINE)
    assert name is not None
    code = (
        "import dualopt, numpy as np; one = np.ones((2, 2), dtype=np.float32); "
        f"run = dualopt.replay({{'optimizer': {name[1]!r}}}, {{'w': one}}, [{{'w': one}}], 1); "
        "assert (run.params[-1]['w'] < 1).all()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, check=True)


def shown(block: Block, where: str) -> None:
    """What the site puts in the place of a block is there; any other block is text."""
    kind, _, argument = block.language.partition(" ")
    if kind == "{knobs}":
        for name in block.text.split():
            assert all(f"| `{knob}` |" in tables.knobs(source(name)) for knob in source(name).knobs)
    elif kind == "{picture}":
        assert argument in pictures.PICTURES, where
        assert block.text.strip(), f"{where}: a picture is described in words"
    elif kind == "{dualopt}":
        assert block.commands, where
    elif kind == "{literalinclude}":
        included((ROOT / where.partition(":")[0]).parent / argument, block.text, where)
    elif kind == "{include}":
        text = (ROOT / where.partition(":")[0]).parent.joinpath(argument).read_text(encoding="utf-8")
        for mark in re.findall(r'^:(?:start-after|end-before): "(.*)"$', block.text, re.MULTILINE):
            assert text.count(mark) == 1, where
    else:
        assert kind in ("", "shell", "text", "{toctree}"), f"{where}: nobody runs {kind}"
        assert kind or not is_python(block.text), f"{where}: Python that nobody runs; put it behind a fence"


def included(path: Path, text: str, where: str) -> None:
    """The part of a program that the site includes is in it: what it is named, or begins and ends with."""
    code, options = path.read_text(encoding="utf-8"), dict(re.findall(r"^:([\w-]+): \"?(.*?)\"?$", text, re.MULTILINE))
    known = {"language", "pyobject", "start-at", "end-at", "dedent"}
    assert options.keys() <= known, where
    for mark in options.keys() & {"start-at", "end-at"}:
        assert code.count(options[mark]) == 1, f"{where}: {options[mark]}"
    names = options.get("pyobject", "").split(".")
    for name in filter(None, names):
        assert re.search(rf"^ *(class|def) {name}\b", code, re.MULTILINE), f"{where}: {name}"


def is_python(text: str) -> bool:
    """Something is called in it, as Python. Formulas rarely are valid Python."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Call) for node in ast.walk(tree))


def test_what_is_not_run_is_there() -> None:
    first = {(page, block.text.splitlines()[0]) for page, text in PAGES.items() for block in blocks(text)}
    assert NOT_RUN.keys() <= first
    assert all(NOT_RUN.values())


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_are_accepted(page: str) -> None:
    """Code spans that begin with `dualopt`: there is such a command, and it has these options."""
    for span in re.findall(r"(?<!`)`dualopt ([^`\n]+)`(?!`)", PAGES[page]):
        name, *words = shlex.split(span)
        command = COMMAND.get_command(typer.Context(COMMAND), name)
        assert command is not None, f"{page}: dualopt {span}"
        if name == "conformance":
            accepted([name, *words], page)
            continue
        options = {option for known in command.params for option in (*known.opts, *known.secondary_opts)}
        assert {word for word in words if word.startswith("-")} <= options, f"{page}: dualopt {span}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Relative links, on a code host; those into the site are held to it by the build."""
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if "://" not in link and not link.startswith("#"):
            assert (ROOT / page).parent.joinpath(link.partition("#")[0]).exists(), f"{page}: {link}"


def test_every_page_is_in_the_contents() -> None:
    index = PAGES["docs/index.md"]
    lines = [line for block in blocks(index) if "toctree" in block.language for line in block.text.splitlines()]
    listed = {line for line in lines if line and not line.startswith(":")}
    pages = {name[len("docs/") : -len(".md")] for name in PAGES if name.startswith("docs/")} - {"index"}
    assert [page for page in pages if not any(fnmatchcase(page, glob) for glob in listed)] == []
    assert {glob for glob in listed if not any(fnmatchcase(page, glob) for page in pages)} == {"generated/rows/index"}


def test_public_names_are_in_the_reference() -> None:
    """All of `dualopt`, `dualopt.analysis` and `dualopt.convert`; the classes of the backends."""
    for module, page in ((dualopt, "dualopt"), (dualopt.analysis, "analysis"), (dualopt.convert, "convert")):
        text = (ROOT / f"docs/api/{page}.rst").read_text(encoding="utf-8")
        shown = re.findall(
            r"^\.\. auto(?:function|class):: (?:[\w.]+\.)?(\w+)$|^\.\. data:: (\w+)$", text, re.MULTILINE
        )
        whole = re.findall(r"^\.\. automodule:: (\S+)\n   :members:(.*)$", text, re.MULTILINE)
        names = {name for pair in shown for name in pair}
        for path, members in whole:
            names |= (
                {word.strip() for word in members.split(",")} if members else set(vars(importlib.import_module(path)))
            )
        assert set(module.__all__) <= names, page
    for backend in ("torch", "mlx"):
        text = (ROOT / f"docs/api/{backend}.rst").read_text(encoding="utf-8")
        assert f"autoclass:: dualopt_{backend}.Optimizer" in text


def test_docstrings_become_restructured_text() -> None:
    """What is no markup in plain text is none afterwards, and blocks keep their lines."""
    plain = ["|x| of `a`s and *k*, c_a and h_ of ``b``", "", "    u = -z", "      = 0", "", "Args:", "    x: it."]
    made = [r"\|x\| of ``a``\ s and \*k\*, c_a and h\_ of ``b``", "", "", "::", "", "    u = -z", "      = 0"]
    assert docstrings.converted(plain) == [*made, "", "Args:", "    x: it."]
    table = ["What is tried", "    inputs   |g|", "Why"]
    assert docstrings.converted(table, tables=True)[1:] == ["", "::", "", "    inputs   |g|", "Why"]


def test_python_is_not_taken_for_a_formula() -> None:
    assert is_python("saved = opt.snapshot()\n")
    assert not is_python("u = U(s+, g)        θ+ = a θ + η u\n")
    assert not is_python("β = 2^(−Δτ/h)\n")


def test_blocks_are_found() -> None:
    page = (
        "Text\n\n    dualopt list  # all\n    a formula\n\n"
        "```toml\n# one.toml\nx = 1\n\n    y\n```\n\nThe file `two.json`:\n\n```json\n{}\n```\n\n"
        "<!-- mlx -->\n```python\npass\n```\n"
    )
    indented, toml, js, python = blocks(page)
    assert (indented.language, indented.line, indented.commands) == ("", 3, ["dualopt list"])
    assert (toml.file, toml.line, js.file) == ("one.toml", 7, "two.json")
    assert (python.only, python.text, toml.only) == ("mlx", "pass\n", "")
    assert files(page) == {"one.toml": toml.text, "two.json": "{}\n"}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_row_has_a_page(name: str) -> None:
    """Its recipe can be carried out, its coordinates are all there, and it is in the overview."""
    plan, page = rows.tried(ENTRIES[name]), rows.page(ENTRIES[name])
    assert {group.row.name for group in plan.groups} <= {name, "adamw"}
    assert name in {group.row.name for group in plan.groups}
    assert all(f"| `{key}` |" in page for key in ENTRIES[name].defaults)
    assert f"({name}.md)" in rows.overview()
    assert "Not measured yet" not in page


@pytest.mark.long
@pytest.mark.parametrize("name", pictures.PICTURES)
def test_pictures_are_drawn_in_both_shades(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for shade, ink in pictures.SHADES.items():
        pictures.draw(name, shade, tmp_path / f"{shade}.svg")
        drawn = (tmp_path / f"{shade}.svg").read_text(encoding="utf-8")
        assert ink in drawn
        assert not any(other in drawn for other in set(pictures.SHADES.values()) - {ink})


class References(HTMLParser):
    """What a page loads, and where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "srcset", "data", "poster") or (name == "href" and tag in ("link", "image", "use")):
                self.loaded.append(value or "")
            elif name == "href":
                self.links.append(value or "")


@pytest.mark.long
def test_the_site_is_built_and_loads_nothing_from_outside(tmp_path: Path) -> None:
    """Without a warning; every file that a page loads, and every page that it leads to, is in the site."""
    pytest.importorskip("furo")
    for framework in ("torch", "mlx"):
        pytest.importorskip(framework)
    site = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        str(tmp_path / "trees"),
        "docs",
        str(site),
    ]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = sorted(site.rglob("*.html"))
    assert {page.stem for page in pages} >= {"start", "coordinates", *ENTRIES}
    for page in pages:
        found = References()
        found.feed(page.read_text(encoding="utf-8"))
        for target in (*found.loaded, *(link for link in found.links if "//" not in link)):
            path = re.split(r"[?#]", target)[0]
            if path and not target.startswith("data:"):
                assert "//" not in target, f"{page}: {target}"
                assert (page.parent / path).exists(), f"{page}: {target}"
    for sheet in site.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", sheet.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.search(r"url\([\"']?(https?:)?//|@import", text), sheet
