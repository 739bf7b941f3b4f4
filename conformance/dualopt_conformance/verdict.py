"""What a comparison found: plain data that `compare` makes and `report` shows.

A *side* is one record, or "oracle". A *check* is one case and one experiment in one tier, of one side against
another. Its status is

    pass       something was compared, and nothing is beyond its budget (in the exact tier: no bit differs)
    fail       something is beyond its budget; `first` says where
    flushed    as pass, and what differs in the exact tier are subnormal numbers that one side flushes to zero
    shown      reported, not judged

E, the unit of `worst`, `budget` and `derived`, is the scaled ULP of `metric`, or the normwise unit for matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

PASS, FAIL, FLUSHED, SHOWN = "pass", "fail", "flushed", "shown"
OK, NUMERIC_FAILURE, NOT_COMPARABLE, COULD_NOT_RUN = 0, 1, 2, 3  # exit statuses
ORACLE = "oracle"  # the side that float64 arithmetic takes


@dataclass(frozen=True)
class Finding:
    """The first element that parted: by update, then in the order in which an update computes (m, v, u, θ).

    Attributes:
        update: counted from 1.
        tensor: e.g. ``m of tall`` or ``tall`` for the parameter itself.
        index: of the element.
        left, right: hexadecimal values (`float.hex`) of the two sides.
        oracle: the same of float64 arithmetic, "" if it was not asked.
        error, budget: in E.
        nearer: the side that is nearer to the oracle, "" if it was not asked.
    """

    update: int
    tensor: str
    index: tuple[int, ...]
    left: str
    right: str
    oracle: str = ""
    error: float = 0.0
    budget: float = 0.0
    nearer: str = ""

    def __str__(self) -> str:
        at = f"update {self.update}: {self.tensor} at {list(self.index)}: {self.left} and {self.right}"
        oracle = f", oracle {self.oracle}" if self.oracle else ""
        nearer = f", nearer to it: {self.nearer}" if self.nearer else ""
        return f"{at}{oracle}{nearer}; error {self.error:.4g}, budget {self.budget:.4g}"


@dataclass(frozen=True)
class Check:
    """One case and one experiment of one side against another.

    Attributes:
        case: e.g. ``adamw.cautious/usual``.
        tier: ``exact`` or ``fast``.
        experiment: ``lockstep``, ``free``, ``closed`` or ``oracle``.
        sides: (reference, other), labels of `Verdict.sides` or `ORACLE`.
        status: see the module.
        compared, differing: elements compared, and those whose bits differ.
        worst: the largest E that counts; `budget` what the gate allowed there.
        derived: the largest bound that the running-error analysis gives anywhere in the check; in ``oracle`` the
            distance of the reference.
        flushed, ties: elements left out of the gate as flushed subnormals or undecidable signs.
        first: where it parted, for failures.
        curve: (update, largest E of all tensors after it), for drift plots; the budget's curve beside it.
        note: one line for the reader, e.g. "losses 2.311 and 2.309"; for a failure how to repeat it.
    """

    case: str
    tier: str
    experiment: str
    sides: tuple[str, str]
    status: str
    compared: int = 0
    differing: int = 0
    worst: float = 0.0
    budget: float = 0.0
    derived: float = 0.0
    flushed: int = 0
    ties: int = 0
    first: Finding | None = None
    curve: tuple[tuple[int, float], ...] = ()
    envelope: tuple[tuple[int, float], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Side:
    """One record: its label (unique in a verdict), and facts of its manifest in the order to show them."""

    label: str
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """All checks of a comparison, and warnings that do not change it."""

    sides: tuple[Side, ...]
    checks: tuple[Check, ...]
    warnings: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.status == FAIL)

    @property
    def compared(self) -> int:
        """Elements judged in all checks."""
        return sum(check.compared for check in self.checks if check.status != SHOWN)

    @property
    def holds(self) -> bool:
        """True if something was judged, and nothing failed."""
        return self.compared > 0 and not self.failures

    @property
    def exit_status(self) -> int:
        return OK if self.holds else NUMERIC_FAILURE

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"holds": self.holds, "compared": self.compared, **asdict(self)}
