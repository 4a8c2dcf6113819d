"""The logic around CUDA graphs. A stand-in takes the place of the graph: its replay is a run into the same memory."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch

import mrnets.graphs as module
from mrnets import store
from mrnets.contract import Estimate, Scan
from mrnets.ending import ended
from mrnets.graphs import WARM_UPS, Graphs, Recorded, asks, recorded
from mrnets.physics import conjugate
from mrnets.preparation import Preparation
from mrnets.trust import classical
from tests.mrnets.examples import create, scan_for
from tests.questions import seen

MIB = 1 << 20
NETWORKS = ("varnet", "l1varnet", "l1wavelet", "cgsense", "unet", "zerofilled")


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor is taken for a device."""
    monkeypatch.setattr(conjugate, "on_host", lambda x: False)


class Recorder:
    """Stands for `recorded`."""

    def __init__(self, bytes: int = MIB) -> None:
        self.made, self.replays, self.bytes = 0, 0, bytes

    def __call__(self, work: Callable[[], Estimate], device: torch.device) -> Recorded[Estimate]:
        self.made += 1
        result = work()

        def replay() -> None:
            self.replays += 1
            for mine, new in zip(arrays(result), arrays(work()), strict=True):
                mine.copy_(new)

        return Recorded(replay, result, self.bytes)


def arrays(estimate: Estimate) -> Iterator[torch.Tensor]:
    found = (estimate.image, estimate.unweighted, estimate.logits, *estimate.maps.values())
    yield from (x for x in found if x is not None)


def other(scan: Scan, seed: int) -> Scan:
    """A scan of the same form with other data."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(scan.kspace.shape, dtype=torch.complex64, generator=generator)
    return dataclasses.replace(scan, kspace=(scan.kspace + noise) * scan.mask)


@torch.inference_mode()
def plain(forward: Callable[[Scan], Estimate], scan: Scan) -> Estimate:
    return forward(scan)


@pytest.mark.parametrize("name", NETWORKS)
def test_replays_give_what_the_plain_run_gives(name: str) -> None:
    network, first = create(name).eval(), scan_for(name)
    forward = ended(network, Preparation(consistency=0.035), store.describe(name).echoes)
    recorder = Recorder()
    graphs = Graphs(recorder, memory=MIB)
    kept = []
    for seed in range(4):
        scan = other(first, seed)
        kept.append((graphs.run(forward, scan, name), plain(forward, scan)))
    assert recorder.made == 1
    assert recorder.replays == 2 + 3  # two to compare, then every scan but the first
    for made, wanted in kept:  # no result is in the memory that the next replay writes to
        pairs = list(zip(arrays(made), arrays(wanted), strict=True))
        assert pairs
        assert all(torch.equal(one, two) for one, two in pairs)


def test_a_replay_launches_copies_alone() -> None:
    scan, silent = scan_for("l1wavelet"), Recorder()
    graphs = Graphs(silent, memory=MIB)
    for _ in range(2):
        graphs.run(classical, scan, "l1wavelet")
    ((own, graph),) = graphs._graphs.values()
    graphs._graphs = type(graphs._graphs)(
        {key: (own, dataclasses.replace(graph, replay=lambda: None)) for key in graphs._graphs}
    )
    with seen() as found:
        graphs.run(classical, scan, "l1wavelet")
    given = [x for f in dataclasses.fields(scan) if (x := getattr(scan, f.name)) is not None]
    assert found.launches.total() == len(given) + len(list(arrays(graph.made)))
    assert not found.asked
    assert not found.sent


def first_of(scan: Scan, slices: int) -> Scan:
    """A scan whose batch has that many slices."""
    return dataclasses.replace(
        scan,
        **{
            name: getattr(scan, name)[:1].repeat_interleave(slices, dim=0)
            for name in ("kspace", "sens", "mask", "noise")
            if getattr(scan, name) is not None
        },
    )


def test_each_form_and_each_computation_has_a_graph_of_its_own() -> None:
    recorder = Recorder()
    graphs = Graphs(recorder, memory=100 * MIB)
    batch, rest = first_of(scan_for("l1wavelet"), 3), first_of(scan_for("l1wavelet"), 2)
    assert batch.noise is not None
    for _ in range(3):
        for scan in (batch, rest, dataclasses.replace(batch, noise=None)):
            for name in ("float32", "bfloat16"):
                made = graphs.run(classical, scan, name)
                assert torch.equal(made.image, plain(classical, scan).image)
    assert recorder.made == 6


def test_the_form_used_longest_ago_goes_first() -> None:
    recorder = Recorder()
    graphs = Graphs(recorder, most=2, memory=100 * MIB)
    scans = [first_of(scan_for("zerofilled"), n) for n in (1, 2, 3)]
    zerofilled = create("zerofilled").eval()
    for scan in (scans[0], scans[0], scans[1], scans[1], scans[0], scans[2], scans[2]):
        graphs.run(zerofilled, scan, "")
    assert recorder.made == 3
    graphs.run(zerofilled, scans[0], "")
    assert recorder.made == 3  # still there
    graphs.run(zerofilled, scans[1], "")
    assert recorder.made == 4  # made again: its form is known


def test_memory_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    scan, zerofilled = scan_for("zerofilled"), create("zerofilled").eval()
    recorder = Recorder(3 * MIB)
    graphs = Graphs(recorder, memory=5 * MIB)
    for name in ("one", "two", "one"):
        for _ in range(2):
            graphs.run(zerofilled, scan, name)
    assert recorder.made == 3  # there is no room for two
    assert graphs.clear()
    assert not graphs.clear()
    large = Graphs(Recorder(6 * MIB), memory=5 * MIB)
    for _ in range(4):
        large.run(zerofilled, scan, "")
    assert [record.message for record in caplog.records] == ["no CUDA graph: it takes 6 MiB, and 5 are allowed"]


def cannot(work: Callable[[], Estimate], device: torch.device) -> Recorded[Estimate]:
    raise RuntimeError("CUDA error: operation not permitted when stream is capturing")


def deaf(work: Callable[[], Estimate], device: torch.device) -> Recorded[Estimate]:
    """A graph that gives the image of its first scan for ever."""
    return Recorded(lambda: None, work(), 0)


@pytest.mark.parametrize(
    ("recorder", "said"), [(cannot, "not permitted when stream is capturing"), (deaf, "differ from those of the plain")]
)
def test_where_a_graph_fails_the_plain_run_goes_on(
    recorder: Callable[..., Recorded[Estimate]], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    graphs = Graphs(recorder, memory=MIB)
    for seed in range(4):
        scan = other(scan_for("l1wavelet"), seed)
        assert torch.equal(graphs.run(classical, scan, "").image, plain(classical, scan).image)
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert said in record.message


def test_a_network_that_asks_the_host_is_not_recorded(caplog: pytest.LogCaptureFixture) -> None:
    def asking(scan: Scan) -> Estimate:
        return classical(scan) if float(scan.noise[0]) >= 0 else Estimate()

    caplog.set_level(logging.INFO, logger="mrnets.graphs")
    recorder = Recorder()
    graphs = Graphs(recorder, memory=MIB)
    for _ in range(3):
        graphs.run(asking, scan_for("l1wavelet"), "")
    assert recorder.made == 0
    assert [record.message for record in caplog.records] == ["no CUDA graph: the network asks the host (item)"]


def test_what_a_network_asks_once_does_not_count() -> None:
    asked: list[float] = []

    def asking(scan: Scan) -> Estimate:
        if len(asked) < 2:
            asked.append(float(scan.noise[0]))
        return classical(scan)

    recorder = Recorder()
    graphs = Graphs(recorder, memory=MIB)
    for _ in range(2):
        graphs.run(asking, scan_for("l1wavelet"), "")
    assert recorder.made == 1


@pytest.mark.parametrize("factor", [0.0, float("nan")])
def test_a_graph_waits_for_an_image_that_shows_something(factor: float) -> None:
    recorder, scan = Recorder(), scan_for("l1wavelet")
    assert scan.kspace is not None
    graphs = Graphs(recorder, memory=MIB)
    for _ in range(3):
        graphs.run(classical, dataclasses.replace(scan, kspace=scan.kspace * factor), "")
    assert recorder.made == 0
    graphs.run(classical, scan, "")
    assert recorder.made == 1


def test_what_a_network_raises_passes() -> None:
    graphs = Graphs(Recorder(), memory=MIB)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            graphs.run(lambda scan: Estimate(image=scan.kspace * (1 / 0)), scan_for("l1wavelet"), "")


class Stream:
    def __init__(self) -> None:
        self.waited_for: list[Stream] = []

    def wait_stream(self, other: Stream) -> None:
        self.waited_for.append(other)


class Cuda:
    """Stands for `torch.cuda`. A recording frees spare memory first there, and leaves its stream unless it fails."""

    def __init__(self) -> None:
        self.usual = self.current = Stream()
        self.reserved = 700 * MIB
        self.ended: list[Any] = []

    def parts(self) -> dict[str, Any]:
        return {
            "device": lambda device: contextlib.nullcontext(),
            "current_device": lambda: 3,
            "current_stream": lambda: self.current,
            "Stream": Stream,
            "stream": self.stream,
            "CUDAGraph": mock.Mock,
            "graph": self.graph,
            "graph_pool_handle": lambda: (0, 8),
            "memory_reserved": lambda: self.reserved,
        }

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextlib.contextmanager
    def graph(self, graph: Any, *, pool: Any, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        assert module._recording.locked()  # torch waits for the device here: no other thread may record meanwhile
        before, self.current = self.current, stream
        self.reserved -= 600 * MIB
        yield
        self.current = before


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    made = Cuda()
    for name, part in made.parts().items():
        monkeypatch.setattr(torch.cuda, name, part)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *told: made.ended.append(told), raising=False)
    monkeypatch.setattr(module, "_failed", threading.Event())
    return made


def test_a_graph_counts_the_memory_that_its_recording_takes(cuda: Cuda) -> None:
    def work() -> int:
        cuda.reserved += 64 * MIB
        return 5

    made = recorded(work, torch.device("cpu"))
    assert (made.made, made.bytes) == (5, 64 * MIB)
    assert cuda.current is cuda.usual


@pytest.mark.parametrize("run", [1, WARM_UPS + 1], ids=["warm-up", "recording"])
def test_after_a_failure_the_thread_is_on_its_stream(cuda: Cuda, run: int) -> None:
    runs = []

    def work() -> None:
        runs.append(cuda.current)
        if len(runs) == run:
            raise RuntimeError("CUDA error")

    with pytest.raises(RuntimeError, match="CUDA error"):
        recorded(work, torch.device("cpu"))
    assert cuda.current is cuda.usual
    assert cuda.usual.waited_for == [runs[-1]]
    if run == 1:
        recorded(work, torch.device("cpu"))
        return
    assert cuda.ended == [(3, (0, 8))]  # otherwise torch thinks that it still runs
    with pytest.raises(RuntimeError, match="an earlier recording of this process failed"):
        recorded(work, torch.device("cpu"))
    assert len(runs) == run


def test_what_the_host_sends_is_seen() -> None:
    """`torch.tensor` shows a tensor on the device alone, a single number is sent by a copy, and places by an index."""
    there, number, places = (torch.empty(shape, device="meta") for shape in ((3,), (), (1,)))
    host = torch.zeros(())
    for name, args, sent in (
        ("lift_fresh", (there,), True),
        ("lift_fresh", (host,), False),
        ("copy_", (number, host), True),
        ("add", (there, host), False),
        ("index", (there, [None, torch.zeros(1, dtype=torch.int64)]), True),
        ("index", (there, [places.to(torch.int64)]), False),
    ):
        assert asks(mock.Mock(overloadpacket=mock.Mock(__name__=name)), args, {}) == sent, name


@pytest.mark.gpu
def test_after_a_recording_that_fails_a_device_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that two streams have used is used again, and spare memory is given back."""
    monkeypatch.setattr(module, "_failed", threading.Event())
    usual, x = torch.cuda.current_stream(), torch.ones(1 << 20, device="cuda")
    with pytest.raises(RuntimeError):
        recorded(lambda: float(x.sum()), x.device)
    assert torch.cuda.current_stream() == usual
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    for _ in range(8):
        y = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
        y.record_stream(torch.cuda.Stream())
        del y
        torch.cuda.synchronize()
    assert torch.cuda.memory_reserved() <= before + 128 * MIB
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before


@pytest.mark.gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_on_a_device(name: str, caplog: pytest.LogCaptureFixture) -> None:
    def there(scan: Scan) -> Scan:
        values = {f.name: getattr(scan, f.name) for f in dataclasses.fields(scan)}
        return Scan(**{key: None if x is None else x.cuda() for key, x in values.items()})

    network = create(name).eval().cuda()
    forward = ended(network, Preparation(consistency=0.035), store.describe(name).echoes)
    graphs = Graphs(recorded)
    for seed in range(4):
        scan = there(other(scan_for(name), seed))
        made, wanted = graphs.run(forward, scan, name), plain(forward, scan)
        for one, two in zip(arrays(made), arrays(wanted), strict=True):
            assert torch.linalg.vector_norm(one - two) <= 1e-5 * torch.linalg.vector_norm(two)
    assert not caplog.records
