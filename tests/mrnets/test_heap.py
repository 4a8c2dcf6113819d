"""Freed memory is kept for the next arrays, but for what the user has set otherwise."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mrnets import heap

ROOT = Path(__file__).parents[2]
WORK = """
import resource, threading
import numpy as np
{before}
def work():
    for _ in range(20):
        for array in [np.ones(2**20) for _ in range(8)]:  # 8 MiB each
            del array
def faults():
    thread = threading.Thread(target=work)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def pages_of_the_system(before: str) -> int:
    """Pages that the system lends again for the same work."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", WORK.format(before=before)],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not the GNU C library")
def test_freed_memory_is_used_again():
    usual = pages_of_the_system("")
    kept = pages_of_the_system("from mrnets import heap; heap.settle()")
    assert kept < usual / 10, (kept, usual)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, set(heap.SETTINGS.values())),
        ({"MALLOC_ARENA_MAX": "4"}, set(heap.SETTINGS.values()) - {heap.SETTINGS["MALLOC_ARENA_MAX"]}),
        ({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1"}, set()),
    ],
)
def test_what_the_user_has_set_stays(monkeypatch, environment, expected):
    given = set()
    library = SimpleNamespace(mallopt=lambda parameter, value: given.add((parameter, value)))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    heap.settle(environment)
    assert given == expected


def test_another_c_library_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    heap.settle({})
