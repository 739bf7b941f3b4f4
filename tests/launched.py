"""A training as a user writes it: `torchrun --nproc-per-node 2 -m tests.launched ENGINE`.

Prints the digest of everything on the first process. The gradient of every process is exactly the same, so that the
engines' mean of two or four is that gradient, and the digest that of one process.
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

import dualopt
from dualopt.digest import snapshot_digest
from dualopt_torch.distributed import gathered

RECIPE = {
    "count": {"unit": "tokens", "per_update": 64},
    "group": [
        {"name": "hidden", "optimizer": "scionc", "match": ["*.weight"], "norm": "spectral", "step": 0.02},
        {"name": "rest", "optimizer": "adamw", "match": ["*"]},
    ],
}


def main(engine: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model: torch.nn.Module = torch.nn.Sequential(torch.nn.Linear(9, 7), torch.nn.Tanh(), torch.nn.Linear(7, 5))
    if engine != "alone":
        dist.init_process_group("gloo")
    if engine == "ddp":
        model = torch.nn.parallel.DistributedDataParallel(model)
    if engine == "fsdp":
        fully_shard(model[0])
        fully_shard(model)
    opt = dualopt.optimizer(model, RECIPE, tier="exact")
    for _ in range(3):
        opt.zero_grad()
        model(torch.ones(2, 9)).square().sum().backward()
        opt.step()
    found = opt.snapshot() if engine == "alone" else gathered(opt)
    if found is not None:
        print(snapshot_digest(found), flush=True)
    if engine != "alone":
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
