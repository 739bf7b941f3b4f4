"""The integer generator against the known answers of Random123, its own past, and its moments."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt.generator import Stream, philox

# counter, key, answer: Random123, kat_vectors, philox4x32 with 10 rounds
KNOWN = (
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
)
# SHA-256 of 1000 values from place 5 of Stream(1, "pinned"), little-endian
PINNED = {
    "words": "e96a3e53a3c50eec8084cbeba3b517d4f415e27609a816d135d4d1c03420236b",
    "below": "ff6b215190f3bbb21b827603dfa76d381874dd80ceeca8940c5a8cf61d1f4095",
    "uniform": "4ee994706310f33f35465f2a037aeeba46c0d5f7fab33b66d8c05e8cf19d0ab2",
    "bell": "f45da9a82b57d9c722f814492290f0dfc2a73fe1b5dd7bd300599845477661e8",
}


def numbers(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter: str, key: str, answer: str) -> None:
    k0, k1 = numbers(key)
    found = philox(np.array([numbers(counter)] * 3, np.uint32), (k0, k1))
    assert found.dtype == np.uint32
    assert found.tolist() == [numbers(answer)] * 3


def draw(method: str, n: int, start: int) -> np.ndarray[Any, Any]:
    stream = Stream(1, "pinned")
    if method == "below":
        return stream.below(1000, n, start)
    return getattr(stream, method)(n if method == "words" else (n,), start)  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", PINNED)
def test_pinned(method: str) -> None:
    """The values are part of the interface: recorded inputs and tests depend on them."""
    drawn = draw(method, 1000, 5)
    little = drawn.astype(drawn.dtype.newbyteorder("<"))
    assert hashlib.sha256(little.tobytes()).hexdigest() == PINNED[method]


@pytest.mark.parametrize("method", PINNED)
@given(start=st.integers(0, 40), n=st.integers(0, 40))
def test_a_stream_can_be_entered_anywhere(method: str, start: int, n: int) -> None:
    np.testing.assert_array_equal(draw(method, n, start), draw(method, 80, 0)[start : start + n])


def test_words_far_out_do_not_repeat() -> None:
    """The counter carries into its second word: 2^34 words on, not back to the beginning."""
    near, far = Stream(0, "").words(8), Stream(0, "").words(8, 1 << 34)
    assert not np.any(near == far)
    np.testing.assert_array_equal(
        Stream(0, "").words(8, (1 << 34) - 4), np.concatenate([Stream(0, "").words(4, (1 << 34) - 4), far[:4]])
    )


def test_seeds_and_names_are_independent() -> None:
    streams = [Stream(seed, name).words(1000) for seed in (0, 1) for name in ("", "a", "b")]
    for i, one in enumerate(streams):
        for other in streams[:i]:
            assert np.sum(one == other) <= 1  # expected: 1000 / 2^32


def within(mean: float, expected: float, deviation: float, n: int) -> bool:
    """Five standard errors: a fixed draw, so this either always holds or shows a defect."""
    return abs(mean - expected) < 5 * deviation / math.sqrt(n)


def test_words_have_fair_bits() -> None:
    n = 100_000
    words = Stream(0, "moments").words(n)
    for bit in range(32):
        assert within(float(np.mean((words >> np.uint32(bit)) & np.uint32(1))), 0.5, 0.5, n), bit


@pytest.mark.parametrize("bound", [1, 2, 3, 7, 1000, 2**32])
def test_below_is_uniform(bound: int) -> None:
    n = 100_000
    x = Stream(0, "moments").below(bound, n)
    assert x.min() >= 0
    assert x.max() < bound
    assert bound == 1 or within(float(x.mean()), (bound - 1) / 2, math.sqrt((bound**2 - 1) / 12), n)
    assert bound > 10 or set(x.tolist()) == set(range(bound))


@pytest.mark.parametrize(
    ("method", "largest", "moments"),
    # E x², E x⁴, E x⁸: of a sum of 8 uniforms the excess kurtosis is −1.2/8, E x⁸ below the normal's 105
    [("uniform", 1.0, (1 / 3, 1 / 5, 1 / 9)), ("bell", 4.9, (1.0, 2.85, 105.0))],
)
def test_moments(method: str, largest: float, moments: tuple[float, float, float]) -> None:
    n = 200_000
    x = getattr(Stream(0, "moments"), method)((n // 2, 2))
    assert x.dtype == np.float32
    assert x.shape == (n // 2, 2)
    assert np.abs(x).max() < largest
    assert np.all(x != 0) or method == "bell"
    x = x.astype(np.float64)
    second, fourth, eighth = moments
    assert within(float(x.mean()), 0, math.sqrt(second), n)
    assert within(float((x**2).mean()), second, math.sqrt(fourth - second**2), n)
    assert within(float((x**4).mean()), fourth, math.sqrt(eighth - fourth**2), n)
    assert within(float((x[:, 0] * x[:, 1]).mean()), 0, second, n // 2)


def test_the_empty_and_the_scalar_shape() -> None:
    stream = Stream(3, "shapes")
    for method in (stream.uniform, stream.bell):
        assert method(()).shape == ()
        assert method((0, 4)).shape == (0, 4)
        np.testing.assert_array_equal(method((2, 3)).reshape(-1), method((6,)))
