"""How θ moves along u: one file per motion. `catalog.ways` is their table."""

from .additive import Additive
from .targeted import Targeted

ADDITIVE = "additive"
MOTIONS = (ADDITIVE,)

__all__ = ["ADDITIVE", "MOTIONS", "Additive", "Targeted"]
