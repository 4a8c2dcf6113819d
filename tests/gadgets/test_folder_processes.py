"""Folders of scans on several processes and on the workers of a cluster; processes that die."""

import argparse
import os
import subprocess
import sys
from dataclasses import replace as changed
from pathlib import Path

import pytest

from gadgets.__main__ import main
from gadgets.hosts import permission, replay
from gadgets.hosts.folders import cluster, processes
from gadgets.hosts.folders.device import taken
from gadgets.hosts.folders.task import Task, perform
from gadgets.simulate import make_scan
from mrnets import store
from mrnets.errors import InputError
from mrnets.mrd.files import write_scan
from tests.gadgets.folder_work import SMALL, kills_its_process, task, tells_its_process

ROOT = Path(__file__).parents[2]


class TestProcesses:
    def test_processes_stay_for_all_tasks(self):
        outcomes = list(processes.performed([task(f"s{n}") for n in range(6)], tells_its_process, 2))
        assert sorted(one.name for one in outcomes) == [f"s{n}" for n in range(6)]
        assert len({one.reason for one in outcomes}) <= 2
        assert str(os.getpid()) not in {one.reason for one in outcomes}

    @pytest.mark.parametrize(("deaths", "state"), [(2, "done"), (3, "failed")])
    def test_a_process_that_dies_is_replaced(self, tmp_path, deaths, state):
        for n in range(deaths):
            (tmp_path / str(n)).touch()
        tasks = [task("one"), task("killer", str(tmp_path)), task("two")]
        outcomes = {one.name: one for one in processes.performed(tasks, kills_its_process, 2)}
        assert outcomes["killer"].state == state
        assert outcomes["one"].state == outcomes["two"].state == "done"
        told = "its process was ended by signal 9 (out of memory?), 3 times"
        assert outcomes["killer"].reason == (told if state == "failed" else "")

    def test_an_iterator_that_is_closed_ends_its_processes(self):
        running = processes.performed([task(f"s{n}") for n in range(4)], tells_its_process, 1)
        number = int(next(running).reason)
        running.close()
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)

    def test_each_takes_a_gpu_of_its_own(self, tmp_path):
        assert [taken(["0", "1"], tmp_path) for _ in range(2)] == ["0", "1"]
        assert taken(["0", "1"], tmp_path) in ("0", "1")

    def test_networks_are_loaded_once(self, tmp_path, monkeypatch):
        loaded = []
        load = store.load
        monkeypatch.setattr(store, "load", lambda *given: loaded.append(given) or load(*given))
        monkeypatch.chdir(tmp_path)
        weights = store.located("qvarnet_brain").read_bytes()
        Path("mine.safetensors").write_bytes(weights)
        header, lines, _ = make_scan(changed(SMALL, echoes=4))
        lines = list(lines)
        for name in ("a", "b"):
            write_scan(f"{name}.h5", header, lines)
        monkeypatch.setattr(processes, "performed", lambda tasks, work, count: map(work, tasks))
        words = ["replay", "a.h5", "b.h5", "-o", "images", "-c", "quantitative", "-q"]
        assert main([*words, "--set", "network.weights=mine.safetensors"]) == 0
        assert len(loaded) == 1


def scans(folder: Path) -> list[str]:
    """Two simulated scans."""
    for seed in (1, 2):
        header, lines, _ = make_scan(changed(SMALL, seed=seed))
        write_scan(folder / f"{seed}.h5", header, lines)
    return [str(folder / f"{seed}.h5") for seed in (1, 2)]


def same_as_single(paths: list[str], folder: Path) -> None:
    for path in paths:
        single = folder / "single.h5"
        replay.replay(path, single, "cgsense")
        assert single.read_bytes() == (folder / "images" / Path(path).name).read_bytes()


@pytest.mark.slow
def test_the_command_line_with_two_processes(tmp_path):
    paths = scans(tmp_path)
    words = ["replay", *paths, "-o", str(tmp_path / "images"), "-c", "cgsense", "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "gadgets", *words], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "2 scans: 2 done"
    same_as_single(paths, tmp_path)


@pytest.fixture
def distributed(tmp_path_factory):
    """The package, whose files lie in a folder of the test's."""
    package, dask = pytest.importorskip("distributed"), pytest.importorskip("dask")
    with dask.config.set({"temporary-directory": str(tmp_path_factory.mktemp("dask"))}):
        yield package


@pytest.fixture
def two_workers(distributed):
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "timeout": 120}
    with distributed.LocalCluster(processes=True, **settings) as made:
        yield made.scheduler_address


def tasks_of(paths: list[str], folder: Path) -> list[Task]:
    parser = argparse.ArgumentParser()
    replay.add_arguments(parser)
    permission.add_allow(parser)
    (folder / "images").mkdir()
    return [
        Task(
            Path(path).stem, parser.parse_args([path, "-o", str(folder / "images" / Path(path).name), "-c", "cgsense"])
        )
        for path in paths
    ]


@pytest.mark.slow
class TestCluster:
    def test_two_workers_make_what_single_runs_make(self, two_workers, tmp_path):
        paths = scans(tmp_path)
        outcomes = list(cluster.performed(tasks_of(paths, tmp_path), perform, two_workers))
        assert [one.state for one in outcomes] == ["done", "done"]
        same_as_single(paths, tmp_path)

    @pytest.mark.parametrize(("deaths", "state"), [(2, "done"), (8, "failed")])
    def test_a_worker_that_dies_is_replaced(self, two_workers, tmp_path, deaths, state):
        for n in range(deaths):
            (tmp_path / str(n)).touch()
        tasks = [task("one"), task("killer", str(tmp_path)), task("two")]
        outcomes = {one.name: one for one in cluster.performed(tasks, kills_its_process, two_workers)}
        assert outcomes["killer"].state == state
        assert outcomes["one"].state == outcomes["two"].state == "done"

    @pytest.mark.usefixtures("distributed")
    def test_no_scheduler_is_one_sentence(self):
        with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1:"):
            list(cluster.performed([task("a")], perform, "tcp://127.0.0.1:1", patience=2))

    def test_no_worker_is_one_sentence(self, distributed):
        with (
            distributed.LocalCluster(n_workers=0, dashboard_address=None) as made,
            pytest.raises(InputError, match="has no workers, also after 1 s"),
        ):
            list(cluster.performed([task("a")], perform, made.scheduler_address, patience=1))


def test_a_cluster_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"--scheduler needs distributed, .*\[cluster\]"):
        list(cluster.performed([task("a")], perform, "tcp://127.0.0.1:1"))
