"""What a recipe will do, without training: float64 on the host, on top of `steady` and `noise`.

    recurrence    y_i = b_i y_{i−1} + x_i for a million updates
    weights       what θ_t remembers: the weight of every update, gradient and of the initial weights
    walks         how the RMS of weights changes over a run on noise; mean fields
    equilibria    where it settles, and how fast weights turn there; published rows in raw knobs
    sizes         how large the updates of every row are
    spectra       what functions of singular values make of noise
    stability     the largest curvature that a step stands
    exponents     how the loss falls with the number of random features, rule by rule

are formulas of arrays and numbers; these read recipes, import the core and nothing of it imports them:

    course        the scalars of every update of a run
    motions       what the motion of a row makes of them: radius, angle, what is left
    prediction    all of this for every group of a recipe
    doubts        what is probably not meant
    picture       prediction.png

Predictions are of gradients that are noise, with a mean of 0: weights of real runs are larger where gradients agree, at
most by the norm ball.
"""

from __future__ import annotations

from .equilibria import Equilibrium, settled
from .stability import threshold
from .walks import walk
from .weights import of_gradients, of_updates, period

__all__ = ["Equilibrium", "of_gradients", "of_updates", "period", "settled", "threshold", "walk"]
