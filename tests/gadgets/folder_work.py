"""Work for the processes and workers of a folder of scans; they import it by its name."""

import argparse
import os
import signal
from pathlib import Path

from gadgets.hosts.folders.task import Outcome, Task
from gadgets.simulate import Settings

SMALL = Settings(
    coils=4, matrix=32, calibration=12, acceleration=2.0, noise_lines=16, slices=2, seed=3, vendor="siemens"
)


def tells_its_process(task: Task) -> Outcome:
    return Outcome(task.name, "done", str(os.getpid()))


def kills_its_process(task: Task) -> Outcome:
    """Ends the process of the task "killer" as often as the folder of that scan has files to remove."""
    files = sorted(Path(task.args.scans[0]).iterdir()) if task.name == "killer" else []
    if files:
        files[0].unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(task.name, "done")


def task(name: str, scan: str = "scan.h5") -> Task:
    return Task(name, argparse.Namespace(scans=[scan]))
