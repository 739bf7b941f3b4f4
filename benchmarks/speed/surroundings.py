"""The machine, the versions and the settings that a record belongs to."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# IdleError threads of the peers that wait must not spin beside the one that works.
SETTINGS = {"OMP_WAIT_POLICY": "PASSIVE", "MLX_ENABLE_TF32": "0", "TF_CPP_MIN_LOG_LEVEL": "2"}
READ = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", *SETTINGS)
CACHE = "TORCHINDUCTOR_CACHE_DIR"


def variables(checkout: Path, cache: str | None = None) -> dict[str, str]:
    """The environment of a worker; `cache`: a directory of its own for compiled code."""
    found = {**os.environ, **{key: os.environ.get(key, value) for key, value in SETTINGS.items()}}
    found["PYTHONPATH"] = os.pathsep.join(str(checkout / part) for part in (".", "backends", "conformance"))
    return found if cache is None else {**found, CACHE: cache}


def described(checkout: Path, python: str) -> dict[str, Any]:
    """What a reader has to know of where this was measured."""
    told = variables(checkout)
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": _said(python, "-c", "import platform; print(platform.python_version())") or platform.python_version(),
        "settings": {key: told[key] for key in READ if key in told},
        "revision": revision(checkout),
        "load": load(),
    }


def processor() -> str:
    """The name of the CPU."""
    if sys.platform == "darwin":
        return _said("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    fields = _fields(Path("/proc/cpuinfo"))
    return fields.get("model name") or platform.processor() or platform.machine()


def available() -> int | None:
    """Bytes of memory that are free to use; None where that is not known."""
    found = _fields(Path("/proc/meminfo")).get("MemAvailable", "").split()
    return int(found[0]) * 1024 if found else None


def load() -> float | None:
    """How many processes want to run: the average of a minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def revision(checkout: Path) -> str | None:
    """The commit, with a + if the tree differs from it."""
    commit = _said("git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD")
    if not commit:
        return None
    return commit + ("+" if _said("git", "-C", str(checkout), "status", "--porcelain", "-uno") else "")


def _fields(path: Path) -> Mapping[str, str]:
    """The first value of each `key: value` line of a file."""
    found: dict[str, str] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            key, colon, value = line.partition(":")
            if colon:
                found.setdefault(key.strip(), value.strip())
    return found


def _said(*command: str) -> str:
    """What a command prints; empty if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
