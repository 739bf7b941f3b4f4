"""Symmetry-compatible directions: golden numbers, equivariances, centring, what ν is a sum over.

Golden numbers are −f(M) of a 3 × 2 matrix M, to their ten printed digits. Invariants of spectral updates hold for the
exact polar factor; they are tested in float64, and on every backend where a polynomial of products keeps them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt import Recipe, replay
from dualopt.directions.polar import EXACT, SETS
from dualopt.directions.symmetry import AFTER, BEFORE, Lines, Spectral, centred, damped_polar
from dualopt.errors import RecipeError
from dualopt.namespace import Backend
from dualopt_conformance import inputs
from dualopt_conformance.replays import compare

EPS = 1e-8
K = {"eps": EPS, "root_eps": EPS**0.5}
U = 2.0**-24
Numpy = np.ndarray[Any, Any]
SEED = st.integers(0, 10_000)
SHAPES = ((7, 3), (3, 7), (5, 5), (6, 1), (1, 6), (2, 4, 3))
E3 = np.array([[1, 2], [-0.5, 0.25], [0.75, -1.5]])

GEOMETRIES: dict[str, Lines | Spectral] = {
    "row": Lines(),
    "row centred": Lines(centred=True),
    "column": Lines(axis=-2),
    **{
        f"{name}{', centred' * c} α={power}": Spectral("polar_express", power, c, rows)
        for name, rows in (("spectral", None), (BEFORE, BEFORE), (AFTER, AFTER))
        for c in (False, True)
        for power in ("0", "1")
    },
}
CENTRED = [name for name, geometry in GEOMETRIES.items() if getattr(geometry, "centred", False)]


def exactly(geometry: Lines | Spectral) -> Lines | Spectral:
    """The same with the exact polar factor."""
    if isinstance(geometry, Lines):
        return geometry
    return Spectral(EXACT, geometry.power, geometry.centred, geometry.rows)


def update(geometry: Lines | Spectral, m: Numpy, k: dict[str, float] = K) -> Numpy:
    return np.asarray(exactly(geometry)(np, m, {}, k))


def draw(shape: tuple[int, ...], seed: int, name: str = "m") -> Numpy:
    return inputs.array("bell", shape, seed, name).astype(np.float64)


def rotation(n: int, seed: int) -> Numpy:
    return np.asarray(np.linalg.qr(draw((n, n), seed, "rotation"))[0])


def turned(m: Numpy) -> Numpy:
    return np.swapaxes(m, -1, -2)


# ---- golden numbers


GOLDEN: dict[str, tuple[dict[str, Any], list[list[float]]]] = {
    "one-sided, α = 0": (
        {"optimizer": "polargrad", "nuclear_power": 0},
        [[-0.6409055276, -0.7484355158], [0.3945326999, -0.1305944075], [-0.6584709922, 0.6502225601]],
    ),
    "row to polar, α = 1": (
        {"optimizer": "hybrid_polargrad"},
        [[-1.269405768, -1.779864906], [1.906356002, -0.5737046916], [-0.7634413606, 1.526882701]],
    ),
    "polar to row": (
        {"optimizer": "hybrid_polargrad", "order": AFTER},
        [[-0.6504340567, -0.7595627246], [0.9493428078, -0.3142422961], [-0.7115493978, 0.7026360714]],
    ),
    "column-aware": (
        {"optimizer": "column_norm"},
        [[-0.7427813472, -0.796029749], [0.3713906736, -0.09950371862], [-0.5570860104, 0.5970223117]],
    ),
    "centred row": (
        {"optimizer": "row_norm", "centred": True},
        [[-0.481781137, -0.9599017156], [0.8344466164, -0.01121842267], [-0.3526654795, 0.9711201382]],
    ),
    "centred left, α = 1": (
        {"optimizer": "polargrad", "centred": True},
        [[-1.593696296, -2.47168783], [2.937392592, -0.1443375661], [-1.343696296, 2.616025397]],
    ),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_one_update_from_zero(case: str) -> None:
    """θ = u after one update of size 1 with a readout of the gradient alone."""
    options, expected = GOLDEN[case]
    group = {**options, "step": 1.0, "readout": 0.0}
    found = replay(group, {"w": np.zeros_like(E3)}, [{"w": E3}], 1, dtype="float64").params[0]["w"]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_memory_step_and_shrink() -> None:
    """Three updates of the centred row norm, written out: m+ = βm + (1 − β)g, θ+ = aθ + ηu."""
    h, ha, dtau = 1024, 2560, 256
    beta, a = 2 ** (-dtau / h), 2 ** (-dtau / ha)
    group = {"optimizer": "row_norm", "centred": True, "step": 0.1, "memory_half_life": h, "shrink_half_life": ha}
    grads = [draw((4, 3), 0, f"g{t}") for t in range(3)]
    theta = w = draw((4, 3), 0, "w")
    found, m = replay(group, {"w": w}, [{"w": g} for g in grads], dtau, dtype="float64"), np.zeros_like(w)
    for t, g in enumerate(grads):
        m = beta * m + (1 - beta) * g
        x = m - m.mean(0)
        r = x / (np.linalg.norm(x, axis=1, keepdims=True) + EPS)
        theta = a * theta - 0.1 * (r - r.mean(0))
        np.testing.assert_allclose(found.params[t]["w"], theta, rtol=1e-12, atol=1e-12)


# ---- what is computed, written out by eigenvalues


def inverse_root(gram: Numpy, eps: float) -> Numpy:
    values, vectors = np.linalg.eigh(gram + eps * np.eye(len(gram)))
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T)


@pytest.mark.parametrize("shape", [s for s in SHAPES if len(s) == 2])
@given(SEED, st.sampled_from([1e-4, 1e-2, 1.0, 1e3]))
def test_right_and_left_spectral_are_one_matrix(shape: tuple[int, int], seed: int, eps: float) -> None:
    """m (mᵀm + εI)^(−1/2) = (mmᵀ + εI)^(−1/2) m = U diag(σ/√(σ² + ε)) Vᵀ, whatever the shape."""
    m = draw(shape, seed)
    right, left = m @ inverse_root(m.T @ m, eps), inverse_root(m @ m.T, eps) @ m
    u, sigma, vh = np.linalg.svd(m, full_matrices=False)
    found = damped_polar(np, m, eps**0.5, EXACT)
    for other in (right, left, (u * (sigma / np.sqrt(sigma**2 + eps))) @ vh):
        np.testing.assert_allclose(found, other, atol=1e-10)
    slope = np.sum(sigma**2 / np.sqrt(sigma**2 + eps))
    scaled = update(Spectral(), m, {"eps": eps, "root_eps": eps**0.5})
    np.testing.assert_allclose(scaled, -max(slope, eps) * found, rtol=1e-9, atol=1e-9)


@given(SEED)
def test_the_nuclear_power(seed: int) -> None:
    m = draw((5, 3), seed)
    none, half, full = (update(Spectral(EXACT, power), m) for power in ("0", "0.5", "1"))
    nu = -np.sum(m * none)
    assert nu == pytest.approx(np.sum(np.linalg.svd(m)[1]), rel=1e-6)  # ε = 1e-8 in a Gram matrix of size 1
    np.testing.assert_allclose(half, nu**0.5 * none, rtol=1e-12)
    np.testing.assert_allclose(full, nu * none, rtol=1e-12)


@given(SEED)
def test_hybrids_as_published(seed: int) -> None:
    """K = C rows(C m) between the steps, and C at the end; ν of the rows, of length 1, when they come first."""
    m = draw((6, 4), seed)

    def centre(x: Numpy) -> Numpy:
        return x - x.mean(0)

    def rows(x: Numpy) -> Numpy:
        return np.asarray(x / (np.linalg.norm(x, axis=1, keepdims=True) + EPS))

    r = centre(rows(centre(m)))
    orth = r @ inverse_root(r.T @ r, EPS)
    np.testing.assert_allclose(update(Spectral("", "1", True, BEFORE), m), -centre(np.sum(r * orth) * orth), atol=1e-8)
    x = centre(m)
    orth = x @ inverse_root(x.T @ x, EPS)
    np.testing.assert_allclose(
        update(Spectral("", "1", True, AFTER), m), -centre(rows(np.sum(x * orth) * orth)), atol=1e-8
    )


# ---- symmetries


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("shape", SHAPES)
@given(SEED)
def test_equivariance(name: str, shape: tuple[int, ...], seed: int) -> None:
    """f(P M Q) = P f(M) Q: P a permutation of rows, Q a rotation of columns; for columns a permutation of them."""
    geometry, m = GEOMETRIES[name], draw(shape, seed)
    order = np.random.default_rng(seed).permutation(shape[-2])
    columns = isinstance(geometry, Lines) and geometry.axis == -2
    q = np.eye(shape[-1])[np.random.default_rng(seed + 1).permutation(shape[-1])] if columns else None
    q = rotation(shape[-1], seed) if q is None else q
    u = update(geometry, m)
    scale = max(1.0, np.abs(u).max())
    conditioned = _least(geometry, m)
    np.testing.assert_allclose(
        update(geometry, m[..., order, :] @ q), u[..., order, :] @ q, atol=1e-9 * scale / conditioned
    )


def _least(geometry: Lines | Spectral, m: Numpy) -> float:
    """The relative distance to the nearest matrix where u turns fast: rounding is magnified by its inverse.

    Rows after a centring may be 0 exactly (one row) or nearly so: the damping ε bounds the derivative by 1/ε.
    """
    x = centred(np, m) if geometry.centred else m
    lengths = np.linalg.norm(x, axis=-1)
    sigma = np.linalg.svd(x)[1]
    return float(min(1.0, lengths.min() + 1e-4, sigma.min() + 1e-4))


@pytest.mark.parametrize("name", CENTRED)
@pytest.mark.parametrize("shape", SHAPES)
@given(SEED)
def test_centring(name: str, shape: tuple[int, ...], seed: int) -> None:
    """1ᵀ u = 0 and f(M + 1 cᵀ) = f(M): a shift of all logits neither moves weights nor matters."""
    geometry, m, shift = GEOMETRIES[name], draw(shape, seed), draw(shape[-1:], seed, "shift")
    u = update(geometry, m)
    scale = max(1.0, np.abs(u).max())
    np.testing.assert_allclose(u.sum(-2), 0, atol=1e-14 * shape[-2] * scale)
    if shape[-2] > 1:  # of one row nothing is left but rounding, which ε alone bounds
        np.testing.assert_allclose(update(geometry, m + shift), u, atol=1e-9 * scale / _least(geometry, m))


def test_of_one_row_nothing_is_left_after_centring() -> None:
    for name in CENTRED:
        assert not update(GEOMETRIES[name], draw((1, 6), 0)).any()


@given(SEED)
def test_columns_are_rows_of_the_transpose(seed: int) -> None:
    m = draw((4, 6), seed)
    np.testing.assert_allclose(update(Lines(axis=-2), m), turned(update(Lines(), turned(m))), rtol=1e-14)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_permutations_of_rows_on_every_backend(backend: Backend, name: str) -> None:
    """float32, by a polynomial: rows meet in sums only, whose order changes by a permutation. Bound: 2^10 roundings."""
    geometry, xp = GEOMETRIES[name], backend.namespace("exact")
    m = inputs.array("bell", (6, 4), 3, "m")
    order = np.array([3, 0, 5, 1, 4, 2])
    u, other = (backend.to_numpy(geometry(xp, backend.from_numpy(x, "float32"), {}, K)) for x in (m, m[order]))
    np.testing.assert_allclose(other, u[order], atol=1024 * U * np.abs(u).max())
    if name in CENTRED:
        np.testing.assert_allclose(u.sum(0), 0, atol=16 * U * np.abs(u).max())


@pytest.mark.parametrize("name", GEOMETRIES)
def test_scalars_are_opaque_and_nothing_is_modified(backend: Backend, name: str) -> None:
    """ε as floats and as 0-d float32 arrays: the same bits. On numpy the input is read-only."""
    geometry, xp = GEOMETRIES[name], backend.namespace("exact")
    m = backend.from_numpy(inputs.array("bell", (2, 3, 4), 0, "m"), "float32")
    if backend.name == "numpy":
        m.setflags(write=False)
    before = backend.to_numpy(m).tobytes()
    zero_d = {key: backend.from_numpy(np.array(x, np.float32), "float32") for key, x in K.items()}
    one, other = (backend.to_numpy(geometry(xp, m, {}, k)) for k in (K, zero_d))
    assert one.tobytes() == other.tobytes()
    assert backend.to_numpy(m).tobytes() == before


# ---- zeros, scales, stacks


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e20])
def test_zeros_and_extremes(backend: Backend, name: str, scale: float) -> None:
    """A zero matrix gives 0, zero rows and columns stay 0 without centring, and 1e20 is no overflow."""
    xp, geometry = backend.namespace("exact"), GEOMETRIES[name]
    m = (scale * draw((5, 4), 1)).astype(np.float32)
    m[2], m[:, 1] = 0, 0
    u = backend.to_numpy(geometry(xp, backend.from_numpy(m, "float32"), {}, K))
    assert np.isfinite(u).all()
    assert u.any() == bool(scale)
    if not geometry.centred:
        assert not u[2].any()
    assert not u[:, 1].any()


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_damping_is_in_the_units_of_the_gradient(name: str) -> None:
    """Without ν^α: far above ε the scale of M does not matter; far below it u is shorter."""
    geometry = GEOMETRIES[name]
    if isinstance(geometry, Spectral) and geometry.power != "0":
        return
    m = draw((5, 3), 2)
    u = update(geometry, m)
    np.testing.assert_allclose(update(geometry, 1e4 * m), u, atol=1e-6)
    assert np.abs(update(geometry, 1e-12 * m)).max() < 1e-2 * np.abs(u).max() or getattr(geometry, "rows", None)


def test_nu_is_one_number_for_all_experts_of_a_parameter() -> None:
    """(experts, m, n): u_e = −(Σ_e ν_e) orth(M_e). As parameters of their own each has its ν_e; so do blocks."""
    m = draw((3, 4, 5), 0)
    group: dict[str, Any] = {"optimizer": "polargrad", "step": 1.0, "readout": 0.0}

    def moved(extra: dict[str, Any], arrays: dict[str, Numpy]) -> dict[str, Numpy]:
        start = {name: np.zeros_like(x) for name, x in arrays.items()}
        return replay({**group, **extra}, start, [arrays], 1, dtype="float64").params[0]

    orth = np.stack([damped_polar(np, x, 1e-4, EXACT) for x in m])
    slopes = np.sum(m * orth, (1, 2))
    np.testing.assert_allclose(moved({}, {"w": m})["w"], -slopes.sum() * orth, rtol=1e-9)
    alone = moved({}, {f"w{i}": x for i, x in enumerate(m)})  # which are stacked when they are updated
    np.testing.assert_allclose(np.stack(list(alone.values())), -slopes[:, None, None] * orth, rtol=1e-9)
    flat = moved({"blocks": {"axis": 0, "parts": 3}}, {"w": m.reshape(12, 5)})["w"]
    np.testing.assert_allclose(flat.reshape(3, 4, 5), np.stack(list(alone.values())), rtol=1e-12)
    deep = moved({"view": "stack"}, {"w": np.stack([m, 2 * m])})["w"]
    np.testing.assert_allclose(deep[0], -3 * slopes.sum() * orth, rtol=1e-6)  # 2m has almost the same orth


@pytest.mark.parametrize("method", SETS)
def test_polynomials_are_near_the_exact_update(method: str) -> None:
    """Off by what the set returns for singular values of [M; √ε I] in its range, at most 0.34 (see the set)."""
    m = draw((8, 5), 0)
    found, exact = (damped_polar(np, m, 1e-4, by) for by in (method, EXACT))
    assert np.linalg.norm(found - exact, 2) < 0.34


# ---- rows


ROWS: dict[str, dict[str, Any]] = {
    "polargrad": {"optimizer": "polargrad"},
    "polargrad centred": {"optimizer": "polargrad", "centred": True, "nuclear_power": 0.5},
    "hybrid centred": {"optimizer": "hybrid_polargrad", "centred": True},
    "hybrid after": {"optimizer": "hybrid_polargrad", "order": AFTER, "centred": True, "shrink": "cautious"},
    "row centred": {"optimizer": "row_norm", "centred": True, "readout": 0.9},
    "column": {"optimizer": "column_norm", "eps": 1e-3, "target_rms": 0.8, "step": 3.0},
    "quintic": {"optimizer": "polargrad", "polar": "quintic", "nuclear_power": "0"},
}
MATRICES = {
    "tall": (7, 3),
    "wide": (3, 7),
    "square": (5, 5),
    "one": (1, 1),
    "row": (1, 6),
    "column": (6, 1),
    "stack": (2, 4, 3),
    "kernel": (4, 2, 3, 3),
    "empty_matrix": (3, 0),
}


@pytest.mark.parametrize("case", ROWS)
def test_the_exact_tier_has_the_bits_of_numpy(backend: Backend, case: str) -> None:
    group = {"step": 0.03, "shrink_half_life": 2e4, **ROWS[case]}
    kinds = ("bell", "zeros", "six_decades", "low_rank", "ties")
    shapes = {n: MATRICES[n] for n in (("tall", "stack") if backend.name == "jax" else MATRICES)}  # jax compiles each
    gradients = list(inputs.gradients(shapes, 5, kinds=kinds))
    del gradients[2]["tall"]
    given_ = (group, inputs.parameters(shapes), gradients, inputs.increments(5))
    report = compare(replay(*given_), replay(*given_, backend=backend.name))
    assert report.differing == 0, str(report)
    assert report.compared > 0


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"optimizer": "row_norm", "polar": "quintic"}, "row_norm does not use 'polar'"),
        ({"optimizer": "column_norm", "centred": True}, "column_norm does not use 'centred'"),
        ({"optimizer": "polargrad", "order": BEFORE}, "polargrad does not use 'order'"),
        ({"optimizer": "polargrad", "nuclear_power": 0.3}, "nuclear_power = 0.3 is not one of 0, 0.5, 1"),
        ({"optimizer": "polargrad", "nuclear_power": True}, "nuclear_power = True is not one of"),
        ({"optimizer": "polargrad", "centred": 1}, "centred is true or false"),
        ({"optimizer": "hybrid_polargrad", "order": AFTER, "nuclear_power": 0}, "ν\\^α cancels; drop 'nuclear_power'"),
        ({"optimizer": "hybrid_polargrad", "order": "polar"}, "order = 'polar' is not one of"),
    ],
)
def test_what_has_no_meaning_is_refused(group: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({"group": [group]})


def test_vectors_are_refused() -> None:
    with pytest.raises(RecipeError, match="row_norm needs a matrix, but got 'b'"):
        Recipe.from_dict({"group": [{"optimizer": "row_norm"}]}).assign({"b": (4,)})
