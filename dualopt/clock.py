"""The time that a parameter has lived: what the host side of the recursion reads.

τ belongs to the parameter, not to the optimizer: a parameter that is unfrozen late, or an expert that
received no gradient, has its own τ, and its bias correction uses that.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """One update of one parameter, seen from the host.

    Attributes:
        tau: cumulative count of the parameter *after* this update (base unit).
        dtau: increment Δτ of this update.
        q: η of this update relative to the peak `step`, from the schedule.
        q_shrink: exponent of the shrink: the retention of the weights is σ_peak^q_shrink.
    """

    tau: int
    dtau: int
    q: float = 1.0
    q_shrink: float = 1.0

    def tick(self, dtau: int, q: float = 1.0, q_shrink: float = 1.0) -> Clock:
        """The clock of the next update, which adds `dtau`."""
        return Clock(self.tau + dtau, dtau, q, q_shrink)
