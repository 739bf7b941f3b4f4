"""The programs of elementwise rows, carried out by numpy, have the bits of the core's own update."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dualopt import ENTRIES
from dualopt.numpy_backend import BACKEND
from dualopt.plan import Plan
from dualopt.planned import PlannedGroup
from dualopt.recipe import Group, Recipe
from dualopt.recursion import step
from dualopt.trace import COMPARISONS, Program, Symbol, Tracing, traced
from dualopt_conformance import inputs
from dualopt_conformance.cases import EVERY
from dualopt_conformance.metric import bit_differences

LOCAL = {c.variant: c.table for c in EVERY.values() if c.row.local and not c.streams and not c.samples}

_OPERATIONS: dict[str, Any] = {
    **{name: getattr(np, name) for name in ("add", "subtract", "multiply", "divide", "negative", "abs", "sign")},
    **{name: getattr(np, name) for name in ("sqrt", "logical_and", "logical_or", "where", *COMPARISONS)},
}


def carried_out(program: Program, given: dict[str, Any]) -> dict[str, Any]:
    """{array: its new value}; float32 throughout."""
    known = dict(given)

    def value(argument: str | float) -> Any:
        return known[argument] if isinstance(argument, str) else np.float32(argument)

    for line in program.instructions:
        assert line.name not in known
        known[line.name] = _OPERATIONS[line.operation](*map(value, line.arguments))
    return {name: value(new) for name, new in program.outputs}


def planned(table: dict[str, Any]) -> tuple[PlannedGroup, dict[str, float]]:
    plan = Plan(Recipe((Group.from_dict(table),)), {"w": (7, 30)})
    return plan.groups[0], plan.propose(3, ["w"]).scalars["w"]


def test_all_elementwise_variants_are_there() -> None:
    assert {"adamw", "lion", "sgdm", "sign_sgdm", "adam_l2", "rmsprop", "sf_adamw", "adamw.cautious"} <= LOCAL.keys()
    assert all(table["optimizer"] in ENTRIES for table in LOCAL.values())


@pytest.mark.parametrize("variant", LOCAL)
def test_program_is_the_update(variant: str) -> None:
    group, k = planned(dict(LOCAL[variant]))
    theta = inputs.array("ties", (7, 30), 0, "theta")
    gradient = inputs.array("six_decades", (7, 30), 0, "gradient")
    state = {key: np.abs(inputs.array("six_decades", (7, 30), 0, key)) for key in group.start(np, "w", theta)}
    xp = BACKEND.namespace("exact")
    scalars = {name: np.asarray(x, np.float32) for name, x in k.items()}
    moved, kept = step(xp, group.row, theta, state, {"gradient": gradient}, scalars)
    program = traced(group.row, tuple(state))
    given = {"theta": theta, "g_gradient": gradient}
    given |= {f"s_{key}": x for key, x in state.items()} | {f"k_{name}": x for name, x in scalars.items()}
    assert set(program.arrays) | set(program.scalars) == set(given)
    found = carried_out(program, given)
    assert not np.any(bit_differences(moved, found["theta"]))
    assert not np.array_equal(moved, theta)
    for key, x in kept.items():
        assert not np.any(bit_differences(x, found[f"s_{key}"]))


def test_what_is_not_elementwise_is_refused() -> None:
    group, _ = planned({"optimizer": "row_norm"})
    with pytest.raises(TypeError, match=r"xp\.\w+ is not elementwise"):
        traced(group.row, ("m",))
    lines = traced(planned({"optimizer": "lion"})[0].row, ("m",)).instructions
    assert {line.operation for line in lines} <= {"add", "subtract", "multiply", "sign", "negative"}
    with pytest.raises(TypeError, match="not known"):
        bool(Tracing().zeros_like(Symbol([], "x")))
