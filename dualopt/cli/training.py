"""`dualopt train`: the small GPT, or another size of it, by a recipe on one framework or on all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import RecipeError
from ..workload.model import GPTConfig
from ..workload.plot import loss_plot
from ..workload.text import unigram_entropy
from . import work
from .output import emit, losses, paths, progress, table, warn

RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", help="A recipe (TOML). Default: that of the small GPT.", show_default=False)
]
DataFile = Annotated[
    Path | None,
    typer.Option("--data", help="A text file. Default: the language reference in CPython.", show_default=False),
]
Updates = Annotated[
    int | None, typer.Option(min=1, help="Default: to the end of the recipe's schedule.", show_default=False)
]
Batch = Annotated[int, typer.Option(min=1, help="Sequences per update.")]
Seed = Annotated[int, typer.Option(min=0, help="Of initial values and batches.")]
Layers = Annotated[int, typer.Option(min=1)]
Width = Annotated[int, typer.Option(min=1)]
Heads = Annotated[int, typer.Option(min=1)]
Context = Annotated[int, typer.Option(min=1, help="Tokens per sequence.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

_MODEL = GPTConfig()


def train(
    recipe: RecipeFile = None,
    framework: Annotated[str, typer.Option(help="torch, mlx, or all that are installed.")] = "all",
    data: DataFile = None,
    out: Annotated[Path, typer.Option(help="Directory of the runs: one directory per framework.")] = Path("runs/train"),
    updates: Updates = None,
    batch: Batch = 16,
    seed: Seed = 0,
    tier: Annotated[str, typer.Option(help="fast or exact.")] = "fast",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, gpu, ... of the framework.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the runs in --out.")] = False,
    record: Annotated[int, typer.Option(min=0, help="Keep the gradients of the first N updates.")] = 0,
    digests: Annotated[
        bool, typer.Option(help="Log one digest of all bits at every update: two logs tell where they parted.")
    ] = True,
    layers: Layers = _MODEL.layers,
    width: Width = _MODEL.width,
    heads: Heads = _MODEL.heads,
    context: Context = _MODEL.context,
    monitor: Annotated[
        bool, typer.Option("--monitor", help="Measure sizes, angles and alignments for `dualopt watch`.")
    ] = False,
    every: Annotated[
        int | None,
        typer.Option(
            min=1, help="Measure every so many updates. Default: for less than 1 % of the time.", show_default=False
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write what --monitor measures for TensorBoard too.")
    ] = False,
    plot: Annotated[bool, typer.Option(help="Draw loss.png.")] = True,
    as_json: Json = False,
) -> None:
    """Train a GPT on bytes of text by a recipe. Ctrl-C saves; --resume continues with the same bits."""
    if every is not None and not monitor:
        raise RecipeError("--every says how often --monitor measures: give both")
    if tensorboard and not monitor:
        raise RecipeError("--tensorboard writes what --monitor measures: give both")
    watch = work.Watch(every, tensorboard) if monitor else None
    frameworks = work.chosen(framework)
    config = GPTConfig(layers=layers, width=width, heads=heads, context=context)
    job = work.prepare(
        recipe, data, config, updates=updates, batch=batch, seed=seed, record=record, tier=tier, device=device
    )
    if job.overrun:
        warn(f"the recipe's schedule ends {job.overrun} updates before the run: their step is 0")
    done: list[work.Trained] = []
    for name in frameworks:
        with progress(name, job.settings.updates, quiet=as_json) as tick:
            show = losses(tick)
            done.append(work.carry_out(job, name, out / name, resume=resume, show=show, digests=digests, watch=watch))
        if done[-1].outcome.interrupted:
            break
    if plot:
        plots(out, done)
    _report(job, done, out / "loss.png" if plot else None, as_json)
    if done[-1].outcome.interrupted:
        warn(f"stopped at update {done[-1].outcome.update}; --resume continues from there")
        raise typer.Exit(130)


def summary(trained: work.Trained) -> dict[str, Any]:
    """One run in numbers and paths."""
    return {
        "framework": trained.framework,
        "device": trained.run.frameworks[-1].get("device"),
        "updates": trained.outcome.update,
        "count": trained.outcome.count,
        "loss": trained.last("loss"),
        "validation_loss": trained.last("validation_loss"),
        "seconds": trained.last("elapsed"),
        "run": str(trained.run.path),
    }


def plots(out: Path, done: list[work.Trained]) -> None:
    """loss.png in every run directory, and one in `out` that compares them."""
    for trained in done:
        loss_plot(trained.run.plot, [trained.run])
    loss_plot(out / "loss.png", [trained.run for trained in done])


def written(done: list[work.Trained], *, plot: bool = True) -> dict[str, str]:
    """{framework: its run directory and what is in it}."""
    files = ["manifest.json", "metrics.jsonl", "checkpoint.safetensors"] + ["loss.png"] * plot
    return {t.framework: f"{t.run.path}/ ({', '.join(files)})" for t in done}


def runs_table(job: work.Work, done: list[work.Trained]) -> None:
    """Losses per framework, above the entropy that ignoring the context would reach."""
    columns = ("framework", "updates", job.recipe.count.base, "training loss", "validation loss", "seconds")
    rows = []
    for found in map(summary, done):
        losses = (f"{found[key]:.4f}" for key in ("loss", "validation_loss"))
        rows.append(
            (found["framework"], f"{found['updates']}", f"{found['count']:,}", *losses, f"{found['seconds']:.1f}")
        )
    rows.append(("unigram entropy", "", "", "", f"{unigram_entropy(job.text):.4f}", ""))
    table(f"Training on {job.text.name} (nats per byte)", columns, rows)


def _report(job: work.Work, done: list[work.Trained], plot: Path | None, as_json: bool) -> None:
    if as_json:
        emit(
            {
                "runs": [summary(trained) for trained in done],
                "unigram_entropy": unigram_entropy(job.text),
                "plot": None if plot is None else str(plot),
            }
        )
        return
    runs_table(job, done)
    paths(**written(done, plot=plot is not None))
    if plot is not None:
        paths(plot=plot)
