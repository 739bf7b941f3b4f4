"""How θ moves along u: one file per motion. `catalog.ways` is their table."""

from .additive import Additive
from .averaged import Averaged
from .multiplicative import EXPONENTIALS, Multiplicative, Transported
from .targeted import Targeted

ADDITIVE = "additive"
AVERAGED = "averaged"
MULTIPLICATIVE = "multiplicative"
TRANSPORTED = "transported"
MOTIONS = (ADDITIVE, AVERAGED, MULTIPLICATIVE, TRANSPORTED)

__all__ = [
    "ADDITIVE",
    "AVERAGED",
    "EXPONENTIALS",
    "MOTIONS",
    "MULTIPLICATIVE",
    "TRANSPORTED",
    "Additive",
    "Averaged",
    "Multiplicative",
    "Targeted",
    "Transported",
]
