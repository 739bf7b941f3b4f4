"""Plain PyTorch with torch.compile: `python examples/torch_compiled.py`. Run it again after a kill, and it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import toy
import typer

import dualopt
from dualopt.series import Series
from dualopt.workload.model import GPTConfig, initial
from dualopt_torch import Optimizer
from dualopt_torch.gpt import GPT, loss

RECIPE = Path(__file__).with_name("recipe.toml")
CONFIG = GPTConfig(layers=1, width=32, heads=2, context=toy.CONTEXT, vocabulary=toy.VOCABULARY)


def train(out: Path = Path("runs/torch_compiled"), epochs: int = 3, patience: int = 2) -> Optimizer:
    """Train until the loss on held-out text has not fallen for `patience` epochs."""
    model = GPT(CONFIG, initial(CONFIG, seed=0))
    opt = dualopt.optimizer(model, RECIPE)
    batches = toy.Batches(toy.rows(26, seed=1), size=4)
    held_out = torch.from_numpy(toy.rows(16, seed=2))

    def step(tokens: torch.Tensor) -> torch.Tensor:
        model.zero_grad()
        value = loss(model, tokens[:, :-1], tokens[:, 1:])
        value.backward()
        opt.step()
        return value.detach()

    compiled_step = opt.compile(step, dynamic=True)  # dynamic: the last batch of an epoch is smaller

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
            tokens = torch.from_numpy(batch)
            value = compiled_step(tokens, count=tokens[:, 1:].numel())
            if batches.position % 3 == 2:
                save()
        with opt.evaluating(), torch.no_grad():
            now = loss(model, held_out[:, :-1], held_out[:, 1:]).item()
        print(f"{opt.plan.tau:5} tokens   loss {value.item():.3f}   held out {now:.3f}")
        best, waited = (now, 0) if now < best else (best, waited + 1)
        save()
    return opt


if __name__ == "__main__":
    typer.run(train)
