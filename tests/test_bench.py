"""`dualopt bench`: its logic, and that every installed peer carries out its work. Nothing here depends on how long."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")
from typer.testing import CliRunner

from benchmarks.speed import picture, ratios, run, tables
from benchmarks.speed.cases import CASES, Case, Turns
from benchmarks.speed.goals import BEST, GOALS, Goal
from benchmarks.speed.link import GoneError, Link, RefusedError
from benchmarks.speed.page import page
from benchmarks.speed.peers import PEERS, Peer
from benchmarks.speed.record import DIED, OK, Measured, Record, Side
from benchmarks.speed.surroundings import described, variables
from benchmarks.speed.turns import affordable, carried_out, order, processes
from benchmarks.speed.worker import Session, answered
from benchmarks.speed.workloads import WORKLOADS, Workload
from dualopt.cli import bench as door
from dualopt.cli.app import app
from dualopt.errors import DataError, RecipeError

ROOT = Path(__file__).parents[1]
SMALL = Workload("small", {"w": (8, 12), "b": (12,), "g": (5,)}, "small")
MATRICES = Workload("matrices", {"w": (8, 12), "v": (12, 4)}, "small")
STATES = ("absent", "failed", "died")


class Fake:
    """A worker whose steps take a set time; `says` keeps who was asked what."""

    def __init__(self, name: str, step: float, says: list[tuple[str, str]], fails: Mapping[str, Exception]) -> None:
        self.name, self.step, self.says, self.fails = name, step, says, fails
        self.asked: dict[str, Any] = {}
        self.closed = False

    def send(self, **request: Any) -> None:
        self.asked = request
        self.says.append((self.name, request["do"]))

    def receive(self, within: float) -> dict[str, Any]:
        if error := self.fails.get(self.asked["do"]):
            raise error
        phases = {"import": 1.0, "build": 0.1, "first": 2.0, "second": self.step}
        return {
            "build": {"phases": phases, "moved": [1.0, 2.0], "version": "1"},
            "turn": {"times": [self.step] * 3},
            "facts": {"facts": {"known": self.name}},
        }[self.asked["do"]]

    def ask(self, within: float, **request: Any) -> dict[str, Any]:
        self.send(**request)
        return self.receive(within)

    def close(self) -> None:
        self.closed = True


def fake_case(*steps: float, turns: Turns | None = None) -> Case:
    peers = tuple(Peer(f"p{i}", "none:make", "none", family="other") for i in range(len(steps)))
    return Case("fake", "adamw", SMALL, peers, "p0", turns=turns or Turns(runs=3, rounds=2))


def carry_out(case: Case, *steps: float, fails: Mapping[int, Mapping[str, Exception]] | None = None) -> Any:
    """(what was measured, who was asked what, the workers)."""
    says: list[tuple[str, str]] = []
    workers: list[Fake] = []

    def opened(cold: bool) -> Fake:
        i = len(workers) % len(steps)
        workers.append(Fake(f"p{i}", steps[i], says, (fails or {}).get(i, {})))
        return workers[-1]

    return carried_out(case, opened, 1, lambda note: None), says, workers


@pytest.fixture(autouse=True)
def _columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


# ---- the order of turns


@pytest.mark.parametrize("number", range(1, 6))
def test_every_round_has_everybody_once(number: int) -> None:
    for turn in range(12):
        assert sorted(order(number, turn)) == list(range(number))


def test_nobody_always_follows_the_same() -> None:
    before = {(a, b) for turn in range(6) for a, b in zip(order(3, turn), order(3, turn)[1:], strict=False)}
    assert len(before) == 6


def test_turns_are_interleaved() -> None:
    side, says, workers = carry_out(fake_case(1e-3, 2e-3, 3e-3), 1e-3, 2e-3, 3e-3)
    turns = [name for name, what in says if what == "turn"]
    rounds = [turns[i : i + 3] for i in range(0, len(turns), 3)]
    assert len(rounds) == 6
    assert all(sorted(names) == ["p0", "p1", "p2"] for names in rounds)
    assert [what for _, what in says].count("build") == 9  # three runs
    assert all(len(peer.runs) == 3 and len(peer.turns) == 6 for peer in side.peers)
    assert all(worker.closed for worker in workers)
    assert side.peers[1].facts == {"known": "p1"}


def test_cold_cases_have_new_processes() -> None:
    case = replace(fake_case(1e-3), cold=True, turns=Turns(runs=3, rounds=1))
    side, _, workers = carry_out(case, 1e-3)
    assert len(workers) == 3
    assert len(side.peers[0].phases) == 3
    assert all(worker.closed for worker in workers)


def test_slow_cases_give_up_rounds_before_runs() -> None:
    def peers(step: float) -> list[Measured]:
        return [Measured("p", "other", phases=[{"second": step}])]

    turns = Turns(runs=3, rounds=3, least=1, seconds=0.0, budget=10.0)
    # A round takes two steps, and so does each build after the first: 22, 16 and 10 steps, or 6 in one run.
    found = [affordable(turns, peers(step)) for step in (0.1, 0.6, 1.0, 1.2, 6.0, 7.0)]
    assert [(t.runs, t.rounds) for t in found] == [(3, 3), (3, 2), (3, 1), (1, 3), (1, 3), (1, 1)]
    start = Turns(runs=3, rounds=0)
    assert affordable(start, peers(100.0)) == start
    assert affordable(turns, [Measured("p", "other", status=DIED)]) == turns


# ---- peers that do not run


@pytest.mark.parametrize("when", ["build", "turn", "facts"])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RefusedError("absent", "no such thing"), "absent"),
        (RefusedError("failed", "x"), "failed"),
        (GoneError("x"), DIED),
    ],
)
def test_who_fails_is_reported_and_stops_nobody(when: str, error: Exception, status: str) -> None:
    side, _, workers = carry_out(fake_case(1e-3, 1e-3, 1e-3), 1e-3, 1e-3, 1e-3, fails={1: {when: error}})
    assert [peer.status for peer in side.peers] == [OK, status, OK]
    assert side.peers[1].reason == str(error)
    assert [len(peer.turns) for peer in side.peers[::2]] == [6, 6]
    assert ratios.ratio(side.peers[0], side.peers[1]) is None
    assert ratios.ratio(side.peers[0], side.peers[2]) == ratios.Spread(1.0, 1.0, 1.0, 6)
    assert all(worker.closed for worker in workers)
    (note,) = tables.of(side).notes
    assert note.startswith("p1 ")
    assert str(error) in note


def test_more_memory_than_there_is() -> None:
    huge = replace(fake_case(1e-3), workload=Workload("huge", {"w": (2**50,)}, "huge"))
    side, says, _ = carry_out(huge, 1e-3)
    if says:
        pytest.skip("free memory is not known here")
    assert side.peers[0].status == "absent"
    assert "memory" in side.peers[0].reason


def link(*code: str) -> Link:
    return Link(sys.executable, variables(ROOT), ROOT, ("-c", "\n".join(code)))


def test_a_worker_that_dies() -> None:
    worker = link(
        "import os, sys", "input()", "print('out of luck', file=sys.stderr, flush=True)", "os.kill(os.getpid(), 9)"
    )
    with pytest.raises(GoneError, match="signal 9: out of luck"):
        worker.ask(20, do="build")
    worker.close()


def test_a_worker_that_does_not_answer() -> None:
    worker = link("import time", "time.sleep(60)")
    with pytest.raises(GoneError, match=r"no answer within 0\.2 s"):
        worker.ask(0.2, do="build")
    worker.close()


# ---- the worker and the peers


def task(peer: Peer, rule: str, workload: Workload = SMALL, dtype: str = "float32") -> str:
    case = Case("small", rule, workload, (peer,), dtype=dtype)
    return json.dumps({"do": "build", "task": vars(case.task(peer)), "distribution": peer.distribution})


def moved(peer: Peer, rule: str, workload: Workload = SMALL, dtype: str = "float32") -> Any:
    """What one step adds, (n,); skips if the peer says that it is not here."""
    session = Session()
    built = answered(session, task(peer, rule, workload, dtype))
    if not built["ok"] and built["kind"] == "absent":
        pytest.skip(f"{peer.name}: {built['reason']}")
    assert built["ok"], built
    assert set(built["phases"]) == {"import", "build", "first", "second"}
    turn = answered(session, json.dumps({"do": "turn", "least": 3, "most": 5, "seconds": 0.0}))
    assert len(turn["times"]) == 3
    assert all(t > 0 for t in turn["times"])
    facts = answered(session, '{"do": "facts"}')
    assert facts["ok"], facts
    return np.array(built["moved"])


TORCH_PEERS = ("torch fused", "torch foreach", "torch for-loop")
STEPS = sorted({(p.name, c.rule) for c in CASES.values() if c.kind == "step" for p in c.peers if p.family != "floor"})
OWN = {p.name: p for c in CASES.values() for p in c.peers}


@pytest.mark.long
@pytest.mark.parametrize(("name", "rule"), STEPS)
def test_every_installed_peer_moves_every_parameter(name: str, rule: str) -> None:
    found = moved(OWN[name], rule, MATRICES if rule == "muon" else SMALL)
    assert np.isfinite(found).all()
    assert np.count_nonzero(found) > 0.9 * len(found)


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["dualopt", "dualopt, no compiler", "dualopt (MLX)", "dualopt (MLX) compiled", "optax"]
)
@pytest.mark.parametrize("rule", ["adamw", "sgdm"])
def test_ours_and_torch_add_the_same(name: str, rule: str) -> None:
    """AdamW's first step is of size lr whatever the gradient, so that it is the same within the rounding of √v and ε;
    torch's SGD adds gradients up from the first one on, as μ = 0 does."""
    theirs = moved(PEERS["torch for-loop"], rule)
    ours = moved(PEERS[name], rule)
    if rule == "sgdm":
        ours, theirs = ours / np.linalg.norm(ours), theirs / np.linalg.norm(theirs)
    # The sum of a parameter of size 0.02 … 0.1 and a step of 1e-3 … 1e-4 is rounded to 2⁻²⁴ of the former.
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2 * 0.1 * 2.0**-24)


@pytest.mark.filterwarnings("ignore:.*it will not shrink")
@pytest.mark.parametrize("name", ["dualopt", *TORCH_PEERS])
def test_bfloat16_parameters(name: str) -> None:
    assert np.isfinite(moved(PEERS[name], "adamw", dtype="bfloat16")).all()


@pytest.mark.parametrize("peer", [p for p in CASES["polar wide"].peers if p.family != "floor"], ids=lambda p: p.name)
def test_ways_to_the_polar_factor(peer: Peer) -> None:
    session = Session()
    built = answered(session, task(peer, "polar", Workload("wide", {"a": (16, 48), "b": (16, 48)}, "")))
    if not built["ok"] and built["kind"] == "absent":
        pytest.skip(built["reason"])
    assert built["ok"], built
    facts = answered(session, '{"do": "facts"}')["facts"]
    assert set(facts) == {"gaussian", "inverse", "low rank", "log"}
    exact = "exact" in peer.name or "svd" in peer.name or "eigh" in peer.name
    for worst, error in facts.values():
        assert 0 <= error < (1e-3 if exact else 0.7)
        assert 0 <= worst < (1e-3 if exact else 1)


@pytest.mark.parametrize(
    "case",
    [  # MLX has a C++ compiler build whole steps
        pytest.param(c, id=c.name, marks=pytest.mark.long if "mlx" in c.name else ())
        for c in CASES.values()
        if c.kind == "train"
    ],
)
def test_training_steps(case: Case) -> None:
    losses = {}
    for peer in case.peers:
        session = Session()
        small = peer.called(peer.name, model={"layers": 1, "width": 16, "heads": 2, "context": 8})
        built = answered(session, task(small, case.rule, case.workload))
        if not built["ok"] and built["kind"] == "absent":
            pytest.skip(built["reason"])
        assert built["ok"], built
        answered(session, json.dumps({"do": "turn", "least": 20, "most": 20, "seconds": 0.0}))
        losses[peer.family] = answered(session, '{"do": "facts"}')["facts"]["loss"]
    theirs = next(loss for family, loss in losses.items() if family not in ("dualopt", "floor"))
    learnt = losses["floor"] - theirs  # which does not train
    # The same rule: 23 updates, each apart by a rounding of it (Muon's in bfloat16 there), and 8 of the loss itself.
    apart = 2.0**-8 if case.rule == "muon" else 23 * 2.0**-23
    assert losses["dualopt"] == pytest.approx(theirs, abs=learnt * apart + 8 * theirs * 2.0**-23)
    assert learnt > 0.1


@pytest.mark.parametrize("name", ["stream", "products"])
def test_floors(name: str) -> None:
    pytest.importorskip("torch")
    if name == "stream" and not __import__("dualopt_torch.execute", fromlist=["x"]).can_compile():
        pytest.skip("no compiler")
    peer = next(p for c in CASES.values() for p in c.peers if p.name == name)
    built = answered(Session(), task(peer, "muon", MATRICES))
    assert built["ok"], built
    assert built["moved"] == []


@pytest.mark.parametrize(
    ("how", "kind", "reason"),
    [
        ("idle", "failed", "left 2 of 3 parameters where they were"),
        ("nan", "failed", "no longer finite"),
        ("absent", "absent", "not on a Sunday"),
        ("needs", "absent", "no_such_package is not installed"),
        ("breaks", "failed", "ZeroDivisionError"),
    ],
)
def test_peers_that_do_nothing_or_fail_are_caught(
    how: str, kind: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from . import bench_peers

    monkeypatch.setitem(sys.modules, "benchmarks.speed.peers.for_tests", bench_peers)
    reply = answered(Session(), task(Peer(how, f"for_tests:{how}", "none"), "adamw"))
    assert (reply["ok"], reply["kind"]) == (False, kind)
    assert reason in reply["reason"]


def test_a_question_before_anything_was_built() -> None:
    assert answered(Session(), '{"do": "turn"}')["kind"] == "failed"
    assert answered(Session(), "no JSON")["kind"] == "failed"


# ---- numbers and records


def side(name: str = "adamw gpt30", **seconds: list[float]) -> Side:
    """A case with one step per turn, three rounds in one run."""
    family = {"dualopt": "dualopt", "stream": "floor"}
    peers = [Measured(n, family.get(n, n), version="1", runs=[[[t] for t in times]]) for n, times in seconds.items()]
    return Side(name, "step", "adamw", "float32", "gpt30", 148, 30_000_000, "", "a GPT", peers=peers)


def test_ratios_are_of_rounds() -> None:
    """A machine that slows both for a round changes no ratio."""
    found = side(dualopt=[1.0, 10.0, 2.0], torch=[2.0, 20.0, 4.0])
    assert ratios.ratio(*found.peers) == ratios.Spread(0.5, 0.5, 0.5, 3)
    apart = side(dualopt=[1.0, 2.0, 3.0, 4.0, 5.0], torch=[1.0] * 5)
    assert ratios.ratio(*apart.peers) == ratios.Spread(2.0, 3.0, 4.0, 5)


def test_a_turn_is_its_median() -> None:
    assert Measured("p", "other", runs=[[[1.0, 9.0, 2.0]], [[5.0]]]).turns == [2.0, 5.0]


@pytest.mark.parametrize(
    ("middle", "word"), [(0.95, ratios.STRETCH), (0.951, ratios.REACHED), (1.0, ratios.REACHED), (1.01, ratios.MISSED)]
)
def test_goals_are_judged_by_the_median(middle: float, word: str) -> None:
    goal = Goal("adamw gpt30", "torch", 1.0, 0.95)
    found = ratios.judged(goal, Record({}, [side(dualopt=[middle] * 3, torch=[1.0] * 3)]))
    assert found.word == word
    assert not found.close


def test_two_rounds_decide_nothing() -> None:
    goal = Goal("adamw gpt30", "torch", 1.0, 0.95)
    found = ratios.judged(goal, Record({}, [side(dualopt=[0.5] * 2, torch=[1.0] * 2)]))
    assert (found.word, found.note) == (ratios.UNKNOWN, "2 of the 3 rounds that it takes")


def test_a_goal_within_the_quartiles_is_said_to_be_close() -> None:
    goal = Goal("adamw gpt30", "torch", 1.0, 0.5)
    assert ratios.judged(goal, Record({}, [side(dualopt=[0.8, 0.9, 1.5], torch=[1.0] * 3)])).close


def test_the_best_peer_is_neither_ours_nor_a_floor() -> None:
    found = side(dualopt=[1.0] * 3, stream=[0.5] * 3, torch=[4.0] * 3, optax=[2.0] * 3)
    verdict = ratios.judged(Goal("adamw gpt30", BEST, 1.0, 0.4), Record({}, [found]))
    assert (verdict.peer, verdict.value) == ("optax", ratios.Spread(0.5, 0.5, 0.5, 3))


def test_goals_of_what_was_not_measured() -> None:
    goal = Goal("adamw gpt30", "heavyball", 0.4, 0.3)
    assert ratios.judged(goal, Record({})).word == ratios.UNKNOWN
    there = side(dualopt=[1.0], heavyball=[])
    there.peers[1].stopped("absent", "is not installed")
    found = ratios.judged(goal, Record({}, [there]))
    assert (found.word, found.note) == (ratios.UNKNOWN, "heavyball: is not installed")


def polar_side(own: float, peer: float) -> Side:
    found = side("polar wide", **{"dualopt": [1.0], "torch Muon": [1.0]})
    for measured, error in zip(found.peers, (own, peer), strict=True):
        measured.facts = {"gaussian": [0.1, error], "log": [0.1, 2 * error]}
    found.kind = "polar"
    return found


def test_speed_for_accuracy_reaches_no_goal() -> None:
    goal = next(g for g in GOALS if g.case == "muon mats30" and g.accurate == "on every spectrum")
    fast = side("muon mats30", **{goal.ours: [0.1] * 3, "torch Muon": [1.0] * 3})
    for error, word in ((0.1, ratios.STRETCH), (0.3, ratios.MISSED)):
        sides = [replace(polar_side(error, 0.2), name=name) for name in ratios.POLAR]
        for polar in sides:
            polar.peers[0].name = goal.ours
        assert ratios.judged(goal, Record({}, [fast, *sides])).word == word


def test_a_peer_in_an_emulated_type_proves_nothing() -> None:
    goal = next(g for g in GOALS if g.case == "muon mats128")
    found = side("muon mats128", **{goal.ours: [0.1] * 3, "torch Muon": [1.0] * 3, "stream": [0.05] * 3})
    found.rule, found.peers[1].family, found.peers[2].facts = "muon", "torch", {"work": "float32"}
    assert ratios.judged(goal, Record({}, [found])).word == ratios.UNKNOWN
    found.peers[2].facts = {"work": "bfloat16"}
    assert ratios.judged(goal, Record({}, [found])).word == ratios.STRETCH


def test_goals_name_what_there_is() -> None:
    for goal in GOALS:
        case = CASES[goal.case]
        names = {peer.name for peer in case.peers}
        assert goal.ours in names
        assert goal.peer in (*names, BEST, "")
        assert goal.stretch <= goal.goal


def test_references_and_floors_name_what_there_is() -> None:
    for case in CASES.values():
        names = [peer.name for peer in case.peers]
        assert len(set(names)) == len(names)
        assert case.reference in (*names, "")


def test_sizes_of_workloads() -> None:
    size = {name: (w.tensors, round(w.parameters / 1e6, 2)) for name, w in WORKLOADS.items()}
    assert size["gpt30"] == (148, 30.14)
    assert size["flat16"] == (1, 16.78)
    assert size["tiny300"] == (300, 0.12)
    assert size["gpt10"] == (57, 9.92)
    assert {name: n for name, (n, _) in size.items() if name.startswith("mats")} == dict.fromkeys(
        ("mats30", "mats768", "mats128"), 48
    )
    for millions in (1, 3, 10, 30, 100, 300):
        assert size[f"scale{millions}"] == (148, pytest.approx(millions, rel=0.02))


def whole() -> Record:
    """A record of every case, with times that are made up."""
    draw = np.random.default_rng(0)
    record = Record({**described(ROOT, sys.executable), "revision": "0"})
    for case in CASES.values():
        w = case.workload
        found = Side(
            case.name, case.kind, case.rule, case.dtype, w.name, w.tensors, w.parameters, case.reference, w.about
        )
        for peer in case.peers:
            phases = [{"import": 1.0, "build": 0.1, "first": 3.0, "second": 0.1}] * 2
            made = Measured(peer.name, peer.family, version="1.0", phases=phases)
            made.runs = [[list(draw.uniform(1, 2, 3)) for _ in range(case.turns.rounds)] for _ in range(2)]
            if case.kind == "polar" and peer.family != "floor":
                made.facts = {s: [0.1, float(draw.uniform(0.01, 0.5))] for s in picture.SPECTRA}
            if peer.name == "products":
                made.facts = {"work": "float32"}
            if case.kind == "life":
                made.facts = {"recompiles": 0}
            if peer.name == "heavyball":
                made.stopped("absent", "heavyball is not installed")
            found.peers.append(made)
        record.cases.append(found)
    return record


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "record.json"
    record = whole()
    record.save(path)
    once = Record.load(path)
    once.save(path)
    assert Record.load(path) == once
    assert [case.name for case in once.cases] == list(CASES)
    for a, b in zip(record.cases, once.cases, strict=True):
        for x, y in zip(a.peers, b.peers, strict=True):
            assert y.turns == pytest.approx(x.turns, rel=1e-4)
    brief = once.brief()
    assert [p.turns for c in brief.cases for p in c.peers] == [
        pytest.approx(p.turns, rel=1e-3) for c in once.cases for p in c.peers
    ]
    assert all(len(turn) == 1 for c in brief.cases for p in c.peers for r in p.runs for turn in r)


def test_a_part_is_measured_again() -> None:
    here = {"processor": "x", "revision": "b"}
    old = Record({**here, "revision": "a"}, [side("one", dualopt=[1.0]), side("two", dualopt=[1.0])])
    new = Record(here, [side("two", dualopt=[2.0])])
    found = new.beside(old)
    assert [(case.name, case.peers[0].turns) for case in found.cases] == [("one", [1.0]), ("two", [2.0])]
    assert found.surroundings["revision"] == "a, b"
    assert Record(here, old.cases).beside(old).surroundings["revision"] == "b"
    assert new.beside(None) == new
    with pytest.raises(DataError, match="processor 'y'"):
        new.beside(Record({"processor": "y"}))


@pytest.mark.parametrize("text", ["", "{}", '{"format": 0}', '{"format": 1, "surroundings": {}, "cases": [{}]}'])
def test_a_file_that_is_no_record(text: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"record\.json"):
        Record.load(path)
    with pytest.raises(DataError, match="cannot be read"):
        Record.load(tmp_path / "none.json")


@pytest.mark.long
def test_the_page_of_a_record(tmp_path: Path) -> None:
    """Every case, every goal and every picture is there, and the same record gives the same bytes."""
    record = whole()
    first, *rest = run.written(record, tmp_path / "speed.md")
    text = first.read_text(encoding="utf-8")
    assert [path.name for path in rest] == ["peers.svg", "scaling.svg", "polar.svg", "record.json"]
    assert all(f"](speed/{name}.svg)" in text for name in ("peers", "scaling", "polar"))
    assert all(f"### {name}: " in text for name, case in CASES.items() if not name.startswith("scale "))
    assert "heavyball does not run here: heavyball is not installed." in text
    assert text.count("| muon mats30 |") == 2
    bytes_of = {path.name: path.read_bytes() for path in (first, *rest)}
    again = run.written(record, tmp_path / "speed.md")
    assert {path.name: path.read_bytes() for path in again} == bytes_of
    for line in text.splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_the_page_of_a_part(tmp_path: Path) -> None:
    record = Record(whole().surroundings, [side(dualopt=[1.0], torch=[2.0])])
    text = page(record, [], tmp_path)
    assert "| dualopt | 1 |" in text
    assert "![" not in text


# ---- the command


def command(*arguments: object, status: int = 0) -> Any:
    result = CliRunner().invoke(app, ["bench", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def test_the_list_of_cases() -> None:
    text = command("--list", "--only", "muon*").stdout
    assert "muon mats768" in text
    assert "adamw" not in text


def test_unknown_cases() -> None:
    assert "no case is called 'mion*'" in command("--only", "mion*", status=2).stderr
    with pytest.raises(RecipeError):
        run.chosen(["none"])


def test_without_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(door, "CHECKOUT", tmp_path)
    said = command("--list", status=2).stderr
    assert "make bench" in said
    assert str(tmp_path) in said


@pytest.mark.long
def test_a_record_is_shown_again(tmp_path: Path) -> None:
    whole().save(tmp_path / "record.json")
    out = command("--record", tmp_path / "record.json", "--page", tmp_path / "speed.md").stdout
    assert "Goals" in out
    assert (tmp_path / "speed.md").is_file()


def test_help_needs_no_framework() -> None:
    code = "import sys; from dualopt.cli import main; sys.argv = ['dualopt', 'bench', '--help']\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\n"
    code += "print(sorted({'torch', 'mlx', 'jax', 'benchmarks'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip().endswith("[]")


@pytest.mark.long
def test_a_whole_run_in_processes(tmp_path: Path) -> None:
    """The coordinator imports no framework, and a real worker answers."""
    pytest.importorskip("torch")
    peers = (PEERS["torch for-loop"], PEERS["dualopt"], Peer("none", "torch_optim:no_such", "torch"))
    case = Case("small", "adamw", SMALL, peers, "torch for-loop", turns=Turns(runs=2, rounds=2, seconds=0.0))
    with processes(ROOT, sys.executable) as opened:
        found = carried_out(case, opened, 2, lambda note: None)
    assert [peer.status for peer in found.peers] == [OK, OK, "failed"]
    own = found.peer("dualopt")
    assert own is not None
    assert own.cosine == pytest.approx(1, abs=1e-6)
    assert [len(r) for r in own.runs] == [2, 2]
    assert own.version is not None
    assert all(math.isfinite(t) and t > 0 for t in own.turns)
