"""The flight recorder: any bit changes it, order and sharding do not, and it is pinned."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dualopt.digest import BLOCK, digest, digest_array
from dualopt.generator import Stream
from dualopt_conformance.digests import digest_of_all

A, B = Stream(0, "a").bell((5, 7)), Stream(0, "b").bell((3,))


def test_order_and_sharding_do_not_matter():
    whole = digest([("a", A), ("b", B)])
    assert whole == digest([("b", B), ("a", A)])
    parts = [digest_array("a", A[:2]), digest_array("a", A[2:], start=14), digest_array("b", B)]
    assert whole == f"{sum(parts) % 2**64:016x}"


@given(st.integers(0, A.size - 1), st.integers(0, 31))
def test_every_bit_matters(index, bit):
    other = A.copy()
    other.view(np.uint32).reshape(-1)[index] ^= np.uint32(1) << np.uint32(bit)
    assert digest([("a", other)]) != digest([("a", A)])


def test_blocks_do_not_matter():
    """An array longer than a block, whole, in parts that end within blocks, and mixed with others at once."""
    long = Stream(0, "long").bell((2 * BLOCK + 7,))
    whole = digest_array("long", long)
    assert whole == (digest_array("long", long[:999]) + digest_array("long", long[999:], start=999)) % 2**64
    assert digest_of_all([("a", A), ("long", long)]) == (whole + digest_array("a", A)) % 2**64


def test_places_and_names_matter():
    assert digest([("a", A)]) != digest([("b", A)])
    assert digest([("a", A)]) != digest([("a", A[::-1])])
    assert digest([("z", np.zeros(2, np.float32))]) != digest([("z", np.zeros(3, np.float32))])


def test_pinned():
    assert digest([("a", A), ("b", B)]) == "21ca3aa823999ad1"
