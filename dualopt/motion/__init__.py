"""How θ moves along u: one file per motion. `catalog.ways` is their table."""

from .additive import Additive
from .multiplicative import EXPONENTIALS, Multiplicative, Transported
from .targeted import Targeted

ADDITIVE = "additive"
MULTIPLICATIVE = "multiplicative"
TRANSPORTED = "transported"
MOTIONS = (ADDITIVE, MULTIPLICATIVE, TRANSPORTED)

__all__ = [
    "ADDITIVE",
    "EXPONENTIALS",
    "MOTIONS",
    "MULTIPLICATIVE",
    "TRANSPORTED",
    "Additive",
    "Multiplicative",
    "Targeted",
    "Transported",
]
