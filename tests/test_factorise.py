"""Factorisations of the exact tier: accurate against float64, and with one right answer on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dualopt import factorise
from dualopt.exact import exact
from dualopt.namespace import Backend

Array = np.ndarray[Any, Any]
EXACT = exact(np)
SPECTRA = ("bell", "repeated", "graded", "low rank", "clustered", "zero")
# Errors in units of u n ‖A‖ (u n where relative): measured up to 2.3 over 40 seeds each; a bug gives 1e3 and more.
UNITS = 6.0


def orthogonal(rng: np.random.Generator, n: int) -> Array:
    return np.asarray(np.linalg.qr(rng.standard_normal((n, n)))[0])


def spectrum(kind: str, n: int, rng: np.random.Generator) -> Array:
    found: dict[str, Array] = {
        "bell": rng.standard_normal(n),
        "repeated": np.resize([1.0, -2.0, 3.0], n),
        "graded": 10.0 ** -np.linspace(0, 8, n),
        "low rank": np.where(np.arange(n) <= n // 4, 1.0, 0.0),
        "clustered": 1 + 1e-4 * rng.standard_normal(n),
        "zero": np.zeros(n),
    }
    return found[kind]


def symmetric(kind: str, n: int, dtype: str, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    q = orthogonal(rng, n)
    a = (q * spectrum(kind, n, rng)) @ q.T
    return ((a + a.T) / 2).astype(dtype)


def rectangular(kind: str, m: int, n: int, dtype: str, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    k = min(m, n)
    return ((orthogonal(rng, m)[:, :k] * spectrum(kind, k, rng)) @ orthogonal(rng, n)[:k]).astype(dtype)


def doubled(*arrays: Array) -> list[Array]:
    return [x.astype(np.float64) for x in arrays]


def away(a: Array, scale: float, dtype: str) -> float:
    """‖a‖_op in units of u n, relative to `scale`."""
    u = float(np.finfo(dtype).eps) / 2
    return float(np.linalg.norm(a, 2) / (u * max(a.shape) * (scale or 1.0)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("n", [1, 2, 3, 8, 17])
def test_eigenvalues(dtype: str, kind: str, n: int) -> None:
    a = symmetric(kind, n, dtype)
    values, q = factorise.eigh(EXACT, a)
    assert values.dtype == q.dtype == a.dtype
    a, values, q = doubled(a, values, q)
    size = float(np.linalg.norm(a, 2))
    assert away(a @ q - q * values, size, dtype) <= UNITS
    assert away(q.T @ q - np.eye(n), 1.0, dtype) <= UNITS
    assert away(np.diag(np.sort(values) - np.linalg.eigvalsh(a)), size, dtype) <= UNITS


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eigenvalues_of_a_large_matrix(dtype: str) -> None:
    a = symmetric("bell", 64, dtype)
    values, q = factorise.eigh(EXACT, a)
    a, values, q = doubled(a, values, q)
    assert away(a @ q - q * values, float(np.linalg.norm(a, 2)), dtype) <= UNITS
    assert away(q.T @ q - np.eye(64), 1.0, dtype) <= UNITS


def test_a_stack_has_the_bits_of_its_members_and_scale_does_not_matter() -> None:
    stack = np.stack([symmetric("bell", 5, "float32", seed) for seed in range(3)])
    values, q = factorise.eigh(EXACT, stack)
    for i in range(3):
        for scale in (1.0, 2.0**60, 2.0**-60):
            one = factorise.eigh(EXACT, stack[i] * np.float32(scale))
            assert (one[0] / np.float32(scale)).tobytes() == values[i].tobytes()
            assert one[1].tobytes() == q[i].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_inverses(dtype: str, n: int) -> None:
    rng = np.random.default_rng(n)
    x = rng.standard_normal((n, n))
    skew = np.eye(n) - (x - x.T) / 2
    shifted = np.eye(n) + 100 * x @ x.T / max(np.linalg.norm(x @ x.T, 2), 1e-9)
    for a in (skew.astype(dtype), shifted.astype(dtype), np.eye(n, dtype=dtype)):
        found = factorise.inverse(EXACT, a)
        assert found.dtype == a.dtype
        a64, found64 = doubled(a, found)
        size = float(np.linalg.norm(a64, 2) * np.linalg.norm(np.linalg.inv(a64), 2))
        assert away(a64 @ found64 - np.eye(n), size, dtype) <= UNITS


@pytest.mark.parametrize("scale", [1.0, 1e-15])
def test_all_backends_give_the_bits_of_numpy(backend: Backend, scale: float) -> None:
    """One shape, as JAX compiles for each: 5 is odd; the second of the stack is 1e-15 of the first."""
    a = np.stack([symmetric("bell", 5, "float32", 1), scale * symmetric("low rank", 5, "float32")]).astype(np.float32)
    x = rectangular("bell", 5, 5, "float32", 2)
    inside = np.stack([np.eye(5) - scale * (x - x.T), np.eye(5) + scale * (x @ x.T)]).astype(np.float32)
    z = np.stack([rectangular("graded", 5, 5, "float32"), np.float32(scale) * x])
    xp = backend.namespace("exact")
    given = [backend.from_numpy(x, "float32") for x in (a, z, inside)]
    found = [*factorise.eigh(xp, given[0]), *factorise.svd(xp, given[1]), factorise.inverse(xp, given[2])]
    expected = [*factorise.eigh(EXACT, a), *factorise.svd(EXACT, z), factorise.inverse(EXACT, inside)]
    for one, other in zip(found, expected, strict=True):
        assert backend.to_numpy(one).tobytes() == other.tobytes()
