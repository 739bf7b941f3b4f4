"""u of single updates: recorded where its length is declared, held to it, and named before θ."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from dualopt.directions.norm_balls import SpectralBall
from dualopt.directions.polar import EXACT, SETS
from dualopt.namespace import Backend, load
from dualopt_conformance import bitwise, experiments, gate, heading
from dualopt_conformance.bench import Bench
from dualopt_conformance.cases import CASES, EVERY, Case
from dualopt_conformance.compare import _with_command
from dualopt_conformance.manifest import NotComparableError, Record
from dualopt_conformance.verdict import FAIL, PASS
from dualopt_conformance.walk import Moment

DECLARING = [name for name, case in CASES.items() if heading.declares(case)]
SHORT = 6
SHORTER = 0.4  # times u: shorter than any band allows


class Short(Case):
    """The first updates of a case."""

    @property
    def updates(self) -> int:
        return SHORT


def short(name: str) -> Case:
    case = CASES[name]
    return Short(**{f.name: getattr(case, f.name) for f in fields(case)})


def moments_of(case: Case, known: dict[str, np.ndarray]):
    return [m for m in experiments.restarted(case, known, SHORT) if m.update in heading.marks(SHORT)]


def is_known(m: Moment, parameter: str) -> bool:
    """False where the rounding that is derived for a polar factor is larger than what makes it too short."""
    geometry = getattr(m.planned.row.direction, "geometry", None)
    if not isinstance(geometry, SpectralBall):
        return True
    low, high = heading.band(geometry.method, geometry.way.steps)
    with np.errstate(all="ignore"):
        bound = heading.bound_of(m, parameter, geometry)
    return bool((bound < low - SHORTER * high).all())


def test_what_declares() -> None:
    entries = {CASES[name].variant for name in DECLARING}
    assert {"lion", "sign_sgdm", "muon", "scionc", "normuon", "rotational_lion"} <= entries
    assert not {"adamw", "sgdm", "shampoo", "kaon"} & entries
    assert {name.rpartition("/")[2] for name in DECLARING} == {"usual"}
    assert len(heading.marks(1000)) == 3
    assert heading.marks(1) == (1,)
    assert not any(heading.declares(case) for case in EVERY.values() if case.streams)


@pytest.mark.parametrize("name", DECLARING)
def test_directions_are_as_declared(name: str) -> None:
    """In both tiers of numpy; twice or half of them and more are not, nor is what is no number."""
    case, numpy = short(name), load("numpy")
    known = experiments.reference(case, SHORT, oracle=False)
    seen, halved, known_well = 0, 0, 0
    for tier in ("exact", "fast"):
        made = experiments.directions(case, experiments.step_of(numpy, tier, case.dtype), known, SHORT)
        for m in moments_of(case, known):
            for parameter in m.gradient:
                key = f"{case.id}/direction/{m.update}/{parameter}"
                if key not in made:
                    assert not m.theta[parameter].size
                    continue
                u = m.planned.views[parameter].apply(np, made[key])
                assert not heading.departed(m, parameter, u).any(), (m.update, parameter)
                for by in (2.5, np.nan):
                    seen += int(heading.departed(m, parameter, u * np.float32(by)).any() or not u.any())
                halved += int(heading.departed(m, parameter, u * np.float32(SHORTER)).any() or not u.any())
                known_well += int(is_known(m, parameter))
                if tier == "exact":
                    assert made[key].tobytes() == known[key].tobytes()
    tried = 2 * sum(f"{case.id}/direction/" in key for key in known)
    assert seen == 2 * tried
    assert halved >= 0.9 * known_well


def test_a_small_departure_is_one() -> None:
    """Signs of another size by an ulp, rows by as many as their entries, factors by what the band leaves."""
    for name, by in (("lion/usual", 2.0**-23), ("scionc.row/usual", 2.0**-20), ("normuon/usual", 2.0**-16)):
        case = short(name)
        known = experiments.reference(case, SHORT, oracle=False)
        m = moments_of(case, known)[0]
        u = m.planned.views["tall"].apply(np, known[f"{name}/direction/1/tall"])
        assert not heading.departed(m, "tall", u).any()
        assert heading.departed(m, "tall", (u * np.float32(1 + by)).astype(np.float32)).any()


@pytest.mark.parametrize("method", SETS)
def test_bands(method: str) -> None:
    low, high = heading.band(method, None)
    assert 1 - low <= SETS[method].error * (1 + 1e-3)
    assert max(1 - low, high - 1) >= SETS[method].error * (1 - 1e-3)  # some sets overshoot below what they are made for
    assert 0 < low <= 1 <= high < 2
    assert method != EXACT


def record(case: Case, backend: Backend, known: dict[str, np.ndarray], **changed: float) -> Record:
    made = {tier: experiments.lockstep(case, backend, tier, known, SHORT) for tier in ("exact", "fast")}
    for arrays in made.values():
        for key, by in changed.items():
            arrays[f"{case.id}/{key}"] = arrays[f"{case.id}/{key}"] * np.float32(by)
    return Record("mine", {"facts": {}, "tiers": ["exact", "fast"]}, made)


@pytest.mark.parametrize("name", ["muon.naive/usual", "scionc.row/usual"])
def test_u_is_named_before_parameters(name: str) -> None:
    """Of what differs in an update the first in the order state, u, θ is told; where u is sound, the motion is off."""
    case = short(name)
    known = experiments.reference(case, SHORT, oracle=False)
    bench, numpy = Bench(case, known), load("numpy")
    sound = record(case, numpy, known)
    checks = [bitwise.lockstep(bench, sound), gate.lockstep(bench, sound)]
    assert [t.failed for t in checks] == [0, 0]
    for changed, tensor in (
        ({"direction/1/tall": 2.0, "lockstep/1/tall": 2.0}, "u of tall"),
        ({"direction/1/tall": 2.0, "lockstep/1/tall/m": 2.0}, "m of tall"),
        ({"lockstep/1/tall": 2.0}, "tall"),
        ({"direction/1/tall": 2.0, "lockstep/2/tall/m": 2.0}, "u of tall"),
    ):
        off = record(case, numpy, known, **changed)
        for tally, tier in ((bitwise.lockstep(bench, off), "exact"), (gate.lockstep(bench, off), "fast")):
            check = tally.check(case, tier, "lockstep", ("oracle", "mine"))
            assert check.status == FAIL
            assert check.first is not None
            assert (check.first.update, check.first.tensor) == (1, tensor)
            note = _with_command(check, {"mine": "again"}).note
            assert ("u and its memories agree, so the motion is off" in note) == (tensor == "tall" and tier == "exact")
    assert sound.arrays["fast"].keys() == sound.arrays["exact"].keys()
    assert checks[0].check(case, "exact", "lockstep", ("oracle", "mine")).status == PASS


@pytest.mark.parametrize("name", ["lion/usual", "scionc.row/usual"])
def test_every_backend_shows_its_u(backend: Backend, name: str) -> None:
    """After lockstep, in both tiers: the reference's bits in the exact one, and what is declared."""
    case = short(name)
    known = experiments.reference(case, SHORT, oracle=False)
    bench, made = Bench(case, known), record(case, backend, known)
    assert any("/direction/" in key for key in made.arrays["fast"])
    assert (bitwise.lockstep(bench, made).failed, gate.lockstep(bench, made).failed) == (0, 0)


def test_a_record_without_u_is_refused() -> None:
    case = short("scionc.row/usual")
    known = experiments.reference(case, SHORT, oracle=False)
    made = record(case, load("numpy"), known)
    key = f"{case.id}/direction/1/tall"
    less = {k: x for k, x in made.arrays["fast"].items() if k != key}
    with pytest.raises(NotComparableError, match=key):
        gate.lockstep(Bench(case, known), replace(made, arrays={"fast": less}))
    with pytest.raises(NotComparableError, match=key):
        gate.lockstep(Bench(case, {k: x for k, x in known.items() if k != key}), made)
