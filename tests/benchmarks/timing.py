"""Functions that the benchmarks of the physics share: contestants timed in turns, and BART as one of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np


def race(title: str, contestants: Mapping[str, Callable[[], object] | None], repeats: int = 5) -> None:
    """Print the fastest of `repeats` runs of each, all in turns, and its ratio to the first; None: not installed."""
    best = dict.fromkeys(contestants, float("inf"))
    for turn in range(repeats + 1):
        for name, run in contestants.items():
            if run is not None:
                start = time.perf_counter()
                run()
                if turn:  # the first warms up
                    best[name] = min(best[name], time.perf_counter() - start)
    print(title)
    ours = best[next(iter(contestants))]
    for name, run in contestants.items():
        figure = "not installed" if run is None else f"{best[name]:9.4f} s {best[name] / ours:8.2f} x"
        print(f"  {name:<44} {figure}")


def bart(command: str, **inputs: np.ndarray) -> Callable[[], Path] | None:
    """`bart command` as a contestant, `inputs` written beforehand to files of their names, or None without BART.

    It returns the folder of these files and of those that the command writes. The folder goes with the contestant.
    The time has the start of the process and the reading and writing of files in the page cache in it.
    """
    program = shutil.which("bart")
    if program is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="bench"))
    for name, values in inputs.items():
        (folder / f"{name}.hdr").write_text("# Dimensions\n" + " ".join(map(str, values.shape)) + "\n")
        values.astype(np.complex64).ravel(order="F").tofile(folder / f"{name}.cfl")
    # Debian's BART crashes with more than one OpenBLAS thread.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}

    def run() -> Path:
        subprocess.run([program, *command.split()], cwd=folder, env=environment, check=True, capture_output=True)
        return folder

    weakref.finalize(run, shutil.rmtree, folder)
    return run
