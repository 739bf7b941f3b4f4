"""``pytest --pyargs dualopt_conformance --backend mlx``: every case on installed backends, in this process.

The exact tier runs freely against the pinned digests, or with ``--longest`` 1,000 updates (100 of rows that multiply
matrices) in the usual situation against numpy's run, update by update. The fast tier makes single updates from the
reference's states, within the derived bounds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from dualopt.namespace import Backend, installed, load

from . import backends as _registered  # noqa: F401
from . import experiments
from .bench import Bench
from .cases import EVERY, Case, chosen
from .gate import lockstep
from .manifest import Record
from .pins import first_difference
from .probe import flushes
from .verdict import FAIL


def pytest_generate_tests(metafunc: Any) -> None:
    """One test for every backend, tier and case that was asked for."""
    if "case_name" not in metafunc.fixturenames:
        return
    asked = {name: metafunc.config.getoption(name, None) for name in ("backend", "tier", "cases")}
    names = chosen(tuple(asked["cases"] or ["*"]))
    every = [
        (backend, tier, name)
        for name in names  # outermost: backends share what numpy computes
        for tier in asked["tier"] or ("exact", "fast")
        for backend in asked["backend"] or installed()
        if EVERY[name].dtype in load(backend).dtypes and not (tier == "fast" and EVERY[name].streams)
    ]
    metafunc.parametrize(("backend_name", "tier", "case_name"), every, ids=["-".join(one) for one in every])


@lru_cache(maxsize=8)
def _prepared(backend: str, device: str | None) -> Backend:
    found = load(backend)
    found.prepare(device, None)
    return found


@lru_cache(maxsize=4)
def _bench(name: str) -> Bench:
    return Bench(EVERY[name], experiments.reference(EVERY[name], oracle=False))


@lru_cache(maxsize=4)
def _numpy(name: str, updates: int) -> Any:
    return experiments.free(EVERY[name], load("numpy"), "exact", updates)[f"{name}/digests"]


def beside_numpy(case: Case, digests: Any) -> int | None:
    """The first update after which numpy's digest is another, counted from 1; None if all agree."""
    odd = np.flatnonzero(digests != _numpy(case.id, len(digests)))
    return int(odd[0]) + 1 if odd.size else None


def test_case(backend_name: str, tier: str, case_name: str, request: Any) -> None:
    """A case on a backend in a tier."""
    case, backend = EVERY[case_name], _prepared(backend_name, request.config.getoption("device", None))
    if tier == "exact":
        if case.situation.subnormal and flushes(backend):
            pytest.skip("this device flushes subnormal numbers to zero")
        longest = request.config.getoption("longest", False) and case.longest > case.updates
        digests = experiments.free(case, backend, tier, case.longest if longest else None)[f"{case_name}/digests"]
        odd = beside_numpy(case, digests) if longest else first_difference(case, digests)
        assert odd is None, f"update {odd}: θ and state have other bits than numpy"
        return
    bench = _bench(case_name)
    made = experiments.lockstep(case, backend, tier, bench.known)
    check = lockstep(bench, Record(backend_name, {}, {tier: made})).check(
        case, tier, "lockstep", ("oracle", backend_name)
    )
    assert check.status != FAIL, str(check.first)
