"""Several processes against one, in the exact tier: every bit of every parameter, memory and count."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from math import prod

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
        ("sharded", "adamw", {"rounding": "stochastic"}),
        ("sharded", "muon", {"rounding": "stochastic"}),
        ("sharded", "muon", {"rounding": "kahan"}),
        ("replicated", "scionc", {"norm": "spectral", "rounding": "master"}),
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
        ("sgdm", {"clip": 1.0}, "clip needs the norm of whole gradients"),
    ],
)
def test_what_cannot_be_sharded_is_refused(worlds, row, options, why):
    for said in worlds[2](jobs.refused, row, options):
        assert said.startswith("DistributionError: group 'hidden'")
        assert why in said


@pytest.mark.parametrize("kind", ["replicated", "sharded"])
def test_gradients_of_the_engines_themselves(worlds, kind):
    for found in worlds[2](jobs.engines, kind, "muon"):
        assert found == [[]] * 3


EVEN = {"a": (32, 48), "b": (64, 16), "c": (16, 16), "bias.a": (16,)}
WORD = 4  # bytes of a float32
DECISION = 3 * 8  # bytes


def least(kind, size, found, shapes):
    """The bytes that each process must send, given who computes what: what its owner lacks, and what others lack."""
    sent = [0] * size
    for name, owner in found[0]["owners"].items():
        whole = prod(shapes[name])
        if kind == "replicated":
            sent[owner] += WORD * whole * (size - 1)
            continue
        for rank in range(size):
            piece = found[rank]["pieces"][name]
            sent[rank] += WORD * (whole - piece if rank == owner else piece)
    return sent


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["replicated", "sharded"])
@pytest.mark.parametrize("shapes", [jobs.SHAPES, EVEN], ids=["odd", "even"])
def test_what_is_sent_is_the_least_that_must_be(worlds, kind, size, shapes):
    found = worlds[size](jobs.traffic, kind, "muon", shapes)
    matrices = {name for name, shape in shapes.items() if not name.startswith("bias") and prod(shape)}
    assert set(found[0]["owners"]) == matrices
    assert [x["sent"] for x in found] == least(kind, size, found, shapes)
    assert sum(x["sent"] for x in found) == sum(x["received"] for x in found)
    assert {x["decided"] for x in found} == {DECISION}
    senders = len(set(found[0]["owners"].values()))
    calls = ["all_reduce", *(["all_to_all"] * 2 if kind == "sharded" else ["broadcast"] * senders)]
    assert all(x["calls"] == calls for x in found)
    if shapes is EVEN:  # nobody who owned other matrices would have to send less
        whole = sum(prod(shapes[name]) for name in matrices) * WORD
        minimum = 2 * whole * (size - 1) / size if kind == "sharded" else whole * (size - 1)
        assert minimum <= sum(x["sent"] + x["decided"] for x in found) <= 1.1 * minimum


def test_elementwise_rows_send_nothing(worlds):
    for found in worlds[2](jobs.traffic, "sharded", "lion", jobs.SHAPES):
        assert (found["sent"], found["received"], found["calls"]) == (0, 0, ["all_reduce"])
    for found in worlds[2](jobs.traffic, "replicated", "lion", jobs.SHAPES):
        assert found["calls"] == []


@pytest.mark.parametrize(
    ("row", "options", "before", "after"),
    [
        ("muon", {}, 2, 2),
        pytest.param("muon", {}, 4, 2, marks=pytest.mark.long),
        pytest.param("muon", {"motion": "averaged"}, 2, 4, marks=pytest.mark.long),
        pytest.param("scionc", {"norm": "spectral"}, 2, 1, marks=pytest.mark.long),
        pytest.param("adamw", {}, 4, 1, marks=pytest.mark.long),
    ],
)
def test_saved_by_some_processes_and_continued_by_others(worlds, tmp_path, row, options, before, after):
    assert worlds[before](jobs.saves, "sharded", row, options, str(tmp_path)) == [True] * before
    for how in ("dcp", "snapshot", "state_dict"):
        for found in worlds[after](jobs.continues, "sharded", row, options, str(tmp_path), how):
            assert found == [[]] * 3, how


@pytest.mark.long
def test_saved_by_replicas_and_continued_by_shards(worlds, tmp_path):
    assert worlds[2](jobs.saves, "replicated", "muon", {}, str(tmp_path)) == [True] * 2
    for how in ("dcp", "snapshot"):
        for found in worlds[2](jobs.continues, "sharded", "muon", {}, str(tmp_path), how):
            assert found == [[]] * 3, how


def test_evaluation_of_sharded_parameters(worlds):
    for found in worlds[2](jobs.evaluates):
        assert found == [[]] * 3


def test_what_is_refused(worlds):
    for said in worlds[2](jobs.misused):
        assert [x.split(":")[0] for x in said] == ["DistributionError"] * len(said), said


@pytest.mark.long
@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
@pytest.mark.parametrize("size", [2])
def test_torchrun(engine, size):
    def said(*command: str) -> str:
        run = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, timeout=300, check=False, env=environment
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    launch = "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"
    assert said(*launch, "-m", "tests.launched", engine) == said("-m", "tests.launched", "alone")
