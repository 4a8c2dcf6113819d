"""A training batch goes to a device once, from pinned memory. A stand-in takes the device's place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mrnets.contract import Raw
from mrnets.physics import conjugate, espirit, simulate
from mrnets.physics.fourier import fftc
from mrnets.preparation import Preparation
from tests.questions import seen
from training.batches import to_device
from training.data import Sample
from training.settings import Masks
from training.targets import finished
from training.undersample import masked

DEVICE = torch.device("cuda")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, ...]]]:
    """Return what was pinned and what was sent, by shape."""
    done: list[tuple[str, tuple[int, ...]]] = []

    def pin_memory(tensor: Tensor) -> Tensor:
        done.append(("pinned", tuple(tensor.shape)))
        return tensor

    def to(tensor: Tensor, device: torch.device | str, *, non_blocking: bool) -> Tensor:
        assert non_blocking == (torch.device(device).type == "cuda")  # a copy to the host must not return too early
        done.append(("sent", tuple(tensor.shape)))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(Tensor, "to", to)
    return done


def sample() -> Sample:
    raw = Raw(
        kspace=torch.zeros(1, 1, 4, 8, 8, dtype=torch.complex64), mask=torch.ones(1, 1, 1, 8, 8, dtype=torch.bool)
    )
    return Sample(names=("one",), raw=raw, maps={"R2*": torch.zeros(1, 8, 8)})


def test_a_device_gets_each_array_once_from_pinned_memory(sent: list[tuple[str, tuple[int, ...]]]) -> None:
    to_device(sample(), DEVICE)
    shapes = [(1, 1, 4, 8, 8), (1, 1, 1, 8, 8), (1, 8, 8)]
    assert sent == [(what, shape) for shape in shapes for what in ("pinned", "sent")]


def test_the_processor_needs_no_pinned_memory(sent: list[tuple[str, tuple[int, ...]]]) -> None:
    to_device(sample(), "cpu")
    assert {what for what, _ in sent} == {"sent"}


MASKED = {
    "planes.fully_sampled": 1,  # are there gaps in the data?
    "undersample.masked": 1,  # does the mask have whole lines? The readout is fully sampled then
    "masks.calibration_region": 1,  # where the centre lies that all slices have
}
PREPARED = {
    "noise.levels": 1,  # the noise in the calibration lines: LAPACK on the host has the eigenvalues
    "stages._espirit": 1,  # finite? with a background? larger than the field of view?
}


def scans(slices: int) -> Sample:
    """Fully sampled slices of a phantom with noise."""
    rng = np.random.default_rng(0)
    maps = simulate.sensitivities(simulate.random_loops(rng, 4), (48, 64))
    kspace = fftc(simulate.phantom((48, 64)) * maps)
    noise = 0.01 * rng.standard_normal((2, slices, *kspace.shape))
    data = torch.from_numpy((kspace + noise[0] + 1j * noise[1]).astype(np.complex64))[:, None]
    mask = torch.ones(slices, 1, 1, 48, 64, dtype=torch.bool)
    return Sample(names=("one",) * slices, raw=Raw(kspace=data, mask=mask))


@pytest.mark.parametrize("slices", [1, 3])
def test_a_batch_asks_as_often_as_a_slice(slices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the transfer and the loss. The masks and the noise levels are the only things that are sent."""
    for module in (conjugate, espirit):
        monkeypatch.setattr(module, "on_host", lambda x: False)
    settings = Masks(accelerations=(2.0,), centres=(0.25,))
    for _ in range(2):  # the second time nothing that does not change is sent
        given = scans(slices)
        with seen() as found:
            drawn = masked(given, settings, [np.random.default_rng(n) for n in range(slices)])
        with seen() as later:
            example = finished(drawn, Preparation(), noise_free=False, first=None, fits=False, all_samples=False)
    assert found.asked == MASKED
    assert later.asked == PREPARED
    assert found.sent == {"undersample._masks": 1}
    assert later.sent == {"whitening.noise_level": 1}
    assert example.weight.tolist() == [1.0] * slices
