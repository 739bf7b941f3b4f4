"""What takes minutes: the demonstration at its own size.

Run by `make test-long`. The demonstration is judged by what it claims: losses well below the unigram entropy
on every framework, agreement in the first 50 updates to 1e-3, and no differing bit under the same gradients.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.long


def test_demo(tmp_path):
    for module in ("torch", "mlx.core", "typer"):
        pytest.importorskip(module)
    code = "from dualopt.cli import main; main()"
    command = [sys.executable, "-c", code, "demo", "--out", str(tmp_path / "demo"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {run["framework"] for run in found["runs"]} == {"torch", "mlx"}
    assert all(run["validation_loss"] < 0.6 * found["unigram_entropy"] for run in found["runs"])
    assert found["drift"]["first"] < 1e-3
    (agreement,) = found["proof"]["agreements"]
    assert agreement["updates"] == 50
    assert agreement["elements"] > 10**7
    assert agreement["differing"] == 0
    for name in ("manifest.json", "metrics.jsonl", "checkpoint.safetensors", "loss.png"):
        assert (tmp_path / "demo" / "mlx" / name).stat().st_size > 1000
