"""Half-lives, retentions and complements against decimal arithmetic of 60 digits; units; bad input."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt import Count, complement, half_life, halving_exponent, rescale, retention
from dualopt.counts import increment, life_of_loss
from dualopt.errors import CountError

DTAU = st.integers(1, 10**7)
HALF_LIFE = st.floats(1e-3, 1e15)
EPS = 2.0**-53  # half an ulp of 1: the relative error of one correctly rounded operation
GOLDEN = (256, 1024, 0.8408964153), (256, 2560, 0.9330329915)  # Δτ, h, 2^(−Δτ/h)


def exact_retention(dtau: float, h: float) -> Decimal:
    with localcontext() as context:
        context.prec = 60
        return Decimal(2) ** (-Decimal(dtau) / Decimal(h))


@pytest.mark.parametrize(("dtau", "h", "beta"), GOLDEN)
def test_golden(dtau: int, h: float, beta: float) -> None:
    assert retention(dtau, h) == pytest.approx(beta, abs=5e-11)  # printed to 10 digits
    assert half_life(beta, dtau) == pytest.approx(h, rel=1e-9)


def test_zero_and_infinity_are_exact() -> None:
    for dtau in (0, 1, 10**15):
        assert retention(dtau, math.inf) == 1
        assert complement(dtau, math.inf) == 0
    for h in (0.0, 1e-300, 1.0, math.inf):
        assert retention(0, h) == 1
        assert complement(0, h) == 0
    assert (retention(1, 0), complement(1, 0)) == (0, 1)
    assert (halving_exponent(1), halving_exponent(0.5), halving_exponent(0)) == (0, 1, math.inf)
    assert math.copysign(1, halving_exponent(1)) == 1  # not −0
    assert (half_life(1, 7), half_life(0.5, 7), half_life(0, 7)) == (math.inf, 7, 0)
    assert (rescale(0.9, 0), rescale(0, 0), rescale(0, 2), rescale(1, 5)) == (1, 1, 0, 1)
    assert rescale(0.25, 0.5) == 0.5


@given(DTAU, st.floats(1e-300, 1 - 2**-53))
def test_the_life_of_a_loss(dtau: int, lost: float) -> None:
    """Its complement is the loss: h rounds four times, which 1 − 2^(−Δτ/h) magnifies by at most 1, and rounds five."""
    found = life_of_loss(lost, dtau)
    assert complement(dtau, found) == pytest.approx(lost, rel=9 * EPS, abs=0)
    assert (life_of_loss(0, dtau), life_of_loss(1, dtau)) == (math.inf, 0)


@pytest.mark.parametrize(("lost", "dtau"), [(-0.1, 1), (1.1, 1), (math.nan, 1), (0.5, 0), (0.5, math.inf)])
def test_losses_that_no_life_has(lost: float, dtau: float) -> None:
    with pytest.raises(CountError):
        life_of_loss(lost, dtau)


@given(DTAU, HALF_LIFE)
def test_retention_and_complement_are_accurate(dtau: int, h: float) -> None:
    """Relative errors: Δτ/h rounds once, which 2^(−x) magnifies by x ln2; functions err by an ulp."""
    x, exact = dtau / h, exact_retention(dtau, h)
    if x < 1000:  # above, the retention is subnormal
        assert abs(Decimal(retention(dtau, h)) / exact - 1) <= Decimal((x * math.log(2) + 2) * EPS)
    # ln2, its product with the quotient, the quotient: 3 roundings, magnified by at most 1 here; expm1: 1 ulp
    assert abs(Decimal(complement(dtau, h)) / (1 - exact) - 1) <= Decimal(5 * EPS)


def test_one_minus_the_retention_is_not_accurate() -> None:
    """What the complement is for: at Δτ/h = 1e-9 the difference has lost 9 of 16 digits."""
    exact = 1 - exact_retention(1, 10**9)
    assert abs(Decimal(complement(1, 1e9)) / exact - 1) < Decimal(5 * EPS)
    assert abs(Decimal(1 - retention(1, 1e9)) / exact - 1) > Decimal("1e-9")


@given(DTAU, HALF_LIFE)
def test_half_life_inverts_retention(dtau: int, h: float) -> None:
    """The retention's rounding EPS shifts log2 by EPS/ln2 absolutely: relatively EPS/(ln2 · Δτ/h)."""
    x = dtau / h
    if 1e-8 < x < 1000:
        assert half_life(retention(dtau, h), dtau) == pytest.approx(h, rel=4 * EPS * (1 + 1 / x), abs=0)


@given(DTAU, HALF_LIFE, st.integers(1, 64))
def test_a_product_of_retentions_is_the_retention_of_the_sum(dtau: int, h: float, r: int) -> None:
    """A1 (i) β^r = 2^(−rΔτ/h), (v) any splitting of Δτ has the same product. Errors as above, r times."""
    x = r * dtau / h
    if x < 1000:
        tolerance = (3 * x + 3 * r) * EPS
        assert rescale(retention(dtau, h), r) == pytest.approx(retention(r * dtau, h), rel=tolerance, abs=0)
        assert math.prod([retention(dtau, h)] * r) == pytest.approx(retention(r * dtau, h), rel=tolerance, abs=0)
        split = dtau // 3
        halves = halving_exponent(retention(split, h)) + halving_exponent(retention(dtau - split, h))
        assert halves == pytest.approx(dtau / h, rel=4 * EPS, abs=8 * EPS)


@given(st.floats(0.01, 0.999), st.integers(1, 64))
def test_the_updates_per_half_life_shrink_by_the_ratio(beta: float, r: int) -> None:
    """A1 (ii) n_β* = n_β / r: a half-life in updates, after the increment grew r times."""
    n = half_life(beta, 1)
    assert half_life(rescale(beta, r), 1) == pytest.approx(n / r, rel=8 * EPS * (1 + n), abs=0)


# ---- units


def test_golden_beta_star() -> None:
    assert rescale(2 ** (-1 / 4), 3) == pytest.approx(0.5946035575, abs=5e-11)  # A.beta_star(r=3)


EPOCHS = {"unit": "epochs", "per_update": 64, "samples_per_epoch": 50_000}
TOKENS = {"unit": "tokens", "per_update": 16_384, "tokens_per_sample": 256, "samples_per_epoch": 1000}
CONVERSIONS: tuple[tuple[dict[str, Any], float, str, str, float], ...] = (
    ({}, 3.0, "updates", "updates", 3.0),
    (EPOCHS, 2.5, "epochs", "samples", 125_000.0),
    (EPOCHS, 128.0, "samples", "updates", 2.0),
    (EPOCHS, 1.0, "epochs", "updates", 781.25),
    (TOKENS, 1.0, "updates", "samples", 64.0),
    (TOKENS, 1.0, "epochs", "tokens", 256_000.0),
    (TOKENS, 0.1, "samples", "tokens", 25.6),
    (TOKENS, math.inf, "epochs", "tokens", math.inf),
)


@pytest.mark.parametrize(("table", "value", "source", "target", "expected"), CONVERSIONS)
def test_conversions(table: dict[str, Any], value: float, source: str, target: str, expected: float) -> None:
    count = Count(**table)
    assert count.convert(value, source, target) == expected
    assert count.convert(expected, target, source) == value


def test_the_base_unit_of_epochs_is_samples() -> None:
    count = Count(**EPOCHS)
    assert (count.base, count.to_base(2), count.to_base(7, "samples")) == ("samples", 100_000, 7)
    assert [Count(unit=u).base for u in ("updates", "samples", "tokens")] == ["updates", "samples", "tokens"]


# ---- bad input


@pytest.mark.parametrize("value", [1, np.int64(3), np.uint8(7), 2.0, np.float32(16), 2**62])
def test_whole_numbers_are_increments(value: Any) -> None:
    found = increment(value)
    assert type(found) is int
    assert found == value


@pytest.mark.parametrize("value", [0, -1, 0.5, True, None, "3", math.nan, math.inf, -math.inf, [1], np.bool_(True)])
def test_other_things_are_not(value: Any) -> None:
    with pytest.raises(CountError, match="updates_file: an update counts a positive whole number"):
        increment(value, "updates_file")


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (retention, (-1, 5), "increment must be finite and >= 0"),
        (retention, (math.inf, 5), "increment must be finite and >= 0"),
        (complement, (math.nan, 5), "increment must be finite and >= 0"),
        (complement, (1, -5), "half-life must be >= 0"),
        (retention, (1, math.nan), "half-life must be >= 0"),
        (halving_exponent, (1.5,), "in \\[0, 1\\]"),
        (halving_exponent, (-0.1,), "in \\[0, 1\\]"),
        (halving_exponent, (math.nan,), "in \\[0, 1\\]"),
        (half_life, (0.5, 0), "increment must be finite and > 0"),
        (rescale, (0.5, -1), "ratio of increments"),
        (rescale, (0.5, math.inf), "ratio of increments"),
    ],
)
def test_numbers_without_meaning(function: Any, arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(CountError, match=message):
        function(*arguments)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"unit": "token"}, "did you mean 'tokens'"),
        ({"unit": "epochs"}, "needs samples_per_epoch"),
        ({"unit": "updates", "per_update": 2}, "counts as 1 update"),
        ({"unit": "tokens", "per_update": 0}, r"\[count\] per_update"),
        ({"unit": "tokens", "tokens_per_sample": 1.5}, r"\[count\] tokens_per_sample"),
        ({"unit": "samples", "samples_per_epoch": True}, r"\[count\] samples_per_epoch"),
    ],
)
def test_counts_without_meaning(table: dict[str, Any], message: str) -> None:
    with pytest.raises(CountError, match=message):
        Count(**table)


def test_conversions_without_a_link() -> None:
    with pytest.raises(CountError, match="nothing links updates to samples: state tokens_per_sample"):
        Count("tokens", 1024).convert(1, "updates", "samples")
    with pytest.raises(CountError, match=r"'token' is not a unit.*did you mean 'tokens'"):
        Count().convert(1, "token", "updates")
