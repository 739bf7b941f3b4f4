"""Warnings about recipes that can be carried out, and would hardly do what was meant."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from .counts import Count, complement
from .planned import PlannedGroup
from .storage import HALF, UNIT


def unstated(count: Count, groups: Sequence[PlannedGroup]) -> None:
    """Warn about default half-lives of a few tokens."""
    if count.base != "tokens" or count.per_update > 1:
        return
    for planned in groups:
        lives = [key for key in planned.action if key.endswith("memory_half_life")]
        default = [key for key in lives if key not in planned.group.options]
        if default:
            warnings.warn(
                f"group {planned.group.name!r}: the default {default[0]} is {planned.action[default[0]]:.3g} "
                f"{count.base}, as [count] per_update is 1; state per_update, or the half-life",
                RuntimeWarning,
                stacklevel=3,
            )
            return


def too_fine(count: Count, groups: Sequence[PlannedGroup], dtypes: Mapping[str, str]) -> None:
    """Warn about half-precision parameters whose shrink per update is lost in rounding.

    ``dtypes``: parameter name -> "float32", "bfloat16", ...
    """
    for planned in groups:
        if planned.row.storage or planned.row.motion.averages or "c_a" not in planned.row.needs:
            continue  # what shrinks is kept in the working type, or the half-life sets another speed
        lost = complement(count.per_update, planned.shrink_half_life)
        for name in planned.names:
            spacing = UNIT[dtypes[name]] / 2 if dtypes[name] in HALF else 0.0  # below it no number changes
            if 0 < lost < spacing:
                warnings.warn(
                    f"group {planned.group.name!r}: {name!r} is {dtypes[name]} and shrinks by {lost:.1e} per "
                    f"update, less than its rounding ({spacing:.1e}): it will not shrink. State rounding = "
                    "'master', 'kahan' or 'stochastic' for the group, or shorten shrink_half_life",
                    RuntimeWarning,
                    stacklevel=3,
                )
                break
