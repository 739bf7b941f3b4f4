"""What became of a wrong optimizer, or of a right one written differently, when it was compared: plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One altered optimizer.

    Attributes:
        name: unique.
        part: of the recursion, e.g. ``memory``.
        what: what it does instead, in a line.
        legitimate: the same mathematics written differently, which must be accepted.
        caught: the comparison failed.
        case, tensor: where it was caught first, or came nearest to its budget.
        error, budget: there, in E.
    """

    name: str
    part: str
    what: str
    legitimate: bool
    caught: bool
    case: str
    tensor: str
    error: float
    budget: float

    @property
    def right(self) -> bool:
        """True if the comparison did what it has to do."""
        return self.caught != self.legitimate

    @property
    def outcome(self) -> str:
        """One word or two for tables."""
        if self.legitimate:
            return "REJECTED" if self.caught else "accepted"
        return "caught" if self.caught else "MISSED"
