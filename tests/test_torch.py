"""The native torch optimizer: against torch.optim, against the exact tier, across saves, and with bad input."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import dualopt  # noqa: E402
from dualopt.errors import (  # noqa: E402
    CheckpointError,
    CountError,
    DualoptError,
    GradientError,
    NonFiniteError,
    RecipeError,
    StaleScalarsError,
)
from dualopt.generator import Stream  # noqa: E402
from dualopt_torch import execute, kernels  # noqa: E402

SHAPES = {"w": (13, 7), "b": (7,), "scalar": (), "empty": (0, 3), "tall": (9, 4)}
ELEMENTWISE = ("sgdm", "rmsprop", "sign_sgdm", "adamw", "adam_l2", "lion")


def parameters(dtype=torch.float32, shapes=SHAPES):
    made = {n: torch.from_numpy(np.array(Stream(0, n).bell(s))).to(dtype) for n, s in shapes.items()}
    return {n: torch.nn.Parameter(x) for n, x in made.items()}


def gradient(p, name, t, scale=1.0):
    g = torch.from_numpy(np.array(Stream(1, f"{name}/{t}").bell(tuple(p.shape)))).to(p.dtype)
    return g * scale * 10.0 ** (t % 5 - 2)


def give(named, t, names=None):
    for n, p in named.items():
        p.grad = gradient(p, n, t) if names is None or n in names else None


def recipe(optimizer="adamw", *, match="*", unit="tokens", per_update=100, nonfinite="raise", schedule=None, **options):
    tables = {"count": {"unit": unit, "per_update": per_update}, "nonfinite": nonfinite}
    if schedule:
        tables["schedule"] = schedule
    return dualopt.Recipe.from_dict({**tables, "group": [{"optimizer": optimizer, "match": [match], **options}]})


def bits(named):
    return {n: p.detach().cpu().numpy().tobytes() for n, p in named.items()}


def run(named, opt, steps, first=0):
    for t in range(first, first + steps):
        give(named, t)
        opt.step(count=17 * (t % 9) + 1)


def scaled_ulp(x, y, scale):
    """|x − y| in units of the last place of the running magnitude, in the type of x."""
    eps = torch.finfo(x.dtype).eps
    tiny = torch.finfo(x.dtype).tiny
    spacing = eps * 2.0 ** torch.floor(torch.log2(torch.clamp(scale.double(), min=tiny)))
    return float(((x.double() - y.double()).abs() / spacing).max()) if x.numel() else 0.0


def magnitude(opt, name, p, k):
    """|θ| + η|u| from the same recursion on absolute values: what rounding errors are relative to."""
    group = opt.plan.groups[0]
    state = {key: x.abs() for key, x in opt._state(name).items()}
    evidence = {"gradient": p.grad.abs()}
    _, _, u = dualopt.recursion.propose(opt_namespace(), group.row, p.detach().abs(), state, evidence, k)
    return p.detach().abs() + k["eta"] * u[""].abs()


def opt_namespace():
    from dualopt_torch.namespace import EXACT

    return EXACT


# --- the same update as torch.optim, from converted settings ------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("make", "group"),
    [
        (
            lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1),
            {
                "optimizer": "adamw",
                "step": 0.01,
                "memory_half_life": dualopt.half_life(0.9, 1),
                "second_memory_half_life": dualopt.half_life(0.99, 1),
                "shrink_half_life": dualopt.half_life(1 - 0.001, 1),
            },
        ),
        (
            lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.05),
            {"optimizer": "sgdm", "step": 0.01 / (1 - 0.9), "memory_half_life": dualopt.half_life(0.9, 1), "l2": 0.05},
        ),
        (
            lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
            {
                "optimizer": "sgdm",
                "step": 0.01 / (1 - 0.9),
                "memory_half_life": dualopt.half_life(0.9, 1),
                "readout": 0.9,
            },
        ),
    ],
    ids=["adamw", "sgd-l2", "sgd-nesterov"],
)
def test_lockstep_with_torch_optim(make, group, dtype):
    """One step from torch's own state, 100 times: θ within 4 units of its running magnitude."""
    theirs = {n: p for n, p in parameters(dtype).items() if p.numel()}
    mine = {n: torch.nn.Parameter(p.detach().clone()) for n, p in theirs.items()}
    ref = make(list(theirs.values()))
    opt = dualopt.optimizer(mine, recipe(unit="updates", per_update=1, **group), tier="exact")
    polyak = group["optimizer"] == "sgdm"
    worst = 0.0
    for t in range(100):
        give(theirs, t)
        before = {n: p.detach().clone() for n, p in theirs.items()}
        for n, p in mine.items():
            p.data.copy_(before[n])
            p.grad = theirs[n].grad.clone()
            if t and polyak:
                opt.state[p]["m"].copy_(ref.state[theirs[n]]["momentum_buffer"] * (1 - 0.9))
            elif t:
                opt.state[p]["m"].copy_(ref.state[theirs[n]]["exp_avg"])
                opt.state[p]["v"].copy_(ref.state[theirs[n]]["exp_avg_sq"])
        k = opt.plan.propose(1, mine).scalars
        scale = {n: magnitude(opt, n, p, k[n]) for n, p in mine.items()}
        ref.step()
        opt.step()
        worst = max(worst, *(scaled_ulp(p.detach(), theirs[n].detach(), scale[n]) for n, p in mine.items()))
    assert worst <= 4


@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (32, 8)])
@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_muon_follows_torch(shape, adjust, monkeypatch):
    """torch's Muon with its Newton-Schulz in float32: 30 steps, normwise in units of u = 2^-24.

    A five-step quintic multiplies a relative error of the input by at most its largest slope, 3.4445^5 ≈ 485;
    each of its 15 products adds about √k u. Budget: 485 · √k · u · η relative to ‖ηu‖, accumulated linearly.
    """
    from torch.optim import _muon

    body = _muon._zeropower_via_newtonschulz
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    p = torch.nn.Parameter(torch.from_numpy(np.array(Stream(0, "muon").bell(shape))))
    q = torch.nn.Parameter(p.detach().clone())
    ref = torch.optim.Muon([q], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn=adjust)
    scale = {"original": "keller_jordan", "match_rms_adamw": "moonlight"}[adjust]
    opt = dualopt.optimizer(
        {"p": p},
        recipe(
            "muon",
            unit="updates",
            per_update=1,
            step=0.02,
            memory_half_life=dualopt.half_life(0.95, 1),
            readout=0.95,
            scale=scale,
            shrink_half_life=dualopt.half_life(1 - 0.02 * 0.1, 1),
        ),
    )
    assert body(torch.ones(2, 2), (3.4445, -4.7750, 2.0315), 5, 1e-7).dtype == torch.float32
    factor = opt.plan.groups[0].row.scalars(opt.plan.groups[0].action, dualopt.clock.Clock(1, 1), shape)["scale"]
    for t in range(30):
        g = gradient(p, "muon", t)
        p.grad, q.grad = g.clone(), g.clone()
        ref.step()
        opt.step()
        step_norm = 0.02 * factor * min(shape) ** 0.5
        budget = (t + 1) * (485 * max(shape) ** 0.5 * 2.0**-24 * step_norm + 2.0**-24 * float(p.detach().norm()))
        assert float((p - q).detach().norm()) <= budget


# --- tiers, compilation --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("shrink", ["direct", "cautious", "corrected"])
def test_compiled_kernels_have_the_bits_of_the_exact_tier(name, shrink):
    if not execute.can_compile():
        pytest.skip("torch's compiler needs a C++ compiler")
    options = {"shrink": shrink, "shrink_half_life": 5000.0}
    exact, fast = parameters(), parameters()
    run(exact, dualopt.optimizer(exact, recipe(name, **options), tier="exact"), 20)
    compiled = dualopt_torch_optimizer(fast, recipe(name, **options), compiled=True)
    run(fast, compiled, 20)
    assert bits(exact) == bits(fast)


def dualopt_torch_optimizer(named, chosen, **options):
    from dualopt_torch import Optimizer

    return Optimizer(named, chosen, **options)


def test_one_kernel_per_rule_and_no_recompilation(monkeypatch):
    """200 steps of changing Δτ, shapes and lr: one kernel per rule and dtype, which is called without guards."""
    if not execute.can_compile():
        pytest.skip("torch's compiler needs a C++ compiler")
    from torch._dynamo.utils import counters
    from torch._inductor import compile_fx

    made = []
    whole = compile_fx.compile_fx_inner
    monkeypatch.setattr(compile_fx, "compile_fx_inner", lambda *args: made.append(args) or whole(*args))
    kernels._kernel.cache_clear()
    counters.clear()
    for k, name in enumerate(("adamw", "lion")):
        for dtype in (torch.float32, torch.bfloat16):
            for r in range(5):
                shapes = {f"p{i}": (64 + 37 * i + 11 * r, 1 + i) for i in range(3)} | {"one": (1,), "none": (0,)}
                named = parameters(dtype, {**shapes, "long": (151, 131 + r)})
                opt = dualopt_torch_optimizer(named, recipe(name), compiled=True)
                sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda t: 1 / (1 + t))
                run(named, opt, 20)
                sched.step()
                run(named, opt, 20, first=20)
        assert len(made) == 2 * (k + 1)
    assert not counters["stats"]  # nothing went by torch.compile


def test_the_package_leaves_the_compiler_out_until_it_is_needed():
    code = "import sys, dualopt_torch; assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"], check=True)


def test_a_compiled_train_step_counts_every_update():
    if not execute.can_compile():
        pytest.skip("torch's compiler needs a C++ compiler")
    model, twin = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    twin.load_state_dict(model.state_dict())
    opts = [dualopt.optimizer(m, recipe("adamw", step=0.01)) for m in (model, twin)]

    def loss(m, x):
        return (m(x) ** 2).sum()

    def train(x):
        opts[0].zero_grad()
        loss(model, x).backward()
        opts[0].step()

    compiled = opts[0].compile(train, backend="eager")
    for t in range(12):
        x = torch.from_numpy(np.array(Stream(3, str(t)).bell((4, 8))))
        compiled(x, count=t + 1)
        opts[1].zero_grad()
        loss(twin, x).backward()
        opts[1].step(count=t + 1)
    assert opts[0].plan.counts == opts[1].plan.counts == dict.fromkeys(("weight", "bias"), 78)
    assert bits(dict(model.named_parameters())) == bits(dict(twin.named_parameters()))


def test_recorded_steps_need_advance():
    from torch._subclasses.fake_tensor import FakeTensorMode

    named = parameters(shapes={"w": (4, 3)})
    opt = dualopt.optimizer(named, recipe())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        real = gradient(named["w"], "w", 0)
        fake = mode.from_tensor(real)
    named["w"].grad = None
    opt._named["w"].grad = None
    with pytest.raises(StaleScalarsError, match="advance"):
        opt._proposal({"w": fake}, None)
    opt.advance(5)
    assert opt._proposal({"w": fake}, None).dtau == 5


# --- counts ---------------------------------------------------------------------------------------------


def test_late_parameters_have_their_own_bias_correction():
    """A parameter whose gradients start later moves as one whose training starts then."""
    named, late = parameters(shapes={"w": (4, 3), "b": (3,)}), parameters(shapes={"b": (3,)})
    opt, alone = dualopt.optimizer(named, recipe(step=0.01)), dualopt.optimizer(late, recipe(step=0.01))
    for t in range(8):
        give(named, t, None if t >= 3 else ("w",))
        opt.step(count=10 + t)
        if t >= 3:
            give(late, t)
            alone.step(count=10 + t)
    assert opt.plan.counts == {"w": 108, "b": 75}
    assert bits(named)["b"] == bits(late)["b"]


def test_advance_then_step_is_a_step_with_count():
    a, b = parameters(), parameters()
    one, two = dualopt.optimizer(a, recipe()), dualopt.optimizer(b, recipe())
    for t in range(5):
        give(a, t)
        give(b, t, None if t != 2 else ("w", "b"))
        if t == 2:
            give(a, t, ("w", "b"))
        one.step(count=t + 1)
        two.advance(t + 1)  # assumes all parameters; the step corrects it to those with gradients
        with pytest.raises(CountError, match="already counted"):
            two.step(count=3)
        two.advance(t + 1)
        two.step()
    assert bits(a) == bits(b)
    assert one.plan.saved_counts() == two.plan.saved_counts()


def test_schedulers_write_lr_unless_the_recipe_schedules():
    named = parameters(shapes={"w": (4, 3)})
    opt = dualopt.optimizer(named, recipe(step=0.5))
    sched = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
    give(named, 0)
    opt.step()
    sched.step()
    assert (opt.param_groups[0]["lr"], opt.param_groups[0]["step"]) == (0.25, 0.5)
    give(named, 1)
    before = named["w"].detach().clone()
    opt.step()
    moved = named["w"].detach() - before
    same = parameters(shapes={"w": (4, 3)})
    other = dualopt.optimizer(same, recipe(step=0.5))
    give(same, 0)
    other.step()
    other.param_groups[0]["lr"] = 0.5  # the same updates with η = 0.5
    give(same, 1)
    start = same["w"].detach().clone()
    other.step()
    assert torch.allclose(moved, 0.5 * (same["w"].detach() - start), rtol=1e-5)

    scheduled = dualopt.optimizer(named, recipe(step=0.5, schedule={"shape": "linear", "total": 400, "warmup": 200}))
    lrs = []
    for t in range(4):
        give(named, t)
        scheduled.step()
        lrs.append(scheduled.param_groups[0]["lr"])
    assert lrs == [0.25, 0.5, 0.25, 0.0]
    scheduled.param_groups[0]["lr"] = 0.1
    give(named, 4)
    with pytest.raises(RecipeError, match="LR scheduler"):
        scheduled.step()


def test_closure_is_called_with_gradients():
    model = torch.nn.Linear(3, 2)
    opt = dualopt.optimizer(model, recipe("sgdm", step=0.1))

    def closure():
        opt.zero_grad()
        loss = (model(torch.ones(4, 3)) ** 2).mean()
        loss.backward()
        return loss

    losses = [float(opt.step(closure).detach()) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]


# --- half precision, saving ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["adamw", "scionc"])
def test_resuming_is_bitwise_and_keeps_the_state_type(name, dtype):
    shapes = {"w": (6, 5), "v": (4, 4)}
    whole, broken = parameters(dtype, shapes), parameters(dtype, shapes)
    run(whole, dualopt.optimizer(whole, recipe(name)), 10)
    opt = dualopt.optimizer(broken, recipe(name))
    run(broken, opt, 4)
    file = io.BytesIO()
    torch.save({"model": {n: p.detach() for n, p in broken.items()}, "opt": opt.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = parameters(dtype, shapes)
    for n, p in resumed.items():
        p.data.copy_(saved["model"][n])
    again = dualopt.optimizer(resumed, recipe(name))
    again.load_state_dict(saved["opt"])
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert all(x.dtype == wide for s in again.state.values() for k, x in s.items() if k != "tau")
    run(resumed, again, 6, first=4)
    view = {n: p.detach().view(torch.uint8).numpy().tobytes() for n, p in whole.items()}
    assert view == {n: p.detach().view(torch.uint8).numpy().tobytes() for n, p in resumed.items()}


def test_snapshot_moves_to_another_optimizer():
    named, other = parameters(), parameters(shapes=SHAPES)
    opt = dualopt.optimizer(named, recipe("lion"))
    run(named, opt, 3)
    for p in other.values():
        p.data.zero_()
    copy_ = dualopt.optimizer(other, recipe("lion"))
    copy_.restore(opt.snapshot())
    run(named, opt, 3, first=3)
    run(other, copy_, 3, first=3)
    assert bits(named) == bits(other)


@pytest.mark.parametrize(
    "change",
    [
        lambda sd: sd["param_groups"].append(sd["param_groups"][0]),
        lambda sd: sd["param_groups"][0].update(memory_half_life=3.0),
        lambda sd: sd["param_groups"][0].update(optimizer="lion"),
        lambda sd: sd["param_groups"][0].update(param_names=["x", "y"]),
        lambda sd: sd["state"][0].pop("v"),
        lambda sd: sd["state"][0].update(v=torch.zeros(2)),
        lambda sd: sd["state"].pop(0) and sd["state"][1].update(tau=10**9),
    ],
)
def test_a_foreign_state_dict_is_refused(change):
    shapes = {"w": (6, 5), "v": (4, 4)}
    named = parameters(shapes=shapes)
    opt = dualopt.optimizer(named, recipe())
    run(named, opt, 2)
    foreign = copy.deepcopy(opt.state_dict())
    change(foreign)
    before = copy.deepcopy(opt.state_dict())
    with pytest.raises(CheckpointError):
        opt.load_state_dict(foreign)
    after = opt.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert all(torch.equal(after["state"][i]["v"], before["state"][i]["v"]) for i in (0, 1))
    assert opt.plan.tau == 1 + 18


def test_half_precision_that_cannot_shrink_warns():
    with pytest.warns(RuntimeWarning, match="will not shrink"):
        dualopt.optimizer(parameters(torch.bfloat16), recipe(shrink_half_life=1e6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dualopt.optimizer(parameters(torch.bfloat16), recipe(shrink_half_life=1e3))


# --- models ------------------------------------------------------------------------------------------------


def test_copies_and_pickles_continue_alike():
    import pickle

    model = torch.nn.Linear(5, 4)
    opt = dualopt.optimizer(model, recipe("lion"))
    run(dict(model.named_parameters()), opt, 3)
    twins = [copy.deepcopy((model, opt)), pickle.loads(pickle.dumps((model, opt)))]
    for m, o in ((model, opt), *twins):
        run(dict(m.named_parameters()), o, 3, first=3)
    assert len({str(bits(dict(m.named_parameters()))) for m, _ in ((model, opt), *twins)}) == 1


def test_copies_beside_a_scheduler_step_for_themselves():
    """Schedulers put a `step` that knows its optimizer into the instance."""
    import pickle

    named = parameters(shapes={"w": (4, 3)})
    opt = dualopt.optimizer(named, recipe())
    torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
    for other in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        other.param_groups[0]["params"][0].grad = gradient(named["w"], "w", 0)
        other.step(count=7)
        assert (other.plan.tau, opt.plan.tau) == (7, 0)


def test_wrappers_do_not_change_names():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3))
    wrapped = torch.nn.DataParallel(torch.compile(model))
    assert dualopt.optimizer(wrapped, recipe()).param_groups[0]["param_names"] == ["0.weight", "0.bias"]


def test_layouts_that_change_between_steps():
    """Parameters that become channels-last or contiguous, and states loaded across layouts, stay right."""
    if not execute.can_compile():
        pytest.skip("torch's compiler needs a C++ compiler")
    shape = {"k": (8, 4, 5, 5)}
    reference, other = parameters(shapes=shape), parameters(shapes=shape)
    other["k"].data = other["k"].data.to(memory_format=torch.channels_last)
    first = dualopt_torch_optimizer(reference, recipe(), compiled=True)
    second = dualopt_torch_optimizer(other, recipe(), compiled=True)
    run(reference, first, 3)
    run(other, second, 3)
    other["k"].data = other["k"].data.contiguous()
    loaded = dualopt_torch_optimizer(other, recipe(), compiled=True)
    loaded.load_state_dict(second.state_dict())
    for named, opt in ((reference, first), (other, loaded)):
        run(named, opt, 3, first=3)
    assert bits(reference) == bits(other)


def test_compiled_updates_are_seen_by_autograd():
    if not execute.can_compile():
        pytest.skip("torch's compiler needs a C++ compiler")
    named = parameters(shapes={"w": (8, 9)})
    opt = dualopt_torch_optimizer(named, recipe(), compiled=True)
    loss = (named["w"] ** 2).sum()
    give(named, 0)
    opt.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_snapshots_and_loads_beside_a_pending_advance():
    named = parameters(shapes={"w": (4, 3)})
    opt = dualopt.optimizer(named, recipe())
    give(named, 0)
    opt.step(count=1)
    saved = copy.deepcopy(opt.state_dict())
    opt.advance(5)
    assert opt.snapshot().counts == {"": 1, "w": 1}
    give(named, 1)
    opt.step()
    assert opt.plan.tau == 6
    opt.advance(7)
    opt.load_state_dict(saved)
    assert opt.plan.saved_counts() == {"": 1, "w": 1}
    opt.step(count=2)
    assert opt.plan.tau == 3


def test_groups_may_be_written_with_what_can_be_carried_out():
    named = parameters(shapes={"w": (4, 3)})
    opt = dualopt.optimizer(named, recipe())
    give(named, 0)
    for key, value, says in (
        ("readout", 5.0, r"readout must be in \[0, 1\]"),
        ("shrink", "cautious", "cannot change"),
        ("lr", float("nan"), "lr must be finite"),
        ("step", 0.0, "step = 0 is the peak"),
    ):
        before, opt.param_groups[0][key] = opt.param_groups[0][key], value
        with pytest.raises(RecipeError, match=says):
            opt.step()
        opt.param_groups[0][key] = before
    opt.param_groups[0]["memory_half_life"] = 50.0
    opt.step()
    corrected = dualopt.optimizer(named, recipe(shrink="corrected", shrink_half_life=1e4))
    corrected.param_groups[0]["lr"] = 1.0
    with pytest.raises(RecipeError, match="relative to the peak"):
        corrected.step()


def test_checkpoints_under_cyclic_schedules_load():
    named = parameters(shapes={"w": (4, 3)})
    opt = dualopt.optimizer(named, recipe())
    torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=1e-3, total_steps=9, cycle_momentum=False)
    give(named, 0)
    opt.step()
    dualopt.optimizer(named, recipe()).load_state_dict(opt.state_dict())


def test_tied_and_frozen_parameters():
    model = torch.nn.ModuleDict(
        {"a": torch.nn.Linear(4, 4), "b": torch.nn.Linear(4, 4), "adapter": torch.nn.Linear(4, 4)}
    )
    model["b"].weight = model["a"].weight
    model["a"].bias.requires_grad_(False)
    chosen = dualopt.Recipe.from_dict(
        {"group": [{"optimizer": "adamw", "match": ["*.weight", "b.bias", "adapter.bias"]}]}
    )
    opt = dualopt.optimizer(model, chosen)
    assert opt.param_groups[0]["param_names"] == ["a.weight", "b.bias", "adapter.weight", "adapter.bias"]
    assert dualopt.frameworks.shapes_of(model)[1] == {"b.weight": "a.weight"}
    model["a"].bias.requires_grad_(True)
    with pytest.raises(RecipeError, match=r"'a\.bias' was frozen"):
        opt.step()


def test_strided_parameters_and_gradients():
    """Transposed and channels-last storage gives the same values as contiguous storage."""
    plain = {"w": torch.nn.Parameter(torch.arange(12.0).reshape(4, 3)), "k": torch.nn.Parameter(torch.ones(2, 3, 5, 5))}
    odd = {
        "w": torch.nn.Parameter(torch.arange(12.0).reshape(4, 3).t().contiguous().t()),
        "k": torch.nn.Parameter(torch.ones(2, 3, 5, 5).to(memory_format=torch.channels_last)),
    }
    for named in (plain, odd):
        opt = dualopt_torch_optimizer(named, recipe(), compiled=execute.can_compile())
        for t in range(3):
            give(named, t)
            opt.step()
    assert bits(plain) == bits(odd)


def test_convolution_kernels_are_flattened():
    shapes = {"conv": (6, 3, 2, 2)}
    named = parameters(shapes=shapes)
    flat = {"conv": torch.nn.Parameter(named["conv"].detach().clone().reshape(6, 12))}
    opt = dualopt.optimizer(named, recipe("scion", norm="spectral_conv", step=1.0), tier="exact")
    ref = dualopt.optimizer(flat, recipe("scion", norm="spectral_max", step=1.0), tier="exact")
    start = named["conv"].detach().clone()
    give(named, 0)
    flat["conv"].grad = named["conv"].grad.reshape(6, 12)
    opt.step()
    ref.step()
    moved = (named["conv"].detach() - start).reshape(6, 12)
    expected = (flat["conv"].detach() - start.reshape(6, 12)) * (6 / 3) ** 0.5 / 4  # flat has scale max(1, √(6/12)) = 1
    assert torch.allclose(moved, expected, rtol=1e-5, atol=1e-7)


# --- bad input changes nothing -----------------------------------------------------------------------------


def bad_gradients():
    yield "sparse", lambda p: p.detach().to_sparse(), GradientError, "sparse"
    yield "nan", lambda p: torch.full_like(p, float("nan")), NonFiniteError, "'w'"
    yield "inf", lambda p: torch.full_like(p, float("inf")), NonFiniteError, "skip"


@pytest.mark.parametrize(
    ("make", "error", "says"), [c[1:] for c in bad_gradients()], ids=[c[0] for c in bad_gradients()]
)
@pytest.mark.parametrize("advanced", [False, True])
def test_bad_gradients_change_nothing(make, error, says, advanced):
    named = parameters()
    opt = dualopt.optimizer(named, recipe())
    run(named, opt, 2)
    before, state, counts = bits(named), copy.deepcopy(opt.state_dict()), opt.plan.saved_counts()
    give(named, 2)
    named["w"].grad = make(named["w"])
    if advanced:
        opt.advance(7)
    with pytest.raises(error, match=says):
        opt.step()
    assert bits(named) == before
    assert opt.plan.saved_counts() == counts
    after = opt.state_dict()
    assert after["param_groups"] == state["param_groups"]
    assert all(torch.equal(after["state"][i]["m"], s["m"]) for i, s in state["state"].items())


def test_complex_and_integer_parameters_are_refused():
    for x in (torch.zeros(3, dtype=torch.complex64, requires_grad=True),):
        with pytest.raises(RecipeError, match="floating-point"):
            dualopt.optimizer({"z": x}, recipe())
    with pytest.raises(RecipeError, match="leaf"):
        dualopt.optimizer({"z": torch.zeros(3, requires_grad=True) * 2}, recipe())


def test_skipped_updates_do_not_count():
    named = parameters()
    opt = dualopt.optimizer(named, recipe(nonfinite="skip"))
    run(named, opt, 2)
    before, counts = bits(named), opt.plan.saved_counts()
    give(named, 2)
    named["b"].grad[0] = float("nan")
    opt.step()
    assert bits(named) == before
    assert opt.plan.saved_counts() == counts
    give(named, 2)
    named["b"].grad = torch.full_like(named["b"], 2.0**63)  # the sum of squares overflows, no square does
    opt.step()
    assert bits(named) != before
    assert all(torch.isfinite(p).all() for p in named.values())
    named["b"].grad = torch.full_like(named["b"], 1e20)  # its square is no float32 number
    counts = opt.plan.saved_counts()
    opt.step()
    assert opt.plan.saved_counts() == counts


def test_trusted_gradients_are_not_read():
    """The same bits as with the check, and a bad one goes where it belongs to."""
    named, checked = parameters(), parameters()
    opt, other = dualopt.optimizer(named, recipe(nonfinite="trust")), dualopt.optimizer(checked, recipe())
    run(named, opt, 2)
    run(checked, other, 2)
    assert bits(named) == bits(checked)
    give(named, 2)
    named["b"].grad[0] = float("nan")
    opt.step()
    assert opt.plan.tau > other.plan.tau
    assert named["b"].isnan().sum() == 1
    assert opt.state[named["b"]]["m"].isnan().sum() == 1
    assert all(torch.isfinite(p).all() for name, p in named.items() if name != "b")


@pytest.mark.parametrize("count", [0, -1, 1.5, float("nan"), True, "3", None])
def test_bad_counts(count):
    named = parameters()
    opt = dualopt.optimizer(named, recipe())
    give(named, 0)
    before = bits(named)
    if count is None:
        opt.step(count=None)
        assert opt.plan.tau == 100
        return
    with pytest.raises(CountError):
        opt.step(count=count)
    assert bits(named) == before
    assert opt.plan.tau == 0


def test_no_groups_may_be_added_and_errors_have_one_base():
    opt = dualopt.optimizer(parameters(), recipe())
    with pytest.raises(RecipeError, match=r"\[\[group\]\]"):
        opt.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))]})
    with pytest.raises(RecipeError, match="tier"):
        dualopt.optimizer(parameters(), recipe(), tier="quick")
    with pytest.raises(DualoptError, match="framework"):
        dualopt.optimizer(object(), recipe())


def test_huge_gradients_move_spectral_rows():
    """A gradient of 1e20 in bfloat16-sized numbers is normalised before anything can overflow."""
    for scale in (1e-20, 1.0, 1e20):
        p = torch.nn.Parameter(torch.zeros(6, 4))
        opt = dualopt.optimizer({"p": p}, recipe("muon", step=1.0))
        p.grad = gradient(p, "huge", 2, scale)
        opt.step()
        assert 1.0 < float(p.detach().norm()) < 3.0


@pytest.mark.parametrize(("row", "value"), [("adamw", 1.2 * 2.0**63), ("shampoo", 2.0**62), ("adamw", -1.2 * 2.0**63)])
def test_what_the_core_finds_too_large_is_refused(row, value):
    """Also where the sum of squares is still a number."""
    g = torch.zeros(4, 4)
    g[1, 2] = value
    assert torch.linalg.vector_norm(g).square().isfinite()
    with pytest.raises(NonFiniteError):
        dualopt.replay({"optimizer": row}, {"w": np.ones((4, 4))}, [{"w": g.numpy()}], 1)
    w = torch.nn.Parameter(torch.ones(4, 4))
    opt = dualopt.optimizer({"w": w}, recipe(row))
    w.grad = g
    with pytest.raises(NonFiniteError, match="too large to square"):
        opt.step()
    w.grad = g.clamp(-(2.0**59), 2.0**59)
    opt.step()
