"""Work for the processes and workers of a folder of scans; they import it by its name."""

import os
import signal
from pathlib import Path

from gadgets.hosts.folders.task import Outcome, Task


def tells_its_process(task: Task) -> Outcome:
    return Outcome(task.name, "done", str(os.getpid()))


def kills_its_process(task: Task) -> Outcome:
    """Ends the process of the task "killer" as often as the folder of that scan has files to remove."""
    files = sorted(Path(task.args.scans[0]).iterdir()) if task.name == "killer" else []
    if files:
        files[0].unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(task.name, "done")
