"""The time that a parameter has lived: what the host side of the recursion reads.

τ belongs to the parameter, not to the optimizer: a parameter that is unfrozen late, or an expert that
received no gradient, has its own τ, and its bias correction uses that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Clock:
    """One update of one parameter, seen from the host.

    Attributes:
        tau: cumulative count of the parameter *after* this update (base unit).
        dtau: increment Δτ of this update.
        q: η of this update relative to the peak `step`, from the schedule.
        q_shrink: exponent of the shrink: the retention of the weights is σ_peak^q_shrink.
        sums: running numbers of the host, float64, that cannot be had from τ alone, such as Σ η²; *after* this
            update where scalars are derived, before it where `tally` adds to them.
    """

    tau: int
    dtau: int
    q: float = 1.0
    q_shrink: float = 1.0
    sums: Mapping[str, float] = field(default_factory=dict)

    def tick(self, dtau: int, q: float = 1.0, q_shrink: float = 1.0) -> Clock:
        """The clock of the next update, which adds `dtau`; sums are still those before it."""
        return Clock(self.tau + dtau, dtau, q, q_shrink, self.sums)
