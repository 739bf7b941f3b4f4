"""How θ moves along u: one file per motion. `catalog.ways` is their table."""

from .additive import Additive
from .targeted import Targeted

ADDITIVE, ROTATIONAL, SPHERE, HYPERBALL = "additive", "rotational", "sphere", "hyperball"
MOTIONS = (ADDITIVE, ROTATIONAL, SPHERE, HYPERBALL)

__all__ = ["ADDITIVE", "HYPERBALL", "MOTIONS", "ROTATIONAL", "SPHERE", "Additive", "Targeted"]
