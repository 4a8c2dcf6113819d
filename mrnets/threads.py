"""Threads of a process: as many as it has processors, and none that spins for long while it waits for others.

OpenMP's threads wait for each other at the end of every operation. By default they spin, for milliseconds. Where other
programs run, that takes the processor from the very threads that they wait for. A network then takes 10 to 100 times as
long. A thread that sleeps at once has to be woken for the next operation. On some machines that takes longer than many
operations do. So threads spin briefly and then sleep. On a machine that is loaded when the process starts, they sleep
at once (`tests/benchmarks/bench_threads.py`).

The libraries read their settings from the environment when they load. So `settle` comes before the first import of
NumPy or torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

__all__ = ["allowed", "settle"]

OPENMP = {"GOMP_SPINCOUNT": "5000", "KMP_BLOCKTIME": "0"}
"""How long OpenMP's threads spin: GNU's in turns, Intel's and LLVM's in ms. 5000 turns took 57 µs on a Xeon, and 160 µs
on an EPYC."""
LOADED = {**OPENMP, "GOMP_SPINCOUNT": "0"}
"""The same on a loaded machine."""
BUSY = 1.5
"""Threads that compute, or wait for a processor or a disk, for each processor, on a loaded machine. This program alone
makes fewer."""
OTHERS = {"OPENBLAS_NUM_THREADS": "1"}
"""OpenBLAS of NumPy spins always. Its matrices are small here."""

_CONTAINER = Path("/sys/fs/cgroup")


def settle(
    environment: MutableMapping[str, str] = os.environ, container: Path = _CONTAINER, load: float | None = None
) -> None:
    """Set what libraries read of `environment` on threads, and leave alone what the user has set there.

    load: that of the machine in the last minute, as of os.getloadavg(); None: it is asked.
    Where the user has set OMP_WAIT_POLICY, it says how threads wait.
    OMP_NUM_THREADS is set only where a container may use fewer processors than the process sees. The libraries find
    the other limits themselves, and leave out the second thread of a core."""
    load = _load() if load is None else load
    spinning = LOADED if load > BUSY * (os.cpu_count() or 1) else OPENMP
    waiting = {} if "OMP_WAIT_POLICY" in environment else spinning
    for name, value in {**waiting, **OTHERS}.items():
        environment.setdefault(name, value)
    processors = len(os.sched_getaffinity(0))
    if (most := allowed(container)) < processors:
        environment.setdefault("OMP_NUM_THREADS", str(most))


def _load() -> float:
    """Return the load of the machine in the last minute; 0 where it cannot be had, as without /proc."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return 0.0


def allowed(container: Path = _CONTAINER) -> float:
    """Return how many processors the container in which this runs may use, at least 1; infinity without a limit."""
    quota, period = _quota(container)
    return max(1, math.ceil(quota / period)) if quota > 0 and period > 0 else math.inf


def _quota(container: Path) -> tuple[float, float]:
    """Return the time (µs) that all processors together may work in a period, and the period. 0: no limit."""
    try:
        quota, period = (container / "cpu.max").read_text().split()
        return float(quota), float(period)
    except (OSError, ValueError):  # no such file, or "max": control groups of version 1
        files = [container / "cpu" / name for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    try:
        return float(files[0].read_text()), float(files[1].read_text())
    except (OSError, ValueError):
        return 0.0, 0.0
