"""``pytest --pyargs dualopt_conformance --backend mlx``: every case on installed backends, in this process.

The exact tier runs freely against the pinned digests; the fast tier makes single updates from the reference's
states, within the derived bounds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest

from dualopt.namespace import Backend, installed, load

from . import backends as _registered  # noqa: F401
from . import experiments
from .bench import Bench
from .cases import EVERY, chosen
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
        for backend in asked["backend"] or installed()
        for tier in asked["tier"] or ("exact", "fast")
        for name in names
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


def test_case(backend_name: str, tier: str, case_name: str, request: Any) -> None:
    """A case on a backend in a tier."""
    case, backend = EVERY[case_name], _prepared(backend_name, request.config.getoption("device", None))
    if tier == "exact":
        if case.situation.subnormal and flushes(backend):
            pytest.skip("this device flushes subnormal numbers to zero")
        digests = experiments.free(case, backend, tier)[f"{case_name}/digests"]
        odd = first_difference(case, digests)
        assert odd is None, f"update {odd}: θ and state have other bits than numpy"
        return
    bench = _bench(case_name)
    made = experiments.lockstep(case, backend, tier, bench.known)
    check = lockstep(bench, Record(backend_name, {}, {tier: made})).check(
        case, tier, "lockstep", ("oracle", backend_name)
    )
    assert check.status != FAIL, str(check.first)
