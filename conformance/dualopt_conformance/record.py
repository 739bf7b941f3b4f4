"""Record a backend: every experiment of every case, in one directory that travels.

The manifest is written last, so a recording that was interrupted is no record.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import dualopt
from dualopt import durable, tensors
from dualopt.errors import RecipeError
from dualopt.namespace import TIERS, Backend

from . import closed
from .cases import chosen
from .manifest import MANIFEST, REFERENCE, SCHEMA, SUITE, hashes, sealed
from .probe import flushes
from .references import OWN, Order, narrow, prepared, recorded
from .workers import mapped

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
    processes: int | None = None,
    show: Show = lambda what, done, of: None,
) -> Path:
    """Record `backend` into a new directory.

    Args:
        directory: must not exist, or be empty.
        device, threads: as `Backend.prepare` takes them.
        tiers: "exact", "fast" or both.
        globs: of case ids.
        loops: with the closed loops of the rows that the cases are of.
        processes: as `workers.mapped` takes it.
        show: called with the name of every case and closed loop when it is there.

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
    made, prepared_facts = prepared(backend, device, threads)
    facts = _facts(made, prepared_facts)
    unfit = sorted({case.dtype for case in cases.values()} - set(made.dtypes))
    names = [name for name, case in cases.items() if case.dtype in made.dtypes]
    began = time.monotonic()
    text = closed.load_text() if loops else None
    orders = [Order(name, backend, tiers, device, threads) for name in names]
    path.mkdir(parents=True, exist_ok=True)
    written: dict[str, dict[str, Array]] = {stem: {} for stem in (REFERENCE, *tiers)}
    described: dict[str, Any] = {}
    several = processes if backend in OWN else 1  # what somebody registered is known in this process only
    for i, (order, found) in enumerate(zip(orders, mapped(recorded, orders, several), strict=True)):
        show(order.name, i, len(orders))
        described[order.name] = found.entry
        for stem, arrays in found.tensors.items():
            written[stem] |= arrays
    learning = [row for row in closed.ROWS if text and any(cases[name].entry == row for name in names)]
    rows = [Order(row, backend, tiers, device, threads) for row in learning]
    for i, (order, losses) in enumerate(zip(rows, mapped(looped, rows, several), strict=True)):
        show(f"closed loop of {order.name}", i, len(rows))
        for tier, arrays in losses.items():
            written[tier] |= arrays
    for stem, arrays in written.items():
        tensors.write(path / f"{stem}.safetensors", arrays, {}, narrow(names, arrays))
    skipped = {"not recorded": f"cases in {', '.join(unfit)}, which {backend} does not store"} if unfit else {}
    manifest = sealed(
        {
            "schema": SCHEMA,
            "suite": SUITE,
            "cases": described,
            "closed": text and {"sha256": text.sha256, "name": text.name, "rows": learning},
            "tiers": list(tiers),
            "tensors": {stem: hashes(arrays) for stem, arrays in written.items()},
            "facts": {**facts, **skipped, "seconds": f"{time.monotonic() - began:.0f}"},
        }
    )
    with durable.atomic(path / MANIFEST) as file:
        file.write(json.dumps(manifest, ensure_ascii=False, indent=1).encode())
    return path


def looped(order: Order) -> dict[str, dict[str, Array]]:
    """The closed loop of a row: losses and digests by tier."""
    backend, _ = prepared(order.backend, order.device, order.threads)
    out: dict[str, dict[str, Array]] = {}
    for tier in order.tiers:
        found = closed.run(order.name, closed.SEEDS, closed.load_text(), backend, tier)
        named = {f"{seed}/{what}": x for seed, both in found.items() for what, x in both._asdict().items()}
        out[tier] = {f"closed/{order.name}/{key}": x for key, x in named.items()}
    return out


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
