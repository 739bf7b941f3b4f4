"""How θ moves along u: one file per motion. `catalog.ways` is their table."""

from .additive import Additive
from .averaged import Averaged
from .multiplicative import EXPONENTIALS, Multiplicative, Transported
from .targeted import Targeted

ADDITIVE, AVERAGED = "additive", "averaged"
MULTIPLICATIVE, TRANSPORTED = "multiplicative", "transported"
ROTATIONAL, SPHERE, HYPERBALL = "rotational", "sphere", "hyperball"
MOTIONS = (ADDITIVE, AVERAGED, MULTIPLICATIVE, TRANSPORTED, ROTATIONAL, SPHERE, HYPERBALL)

__all__ = [
    "ADDITIVE",
    "AVERAGED",
    "EXPONENTIALS",
    "HYPERBALL",
    "MOTIONS",
    "MULTIPLICATIVE",
    "ROTATIONAL",
    "SPHERE",
    "TRANSPORTED",
    "Additive",
    "Averaged",
    "Multiplicative",
    "Targeted",
    "Transported",
]
