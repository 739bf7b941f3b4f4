"""Several MLX processes against one: every bit of every parameter, memory and count; what is sent, said and refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from math import prod
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlx.core")

from . import mlx_jobs as jobs

JOBS = str(Path(jobs.__file__))
SIZES = [2, pytest.param(3, marks=pytest.mark.long)]
WORD, DECISION = 4, 3 * 8  # bytes: of a float32, and of one decision


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **more}


def ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module", params=SIZES)
def reports(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of so many processes found."""
    hosts = tmp_path_factory.mktemp("ring") / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in ports(request.param)]))
    running = [
        subprocess.Popen(
            [sys.executable, JOBS],
            env=environment(MLX_RANK=str(rank), MLX_HOSTFILE=str(hosts)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(request.param)
    ]
    try:
        said = [one.communicate(timeout=300) for one in running]
    finally:
        for one in running:
            one.kill()
    assert [one.returncode for one in running] == [0] * request.param, said
    return [json.loads(out) for out, _ in said]


@pytest.mark.parametrize("name", jobs.WHOLE)
def test_any_number_of_processes_has_the_bits_of_one(reports, name):
    for found in reports:
        assert found[name], name
        assert all(off == [] for off in found[name]), found[name]


@pytest.mark.parametrize("how", ["count", "names", "advance"])
def test_processes_that_come_apart_say_so(reports, how):
    for found in reports:
        said, state = found["apart"][how]
        assert said.startswith("DistributionError: the processes are about to carry out different updates")
        assert state == "same"


def test_a_gradient_that_is_not_finite_stops_all(reports):
    first, second = (found["apart"]["nan"] for found in reports[:2])
    assert first == [
        "NonFiniteError: another process has found a gradient that is not finite; nothing was changed",
        "same",
    ]
    assert second[0].startswith("NonFiniteError: the gradient of 'one' holds NaN")
    assert second[1] == "same"


def test_an_error_of_one_process_stops_all(reports):
    first, second = (found["apart"]["error"] for found in reports[:2])
    assert first == [
        "DistributionError: another process has refused this update, and says why; nothing was changed",
        "same",
    ]
    assert second[0].startswith("CountError")


def test_bytes_are_within_a_tenth_of_the_least(reports):
    size = len(reports)
    matrices = sum(prod(shape) for shape in jobs.EVEN.values() if len(shape) == 2)
    least = (size - 1) * WORD * matrices
    sent = [found["traffic"]["muon"][0] / jobs.UPDATES for found in reports]
    assert sum(sent) == sum(found["traffic"]["muon"][1] for found in reports) / jobs.UPDATES
    assert least <= sum(sent) <= (1.1 * least if size == 2 else size * least)  # three have four matrices
    for found in reports:
        assert found["traffic"]["muon"][2:] == [DECISION * jobs.UPDATES, 2 * jobs.UPDATES]
        assert found["traffic"]["adamw"] == [0, 0, DECISION * jobs.UPDATES, jobs.UPDATES]


def test_a_piece_of_a_matrix_is_refused_where_the_whole_is_needed(reports):
    for found in reports:
        assert found["refused"].startswith("DistributionError: 'layers.0.weight' is a piece of a matrix")


@pytest.mark.long
def test_the_launcher_of_mlx():
    launch = Path(sys.executable).with_name("mlx.launch")
    command = [str(launch), "-n", "2", "--backend", "ring", sys.executable, JOBS]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {one["rank"] for one in found} == {0, 1}
    assert all(one[name] == [[]] * len(one[name]) for one in found for name in jobs.WHOLE)
