"""Convolutions that make their input again against torch's own, which keep it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mrnets.blocks import remade
from mrnets.blocks.unet import Unet
from tests.mrnets.examples import create, energy, scan_for

Plain = Callable[..., Tensor]
WAYS: list[tuple[remade.Made, Plain, int]] = [
    (remade.JOINED, lambda x: x, 1),
    (remade.JOINED, lambda *parts: torch.cat(parts, dim=1), 3),
    (remade.PRODUCT, lambda a, b: a * b, 2),
    (remade.RECTIFIED, functional.relu, 1),
]


def _parts(count: int, plane: Sequence[int] = (7, 6), dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(2, 3, *plane, dtype=dtype, generator=generator).requires_grad_() for _ in range(count)]


def _conv(made: remade.Made, count: int, *, mode: str = "zeros", bias: bool = True, dilation: int = 1) -> nn.Conv2d:
    torch.manual_seed(0)
    width = 3 * count if made is remade.JOINED else 3
    conv = nn.Conv2d(width, 4, 3, padding=dilation, dilation=dilation, padding_mode=mode, bias=bias)
    return conv.double()


def _gradients(out: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, tensors, upstream)]


@pytest.mark.parametrize("mode", ["zeros", "replicate"])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("way", range(len(WAYS)))
def test_same_bytes_and_gradients_as_the_plain_convolution(way: int, dilation: int, mode: str) -> None:
    made, plain, count = WAYS[way]
    conv, parts = _conv(made, count, mode=mode, bias=bool(dilation % 2), dilation=dilation), _parts(count)
    tensors = [*parts, *conv.parameters()]
    ours = _gradients(remade.through(conv, *parts, made=made), tensors)
    wanted = _gradients(conv(plain(*parts)), tensors)
    assert torch.equal(ours[0], wanted[0])
    torch.testing.assert_close(ours[1:], wanted[1:])


@pytest.mark.parametrize("way", range(len(WAYS)))
def test_gradients_are_those_of_finite_differences(way: int) -> None:
    made, _, count = WAYS[way]
    conv, parts = _conv(made, count, mode="replicate"), _parts(count, (4, 3))

    def of(weight: Tensor, bias: Tensor | None, *parts: Tensor) -> Tensor:
        return remade.convolved(parts, weight, bias, made=made, padding=(1, 1), edge=True)

    assert torch.autograd.gradcheck(of, (conv.weight, conv.bias, *parts))


def test_volumes_and_parts_without_a_gradient() -> None:
    torch.manual_seed(0)
    conv, (x, y) = nn.Conv3d(6, 2, 3, padding=1, padding_mode="replicate").double(), _parts(2, (3, 5, 4))
    ours = _gradients(remade.through(conv, x, y.detach()), [x, *conv.parameters()])
    torch.testing.assert_close(ours, _gradients(conv(torch.cat((x, y), dim=1)), [x, *conv.parameters()]))
    weights = list(conv.parameters())
    ours = _gradients(remade.through(conv, x.detach(), y.detach()), weights)
    torch.testing.assert_close(ours, _gradients(conv(torch.cat((x, y), dim=1)), weights))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_under_autocast_the_convolution_is_the_plain_one(half: torch.dtype) -> None:
    made, plain, count = WAYS[1]
    conv, parts = _conv(made, count).float(), _parts(count, dtype=torch.float32)
    tensors = [*parts, *conv.parameters()]
    with torch.autocast("cpu", half):
        ours, wanted = remade.through(conv, *parts), conv(plain(*parts))
    assert ours.dtype == half
    torch.testing.assert_close(_gradients(ours, tensors), _gradients(wanted, tensors), rtol=2e-2, atol=2e-2)


def _kept(function: Callable[[], Tensor]) -> int:
    """Bytes that stay in memory for the backward pass, each memory once."""
    storages: dict[int, tuple[Tensor, int]] = {}

    def pack(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = (x, x.untyped_storage().nbytes())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = function()
    assert out.requires_grad
    return sum(size for _, size in storages.values())


@pytest.mark.parametrize("way", [1, 2])
def test_what_is_made_is_not_kept(way: int) -> None:
    made, plain, count = WAYS[way]
    conv, parts = _conv(made, count), _parts(count)
    assert conv.bias is not None
    given = sum(x.nbytes for x in (conv.weight, *parts))
    assert _kept(lambda: remade.through(conv, *parts, made=made)) == given
    assert _kept(lambda: conv(plain(*parts))) > given - parts[0].nbytes


def test_a_unet_keeps_no_joined_features() -> None:
    """It keeps five activations of the first level: two on the way down, and three on the way up."""
    torch.manual_seed(0)
    net, x = Unet(2, 2, channels=8, pooling_layers=1), torch.randn(1, 2, 32, 32)
    weights = sum(p.nbytes for p in net.parameters())
    level = 8 * 32 * 32 * 4
    # The input is a fourth of a level; the bottom's three (pooled, and twice as wide) are 1/4, 1/2 and 1/2 of one.
    assert _kept(lambda: net(x)) < weights + level * (5 + 0.25 + 1.25 + 0.1)


@pytest.mark.parametrize("name", ["varnet", "cirim", "rvn"])
def test_checkpoints_and_copies_give_the_same_gradient(name: str) -> None:
    network, scan = create(name), scan_for(name)

    def gradients(network: nn.Module, run: Callable[[], Tensor]) -> list[Tensor]:
        return list(torch.autograd.grad(run(), list(network.parameters()), allow_unused=True, materialize_grads=True))

    twin = copy.deepcopy(network)
    plain = gradients(network, lambda: energy(network(scan)))
    again = gradients(network, lambda: checkpoint(lambda: energy(network(scan)), use_reentrant=False))
    for other in (gradients(twin, lambda: energy(twin(scan))), again):
        torch.testing.assert_close(other, plain)
