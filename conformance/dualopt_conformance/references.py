"""The reference of a record, made by a process of its own: numpy needs one core, and a backend need not wait for it.

``python -m dualopt_conformance.references DIR`` reads ids of cases from standard input, writes reference.safetensors
into DIR, and what the manifest says of the cases to standard output.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from dualopt import tensors
from dualopt.errors import DualoptError

from . import experiments, pins
from .cases import CASES, Case
from .manifest import REFERENCE
from .walk import moments, walk

Array = np.ndarray[Any, Any]
NARROW = {"bfloat16": "BF16", "float16": "F16"}


class OffReferenceError(DualoptError):
    """numpy's exact tier does not give the pinned bits on this machine: there is nothing to compare with."""


class Reference:
    """The process, from `with` on; `result` waits for it. It does not outlive the block."""

    def __init__(self, directory: Path, cases: Sequence[str]) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(list(cases)))
        self._process.stdin.close()
        self._process.stdin = None

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()

    def result(self) -> dict[str, Any]:
        """{case: its entry in the manifest}. OffReferenceError with what the process said, if it failed."""
        out, told = self._process.communicate()
        if self._process.returncode:
            raise OffReferenceError(told.strip() or f"the reference ended with status {self._process.returncode}")
        found: dict[str, Any] = json.loads(out)
        return found


def narrow(cases: Mapping[str, Case], arrays: Mapping[str, Array]) -> dict[str, str]:
    """The stored type of θ in cases of half precision."""
    stored = {}
    for key in arrays:
        parts = key.split("/")
        case = cases.get("/".join(parts[:2]))
        is_theta = len(parts) == 5 and parts[2] in ("start", "after", "lockstep", "free")
        if case is not None and is_theta and case.dtype in NARROW:
            stored[key] = NARROW[case.dtype]
    return stored


def main() -> None:
    """Make it; status 1 with one line on stderr if numpy is off."""
    cases = {name: CASES[name] for name in json.load(sys.stdin)}
    found: dict[str, Array] = {}
    described = {}
    for name, case in cases.items():
        made = experiments.reference(case)
        odd = pins.first_difference(case, made.pop(f"{name}/digests"))
        if odd is not None:
            sys.exit(
                f"{name}: numpy {np.__version__} does not give the pinned bits of update {odd} on this machine "
                f"({platform.machine()}, {platform.system()}); report it with what numpy.show_config() prints"
            )
        found |= made
        described[name] = _described(case)
    tensors.write(Path(sys.argv[1]) / f"{REFERENCE}.safetensors", found, {}, narrow(cases, found))
    json.dump(described, sys.stdout)


def _described(case: Case) -> dict[str, Any]:
    """The entry of the manifest: inputs, recipe in action coordinates, derived scalars."""
    at = moments(case.updates)
    scalars = {
        str(moment.update): {
            name: {key: float(x).hex() for key, x in k.items()} for name, k in moment.proposal.scalars.items()
        }
        for moment in walk(case, case.updates, experiments.nothing)
        if moment.update in at
    }
    return {"inputs": case.inputs_digest(), "recipe": case.recipe.to_dict(), "scalars": scalars}


if __name__ == "__main__":
    main()
