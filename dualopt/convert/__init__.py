"""Between the optimizers of other libraries and actions: knobs, batch sizes, and what an optimizer remembers.

    sources      the optimizers, with the `signatures` of their libraries; `knobs` checks them
    families     the maps, a pair for each family, and `scion`; `family` is what they have in common
    maps         knobs to a group of a recipe, and back
    files        recipes that are written in knobs
    tables       all of this as Markdown
    transfer     a recipe at another batch size
    layout       names and scales of what other optimizers remember; `states` takes it over
    reading      their checkpoints; `taking` makes one of ours of them

Raw knobs describe one batch size; half-lives are in training counts, with Δτ = `per_update` of them per update, and
hold for every batch size. Where a library does something that no row does, or the other way round, there is no image,
and a RecipeError says why.
"""

from __future__ import annotations

from .knobs import Knobs
from .maps import inexact, to_action, to_knobs
from .sources import LIBRARIES, REFUSED, SOURCES, source
from .states import adopt
from .transfer import transfer

__all__ = [
    "LIBRARIES",
    "REFUSED",
    "SOURCES",
    "Knobs",
    "adopt",
    "inexact",
    "source",
    "to_action",
    "to_knobs",
    "transfer",
]
