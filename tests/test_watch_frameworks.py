"""Monitors of both native optimizers: what is measured, when, and that training does not change by it.

ROUNDING is what float32 may do to the numbers here: d = θ+ − θ is known to 2⁻²⁴ of θ, which is at most 2⁶ times as
large as d in these runs, so that sums with d are good to about 2⁻¹⁷; half as much again for those of the host.
An angle, whose sine is √(1 − cos²) of d and θ, loses half of the digits where these are parallel, and acos of a cosine
in float64 those below √2⁻⁵³.
"""

from __future__ import annotations

import copy
import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dualopt
from dualopt.counts import complement
from dualopt.errors import CheckpointError, CountError, NonFiniteError, RecipeError
from dualopt.watch.stream import read

from .watched import Mlx, Torch, compiled, cosine, normal, recipe, rms

SHAPES = {"w": (13, 7), "v": (11,), "one": (1, 9), "number": (), "empty": (0, 3)}
MATRICES = {"w": (13, 7), "deep": (2, 6, 8), "one": (1, 9), "empty": (0, 3)}
ROUNDING = 1.5 * 2.0**-17
PARALLEL = math.sqrt(3 * 2.0**-20)  # 2⁻²⁰: of a sum of products in float32
SUMS = 2.0**-18  # of sums in float32 2⁻²⁰, and of u by a polar factor five steps of sums of 8, of 2⁻²⁴ each
LOOSE = {"step": 0.05, "shrink_half_life": 300.0}
both = pytest.mark.parametrize("framework", [Torch, Mlx])


def close(x: float) -> Any:
    return pytest.approx(x, rel=ROUNDING, abs=ROUNDING)


@both
@pytest.mark.parametrize(
    ("name", "shapes"),
    [("adamw", SHAPES), ("lion", SHAPES), ("sgdm", SHAPES), ("scionc", MATRICES), ("shampoo", MATRICES)],
)
def test_what_is_measured_is_what_has_happened(framework: Any, name: str, shapes: Any, tmp_path: Path) -> None:
    """Against θ, m and g in float64; u from θ+ = aθ + ηu."""
    run = framework(normal(shapes), recipe(name, **LOOSE, memory_half_life=40.0))
    dualopt.Monitor(run.optimizer, tmp_path / "m", every=1, parameters=["*"])
    lost, expected = complement(10, 300.0), []
    for t in range(4):
        grads = normal(shapes, seed=5 + t)
        before, m = run.theta(), {n: run.state(n).get("m", np.zeros(s)) for n, s in shapes.items()}
        run.step(grads)
        after, found = run.theta(), {}
        for n in shapes:
            if before[n].size:
                x, d, g = before[n], after[n] - before[n], grads[n].astype(np.float64)
                u = d + lost * x
                turned = math.acos(min(1.0, max(-1.0, cosine(x, after[n])))), PARALLEL * rms(d) / rms(x) + 2e-8
                found[n] = {"rms": rms(x), "gradient": rms(g), "update": rms(u), "shrink": lost}
                found[n] |= {"u_theta": cosine(u, x), "angle": turned}
                if t:
                    found[n]["g_m"] = cosine(g, m[n])
        expected.append(found)
    records = read(tmp_path / "m").records
    assert [r["count"] for r in records] == [10, 20, 30, 40]
    for record, found in zip(records, expected, strict=True):
        assert set(record["parameters"]) == set(found)
        for n, values in found.items():
            measured = dict(record["parameters"][n])
            angle, error = values.pop("angle")
            assert measured.pop("angle") == pytest.approx(angle, rel=ROUNDING, abs=error)
            assert measured == {key: close(x) for key, x in values.items()}
        entries = {n: max(1, math.prod(shapes[n])) for n in found}
        total, group = sum(entries.values()), record["groups"]["all"]
        assert group["parameters"] == len(found)
        square = sum(entries[n] * found[n]["rms"] ** 2 for n in found) / total
        assert group["measured"]["rms"] == close(math.sqrt(square))
        assert group["measured"]["u_theta"] == close(sum(entries[n] * found[n]["u_theta"] for n in found) / total)


ROWS: dict[str, dict[str, Any]] = {
    "adamw": {**LOOSE},
    "cautious": {"optimizer": "adamw", **LOOSE, "shrink": "cautious"},
    "muon": {**LOOSE},
    "sf_adamw": {"step": 0.05},
    "targeted": {"optimizer": "sgdm", "target_rms": 0.9, "shrink_half_life": 300.0},
    "rotational_adamw": {"shrink_half_life": 300.0},
    "single_half_life": {},
    "pion": {"step": 0.05},
}


@pytest.mark.parametrize("name", ROWS)
def test_frameworks_measure_the_same(name: str, tmp_path: Path) -> None:
    """Every kind of motion, with one update of another size, one parameter that comes late, and one that pauses.

    Both train to the same bits, so that all that differs is what the measuring rounds.
    """
    options = dict(ROWS[name])
    made = recipe(options.pop("optimizer", name), **options)
    shapes = {"w": (13, 7), "deep": (2, 6, 8), "late": (5, 4)}
    found = {}
    for label, framework in (("torch", Torch), ("mlx", Mlx)):
        run = framework(normal(shapes), made, tier="exact")
        dualopt.Monitor(run.optimizer, tmp_path / label, every=2)
        for t in range(7):
            missing = {"late"} if t < 2 else {"w"} if t == 3 else set()
            grads = {n: g for n, g in normal(shapes, seed=5 + t).items() if n not in missing}
            run.step(grads, 7 if t == 4 else None)
        found[label] = read(tmp_path / label).records
    first = found["torch"]
    assert len(first) == 4
    for records in found.values():
        assert [r["count"] for r in records] == [r["count"] for r in first]
        for one, other in zip(records, first, strict=True):
            a, b = one["groups"]["all"], other["groups"]["all"]
            assert a["expected"] == b["expected"]
            assert a["measured"] == {key: pytest.approx(x, rel=SUMS, abs=SUMS) for key, x in b["measured"].items()}
    assert first[-1]["groups"]["all"]["expected"] == {}  # of parameters that have not lived alike


@both
def test_training_does_not_change(framework: Any, tmp_path: Path) -> None:
    ends = []
    for watched in (False, True):
        run = framework(normal(MATRICES), recipe("muon", **LOOSE))
        if watched:
            dualopt.Monitor(run.optimizer, tmp_path / "m", every=2)
        for t in range(6):
            run.step(normal(MATRICES, seed=t))
        ends.append({n: x.tobytes() for n, x in run.theta().items()})
    assert ends[0] == ends[1]
    assert len(read(tmp_path / "m").records) == 4


@both
def test_updates_are_measured_by_the_count(framework: Any, tmp_path: Path) -> None:
    """The first one, and then the first at or beyond every 30 samples, whatever the sizes of updates."""
    run = framework(normal(SHAPES), recipe())
    monitor = dualopt.Monitor(run.optimizer, tmp_path / "m", every=3)
    for count in (5, 10, 20, 1, 70, 10, 10, 4):
        run.step(normal(SHAPES), count)
    assert [r["count"] for r in read(tmp_path / "m").records] == [5, 35, 106, 126]
    assert monitor.measured == 4


def test_half_a_hundredth_of_the_time(tmp_path: Path) -> None:
    """An update takes 1, a measurement 1.5, and the first one, which compiles, 50: one in 300 once that is known."""
    now = [0.0]
    few = {"v": (3,)}
    run = Torch(normal(few), recipe())

    def clock() -> float:
        now[0] += 0.0 if monitor is None else costs.pop(0) if costs else 0.0
        return now[0]

    monitor: Any = None
    costs: list[float] = []
    monitor = dualopt.Monitor(run.optimizer, tmp_path / "m", clock=clock)
    write = monitor.write

    def writing(*args: Any) -> None:
        costs[:] = [50.0 if monitor.measured == 0 else 1.5]
        write(*args)

    monitor.write = writing
    grads = normal(few)
    for _ in range(330):
        now[0] += 1.0
        run.step(grads)
    assert [r["count"] for r in read(tmp_path / "m").records] == [10, 20, 3020]


@both
def test_a_run_goes_on_where_it_was_cut_off(framework: Any, tmp_path: Path) -> None:
    """A line was cut off, and the file knows more than the checkpoint: no count is there twice, and none is lost."""
    path, made = tmp_path / "m", recipe(**LOOSE)
    run = framework(normal(SHAPES), made)
    dualopt.Monitor(run.optimizer, path, every=2)
    saved: Any = None
    for t in range(9):
        if t == 5:
            saved = run.optimizer.snapshot()
        run.step(normal(SHAPES, seed=t))
    whole = read(path)
    with path.open("ab") as file:
        file.write(b'{"count": 100, "dtau"')
    assert read(path) == whole
    again = framework(normal(SHAPES, seed=9), made)
    again.optimizer.restore(saved)
    dualopt.Monitor(again.optimizer, path, every=2)
    for t in range(5, 9):
        again.step(normal(SHAPES, seed=t))
    assert read(path) == whole


@both
def test_gradients_that_are_not_finite(framework: Any, tmp_path: Path) -> None:
    """Nothing is written of an update that does not happen."""
    run = framework(normal(SHAPES), recipe(nonfinite="skip"))
    dualopt.Monitor(run.optimizer, tmp_path / "m", every=1)
    bad = normal(SHAPES)
    bad["w"][2, 3] = np.nan
    run.step(normal(SHAPES))
    run.step(bad)
    run.step(normal(SHAPES))
    assert [r["count"] for r in read(tmp_path / "m").records] == [10, 20]
    run = framework(normal(SHAPES), recipe())
    monitor = dualopt.Monitor(run.optimizer, tmp_path / "n", every=1)
    with pytest.raises(NonFiniteError):
        run.step(bad), run.step(bad)
    assert monitor.measured == 0


@pytest.mark.parametrize("framework", [Torch, Mlx])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_measured_as_it_is_stored(framework: Any, dtype: str, tmp_path: Path) -> None:
    run = framework(normal(SHAPES), recipe(step=0.05), dtype=dtype)
    dualopt.Monitor(run.optimizer, tmp_path / "m", every=1, parameters=["w"])
    before = run.theta()["w"]
    run.step(normal(SHAPES))
    (record,) = read(tmp_path / "m").records
    found = record["parameters"]["w"]
    assert found["rms"] == close(rms(before))
    angle = math.acos(cosine(before, run.theta()["w"]))  # between vectors that are not parallel
    assert found["angle"] == pytest.approx(angle, rel=ROUNDING, abs=2e-8)
    assert found["update"] == pytest.approx(0.05, rel=SUMS)  # of u in float32: ±1 by Adam's first update


def test_extremes_have_no_numbers(tmp_path: Path) -> None:
    """Squares of 1e30 are no float32 numbers, and a row of zeros has no direction: what is left is written."""
    run = Torch({"w": np.full((3, 2), 1e30, np.float32), "z": np.zeros((2, 2), np.float32)}, recipe())
    dualopt.Monitor(run.optimizer, tmp_path / "m", every=1, parameters=["*"])
    run.step({"w": np.ones((3, 2), np.float32), "z": np.ones((2, 2), np.float32)})
    found = read(tmp_path / "m").records[0]["parameters"]
    assert "rms" not in found["w"]
    assert found["w"]["gradient"] == 1.0
    assert found["z"]["rms"] == 0.0
    assert found["z"]["angle"] == close(math.pi / 2)
    assert "u_theta" not in found["z"]


def test_a_step_of_someone_else_is_not_predicted(tmp_path: Path) -> None:
    run = Torch(normal(SHAPES), recipe(step=0.01))
    dualopt.Monitor(run.optimizer, tmp_path / "m", every=1)
    for t in range(4):
        run.optimizer.param_groups[0]["lr"] = 0.02 if t == 2 else 0.01
        run.step(normal(SHAPES))
    known = ["update" in r["groups"]["all"]["expected"] for r in read(tmp_path / "m").records]
    assert known == [True, True, False, False]


def test_copies_and_pickles_are_not_watched(tmp_path: Path) -> None:
    run = Torch(normal(SHAPES), recipe())
    dualopt.Monitor(run.optimizer, tmp_path / "m", every=1)
    run.step(normal(SHAPES))
    for made in (copy.deepcopy(run.optimizer), pickle.loads(pickle.dumps(run.optimizer))):
        assert made.monitor is None
    assert run.optimizer.monitor is not None


def test_writers_get_every_number(tmp_path: Path) -> None:
    told: list[tuple[str, float, int]] = []
    flushed: list[int] = []

    class Writer:
        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            told.append((tag, scalar_value, global_step))

        def flush(self) -> None:
            flushed.append(len(told))

    run = Torch(normal(SHAPES), recipe())
    dualopt.Monitor(run.optimizer, tmp_path / "m", every=1, writer=Writer())
    run.step(normal(SHAPES))
    (record,) = read(tmp_path / "m").records
    group = record["groups"]["all"]
    assert {tag: x for tag, x, _ in told} == {f"all/{key}": x for key, x in group["measured"].items()} | {
        f"all/{key} expected": x for key, x in group["expected"].items()
    }
    assert {count for *_, count in told} == {10}
    assert flushed == [len(told)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_file_that_is_closed_to_writing(tmp_path: Path) -> None:
    run = Torch(normal(SHAPES), recipe())
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="cannot write there"):
            dualopt.Monitor(run.optimizer, tmp_path / "m")
    finally:
        tmp_path.chmod(0o700)


def test_compiled_steps_are_measured_like_eager_ones(tmp_path: Path) -> None:
    """Of two traces, one of which measures; an update that is not finite is measured by none."""
    shapes, made, found = {"w": (5, 3)}, recipe(**LOOSE, nonfinite="skip"), {}
    for label, framework in (("eager", Mlx), ("compiled", compiled)):
        run = framework(normal(shapes), made)
        monitor = dualopt.Monitor(run.optimizer, tmp_path / label, every=2)
        for t in range(7):
            grads = normal(shapes, seed=t)
            grads["w"][0] *= np.nan if t == 3 else 1.0
            run.step(grads)
        assert monitor.measured == 4
        found[label] = read(tmp_path / label), {n: x.tobytes() for n, x in run.theta().items()}
    (eager, theta), (other, same) = found["eager"], found["compiled"]
    assert theta == same
    assert eager.header == other.header
    for one, two in zip(eager.records, other.records, strict=True):
        a, b = one.pop("groups")["all"], two.pop("groups")["all"]
        assert one == two
        assert a["expected"] == b["expected"]
        assert a["measured"] == {key: close(x) for key, x in b["measured"].items()}


@both
def test_training_goes_on_without_the_file(framework: Any, tmp_path: Path) -> None:
    run = framework(normal(SHAPES), recipe())
    dualopt.Monitor(run.optimizer, tmp_path / "here/m", every=1)
    run.step(normal(SHAPES))
    (tmp_path / "here/m").unlink()
    (tmp_path / "here").rmdir()
    with pytest.warns(RuntimeWarning, match="no longer written"):
        run.step(normal(SHAPES))
    run.step(normal(SHAPES))
    assert run.optimizer.plan.tau == 30
    assert run.optimizer.monitor is None


def test_what_a_monitor_refuses(tmp_path: Path) -> None:
    run = Torch(normal(SHAPES), recipe())
    for every in (0, -1, 2.0, True):
        with pytest.raises(CountError, match="positive whole number"):
            dualopt.Monitor(run.optimizer, tmp_path / "m", every=every)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="no parameter matches 'x"):
        dualopt.Monitor(run.optimizer, tmp_path / "m", parameters=["x*"])
    with pytest.raises(RecipeError, match="a list of globs"):
        dualopt.Monitor(run.optimizer, tmp_path / "m", parameters="w")
    with pytest.raises(CheckpointError, match="directory"):
        dualopt.Monitor(run.optimizer, tmp_path)
    assert run.optimizer.monitor is None
    dualopt.Monitor(run.optimizer, tmp_path / "m", every=1)
    run.step(normal(SHAPES))
    for other, what in (
        (Torch(normal(SHAPES), recipe(step=0.5)), "another recipe"),
        (Torch(normal({"w": (2, 2)}), recipe()), "another model"),
    ):
        with pytest.raises(CheckpointError, match=what):
            dualopt.Monitor(other.optimizer, tmp_path / "m")
