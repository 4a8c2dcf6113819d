"""The order of features in memory. Torch tells by strides which one a convolution takes, and its output has it, too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mrnets.blocks.order import channels_last, for_processor
from mrnets.blocks.unet import NormUnet, UnetEncoder

LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def features(batch: int, channels: int, *plane: int) -> Tensor:
    return torch.randn(batch, *plane, channels).movedim(-1, 1)


def ambiguous(x: Tensor) -> Tensor:
    """A batch of one with a stride that fits both orders, as a reshape leaves it."""
    return x.as_strided(x.shape, (2, *x.stride()[1:]))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("plane", [(6, 8), (3, 6, 8)])
def test_convolutions_see_the_channels_last_whatever_the_strides_of_batch_and_channel(
    batch: int, channels: int, plane: tuple[int, ...]
) -> None:
    x = features(batch, channels, *plane)
    usual = torch.empty(x.shape, memory_format=LAST[x.ndim]).stride()
    for given in (x, x.contiguous(), *([ambiguous(x)] if batch == 1 else [])):
        ordered = channels_last(given)
        assert torch.equal(ordered, x)
        assert ordered.stride() == usual
        if x.ndim == 4:  # a small volume does not go through oneDNN
            assert nn.Conv2d(channels, 3, 3)(ordered).is_contiguous(memory_format=torch.channels_last)


def test_what_has_the_channels_last_already_is_not_copied() -> None:
    x = features(1, 2, 6, 8)
    assert channels_last(x).data_ptr() == x.data_ptr()


@pytest.mark.parametrize(("narrow", "grad", "last"), [(True, False, True), (True, True, False), (False, False, False)])
def test_channels_come_last_in_the_forward_pass_of_narrow_networks_alone(narrow: bool, grad: bool, last: bool) -> None:
    with torch.set_grad_enabled(grad):
        ordered = for_processor(ambiguous(features(1, 2, 6, 8)), narrow=narrow)
    assert ordered.is_contiguous(memory_format=torch.channels_last) == last
    assert ordered.is_contiguous() == (not last)


@pytest.mark.parametrize(("channels", "grad", "last"), [(4, False, True), (4, True, False), (32, False, False)])
def test_every_level_of_a_unet_has_that_order(channels: int, grad: bool, last: bool) -> None:
    net = NormUnet(channels=channels, pooling_layers=2)
    orders: list[bool] = []
    for encoder in net.modules():
        if isinstance(encoder, UnetEncoder):
            for block in (*encoder.blocks, encoder.bottom):
                block.register_forward_hook(lambda *_: orders.append(_[-1].is_contiguous(memory_format=LAST[4])))
    with torch.set_grad_enabled(grad):
        net(torch.randn(1, 1, 16, 16, dtype=torch.complex64))
    assert orders == [last] * 3
