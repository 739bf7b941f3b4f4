"""The checks of one case, in every experiment and tier.

exact   lockstep, free    against the reference, and two records with each other: `bitwise`
fast    lockstep          against float64 arithmetic, within the derived bound: `gate`
        free              against the reference, within an envelope: `drift`
both    oracle            against a float64 run: `drift`

Cases with microbatches have free runs alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import bitwise, drift, gate
from .bench import Bench
from .experiments import has_oracle
from .manifest import Record
from .verdict import ORACLE, Check


def alone(bench: Bench, record: Record, tier: str) -> Iterator[Check]:
    """The checks of one record against the reference and float64 arithmetic."""
    sides = (ORACLE, record.label)
    if tier == "exact":
        if not bench.case.streams:
            yield bitwise.lockstep(bench, record).check(bench.case, tier, "lockstep", sides)
        yield bitwise.free(bench, record, sides)
    else:
        if not bench.case.streams:
            yield gate.lockstep(bench, record).check(bench.case, tier, "lockstep", sides)
        yield drift.free(bench, record, sides)
    if has_oracle(bench.case):
        yield drift.oracle(bench, record, tier, sides)
