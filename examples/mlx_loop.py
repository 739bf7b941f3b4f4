"""Plain MLX: `python examples/mlx_loop.py`. Run it again after a kill, and it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import toy
import typer
from mlx import nn

import dualopt
from dualopt.series import Series
from dualopt.workload.model import GPTConfig, initial
from dualopt_mlx import Optimizer
from dualopt_mlx.gpt import GPT, loss

RECIPE = Path(__file__).with_name("recipe.toml")
CONFIG = GPTConfig(layers=1, width=32, heads=2, context=toy.CONTEXT, vocabulary=toy.VOCABULARY)


def train(out: Path = Path("runs/mlx_loop"), epochs: int = 3, patience: int = 2) -> Optimizer:
    """Train until the loss on held-out text has not fallen for `patience` epochs."""
    model = GPT(CONFIG, initial(CONFIG, seed=0))
    opt = dualopt.optimizer(model, RECIPE)
    batches = toy.Batches(toy.rows(26, seed=1), size=4)
    held_out = mx.array(toy.rows(16, seed=2))
    loss_and_grad = nn.value_and_grad(model, loss)

    def step(tokens: mx.array) -> mx.array:
        value, gradients = loss_and_grad(model, tokens[:, :-1], tokens[:, 1:])
        opt.update(model, gradients)
        return value

    compiled_step = opt.compile(step)

    out.mkdir(parents=True, exist_ok=True)
    checkpoints = Series(out / "checkpoint.safetensors")
    best, waited = float("inf"), 0
    if found := checkpoints.load(tell=print):
        opt.restore(found[0])
        at = json.loads(found[1]["at"])
        batches.load_state_dict(at["batches"])
        best, waited = at["best"], at["waited"]

    def save() -> None:
        at = {"batches": batches.state_dict(), "best": best, "waited": waited}
        checkpoints.save(opt.snapshot(), metadata={"at": json.dumps(at)})

    while batches.epoch < epochs and waited < patience:
        for batch in batches:
            tokens = mx.array(batch)
            value = compiled_step(tokens, count=tokens[:, 1:].size)
            if batches.position % 3 == 2:
                save()
        with opt.evaluating():
            now = loss(model, held_out[:, :-1], held_out[:, 1:]).item()
        print(f"{opt.count:5} tokens   loss {value.item():.3f}   held out {now:.3f}")
        best, waited = (now, 0) if now < best else (best, waited + 1)
        save()
    return opt


if __name__ == "__main__":
    typer.run(train)
