"""Named ways to a polar factor: sets of coefficients with all that an iteration of them depends on.

accurate    five steps; closer to the polar factor than the iteration of Muon's authors, and of torch.optim.Muon
fast        four steps; about as close as that
"""

from __future__ import annotations

from collections.abc import Mapping

from .iterations import GRAM
from .sets import EIGHTH, EXPRESS_4, EXPRESS_5, MOMENT
from .work import BFLOAT16

ACCURATE, FAST = "accurate", "fast"


def _preset(polar: str, scaling: str) -> dict[str, str]:
    return {"polar": polar, "polar_form": GRAM, "polar_scaling": scaling, "polar_work": BFLOAT16}


PRESETS: Mapping[str, Mapping[str, str]] = {
    ACCURATE: _preset(EXPRESS_5.name, MOMENT),
    FAST: _preset(EXPRESS_4.name, EIGHTH),
}
