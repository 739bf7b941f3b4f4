"""Worlds of processes for the tests of distributed training: started once, given one task after the other.

A task is a function of this process's rank and the number of processes, in a module that can be imported. What takes
longer than its time is killed with all that belongs to it, so that no test hangs and no process stays.
"""

from __future__ import annotations

import multiprocessing as mp
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

PATIENCE = 120.0  # seconds for one task, on a machine that does other things too


class World:
    """`size` processes that are connected by gloo."""

    def __init__(self, size: int) -> None:
        self.size = size
        context = mp.get_context("forkserver")  # imports torch once, and has no threads when it forks
        context.set_forkserver_preload(["tests.distributed_jobs"])
        self._directory = tempfile.TemporaryDirectory()
        at = str(Path(self._directory.name) / "store")
        self._pipes, self._processes = [], []
        for rank in range(size):
            here, there = context.Pipe()
            process = context.Process(target=_live, args=(rank, size, at, there), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def __call__(self, job: Callable[..., Any], *args: Any) -> list[Any]:
        """[what `job(rank, size, *args)` returns]. RuntimeError with the traceback of the first that raises."""
        for pipe in self._pipes:
            pipe.send((job, args))
        end = time.monotonic() + PATIENCE
        found = []
        try:
            for rank, pipe in enumerate(self._pipes):
                if not pipe.poll(max(0.0, end - time.monotonic())):
                    raise TimeoutError(f"process {rank} has not come back within {PATIENCE:g} s")
                found.append(pipe.recv())
        except BaseException:
            self.close()
            raise
        wrong = next((text for well, text in found if not well), None)
        if wrong is not None:
            self.close()  # its processes may be out of step
            raise RuntimeError(wrong)
        return [value for _, value in found]

    @property
    def alive(self) -> bool:
        return all(process.is_alive() for process in self._processes)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()
        self._directory.cleanup()


def _live(rank: int, size: int, at: str, pipe: Any) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{at}", rank=rank, world_size=size, timeout=timedelta(seconds=PATIENCE)
    )
    while True:
        try:
            job, args = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, job(rank, size, *args)))
        except BaseException:
            pipe.send((False, f"process {rank}:\n{traceback.format_exc()}"))
