"""A run that changes hands between torch and MLX, through a file each time, against one that never moved.

The cases are those of the conformance suite, on the optimizers that users have: numpy's exact tier, which moved
nowhere, has the same bits after every update; in the fast tier nothing changes in a hand-over, and the run stays
within the bounds that are derived for one on a single backend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualopt import checkpoint, optimizer
from dualopt.checkpoint import Snapshot
from dualopt.digest import snapshot_digest
from dualopt.views import is_kernel
from dualopt_conformance import drift, experiments
from dualopt_conformance.bench import Bench
from dualopt_conformance.cases import CASES, Case
from dualopt_conformance.digests import digest_of, tensors_of
from dualopt_conformance.manifest import Record
from dualopt_conformance.verdict import PASS
from dualopt_conformance.walk import checkpoints, start, walk

torch = pytest.importorskip("torch")
mx = pytest.importorskip("mlx.core")

LONG = pytest.mark.long
ROWS = ("adamw", "lion", "muon", "scionc", "sf_normuon", "rotational_adamw")
CHANGES = 10


@cache
def case_of(name: str, updates: int) -> Case:
    """A case of exactly this length: some run a part of what their situation says."""
    case = CASES[name]
    for part in (1, 5, 10, 50):
        longer = replace(case.situation, updates=part * updates, spectral=part * updates)
        if (found := replace(case, situation=longer)).updates == updates:
            return found
    raise AssertionError(f"{name} has no length of {updates}")


class Torch:
    """A model of torch parameters, all ones, and the optimizer of a case."""

    def __init__(self, case: Case, tier: str) -> None:
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[case.dtype]
        self.model = {n: torch.nn.Parameter(torch.ones(s, dtype=self.dtype)) for n, s in case.shapes.items()}
        self.opt: Any = optimizer(self.model, case.recipe, tier=tier)

    def update(self, gradient: Mapping[str, Any], count: int) -> None:
        for name, p in self.model.items():
            p.grad = torch.from_numpy(np.array(gradient[name])).to(self.dtype) if name in gradient else None
        self.opt.step(count=count)


class MLX:
    """The same of MLX, whose convolution kernels have their channels last."""

    def __init__(self, case: Case, tier: str) -> None:
        (group,) = case.recipe.groups
        norm = str(group.options.get("norm"))
        self.kernels = {n for n, s in case.shapes.items() if is_kernel(len(s), norm, group.view)}
        self.dtype = getattr(mx, case.dtype)
        self.model = {n: self.array(n, np.ones(s, np.float32)) for n, s in case.shapes.items()}
        self.opt: Any = optimizer(self.model, case.recipe, tier=tier)

    def array(self, name: str, x: Any) -> Any:
        return mx.array(np.moveaxis(x, 1, -1) if name in self.kernels else x).astype(self.dtype)

    def update(self, gradient: Mapping[str, Any], count: int) -> None:
        self.opt.update(self.model, {n: self.array(n, g) for n, g in gradient.items()}, count=count)


SIDES = {"torch": Torch, "mlx": MLX}


def relay(case: Case, tier: str, runners: tuple[str, ...], path: Path) -> Iterator[tuple[int, Snapshot]]:
    """(update, snapshot) of a run that is handed on at equal intervals."""
    theta, state = start(case)
    dtypes = dict.fromkeys(theta, "BF16") if case.dtype == "bfloat16" else {}
    counts = dict.fromkeys(["", *theta], 0)
    checkpoint.save(path, Snapshot(theta, {n: {} for n in theta}, counts, dtypes), metadata={})
    turns = np.array_split(np.arange(case.updates), len(runners))
    steps = zip(range(1, case.updates + 1), case.gradients(), case.increments(), strict=True)
    for framework, turn in zip(runners, turns, strict=True):
        runner = SIDES[framework](case, tier)
        handed = checkpoint.load(path)[0]
        runner.opt.restore(handed)
        taken = runner.opt.snapshot()
        assert snapshot_digest(begun(taken, state)) == snapshot_digest(begun(handed, state))
        assert (taken.counts, taken.sums, taken.dtypes) == (handed.counts, handed.sums, handed.dtypes)
        for _ in turn:
            t, gradient, count = next(steps)
            runner.update(gradient, count)
            yield t, begun(runner.opt.snapshot(), state)
        checkpoint.save(path, runner.opt.snapshot(), metadata={})


def begun(snapshot: Snapshot, state: Mapping[str, Any]) -> Snapshot:
    """With the state before the first update where a framework makes it with the first one."""
    return replace(snapshot, state={n: snapshot.state[n] or dict(s) for n, s in state.items()})


def both(changes: int) -> tuple[str, ...]:
    return tuple("torch" if i % 2 == 0 else "mlx" for i in range(changes + 1))


def test_there_are_ten_changes() -> None:
    assert len(both(CHANGES)) == 11
    assert all(one != other for one, other in zip(both(CHANGES), both(CHANGES)[1:], strict=False))


SHORT = [("scionc/usual", 12), ("sf_normuon/usual", 12), ("rotational_adamw/usual", 12), ("adamw/bfloat16", 12)]
KERNELS, HALF = ("scionc.spectral_conv/usual", 200), ("sf_adamw/bfloat16", 200)
FULL = [*((f"{row}/usual", 200) for row in ROWS), KERNELS, ("adamw/bfloat16", 200), HALF]


@pytest.mark.parametrize(
    ("name", "updates"), [*SHORT, *(pytest.param(name, updates, marks=LONG) for name, updates in FULL)]
)
def test_no_bit_differs_from_a_run_that_never_moved(tmp_path: Path, name: str, updates: int) -> None:
    case = case_of(name, updates)
    changes = CHANGES if updates > 12 else 3
    moving = relay(case, "exact", both(changes), tmp_path / "c.safetensors")
    seen = 0
    for moment, (t, snapshot) in zip(walk(case), moving, strict=True):
        assert digest_of(snapshot.parameters, snapshot.state) == digest_of(moment.theta_after, moment.state_after), t
        seen += 1
    assert seen == updates


@pytest.mark.parametrize(
    ("row", "updates"), [("adamw", 20), ("scionc", 20), *(pytest.param(row, 200, marks=LONG) for row in ROWS)]
)
def test_the_fast_tier_stays_within_its_bounds(tmp_path: Path, row: str, updates: int) -> None:
    case = case_of(f"{row}/usual", updates)
    kept: dict[str, np.ndarray] = {}
    for t, snapshot in relay(case, "fast", both(CHANGES if updates > 20 else 3), tmp_path / "c.safetensors"):
        if t in checkpoints(updates):
            found = tensors_of(snapshot.parameters, snapshot.state)
            kept |= {f"{case.id}/free/{t}/{tensor}": np.asarray(x) for tensor, x in found}
    one = Bench(case, experiments.reference(case, oracle=False))
    record = Record("relay", {"facts": {}, "tiers": ["fast"]}, {"fast": kept})
    judged = drift.free(one, record, ("reference", "relay"))
    assert judged.status == PASS, judged
    off = {key: x + np.float32(1e-3) if x.size else x for key, x in kept.items()}  # and one that is off is caught
    wrong = drift.free(one, Record("off", record.manifest, {"fast": off}), ("reference", "off"))
    assert wrong.status not in (PASS, judged.status)
