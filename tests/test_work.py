"""Polar factors iterated in bfloat16: the rounding, the exact tier's bits, errors over spectra, native products.

u = 2^-8 is the relative error of one rounding to bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt import namespace, replay
from dualopt.catalog import ENTRIES
from dualopt.directions.polar import BFLOAT16, FORMS, GRAM, PRESETS, SETS, STANDARD, Way, polar
from dualopt.directions.polar.iterations import scaled
from dualopt.directions.polar.work import LEAST, eight_bits, working
from dualopt.exact import exact
from dualopt.generator import Stream
from dualopt.namespace import Backend
from dualopt.storage import rounded
from dualopt_conformance.arithmetic import NATIVE
from dualopt_conformance.bounds import Bounds
from dualopt_conformance.polar_bounds import polar_bound

from .budgeted import assert_within, lockstep

Array = np.ndarray[Any, Any]
EXACT = exact(np)
U = 2.0**-8
SPECTRA: dict[str, Callable[[int], Array]] = {
    "1/i": lambda k: 1 / np.arange(1, k + 1),
    "low rank": lambda k: np.where(np.arange(k) < k // 8, 1.0, 0.0),
    "log": lambda k: np.logspace(0, -3, k),
}
SHAPES = ((1, 1), (1, 6), (6, 1), (3, 5), (5, 3), (8, 8), (2, 8, 20), (2, 3, 20, 8))


def matrix(kind: str, shape: tuple[int, ...]) -> Array:
    z = np.random.default_rng(0).standard_normal(shape)
    if kind == "bell":
        return z
    u, s, vh = np.linalg.svd(z, full_matrices=False)
    return np.asarray((u * SPECTRA[kind](s.shape[-1])) @ vh)


# ---- the rounding


def numbers() -> Array:
    """Of both signs and all magnitudes from `LEAST` to 2^99: any, ties, powers of two and their neighbours."""
    words = Stream(0, "words").words(100_000)
    ties = (words & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    powers = np.ldexp(np.float32(1), np.arange(-98, 99))
    near = [np.nextafter(powers, np.float32(end)) for end in (0, np.inf)]
    x = np.concatenate([words.view(np.float32), ties.view(np.float32), powers, -powers, *near])
    size = np.abs(x)
    return np.asarray(x[(size >= LEAST) & (size < 2.0**99)])


def test_it_rounds_to_nearest_even(backend: Backend) -> None:
    x = numbers()
    found = backend.to_numpy(eight_bits(backend.namespace("exact"), backend.from_numpy(x, "float32")))
    assert found.tobytes() == rounded(x, "bfloat16").tobytes()


def test_tiny_numbers(backend: Backend) -> None:
    """To multiples of 2^-106, so that nothing is subnormal; 0 is 0, whatever its sign."""
    x = np.float32([0.0, -0.0, 1e-40, -1e-45, 2.0**-107, 3 * 2.0**-107, -(2.0**-106), 2.0**-98])
    found = backend.to_numpy(eight_bits(backend.namespace("exact"), backend.from_numpy(x, "float32")))
    expected = np.float32([0, 0, 0, 0, 0, 2.0**-105, -(2.0**-106), 2.0**-98])
    assert found.tobytes() == expected.tobytes()


def test_it_rounds_in_float64() -> None:
    x = numbers().astype(np.float64)
    assert eight_bits(np, x).tobytes() == rounded(x.astype(np.float32), "bfloat16").astype(np.float64).tobytes()


def compilers() -> dict[str, Callable[[Array], Array]]:
    import jax
    import mlx.core as mx
    import torch

    def by_torch(x: Array) -> Array:
        from dualopt_torch.execute import can_compile
        from dualopt_torch.namespace import COMPILED

        if not can_compile():
            pytest.skip("no C++ compiler")
        return np.asarray(torch.compile(lambda t: eight_bits(COMPILED, t))(torch.from_numpy(x)).numpy())

    return {
        "jax": lambda x: np.asarray(jax.jit(lambda t: eight_bits(jax.numpy, t))(x)),
        "mlx": lambda x: np.array(mx.compile(lambda t: eight_bits(mx, t))(mx.array(x))),
        "torch": by_torch,
    }


@pytest.mark.long
@pytest.mark.parametrize("name", ["jax", "mlx", "torch"])
def test_compilers_do_not_simplify_it(name: str) -> None:
    for module in ("jax", "mlx.core", "torch"):
        pytest.importorskip(module)
    x = numbers()
    assert compilers()[name](x).tobytes() == rounded(x, "bfloat16").tobytes()


# ---- the exact tier


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_all_backends_give_the_bits_of_numpy(backend: Backend, shape: tuple[int, ...], form: str) -> None:
    z = matrix("bell", shape).astype(np.float32)
    if z.ndim > 2:
        z[0] = 0
    way = Way(form, work=BFLOAT16)
    found = backend.to_numpy(polar(backend.namespace("exact"), backend.from_numpy(z, "float32"), "quintic", way))
    assert found.tobytes() == polar(EXACT, z, "quintic", way).tobytes()
    assert found.tobytes() == rounded(found, "bfloat16").tobytes()
    assert z.ndim == 2 or not found[0].any()


def test_tall_is_wide_transposed() -> None:
    z, way = matrix("bell", (8, 20)).astype(np.float32), Way(work=BFLOAT16)
    tall = polar(EXACT, np.ascontiguousarray(z.T), "quintic", way)
    np.testing.assert_array_equal(tall.T, polar(EXACT, z, "quintic", way))


@given(seed=st.integers(0, 1000), exponent=st.integers(-30, 30))
def test_the_scale_does_not_matter(seed: int, exponent: int) -> None:
    z, way = Stream(seed, "z").bell((5, 8)), Way(work=BFLOAT16)
    np.testing.assert_array_equal(polar(EXACT, np.ldexp(z, exponent), "quintic", way), polar(EXACT, z, "quintic", way))


def test_what_is_kept() -> None:
    """Two steps in other words: every product and every sum is rounded, and nothing else."""

    def kept(x: Array) -> Array:
        return rounded(x.astype(np.float32), "bfloat16")

    z = matrix("bell", (3, 7)).astype(np.float32)
    x = kept(scaled(EXACT, z, "frobenius"))
    for a, b, c in np.float32(SETS["quintic"].steps[:2]):
        r = kept(EXACT.matmul(x, x.T))
        p = kept(b * r + c * kept(EXACT.matmul(r, r)))
        x = kept(a * x + kept(EXACT.matmul(p, x)))
    assert polar(EXACT, z, "quintic", Way(steps=2, work=BFLOAT16)).tobytes() == x.tobytes()


# ---- errors


def distance(z: Array, way: Way, name: str) -> float:
    """‖found − polar factor‖_F/‖polar factor‖_F."""
    true = polar(np, z, "exact")
    found = polar(EXACT, z.astype(np.float32), name, way).astype(np.float64)
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


@pytest.mark.parametrize("name", ["quintic", "five", "polar_express", "aol"])
@pytest.mark.parametrize("kind", ["bell", "1/i", "log"])
@pytest.mark.parametrize("shape", [(32, 32), (32, 80), (80, 32)])
@pytest.mark.parametrize("form", FORMS)
def test_errors(name: str, kind: str, shape: tuple[int, int], form: str) -> None:
    """Not much farther from the polar factor than float32.

    Roundings of relative size u/√3 at random make ‖E‖_F about u ‖X‖_F/2 a step, and five steps that amplify the
    smallest singular values by up to 500 leave some percents where these are 1/1000 of the largest, else less.
    """
    z = matrix(kind, shape)
    plain, narrow = (distance(z, Way(form, work=work), name) for work in ("float32", BFLOAT16))
    assert narrow <= plain + (0.15 if kind == "log" else 0.06)
    assert narrow >= plain - 0.02


@pytest.mark.parametrize("form", FORMS)
def test_null_directions_stay_below_what_rounding_leaves(form: str) -> None:
    """They begin at u ‖X‖_op and grow by 3.4445 a step at most; the others are as in float32."""
    z = matrix("low rank", (32, 80))
    found = polar(EXACT, z.astype(np.float32), "quintic", Way(form, work=BFLOAT16))
    sigma = np.linalg.svd(found, compute_uv=False)
    assert sigma[4:].max() <= min(1.2, U * 3.4445**5)
    u, _, vh = np.linalg.svd(z, full_matrices=False)
    along = np.diag(u.T @ found @ vh.T)[:4]
    assert np.all((along > 0.6) & (along < 1.2))


def test_restarts_keep_the_gram_form_bounded() -> None:
    """Without them the rounding of R grows on ill-conditioned matrices until nothing of the result is left."""
    z = matrix("log", (32, 80))
    true = polar(np, z, "exact")
    errors = []
    for form, ends in (("restarted", (2, 4, 6)), ("whole", (6,))):
        x = rounded(scaled(EXACT, z.astype(np.float32), "frobenius"), "bfloat16")
        at, steps, start = working(EXACT, BFLOAT16), SETS["quintic"].taking(6).steps, 0
        for end in ends:
            r = at.product(x, x.T)
            q = None
            for a, b, c in steps[start:end]:
                p = at.sum(b, r, r, r, c)
                q = at.shifted(a, p) if q is None else at.sum(a, q, p, q)
                rz = at.sum(a, r, r, p)
                r = at.sum(a, rz, p, rz)
            x, start = at.product(q, x), end
        errors.append(np.linalg.norm(x - true) / np.linalg.norm(true))
        if form == "restarted":
            assert x.tobytes() == polar(EXACT, z.astype(np.float32), "quintic", Way(GRAM, None, 6, BFLOAT16)).tobytes()
    assert errors[0] < 0.5
    assert not errors[1] < 2 * errors[0]


@given(seed=st.integers(0, 200), steps=st.sampled_from([1, 2]))
@pytest.mark.parametrize("form", FORMS)
def test_the_bound_holds(backend: Backend, form: str, seed: int, steps: int) -> None:
    """Of both tiers, for the few steps of which it says something."""
    z, way = Stream(seed, "bound").bell((3, 4) if form == STANDARD else (3, 7)), Way(form, None, steps, BFLOAT16)
    xp = Bounds((NATIVE,))
    bound = polar_bound(xp, xp.array(z), "quintic", way)
    for tier in ("exact", "fast"):
        found = backend.to_numpy(polar(backend.namespace(tier), backend.from_numpy(z, "float32"), "quintic", way))
        error = np.linalg.norm(found.astype(np.float64) - bound.x)
        assert error <= float(bound.norm[0, 0, 0])
    if steps == 1:
        assert float(bound.norm[0, 0, 0]) < 0.1 * np.linalg.norm(bound.x)


@given(seed=st.integers(0, 200))
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (3, 4)])
def test_the_bound_of_presets_holds(backend: Backend, preset: str, shape: tuple[int, int], seed: int) -> None:
    """Of their first step, which finds the scale; no bound is left of two, as the coefficients are steep at 0."""
    z, stated = Stream(seed, "bound").bell(shape), PRESETS[preset]
    way = Way.of({**stated, "iterations": 1})
    xp = Bounds((NATIVE,))
    bound = polar_bound(xp, xp.array(z), stated["polar"], way)
    assert np.isfinite(bound.norm).all()
    for tier in ("exact", "fast"):
        found = backend.to_numpy(polar(backend.namespace(tier), backend.from_numpy(z, "float32"), stated["polar"], way))
        assert np.linalg.norm(found.astype(np.float64) - bound.x) <= float(bound.norm[0, 0, 0])


@pytest.mark.parametrize("tier", ["exact", "fast"])
def test_updates_lie_within_their_budgets(backend: Backend, tier: str) -> None:
    assert_within(lockstep("muon.two_bfloat16/usual", backend, 6, tier))


# ---- the fast tiers


@pytest.mark.parametrize("name", ["torch", "mlx"])
@pytest.mark.parametrize("native", [True, False])
def test_native_products(name: str, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Added up in float32 and rounded once, in odd shapes and stacks; so are sums with products."""
    if name not in namespace.installed():
        pytest.skip(f"{name} is not installed")
    backend = namespace.load(name)
    if name == "torch":
        monkeypatch.setattr("dualopt_torch.products.multiplies_bfloat16", lambda device: native)
    at = working(backend.namespace("fast"), BFLOAT16)
    for shape in ((1, 1), (3, 5), (2, 7, 3), (2, 2, 33, 70), (64, 300)):
        x = rounded(Stream(0, "x").bell(shape), "bfloat16")
        u = rounded(Stream(0, "u").bell((*shape[:-1], shape[-2])), "bfloat16")
        product = u.astype(np.float64) @ x
        terms = np.abs(u).astype(np.float64) @ np.abs(x)
        there = [at.narrow(backend.from_numpy(y, "float32")) for y in (x, u)]
        found = backend.to_numpy(at.widen(at.product(there[1], there[0])))
        lost = shape[-2] * 2.0**-24 * terms
        assert np.all(np.abs(found - product) <= U * np.abs(product) + (1 + U) * lost)
        total = 2.3 * x.astype(np.float64) - 1.7 * product
        found = backend.to_numpy(at.widen(at.sum(2.3, there[0], there[1], there[0], -1.7)))
        once = U * np.abs(total) + 2 * (lost + 4 * 2.0**-24 * (2.3 * np.abs(x) + 1.7 * terms))
        twice = 0.0 if native or name == "mlx" else 1.7 * U * (1 + U) * np.abs(product)
        assert np.all(np.abs(found - total) <= once + twice)


# ---- rows


@pytest.mark.parametrize("row", [name for name, entry in ENTRIES.items() if "polar" in entry.defaults])
def test_every_row_with_a_polar_factor_takes_it(row: str) -> None:
    """It changes the update by some percents."""
    z = matrix("bell", (3, 4, 6)).astype(np.float32)
    group = {"optimizer": row, "polar": "quintic", "memory_half_life": 900, "step": 1.0}
    moved = {
        work: replay({**group, "polar_work": work}, {"w": z[0]}, [{"w": g} for g in z[1:]], 64).params[-1]["w"]
        for work in ("float32", BFLOAT16)
    }
    plain, narrow = moved.values()
    apart = np.linalg.norm(narrow - plain) / np.linalg.norm(plain - z[0])
    assert 1e-4 < apart < 0.1
