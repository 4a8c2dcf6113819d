"""Tasks on the workers of a Dask cluster. Workers see the same files as the process that sends the tasks."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from gadgets.export.needed import needed
from gadgets.failures import told
from gadgets.hosts.folders.device import take_device
from gadgets.hosts.folders.processes import Work
from gadgets.hosts.folders.task import Outcome, Task
from mrnets.errors import InputError

__all__ = ["performed"]

PATIENCE = 60
"""Seconds to wait for the scheduler, and for the first worker."""
_ALONE = threading.Lock()
"""A worker takes one scan at a time, however many threads it has."""


def performed(tasks: Sequence[Task], work: Work, address: str, patience: float = PATIENCE) -> Iterator[Outcome]:
    """Yield the outcome of each task as it comes. The scheduler sends a task whose worker dies to another one.

    patience: seconds to wait for the scheduler, and for the first worker.
    Raises InputError without dask.distributed, where no scheduler answers, and where no worker comes."""
    distributed = needed("distributed", "--scheduler", "cluster")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # failures become outcomes
    try:
        client = distributed.Client(address, timeout=patience, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {address}: {told(error)}") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=patience)
        except distributed.TimeoutError:  # of asyncio, which is another one before Python 3.11
            raise InputError(f"the Dask scheduler {address} has no workers, also after {patience:g} s") from None
        there = partial(_at, os.getcwd(), work)
        futures = {client.submit(there, task, pure=False): task for task in tasks}
        for future in distributed.as_completed(list(futures), loop=client.loop):
            yield _outcome(future, futures[future])
            future.release()


def _outcome(future: Any, task: Task) -> Outcome:
    """Return the outcome that has come, or that of a task whose workers died or whose scheduler has gone."""
    try:
        found: Outcome = future.result()
    except Exception as error:  # noqa: BLE001 the other scans are not to be lost
        return Outcome(task.name, "failed", told(error))
    return found


def _at(folder: str, work: Work, task: Task) -> Outcome:
    """Return the outcome of a task in the folder that its paths begin from. This runs on a worker."""
    try:
        with _ALONE, _inside(folder):
            take_device()
            return work(task)
    except OSError as error:
        return Outcome(task.name, "failed", f"the worker on {socket.gethostname()} has no such folder: {error}")


@contextmanager
def _inside(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
