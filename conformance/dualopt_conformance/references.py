"""The reference of a record, and everything else that is recorded of a case.

The reference is what has the pinned digests. Where a run of the exact tier has them, its numbers are numpy's, and
are taken; where it has not, or the exact tier is not recorded, numpy's exact tier runs here.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from dualopt.errors import DualoptError
from dualopt.namespace import Backend, load

from . import backends, experiments, pins
from .cases import EVERY, Case
from .manifest import REFERENCE, hashes
from .walk import Moment, driven, moments, proposed

Array = np.ndarray[Any, Any]
Tensors = dict[str, Array]
NARROW = {"bfloat16": "BF16", "float16": "F16"}
OWN = ("numpy", "torch", "mlx", *backends.NAMES)  # backends that every process of this program knows


class OffReferenceError(DualoptError):
    """numpy's exact tier does not give the pinned bits on this machine: there is nothing to compare with."""


@dataclass(frozen=True)
class Order:
    """What to record: a case, or for an experiment of its own a row, on a backend in some tiers."""

    name: str
    backend: str
    tiers: tuple[str, ...]
    device: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Recorded:
    """Of one case: tensors by file, and the entry of the manifest."""

    tensors: Mapping[str, Tensors]
    entry: Mapping[str, Any]


@lru_cache(maxsize=8)
def prepared(name: str, device: str | None, threads: int | None) -> tuple[Backend, Mapping[str, str]]:
    """A backend set up for recording in this process, and its facts."""
    backend = load(name)
    return backend, backend.prepare(device, threads)


def recorded(order: Order) -> Recorded:
    """All experiments of a case.

    Raises:
        OffReferenceError: numpy itself is off on this machine.
    """
    case, (backend, _) = EVERY[order.name], prepared(order.backend, order.device, order.threads)
    found: dict[str, Tensors] = {}
    known: Tensors | None = None
    if "exact" in order.tiers:
        found["exact"], known = _exactly(case, backend)
    known = known or _numpy(case)
    if experiments.has_oracle(case):
        known |= experiments.oracles(case)
    known.pop(f"{case.id}/digests")
    for tier in order.tiers:
        if tier != "exact":
            found[tier] = experiments.free(case, backend, tier)
        found[tier] |= experiments.lockstep(case, backend, tier, known)
    return Recorded({REFERENCE: known, **found}, _described(case))


def _exactly(case: Case, backend: Backend) -> tuple[Tensors, Tensors | None]:
    """The free run of the exact tier, and the reference if this is one."""
    passed: list[Tensors] = []

    def passing() -> Iterator[Moment]:
        run = experiments.Passing(case)
        for moment in driven(case, backend.name, "exact"):
            run.see(moment)
            yield moment
        passed.append(run.found())

    known = experiments.reference(case, oracle=False, run=passing())
    return passed[0], known if _pinned(case, known) else None


def _pinned(case: Case, known: Mapping[str, Array]) -> bool:
    """True if a reference is the pinned one."""
    digests = known[f"{case.id}/digests"]
    if pins.first_difference(case, digests) is not None:
        return False
    return hashes(known).get(f"{case.id}/undecided") == pins.pinned()[case.id]["undecided"]


def _numpy(case: Case) -> Tensors:
    known = experiments.reference(case, oracle=False)
    odd = pins.first_difference(case, known[f"{case.id}/digests"])
    if odd is not None:
        raise OffReferenceError(
            f"{case.id}: numpy {np.__version__} does not give the pinned bits of update {odd} on this machine "
            f"({platform.machine()}, {platform.system()}); report it with what numpy.show_config() prints"
        )
    return known


def narrow(cases: Iterable[str], arrays: Mapping[str, Array]) -> dict[str, str]:
    """The stored type of θ in cases of half precision."""
    stored, known = {}, set(cases)
    for key in arrays:
        parts = key.split("/")
        name = "/".join(parts[:2])
        is_theta = len(parts) == 5 and parts[2] in ("start", "after", "lockstep", "free")
        if name in known and is_theta and EVERY[name].dtype in NARROW:
            stored[key] = NARROW[EVERY[name].dtype]
    return stored


def _described(case: Case) -> dict[str, Any]:
    """The entry of the manifest: inputs, recipe in action coordinates, derived scalars."""
    marks = [] if case.streams else moments(case.updates)
    scalars = {
        str(t): {name: {key: float(x).hex() for key, x in k.items()} for name, k in proposal.scalars.items()}
        for t, _, proposal in proposed(case, marks or [1, case.updates])
    }
    return {"inputs": case.inputs_digest(), "recipe": case.recipe.to_dict(), "scalars": scalars}
