"""What the tests of harmful files share: values and bytes that nobody expects, and limits of time and memory.

A plain run makes 170 examples a test: 510 recipes, and 510 checkpoints on each framework. With
--hypothesis-profile=thorough it is 1,000 a test, others every time.
"""

from __future__ import annotations

import contextlib
import math
import signal
import tracemalloc
from collections.abc import Iterator
from types import FrameType

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SECONDS, MEMORY = 10, 64 * 2**20

EXAMPLES = max(170, settings().max_examples)
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.nested_given],
)


@contextlib.contextmanager
def cheap() -> Iterator[None]:
    """At most `SECONDS` and `MEMORY`, whatever a file claims."""

    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
        assert peak < MEMORY, f"{peak} bytes"
    finally:
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**400, 0.0, -0.0, 1e-320, 1e308, 0.5]),
    st.sampled_from([math.inf, -math.inf, math.nan]),
    st.integers(-(2**70), 2**70),
    st.floats(),
)
WORDS = st.one_of(
    st.sampled_from(["", "*", "**", "[", "[!", "\0", "../..", "__class__", "w", "é", "a/b", "NaN", "true"]),
    st.text(max_size=20),
)
VALUES = st.recursive(
    st.one_of(NUMBERS, WORDS, st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=8,
)
SPLICES = [
    *b"inf nan -1 1e999 true # 0x_ \"\" ''' 1979-05-27 00:99:00 \\u0000 \n[[group]]\n \n[count]\n".split(b" "),
    *(b"9" * 400, b"9" * 5000, b"0x" + b"f" * 4000),
    *(b"[" * 3000, b"{a=" * 2000, b"a." * 3000),
    *(b"\xff", b"\r"),
]


def mutated(contents: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes with some replaced, cut out, doubled or put in."""

    @st.composite
    def change(draw: st.DrawFn) -> bytes:
        data = draw(contents)
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, max(len(data) - 1, 0)))
            end = draw(st.integers(at, min(at + 40, len(data))))
            over = st.binary(min_size=end - at, max_size=end - at)
            inside = draw(st.one_of(over, st.binary(max_size=6), st.just(data[at:end] * 2), st.sampled_from(SPLICES)))
            data = data[:at] + inside + data[end:]
        return data

    return change()
