"""A training batch goes to a device once, from pinned memory. A stand-in takes the device's place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mrnets.contract import Raw
from training.batches import to_device
from training.data import Sample

DEVICE = torch.device("cuda")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, ...]]]:
    """Return what was pinned and what was sent, by shape."""
    done: list[tuple[str, tuple[int, ...]]] = []

    def pin_memory(tensor: Tensor) -> Tensor:
        done.append(("pinned", tuple(tensor.shape)))
        return tensor

    def to(tensor: Tensor, device: torch.device | str, *, non_blocking: bool) -> Tensor:
        assert non_blocking
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
