"""Lives of an example: `python tests/example_lives.py NAME FOLDER KILL [OPTION=JSON ...]`.

The process imports what the example needs, and forks for every life: one that is killed when update KILL + 1 is due,
one that goes on in its folder, and one that nobody touches. Prints what is left of each as JSON: {life: null if it was
killed, otherwise [digest of everything, its largest count, updates that it took]}. With world=2 a life is of two
processes.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from dualopt.digest import snapshot_digest


class Updates:
    """Counts the calls of the method that begins an update, and has the process killed by one of them."""

    def __init__(self, optimizer: type, method: str, kill: int | None) -> None:
        self.number = 0
        plain = getattr(optimizer, method)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.number == kill:
                os.kill(os.getpid(), signal.SIGKILL)
            self.number += 1
            return plain(*args, **kwargs)

        setattr(optimizer, method, call)


def live(train: Any, folder: Path, options: dict[str, Any], kill: int | None, rank: int, world: int, at: str) -> str:
    """One process of a life."""
    if world:
        import torch.distributed as dist

        dist.init_process_group("gloo", init_method=f"file://{at}", rank=rank, world_size=world)
    mlx = "dualopt_mlx" in sys.modules
    module = importlib.import_module("dualopt_mlx" if mlx else "dualopt_torch")
    updates = Updates(module.Optimizer, "advance" if mlx else "step", kill)
    opt = train(out=folder, **options)
    found = [snapshot_digest(opt.snapshot()), max(opt.plan.counts.values()), updates.number]
    if world:
        dist.destroy_process_group()
    return json.dumps(found)


def life(train: Any, folder: Path, options: dict[str, Any], world: int, kill: int | None = None) -> Any:
    """What is left of it; None if it was killed."""
    told, tell = os.pipe()
    children = []
    with tempfile.TemporaryDirectory() as store:
        for rank in range(max(world, 1)):
            child = os.fork()
            if child == 0:
                os.dup2(2, 1)  # what the tools print
                try:
                    found = live(train, folder, options, kill, rank, world, f"{store}/store")
                    os.write(tell, found.encode() if rank == 0 else b"")
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            children.append(child)
        os.close(tell)
        with os.fdopen(told) as pipe:
            found = pipe.read()
        ends = [os.waitpid(child, 0)[1] for child in children]
    if any(os.WIFSIGNALED(end) and os.WTERMSIG(end) == signal.SIGKILL for end in ends):
        return None  # the others may have missed it before they were killed, too
    if any(ends):
        raise SystemExit("a life ended in an error")
    return json.loads(found)


def main(name: str, folder: str, kill: str, *options: str) -> None:
    train = importlib.import_module(name).train
    given = {key: json.loads(value) for key, _, value in (option.partition("=") for option in options)}
    world = given.pop("world", 0)
    lives = {
        "killed": life(train, Path(folder, "killed"), given, world, int(kill)),
        "resumed": life(train, Path(folder, "killed"), given, world),
        "untouched": life(train, Path(folder, "untouched"), given, world),
    }
    print(json.dumps(lives))


if __name__ == "__main__":
    main(*sys.argv[1:])
