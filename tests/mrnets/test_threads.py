"""Settings of threads: before the libraries load, within what a container allows, and never over the user's own."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrnets import threads

ROOT = Path(__file__).parents[2]
TURNS = {threads.OPENMP["GOMP_SPINCOUNT"], threads.LOADED["GOMP_SPINCOUNT"]}
"""The machine of the tests may be loaded or not."""


def group(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "processors"),
    [
        ({"cpu_dot_max": "200000 100000\n"}, 2),
        ({"cpu_dot_max": "150000 100000\n"}, 2),
        ({"cpu_dot_max": "20000 100000\n"}, 1),
        ({"cpu_dot_max": "max 100000\n"}, math.inf),
        ({"cpu_dot_max": "nonsense"}, math.inf),
        ({"cpu__cpu_dot_cfs_quota_us": "300000", "cpu__cpu_dot_cfs_period_us": "100000"}, 3),
        ({"cpu__cpu_dot_cfs_quota_us": "-1", "cpu__cpu_dot_cfs_period_us": "100000"}, math.inf),
        ({}, math.inf),
    ],
)
def test_a_container_allows(tmp_path, files, processors):
    assert threads.allowed(group(tmp_path, **files)) == processors


def test_threads_are_no_more_than_the_container_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    environment: dict[str, str] = {}
    threads.settle(environment, group(tmp_path, cpu_dot_max="300000 100000"), load=0.5)
    assert environment == {**threads.OPENMP, **threads.OTHERS, "OMP_NUM_THREADS": "3"}


def test_without_a_narrower_limit_the_libraries_choose(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    environment: dict[str, str] = {}
    threads.settle(environment, group(tmp_path, cpu_dot_max="400000 100000"), load=0.5)
    assert environment == {**threads.OPENMP, **threads.OTHERS}


@pytest.mark.parametrize(("load", "spins"), [(0.0, True), (6.0, True), (6.1, False), (40.0, False)])
def test_threads_sleep_at_once_where_the_machine_is_loaded(tmp_path, monkeypatch, load, spins):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    environment: dict[str, str] = {}
    threads.settle(environment, tmp_path, load)
    assert environment == {**(threads.OPENMP if spins else threads.LOADED), **threads.OTHERS}


def test_the_load_is_that_of_the_last_minute(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (3.5, 0.0, 0.0))
    environment: dict[str, str] = {}
    threads.settle(environment, tmp_path)
    assert environment["GOMP_SPINCOUNT"] == threads.LOADED["GOMP_SPINCOUNT"]


def test_a_machine_that_tells_no_load_is_not_loaded(tmp_path, monkeypatch):
    def unobtainable():
        raise OSError("Load averages are unobtainable")

    monkeypatch.setattr(os, "getloadavg", unobtainable)
    environment: dict[str, str] = {}
    threads.settle(environment, tmp_path)
    assert environment["GOMP_SPINCOUNT"] == threads.OPENMP["GOMP_SPINCOUNT"]


@pytest.mark.parametrize("load", [0.0, 1e6])
def test_what_the_user_has_set_stays(tmp_path, monkeypatch, load):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    own = {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "active", "OPENBLAS_NUM_THREADS": "4"}
    environment = dict(own)
    threads.settle(environment, group(tmp_path, cpu_dot_max="100000 100000"), load)
    assert environment.items() >= own.items()
    assert not environment.keys() & threads.OPENMP.keys(), "they would override OMP_WAIT_POLICY"


PROBE = """
import os, runpy, sys
loaded = {}
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "torch") and name not in loaded:
            loaded[name] = os.environ.get("GOMP_SPINCOUNT")
            print({name: loaded[name]}, flush=True)
sys.meta_path.insert(0, Watch())
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "command",
    [
        ["gadgets", "chains"],
        ["gadgets.hosts.takeover", "no-port", "gadgets", "pipeline"],
        ["training", "fit", "ismrmrd", "--dry-run", "data=nowhere"],
    ],
)
def test_threads_are_settled_before_the_libraries_load(command):
    environment = {k: v for k, v in os.environ.items() if k not in (*threads.OPENMP, "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *command],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert any(f"'numpy': '{turns}'" in done.stdout for turns in TURNS), done.stdout + done.stderr


def test_the_lines_of_the_readme_for_python_load_no_library():
    """They must come before NumPy and torch, which read the environment when they load."""
    line = "from mrnets.commandline import settle; settle()"
    assert f"`{line}`" in (ROOT / "README.md").read_text(encoding="utf-8")
    code = f"{line}\nimport os, sys\nprint({{'numpy', 'torch'}} & set(sys.modules), os.environ['GOMP_SPINCOUNT'])"
    environment = {k: v for k, v in os.environ.items() if k not in (*threads.OPENMP, "OMP_WAIT_POLICY")}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in {f"set() {turns}" for turns in TURNS}
