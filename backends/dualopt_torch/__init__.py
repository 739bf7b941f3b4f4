"""dualopt on PyTorch: namespaces, execution and the native optimizer."""

import torch

from dualopt.namespace import Backend

from .arrays import DTYPES, HALF, from_numpy, to_numpy
from .environment import environment
from .execute import functional
from .files import load_plain
from .kernels import working
from .microbatches import microbatches
from .namespace import EXACT, FAST
from .optimizer import Optimizer
from .parameters import shapes_of

BACKEND = Backend(
    name="torch",
    namespaces={"exact": EXACT, "fast": FAST},
    from_numpy=from_numpy,
    to_numpy=to_numpy,
    execute=functional,
    dtypes=DTYPES,
    version=torch.__version__,
    working=working,
    environment=environment,
)

is_tensor = torch.is_tensor

__all__ = ["BACKEND", "HALF", "Optimizer", "is_tensor", "load_plain", "microbatches", "shapes_of", "to_numpy"]
