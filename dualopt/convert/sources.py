"""The optimizers of other libraries that have an image, and why others have none."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import RecipeError, nearest
from .knobs import Source
from .signatures.common import NESTEROV_ADAM
from .signatures.of_authors import AUTHORS
from .signatures.of_mlx import MLX
from .signatures.of_optax import OPTAX
from .signatures.of_torch import TORCH

SOURCES: Mapping[str, Source] = {s.name: s for s in (*TORCH, *MLX, *OPTAX, *AUTHORS)}
LIBRARIES = tuple(dict.fromkeys(s.library for s in SOURCES.values()))

_ADAGRAD = "its sum of squares never forgets: a second memory with a half-life of inf, which no row has"
_ADADELTA = "it remembers squares of updates, and rows those of gradients"
_ADAMAX = "it keeps the largest gradient of late, max(β₂ v, |g|), and rows a mean of squares"
_ADAFACTOR = "its second memory is a row and a column, and its step follows the size of the weights; no row has either"
_RADAM = "its step follows a rectification of the first updates that no row has"
REFUSED: Mapping[str, str] = {
    "torch-adadelta": _ADADELTA,
    "torch-adagrad": _ADAGRAD,
    "torch-adamax": _ADAMAX,
    "torch-adafactor": _ADAFACTOR,
    "torch-asgd": "it averages with weights of its own; `dualopt list sgdm --motion averaged` shows what rows have",
    "torch-lbfgs": "it searches along lines",
    "torch-radam": _RADAM,
    "torch-rprop": "its steps grow and shrink entry by entry",
    "torch-sparseadam": "it updates the rows that have gradients only, and rows of a recipe whole parameters",
    "mlx-adadelta": _ADADELTA,
    "mlx-adagrad": _ADAGRAD,
    "mlx-adamax": _ADAMAX,
    "mlx-adafactor": _ADAFACTOR,
    "mlx-multioptimizer": "write a group of a file of knobs for each of its optimizers",
    "optax-adafactor": _ADAFACTOR,
    "optax-adagrad": _ADAGRAD,
    "optax-nadam": NESTEROV_ADAM.why,
    "optax-radam": _RADAM,
}


def source(name: str) -> Source:
    """The source called `name`. RecipeError with the nearest name, or with the reason why it has no image."""
    if name in SOURCES:
        return SOURCES[name]
    if name in REFUSED:
        raise RecipeError(f"{name} has no image: {REFUSED[name]}")
    raise RecipeError(f"{name!r} is not one of {', '.join(SOURCES)}{nearest(name, SOURCES)}")


def targets(name: str) -> tuple[Source, ...]:
    """The sources that `name` may mean: one by its name, or all of a library."""
    found = tuple(s for s in SOURCES.values() if s.library == name)
    return found if found and name not in SOURCES else (source(name),)
