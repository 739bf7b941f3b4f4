"""How another optimizer keeps what it remembers: names of arrays, and how their scale relates to that of a memory m.

    an exponential mean    m = β m + (1 − β) g                as here
    a heavy ball           buf = β buf + (1 − d) g            m = (1 − β)/(1 − d) buf,  d its dampening

m is the mean that continues as the ball does, whatever the ball began with: torch's first gradient, which is not
damped, is history by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Layout:
    """What an optimizer keeps per parameter.

    Attributes:
        memories: its name of an array -> ours, "m" or "v".
        heavy_ball: its first memory is a ball.
        updates: its name of the number of updates that a parameter has seen; None: it does not count them.
        shared: that number is one for all parameters.
        refused: names that say that it was another optimizer -> which.
    """

    memories: Mapping[str, str]
    heavy_ball: bool = False
    updates: str | None = None
    shared: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
