"""`dualopt demo`: the same training on every installed framework, and the proof that it is the same."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from dualopt_conformance.metric import normwise

from .. import checkpoint, tensors
from ..errors import RecipeError
from ..workload.gradients import read
from ..workload.model import GPTConfig, initial
from ..workload.run import Run, first_parting
from ..workload.text import unigram_entropy
from . import work
from .output import complain, emit, losses, paths, progress, say, table, warn
from .proof import Proof, proof_table, prove
from .training import (
    Batch,
    Context,
    DataFile,
    Heads,
    Json,
    Layers,
    RecipeFile,
    Seed,
    Updates,
    Width,
    plots,
    runs_table,
    summary,
    written,
)

_MODEL = GPTConfig()


@dataclass(frozen=True)
class Drift:
    """How far apart two trainings of the same recipe are, each with its own gradients.

    Attributes:
        first: the largest difference of the training losses in the first `updates` updates.
        last: the difference of the last validation losses.
        parameters: ‖θ − θ'‖ / ‖θ‖ over all final parameters.
        parted: the first update that left another bit, None if none did.
    """

    updates: int
    first: float
    last: float
    parameters: float
    parted: int | None


def demo(
    recipe: RecipeFile = None,
    data: DataFile = None,
    out: Annotated[Path, typer.Option(help="A directory; if it is taken, a number is appended.")] = Path("runs/demo"),
    updates: Updates = None,
    record: Annotated[int, typer.Option(min=1, help="Updates whose gradients are replayed.")] = 50,
    batch: Batch = 16,
    seed: Seed = 0,
    layers: Layers = _MODEL.layers,
    width: Width = _MODEL.width,
    heads: Heads = _MODEL.heads,
    context: Context = _MODEL.context,
    as_json: Json = False,
) -> None:
    """Train a small GPT on every installed framework, then replay its gradients through all of them.

    Exit status 1 if one bit of the replayed parameters and state differs.
    """
    frameworks = work.chosen("all")
    config = GPTConfig(layers=layers, width=width, heads=heads, context=context)
    job = work.prepare(recipe, data, config, updates=updates, batch=batch, seed=seed, record=record)
    if job.settings.updates < record:
        raise RecipeError(f"--record {record}: the run has only {job.settings.updates} updates")
    out = _free(out)
    done: list[work.Trained] = []
    for name in frameworks:
        with progress(name, job.settings.updates, quiet=as_json) as tick:
            recorded = record if not done else 0  # one framework's gradients serve all
            part = dataclasses.replace(job, settings=dataclasses.replace(job.settings, record_gradients=recorded))
            done.append(work.carry_out(part, name, out / name, resume=False, show=losses(tick)))
        if done[-1].outcome.interrupted:
            warn(f"stopped at update {done[-1].outcome.update}")
            raise typer.Exit(130)
    plots(out, done)
    again = _keep_inputs(job, done[0].run, frameworks, out)
    start = time.perf_counter()
    with progress("proof", record, quiet=as_json) as tick:
        proof = prove(
            job.recipe,
            initial(config, seed),
            read(done[0].run.gradients),
            _witnesses(frameworks),
            count=job.increment,
            show=lambda update: tick(update, "", update % 10 == 0),
        )
    seconds = time.perf_counter() - start
    drift = _drift(done[0].run, done[1].run, record) if len(done) == 2 else None
    if as_json:
        emit(
            {
                "runs": [summary(trained) for trained in done],
                "unigram_entropy": unigram_entropy(job.text),
                "missing": _missing(frameworks),
                "drift": drift and vars(drift),
                "proof": proof.to_dict() | {"seconds": round(seconds, 3)},
                "plot": str(out / "loss.png"),
                "replay": again,
            }
        )
    else:
        _print(job, done, drift, proof, seconds, out, again)
    if not proof.holds:
        complain("the proof failed: the backends do not agree bit by bit")
        raise typer.Exit(1)


def _free(out: Path) -> Path:
    """`out`, or the first of out-2, out-3, ... that holds nothing yet."""
    candidate, n = out, 1
    while candidate.exists() and (not candidate.is_dir() or any(candidate.iterdir())):
        n += 1
        candidate = out.with_name(f"{out.name}-{n}")
    return candidate


def _missing(frameworks: Sequence[str]) -> list[str]:
    return [name for name in work.FRAMEWORKS if name not in frameworks]


def _keep_inputs(job: work.Work, recorded: Run, frameworks: Sequence[str], out: Path) -> str:
    """Write the recipe and the initial parameters, and return the command that repeats the proof."""
    recipe, params = out / "recipe.toml", out / "initial.safetensors"
    recipe.write_text(job.recipe_text, encoding="utf-8")
    tensors.write(params, dict(initial(job.config, job.settings.seed)), {})
    backends = " ".join(f"--backend {name}" for name in _witnesses(frameworks))
    count = "" if job.increment == job.recipe.count.per_update else f" --count {job.increment}"
    return f"dualopt replay {recipe} {recorded.gradients} {params}{count} {backends}"


def _witnesses(frameworks: Sequence[str]) -> tuple[str, ...]:
    """What is compared: the frameworks, and with only one of them numpy, which is always there."""
    return tuple(frameworks) if len(frameworks) > 1 else (*frameworks, "numpy")


def _drift(one: Run, other: Run, updates: int) -> Drift:
    losses = [{row["update"]: row["loss"] for row in run.rows() if "loss" in row} for run in (one, other)]
    scores = [[row["validation_loss"] for row in run.rows() if "validation_loss" in row] for run in (one, other)]
    final = [checkpoint.load(run.checkpoint)[0].parameters for run in (one, other)]
    joined = [np.concatenate([x.ravel() for _, x in sorted(params.items())]) for params in final]
    return Drift(
        updates,
        max(abs(losses[0][u] - losses[1][u]) for u in range(1, updates + 1)),
        abs(scores[0][-1] - scores[1][-1]),
        normwise(*joined),
        first_parting(one, other),
    )


def _print(
    job: work.Work, done: list[work.Trained], drift: Drift | None, proof: Proof, seconds: float, out: Path, again: str
) -> None:
    runs_table(job, done)
    if drift is not None:
        rows = [
            (f"training loss, largest in the first {drift.updates} updates", f"{drift.first:.2e}"),
            ("validation loss at the end", f"{drift.last:.2e}"),
            ("parameters at the end, relative", f"{drift.parameters:.2e}"),
            ("first update with another bit", str(drift.parted or "none")),
        ]
        title = "Closed loop, fast tier: each framework with its own gradients"
        table(title, ("what", "difference"), rows)
    proof_table(proof, f"Proof, exact tier: the same gradients through each ({seconds:.1f} s)")
    for name in _missing([trained.framework for trained in done]):
        say(f"{name} is not installed; pip install 'dualopt-optim[{name}]' brings it", style="yellow")
    paths(**written(done), plot=out / "loss.png", again=again)
