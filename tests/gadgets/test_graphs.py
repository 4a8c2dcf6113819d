"""The network gadget with graphs: the images that it makes without. A stand-in takes the place of CUDA's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import gadgets.estimate as estimate
import gadgets.models as module
from gadgets.coils import coils
from gadgets.frame import Frame
from gadgets.network import network
from mrnets import store
from mrnets.graphs import Graphs
from mrnets.physics import conjugate
from mrnets.prepare import Preparation
from tests.gadgets.frames import frames, header
from tests.mrnets.test_graphs import MIB, Recorder

SMALL = {"cascades": 1, "channels": 2, "pooling_layers": 1}
SLICES = 5


@pytest.fixture(autouse=True)
def recorders(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Recorder]]:
    """The recorders of the networks that are loaded. The processor is taken for a device."""
    made: list[Recorder] = []

    def graphs(device: torch.device) -> Graphs:
        made.append(Recorder())
        return Graphs(made[-1], memory=MIB * 100)

    monkeypatch.setattr(module, "_models", module.Cache(8))
    monkeypatch.setattr(module, "_graphs", graphs)
    monkeypatch.setattr(conjugate, "on_host", lambda x: False)
    return made


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    made = store.create("varnet", **SMALL)
    store.save(path, made, name="varnet", options=SMALL, preparation=Preparation().to_json())
    return str(path)


def given() -> list[Frame]:
    """Slices that have all come."""
    return list(coils([replace(f, behind=SLICES - 1 - n) for n, f in enumerate(frames(slices=SLICES))], header()))


def images(**options: Any) -> list[torch.Tensor]:
    found = list(network(given(), header(), batch=2, check="warn", **options))
    assert not any(frame.fallback for frame in found)
    return [frame.estimate.image for frame in found]


def test_images_are_those_without(weights: str, recorders: list[Recorder]) -> None:
    """Two batches of two, and one slice together with its trial. The network has one graph, and l1-wavelet another."""
    plain = images(weights=weights, graphs=False)
    (recorder,) = recorders
    assert recorder.made == 0
    for _ in range(2):
        for one, other in zip(images(weights=weights), plain, strict=True):
            assert torch.linalg.vector_norm(one - other) <= 1e-5 * torch.linalg.vector_norm(other)
    assert recorder.made == 2
    assert recorder.replays > 0


def test_a_network_without_weights_has_graphs_too(recorders: list[Recorder]) -> None:
    plain = images(name="l1wavelet", graphs=False)
    for one, other in zip(images(name="l1wavelet"), plain, strict=True):
        assert torch.linalg.vector_norm(one - other) <= 1e-5 * torch.linalg.vector_norm(other)
    assert [recorder.made for recorder in recorders] == [1]


def test_memory_of_graphs_goes_before_batches_become_smaller(
    weights: str, recorders: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    run = Graphs.run

    def short(self: Graphs, forward: Any, scan: Any, name: Any) -> Any:
        sizes.append(len(scan.kspace))
        if len(sizes) == 5:
            raise torch.cuda.OutOfMemoryError
        return run(self, forward, scan, name)

    monkeypatch.setattr(Graphs, "run", short)
    images(weights=weights)
    assert sizes[4:6] == [2, 2]


def test_a_slice_that_fits_without_its_trial_stays_on_the_device(
    weights: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sizes: list[int] = []
    run = Graphs.run

    def short(self: Graphs, forward: Any, scan: Any, name: Any) -> Any:
        sizes.append(len(scan.kspace))
        if sizes[-1] > 1:
            raise torch.cuda.OutOfMemoryError
        return run(self, forward, scan, name)

    monkeypatch.setattr(Graphs, "run", short)
    list(network(given()[-1:], header(), batch=4, check="warn", weights=weights))
    assert sizes == [2, 1, 1, 1, 1]
    assert "going on with batches of 1" in caplog.text
    assert "CPU" not in caplog.text


def test_a_processor_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_graphs", lambda device: None)
    assert len(images(name="zerofilled")) == SLICES


def test_large_batches_have_none(monkeypatch: pytest.MonkeyPatch, recorders: list[Recorder]) -> None:
    monkeypatch.setattr(estimate, "FEW", 1)
    for _ in range(3):
        images(name="l1wavelet")
    assert [recorder.made for recorder in recorders] == [1]  # of the last slice, which is alone
