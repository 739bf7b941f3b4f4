"""The cases: what they cover, that their inputs are pinned, and that every backend has the pinned bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dualopt import ENTRIES
from dualopt.catalog import complete
from dualopt.clock import Clock
from dualopt.coordinates import COORDINATES
from dualopt.directions.polar import PRESETS
from dualopt.errors import RecipeError
from dualopt.namespace import Backend, load
from dualopt.plan import Plan
from dualopt.storage import rounded
from dualopt_conformance import closed, experiments, pins, undecided
from dualopt_conformance.bench import Bench
from dualopt_conformance.cases import CASES, EVERY, LATE, SAMPLED, SITUATIONS, STREAMED, STREAMS, Case, chosen
from dualopt_conformance.compare import LEARNED
from dualopt_conformance.digests import digest_of, tensors_of
from dualopt_conformance.probe import flushes
from dualopt_conformance.test_backend import beside_numpy
from dualopt_conformance.walk import checkpoints, digest_of_start, moments, proposed, start, walk

# Updates in the quick tests and in the long ones: of elementwise rows, and of others. The last parameter joins in the
# fifth. All of them on all backends are what `dualopt conformance record` runs.
QUICK, LONG = (24, 2), (100, LATE + 1)


def test_coverage() -> None:
    """Every entry in every situation, every norm, every option that changes a formula."""
    assert {case.situation.name for case in CASES.values()} == set(SITUATIONS)
    for name in ENTRIES:
        assert {f"{name}/{situation}" for situation in SITUATIONS} <= set(CASES)
    shapes = {shape for case in CASES.values() for shape in case.shapes.values()}
    assert {len(shape) for shape in shapes} >= {0, 1, 2, 3, 4}
    assert any(0 in shape for shape in shapes)
    assert all("polar" in CASES[f"{name}/usual"].table for name, entry in ENTRIES.items() if "polar" in entry.defaults)
    assert set(EVERY) == set(CASES) | set(STREAMS)


NOT_TRIED: dict[str, set[object]] = {  # float64 only; what stands for others; what is done where nothing is stated
    "polar": {"exact", *PRESETS}, "strict_mask": {False}, "solve": {"step"}, "polar_form": {"standard"},
    "polar_scaling": {"frobenius"}, "polar_work": {"float32"},
}  # fmt: skip


def test_every_option_is_tried() -> None:
    """Every value of every choice and switch of every coordinate, by a case that is pinned."""
    tried: dict[str, set[object]] = {}
    for case in EVERY.values():
        for key, value in complete(case.entry, case.recipe.groups[0].options).items():
            tried.setdefault(key, set()).add(value)
    for name, coordinate in COORDINATES.items():
        wanted = set(coordinate.choices) if coordinate.kind == "choice" else {True, False}
        if coordinate.kind in ("choice", "switch"):
            assert tried[name] >= wanted - NOT_TRIED.get(name, set()), name
        else:
            assert name in tried, name


def test_lengths() -> None:
    """The free runs: 1,000 updates of elementwise rows, 200 of those that take lengths, 100 of those with products."""
    for case in CASES.values():
        if case.situation.name == "usual" and case.variant in ENTRIES:
            assert case.updates == (100 if case.spectral else 1000 if case.row.local else 200)
        assert case.updates > LATE


def test_globs() -> None:
    assert set(chosen(("lion/*", "adamw.*/usual"))) >= {"lion/usual", "lion/float16", "adamw.strict/usual"}
    with pytest.raises(RecipeError, match=r"no case matches 'lionn/\*'"):
        chosen(("lionn/*",))


@pytest.mark.parametrize("name", ["adamw/usual", "scionc/bfloat16", "lion/underflow"])
def test_inputs(name: str) -> None:
    """A shorter run begins like a longer one; storage types hold; the last parameter joins late."""
    case = CASES[name]
    short, long = list(case.gradients(7)), list(case.gradients())
    assert len(long) == case.updates
    for a, b in zip(short, long, strict=False):
        assert all(a[n].tobytes() == b[n].tobytes() for n in b)
    assert "late" not in long[LATE - 2]
    assert "late" in long[LATE - 1]
    for arrays in (case.parameters(), *short):
        for x in arrays.values():
            assert x.dtype == np.float32
            assert x.tobytes() == rounded(x, case.dtype).tobytes()
    assert case.increments(7) == case.increments()[:7]


def test_situations_are_what_they_say() -> None:
    """Only the situations that say so meet numbers whose squares are subnormal."""
    for situation in SITUATIONS.values():
        case = CASES[f"adamw/{situation.name}"]
        squares = np.concatenate([(g.astype(np.float64) ** 2).ravel() for gs in case.gradients() for g in gs.values()])
        small = (squares > 0) & (squares < 2.0**-126)
        assert small.any() == situation.subnormal


@pytest.mark.parametrize("row", ENTRIES)
def test_inputs_are_pinned(row: str) -> None:
    assert set(pins.pinned()) == set(EVERY)
    for name, case in EVERY.items():
        if case.entry == row:
            assert pins.pinned()[name]["inputs"] == case.inputs_digest()


def quick(backend: Backend, case: Case) -> bool:
    """numpy tries every case, others every row once; XLA compiles every operation for every shape."""
    if backend.name == "numpy":
        return True
    once = case.situation.name == "usual" and case.variant in ENTRIES
    return once and (backend.name != "jax" or case.row.local)


@pytest.mark.parametrize("row", ENTRIES)
def test_exact_tier(backend: Backend, row: str) -> None:
    """The beginning of free runs has the pinned bits on every backend; `-m long` runs more of more cases."""
    for case in EVERY.values():
        if case.entry == row and quick(backend, case):
            exact_tier(backend, case, QUICK[0] if case.row.local and not case.streams else QUICK[1])


@pytest.mark.long
@pytest.mark.parametrize("row", ENTRIES)
def test_exact_tier_at_length(backend: Backend, row: str) -> None:
    """Part of every case; on frameworks that people train with all of each row's usual one, 1,000 updates or 100.

    What "strict" checks, which calls are made and how, is the same in every update.
    """
    lengths = QUICK if backend.name == "strict" else LONG
    for case in EVERY.values():
        if case.entry == row and (backend.name != "jax" or quick(backend, case)):
            part = lengths[0] if case.row.local and not case.streams else lengths[1]
            whole = case.id == f"{row}/usual" and backend.name in ("torch", "mlx")
            exact_tier(backend, case, case.updates if whole else part)


def exact_tier(backend: Backend, case: Case, updates: int) -> None:
    """A free run on a backend against the pinned digests."""
    if case.situation.subnormal and flushes(backend):
        return
    made = experiments.free(case, backend, "exact", updates)
    digests = made[f"{case.id}/digests"]
    assert len(digests) == updates
    assert pins.first_difference(case, digests) is None, case.id


def test_pins_see_a_bit() -> None:
    """Of the last update that is compared, and of a case that is not pinned at all."""
    case = CASES["sgdm/usual"]
    made = experiments.free(case, load("numpy"), "exact", 10)[f"{case.id}/digests"]
    assert pins.first_difference(case, made) is None
    made[9] ^= np.uint64(1)
    assert pins.first_difference(case, made) == 10
    assert pins.first_difference(Case("none", case.table, case.situation), made) == 0


def test_longest_runs_stand_beside_numpys() -> None:
    case = EVERY["muon/underflow"]
    assert case.longest == SITUATIONS["underflow"].spectral
    assert EVERY["row_norm/usual"].longest == EVERY["lion/usual"].longest == SITUATIONS["usual"].updates
    digests = experiments.free(case, load("numpy"), "exact", 6)[f"{case.id}/digests"]
    assert beside_numpy(case, digests) is None
    digests[3] ^= np.uint64(1)
    assert beside_numpy(case, digests) == 4


@pytest.mark.parametrize("name", ["adamw.cautious/usual", "scionc.spectral_conv/usual", "muon/bfloat16"])
def test_experiments_fit_together(name: str) -> None:
    """One update from a start state gives the state after it; the states of a walk are those of `drive`."""
    case = CASES[name]
    known = experiments.reference(case, 12)
    made = experiments.lockstep(case, load("numpy"), "exact", known, 12)
    free = experiments.free(case, load("numpy"), "exact", 12)
    assert sum("/lockstep/" in k for k in made) == len(moments(12)) * sum(f"{name}/lockstep/1/" in k for k in made)
    for key, x in made.items():
        assert x.tobytes() == known[key.replace("/lockstep/", "/after/")].tobytes()
    for key, x in free.items():
        if "/free/" in key:
            assert x.tobytes() == known[key.replace("/free/", "/after/")].tobytes()
    np.testing.assert_array_equal(free[f"{name}/digests"], known[f"{name}/digests"])


def test_marks() -> None:
    assert checkpoints(1000) == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    assert checkpoints(7) == [1, 2, 5, 7]
    assert moments(1000) == [1, 2, 3, 5, 6, 100, 333, 1000]
    assert moments(3) == [1, 2, 3]


def test_walk_is_the_recursion() -> None:
    """θ and state of one moment are the start of the next, and a walk starts where its digest says."""
    case = CASES["adamw/usual"]
    before = None
    for moment in walk(case, 7):
        if before is not None:
            for name in moment.gradient:
                assert moment.theta[name] is before.theta_after[name]
        else:
            full = case.parameters()
            state = {n: {k: np.zeros_like(x) for k in ("m", "v")} for n, x in full.items()}
            assert digest_of(full, state) == digest_of_start(case)
        before = moment


@pytest.mark.parametrize(
    "name",
    [
        f"{row}/{s}"
        for row in (*ENTRIES, "sgdm.averaged", "pion.alternate")
        for s in SITUATIONS
        if f"{row}/{s}" in CASES and s in ("usual", "bfloat16")
    ],
)
def test_what_is_proposed_depends_on_counts_alone(name: str) -> None:
    """The proposal of an update, without those before it, is that of the walk through all of them."""
    length = min(40, CASES[name].updates)
    through = {m.update: m for m in walk(CASES[name], length, lambda planned, theta, state, *_: {
        n: (x, state[n]) for n, x in theta.items()
    })}  # fmt: skip
    for t, planned, proposal in proposed(CASES[name], moments(length)):
        assert proposal == through[t].proposal
        assert planned.row == through[t].planned.row
    assert t == length


@pytest.mark.parametrize("name", [c.id for c in EVERY.values() if c.situation.name == "usual"])
def test_scalars_that_depend_on_the_shape_are_declared(name: str) -> None:
    """A plan derives the scalars of parameters that have lived the same once, unless a part says `shaped`."""
    case = EVERY[name]
    action = Plan(case.recipe, dict(case.shapes)).groups[0].action
    clock = Clock(0, 0).tick(700, 0.5, 0.5)
    clock = replace(clock, sums=case.row.tally(action, clock))
    shapes = (6, 4), (4, 6), (10, 30), (3, 6, 4)
    for part in case.row.parts:
        found = [part.scalars(action, clock, shape) for shape in shapes]
        assert part.shaped or all(k == found[0] for k in found), type(part).__name__


def test_the_start_is_the_rows_own() -> None:
    """State before the first update is what `init` makes, zeros or not."""
    theta, state = start(CASES["adamw/usual"])
    known = experiments.reference(CASES["adamw/usual"], 2)
    for name, arrays in state.items():
        assert known[f"adamw/usual/start/1/{name}"].tobytes() == theta[name].tobytes()
        for key, x in arrays.items():
            assert known[f"adamw/usual/start/1/{name}/{key}"].tobytes() == x.tobytes()


def test_undecided_signs_are_found() -> None:
    """Elements whose readout cancels are marked from the update on in which it does."""
    case = CASES["adamw.strict/usual"]
    made = experiments.reference(case, 300)
    marks = np.concatenate([x.ravel() for k, x in made.items() if "/undecided/" in k])
    assert 0 <= (marks > 0).sum() < 0.1 * marks.size
    assert not any(
        (x > 0).any() for k, x in experiments.reference(CASES["sgdm/usual"], 20).items() if "/undecided/" in k
    )


# ---- what follows from the rows themselves


@pytest.mark.long
@pytest.mark.parametrize("row", ENTRIES)
def test_rows_that_decide_say_so(row: str) -> None:
    """Where the bounds find a decision that rounding could turn, free runs look for such elements, too."""
    case = CASES[f"{row}/usual"]
    bench = Bench(case, experiments.reference(case, case.updates, oracle=False))
    unsure = any(a.unsure.any() for a in bench.allowed.values())
    assert undecided.decides(case.row) or undecided.projects(case.row) or case.spectral or not unsure


@pytest.mark.parametrize("name", ["rotational_adamw/usual", "rotational_sgdm/usual", "rotational_lion.arcsine/usual"])
def test_a_tangent_part_of_rounding_is_undecided(name: str) -> None:
    """All that the bounds are unsure of, and little else: rows of one entry, which have no tangent part."""
    case = CASES[name]
    known = experiments.reference(case, oracle=False)
    bench = Bench(case, known)
    for place, one in bench.allowed.items():
        marked = bench.undecided(place.tensor, place.update)
        seen = np.zeros(one.unsure.shape, bool) if marked is None else bench.seen(place, marked)
        assert (seen | ~one.unsure).all(), place
    first = {n: known[f"{name}/undecided/{n}"] for n in case.shapes}
    columns = "column" in case.shapes
    assert {n for n, x in first.items() if (x > 0).any()} == ({"column"} if columns else set())
    assert not columns or (first["column"] == 1).all()
    nu = bench.undecided("column/nu", 1) if columns else None
    assert nu is None or (nu.shape == known[f"{name}/start/1/column/nu"].shape and nu.all())


PRODUCTS = """muon scion scionc regularized_muon mimuon freon kaon normuon sf_normuon polargrad hybrid_polargrad pion
hyperball shampoo"""


@pytest.mark.parametrize("row", ENTRIES)
def test_products_are_noticed(row: str) -> None:
    assert CASES[f"{row}/usual"].spectral == (row in PRODUCTS.split())


def test_products_of_options_are_noticed() -> None:
    spectral = "scionc.spectral_conv scionc.rotational scionc.sphere muon.transported adamw.multiplicative shampoo.inv"
    assert all(EVERY[f"{name}/usual"].spectral for name in spectral.split())
    plain = "scionc.row scionc.frobenius adamw.held sophia.inv adamw.hyperball rotational_adamw.tensor"
    assert not any(EVERY[f"{name}/usual"].spectral for name in plain.split())


# ---- microbatches


def test_microbatches() -> None:
    """Their number varies, none is read twice, and a run on the first gradients alone is another one."""
    case = STREAMS["adamw.inv/usual"]
    sizes = [len(case.microbatches(t)) for t in range(1, 7)]
    assert sizes == [*STREAMED, *STREAMED]
    drawn = [g["odd"].tobytes() for t in range(1, 7) for g in case.microbatches(t)]
    assert len(set(drawn)) == len(drawn)
    assert all("late" not in g for g in case.microbatches(LATE - 1))
    assert all("late" in g for g in case.microbatches(LATE))
    assert case.sampled(SAMPLED) is None
    sampled = STREAMS["sophia.full_samples/usual"]
    assert [sampled.sampled(t) is not None for t in range(1, 7)] == [t % SAMPLED == 0 for t in range(1, 7)]


def test_streams_have_no_lockstep() -> None:
    case = STREAMS["sophia.inv/usual"]
    known = experiments.reference(case, 8)
    assert not any("/start/" in key or "/oracle" in key for key in known)
    assert experiments.lockstep(case, load("numpy"), "exact", known, 8) == {}
    assert Bench(case, known).allowed == {}
    assert not undecided.judged_freely(case)


@pytest.mark.parametrize(("name", "circulates"), [("adamw", False), ("lion", False), ("scionc.row", False),
                                                  ("adam_l2", True), ("sgdm.nesterov", True)])  # fmt: skip
def test_where_errors_circulate(name: str, circulates: bool) -> None:
    """θ enters the memories of rows with an L2 penalty."""
    case = CASES[f"{name}/usual"]
    assert Bench(case, experiments.reference(case, oracle=False)).circulates == circulates


def test_state_comes_before_parameters_and_in_the_order_of_the_recursion() -> None:
    x = np.zeros(1, np.float32)
    state = dict.fromkeys(("z", "v_in", "m_out", "v", "m_in", "m"), x)
    assert [n for n, _ in tensors_of({"w": x}, {"w": state})] == [
        "w/m", "w/m_in", "w/m_out", "w/v", "w/v_in", "w/z", "w",
    ]  # fmt: skip


# ---- the closed loop


@pytest.mark.parametrize("row", ENTRIES)
def test_every_row_learns_in_the_closed_loop(row: str) -> None:
    """As `compare` asks of it: a row that does not needs other numbers in `closed.STATED`."""
    for course in closed.run(row, closed.SEEDS, closed.load_text(), load("numpy"), "fast").values():
        assert closed.final(course.loss) < LEARNED * course.loss[0]


@pytest.mark.parametrize("row", ["adamw", "muon", "polargrad"])
@pytest.mark.parametrize("tier", ["exact", "fast"])
def test_seeds_side_by_side_are_seeds(row: str, tier: str) -> None:
    """Losses and bits are those of a loop of their own."""
    text = closed.load_text()
    together = closed.run(row, (0, 1), text, load("numpy"), tier)
    alone = closed.run(row, (1,), text, load("numpy"), tier)[1]
    assert len(alone.loss) == closed.UPDATES[tier]
    if tier == "exact":
        np.testing.assert_array_equal(together[1].loss, alone.loss)
        np.testing.assert_array_equal(together[1].digests, alone.digests)
    else:
        np.testing.assert_allclose(together[1].loss, alone.loss, rtol=0.02)


def test_gradients_of_the_closed_loop() -> None:
    """Against central differences in float64."""
    text = closed.load_text()
    theta = {n: closed.Stream(0, n).bell(s).astype(np.float64) / 2 for n, s in closed.SHAPES.items()}
    one = np.eye(closed.CLASSES)
    x, y = one[text.classes[:50]], one[text.classes[1:51]]
    _, found = closed.loss_and_gradients(np, theta, x, y)
    for name, g in found.items():
        for at in [(0,) * g.ndim, tuple(n // 2 for n in g.shape), tuple(n - 1 for n in g.shape)]:
            ends = []
            for sign in (1, -1):
                moved = {n: v.copy() for n, v in theta.items()}
                moved[name][at] += sign * 1e-6
                ends.append(closed.loss_and_gradients(np, moved, x, y)[0])
            assert g[at] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-9)


def test_the_closed_loop_learns(backend: Backend) -> None:
    text = closed.load_text()
    losses, digests = closed.run("adamw", (0,), text, backend, "fast")[0]
    assert len(losses) == len(digests) == closed.UPDATES["fast"]
    assert closed.final(losses) < 0.8 * losses[0]


def test_the_text(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.delenv("DUALOPT_TEXT", raising=False)
    own = closed.load_text()
    assert own.name == "the suite's own"
    (tmp_path / "mine.txt").write_bytes(b"abc" * 1000)
    monkeypatch.setenv("DUALOPT_TEXT", str(tmp_path / "mine.txt"))
    assert closed.load_text().sha256 != own.sha256
    for bad in ("none.txt", "short.txt"):
        (tmp_path / "short.txt").write_bytes(b"abc")
        monkeypatch.setenv("DUALOPT_TEXT", str(tmp_path / bad))
        with pytest.raises(closed.DataError, match="DUALOPT_TEXT"):
            closed.load_text()
