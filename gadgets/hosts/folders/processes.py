"""Tasks on several processes of this machine. A process that dies takes no other task with it."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import FrameType

from gadgets.hosts.folders.device import take_device
from gadgets.hosts.folders.task import Outcome, Task

__all__ = ["ATTEMPTS", "Work", "performed"]

Work = Callable[[Task], Outcome]
ATTEMPTS = 3
"""Processes that a task may end, before it counts as failed."""
GRACE = 5.0
"""Seconds that a process has to end."""


def performed(tasks: Sequence[Task], work: Work, processes: int) -> Iterator[Outcome]:
    """Yield the outcome of each task as it comes. `work` runs in at most so many processes, which stay for all tasks.

    A task whose process dies is tried again in a new one. Where the iterator is closed early, the processes end."""
    stop = threading.Event()
    crew: SimpleQueue[_Worker] = SimpleQueue()
    workers = [_Worker(work) for _ in range(min(processes, len(tasks)))]
    for worker in workers:
        crew.put(worker)

    def by_anyone(task: Task) -> Outcome:
        worker = crew.get()
        try:
            return worker.perform(task, stop)
        finally:
            crew.put(worker)

    threads = ThreadPoolExecutor(max(len(workers), 1))
    try:
        for future in as_completed([threads.submit(by_anyone, task) for task in tasks]):
            yield future.result()
    except BaseException:
        stop.set()
        for worker in workers:
            worker.interrupt()
        raise
    finally:
        threads.shutdown(cancel_futures=True)
        for worker in workers:
            worker.end()


class _Worker:
    """A process that performs one task after another. It starts with the first one."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def perform(self, task: Task, stop: threading.Event) -> Outcome:
        """Return the outcome of a task. Where the process dies, try again in a new one unless `stop` is set."""
        ended = ""
        for _ in range(ATTEMPTS):
            connection = self._connection or self._start()
            if stop.is_set():
                return Outcome(task.name, "failed", "interrupted")
            try:
                connection.send(task)
                found: Outcome = connection.recv()
                return found
            except (EOFError, OSError):
                ended = self.end()
        return Outcome(task.name, "failed", f"its process {ended}, {ATTEMPTS} times")

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._connection, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        process.start()
        self._process = process
        theirs.close()
        return self._connection

    def interrupt(self) -> None:
        """Ask the process to end at once."""
        if (process := self._process) is not None:
            process.terminate()

    def end(self) -> str:
        """End the process, and return how it ended."""
        if self._process is None or self._connection is None:
            return "was never there"
        self._connection.close()
        self._process.join(GRACE)
        for more in (self._process.terminate, self._process.kill):
            if self._process.is_alive():
                more()
                self._process.join(GRACE)
        code, self._process, self._connection = self._process.exitcode, None, None
        if code is not None and code < 0:
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            return f"was ended by signal {-code}{hint}"
        return f"ended with status {code}"


def _serve(connection: Connection, work: Work) -> None:
    """Perform the tasks that come, until the other side is closed. This is a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C goes to all; the first process ends the others
    signal.signal(signal.SIGTERM, _leave)
    take_device()
    try:
        while True:
            connection.send(work(connection.recv()))
    except (EOFError, BrokenPipeError):
        return


def _leave(number: int, frame: FrameType | None) -> None:
    """End the process with its files cleaned up."""
    raise SystemExit(128 + number)
