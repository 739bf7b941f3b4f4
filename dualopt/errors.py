"""The exceptions of dualopt. Each message says what was wrong, where, and what to do.

Bad input is found before anything is modified: when one of these is raised by a step, parameters,
state and counts are as they were.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DualoptError(Exception):
    """Base of every error that dualopt raises on purpose."""


class CountError(DualoptError, ValueError):
    """A count, an increment or a half-life that has no meaning (negative, NaN, wrong unit)."""


class RecipeError(DualoptError, ValueError):
    """A recipe that cannot be carried out: unknown key, bad value, unused coordinate, no match."""


class GradientError(DualoptError, ValueError):
    """Gradients that do not fit their parameters: shape, dtype, sparse, complex, missing."""


class NonFiniteError(GradientError):
    """NaN or infinity in a gradient under the policy ``nonfinite = "raise"``."""


class StaleScalarsError(DualoptError, RuntimeError):
    """A traced or captured step whose scalars were not filled for this update."""


class DistributionError(DualoptError, RuntimeError):
    """What cannot be done over several processes, or processes that have come apart."""


class EvaluationError(DualoptError, RuntimeError):
    """Training or saving asked of an optimizer whose model holds the weights to evaluate at."""


class CheckpointError(DualoptError, ValueError):
    """A saved state that does not belong to this model, recipe or version, or is damaged."""


class DamagedError(CheckpointError):
    """A saved file whose bytes are not those that were written; an earlier one may be whole."""


class DataError(DualoptError, ValueError):
    """Training data that is missing, too short, or not the data of the run it is compared with."""


class MissingFrameworkError(DualoptError, ImportError):
    """A framework that is needed is not installed; the message names the extra that brings it."""


def nearest(word: str, valid: Iterable[str]) -> str:
    """A hint for a misspelt name: ``; did you mean 'x'?`` or the empty string."""
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
