"""What all tests share: the backends and the hypothesis profile.

"strict" comes with the conformance suite, "jax" is `tests/jax_backend.py`. The fixture `backend` runs a test
on every installed backend, or on those named in the environment variable DUALOPT_BACKENDS (comma-separated).
`flushes` tells whether a backend turns subnormal numbers into 0.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import settings

from dualopt import namespace
from dualopt.catalog import ENTRIES, FAMILIES
from dualopt.namespace import Backend
from dualopt_conformance import backends as backends  # registers "strict"
from dualopt_conformance import probe

settings.register_profile("stable", derandomize=True, deadline=None, max_examples=20)
settings.register_profile("thorough", deadline=None, max_examples=1000)  # --hypothesis-profile=thorough
settings.load_profile("stable")


def _jax() -> Backend:
    from . import jax_backend

    return jax_backend.backend()


namespace.register("jax", _jax, install="jax")

_chosen = os.environ.get("DUALOPT_BACKENDS")
_names = _chosen.split(",") if _chosen else namespace.installed()
if "torch" in _names:
    import torch

    torch.set_num_threads(1)  # the arrays are small, and threads that wait for a shared core cost 10 x


# JAX compiles every operation for every new shape, so its tests take longer than those of all others together: they
# are long ones, and without DUALOPT_BACKENDS only those of elementwise rows and of the exact tier.
_params = [pytest.param(name, marks=pytest.mark.long) if name == "jax" else name for name in _names]


EVERYWHERE = ("test_rows", "test_exact")  # tests that no backend is left out of
SOON = ("test_exact", "test_cases", "test_conformance", "test_cautious")  # where "strict" is no long test


def _is_of_matrices(item: pytest.Item) -> bool:
    """Is it a test of a row that multiplies matrices?"""
    row = item.name.partition("[jax-")[2].partition(" ")[0]
    return row in ENTRIES and ENTRIES[row] not in FAMILIES["elementwise"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """JAX on tests of `EVERYWHERE` alone, of elementwise rows; "strict", which checks every call, on the others when
    there is time."""
    left_out = []
    for item in items:
        there = getattr(item, "callspec", None)
        name = there.params.get("backend") if there is not None and not _chosen else None
        if name == "jax" and (item.path.stem not in EVERYWHERE or _is_of_matrices(item)):
            left_out.append(item)
        elif name == "strict" and item.path.stem not in SOON:
            item.add_marker(pytest.mark.long)
    gone = set(left_out)
    items[:] = [item for item in items if item not in gone]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session", params=_params)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every installed backend."""
    return namespace.load(request.param)


@pytest.fixture(scope="session")
def flushes() -> Callable[[Backend], bool]:
    """Does a backend flush subnormal results to zero?"""
    return probe.flushes
