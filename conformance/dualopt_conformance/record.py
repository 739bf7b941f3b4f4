"""Record a backend: every experiment of every case, in one directory that travels.

The manifest is written last, so a recording that was interrupted is no record.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import dualopt
from dualopt import tensors
from dualopt.errors import RecipeError
from dualopt.namespace import TIERS, Backend
from dualopt.namespace import load as load_backend

from . import closed, experiments
from .cases import chosen
from .manifest import MANIFEST, REFERENCE, SCHEMA, SUITE, hashes, sealed, widened
from .probe import flushes
from .references import Reference, narrow

Array = np.ndarray[Any, Any]
Show = Callable[[str, int, int], None]  # (what, done, of)


def record(
    directory: str | Path,
    backend: str,
    *,
    device: str | None = None,
    threads: int | None = None,
    tiers: Sequence[str] = TIERS,
    globs: tuple[str, ...] = ("*",),
    loops: bool = True,
    show: Show = lambda what, done, of: None,
) -> Path:
    """Record `backend` into a new directory.

    Args:
        directory: must not exist, or be empty.
        device, threads: as `Backend.prepare` takes them.
        tiers: "exact", "fast" or both.
        globs: of case ids.
        loops: with the closed loop.
        show: called with the name of every experiment before it begins.

    Raises:
        RecipeError: an unknown backend, device, tier or case, or a directory that is not empty.
        MissingFrameworkError: the framework is not installed.
        OffReferenceError: numpy itself is off on this machine.
    """
    path, cases, tiers = Path(directory), chosen(globs), tuple(dict.fromkeys(tiers))
    for tier in tiers:
        if tier not in TIERS:
            raise RecipeError(f"tier: {tier!r} is not one of {', '.join(TIERS)}")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RecipeError(f"{path}: exists and is not an empty directory; name a new one")
    made = load_backend(backend)
    facts = _facts(made, made.prepare(device, threads))
    unfit = sorted({case.dtype for case in cases.values()} - set(made.dtypes))
    cases = {name: case for name, case in cases.items() if case.dtype in made.dtypes}
    began = time.monotonic()
    text = closed.load_text() if loops else None
    path.mkdir(parents=True, exist_ok=True)
    written: dict[str, dict[str, Array]] = {}
    with Reference(path, list(cases)) as reference:  # numpy works at it while the backend runs freely
        for tier in tiers:
            found: dict[str, Array] = {}
            for i, (name, case) in enumerate(cases.items()):
                show(f"{tier}, free: {name}", i, len(cases))
                found |= experiments.free(case, made, tier)
            written[tier] = found | (dict(_loops(made, tier, text, show)) if text else {})
        show("the reference", len(cases) - 1, len(cases))
        described = reference.result()
    known = tensors.read(path / f"{REFERENCE}.safetensors").tensors
    known = {key: widened(x) for key, x in known.items()}
    for tier in tiers:
        for i, (name, case) in enumerate(cases.items()):
            show(f"{tier}, lockstep: {name}", i, len(cases))
            written[tier] |= experiments.lockstep(case, made, tier, known)
        tensors.write(path / f"{tier}.safetensors", written[tier], {}, narrow(cases, written[tier]))
    skipped = {"not recorded": f"cases in {', '.join(unfit)}, which {backend} does not store"} if unfit else {}
    manifest = sealed(
        {
            "schema": SCHEMA,
            "suite": SUITE,
            "cases": described,
            "closed": text and {"sha256": text.sha256, "name": text.name},
            "tiers": list(tiers),
            "tensors": {stem: hashes(arrays) for stem, arrays in {REFERENCE: known, **written}.items()},
            "facts": {**facts, **skipped, "seconds": f"{time.monotonic() - began:.0f}"},
        }
    )
    with tensors.atomic(path / MANIFEST) as file:
        file.write(json.dumps(manifest, ensure_ascii=False, indent=1).encode())
    return path


def _loops(backend: Backend, tier: str, text: closed.Text, show: Show) -> Iterator[tuple[str, Array]]:
    for i, row in enumerate(closed.ROWS):
        show(f"{tier}: closed loop of {row}", i, len(closed.ROWS))
        for seed in closed.SEEDS:
            losses, digests = closed.run(row, seed, text, backend, tier)
            yield f"closed/{row}/{seed}/loss", losses
            yield f"closed/{row}/{seed}/digests", digests


def _facts(backend: Backend, prepared: Mapping[str, str]) -> dict[str, str]:
    return {
        "backend": backend.name,
        **prepared,
        "flushes": "yes" if flushes(backend) else "no",
        "dualopt": f"{dualopt.__version__} {_revision()}".strip(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "threads in the environment": os.environ.get("OMP_NUM_THREADS", "not set"),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    """The model of the CPU, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        told = _output("sysctl", "-n", "machdep.cpu.brand_string")
        return told or platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _revision() -> str:
    """The git revision of this checkout and whether it was changed; "" for an installed package."""
    here = str(Path(__file__).parent)
    revision = _output("git", "-C", here, "rev-parse", "--short=12", "HEAD")
    tracked = revision and _output("git", "-C", here, "ls-files", "--error-unmatch", __file__)
    if not tracked:
        return ""
    changed = _output("git", "-C", here, "status", "--porcelain", "--untracked-files=no")
    return f"git {revision}" + (" with changes" if changed else "")


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
