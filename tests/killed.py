"""A training that is killed, run out of disk and locked out, over and over: `python -m tests.killed SCENARIO ...`.

The process imports what it needs once and forks a child for every life of the run. Prints what happened as JSON. A
model of numpy arrays, with gradients that depend on the parameters and the batch as real ones do, is trained by
rows of the catalogue; with `--framework torch` it is the GPT of the workload. 200 kills of that take some minutes:

    python -m tests.killed kills --framework torch --number 200 --most 0.4
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dualopt import Count, Group, Recipe
from dualopt.checkpoint import Origin, Snapshot
from dualopt.digest import snapshot_digest
from dualopt.errors import DualoptError
from dualopt.executor import executor
from dualopt.plan import Plan
from dualopt.series import Series
from dualopt.workload.model import GPTConfig, initial
from dualopt.workload.run import Run, manifest
from dualopt.workload.settings import Settings
from dualopt.workload.text import Text, load_text
from dualopt.workload.train import train

CONFIG = GPTConfig(layers=1, width=8, heads=2, context=8, hidden_multiple=2)
SETTINGS = Settings(updates=10**9, batch=2, evaluate_every=7, validation_batches=1, checkpoint_every=3)
RECIPE = Recipe(
    (
        Group("scionc", {"norm": "sign", "step": 0.01}, name="hidden", match=("blocks.*",), ndim=2),
        Group("sf_adamw", {"step": 0.01}, name="rest"),
    ),
    Count("tokens", per_update=SETTINGS.increment(CONFIG.context)),
)


class Trainer:
    """A `dualopt.workload.train.Trainer` on numpy: the plan and the executor of the core, and nothing else."""

    def __init__(self, config: GPTConfig) -> None:
        self.config = config
        self.theta: dict[str, Any] = dict(initial(config, 0))
        self.plan = Plan(RECIPE, {name: x.shape for name, x in self.theta.items()})
        self.state = self.begun(self.theta)
        self.execute = executor(np)

    def begun(self, theta: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return {n: planned.start(np, n, theta[n]) for planned in self.plan.groups for n in planned.names}

    def update(self, inputs: Any, targets: Any, count: int) -> float:
        pull, push = np.float32(inputs.mean() / 256), np.float32(targets.std() / 999)
        grads = {name: {"gradient": x * pull + push} for name, x in self.theta.items()}
        loss = self.evaluate(inputs, targets)
        proposal = self.plan.propose(count, self.theta)
        for planned in self.plan.groups:
            theta, state, given = ({n: x[n] for n in planned.names} for x in (self.theta, self.state, grads))
            for name, (moved, s) in self.execute(planned, theta, state, given, proposal.scalars).items():
                self.theta[name], self.state[name] = moved, s
        self.plan.commit(proposal)
        return loss

    def gradients(self) -> dict[str, Any]:
        return {}

    def evaluate(self, inputs: Any, targets: Any) -> float:
        return float(np.abs(self.theta["head.weight"]).mean() * targets.mean())

    def snapshot(self) -> Snapshot:
        origin = Origin(RECIPE.to_toml(), "fast", "numpy")
        kept = {name: dict(s) for name, s in self.state.items()}
        return Snapshot(dict(self.theta), kept, self.plan.saved_counts(), {}, self.plan.saved_sums(), origin)

    def restore(self, snapshot: Snapshot) -> None:
        self.plan.restore(snapshot.counts, snapshot.sums)
        self.theta = dict(snapshot.parameters)
        self.state = self.begun(self.theta) | {n: dict(s) for n, s in snapshot.state.items() if s}

    def describe(self) -> dict[str, Any]:
        return {"framework": "numpy", "version": np.__version__, "device": "cpu", "threads": 1}


def torch_trainer(config: GPTConfig) -> Any:
    import torch

    from dualopt_torch.trainer import trainer

    torch.set_num_threads(1)
    return trainer(config, RECIPE, seed=0)


class Lives:
    """One run directory, and the children that train in it."""

    def __init__(self, path: Path, make: Callable[[GPTConfig], Any], text: Text) -> None:
        self.path, self.make, self.text = path, make, text
        self.told = manifest(
            recipe=RECIPE.to_toml(),
            digest=RECIPE.digest(),
            tier="fast",
            config=CONFIG,
            settings=SETTINGS,
            text=text,
            framework=make(CONFIG).describe(),
        )
        self.series = Series(path / "checkpoint.safetensors", SETTINGS.keep_checkpoints)

    def train(self, updates: int, digests: bool = False) -> None:
        settings = Settings(**{**vars(SETTINGS), "updates": updates})
        run = Run.resume(self.path, {**self.told, "settings": vars(settings)})
        train(self.make(CONFIG), self.text, settings, run, digest=snapshot_digest if digests else None)

    def child(self, updates: int, first: Callable[[], None] = lambda: None) -> tuple[int, int]:
        """(pid, a pipe on which it says why it ended)."""
        read, write = os.pipe()
        pid = os.fork()
        if pid:
            os.close(write)
            return pid, read
        said = "done"
        try:
            first()
            self.train(updates)
        except DualoptError as error:
            said = f"{type(error).__name__}: {error}"
        except BaseException as error:
            said = f"unexpected {type(error).__name__}: {error}"
        os.write(write, said.encode()[:60_000])
        os._exit(0)

    def finish(self, updates: int, first: Callable[[], None] = lambda: None) -> str:
        """What a child says that nobody kills."""
        pid, pipe = self.child(updates, first)
        with open(pipe, "rb") as end:
            said = end.read().decode()
        os.waitpid(pid, 0)
        return said

    def newest(self) -> tuple[int, str]:
        """The update of the newest intact checkpoint and its digest; (0, "") before the first."""
        told: list[str] = []
        found = self.series.load(told.append)
        if told:
            raise AssertionError(f"a checkpoint was damaged: {told}")
        return (0, "") if found is None else (int(found[1]["update"]), snapshot_digest(found[0]))

    def logged(self) -> int:
        """The last update in the metrics."""
        lines = (self.path / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
        return max((int(json.loads(line)["update"]) for line in lines), default=0)

    def rows(self) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k not in ("elapsed", "digest")} for row in Run.open(self.path).rows()]


def uninterrupted(base: Path, lives: Lives, updates: int) -> tuple[dict[int, str], Lives]:
    """{update: digest} of a run of its own, and the run."""
    whole = Lives(base / "whole", lives.make, lives.text)
    whole.train(updates, digests=True)
    rows = Run.open(whole.path).rows()
    return {row["update"]: row["digest"] for row in rows if "digest" in row}, whole


def compared(lives: Lives, whole: Lives, seen: list[tuple[int, str]], digests: dict[int, str]) -> dict[str, Any]:
    """What differs from the run that nobody touched."""
    return {
        "corrupt": [u for u, digest in seen if u and digests[u] != digest],
        "checkpoint_equal": lives.series.path.read_bytes() == whole.series.path.read_bytes(),
        "metrics_equal": lives.rows() == whole.rows(),
    }


def kills(base: Path, lives: Lives, number: int, seed: int, most: float) -> dict[str, Any]:
    """SIGKILL after a random part of `most` seconds, `number` times; then the run is finished and compared.

    `most` is at least what three short lives take, so that busy machines get on, too.
    """
    start = time.monotonic()
    lives.finish(SETTINGS.evaluate_every)
    most = max(most, 3 * (time.monotonic() - start))
    chance, lost, seen, unfinished, ended = random.Random(seed), [], [lives.newest()], 0, []
    for _ in range(number):
        pid, pipe = lives.child(10**9)
        time.sleep(chance.uniform(0, most))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with open(pipe, "rb") as end:
            ended += [said] if (said := end.read().decode()) else []
        unfinished += bool([*lives.path.glob(".*.tmp"), *lives.path.glob("*.new.*")])
        seen.append(lives.newest())
        lost.append(max(lives.logged(), seen[-2][0]) - seen[-1][0])
    last = seen[-1][0] + 5
    ended += [said] if (said := lives.finish(last)) != "done" else []
    seen.append(lives.newest())
    digests, whole = uninterrupted(base, lives, last)
    return {
        "kills": number,
        "updates": last,
        "most_lost": max(lost),
        "least_lost": min(lost),
        "interval": SETTINGS.checkpoint_every,
        "in_a_write": unfinished,
        "ended": ended,
        "left_over": sorted(p.name for p in lives.path.iterdir()),
        **compared(lives, whole, seen, digests),
    }


def hindered(base: Path, lives: Lives, hindrance: Callable[[Lives], None], release: Callable[[], None]) -> Any:
    """A child that is kept from writing at its third checkpoint says so, and the next one goes on."""
    begun = lives.finish(SETTINGS.evaluate_every)  # where the last update is evaluated, as it is in a longer run
    before = {p.name: p.read_bytes() for p in lives.path.iterdir() if p.name.startswith("checkpoint")}
    said = lives.finish(60, lambda: hindrance(lives))
    after = {p.name: p.read_bytes() for p in lives.path.iterdir() if p.name.startswith("checkpoint")}
    release()
    seen = [lives.newest()]
    finished = lives.finish(60)
    digests, whole = uninterrupted(base, lives, 60)
    told = {"begun": begun, "said": said, "unchanged": before == after, "finished": finished}
    return told | compared(lives, whole, [*seen, lives.newest()], digests)


def full(lives: Lives) -> None:
    """No file may become longer than half of a checkpoint: write fails in the middle, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    half = lives.series.path.stat().st_size // 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (half, half))


def locked(lives: Lives) -> None:
    """A directory that this process may read only. Root may write everywhere, and becomes somebody else."""
    lives.path.chmod(0o555)
    if os.geteuid() == 0:
        os.setuid(65534)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=["kills", "full", "locked"])
    parser.add_argument("--framework", choices=["numpy", "torch"], default="numpy")
    parser.add_argument("--number", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=float, default=0.08, help="seconds of a life")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        base = Path(made)
        base.chmod(0o755)
        make = {"numpy": Trainer, "torch": torch_trainer}[given.framework]
        lives = Lives(base / "run", make, load_text())
        if given.scenario == "kills":
            found = kills(base, lives, given.number, given.seed, given.most)
        else:
            found = hindered(
                base, lives, {"full": full, "locked": locked}[given.scenario], lambda: lives.path.chmod(0o755)
            )
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
