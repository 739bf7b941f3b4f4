"""The examples with the real trainers: `make test-examples`, which has them in an environment of its own.

Every example is killed in the middle of a run and started again, and ends with the bits of one that nobody touched. All
of them stop early, when the loss on held-out text falls no further: these recipes end before the epochs do.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARIES = {
    "huggingface_trainer": ("torch", "transformers", "accelerate"),
    "lightning_trainer": ("torch", "lightning"),
    "accelerate_loop": ("torch", "accelerate"),
    "torch_compiled": ("torch",),
    "torchtitan_loop": ("torch",),
    "mlx_lm_lora": ("mlx", "mlx_lm", "transformers"),
    "mlx_loop": ("mlx",),
}
TOKENS = 416  # of an epoch: 26 rows of 16
pytestmark = [
    pytest.mark.examples,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="lives are forked"),
]


def lives(folder: Path, name: str, kill: int, *options: str) -> dict[str, list[object] | None]:
    """What `example_lives` says of an example."""
    missing = [library for library in LIBRARIES[name] if importlib.util.find_spec(library) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed here: make test-examples")
    alone = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")}
    paths = os.pathsep.join(str(path) for path in (ROOT, ROOT / "backends", ROOT / "conformance"))
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "example_lives.py"), name, str(folder), str(kill), *options],
        env={**os.environ, **alone, "PYTHONPATH": paths},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, list[object] | None] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("name", "options", "most"),
    [
        ("huggingface_trainer", ("epochs=6", "patience=1"), 6 * 540),
        ("huggingface_trainer", ("epochs=2", 'scheduler="cosine"'), 0),
        ("lightning_trainer", ("epochs=6", "patience=1"), 6 * TOKENS),
        ("lightning_trainer", ("epochs=2", "scheduler=true"), 0),
        ("accelerate_loop", ("epochs=6", "patience=1"), 6 * TOKENS),
        ("accelerate_loop", ("epochs=2", "scheduler=true"), 0),
        ("torch_compiled", ("epochs=6", "patience=1"), 6 * TOKENS),
        ("torchtitan_loop", ("epochs=6", "patience=1", "world=2"), 6 * TOKENS),
        ("mlx_lm_lora", ("batches=60", "patience=1"), 60 * 92),
        ("mlx_loop", ("epochs=6", "patience=1"), 6 * TOKENS),
    ],
    ids=lambda x: x if isinstance(x, str) else None,
)
def test_a_killed_run_goes_on_to_the_bits_of_an_untouched_one(
    tmp_path: Path, name: str, options: tuple[str, ...], most: int
) -> None:
    """`most`: the tokens of all epochs, which a run that stops early does not see; 0: it is not to stop."""
    found = lives(tmp_path, name, 10, *options)
    assert found["killed"] is None
    assert found["resumed"] is not None
    assert found["untouched"] is not None
    digest, count, updates = found["untouched"]
    assert found["resumed"][:2] == [digest, count]
    assert found["resumed"][2] < updates  # it did not begin anew
    assert isinstance(count, int)
    assert not most or 0 < count < most
