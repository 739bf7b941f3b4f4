"""How θ moves along u: one file per motion. `catalog.ways` is their table."""

from .additive import Additive
from .averaged import Averaged
from .targeted import Targeted

ADDITIVE = "additive"
AVERAGED = "averaged"
MOTIONS = (ADDITIVE, AVERAGED)

__all__ = ["ADDITIVE", "AVERAGED", "MOTIONS", "Additive", "Averaged", "Targeted"]
