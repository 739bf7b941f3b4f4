"""An update that is cut before and after its direction, against one that is not: numpy, every row, every bit."""

from __future__ import annotations

import numpy as np
import pytest

from dualopt import halves
from dualopt.catalog import ENTRIES
from dualopt.exact import exact
from dualopt.executor import executor
from dualopt.generator import Stream
from dualopt.plan import Plan
from dualopt.recipe import Recipe

SHAPES = {"wide": (5, 7), "twin": (5, 7), "tall": (6, 3), "stack": (2, 3, 4)}
XP = exact(np)
CUT = {}
WHOLE = {}
for name in ENTRIES:
    recipe = Recipe.from_dict({"count": {"unit": "tokens", "per_update": 100}, "group": [{"optimizer": name}]})
    (planned,) = Plan(recipe, SHAPES).groups
    if not planned.row.local:
        (WHOLE if halves.obstacle(planned.row) else CUT)[name] = recipe


def test_which_rows_are_cut():
    assert set(CUT) >= {"muon", "scion", "scionc", "column_norm", "row_norm", "polargrad", "kaon", "freon", "mimuon"}
    assert set(WHOLE) >= {"normuon", "shampoo", "pion", "hyperball", "rotational_adamw", "single_half_life"}


@pytest.mark.parametrize("name", CUT)
def test_the_parts_are_the_whole(name):
    plan = Plan(CUT[name], SHAPES)
    (planned,) = plan.groups
    row = planned.row
    theta = {n: np.array(Stream(0, n).bell(s)) for n, s in SHAPES.items()}
    state = {n: planned.start(XP, n, x) for n, x in theta.items()}
    for t in range(2):
        g = {n: {"gradient": np.array(Stream(1, f"{n}/{t}").bell(s))} for n, s in SHAPES.items()}
        proposal = plan.propose(17 + t, SHAPES)
        k = proposal.scalars
        expected = executor(XP)(planned, theta, state, g, k)
        s, z, rows = {}, {}, slice(0, 2)
        for n in SHAPES:
            s[n], z[n] = halves.before(XP, row, theta[n], state[n], g[n], k[n])
            piece = {key: x[rows] for key, x in state[n].items()}
            _, part = halves.before(XP, row, theta[n][rows], piece, {"gradient": g[n]["gradient"][rows]}, k[n])
            assert part.tobytes() == z[n][rows].tobytes()
        u = halves.directions(XP, planned, z, k)
        alone = halves.directions(XP, planned, {"twin": z["twin"]}, k)
        assert alone["twin"].tobytes() == u["twin"].tobytes()
        for n in SHAPES:
            moved, kept = halves.after(XP, row, theta[n], u[n], s[n], k[n], state[n])
            assert moved.tobytes() == expected[n][0].tobytes()
            assert {key: x.tobytes() for key, x in kept.items()} == {
                key: x.tobytes() for key, x in expected[n][1].items()
            }
        theta, state = ({n: x[i] for n, x in expected.items()} for i in (0, 1))
        plan.commit(proposal)
