"""The loop of torchtitan: `torchrun --nproc-per-node 2 examples/torchtitan_loop.py`. Run it again, and it goes on.

Parallel dimensions, the model sharded over their mesh, the loss over the tokens of all processes, checkpoints by
torch.distributed.checkpoint that another number of processes can continue, and metrics.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import toy
import typer
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

import dualopt
from dualopt.workload.model import GPTConfig, initial
from dualopt_torch import Optimizer
from dualopt_torch.gpt import GPT

RECIPE = Path(__file__).with_name("recipe.toml")
CONFIG = GPTConfig(layers=1, width=32, heads=2, context=toy.CONTEXT, vocabulary=toy.VOCABULARY)


@dataclass(frozen=True)
class ParallelDims:
    """The model is held `replicate` times, each time in `shard` pieces."""

    replicate: int
    shard: int

    def mesh(self) -> DeviceMesh:
        return init_device_mesh("cpu", (self.replicate, self.shard), mesh_dim_names=("dp_replicate", "dp_shard"))


class Sharded:
    """Model and optimizer in checkpoints: every process writes and reads its pieces."""

    def __init__(self, model: torch.nn.Module, opt: Optimizer) -> None:
        self.model, self.opt = model, opt

    def state_dict(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.opt)
        return {"model": model, "optimizer": optimizer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_state_dict(self.model, self.opt, model_state_dict=state["model"], optim_state_dict=state["optimizer"])


class Checkpointer:
    """The last two checkpoints. One is complete when its .metadata is there, which is written last."""

    def __init__(self, folder: Path, states: dict[str, Any]) -> None:
        self.folder, self.states = folder, states

    def complete(self) -> list[Path]:
        return sorted(path.parent for path in self.folder.glob("step-*/.metadata"))

    def save(self, step: int) -> None:
        dcp.save(self.states, checkpoint_id=self.folder / f"step-{step:08}")
        if dist.get_rank() == 0:
            for old in self.complete()[:-2]:
                shutil.rmtree(old)

    def load(self) -> None:
        if complete := self.complete():
            dcp.load(self.states, checkpoint_id=complete[-1])


class Progress:
    """What else a run goes on from."""

    def __init__(self) -> None:
        self.step, self.best, self.waited = 0, float("inf"), 0

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def total(x: float) -> float:
    """The sum over all processes."""
    found = torch.tensor(x, dtype=torch.float64)
    dist.all_reduce(found)
    return found.item()


def loss_sum(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    logits = model(tokens[:, :-1]).flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="sum")


def train(
    out: Path = Path("runs/torchtitan_loop"), epochs: int = 3, patience: int = 2, replicate: int = 1
) -> Optimizer:
    """Stop when the loss on held-out text has not fallen for `patience` epochs."""
    out.mkdir(parents=True, exist_ok=True)
    rank, world = dist.get_rank(), dist.get_world_size()
    mesh = ParallelDims(replicate, world // replicate).mesh()
    model = GPT(CONFIG, initial(CONFIG, seed=0))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    opt = dualopt.optimizer(model, RECIPE)  # after sharding

    batches = toy.Batches(toy.rows(26, seed=1), size=4, rank=rank, world=world)
    held_out = torch.from_numpy(toy.rows(16, seed=2)[rank::world])
    progress = Progress()
    checkpointer = Checkpointer(out, {"sharded": Sharded(model, opt), "data": batches, "progress": progress})
    checkpointer.load()

    def train_step(tokens: torch.Tensor) -> tuple[float, int]:
        count = int(total(tokens[:, 1:].numel()))  # of all processes, as Δτ is
        opt.zero_grad()
        value = loss_sum(model, tokens) / count
        (value * world).backward()  # engines average over processes: this makes it the mean over all tokens
        opt.step(count=count)
        return total(value.item()), count

    while batches.epoch < epochs and progress.waited < patience:
        for batch in batches:
            began = time.perf_counter()
            value, count = train_step(torch.from_numpy(batch))
            progress.step += 1
            if rank == 0:
                rate = count / (time.perf_counter() - began)
                metrics = {"step": progress.step, "tokens": opt.plan.tau, "loss": value, "tokens_per_second": rate}
                with open(out / "metrics.jsonl", "a") as file:
                    print(json.dumps(metrics), file=file)
            if batches.position % 3 == 2:
                checkpointer.save(progress.step)
        with opt.evaluating(), torch.no_grad():
            now = total(loss_sum(model, held_out).item()) / total(held_out[:, 1:].numel())
        if rank == 0:
            print(f"{opt.plan.tau:5} tokens   loss {value:.3f}   held out {now:.3f}")
        better = now < progress.best
        progress.best, progress.waited = (now, 0) if better else (progress.best, progress.waited + 1)
        checkpointer.save(progress.step)
    return opt


def main(out: Path = Path("runs/torchtitan_loop"), epochs: int = 3, patience: int = 2, replicate: int = 1) -> None:
    dist.init_process_group("gloo")  # "nccl" on GPUs
    train(out, epochs, patience, replicate)
    dist.destroy_process_group()


if __name__ == "__main__":
    typer.run(main)
