"""The reference of a record, made by a process of its own: numpy needs one core, and a backend need not wait for it.

``python -m dualopt_conformance.references DIR`` reads ids of cases from the first line of standard input, writes
reference.safetensors into DIR, and what the manifest says of the cases to standard output. It ends when its
standard input does: however the process that started it came to its end, no reference is left running.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
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
from .walk import moments, proposed

Array = np.ndarray[Any, Any]
NARROW = {"bfloat16": "BF16", "float16": "F16"}


class OffReferenceError(DualoptError):
    """numpy's exact tier does not give the pinned bits on this machine: there is nothing to compare with."""


class Reference:
    """The process, from `with` on; `result` waits for it. It does not outlive the block."""

    def __init__(self, directory: Path, cases: Sequence[str]) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=environment,
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended at once: `result` tells why
            print(json.dumps(list(cases)), file=self._process.stdin, flush=True)

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def result(self) -> dict[str, Any]:
        """{case: its entry in the manifest}. OffReferenceError with what the process said, if it failed."""
        assert self._process.stdout is not None
        out = self._process.stdout.read()
        if self._process.wait():
            self._said.seek(0)
            told = self._said.read().strip()
            raise OffReferenceError(told or f"the reference ended with status {self._process.returncode}")
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
    cases = {name: CASES[name] for name in json.loads(sys.stdin.readline())}
    threading.Thread(target=_end_with_the_input, daemon=True).start()
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


def _end_with_the_input() -> None:
    sys.stdin.read()
    os._exit(1)


def _described(case: Case) -> dict[str, Any]:
    """The entry of the manifest: inputs, recipe in action coordinates, derived scalars."""
    scalars = {
        str(t): {name: {key: float(x).hex() for key, x in k.items()} for name, k in proposal.scalars.items()}
        for t, _, proposal in proposed(case, moments(case.updates))
    }
    return {"inputs": case.inputs_digest(), "recipe": case.recipe.to_dict(), "scalars": scalars}


if __name__ == "__main__":
    main()
