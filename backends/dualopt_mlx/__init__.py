"""dualopt on MLX: namespaces, execution and the native optimizer."""

import importlib.metadata

from dualopt.namespace import Backend

from .environment import environment
from .execute import evaluated
from .namespace import EXACT, FAST
from .optimizer import Optimizer
from .parameters import shapes_of, working
from .saving import from_numpy, to_numpy

BACKEND = Backend(
    name="mlx",
    namespaces={"exact": EXACT, "fast": FAST},
    from_numpy=from_numpy,
    to_numpy=to_numpy,
    execute=evaluated,
    dtypes=("float32", "bfloat16", "float16"),
    version=importlib.metadata.version("mlx"),
    working=working,
    environment=environment,
)

__all__ = ["BACKEND", "Optimizer", "shapes_of"]
