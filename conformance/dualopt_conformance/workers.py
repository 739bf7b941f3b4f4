"""Work that is divided among processes of this program; the results come in the order of the tasks.

A process reads pairs (function, task) from its standard input and writes what the function returns, or raises, to
its standard output, all of it pickled. It ends when its input does: however the process that started it came to its
end, none is left running. ``python -m dualopt_conformance.workers`` is one.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from dualopt.errors import DualoptError

Task = TypeVar("Task")
Result = TypeVar("Result")

USUAL = 2  # processes: the tasks are small, and their time is Python's
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerError(DualoptError):
    """A process ended before its work was done."""


class Worker:
    """A process, and what it said on standard error."""

    def __init__(self, threads: int) -> None:
        path = os.pathsep.join(p for p in sys.path if p)
        few = {name: os.environ.get(name, str(threads)) for name in THREADS}
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, "PYTHONPATH": path, **few},
        )

    def do(self, function: Callable[[Task], Result], task: Task) -> Result:
        """function(task). What it raises is raised here; WorkerError if the process died of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            pickle.dump((function, task), self.process.stdin)
            self.process.stdin.flush()
            good, found = pickle.load(self.process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            status = self.process.wait()
            self._said.seek(0)
            raise WorkerError(f"a process ended with status {status}: {self._said.read().strip()[-2000:]}") from error
        if not good:
            raise found
        return found  # type: ignore[no-any-return]

    def end(self) -> None:
        """At once, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._said):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:  # what it had not read
                    pass


def mapped(
    function: Callable[[Task], Result], tasks: Sequence[Task], processes: int | None = None, *, least: int = 8
) -> Iterator[Result]:
    """function(task) for every task, in order.

    Args:
        function: of a module, not local to another function; its arguments and results can be pickled.
        tasks: what it is called with.
        processes: None: `USUAL`, if there are so many cores. With one, all is done in this process.
        least: tasks for each process to be worth its start.
    """
    cores = os.cpu_count() or 1
    wanted = min(USUAL, cores) if processes is None else processes
    wanted = min(wanted, len(tasks) // least)
    if wanted < 2:
        yield from map(function, tasks)
        return
    workers = [Worker(max(1, cores // wanted)) for _ in range(wanted)]
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def one(task: Task) -> Result:
        worker = idle.get()
        try:
            return worker.do(function, task)
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(wanted) as pool:
        futures = [pool.submit(one, task) for task in tasks]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.end()


def main() -> None:
    """Be a worker."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no result
    tasks: queue.SimpleQueue[tuple[Callable[[Any], Any], Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(tasks,), daemon=True).start()
    while True:
        function, task = tasks.get()
        try:
            found: tuple[bool, Any] = True, function(task)
        except Exception as error:
            found = False, error
        pickle.dump(found, out)
        out.flush()


def _read(tasks: queue.SimpleQueue[tuple[Callable[[Any], Any], Any]]) -> None:
    try:
        while True:
            tasks.put(pickle.load(sys.stdin.buffer))
    except EOFError:
        os._exit(1)


if __name__ == "__main__":
    main()
