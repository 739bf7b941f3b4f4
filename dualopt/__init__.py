"""dualopt: optimizers for deep learning in action coordinates, one definition for PyTorch and MLX.

s+ = F(s, g)        u = U(s+, g)        θ+ = a θ + η u

opt = dualopt.optimizer(model, "recipe.toml")      # a native optimizer of the model's framework
opt.step(count=tokens)                             # torch; MLX: opt.update(model, grads, count=tokens)
"""

from .catalog import ENTRIES
from .counts import Count, complement, half_life, halving_exponent, rescale, retention
from .errors import DualoptError
from .exact import exact
from .explain import explain
from .frameworks import optimizer
from .recipe import Group, Recipe
from .recursion import Row, step
from .replay import Replay, replay
from .schedules import Schedule
from .watch import Monitor

__version__ = "0.1.0"

__all__ = [
    "ENTRIES",
    "Count",
    "DualoptError",
    "Group",
    "Monitor",
    "Recipe",
    "Replay",
    "Row",
    "Schedule",
    "complement",
    "exact",
    "explain",
    "half_life",
    "halving_exponent",
    "optimizer",
    "replay",
    "rescale",
    "retention",
    "step",
]
