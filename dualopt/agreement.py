"""One decision for all processes: an update is carried out by all of them, skipped by all, or refused by all.

The processes compare what they found, and a digest of the update that they are about to carry out: Δτ and τ, η of
every group, and the parameters that have gradients. Three integers are reduced, by a collective of the backend; no
array changes before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from .errors import DistributionError, NonFiniteError
from .proposal import Proposal

CARRY_OUT, SKIP, NONFINITE, REFUSE = range(4)  # the largest is what all do

Found = TypeVar("Found", bound=tuple[Any, Proposal] | None)


@dataclass
class Traffic:
    """What one process has taken part in. What is compiled counts once, when it is traced, and repeats it.

    Attributes:
        sent, received: bytes of arrays, without those that it keeps for itself.
        decided: bytes of decisions, which do not depend on the model.
        collectives: how many calls.
    """

    sent: int = 0
    received: int = 0
    decided: int = 0
    collectives: int = 0


class Wire(Protocol):
    """What a backend's processes compare numbers by."""

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """The largest of each, over all processes, which all call this; |number| < 2**63."""
        ...


def agreed(wire: Wire, tau: int, find: Callable[[], Found]) -> Found | None:
    """What `find` gives if it does so everywhere; None: the update is skipped, here or elsewhere.

    Args:
        tau: the count of the run.
        find: evidence and proposal of this process; None: skip.

    Raises:
        what `find` raises.
        NonFiniteError: another process has raised that.
        DistributionError: another process has raised something else, or is about to carry out another update.
    """
    error: Exception | None = None
    found: Found | None = None
    outcome, digest = CARRY_OUT, 0
    try:
        found = find()
        if found is None:
            outcome = SKIP
        else:
            digest = _digest(found[1], tau)
    except NonFiniteError as raised:
        outcome, error = NONFINITE, raised
    except Exception as raised:
        outcome, error = REFUSE, raised
    worst, highest, lowest = wire.largest([outcome, digest, -digest])
    if error is not None:
        raise error
    if worst == NONFINITE:
        raise NonFiniteError("another process has found a gradient that is not finite; nothing was changed")
    if worst == REFUSE:
        raise DistributionError("another process has refused this update, and says why; nothing was changed")
    if worst == SKIP:
        return None
    if highest != -lowest:
        raise DistributionError(
            "the processes are about to carry out different updates; nothing was changed. Give the same count "
            "everywhere, write the same lr, and let the same parameters have gradients"
        )
    return found


def _digest(proposal: Proposal, tau: int) -> int:
    seen = repr((sorted(proposal.names), proposal.dtau, proposal.steps, tau))
    return int.from_bytes(hashlib.sha256(seen.encode()).digest()[:7], "big")
