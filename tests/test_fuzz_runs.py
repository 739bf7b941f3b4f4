"""Run directories by somebody who means harm, and the code that reads files: it executes none of them."""

from __future__ import annotations

import ast
import contextlib
import json
from collections import Counter as Tally
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt.errors import CheckpointError, DualoptError
from dualopt.workload.model import GPTConfig
from dualopt.workload.run import Run, manifest
from dualopt.workload.settings import Settings
from dualopt.workload.text import Text

from .fuzz import EXAMPLES, FUZZ, VALUES, cheap

ROOT = Path(__file__).parents[1]

GENERATED = "backends/dualopt_torch/registers.py", "backends/dualopt_torch/triton/source.py"  # of the core's formulas
EXECUTING = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}


def test_nothing_that_reads_files_can_execute_them() -> None:
    """No pickle, marshal or eval anywhere in the packages but where code of our own is generated."""
    found = []
    for path in sorted([*ROOT.glob("dualopt/**/*.py"), *ROOT.glob("backends/**/*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            found += [f"{where} imports {n}" for n in names if n.split(".")[0] in EXECUTING]
            if isinstance(node, ast.Call):
                called, stated = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
                if called in ("eval", "exec", "__import__") or (
                    called == "torch.load" and stated["weights_only"] != "True"
                ):
                    found.append(f"{where} calls {called}")
                if stated.get("allow_pickle", "False") != "False" or called in ("np.load", "numpy.load"):
                    found.append(f"{where} calls {called}")
    assert sorted(place.partition(":")[0] for place in found) == sorted(GENERATED), found


MANIFEST = manifest(
    recipe="",
    digest="0",
    tier="fast",
    config=GPTConfig(),
    settings=Settings(),
    text=Text(np.arange(99, dtype=np.uint8), "0" * 64, "text"),
    framework={"framework": "numpy"},
)
PARTS = st.dictionaries(st.sampled_from(["framework", "device", "digest", "sha256", "batch"]), VALUES, max_size=2)
CHANGED = st.dictionaries(
    st.sampled_from([*MANIFEST, "resumed"]),
    st.one_of(VALUES, PARTS, st.lists(st.fixed_dictionaries({"framework": PARTS}), max_size=2)),
    max_size=2,
).map(lambda changes: json.dumps(MANIFEST | changes).encode())
ROWS = st.lists(
    st.fixed_dictionaries(
        {"update": st.integers(0, 5)},
        optional={
            **dict.fromkeys(
                ("loss", "validation_loss", "elapsed"), st.one_of(st.floats(0, 9), st.floats(0, 9), VALUES)
            ),
            **dict.fromkeys(("digest", "x"), st.one_of(st.text(), VALUES)),
        },
    ).map(json.dumps),
    max_size=4,
)


def test_run_directories(tmp_path: Path) -> None:
    texts = [st.lists(VALUES.map(json.dumps)), ROWS, ROWS]
    rows = st.one_of(st.binary(), *(text.map(lambda lines: "\n".join([*lines, ""]).encode()) for text in texts))
    reached = Tally[str]()

    @FUZZ
    @given(manifest=st.one_of(st.binary(max_size=40), VALUES.map(lambda x: json.dumps(x).encode()), CHANGED), rows=rows)
    def run(manifest: bytes, rows: bytes) -> None:
        (tmp_path / "manifest.json").write_bytes(manifest)
        (tmp_path / "metrics.jsonl").write_bytes(rows)
        with cheap():
            with contextlib.suppress(DualoptError):
                assert Run.resume(tmp_path, MANIFEST).label
                assert Run.open(tmp_path).label
                reached["resumed"] += 1
            try:
                Run(tmp_path, {}).truncate(3)
            except DualoptError:
                assert (tmp_path / "metrics.jsonl").read_bytes() == rows
                return
            reached["truncated"] += Run(tmp_path, {}).rows() != []

    run()
    assert reached["resumed"] > EXAMPLES // 20
    assert reached["truncated"] > EXAMPLES // 20


def test_a_manifest_that_cannot_be_written_again_is_refused(tmp_path: Path) -> None:
    content = json.dumps(MANIFEST | {"platform": "\ud800"}).encode()
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        Run.resume(tmp_path, MANIFEST)
    assert (tmp_path / "manifest.json").read_bytes() == content
