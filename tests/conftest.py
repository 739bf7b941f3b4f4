"""What all tests share: the backends and the hypothesis profile.

"strict" is array-api-strict with its strictest flags, "jax" is `tests/jax_backend.py`. The fixture
`backend` runs a test on every installed backend, or on those named in the environment variable
DUALOPT_BACKENDS (comma-separated). `flushes` tells whether a backend turns subnormal numbers into 0.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import array_api_strict
import numpy as np
import pytest
from hypothesis import settings

from dualopt import namespace
from dualopt.exact import exact
from dualopt.executor import executor
from dualopt.namespace import Backend

settings.register_profile("stable", derandomize=True, deadline=None, max_examples=20)
settings.register_profile("thorough", deadline=None, max_examples=1000)  # --hypothesis-profile=thorough
settings.load_profile("stable")


def _strict() -> Backend:
    array_api_strict.set_array_api_strict_flags(
        boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
    )
    namespaces = {"exact": exact(array_api_strict), "fast": array_api_strict}
    return Backend(
        name="strict",
        namespaces=namespaces,
        from_numpy=lambda x, dtype: array_api_strict.asarray(np.array(x, dtype=dtype)),
        to_numpy=np.array,
        execute=lambda tier: executor(namespaces[tier]),
        dtypes=("float32", "float64"),
        version=array_api_strict.__version__,
    )


def _jax() -> Backend:
    from . import jax_backend

    return jax_backend.backend()


namespace.register("strict", _strict)
namespace.register("jax", _jax)

_chosen = os.environ.get("DUALOPT_BACKENDS")
_names = _chosen.split(",") if _chosen else namespace.installed()
if "torch" in _names:
    import torch

    torch.set_num_threads(1)  # the arrays are small, and threads that wait for a shared core cost 10 x


@pytest.fixture(scope="session", params=_names)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every installed backend."""
    return namespace.load(request.param)


@pytest.fixture(scope="session")
def flushes() -> Callable[[Backend], bool]:
    """Does a backend flush subnormal results to zero?"""

    def answer(chosen: Backend) -> bool:
        tiny = chosen.from_numpy(np.array([2.0**-126], np.float32), "float32")
        return not chosen.to_numpy(tiny * 0.5).any()

    return answer
