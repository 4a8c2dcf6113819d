"""Gradients by graphs are those without. A stand-in takes the place of CUDA's graph: its replay computes anew."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mrnets.graphs import Recorded
from mrnets.physics import conjugate
from tests.training.test_loop import losses, same, small
from training import loop
from training.batches import Batches, examples
from training.data import Example
from training.graphs import GradientGraphs, Made
from training.options import Network, Options, Stage
from training.run import Run, built
from training.step import Learning, _backward
from training.tasks import opened

MIB = 1 << 20


class Recorder:
    """Stands for `recorded`. Like a graph, it writes to where it wrote when it was recorded."""

    def __init__(self, bytes: int = MIB, off: float = 0.0) -> None:
        self.made, self.replays, self.bytes, self.off = 0, 0, bytes, off

    def __call__(self, work: Callable[[], Made], device: torch.device) -> Recorded[Made]:
        self.made += 1
        value, gradients = work()

        def replay() -> None:
            self.replays += 1
            held = [(parameter, parameter.grad) for parameter, _ in gradients]
            new, others = work()
            for parameter, before in held:
                parameter.grad = before
            value.copy_(new)
            for (_, mine), (_, other) in zip(gradients, others, strict=True):
                mine.copy_(other * (1 + self.off))

        return Recorded(replay, (value, gradients), self.bytes)


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor is taken for a device."""
    monkeypatch.setattr(conjugate, "on_host", lambda x: False)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """The recorder of the runs of a test."""
    made = Recorder()
    monkeypatch.setattr(loop, "_recordable", lambda options, team: options.graphs)
    monkeypatch.setattr(loop, "GradientGraphs", lambda network: GradientGraphs(network, made, memory=100 * MIB))
    return made


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """A run with scans of one form."""
    run = small(tmp_path)
    simulated = dataclasses.replace(run.simulated, matrix=(32,), coils=(4, 4), calibration=(12, 12))
    return dataclasses.replace(run, simulated=simulated)


def pair(options: Options, **changes: Any) -> tuple[Options, Options]:
    """The run with graphs and without."""
    plain = dataclasses.replace(options, graphs=False, **changes)
    folder = f"{options.folder}_graphs"
    return dataclasses.replace(plain, folder=folder, weights=f"{folder}.safetensors", graphs=True), plain


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_run_ends_with_the_same_weights(
    options: Options,
    recorder: Recorder,
    accumulate: int,
    precision: Any,
) -> None:
    optimiser = dataclasses.replace(options.optimiser, accumulate=accumulate)
    recorded, plain = pair(options, precision=precision, optimiser=optimiser)
    loop.fit(recorded)
    loop.fit(plain)
    assert recorder.made == 1
    assert recorder.replays >= 2 + 4 * accumulate - 2
    assert same(recorded, plain)


def test_dropout_and_stages_are_as_without(options: Options, recorder: Recorder) -> None:
    """A stage with other terms and other parameters has a graph of its own."""
    network = Network(name="unet", options={"channels": 4, "pooling_layers": 1, "dropout": 0.5})
    stage = Stage(until=4, loss=options.loss, trains=("unet.unet.encoder",))
    recorded, plain = pair(options, network=network, stages=(stage,), steps=8)
    loop.fit(recorded)
    loop.fit(plain)
    assert recorder.made == 2
    assert same(recorded, plain)


@pytest.fixture
def learning(options: Options) -> tuple[Run, Learning, list[Example]]:
    """A run with a network of running averages, and batches of one form."""
    source = opened(options, "train")
    run = built(options, torch.device("cpu"))
    run.network.register_buffer("seen", torch.zeros(()))

    def forward(scan: Any) -> Any:
        run.network.seen += 1  # type: ignore[operator]
        return run.network(scan)

    how = Learning(options, 10, source.labels, 0, run.network, forward)
    return run, how, list(examples(Batches(source, options, "train", 1), range(4), 0, "cpu"))


Learnt = tuple[Run, Learning, list[Example]]


def seed() -> None:
    torch.manual_seed(0)


def gradient(run: Run, how: Learning) -> Callable[[Example], Tensor]:
    return lambda example: _backward(run, how, how.options.loss, example)


def test_making_a_graph_changes_nothing_else(learning: Learnt) -> None:
    """Neither gradients of earlier parts nor running averages."""
    run, how, batches = learning
    graphs = GradientGraphs(run.network, Recorder(), memory=MIB)
    for n, batch in enumerate(batches):
        graphs.run(gradient(run, how), batch, 0, seed)
        assert int(run.network.seen) == n + 1  # type: ignore[call-overload]
    made = [p.grad.clone() for p in run.network.parameters() if p.grad is not None]
    run.optimiser.zero_grad(set_to_none=True)
    for batch in batches:
        gradient(run, how)(batch)
    plain = [p.grad for p in run.network.parameters() if p.grad is not None]
    assert all(torch.allclose(x, y, rtol=1e-5, atol=1e-8) for x, y in zip(made, plain, strict=True))


def cannot(work: Callable[[], Made], device: torch.device) -> Recorded[Made]:
    raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")


@pytest.mark.parametrize(
    ("recorder", "said"),
    [
        (cannot, "CUDA error: operation not permitted when stream is capturing"),
        (Recorder(off=0.01), "its gradient is 0.01 from that of the plain step, and two of these 0"),
        (Recorder(bytes=200 * MIB), "graphs would take 200 MiB, and 100 are allowed"),
    ],
)
def test_what_cannot_be_recorded_is_computed_plainly_and_said_once(
    recorder: Callable[..., Recorded[Made]], said: str, learning: Learnt, caplog: pytest.LogCaptureFixture
) -> None:
    run, how, batches = learning
    graphs = GradientGraphs(run.network, recorder, memory=100 * MIB)
    values = [graphs.run(gradient(run, how), batch, 0, seed) for batch in batches]
    assert [float(value) for value in values] == [float(gradient(run, how)(batch)) for batch in batches]
    assert [record.message for record in caplog.records] == [f"no CUDA graph for a form of batches: {said}"]


def test_a_step_that_asks_the_host_is_not_recorded(learning: Learnt, caplog: pytest.LogCaptureFixture) -> None:
    run, how, batches = learning
    recorder = Recorder()
    graphs = GradientGraphs(run.network, recorder, memory=MIB)

    def asking(example: Example) -> Tensor:
        value = gradient(run, how)(example)
        return value if value.item() < 1e9 else value * 0

    for batch in batches[:2]:
        graphs.run(asking, batch, 0, seed)
    assert not recorder.made
    assert "the step asks the host (_local_scalar_dense)" in caplog.text


def test_gradients_that_are_not_finite_yet_are_tried_again(learning: Learnt, caplog: pytest.LogCaptureFixture) -> None:
    """As in the first steps with float16."""
    run, how, batches = learning
    recorder, scale = Recorder(), [float("inf")]
    graphs = GradientGraphs(run.network, recorder, memory=100 * MIB)

    def scaled(example: Example) -> Tensor:
        return _backward(run, dataclasses.replace(how, forward=wide), how.options.loss, example)

    def wide(scan: Any) -> Any:
        estimate = run.network(scan)
        return dataclasses.replace(estimate, image=estimate.image * scale[0])

    for n in range(4):
        graphs.run(scaled, batches[n % 2], 0, seed)
    assert not graphs._graphs
    scale[0] = 1.0
    graphs.run(scaled, batches[0], 0, seed)
    assert len(graphs._graphs) == 1
    assert recorder.made == 4


def test_there_are_only_so_many_graphs(learning: Learnt, caplog: pytest.LogCaptureFixture) -> None:
    run, how, batches = learning
    recorder = Recorder()
    graphs = GradientGraphs(run.network, recorder, most=1, memory=100 * MIB)
    one = batches[0]
    cut = dataclasses.replace(one, target=one.target[..., :-2, :], scan=_cut(one.scan))
    for batch in (one, one, cut, cut, cut, one):
        graphs.run(gradient(run, how), batch, 0, seed)
    assert recorder.made == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "1 other forms have one" in caplog.text


def test_memory_of_graphs_goes_before_a_step_fails(learning: Learnt, caplog: pytest.LogCaptureFixture) -> None:
    """The second part of a step, in another form, has no room at first. It leaves the gradient of the first part."""
    run, how, batches = learning
    graphs, calls = GradientGraphs(run.network, Recorder(), memory=100 * MIB), [0]
    one, plain = batches[0], gradient(run, how)
    cut = dataclasses.replace(one, target=one.target[..., :-2, :], scan=_cut(one.scan))

    def short(example: Example) -> Tensor:
        value = plain(example)
        calls[0] += 1
        if calls[0] == 1:
            raise torch.cuda.OutOfMemoryError
        return value

    for _ in range(2):
        graphs.run(plain, one, 0, seed)
    assert graphs._graphs
    run.optimiser.zero_grad(set_to_none=True)
    graphs.run(plain, one, 0, seed)
    graphs.run(short, cut, 0, seed)
    made = [p.grad.clone() for p in run.network.parameters() if p.grad is not None]
    assert not graphs._graphs
    assert "memory does not suffice" in caplog.text
    run.optimiser.zero_grad(set_to_none=True)
    for example in (one, cut):
        plain(example)
    wanted = [p.grad for p in run.network.parameters() if p.grad is not None]
    assert all(torch.allclose(x, y, rtol=1e-5, atol=1e-8) for x, y in zip(made, wanted, strict=True))


def test_a_replay_may_overwrite_the_gradient_of_another_form(learning: Learnt) -> None:
    """Graphs share their memory: the first one's scratch has become the second one's gradient."""
    _, _, batches = learning
    network, recorder, made = torch.nn.ParameterList([torch.ones(()), torch.ones(())]), Recorder(), []
    one = batches[0]
    cut = dataclasses.replace(one, target=one.target[..., :-2, :], scan=_cut(one.scan))

    def plain(example: Example) -> Tensor:
        value = network[int(example.target.shape == cut.target.shape)] * example.target.abs().mean()
        value.backward()
        return value.detach()

    def shared(work: Callable[[], Made], device: torch.device) -> Recorded[Made]:
        graph, number = recorder(work, device), len(made)
        made.append(graph)

        def replay() -> None:
            held = [(parameter, parameter.grad) for parameter in network]
            graph.replay()
            for parameter, before in held:  # the stand-in has them cleared
                parameter.grad = before
            for later in made[number + 1 :]:
                later.made[1][0][1].fill_(torch.nan)

        return dataclasses.replace(graph, replay=replay)

    graphs = GradientGraphs(network, shared, memory=100 * MIB)
    for example in (one, one, cut, cut):
        graphs.run(plain, example, 0, seed)
    for parameter in network:
        parameter.grad = None
    for example in (cut, one):
        graphs.run(plain, example, 0, seed)
    wanted = [float(example.target.abs().mean()) for example in (one, cut)]
    assert [float(parameter.grad) for parameter in network] == pytest.approx(wanted)


def _cut(scan: Any) -> Any:
    arrays = {name: getattr(scan, name)[..., :-2, :] for name in ("kspace", "mask", "sens")}
    return dataclasses.replace(scan, **arrays)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_cuda_device_learns_the_same(options: Options, precision: Any) -> None:
    rate = dataclasses.replace(options.optimiser, learning_rate=1e-4)
    recorded, plain = pair(options, device="cuda", precision=precision, optimiser=rate, steps=8)
    # cuDNN's other algorithms and TF32 change gradients by a third of their norm, with and without graphs.
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        loop.fit(recorded)
        loop.fit(plain)
    np.testing.assert_allclose(losses(recorded), losses(plain), rtol=1e-3)
