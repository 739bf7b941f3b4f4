"""Several processes against one, in the exact tier: every bit of every parameter, memory and count."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")


from . import distributed_jobs as jobs  # noqa: E402
from .worlds import World  # noqa: E402


class Worlds:
    """One world of each size, begun when it is needed and again after an error."""

    def __init__(self) -> None:
        self._worlds: dict[int, World] = {}

    def __getitem__(self, size: int) -> World:
        if size not in self._worlds or not self._worlds[size].alive:
            self._worlds[size] = World(size)
        return self._worlds[size]

    def close(self) -> None:
        for world in self._worlds.values():
            world.close()


@pytest.fixture(scope="module")
def worlds() -> Iterator[Worlds]:
    found = Worlds()
    yield found
    found.close()


SIZES = [2, pytest.param(1, marks=pytest.mark.long), pytest.param(4, marks=pytest.mark.long)]
ROWS = {"adamw": {}, "muon": {}, "scionc": {"norm": "spectral"}}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("kind", ["replicated", "sharded"])
def test_any_number_of_processes_has_the_bits_of_one(worlds, kind, row, size):
    for found in worlds[size](jobs.same, kind, row, ROWS[row], "exact", "float32", 4):
        assert found == [[]] * 4


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("kind", "row", "options"),
    [
        ("sharded", "muon", {}),
        ("sharded", "adamw", {}),
        ("replicated", "scionc", {"norm": "spectral"}),
    ],
)
def test_half_precision(worlds, kind, row, options, size):
    for found in worlds[size](jobs.same, kind, row, options, "exact", "bfloat16", 3):
        assert found == [[]] * 3


OTHERS = [
    ("sharded", "scionc", {"norm": "column"}),
    ("sharded", "scionc", {"norm": "sign"}),
    ("sharded", "polargrad", {}),
    ("sharded", "kaon", {}),
    ("sharded", "muon", {"shrink": "cautious", "motion": "averaged"}),
    ("sharded", "sophia", {}),
    ("replicated", "polargrad", {}),
    ("replicated", "muon", {"motion": "averaged"}),
    ("replicated", "shampoo", {}),  # carried out whole, by every process
    ("replicated", "normuon", {}),
    ("replicated", "single_half_life", {}),
]


@pytest.mark.long
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(("kind", "row", "options"), OTHERS)
def test_other_rows(worlds, kind, row, options, size):
    for found in worlds[size](jobs.same, kind, row, options, "exact", "float32", 3):
        assert found == [[]] * 3


@pytest.mark.long
@pytest.mark.parametrize("row", ROWS)
def test_replicas_of_shards(worlds, row):
    for found in worlds[4](jobs.same, "mesh", row, ROWS[row], "exact", "float32", 4):
        assert found == [[]] * 4


@pytest.mark.parametrize("kind", ["replicated", "sharded"])
def test_elementwise_rows_have_the_same_bits_in_the_fast_tier(worlds, kind):
    for found in worlds[2](jobs.same, kind, "lion", {}, "fast", "float32", 3):
        assert found == [[]] * 3


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["replicated", "sharded"])
def test_all_processes_skip_or_refuse_what_one_of_them_finds_bad(worlds, kind, size):
    for found in worlds[size](jobs.skipped, kind, "muon"):
        assert found == [[]] * 4


@pytest.mark.parametrize("kind", ["replicated", "sharded"])
@pytest.mark.parametrize("how", ["count", "lr", "names"])
def test_processes_that_come_apart_say_so(worlds, kind, how):
    for said in worlds[2](jobs.apart, kind, how):
        assert said.startswith("DistributionError: the processes are about to carry out different updates")


def test_an_error_of_one_process_stops_all(worlds):
    first, second = worlds[2](jobs.apart, "sharded", "error")
    assert first.startswith("CountError")
    assert second.startswith("DistributionError: another process has refused this update")


@pytest.mark.parametrize(
    ("row", "options", "why"),
    [
        ("normuon", {}, "its direction reads more than one array"),
        ("shampoo", {}, "its direction reads more than one array"),
        ("hyperball", {"norm": "spectral"}, "its motion needs whole matrices"),
        ("muon", {"motion": "rotational"}, "its motion needs whole matrices"),
        ("adamw", {"target_rms": 0.1}, "sums over all parameters"),
    ],
)
def test_what_cannot_be_sharded_is_refused(worlds, row, options, why):
    for said in worlds[2](jobs.refused, row, options):
        assert said.startswith("DistributionError: group 'hidden'")
        assert why in said
