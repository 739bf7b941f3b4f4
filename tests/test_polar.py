"""The polar factor family: sets, forms and scalings against the exact factor, and the table in the docs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualopt import catalog, replay
from dualopt.catalog import complete
from dualopt.directions.polar import BOUNDS, FORMS, GRAM, NORMALISES, PRESETS, SETS, Way, express, newton_schulz, polar
from dualopt.directions.polar.iterations import gram_newton_schulz, restarts, scaled
from dualopt.directions.polar.sets import POLISH
from dualopt.directions.polar.table import SPECTRA as MEASURED
from dualopt.directions.polar.table import deviation, presets, spectrum_of, table
from dualopt.errors import RecipeError
from dualopt.exact import Overlay, exact
from dualopt.namespace import Backend
from dualopt.recipe import Group

Array = np.ndarray[Any, Any]
DOCS = Path(__file__).parent.parent / "docs" / "polar.md"
EXACT = exact(np)
SPECTRA = {
    "bell": None,
    "1/i": 1 / np.arange(1, 9),
    "log": np.logspace(0, -3, 8),
    "low rank": np.array([1, 1, 0, 0, 0, 0, 0, 0.0]),
}
SHAPES = {"wide": (8, 20), "tall": (20, 8), "square": (8, 8), "stack": (3, 8, 20)}


def matrix(kind: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    z = np.random.default_rng(seed).standard_normal(shape)
    if SPECTRA[kind] is None:
        return z
    u, _, vh = np.linalg.svd(z, full_matrices=False)
    return (u * SPECTRA[kind]) @ vh


def factor(z: Array) -> Array:
    u, s, vh = np.linalg.svd(z, full_matrices=False)
    return (u * (s > 1e-9 * s.max())[..., None, :]) @ vh


@pytest.mark.long
def test_the_table_in_the_docs_is_of_this_code() -> None:
    text = DOCS.read_text()
    assert table() in text
    assert presets() in text


def test_coefficients_of_polar_express() -> None:
    """The construction gives the published numbers, which were rounded elsewhere, and those of the other two sets."""
    for name, least in (("polar_express", 1e-3), ("express_5", 1e-3), ("express_4", 3.2e-3)):
        found = SETS[name]
        made = express.composed(least, len(found.steps))
        scale = [found.safety ** np.array([1, 3, 5])] * (len(made) - 1) + [np.ones(3)]
        np.testing.assert_allclose(np.array(found.steps) * scale, made, rtol=1e-12)


def test_the_best_quintic() -> None:
    """It meets the edge of its band four times, and stays inside."""
    p = express.best(0.02, 1.0)
    grid = 1 - np.array([express.value(p, x) for x in np.linspace(0.02, 1, 4001)])
    ends = grid[0], -grid[-1]
    np.testing.assert_allclose(ends, np.abs(grid).max(), rtol=1e-9)
    np.testing.assert_allclose([grid.max(), -grid.min()], ends[0], rtol=1e-5)  # q and r lie between points of the grid


@pytest.mark.parametrize("name", SETS)
def test_stated_errors(name: str) -> None:
    """The error is that of matrices: singular values in the stated range come out within it of 1."""
    found = SETS[name]
    sigma = np.logspace(0, np.log10(found.least), 400)
    out = np.linalg.svd(newton_schulz(np, np.diag(sigma / found.safety), found.steps), compute_uv=False)
    worst = float(np.abs(out - 1).max())
    assert 0.9 * found.error <= worst <= found.error + 1e-6
    assert all(found.response(x) > 0 for x in sigma)  # no direction is turned round


@pytest.mark.parametrize("scaling", NORMALISES)
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("shape", SHAPES)
def test_both_forms_are_one_function(name: str, kind: str, shape: str, scaling: str) -> None:
    """In float64 they agree to rounding, amplified by the slopes at 0 (below 1e3) and the squared condition."""
    z = matrix(kind, SHAPES[shape])
    one, other = (polar(np, z, name, Way(form, scaling)) for form in FORMS)
    np.testing.assert_allclose(other, one, atol=1e-9)
    assert np.linalg.svd(one, compute_uv=False).max() < 1.2


@pytest.mark.parametrize("name", [name for name in SETS if name != "aol"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_further_steps_converge(name: str, form: str, shape: str) -> None:
    for kind in SPECTRA:
        z = matrix(kind, SHAPES[shape])
        found = polar(np, z, name, Way(form, "moment", 9))
        np.testing.assert_allclose(found, factor(z), atol=1e-7)


@pytest.mark.parametrize("kind", SPECTRA)
def test_the_gram_form_in_float32(kind: str) -> None:
    """Restarts keep the rounding of ill-conditioned matrices from growing."""
    z = matrix(kind, (8, 20))
    gram = polar(EXACT, z.astype(np.float32), "polar_express", Way(GRAM))
    np.testing.assert_allclose(gram, polar(np, z, "polar_express"), atol=1e-4)
    assert restarts(5) == (2,)
    assert restarts(8) == (2, 4, 6)


@pytest.mark.parametrize("kind", SPECTRA)
def test_the_moment_bound(kind: str) -> None:
    """σ₁ <= (Σσ⁸)^⅛ <= (Σσ⁴)^¼ <= ‖·‖_F: no singular value above 1, and none below what Frobenius scaling gives."""
    z = matrix(kind, (8, 20))
    scales = "frobenius", "moment", "eighth_moment"
    frobenius, moment, eighth = (np.linalg.svd(scaled(np, z, s), compute_uv=False) for s in scales)
    assert frobenius[0] - 1e-12 <= moment[0] <= eighth[0] + 1e-12 <= 1 + 2e-12
    assert moment[0] > 0.5
    assert eighth[0] > 8**-0.125 - 1e-12  # of eight singular values
    for name in (*scales, "aol"):
        assert np.linalg.svd(scaled(np, z, name), compute_uv=False)[0] <= 1 + 1e-12
        assert not scaled(np, np.zeros((2, 3)), name).any()


@pytest.mark.parametrize("scaling", BOUNDS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_bounds_that_are_found_on_the_way(shape: str, form: str, scaling: str) -> None:
    """The first step on any multiple of z is that of z scaled beforehand, and it costs no product."""
    z = matrix("1/i", SHAPES[shape])
    counted: list[int] = []

    def noticed(a: Array, b: Array) -> Array:
        counted.append(1)
        return a @ b

    xp = Overlay(np, "noticing", matmul=noticed)
    found = polar(xp, 1e-30 * z, "express_4", Way(form, scaling))
    products = len(counted)
    steps = SETS["express_4"].steps
    plain = (gram_newton_schulz if form == GRAM and shape != "square" else newton_schulz)(
        xp, scaled(np, z, scaling) / SETS["express_4"].safety, steps
    )
    np.testing.assert_allclose(found, plain, atol=1e-9)
    assert products <= len(counted) - products


def test_presets_beside_the_iteration_of_muon() -> None:
    """`accurate` is nearer to the polar factor on every spectrum, `fast` in their geometric mean."""
    ways = {name: (p["polar"], Way.of(p)) for name, p in PRESETS.items()}
    plain = {s: deviation(s, Way(work="bfloat16"), "quintic") for s in MEASURED}
    shares = {n: [deviation(s, way, method) / plain[s] for s in MEASURED] for n, (method, way) in ways.items()}
    assert max(shares["accurate"]) <= 1
    assert np.prod(shares["fast"]) <= 1


def test_the_iteration_of_muon_is_that_of_torch() -> None:
    """The first line of the table is what torch.optim.Muon does, but for the order in which products are added up."""
    muon = pytest.importorskip("torch.optim._muon")
    for spectrum in MEASURED:
        z, true = spectrum_of(spectrum)
        given, step = map(muon.torch.from_numpy, z), SETS["quintic"].steps[0]
        found = np.stack([muon._zeropower_via_newtonschulz(x, step, 5, 1e-7).double().numpy() for x in given])
        theirs = np.linalg.norm(found - true) / np.linalg.norm(true)
        assert abs(theirs - deviation(spectrum, Way(work="bfloat16"), "quintic")) < 0.005  # half of the last digit


def test_presets_are_written_out() -> None:
    found = complete("muon", {"polar": "fast"})
    assert {key: found[key] for key in PRESETS["fast"]} == PRESETS["fast"]
    assert complete("scionc", {"polar": "fast", "norm": "column"})["polar"] == "fast"  # which no column has
    assert "polar" not in catalog.row("scionc", complete("scionc", {"norm": "column"})).resolved


def test_steps_of_a_set() -> None:
    found = SETS["five"]
    assert found.taking(3).steps == found.steps[:3]
    assert found.taking(7).steps == (*found.steps, POLISH, POLISH)


CASES: dict[str, tuple[str, Way]] = {name: (name, Way()) for name in SETS}
CASES |= {
    "gram": ("cans", Way("gram", None, 6)),
    "moment": ("five", Way("standard", "moment")),
    "eighth moment": ("five", Way("gram", "eighth_moment")),
    **{name: (p["polar"], Way.of(p)) for name, p in PRESETS.items()},
    "bfloat16": ("quintic", Way(work="bfloat16")),
    "bfloat16 gram": ("polar_express", Way("gram", None, 6, "bfloat16")),
    "exact": ("exact", Way()),
}


@pytest.mark.parametrize("case", CASES)
def test_all_backends_give_the_bits_of_numpy(backend: Backend, case: str) -> None:
    method, way = CASES[case]
    z = np.stack([matrix("bell", (3, 5), i) for i in range(3)]).astype(np.float32)
    z[1, 2] = z[1, 1]  # rank 2
    z[2] = 0
    found = backend.to_numpy(polar(backend.namespace("exact"), backend.from_numpy(z, "float32"), method, way))
    assert found.tobytes() == polar(EXACT, z, method, way).tobytes()
    assert not found[2].any()


@pytest.mark.parametrize("row", ["muon", "regularized_muon", "freon", "mimuon", "kaon"])
def test_kernels_of_both_layouts_move_alike(row: str) -> None:
    """(out, in, h, w) and its matrix; the other layout is the same matrix, see `test_views`."""
    rng = np.random.default_rng(0)
    w, g = (rng.standard_normal((4, 2, 2, 3)).astype(np.float32) for _ in range(2))
    group = {"optimizer": row, "memory_half_life": 900}
    flat = replay(group, {"w": w.reshape(4, 12)}, [{"w": g.reshape(4, 12)}], 64).params[0]["w"]
    assert replay(group, {"w": w}, [{"w": g}], 64).params[0]["w"].tobytes() == flat.tobytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"polar": "exact", "polar_form": "gram"}, "not iterated"),
        ({"polar": "fast", "polar_form": "gram"}, "'fast' states 'polar_form', too"),
        ({"polar": "accurate", "polar_work": "float32"}, "'accurate' states 'polar_work', too"),
        ({"polar": "accurate", "iterations": 3}, "'accurate' states 'iterations', too"),
        ({"polar": "exact", "polar_work": "bfloat16"}, "not iterated"),
        ({"norm": "row", "polar_work": "bfloat16"}, "no polar factor"),
        ({"polar_work": "float16"}, "not one of float32, bfloat16"),
        ({"iterations": 2.5}, "whole number"),
        ({"iterations": 0}, "iterations must be"),
        ({"norm": "row", "polar_scaling": "moment"}, "no polar factor"),
        ({"polar_scaling": "spectral"}, "not one of"),
    ],
)
def test_what_a_recipe_cannot_ask_for(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Group.from_dict({"optimizer": "scionc", **options})


def test_a_recipe_reaches_the_iteration() -> None:
    rng = np.random.default_rng(0)
    w, g = (rng.standard_normal((3, 7)) for _ in range(2))
    group = {"optimizer": "scionc", "polar": "five", "memory_half_life": 1e-6, "step": 1.0}
    options = {"polar_form": "gram", "polar_scaling": "moment", "iterations": 7}
    moved = replay({**group, **options}, {"w": w}, [{"w": g}], 1, dtype="float64").params[0]["w"]
    expected = (3 / 7) ** 0.5 * polar(EXACT, g, "five", Way("gram", "moment", 7))
    np.testing.assert_allclose(w - moved, expected, atol=1e-12)
    assert np.abs(expected - (3 / 7) ** 0.5 * polar(EXACT, g, "five")).max() > 1e-3
