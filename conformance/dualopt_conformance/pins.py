"""The digests of the exact tier that this version of dualopt stands for, in `pins.json`.

Of every case: the hash of its inputs, that of the first undecided update of every element, and digests of θ
and state at some updates of the reference. A change of one bit, wanted or not, shows as a change of this
file. ``python -m dualopt_conformance.pins`` writes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from . import experiments
from .cases import EVERY, Case
from .manifest import hashes
from .walk import checkpoints, moments

Array = np.ndarray[Any, Any]
FILE = "pins.json"


@lru_cache(maxsize=1)
def pinned() -> Mapping[str, Any]:
    """{case id: {"inputs": SHA-256, "undecided": SHA-256 or null, "digests": {update: 16 hexadecimal digits}}}."""
    found: Mapping[str, Any] = json.loads(files(__package__).joinpath(FILE).read_text(encoding="utf-8"))
    return found


def at(case: Case) -> list[int]:
    """The updates whose digests are pinned: all whose tensors are kept, and those before the lockstep ones."""
    marks = [] if case.streams else moments(case.updates)
    return sorted({*checkpoints(case.updates), *marks, *(t - 1 for t in marks if t > 1)})


def first_difference(case: Case, digests: Array) -> int | None:
    """The first pinned update whose digest is another; 0 if the case is not pinned. None if all agree.

    `digests` may be shorter than the case: then only what it has is compared.
    """
    known = pinned().get(case.id)
    if known is None:
        return 0
    marks = [t for t in at(case) if t <= len(digests)]
    return next((t for t in marks if known["digests"].get(str(t)) != f"{int(digests[t - 1]):016x}"), None)


def make(case: Case) -> dict[str, Any]:
    """The entry of a case."""
    made = experiments.reference(case, oracle=False)
    digests = made[f"{case.id}/digests"]
    return {
        "inputs": case.inputs_digest(),
        "undecided": hashes(made).get(f"{case.id}/undecided"),
        "digests": {str(t): f"{int(digests[t - 1]):016x}" for t in at(case)},
    }


def main() -> None:
    """Write the file anew, and say what changed."""
    path = Path(__file__).with_name(FILE)
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    new = {}
    for name, case in EVERY.items():
        new[name] = make(case)
        print(f"{name}: {'as before' if old.get(name) == new[name] else 'CHANGED' if name in old else 'new'}")
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(entry)}" for name, entry in new.items())
    path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    for name in old.keys() - new.keys():
        print(f"{name}: gone")


if __name__ == "__main__":
    main()
