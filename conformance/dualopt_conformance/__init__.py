"""Conformance: do two runs of the same case agree, in which unit, and where do they first differ?

metric      scaled ULP, bit differences, normwise error; plain numpy, no framework
inputs      parameters and gradients from the integer generator: the same bits on every machine
lockstep    one case on two backends, compared bit by bit after every update
"""

from .lockstep import Difference, Report, compare, lockstep
from .metric import bit_differences, normwise, scaled_ulp

__all__ = ["Difference", "Report", "bit_differences", "compare", "lockstep", "normwise", "scaled_ulp"]
