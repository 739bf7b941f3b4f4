"""Cautious shrink for every row that it is meant for, and what it does to a descent (arXiv 2510.12402)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt import ENTRIES, half_life, replay
from dualopt.catalog import complete, row
from dualopt.clock import Clock
from dualopt.recursion import step
from dualopt_conformance import inputs

Numpy = np.ndarray[Any, Any]
ROWS = [name for name, entry in ENTRIES.items() if "strict_mask" in entry.uses and entry.motion == "additive"]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ROWS)
def test_the_mask_is_that_of_the_applied_update(name: str, strict: bool) -> None:
    """θ+ = a^mask θ + η u with mask = 1[u θ <= 0] (strict: < 0), u as the row applies it, zeros included."""
    shapes = {"w": (4, 6)}
    group = {"optimizer": name, "step": 0.05, "shrink_half_life": 20, "shrink": "cautious", "strict_mask": strict}
    start = inputs.parameters(shapes)["w"]
    start[0, :3] = 0
    grads = list(inputs.gradients(shapes, 6, kinds=("zeros", "bell")))
    found = replay(group, {"w": start}, grads, 3, dtype="float64", trace=True)
    before, seen = start.astype(np.float64), []
    for t, p in enumerate(found.params):
        u = found.trace[t]["w"]["u"][""]
        signs = np.sign(u) * np.sign(before)
        mask = signs < 0 if strict else signs <= 0
        expected = np.where(mask, 2 ** (-3 / 20) * before, before) + 0.05 * u
        np.testing.assert_allclose(p["w"], expected, rtol=1e-12, atol=1e-12)
        before = p["w"]
        seen.append(mask)
    assert 0 < np.mean(seen) < 1


def descend(options: dict[str, Any], start: Any, gradient: Any, updates: int) -> list[Numpy]:
    """The path of gradient descent in float64, with gradients computed on the way."""
    stated = complete("sgdm", {"readout": 0.0, **options})
    chosen, theta, state, path = row("sgdm", stated), np.array(start), {}, []
    k, state = chosen.scalars(stated, Clock(1, 1), theta.shape), chosen.init(np, theta)
    for _ in range(updates):
        theta, state = step(np, chosen, theta, state, {"gradient": gradient(theta)}, k)
        path.append(theta)
    return path


@given(seed=st.integers(0, 10_000), c=st.floats(1e-4, 1e-2), strict=st.booleans())
def test_the_loss_does_not_grow(seed: int, c: float, strict: bool) -> None:
    """(v) With ηL <= 1, f+ <= f − η(1 − ηL)‖∇f‖² − c Σ(∇f ∘ θ)_+ + L c² ‖θ‖²: in continuous time never up.

    By ‖x + y‖² <= 2‖x‖² + 2‖y‖² in the quadratic bound of f.
    """
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((6, 6))
    hessian, optimum = root @ root.T + np.eye(6), rng.standard_normal(6)
    largest = float(np.linalg.eigvalsh(hessian)[-1])
    eta = 0.5 / largest
    options = {"step": eta, "shrink_half_life": half_life(1 - c, 1), "shrink": "cautious", "strict_mask": strict}

    def gradient(x: Numpy) -> Numpy:
        return np.asarray(hessian @ (x - optimum))

    def f(x: Numpy) -> float:
        return float((x - optimum) @ hessian @ (x - optimum)) / 2

    before = 3 * rng.standard_normal(6)
    for x in descend(options, before, gradient, 100):
        g = gradient(before)
        gain = eta * (1 - eta * largest) * g @ g + c * np.maximum(g * before, 0).sum()
        assert f(x) <= f(before) - gain + largest * c * c * before @ before + 1e-12 * (1 + f(before))
        before = x


def test_sliding_and_the_drift_after_it() -> None:
    """(vi) f = ½ (x1 + x2 − 1)² from (2, −1): the edge of the Pareto segment after 1000 updates. A gradient that is
    exactly 0 then counts as <= 0, so weights drift on; a strict mask stays where the gradient vanishes."""
    life = half_life(0.995, 1)
    options = {"step": 0.1, "shrink_half_life": life, "shrink": "cautious"}
    path = descend(options, [2.0, -1.0], lambda x: np.full(2, x.sum() - 1), 20_000)
    np.testing.assert_allclose(path[999], [0.997, 0.003], atol=5e-4)
    np.testing.assert_allclose(path[2999], [0.9660954607, 0.03389486789], rtol=1e-9)
    np.testing.assert_allclose(path[-1], [0.874, 0.126], atol=5e-4)
    strict = descend({**options, "strict_mask": True}, [2.0, -1.0], lambda x: np.full(2, x.sum() - 1), 20_000)
    assert strict[-1].sum() == pytest.approx(1, abs=1e-12)
    still = math.dist(strict[-1], strict[4999])
    assert still < 1e-6 < math.dist(path[-1], path[4999])


def test_signs_in_a_box() -> None:
    """Sign updates with direct shrink end at η/(1 − a), from inside and outside; cautious ones have no such box."""
    group = {"optimizer": "sign_sgdm", "step": 0.05, "shrink_half_life": half_life(0.99, 1)}
    params, grads = {"w": np.array([0.0, 9.0])}, [{"w": np.array([-1.0, -1.0])}] * 1600
    direct = replay(group, params, grads, 1, dtype="float64").params
    np.testing.assert_allclose(direct[-1]["w"], 5, rtol=1e-6)
    assert all(p["w"][0] <= 5 <= p["w"][1] for p in direct)
    cautious = replay({**group, "shrink": "cautious"}, params, grads, 1, dtype="float64").params
    np.testing.assert_allclose(cautious[-1]["w"], [80, 89], rtol=1e-9)
