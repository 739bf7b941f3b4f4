"""Random features: closed forms against the core's own updates, orders, and the numbers of another draw."""

from __future__ import annotations

import numpy as np
import pytest

from dualopt import Recipe, half_life
from dualopt.analysis.exponents import BETA, GD, NATURAL, RULES, SIGN, exponent, left, of_coordinates, risk, spectrum
from dualopt.executor import executor
from dualopt.plan import Plan

SIZES, D, UPDATES, DRAWS = (16, 32, 64, 128, 256), 1024, 200, 6
GOLDEN = {  # of one draw: gd, diagonal, sign, natural
    0.5: (0.3938600669, 0.4354533103, 0.5953385211, 0.595498181),
    1.0: (0.2993606555, 0.3922649613, 0.925532645, 0.9542665487),
    1.5: (0.2060443847, 0.3103556167, 1.085322536, 1.363757524),
    2.0: (0.1680398262, 0.2924607571, 0.9482530191, 1.80514147),
}


@pytest.mark.parametrize(("rule", "readout"), [("gd", 0.0), ("momentum", 1.0)])
def test_closed_forms_are_the_updates_of_the_core(rule: str, readout: float) -> None:
    """SGDM on the same quadratic, in float64: 60 updates of 12 features, of which each rounds by 2⁻⁵³."""
    rng, lam = np.random.default_rng(0), spectrum(1.0, 40)
    f = rng.standard_normal((12, 40))
    k, b = (f * lam) @ f.T, f @ lam
    eta = 1 / np.linalg.eigvalsh(k)[-1] * ((1 + BETA) / (1 - BETA) if readout else 1)
    group = {"optimizer": "sgdm", "step": float(eta), "memory_half_life": half_life(BETA, 1), "readout": readout}
    plan, execute = Plan(Recipe.from_dict({"group": [group]}), {"w": (12,)}, float64=True), executor(np)
    (planned,) = plan.groups
    theta = np.zeros(12)
    state = planned.start(np, "w", theta)
    for _ in range(60):
        proposal = plan.propose(1, ["w"])
        given = {"w": {"gradient": k @ theta - b}}
        theta, state = execute(planned, {"w": theta}, {"w": state}, given, proposal.scalars)["w"]
        plan.commit(proposal)
    loss = float(np.sum(lam) - 2 * b @ theta + theta @ k @ theta)
    assert risk(rule, f, lam, 60) == pytest.approx(loss, rel=1e-10)


def test_powers_of_the_curvature_are_gradient_descent_in_other_coordinates() -> None:
    """With P^½ = K^(−¼) in front, or K^(−½): the loss after T plain updates of ψ, θ = P^½ ψ."""
    rng, lam = np.random.default_rng(1), spectrum(0.5, 30)
    f = rng.standard_normal((6, 30))
    e, q = np.linalg.eigh((f * lam) @ f.T)
    for rule, power, updates in ((SIGN, -0.25, 25), (NATURAL, -0.5, 1)):
        seen = (q * e**power) @ q.T @ f
        assert risk(rule, f, lam, updates) == pytest.approx(risk(GD, seen, lam, updates), rel=1e-9)


def test_coordinates_themselves_are_the_closed_sum() -> None:
    lam = spectrum(1.5, 64)
    for rule in RULES:
        if rule != "diagonal":  # of which K is diagonal: natural
            expected = of_coordinates(rule, 20, lam, 50)
            assert risk(rule, np.eye(64)[:20], lam, 50) == pytest.approx(expected, rel=1e-9)
    assert of_coordinates(NATURAL, 20, lam, 1) == pytest.approx(float(np.sum(lam[20:])), rel=1e-14)
    assert exponent((10, 100, 1000), (1.0, 0.1, 0.01)) == pytest.approx(1.0, rel=1e-12)


def test_half_of_the_largest_curvature_is_stood() -> None:
    """At twice the step, where `stability.threshold` is, r swings for ever; a little above it grows, below it falls."""
    for rule in ("gd", "momentum"):
        early, late = (np.abs(left(rule, updates)(np.array([1.0, 1.95, 2.0, 2.05]))) for updates in (1000, 1001))
        assert late[:2].max() < 1e-9
        assert late[2] == pytest.approx(early[2], rel=0.01)
        assert late[3] > 1e9


@pytest.mark.parametrize("s", [1.0, *(pytest.param(s, marks=pytest.mark.long) for s in (0.5, 1.5, 2.0))])
def test_exponents_and_their_order(s: float) -> None:
    """The draw of the numbers is not known, so they are held to 4 standard deviations of ours, and the order is."""
    lam, rules = spectrum(s, D), [rule for rule in RULES if rule != "momentum"]
    found = []
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        f = rng.standard_normal((SIZES[-1], D))
        found.append([exponent(SIZES, [risk(rule, f[:n], lam, UPDATES) for n in SIZES]) for rule in rules])
    mean, sd = np.mean(found, axis=0), np.std(found, axis=0, ddof=1)
    assert np.all(np.abs(mean - GOLDEN[s]) < 4 * sd), (mean, sd)
    assert np.all(np.diff(mean) > 0)
