"""Seconds and memory are counted for the gadget that runs, and not for the one that asks it for items."""

import mmap
import time
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from gadgets.__main__ import main
from gadgets.chain import SCAN, Chain, Stage
from gadgets.kernels import Piece, pieces, traced
from gadgets.profile import OUTSIDE, Profile
from mrnets.mrd.header import read_header
from tests.gadgets import toys
from tests.gadgets.toys import blob, configuration, stage

STAGES = (stage("noise"), stage("toy", scale=2))
SIZE = 128 << 20


class Clock:
    """A clock that stands still unless it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_second_is_counted_for_the_gadget_that_runs():
    clock = Clock()
    profile = Profile(clock)

    def inner():
        for n in range(3):
            clock.now += 2
            yield n

    def outer(items):
        for item in items:
            clock.now += 10
            yield item
        clock.now += 1

    for _ in profile.timed("outer", outer(profile.timed("inner", inner()))):
        clock.now += 100
    list(profile.table())
    assert {name: step.seconds for name, step in profile.steps.items()} == {OUTSIDE: 300, "outer": 31, "inner": 6}


def test_a_failure_ends_the_time_of_its_gadget():
    clock = Clock()
    profile = Profile(clock)

    def broken():
        clock.now += 3
        raise ValueError("broken")
        yield

    with pytest.raises(ValueError, match="broken"):
        list(profile.timed("broken", broken()))
    clock.now += 5
    list(profile.table())
    assert (profile.steps["broken"].seconds, profile.steps[OUTSIDE].seconds) == (3, 5)


def test_a_gadget_that_computes_nothing_waits():
    """On a clock and a processor that stand still unless they are moved."""
    clock, processors = Clock(), Clock()
    profile = Profile(clock, processors)

    def items():
        clock.now += 5
        processors.now += 2
        yield 1

    for _ in profile.timed("one", items()):
        clock.now += 1
        processors.now += 4  # several processors
    list(profile.rows())
    assert (profile.steps["one"].seconds, profile.steps["one"].waiting) == (5, 3)
    assert profile.steps[OUTSIDE].waiting == 0


@dataclass(frozen=True)
class Event:
    """An event as torch's profiler tells it."""

    device: str
    correlation: int
    start: int
    duration: int
    named: bool = False

    def is_user_annotation(self):
        return self.named

    def device_type(self):
        return SimpleNamespace(name=self.device)

    def correlation_id(self):
        return self.correlation

    def start_ns(self):
        return self.start

    def duration_ns(self):
        return self.duration


def test_kernels_are_counted_from_the_call_that_sent_them():
    events = [
        Event("CPU", 1, 10, 3),  # one kernel, which began late
        Event("CUDA", 1, 500, 100),
        Event("CUDA", 2, 800, 50),  # a graph: two kernels, told before their call
        Event("CUDA", 2, 900, 60),
        Event("CPU", 2, 20, 5),
        Event("CUDA", 7, 950, 40),  # its call is not known
        Event("CUDA", 2, 800, 200, named=True),  # a part of the program
    ]
    known = [(piece.sent, round(piece.seconds * 1e9)) for piece in pieces(events)]
    assert known == [(10, 100), (20, 50), (20, 60), (950, 40)]


def test_a_gpu_s_work_is_counted_for_the_gadget_that_sent_it():
    """Also what it does after that gadget has ended, and while another one runs."""
    clock, asked = Clock(), []

    def work():
        asked.append(clock.now)
        return [Piece(0, 64.0), Piece(4, 1.0), Piece(5, 2.0), Piece(9, 0.5), Piece(11, 8.0)]

    profile = Profile(clock, now=lambda: int(clock.now), work=work)

    def one():
        clock.now += 5  # from 1 to 6
        yield 1
        clock.now += 1  # from 10 to 11

    clock.now = 1
    for _ in profile.timed("one", one()):
        clock.now += 4
    clock.now += 2
    table = list(profile.table())
    assert (profile.steps["one"].device, profile.steps[OUTSIDE].device) == (3.0, 72.5)
    assert [line.split()[3:4] for line in table if line.startswith("one")] == [["3.000"]]
    list(profile.rows())
    assert (asked, profile.steps["one"].device) == ([13], 3.0)


def test_the_table_says_where_a_gpu_computed_nothing_and_where_nobody_knows():
    profile = Profile(Clock())
    assert list(profile.table())[-1] == "No gadget computed on a GPU."
    profile.steps[OUTSIDE].device_memory = 1 << 20
    assert list(profile.table())[-1] == "The GPU time was not measured."


def test_torch_tells_calls_by_the_clock_of_the_profile():
    with torch.autograd.profiler.profile(use_kineto=True) as counting:
        before = time.time_ns()
        torch.ones(4)
        after = time.time_ns()
    starts = [e.start_ns() for e in counting.kineto_results.events() if e.name() == "aten::ones"]
    assert len(starts) == 1
    assert before <= starts[0] <= after


@pytest.mark.gpu
def test_a_gpu_s_kernels_are_counted():
    with traced() as work:
        profile = Profile(work=work)

        def items():
            x = torch.ones(512, 512, device="cuda")
            for _ in range(8):
                x = x @ x
            yield 1

        list(profile.timed("product", items()))
        list(profile.rows())
    assert profile.steps["product"].device > 0
    assert profile.steps[OUTSIDE].device == 0


def test_memory_is_the_peak_while_the_gadget_ran():
    profile = Profile()

    def large():
        with mmap.mmap(-1, SIZE) as pages:  # NumPy may take memory that the process already holds
            pages.write(b"1" * SIZE)
        yield 1.0

    def small():
        yield 1.0

    for name, items in (("large", large()), ("small", small())):
        list(profile.timed(name, items))
    if not profile.steps["small"].memory:
        pytest.skip("this system does not tell the memory of a process")
    assert profile.steps["large"].memory - profile.steps["small"].memory > SIZE * 3 // 4


def test_a_chain_shows_its_watch_what_comes_in_and_what_each_gadget_makes():
    seen = []

    def watch(name, items):
        for item in items:
            seen.append(name)
            yield item

    chain = Chain.parse(configuration(*STAGES))
    plain = list(chain.run(iter(toys.scan()), read_header(toys.HEADER).header))
    watched = list(chain.run(iter(toys.scan()), read_header(toys.HEADER).header, watch=watch))
    assert blob(watched) == blob(plain)
    assert set(seen) == {SCAN, "noise", "toy"}


def test_a_second_network_has_a_name_of_its_own():
    names = []

    def watch(name, items):
        names.append(name)
        return items

    Chain((Stage("network", {}), Stage("network", {}))).run(iter([]), read_header(toys.HEADER).header, watch=watch)
    assert names == [SCAN, "network", "network.2"]


def test_replay_tells_the_gadgets_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "-o", "scan.h5", "--matrix", "32", "--coils", "2", "--acceleration", "1"]) == 0
    assert main(["replay", "scan.h5", "-c", "zerofilled", "-o", "i.h5", "-q", "--profile"]) == 0
    *lines, last = capsys.readouterr().err.splitlines()
    words = [line.split()[0] for line in lines]
    assert last == "No gadget computed on a GPU."
    assert words == ["gadget", SCAN, "noise", "sort", "coils", "network", "images", "the"]
