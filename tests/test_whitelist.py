"""Every row keeps to the operations whose bits IEEE-754 fixes, and the namespace that says so refuses the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dualopt.exact import Overlay, exact, fixed_sum
from dualopt.executor import executor
from dualopt.namespace import CONTRACT, missing
from dualopt_conformance.cases import CASES
from dualopt_conformance.walk import walk
from dualopt_conformance.whitelist import RefusedError, Watched, Whitelist, exact_in_any_order

Array = np.ndarray[Any, Any]

ELEMENTWISE = {"add", "subtract", "multiply", "divide", "negative", "abs", "sign", "sqrt", "where"}
COMPARING = {"less", "less_equal", "greater", "greater_equal", "equal", "logical_and", "logical_or"}
SHAPING = {"reshape", "permute_dims", "matrix_transpose", "concat", "index", "ones_like", "zeros_like", "finfo"}
REDUCING = {"max", "matmul"}
USED = ELEMENTWISE | COMPARING | SHAPING | REDUCING


def carried_out(case: str, updates: int) -> set[str]:
    """The operations of a case; its bits are the reference's."""
    watched = Whitelist(np)
    run = executor(exact(watched))
    for m in walk(CASES[case], updates):
        with np.errstate(under="ignore"):
            moved = run(
                m.planned,
                {n: watched.array(x) for n, x in m.theta.items()},
                {n: {key: watched.array(x) for key, x in s.items()} for n, s in m.state.items()},
                {n: {"gradient": watched.array(x)} for n, x in m.gradient.items()},
                m.proposal.scalars,
            )
        for name, (theta, state) in moved.items():
            assert {key: x.array.tobytes() for key, x in state.items()} == {
                key: x.tobytes() for key, x in m.state_after[name].items()
            }
            if CASES[case].dtype == "float32":
                assert theta.array.tobytes() == m.theta_after[name].tobytes()
    return set(watched.used)


@pytest.fixture(scope="module")
def used() -> dict[str, set[str]]:
    """By case: what every variant needs in two updates, and every situation in one."""
    return {case: carried_out(case, 2 if case.endswith("/usual") else 1) for case in CASES}


def test_all_rows_keep_to_the_whitelist(used: dict[str, set[str]]) -> None:
    assert set().union(*used.values()) == USED


def test_what_each_kind_of_row_uses(used: dict[str, set[str]]) -> None:
    blending = {"add", "subtract", "multiply"}
    assert used["sgdm/usual"] == blending | {"negative"}
    assert used["lion/usual"] == blending | {"negative", "sign"}
    assert used["adamw/usual"] == blending | {"negative", "sqrt", "divide"}
    assert used["adamw.cautious/usual"] >= used["adamw/usual"] | {"where", "less_equal", "logical_or"}
    assert "matmul" in used["scionc/usual"]
    assert not any("matmul" in names for case, names in used.items() if not CASES[case].spectral)


def float32(*values: float) -> Array:
    return np.array(values, np.float32)


X = Whitelist(np).array(float32(1, 2, 4))
XP = X.xp
WHOLE, HALF, DOUBLE, TRUE = (XP.array(np.ones(3, kind)) for kind in (np.int32, np.float16, np.float64, bool))
MATRIX = XP.array(np.full((2, 2), 0.1, np.float32))
EXACT = exact(XP)


def _inplace(statement: str) -> Callable[[], Any]:
    def run() -> None:
        exec(statement, {"x": XP.array(float32(1, 2, 4)), "y": X})

    return run


REFUSED: dict[str, Callable[[], Any]] = {
    "x ** 2": lambda: X**2,
    "2.0 ** x": lambda: 2.0**X,
    "x // x": lambda: X // X,
    "x % x": lambda: X % X,
    "divmod": lambda: divmod(X, X),
    "x @ x": lambda: MATRIX @ MATRIX,
    "abs(x)": lambda: abs(X),
    "+x": lambda: +X,
    "~x": lambda: ~TRUE,
    "x ^ x": lambda: TRUE ^ TRUE,
    "x != 0": lambda: X != 0,
    "1.0 / x": lambda: 1.0 / X,
    "x / 2.0": lambda: X / 2.0,
    "broadcast division": lambda: MATRIX / XP.array(float32(1, 2)),
    "1.0 - x": lambda: 1.0 - X,
    "2 * x": lambda: 2 * X,
    "numpy scalar": lambda: np.float64(2) * X,
    "numpy array": lambda: np.ones(3, np.float32) * X,
    "number of whole numbers": lambda: 2.0 * WHOLE,
    "sum of whole numbers": lambda: WHOLE + WHOLE,
    "negative booleans": lambda: -TRUE,
    "half precision": lambda: 2.0 * HALF,
    "half precision added": lambda: HALF + HALF,
    "two types added": lambda: X + DOUBLE,
    "two types compared": lambda: X < DOUBLE,
    "compared with an array of numpy": lambda: np.ones(3, np.float32) > X,
    "& of numbers": lambda: X & X,
    "| of a number": lambda: TRUE | True,
    "where of numbers": lambda: XP.where(X, X, X),
    "where with a number": lambda: XP.where(TRUE, X, 0.0),
    "where of two types": lambda: XP.where(TRUE, X, DOUBLE),
    "concat of two types": lambda: XP.concat([X, DOUBLE]),
    "x += x": _inplace("x += y"),
    "x *= 2.0": _inplace("x *= 2.0"),
    "x[0] = 1": _inplace("x[0] = 1.0"),
    "x[mask]": lambda: X[TRUE],
    "x[[0, 1]]": lambda: X[[0, 1]],
    "bool(x)": lambda: bool(X > 0),
    "float(x)": lambda: float(X[0]),
    "int(x)": lambda: int(X[0]),
    "len(x)": lambda: len(X),
    "for in x": lambda: max(X),
    "x.T": lambda: MATRIX.T,
    "x.sum()": lambda: X.sum(axis=0),
    "x.astype": lambda: X.astype(np.float64),
    "xp.sum": lambda: XP.sum(X),
    "xp.rsqrt": lambda: XP.rsqrt(X),
    "xp.pow": lambda: XP.pow(X, X),
    "xp.linalg": lambda: XP.linalg,
    "xp.abs of a number": lambda: XP.abs(1.0),
    "xp.max with where": lambda: XP.max(X, where=TRUE),
    "xp.matmul": lambda: XP.matmul(MATRIX, MATRIX),
    "numpy function": lambda: np.sqrt(X),
}


@pytest.mark.parametrize("construct", REFUSED)
def test_refused(construct: str) -> None:
    with pytest.raises((RefusedError, TypeError)) as caught:
        REFUSED[construct]()
    foreign = ("numpy", "with where", "of numpy")  # numpy and Python themselves refuse these
    assert isinstance(caught.value, RefusedError) or any(word in construct for word in foreign)


def test_a_row_that_sums_natively_is_refused() -> None:
    m = next(walk(CASES["scionc.frobenius/usual"], 1))
    native = Overlay(exact(XP), "native", sum=XP.sum)
    name = "tall"
    arrays = {name: XP.array(m.theta[name])}, {name: {"m": XP.array(m.state[name]["m"])}}
    with pytest.raises(RefusedError, match=r"xp\.sum"):
        executor(native)(m.planned, *arrays, {name: {"gradient": XP.array(m.gradient[name])}}, m.proposal.scalars)


def test_what_is_allowed() -> None:
    tier, watched = EXACT, XP
    for found, expected in (
        (X * 2.0 + X - 1.0, (2, 5, 11)),
        (2.0 * X, (2, 4, 8)),
        (1.0 + X, (2, 3, 5)),
        (X / X, (1, 1, 1)),
        (-X, (-1, -2, -4)),
        (tier.where((X > 1) & (X <= 2.0), X, watched.zeros_like(X)), (0, 2, 0)),
        (X[..., None][1:, 0], (2, 4)),
        (fixed_sum(XP, X), 7),
    ):
        assert isinstance(found, Watched)
        np.testing.assert_array_equal(found.array, expected)
        assert found.dtype == np.float32
    assert missing(tier) == missing(watched) == []
    assert set(CONTRACT) <= set(dir(Whitelist))
    assert watched.zeros((0, 2), dtype=np.float32).shape == (0, 2)


def test_products_that_are_exact_in_any_order() -> None:
    grid = np.array([[1, 2, -3]], np.float32) * 2.0**-40
    assert exact_in_any_order(grid, grid.T, 24)
    assert not exact_in_any_order(grid, grid.T * np.float32(1 / 3), 24)
    large = np.full((1, 4), 2.0**11, np.float32)
    assert exact_in_any_order(large, np.full((4, 1), 2.0**11, np.float32), 24)
    assert not exact_in_any_order(large, np.array([[2.0**11], [1], [1], [2.0**-14]], np.float32) * 1.5, 24)
    assert exact_in_any_order(np.zeros((2, 3), np.float32), np.full((3, 2), 0.1, np.float32), 24)
    assert exact_in_any_order(np.zeros((2, 0), np.float32), np.zeros((0, 2), np.float32), 24)
    assert exact_in_any_order(grid * np.nan, grid.T, 24)
    product = XP.matmul(XP.array(grid), XP.array(grid.T.copy()))
    assert product.array.item() == 14 * 2.0**-80
