"""How half-precision parameters are kept between updates: masters, Kahan's compensation, stochastic rounding."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dualopt
from dualopt import checkpoint, namespace, storage, transplant
from dualopt.counts import Count
from dualopt.errors import CheckpointError, RecipeError
from dualopt.generator import Stream
from dualopt.namespace import Backend
from dualopt.recipe import Group, Recipe
from dualopt.replay import drive
from dualopt.rounding import LOW, ROUNDINGS, WORD, Kahan, Stochastic, draws, first, key_of_parameter, placed, spread

Numpy = np.ndarray[Any, Any]
MODES = ("master", "kahan", "stochastic")
HALF = ("bfloat16", "float16")
NATIVE = [name for name in ("torch", "mlx") if name in namespace.installed()]
LONG = pytest.mark.long
BOTH = pytest.mark.skipif(len(NATIVE) < 2, reason="between two frameworks")
COUNTS = (3, 2**31, 5, 2**50, 7)

# A long array for a compiled kernel, short ones that are joined, a kernel that MLX stores otherwise, nothing at all.
SHAPES = {"long": (40, 431), "short": (7,), "scalar": (), "kernel": (4, 3, 2, 2), "empty": (0, 3)}
MATRICES = {"tall": (7, 3), "wide": (3, 7), "twin": (7, 3), "kernel": (4, 3, 2, 2)}
ROWS = {"adamw": SHAPES, "scionc": MATRICES}


def recipe(row: str, mode: str, **options: Any) -> Recipe:
    table = {"optimizer": row, "rounding": mode, "step": 1e-3, "shrink_half_life": 4e10, **options}
    return Recipe((Group.from_dict(table),), Count("samples"))


def given(shapes: Mapping[str, Any], dtype: str, updates: int) -> tuple[dict[str, Numpy], list[dict[str, Numpy]]]:
    def values(seed: int, name: str, shape: Any) -> Numpy:
        return storage.rounded(np.asarray(Stream(seed, name).bell(shape)), dtype)

    params = {n: values(0, n, s) for n, s in shapes.items()}
    return params, [{n: values(1 + t, n, s) for n, s in shapes.items()} for t in range(updates)]


def differing(params: Any, state: Any, moment: Any) -> list[str]:
    """The names of arrays with other bits than those of `moment`."""
    found = [n for n, x in moment.params.items() if x.tobytes() != np.asarray(params[n]).tobytes()]
    for n, kept in moment.state.items():
        found += [f"{n}/{k}" for k, x in kept.items() if x.tobytes() != np.asarray(state[n][k]).tobytes()]
    return found


class Native:
    """A model of one framework, its optimizer, and updates by gradients in the layout of snapshots."""

    def __init__(self, name: str, table: Recipe, params: Mapping[str, Numpy], dtype: str, tier: str = "exact") -> None:
        self.backend, self.dtype = namespace.load(name), dtype
        self.torch = name == "torch"
        self.model = {n: self.array(x) for n, x in params.items()}
        if self.torch:
            self.model = {n: x.requires_grad_() for n, x in self.model.items()}
        self.opt: Any = dualopt.optimizer(self.model, table, tier=tier)

    def array(self, x: Numpy) -> Any:
        moved = x if self.torch or x.ndim < 4 else np.moveaxis(x, 1, -1)
        return self.backend.from_numpy(np.ascontiguousarray(moved).reshape(moved.shape), self.dtype)

    def update(self, gradient: Mapping[str, Numpy], count: int) -> None:
        if not self.torch:
            self.opt.update(self.model, {n: self.array(g) for n, g in gradient.items()}, count=count)
            return
        for n, p in self.model.items():
            p.grad = self.array(gradient[n]) if n in gradient else None
        self.opt.step(count=count)


CASES = [
    *(pytest.param("adamw", mode, "exact") for mode in MODES),
    pytest.param("scionc", "stochastic", "exact"),
    *(pytest.param("adamw", mode, "fast", marks=LONG) for mode in MODES),  # compiled
    *(pytest.param("scionc", mode, "exact", marks=LONG) for mode in ("master", "kahan")),
]


@pytest.mark.parametrize(("row", "mode", "tier"), CASES)
def test_the_bits_of_numpy(backend: Backend, row: str, mode: str, tier: str) -> None:
    """In the exact tier, and for elementwise rows in the fast one; the last update is far along the count."""
    for dtype in HALF:
        params, grads = given(ROWS[row], dtype, len(COUNTS))
        expected = list(drive(recipe(row, mode), params, grads, COUNTS, dtype=dtype))[-1]
        assert any(not np.array_equal(params[n], x) for n, x in expected.params.items())
        run = drive(recipe(row, mode), params, grads, COUNTS, dtype=dtype, backend=backend.name, tier=tier)
        last = list(run)[-1]
        assert differing(last.params, last.state, expected) == [], dtype


@BOTH
@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_changes_hands_has_the_bits_of_one_that_does_not(tmp_path: Path, mode: str) -> None:
    for row, dtype in (("adamw", "bfloat16"), ("scionc", "float16")):
        params, grads = given({n: s for n, s in ROWS[row].items() if n != "empty"}, dtype, len(COUNTS))
        table, path = recipe(row, mode), tmp_path / f"{row}.safetensors"
        runner = Native("torch", table, params, dtype)
        moments = drive(table, params, grads, COUNTS, dtype=dtype)
        for t, (gradient, count, moment) in enumerate(zip(grads, COUNTS, moments, strict=True)):
            if t:
                checkpoint.save(path, runner.opt.snapshot(), metadata={})
                runner = Native(("torch", "mlx")[t % 2], table, params, dtype)
                runner.opt.restore(checkpoint.load(path)[0])
            runner.update(gradient, count)
            here = runner.opt.snapshot()
            assert differing(here.parameters, here.state, moment) == [], (row, t)


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("mode", MODES)
def test_parameters_round_alike_whatever_is_updated_with_them(name: str, mode: str) -> None:
    params, grads = given({n: s for n, s in SHAPES.items() if n != "empty"}, "bfloat16", 3)
    together = Native(name, recipe("adamw", mode), params, "bfloat16", "fast")
    for gradient in grads:
        together.update(gradient, 5)
    here = together.opt.snapshot()
    for n in params:
        alone = Native(name, recipe("adamw", mode), {n: params[n]}, "bfloat16", "fast")
        for gradient in grads:
            alone.update({n: gradient[n]}, 5)
        assert alone.opt.snapshot().parameters[n].tobytes() == here.parameters[n].tobytes(), n


@LONG
def test_kernels_of_torch_store_the_same_bits() -> None:
    """Compiled and eager, in pieces of a long parameter and with strides that are not dense."""
    torch = pytest.importorskip("torch")
    from dualopt_torch import Optimizer
    from dualopt_torch.execute import can_compile
    from dualopt_torch.storing import PIECE

    found = []
    for compiled in (True, False) if can_compile() else (False,):
        for mode in ("kahan", "stochastic"):
            p = torch.from_numpy(np.array(Stream(0, "p").bell((2, PIECE // 2 + 9)))).to(torch.bfloat16)
            strided = torch.zeros(2 * p.shape[1], 3, dtype=torch.bfloat16)[: p.shape[1], :2].T
            for theta in (p.clone(), strided.copy_(p)):
                x = theta.requires_grad_() if theta.is_leaf else theta.detach().requires_grad_()
                x.grad = torch.full_like(x, 1e-3)
                opt = Optimizer({"p": x}, recipe("lion", mode, shrink_half_life=1e3), compiled=compiled)
                for _ in range(2):
                    opt.step()
                found.append((mode, x.detach().float().numpy().tobytes()))
    for mode in ("kahan", "stochastic"):
        assert len({bits for m, bits in found if m == mode}) == 1, mode


@pytest.mark.parametrize("mode", ["stochastic", pytest.param("master", marks=LONG), pytest.param("kahan", marks=LONG)])
def test_compiled_steps_of_mlx_round_with_the_count_of_the_device(mode: str) -> None:
    pytest.importorskip("mlx.core")
    params, grads = given({"w": (9, 5)}, "bfloat16", 4)
    table = recipe("lion", mode, shrink_half_life=1e3)
    eager, compiled = (Native("mlx", table, params, "bfloat16", "fast") for _ in range(2))
    step = compiled.opt.compile(lambda g: compiled.opt.update(compiled.model, {"w": g}))
    for gradient, count in zip(grads, COUNTS, strict=False):
        eager.update(gradient, count)
        step(compiled.array(gradient["w"]), count=count)
    a, b = eager.opt.snapshot(), compiled.opt.snapshot()
    assert a.parameters["w"].tobytes() == b.parameters["w"].tobytes()
    assert a.counts == b.counts


@pytest.mark.parametrize("dtype", HALF)
def test_stochastic_rounding_is_right_in_the_mean(dtype: str) -> None:
    """θ goes to one of the two neighbours of x, up as often as x lies along the way, subnormal ones of float16 too."""
    n, bits = 2**14, {"bfloat16": 16, "float16": 13}[dtype]
    for x in (1.0 + 2.0**-12, -3.3, 7e-3, 3e-6 if dtype == "float16" else 3e-30, 0.0):
        stored = np.full(n, x, np.float32)
        like = storage.store(stored, dtype)
        k = Stochastic().scalars({}, dualopt.clock.Clock(77, 1), ())
        h = draws(placed(storage.index(0, n), key_of_parameter("w")), storage.word(*(k[w] for w in WORD)))
        kept = storage.widen(Stochastic().closed(_casts(), stored, like, h)[0]).astype(np.float64)
        exact, spacing = float(np.float32(x)), _spacing(x, dtype)
        share = exact / spacing - math.floor(exact / spacing)
        assert set(np.unique(kept)) <= {math.floor(exact / spacing) * spacing, math.ceil(exact / spacing) * spacing}
        deviation = spacing * math.sqrt(share * (1 - share) / n)
        assert abs(kept.mean() - exact) <= 4.5 * deviation + spacing * 2.0**-bits, x  # two-sided 7e-6


def _spacing(x: float, dtype: str) -> float:
    digits, least = {"bfloat16": (8, -126), "float16": (11, -14)}[dtype]
    return 2.0 ** (max(math.frexp(x)[1] - 1 if x else least, least) - digits + 1)


def _casts() -> Any:
    from dualopt.numpy_backend import CASTS

    return CASTS["exact"]


def test_special_values_pass_through_stochastic_rounding() -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1.0, -2.0], np.float32)
    for dtype in HALF:
        like = storage.store(x, dtype)
        kept = storage.widen(Stochastic().closed(_casts(), x, like, np.full(7, 0xFFFF, np.int32))[0])
        assert np.array_equal(kept, x, equal_nan=True)


def test_draws_are_a_function_of_name_count_and_place() -> None:
    words = {tau: Stochastic().scalars({}, dualopt.clock.Clock(tau, 1), ()) for tau in (1, 2, 2**32, 2**62)}
    assert len({tuple(k.values()) for k in words.values()}) == 4
    assert all(np.float32(x) == x for k in words.values() for x in k.values())

    def of(name: str, tau: int, start: int, n: int) -> Numpy:
        word = storage.word(*(words[tau][w] for w in WORD))
        return np.asarray(draws(placed(storage.index(first(start), n), key_of_parameter(name)), word))

    whole = of("a", 1, 0, 4096)
    assert np.array_equal(of("a", 1, 100, 50), whole[100:150])
    assert np.array_equal(of("a", 1, 2**33 + 5, 3), whole[5:8])  # places count modulo 2^32
    for other in (of("b", 1, 0, 4096), of("a", 2, 0, 4096), of("a", 1, 4096, 4096), np.roll(whole, 1)):
        # independent uniform numbers: correlation 0 ± 1/√n, and equal once in 2^16
        assert abs(np.corrcoef(whole, other)[0, 1]) < 4.5 / math.sqrt(4096)
        assert (whole == other).sum() <= 4
    # each of 16 equal parts of the range, of 2^16 places: 2^12 ± √2^12
    counts = np.bincount(of("a", 2, 0, 2**16) >> 12, minlength=16)
    assert (abs(counts - 2**12) < 4.5 * 2**6).all()
    assert set(np.unique(whole >> 16)) == {0}
    for a, b in pairwise(range(-2, 3)):
        assert first(a & LOW) + 1 == first(b & LOW)


def test_bits_that_overflow_go_up() -> None:
    bits = np.array([0x3F80_8000, 0x3F80_7FFF], np.int32)
    assert spread(bits, np.array([0x8000, 0x8000], np.int32), 16).tolist() == [0x3F81_0000, 0x3F80_0000]
    assert spread(bits, np.array([0, 0xFFFF], np.int32), 16).tolist() == [0x3F80_0000, 0x3F81_0000]


@pytest.mark.parametrize("name", NATIVE)
def test_what_is_kept_beside_parameters(name: str) -> None:
    params, grads = given({"w": (9, 5)}, "bfloat16", 1)
    beside = {"nearest": set(), "master": {"master"}, "kahan": {"compensation"}, "stochastic": set()}
    for mode, keys in beside.items():
        run = Native(name, recipe("lion", mode, shrink_half_life=40.0), params, "bfloat16")
        run.update(grads[0], 1)
        state = run.opt.state[run.model["w"]] if name == "torch" else run.opt.state["memory"]["w"]
        kept = {key: str(x.dtype).rpartition(".")[2] for key, x in state.items() if key not in ("m", "tau")}
        assert kept == {key: "bfloat16" if key == "compensation" else "float32" for key in keys}
    run = Native(name, recipe("lion", "master"), params, "float32")
    run.update(grads[0], 1)
    assert "master" not in run.opt.snapshot().state["w"]  # float32 parameters need none


def test_torch_state_dicts_keep_types_and_bits() -> None:
    torch = pytest.importorskip("torch")
    params, grads = given({"w": (9, 5), "b": (3,)}, "bfloat16", 4)
    for mode in MODES:
        table = recipe("adamw", mode)
        run = Native("torch", table, params, "bfloat16", "fast")
        run.update(grads[0], 1)
        run.update(grads[1], 2)
        there = {n: x.detach().float().numpy() for n, x in run.model.items()}
        again = Native("torch", table, there, "bfloat16", "fast")
        again.opt.load_state_dict(run.opt.state_dict())
        for one in (run, again):
            one.update(grads[2], 3)
        assert all(torch.equal(run.model[n], again.model[n]) for n in params)
        mine, its = run.opt.state[run.model["w"]], again.opt.state[again.model["w"]]
        assert mine.keys() == its.keys()
        for key, x in mine.items():
            assert getattr(x, "dtype", None) == getattr(its[key], "dtype", None), key


@pytest.mark.parametrize("name", NATIVE)
def test_a_master_begins_with_what_the_weights_are_at_the_first_update(name: str) -> None:
    params, grads = given({"w": (9, 5)}, "bfloat16", 1)
    table = recipe("lion", "master", shrink_half_life=1e3)
    late = Native(name, table, {"w": np.zeros((9, 5), np.float32)}, "bfloat16")
    if name == "torch":
        late.model["w"].data.copy_(late.array(params["w"]))
    else:
        late.model["w"] = late.array(params["w"])
    soon = Native(name, table, params, "bfloat16")
    for run in (late, soon):
        run.update(grads[0], 1)
    one, other = late.opt.snapshot(), soon.opt.snapshot()
    assert one.state["w"]["master"].tobytes() == other.state["w"]["master"].tobytes()


@pytest.mark.parametrize("name", NATIVE)
def test_another_rounding_is_another_recipe(name: str) -> None:
    params, grads = given({"w": (9, 5)}, "bfloat16", 1)
    run, other = (
        Native(name, recipe("lion", m, shrink_half_life=40.0), params, "bfloat16") for m in ("nearest", "kahan")
    )
    run.update(grads[0], 1)
    with pytest.raises(CheckpointError, match=r"where group.all.rounding is not stated, here 'kahan'"):
        other.opt.restore(run.opt.snapshot())


@pytest.mark.parametrize("name", NATIVE)
def test_runs_go_on_under_another_rounding(name: str) -> None:
    """From any to any, with all the bits that were kept: a master of what Kahan's sum was, and back."""
    params, grads = given({"w": (9, 5), "b": (3,)}, "bfloat16", 3)
    tables = {mode: recipe("adamw", mode, shrink_half_life=40.0) for mode in ("nearest", *MODES)}
    for old, table in tables.items():
        run = Native(name, table, params, "bfloat16")
        run.update(grads[0], 1)
        saved = run.opt.snapshot()
        x = Kahan().opened(lambda s: s, saved.parameters["w"], saved.state["w"]) if old == "kahan" else None
        x = saved.state["w"].get("master", saved.parameters["w"]) if x is None else x
        for new, wanted in tables.items():
            other = Native(name, wanted, params, "bfloat16")
            other.opt.restore(transplant.under(transplant.rounded(saved, wanted), wanted))
            here = other.opt.snapshot()
            assert np.array_equal(here.parameters["w"], saved.parameters["w"])
            if new == "master":
                assert np.array_equal(here.state["w"]["master"], x)
            elif new == "kahan":  # twice the bits of bfloat16, each half rounded to nearest
                again = Kahan().opened(lambda s: s, here.parameters["w"], here.state["w"])
                assert (np.abs(again - x) <= np.abs(x) * 2.0**-16).all()
            other.update(grads[1], 1)
    with pytest.raises(RecipeError, match="no group matches"):
        transplant.rounded(saved, Recipe((Group("lion", match=("w",)),)))


def test_nothing_of_past_updates_is_kept() -> None:
    """Neither places of other combinations of gradients, nor the gradients that a master has met."""
    torch = pytest.importorskip("torch")
    from dualopt_torch import Optimizer

    for mode in ("stochastic", "master", "kahan"):
        named = {f"p{i}": torch.nn.Parameter(torch.ones(100 + i, dtype=torch.bfloat16)) for i in range(6)}
        opt = Optimizer(named, Recipe((Group("adamw", rounding=mode),)))
        met = []
        for t in range(12):
            for i, p in enumerate(named.values()):
                p.grad = torch.ones_like(p) if t == 0 or (t * 7 >> i) & 1 else None
                met += [weakref.ref(p.grad)] if p.grad is not None else []
            opt.step()
        opt.zero_grad()
        assert not [one for one in met if one() is not None], mode
        places = opt._execute._storing.closing._places
        assert sum(x.numel() for x in places.values()) <= sum(p.numel() for p in named.values())


def test_another_rounding_of_mixed_groups_with_late_and_left_out_parameters() -> None:
    """float32 beside bfloat16, no update so far, nothing in it, and a group that matches nothing."""
    torch = pytest.importorskip("torch")
    optional = {"name": "none", "optimizer": "sgdm", "match": ["nothing"], "optional": True}

    def run(mode: str) -> tuple[dict[str, Any], Any]:
        shapes = {"h": (3, 4), "late": (2,), "e": (0, 2), "f": (5,)}
        kinds = {name: torch.float32 if name == "f" else torch.bfloat16 for name in shapes}
        named = {n: torch.nn.Parameter(torch.ones(s, dtype=kinds[n])) for n, s in shapes.items()}
        group = {"optimizer": "adamw", "rounding": mode}
        return named, dualopt.optimizer(named, {"group": [optional, group]})

    def step(named: dict[str, Any], opt: Any) -> None:
        for name, p in named.items():
            p.grad = None if name == "late" else torch.full_like(p, 0.5)
        opt.step()

    for old in ROUNDINGS:
        named, opt = run(old)
        step(named, opt)
        for new in ROUNDINGS:
            other, fresh = run(new)
            fresh.restore(transplant.under(transplant.rounded(opt.snapshot(), fresh.plan.recipe), fresh.plan.recipe))
            assert all(torch.equal(p, other[name]) for name, p in named.items())
            step(other, fresh)


def test_recipes_say_how() -> None:
    group = Group.from_dict({"optimizer": "lion", "rounding": "kahan"})
    assert Recipe.from_dict(Recipe((group,)).to_dict()).groups == (group,)
    assert "rounding" not in Group("lion").to_dict()
    with pytest.raises(RecipeError, match=r"rounding is one of nearest, .*, got 'kahn'; did you mean 'kahan'"):
        Group("lion", rounding="kahn")
    with pytest.raises(RecipeError, match=r"keeps the weights that it moves in float32.*drop rounding = 'master'"):
        Group("sf_adamw", rounding="master")


UPDATES = 10_000
HALF_LIFE = 20_000.0  # of the weights: one update takes 3.5e-5 of them, 1/112 of half a spacing of bfloat16 at most
NOISE = 1e-4  # η: an update of signs, shorter than half a spacing for every weight above 0.05


@LONG
@pytest.mark.parametrize("name", NATIVE)
def test_weights_reach_the_norm_of_the_oracle(name: str) -> None:
    """bfloat16 weights, a group for each mode, against float64. Rounded to nearest they do not shrink, and it warns."""
    params, series = given({"w": (16, 32)}, "bfloat16", 64)
    groups = [
        {"name": m, "match": [m], "optimizer": "lion", "rounding": m, "step": NOISE, "shrink_half_life": HALF_LIFE}
        for m in ("nearest", *MODES)
    ]
    table = Recipe.from_dict({"count": {"unit": "samples"}, "group": groups})
    order = [(t * 37 + t // 64) % 64 for t in range(UPDATES)]
    with pytest.warns(RuntimeWarning, match=r"'nearest': .* it will not shrink\. State rounding = 'master', 'kahan'"):
        run = Native(name, table, {g["name"]: params["w"] for g in groups}, "bfloat16", "fast")
    stored = [run.array(g["w"]) for g in series]
    for i in order:
        if run.torch:
            for p in run.model.values():
                p.grad = stored[i]
            run.opt.step()
        else:
            run.opt.update(run.model, dict.fromkeys(run.model, stored[i]))
    alone = Recipe((Group("lion", {"step": NOISE, "shrink_half_life": HALF_LIFE}),), Count("samples"))
    (last,) = deque(drive(alone, params, (series[i] for i in order), dtype="float64"), 1)
    oracle = np.linalg.norm(last.params["w"])
    ends = {mode: np.linalg.norm(x) for mode, x in run.opt.snapshot().parameters.items()}
    assert oracle < 0.9 * np.linalg.norm(params["w"])
    assert {mode: ends[mode] / oracle for mode in MODES} == pytest.approx(dict.fromkeys(MODES, 1.0), rel=0.01)
    assert ends["nearest"] > 1.1 * oracle
