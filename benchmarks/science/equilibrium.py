"""Weights of a small GPT settle where they should: predicted and measured sizes and angles, in PyTorch and in MLX.

    python -m benchmarks.science.equilibrium

Steps are constant and half-lives short, so that weights reach their steady state within some hundred updates. What is
predicted is that of gradients that are noise (`dualopt.analysis.prediction`): the RMS of weights and the angle by which
an update turns them, from shapes, steps and half-lives alone. Batches are of two windows and the second memory is long,
which makes gradients mostly noise, and their squares steady.

*Scale-invariant* are W_q and W_k, whose outputs are normalised head by head (QK-norm): gradients are orthogonal to
them. No other matrix is; those are pushed along themselves by the loss, λ_u = E<θ, P g>/E‖θ‖² per unit of η, and should
settle as if an update kept a_e = a − ηλ_u of them, the effective decay. P is what the direction does on the mean to a
small part of its readout z: 1/√v of AdamW; √(2/π)/√(E z²) of signs, of an entry and relative to the RMS of all; Σσ/Σσ²
of polar factors, σ the singular values of z, if noise is alike in all directions. That is measured during the run: for
these matrices the table says how far λ_u alone goes.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dualopt import Group, Recipe
from dualopt.analysis import equilibria
from dualopt.analysis.following import Followed, followed
from dualopt.catalog import complete
from dualopt.counts import complement
from dualopt.explain import lines
from dualopt.plan import Plan
from dualopt.workload.model import GPTConfig, initial, parameter_shapes
from dualopt.workload.text import Text, batch, load_text

from . import claims, gpt
from .claims import Claim
from .gpt import Array
from .runs import Setting, Store

FRAMEWORKS = {"torch": "PyTorch", "mlx": "MLX"}
WINDOWS = 2
CONFIG = gpt.CONFIG
PER_UPDATE = WINDOWS * CONFIG.context
SETTLING, WATCHED, EVERY = 1000, 600, 3  # updates before, updates that are measured, and how many of these
SHOWN = 25  # updates between points of a curve
KEPT, SQUARES, SHRINK = 7.0, 300.0, 200.0  # half-lives in updates
WITHIN = 0.1
ADAMW = "adamw"
TITLES = {ADAMW: "AdamW", "lion": "Lion", "muon": "Muon", "scionc": "ScionC"}
ROLES = {
    "q, k": ("attention.q", "attention.k"),
    "v, o": ("attention.v", "attention.o"),
    "gate, up": ("feed.gate", "feed.up"),
    "down": ("feed.down",),
    "embedding": ("embedding",),
    "head": ("head",),
}
INVARIANT, ENDS = "q, k", ("embedding", "head")
SIGNS, POLAR, ADAM = "signs", "polar", "adam"
KINDS = {ADAMW: ADAM, "lion": SIGNS, "muon": POLAR, "scionc": POLAR}  # of the matrices of blocks

Seen = dict[str, Any]


def recipe(optimizer: str) -> Recipe:
    """Blocks by `optimizer`, embedding and head by AdamW; gains learn without shrinking."""
    lives = {"memory_half_life": KEPT * PER_UPDATE, "shrink_half_life": SHRINK * PER_UPDATE}
    squares = {"second_memory_half_life": SQUARES * PER_UPDATE}
    adamw = {"optimizer": "adamw", **lives, **squares, "step": 0.005}
    blocks = {
        "adamw": adamw,
        "lion": {"optimizer": "lion", **lives, "step": 0.001},
        "muon": {"optimizer": "muon", "polar": "quintic", **lives, "step": 0.02},
        "scionc": {"optimizer": "scionc", "polar": "polar_express", "readout": 0.9, **lives, "step": 0.02},
    }[optimizer]
    gains = {**adamw, "name": "gains", "ndim": 1, "step": 0.001, "shrink_half_life": math.inf}
    groups = [gains, {**blocks, "name": "blocks", "match": ["blocks.*"]}, {**adamw, "name": "ends"}]
    return Recipe.from_dict({"count": {"unit": "tokens", "per_update": PER_UPDATE}, "group": groups})


def role_of(name: str) -> str:
    return next(role for role, parts in ROLES.items() if any(part in name for part in parts))


class Watch:
    """What is measured of one parameter, in float64."""

    def __init__(self, kind: str, group: Group) -> None:
        action = complete(group.optimizer, dict(group.options))
        self.kind, self.step, self.mu = kind, float(action["step"]), float(action["readout"])
        self.kept = 1 - complement(PER_UPDATE, float(action["shrink_half_life"]))
        self.turns: list[float] = []
        self.squares: list[float] = []
        self.updates: list[float] = []
        self.pushed: list[float] = []
        self.product: Array = np.zeros(())
        self.readout: Array = np.zeros(())

    def add(self, before: Array, after: Array, gradient: Array, state: Mapping[str, Any], last: Array) -> None:
        """An update; `state` and the `last` gradient are those before it, of which its own is independent."""
        theta, moved, g = (np.asarray(x, np.float64) for x in (before, after, gradient))
        u = (moved - self.kept * theta) / self.step
        lengths = math.sqrt(float(np.sum(theta**2) * np.sum(moved**2)))
        self.turns.append(math.acos(min(1.0, float(np.sum(theta * moved)) / lengths)))
        self.squares.append(float(np.mean(theta**2)))
        self.updates.append(float(np.mean(u**2)))
        if self.kind == ADAM:
            root = np.sqrt(np.asarray(state["v"], np.float64))  # 1 − β_v^t is 1 by now
            self.pushed.append(float(np.mean(theta * np.divide(g, root, out=np.zeros_like(g), where=root > 0))))
            return
        z = self.mu * np.asarray(state["m"], np.float64) + (1 - self.mu) * np.asarray(last, np.float64)
        if self.kind == SIGNS:
            scale = math.sqrt(float(np.mean(z**2)))
            self.product, self.readout = self.product + theta * g / scale, self.readout + (z / scale) ** 2
        else:
            sigma = np.linalg.svd(z, compute_uv=False)
            length = math.sqrt(float(np.sum(u**2)) / sigma.size)
            self.pushed.append(float(np.mean(theta * g) * length * np.sum(sigma) / np.sum(sigma**2)))

    def told(self) -> dict[str, float]:
        """Mean squares of θ and of u, the mean angle, and λ_u times the first."""
        n, pushed = len(self.squares), self.pushed
        if self.kind == SIGNS:
            pushed = [float(np.mean(self.product / n * math.sqrt(2 / math.pi) / np.sqrt(self.readout / n)))]
        found = {"square": self.squares, "update": self.updates, "angle": self.turns, "pushed": pushed}
        return {name: float(np.mean(values)) for name, values in found.items()}


def run(
    framework: str,
    optimizer: str,
    text: Text,
    config: GPTConfig = CONFIG,
    *,
    settling: int = SETTLING,
    watched: int = WATCHED,
) -> Seen:
    """{role: what `Watch` tells, mean over its parameters} and the RMS of q and k over the run."""
    made = recipe(optimizer)
    trainer = importlib.import_module(f"dualopt_{framework}.trainer").trainer(config, made, seed=0)
    _, blocks, ends = made.groups
    names = list(gpt.trained_shapes(config))
    watches = {n: Watch(KINDS[optimizer], blocks) if n.startswith("blocks") else Watch(ADAM, ends) for n in names}
    curve: list[float] = []
    for done in range(settling + watched):
        measuring = done >= settling and (done - settling) % EVERY == 0
        before = trainer.snapshot() if measuring or done % SHOWN == 0 else None
        if before and done % SHOWN == 0:
            curve.append(_rms([before.parameters[name] for name in names if role_of(name) == INVARIANT]))
        last = trainer.gradients() if measuring else {}
        trainer.update(*batch(text, 0, done, WINDOWS, config.context), PER_UPDATE)
        if measuring:
            after, gradients = trainer.snapshot().parameters, trainer.gradients()
            for name, watch in watches.items():
                watch.add(before.parameters[name], after[name], gradients[name], before.state[name], last[name])
    told: dict[str, list[dict[str, float]]] = {role: [] for role in ROLES}
    for name, watch in watches.items():
        told[role_of(name)].append(watch.told())
    means = {role: {key: float(np.mean([x[key] for x in each])) for key in each[0]} for role, each in told.items()}
    return {"roles": means, "curve": curve}


def _rms(arrays: list[Any]) -> float:
    return math.sqrt(float(np.mean([np.mean(np.square(x, dtype=np.float64)) for x in arrays])))


def predictions(optimizer: str, config: GPTConfig = CONFIG) -> dict[str, Followed]:
    """The first parameter of every role, on its way."""
    plan = Plan(recipe(optimizer), parameter_shapes(config))
    rows = list(lines(plan, plan.shapes, {}))
    starts = {name: _rms([value]) for name, value in initial(config, 0).items()}
    found = {}
    for name in reversed(gpt.trained_shapes(config)):
        i = plan.group_of[name]
        row = dataclasses.replace(next(row for row in rows if name in row.names), names=(name,))
        (found[role_of(name)],) = followed(plan.groups[i], plan, i, SETTLING + WATCHED, [row], starts)
    return found


def compared(one: Followed, seen: Mapping[str, float]) -> dict[str, float]:
    """Measured over predicted, on noise and with the effective decay; ∞ and 0 where that lets weights grow for ever."""
    path, life = one.path, one.life
    assert path.update is not None
    assert path.settles is not None
    assert path.turns is not None
    lost, eta, update = float(path.lost[-1]), float(life.eta[-1]), float(path.update[-1])
    rms = math.sqrt(seen["square"])
    effective = equilibria.effective(lost, eta, seen["pushed"] / seen["square"])
    found = {"rms": rms / path.settles, "angle": seen["angle"] / path.turns, "decay": effective / lost}
    found["update"] = eta * math.sqrt(seen["update"]) / update
    if effective <= 0:
        return found | {"rms_e": 0.0, "angle_e": math.inf}
    settles = equilibria.settled(1.0, update**2, life.total(effective), effective).norm
    turns = equilibria.turned(update / settles, lost)  # 0 where an update only makes up for what shrinks
    return found | {"rms_e": rms / settles, "angle_e": seen["angle"] / turns if turns else math.inf}


Compared = dict[str, dict[str, dict[str, dict[str, float]]]]  # optimizer -> framework -> role


def farthest(every: Compared, roles: tuple[str, ...], key: str) -> tuple[float, str]:
    """(largest distance of a ratio from 1, where) over all optimizers and frameworks."""
    return max(
        (abs(of_role[role][key] - 1), f"{TITLES[name]}, {FRAMEWORKS[framework]}, {role}")
        for name, of_framework in every.items()
        for framework, of_role in of_framework.items()
        for role in roles
    )


def judged(every: Compared) -> list[Claim]:
    """What the law says, and what came out."""
    others = tuple(role for role in ROLES if role != INVARIANT and role not in ENDS)
    source = "arXiv 2305.17212; `dualopt.analysis`"

    def claim(what: str, roles: tuple[str, ...], key: str, of: Compared = every) -> Claim:
        far, where = farthest(of, roles, key)
        told = f"at most {far:.1%} off ({where})" if math.isfinite(far) else f"no steady state ({where})"
        which = "all optimizers" if of is every else " and ".join(TITLES[name] for name in of)
        return Claim(source, what, f"within {WITHIN:.0%}, {which}, both frameworks", told, far <= WITHIN)

    invariant, shown = (INVARIANT,), {ADAMW: every[ADAMW]}
    polar = {name: of for name, of in every.items() if KINDS[name] == POLAR}
    entries = {name: of for name, of in every.items() if name not in polar}
    return [
        claim("scale-invariant matrices: the RMS of weights is η √(c_u² A/(1 − a²))", invariant, "rms"),
        claim("scale-invariant matrices: an update turns them by √((1 − a²)/A)", invariant, "angle"),
        claim("the other matrices of blocks: RMS with the effective decay", others, "rms_e", entries),
        claim("the other matrices of blocks: angle with the effective decay", others, "angle_e", entries),
        claim("the same of polar factors: RMS", others, "rms_e", polar),
        claim("the same of polar factors: angle", others, "angle_e", polar),
        claim("embedding and head: RMS with the effective decay", ENDS, "rms_e", shown),
    ]


def table(every: Compared, ways: Mapping[str, Mapping[str, Followed]]) -> str:
    """Predictions, and measured over predicted."""

    def pair(of_framework: Mapping[str, Mapping[str, Mapping[str, float]]], role: str, key: str, digits: int) -> str:
        return ", ".join(f"{of_role[role][key]:.{digits}f}" for of_role in of_framework.values())

    rows = []
    for name, of_framework in every.items():
        for role in ROLES:
            if role in ENDS and name != ADAMW:
                continue
            path, told = ways[name][role].path, partial(pair, of_framework, role)
            rows.append(
                (
                    TITLES[name],
                    role,
                    f"{path.settles:.4f}",
                    told("rms", 3),
                    f"{path.turns:.4f}",
                    told("angle", 3),
                    told("update", 3),
                    told("decay", 2),
                    told("rms_e", 3),
                    told("angle_e", 3),
                )
            )
    head = (
        "blocks by",
        "matrices",
        "RMS predicted",
        "measured over it",
        "angle predicted",
        "measured over it",
        "RMS of updates over predicted",
        "(1 − a_e)/(1 − a)",
        "RMS over that with a_e",
        "angle over that with a_e",
    )
    return claims.markdown(head, rows)


def picture(
    every: Compared, seen: Mapping[str, Mapping[str, Seen]], ways: Mapping[str, Mapping[str, Followed]], path: Path
) -> None:
    """The way to the steady state of q and k, and how far everything is off."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.6), layout="constrained")
    left, *right = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    colours = dict(zip(TITLES, ("#1b6ca8", "#d1495b", "#59a14f", "#9c6ade"), strict=True))
    styles = dict(zip(FRAMEWORKS, ("o", "^"), strict=True))
    for name, colour in colours.items():
        rms = ways[name][INVARIANT].path.rms
        assert rms is not None
        left.plot(np.arange(1, rms.size + 1), rms, color=colour, linewidth=1.4)
        for framework, style in styles.items():
            points = seen[name][framework]["curve"]
            at = np.arange(len(points)) * SHOWN
            left.plot(at[::4], points[::4], style, color=colour, markersize=4, alpha=0.7)
    left.set_title("W_q and W_k: predicted (lines) and measured", fontsize=10)
    left.set_xlabel("update")
    left.set_ylabel("RMS of weights")
    left.set_yscale("log")
    shown = [role for role in ROLES if role not in ENDS]
    for axis, (key, title) in zip(right, (("rms", "RMS of weights"), ("angle", "angle per update")), strict=True):
        axis.axhspan(1 - WITHIN, 1 + WITHIN, color="black", alpha=0.07, linewidth=0)
        axis.axhline(1, color="black", linewidth=0.8, alpha=0.4)
        for i, (name, colour) in enumerate(colours.items()):
            for framework, style in styles.items():
                x = np.arange(len(shown)) + (i - 1.5) * 0.17
                for k, filled in ((key, False), (f"{key}_e", True)):
                    y = [every[name][framework][role][k] for role in shown]
                    face = colour if filled else "none"
                    axis.plot(x, y, style, color=colour, markerfacecolor=face, markersize=5, alpha=0.85)
        axis.set_xticks(range(len(shown)), shown)
        axis.set_title(f"{title}: measured over predicted", fontsize=10)
    for axis in (left, *right):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    for name, colour in colours.items():
        left.plot([], [], color=colour, label=f"blocks by {TITLES[name]}")
    for framework, style in styles.items():
        left.plot([], [], style, color="black", markersize=5, label=FRAMEWORKS[framework])
    left.plot([], [], "s", color="black", markerfacecolor="none", markersize=5, label="over that of noise")
    left.plot([], [], "s", color="black", markersize=5, label="over that with the effective decay")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    asked = claims.parser(__doc__).parse_args(arguments)
    text, store = load_text(), Store(asked.out / "equilibrium.jsonl", "seen")
    setting = Setting(text, (SETTLING + WATCHED) * PER_UPDATE, (0,))
    seen: dict[str, dict[str, Seen]] = {}
    for name in TITLES:
        for framework in FRAMEWORKS:
            key = f"{framework} {setting.key(recipe(name))}"
            if key not in store.known:
                store.add(key, run(framework, name, text))
            seen.setdefault(name, {})[framework] = store.known[key]
    ways = {name: predictions(name) for name in TITLES}
    every: Compared = {
        name: {f: {role: compared(ways[name][role], of["roles"][role]) for role in ROLES} for f, of in each.items()}
        for name, each in seen.items()
    }
    picture(every, seen, ways, asked.out / "equilibrium.png")
    told = (
        f"The GPT has {gpt.size():,} parameters in matrices and is trained on {text.name}. Updates are of "
        f"{PER_UPDATE} tokens; half-lives are {KEPT:g} updates of the memory, {SQUARES:g} of squares and {SHRINK:g} of "
        f"the shrink. After {SETTLING:,} updates every {EVERY}rd of {WATCHED:,} is measured. Pairs are of "
        f"{', '.join(FRAMEWORKS.values())}; of a role the mean over its matrices. Muon has the `quintic` set and "
        "ScionC `polar_express`; embedding and head are AdamW's everywhere, and shown once: most rows of the embedding "
        "get a gradient in few updates, which is no steady noise, and the head is pushed outwards nearly as much as it "
        "shrinks, which leaves a small difference."
    )
    text_ = f"{claims.opening(__doc__)}\n\n{told}\n\n![predicted and measured sizes and angles](equilibrium.png)"
    claims.finish("equilibrium", text_, table(every, ways), judged(every), {"ratios": every}, asked.out)


if __name__ == "__main__":
    main()
