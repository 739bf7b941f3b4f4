"""JAX on the CPU as a backend: the proof that the contract of `dualopt.namespace` is complete.

Nothing in the core knows JAX; this page is all that a further array library takes. float64 stays off
and products are asked for in full float32. XLA flushes subnormal numbers to zero on the CPU.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualopt import storage
from dualopt.exact import exact
from dualopt.executor import executor, stored
from dualopt.namespace import Backend
from dualopt.rounding import Casts


def working(x: Any) -> Any:
    """Half precision in float32, the type that it is computed in."""
    return x.astype(jnp.float32) if x.dtype.itemsize == 2 else x


def casts(xp: Any) -> Casts:
    """Half precision, and the bits of float32."""
    lacks = {jnp.dtype("bfloat16"): 16, jnp.dtype("float16"): 13}
    return Casts(
        xp=xp,
        widen=working,
        narrow=lambda x, like: x.astype(like.dtype),
        dropped=lambda x: lacks.get(x.dtype, 0),
        bits=lambda x: x.view(jnp.int32),
        floats=lambda x: x.view(jnp.float32),
        index=lambda start, n: jnp.asarray(storage.index(start, n)),
        word=storage.word,
    )


def backend() -> Backend:
    """The record that `dualopt.namespace.register` asks for."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_default_matmul_precision", "float32")
    namespaces = {"exact": exact(jnp), "fast": jnp}
    return Backend(
        name="jax",
        namespaces=namespaces,
        from_numpy=lambda x, dtype: jnp.asarray(np.asarray(x, dtype=np.float32)).astype(dtype),
        to_numpy=lambda x: np.array(working(x)),
        execute=lambda tier: stored(executor(namespaces[tier]), casts(namespaces[tier])),
        dtypes=("float32", "bfloat16", "float16"),
        version=jax.__version__,
        working=working,
    )
