"""benchmarks/science/equilibrium.py: what it measures, on gradients whose push is known, and how it judges."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("torch")

from benchmarks.science import equilibrium
from benchmarks.science.equilibrium import CONFIG, FRAMEWORKS, INVARIANT, PER_UPDATE, ROLES, TITLES
from dualopt.executor import executor
from dualopt.plan import Plan
from dualopt.workload.model import GPTConfig
from dualopt.workload.text import load_text

SIDE, CURVATURE = 24, 0.4
LONG = sorted(set(TITLES) - {"lion"})


def settled(optimizer: str, curvature: float, updates: int = 1200, settling: int = 700) -> dict[str, float]:
    """Measured over predicted, of a matrix of the blocks whose gradients are noise and `curvature` times θ."""
    made = equilibrium.recipe(optimizer)
    plan = Plan(made, {"blocks.0.w": (SIDE, SIDE), "g": (3,), "head": (3, 3)}, float64=True)
    planned, execute = plan.groups[1], executor(np)
    config = GPTConfig(layers=1, width=SIDE, heads=2, context=16)
    ways = equilibrium.predictions(optimizer, config)
    rng, watch = np.random.default_rng(0), equilibrium.Watch(equilibrium.KINDS[optimizer], made.groups[1])
    theta = rng.standard_normal((SIDE, SIDE)) * ways[INVARIANT].path.settles
    state, last = planned.start(np, "blocks.0.w", theta), np.zeros_like(theta)
    for t in range(updates):
        g = rng.standard_normal((SIDE, SIDE)) + curvature * theta
        k = plan.propose(PER_UPDATE, list(plan.shapes))
        plan.commit(k)
        given: dict[str, Any] = {"blocks.0.w": {"gradient": g}}
        moved, new = execute(planned, {"blocks.0.w": theta}, {"blocks.0.w": state}, given, k.scalars)["blocks.0.w"]
        if t >= settling and t % 2:
            watch.add(theta, moved, g, state, last)
        theta, state, last = moved, new, g
    return equilibrium.compared(ways[INVARIANT], watch.told())


@pytest.mark.parametrize(
    "optimizer", ["lion", *(pytest.param(x, marks=pytest.mark.long) for x in TITLES if x != "lion")]
)
def test_pushed_weights_settle_with_the_effective_decay(optimizer: str) -> None:
    """Noise alone: as predicted. With a push of 0.4 θ, which is of the order of the shrink: as with a_e.

    576 entries over 5 times the half-life of a square, 100 updates, are about 5 independent draws: 4 standard errors of
    an RMS are 4/√(2·5·576) = 5 %; polar factors are of 24 x 24, 1.3 % smaller than large ones (`watch.forecast`).
    """
    free, pushed = settled(optimizer, 0.0), settled(optimizer, CURVATURE)
    error = 4 / math.sqrt(2 * 5 * SIDE**2) + (0.013 if optimizer in ("muon", "scionc") else 0)
    for key in ("rms", "angle", "rms_e", "angle_e", "update"):
        assert free[key] == pytest.approx(1, abs=error), key
    assert free["decay"] == pytest.approx(1, abs=0.1)
    assert pushed["decay"] > 1.3
    assert pushed["rms"] < 0.88
    assert pushed["rms_e"] == pytest.approx(1, abs=error)
    assert pushed["angle_e"] == pytest.approx(1, abs=error)


def test_gpts_are_measured_role_by_role() -> None:
    config = GPTConfig(layers=2, width=16, heads=2, context=16)
    every = {}
    for framework in FRAMEWORKS:
        pytest.importorskip("mlx.core" if framework == "mlx" else framework)
        every[framework] = equilibrium.run(framework, "muon", load_text(), config, settling=6, watched=4)
    for seen in every.values():
        assert set(seen["roles"]) == set(ROLES)
        assert seen["roles"][INVARIANT]["update"] == pytest.approx(1 / 16, rel=0.5)  # of a polar factor of 16 x 16
        assert abs(seen["roles"][INVARIANT]["pushed"]) < abs(seen["roles"]["v, o"]["pushed"])
        assert len(seen["curve"]) == 1
    first, *others = (seen["roles"] for seen in every.values())
    for other in others:  # ten updates of float32
        for role in ROLES:
            assert other[role] == pytest.approx(first[role], rel=1e-2, abs=1e-3 * abs(first["v, o"]["pushed"])), role


def test_ratios_are_judged(tmp_path: Path) -> None:
    ways = {name: equilibrium.predictions(name) for name in TITLES}

    def seen(name: str, role: str, off: float) -> dict[str, float]:
        path, eta = ways[name][role].path, float(ways[name][role].life.eta[-1])
        assert path.settles is not None
        assert path.turns is not None
        assert path.update is not None
        square = (path.settles * (1 + off * (role == "down"))) ** 2
        update = (float(path.update[-1]) / eta) ** 2
        return {"square": square, "update": update, "angle": path.turns, "pushed": -1e9 * (role == "head")}

    for off in (0.0, 0.2):
        every = {
            name: {
                framework: {role: equilibrium.compared(ways[name][role], seen(name, role, off)) for role in ROLES}
                for framework in FRAMEWORKS
            }
            for name in TITLES
        }
        assert [claim.holds for claim in equilibrium.judged(every)] == [
            True,
            True,
            off < 0.1,
            True,
            off < 0.1,
            True,
            False,
        ]
    assert "| Muon | down |" in equilibrium.table(every, ways)
    courses = {name: {framework: {"curve": [0.05] * 64} for framework in FRAMEWORKS} for name in TITLES}
    equilibrium.picture(every, courses, ways, tmp_path / "there.png")
    assert (tmp_path / "there.png").stat().st_size > 10_000
    assert CONFIG.qk_norm
