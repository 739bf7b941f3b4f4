"""Measured against predicted: runs on noise stay in their bands, others leave them on the right side."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dualopt
from dualopt.analysis.spectra import of_noise, response_of
from dualopt.catalog import complete, row
from dualopt.directions.polar import SETS, Way, polar
from dualopt.directions.polar.sets import AOL, EIGHTH, FROBENIUS, MOMENT
from dualopt.errors import CheckpointError
from dualopt.watch import stream
from dualopt.watch.forecast import Band
from dualopt.watch.reading import Reading, angle, mean
from dualopt.watch.stream import Watched, read
from dualopt.watch.verdict import AGREE, BEYOND, OFF, TURN, WITHIN, verdicts

from .watched import Mlx, Torch, noise, normal, recipe

SHAPES = {"w": (8, 16, 24)}
ADDITIVE = {"step": 0.02, "shrink_half_life": 400.0}


def judged(watched: Watched) -> dict[str, set[str]]:
    """{quantity: its meanings in all records}."""
    (group,) = watched.header["groups"]
    found: dict[str, set[str]] = {}
    for record in watched.records:
        for one in verdicts(group, record["groups"]["all"]):
            if one.meaning:
                found.setdefault(one.quantity, set()).add(one.meaning)
    return found


# ---- on noise


ROWS: dict[str, dict[str, Any]] = {
    "rmsprop": ADDITIVE,
    "sign_sgdm": ADDITIVE,
    "adamw": ADDITIVE,
    "lion": ADDITIVE,
    "cautious lion": {"optimizer": "lion", **ADDITIVE, "shrink": "cautious"},
    "corrected": {"optimizer": "lion", **ADDITIVE, "shrink": "corrected"},
    "scionc": {**ADDITIVE, "polar": "exact"},
    "scionc, quintic": {"optimizer": "scionc", **ADDITIVE, "polar": "quintic"},
    "scionc, column": {"optimizer": "scionc", **ADDITIVE, "norm": "column"},
    "muon": ADDITIVE,
    "row_norm": ADDITIVE,
    "sgdm": ADDITIVE,
    "single_half_life": {"memory_half_life": 3000.0},
    "pion": {"step": 0.02},
}
SCHEDULE = {"shape": "warmup-stable-decay", "warmup": 200, "total": 1200, "decay": 400}


@pytest.mark.parametrize("name", ROWS)
def test_noise_stays_within_the_bands(name: str, tmp_path: Path) -> None:
    """Under a schedule that ends at 0, where nothing moves and all that shrinks is parallel."""
    options = dict(ROWS[name])
    made = recipe(options.pop("optimizer", name), schedule=SCHEDULE, **options)
    watched = noise(tmp_path / "m", made, shapes=SHAPES, updates=120)
    assert len(watched.records) == 13
    found = judged(watched)
    unknown = {"sgdm": {"rms", "update", "angle", "shrink"}, "pion": {"shrink"}, "single_half_life": {"shrink"}}
    assert set(found) >= {"rms", "update", "angle", "shrink"} - unknown.get(name, set())
    assert found == {quantity: {WITHIN} for quantity in found}


def test_bands_are_not_wide(tmp_path: Path) -> None:
    """What a 10 % larger step does is seen in every quantity of a row whose sizes are known."""
    made = recipe(**ADDITIVE)
    watched = noise(tmp_path / "m", recipe(**{**ADDITIVE, "step": 0.022}), shapes=SHAPES, updates=160)
    other = noise(tmp_path / "n", made, shapes=SHAPES, updates=160)
    records = [
        r | {"groups": {"all": r["groups"]["all"] | {"expected": o["groups"]["all"]["expected"]}}}
        for r, o in zip(watched.records, other.records, strict=True)
    ]
    found = judged(Watched(other.header, tuple(records)))
    assert found["update"] <= {AGREE, BEYOND}
    assert {"rms": AGREE in found["rms"], "angle": TURN in found["angle"]} == {"rms": True, "angle": True}
    assert found["shrink"] == {WITHIN}


# ---- on what is not noise


def test_gradients_that_agree_are_told_from_those_that_turn_back(tmp_path: Path) -> None:
    agree = noise(tmp_path / "a", recipe(**ADDITIVE), shapes=SHAPES, updates=80, mean=3.0)
    found = judged(agree)
    assert AGREE in found["rms"] & found["update"] & found["u_theta"] & found["g_m"]
    assert found["shrink"] == {WITHIN}
    assert BEYOND not in set().union(*found.values())
    run, still = Torch(normal(SHAPES), recipe(**ADDITIVE)), normal(SHAPES, seed=1)
    dualopt.Monitor(run.optimizer, tmp_path / "b", every=10, end=800)
    for t in range(80):
        run.step({n: g * (-1) ** t for n, g in still.items()})
    found = judged(read(tmp_path / "b"))
    assert TURN in found["update"] & found["g_m"]
    assert AGREE not in found["update"]


def test_nothing_is_beyond_what_the_recipe_can_do(tmp_path: Path) -> None:
    """Updates twice as long as the same gradient for ever can make them are another recipe's."""
    watched = noise(tmp_path / "m", recipe(**ADDITIVE), shapes=SHAPES, updates=20)
    (group,), record = watched.header["groups"], watched.records[-1]["groups"]["all"]
    assert group["most"]["update"] == pytest.approx(0.02)
    record["measured"]["update"] = 0.0199
    assert next(v for v in verdicts(group, record) if v.quantity == "update").meaning == AGREE
    record["measured"]["update"] = 0.0201
    assert next(v for v in verdicts(group, record) if v.quantity == "update").meaning == BEYOND


@pytest.mark.filterwarnings("ignore:.*it will not shrink:RuntimeWarning")
@pytest.mark.parametrize("framework", [Torch, Mlx])
def test_weights_that_are_rounded_away(framework: Any, tmp_path: Path) -> None:
    """bfloat16, 1 − a = 2⁻¹² and steps far below a spacing: nothing moves, and the verdict on the shrink says so."""
    made = recipe(step=1e-6, shrink_half_life=10 * math.log(2) * 2**12)
    found = noise(
        tmp_path / "m", made, shapes={"w": (256, 256)}, updates=4, every=1, framework=framework, dtype="bfloat16"
    )
    assert judged(found)["shrink"] == {OFF}
    assert any("will not shrink" in text for text in found.header["warnings"])
    fine = noise(tmp_path / "n", made, shapes={"w": (256, 256)}, updates=4, every=1, framework=framework)
    assert judged(fine)["shrink"] == {WITHIN}


# ---- singular values


@pytest.mark.parametrize(("m", "n"), [(64, 64), (48, 192), (192, 48)])
@pytest.mark.parametrize("name", SETS)
def test_polar_factors_of_noise_are_as_long_as_derived(name: str, m: int, n: int) -> None:
    """Of 8 matrices. The density is of infinite ones: sums over k singular values are off by about 1/k, at most."""
    z = np.random.default_rng(0).standard_normal((8, m, n))
    for scaling in {AOL} if name == AOL else {SETS[name].normalise, FROBENIUS, MOMENT, EIGHTH}:
        o = polar(np, z, name, Way(normalise=None if scaling == AOL else scaling))
        measured = math.sqrt(float(np.sum(o * o)) / (8 * min(m, n)))
        square, _ = of_noise(SETS[name], scaling, m, n)
        assert math.sqrt(square) == pytest.approx(measured, rel=1 / min(m, n))


@pytest.mark.parametrize("name", SETS)
def test_the_range_of_a_set(name: str) -> None:
    chosen = SETS[name]
    low, high = chosen.range
    assert chosen.error == max(1 - low, high - 1)
    assert low < 1 < high
    # Between its points, h = ln(1/least)/2¹⁴ apart, an extremum is cut off by at most h² |f″|/8, with f″ below 10⁴.
    between = (math.log(1 / chosen.least) / 2**14) ** 2 * 1e4 / 8
    for sigma in np.geomspace(chosen.least, 1.0, 999):
        assert low - between <= chosen.response(float(sigma)) <= high + between


def test_which_rows_have_a_range() -> None:
    def of(name: str, shape: tuple[int, ...] = (64, 64), **options: Any) -> tuple[float, float, float]:
        found = response_of(row(name, complete(name, options)), shape)
        return (0.0, 0.0, 0.0) if found is None else (found.least, math.sqrt(found.square), found.largest)

    assert of("adamw") == of("scionc", norm="column") == of("muon", (0, 3)) == of("muon", (9,)) == (0.0, 0.0, 0.0)
    assert of("normuon") == of("muon", polar="exact") == of("freon", exponent=0.5) == (1.0, 1.0, 1.0)
    low, noise_, high = of("muon", polar="quintic")
    assert (low, high) == SETS["quintic"].range
    assert low < noise_ < high
    assert of("normuon", scale="mup", polar="quintic") == (low, noise_, high)
    assert of("scionc", (1, 9), polar="quintic")[1] == pytest.approx(SETS["quintic"].response(1.0), rel=1e-12)
    assert of("scionc", (8, 4, 3, 3), norm="spectral_conv", polar="quintic") == of("muon", (8, 36), polar="quintic")
    large = of("muon", (2**16, 2**16), polar="five")
    assert large[0] == large[1] < SETS["five"].range[0]  # singular values below `least`
    longer, plain = of("muon", polar="quintic", iterations=8), of("muon", polar="quintic")
    assert longer[0] > plain[0]


# ---- numbers


def test_angles() -> None:
    assert angle(1.0, 1.0, 0.0) == pytest.approx(math.pi / 4)
    assert angle(0.0, 1.0, 0.0) == math.pi / 2
    assert angle(1.0, 1.0, -1.0) == math.pi / 2
    assert angle(1.0, 4.0, -2.0) == pytest.approx(math.pi)
    assert angle(0.0, 0.0, 0.0) == angle(1.0, 0.0, 0.0) == 0.0
    assert angle(1.0, 1e-16, 0.0) == pytest.approx(1e-8)


def test_means_of_groups() -> None:
    found = mean([(1, Reading(rms=1.0, shrink=0.1)), (3, Reading(rms=2.0, shrink=0.2, g_m=0.5))])
    assert found == Reading(rms=math.sqrt(13 / 4), shrink=pytest.approx(0.175), g_m=0.5)
    assert mean([]) == Reading()


def test_bands_have_ends_on_the_right_sides() -> None:
    assert Band(0.9, 1.2).ends(2.0) == pytest.approx((1.8, 2.4))
    assert Band(0.9, 1.2).ends(-2.0) == pytest.approx((-2.4, -1.8))
    assert Band(0.9, 1.2, 0.1).ends(0.0) == (-0.1, 0.1)


# ---- the file


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("written") / "m"
    noise(path, recipe(**ADDITIVE), shapes={"w": (4, 6)}, updates=30)
    return path.read_bytes()


def test_a_line_that_was_cut_off_is_not_read(written: bytes, tmp_path: Path) -> None:
    path, whole = tmp_path / "m", written.splitlines(keepends=True)
    assert len(whole) == 5
    for end in (*range(len(whole[0]), len(written), 97), *(len(written) - i for i in (2, 1, 0))):
        path.write_bytes(written[:end])
        assert len(read(path).records) == written[:end].count(b"\n") - 1
    for end in (0, 5, len(whole[0]) - 1):
        path.write_bytes(written[:end])
        with pytest.raises(CheckpointError, match="nothing has been measured yet"):
            read(path)


def changed(line: bytes, **entries: Any) -> bytes:
    return json.dumps(json.loads(line) | entries).encode() + b"\n"


def test_damaged_files_are_refused_with_the_line(written: bytes, tmp_path: Path) -> None:
    header, first, second, *_ = written.splitlines(keepends=True)
    group = json.loads(header)["groups"][0]
    cases = {
        "cannot be read": None,
        "line 2 is damaged": header + b"{\n" + second,
        "no JSON object": header + b"[]\n",
        "no format": first,
        "'groups' is missing": changed(header, groups=None),
        "'bands' of a group": changed(header, groups=[group | {"bands": 3}]),
        "not three numbers": changed(header, groups=[group | {"bands": {"rms": [1, 2]}}]),
        "the curve of 'rms'": changed(header, groups=[group | {"curves": {"rms": [1.0]}}]),
        "its count is 10, after 10": header + first + first,
        "its count is 1.5": header + changed(first, count=1.5),
        "no group 'x'": header + changed(first, groups={"x": {}}),
        "'measured' of group 'all'": header + changed(first, groups={"all": {"measured": {"rms": "1"}}}),
        "'parameters' of group": header + changed(first, groups={"all": {"measured": {}, "expected": {}}}),
        "'most' of 'rms'": changed(header, groups=[group | {"most": {"rms": None}}]),
    }
    for i, (message, data) in enumerate(cases.items()):
        path = tmp_path / str(i)
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(CheckpointError, match=message):
            read(path)


def test_rewinding(written: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(written + b"{")
    stream.rewind(path, 105)
    assert [r["count"] for r in read(path).records] == [10, 100]
    assert path.read_bytes() == b"".join(written.splitlines(keepends=True)[:3])
