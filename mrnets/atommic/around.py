"""Steps around ATOMMIC's networks: exchanged axes, signs of pixels, empty coils, the scale of images and of logits.

Each function takes a network and gives it back with hooks.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from mrnets.atommic.kspace import Start
from mrnets.blocks.encoding import name_of
from mrnets.contract import Estimate, Scan
from mrnets.errors import InputError
from mrnets.physics.coils import forward
from mrnets.physics.fourier import fftc, ifftc
from mrnets.physics.maps import turned

__all__ = ["with_checkers", "with_empty_coils", "with_magnitude", "with_min_max", "with_scale", "with_transposed"]

_SMALLEST = 1e-6
"""Least probability of a class, so that logits are finite."""


def with_min_max(network: nn.Module, *, min_max: bool = False) -> nn.Module:
    """`network`; with `min_max` the sigmoid of its logits gives ATOMMIC's probabilities.

    ATOMMIC shifts and scales the logits of a sample, so that the least over all classes is 0 and the largest is 1. It
    trained with the Dice of these numbers. A class is where they are above one half.
    """
    if min_max:
        network.register_forward_hook(_as_probabilities)
    return network


def _as_probabilities(network: nn.Module, inputs: object, estimate: Estimate) -> Estimate:
    logits = estimate.logits
    assert isinstance(logits, Tensor)
    low, high = (limit.reshape(-1, *[1] * (logits.ndim - 1)) for limit in torch.aminmax(logits.flatten(1), dim=1))
    span = high - low
    share = (logits - low) / torch.where(span > 0, span, torch.ones_like(span))
    return dataclasses.replace(estimate, logits=torch.logit(share, eps=_SMALLEST))


def with_empty_coils(network: nn.Module, *, given_coils: int | None = None) -> nn.Module:
    """`network`, which has a fixed number of coils; with `given_coils` it takes that many, and the others are zero.

    Raises InputError for another number of coils in the scan.
    """
    if given_coils is None:
        return network
    coils = int(network.coils)  # type: ignore[arg-type]
    if not 1 <= given_coils <= coils:
        raise InputError(f"given_coils must be from 1 to the coils of the network, {coils}, not {given_coils}")

    def filled(module: nn.Module, inputs: tuple[Scan]) -> tuple[Scan]:
        (scan,) = inputs
        changed = {}
        for name in ("kspace", "sens"):
            array = getattr(scan, name)
            if array is None:
                continue
            if array.shape[-3] != given_coils:
                raise InputError(f"{name_of(module)} takes {given_coils} coils, and the scan has {array.shape[-3]}")
            empty = torch.zeros_like(array[..., :1, :, :]).expand(*array.shape[:-3], coils - given_coils, -1, -1)
            changed[name] = torch.cat((array, empty), dim=-3)
        return (dataclasses.replace(scan, **changed),)

    network.register_forward_pre_hook(filled)
    return network


def with_scale(network: nn.Module, *, scaled: bool = False) -> nn.Module:
    """`network`; with `scaled` its image is in the scale of the data, by least squares: the factor a >= 0 of E (a x).

    ATOMMIC divides images by their largest value before it compares them with the target. So its networks learn no
    scale, and consistency with the data would mix two of them.
    """
    if scaled:
        network.register_forward_hook(lambda module, inputs, estimate: _scaled(estimate, inputs[0]))
    return network


def _scaled(estimate: Estimate, scan: Scan) -> Estimate:
    image, kspace, sens = estimate.image, scan.kspace, scan.sens
    if image is None or sens is None:
        return estimate
    predicted = forward(image, sens, scan.mask)
    power = (predicted.real**2 + predicted.imag**2).sum(dim=(-3, -2, -1))
    likeness = (predicted.conj() * kspace).real.sum(dim=(-3, -2, -1))
    usable = (power > 0) & (likeness > 0)
    factor = torch.where(usable, likeness / torch.where(usable, power, torch.ones_like(power)), torch.ones_like(power))
    return dataclasses.replace(
        estimate,
        image=image * factor[..., None, None],
        steps=tuple(_scaled(step, scan) for step in estimate.steps),
    )


def with_transposed(network: nn.Module, *, transposed: bool = False) -> nn.Module:
    """`network`; with `transposed` it sees planes whose axes are exchanged: undersampled along x, readout along y."""
    if transposed:
        network.register_forward_pre_hook(lambda module, inputs: (_swapped_scan(inputs[0]),))
        network.register_forward_hook(lambda module, inputs, estimate: _swapped(estimate))
    return network


def _swapped_scan(scan: Scan) -> Scan:
    planes = ("kspace", "mask", "sens", "image", "calibration")
    return dataclasses.replace(scan, **{name: _exchanged(getattr(scan, name)) for name in planes})


def _swapped(estimate: Estimate) -> Estimate:
    return dataclasses.replace(
        estimate,
        image=_exchanged(estimate.image),
        maps={name: _exchanged(array) for name, array in estimate.maps.items()},
        logits=_exchanged(estimate.logits),
        steps=tuple(_swapped(step) for step in estimate.steps),
    )


def _exchanged(planes: Tensor | None) -> Tensor | None:
    return None if planes is None else planes.mT


def with_magnitude(network: nn.Module, *, start: Start = "sense") -> nn.Module:
    """`network`; started from "rss_components" it gives magnitudes, since the phase of that start has no meaning."""
    if start == "rss_components":
        network.register_forward_hook(lambda module, inputs, estimate: _as_magnitude(estimate))
    return network


def _as_magnitude(estimate: Estimate) -> Estimate:
    image = estimate.image
    assert isinstance(image, Tensor)
    image = torch.complex(image.abs(), torch.zeros_like(image.real))
    return dataclasses.replace(estimate, image=image, steps=tuple(map(_as_magnitude, estimate.steps)))


def with_checkers(network: nn.Module, *, checkered: bool = False) -> nn.Module:
    """`network`; with `checkered` every second pixel of its images has the other sign, as pixels of one colour on a
    chessboard.

    ATOMMIC transforms k-space whose zero frequency is in the middle as if it were in the corner. That shifts k-space by
    half its size, and so turns the image by half a turn from pixel to pixel. Its networks learnt from such images.
    """
    if not checkered:
        return network

    def before(module: nn.Module, inputs: tuple[Scan]) -> tuple[Scan]:
        (scan,) = inputs
        if scan.kspace is None or scan.mask is None:
            return (scan,)
        checkers = _checkers(scan.kspace)
        return (
            dataclasses.replace(
                scan,
                kspace=fftc(ifftc(scan.kspace * scan.mask) * checkers),
                mask=torch.fft.fftshift(scan.mask, dim=(-2, -1)),
                image=scan.image * checkers if scan.image is not None and scan.image.is_complex() else scan.image,
            ),
        )

    network.register_forward_pre_hook(before)
    network.register_forward_hook(lambda module, inputs, estimate: _without_checkers(estimate))
    return network


def _without_checkers(estimate: Estimate) -> Estimate:
    """The estimate without the signs; they are in the phase of its maps."""
    image, maps = estimate.image, estimate.maps
    if image is not None:
        image = image * _checkers(image).conj()
    if maps:
        maps = turned(maps, _checkers(next(iter(maps.values())) + 0j).conj()[None])
    steps = tuple(_without_checkers(step) for step in estimate.steps)
    return dataclasses.replace(estimate, image=image, maps=maps, steps=steps)


def _checkers(x: Tensor) -> Tensor:
    """The factor (y, x) of the image whose k-space is shifted by half its size; 1 and -1 for even sizes."""
    turns = (torch.arange(n, device=x.device) * (n // 2) % n / n for n in x.shape[-2:])
    along_y, along_x = (torch.polar(torch.ones_like(turn), 2 * math.pi * turn) for turn in turns)
    return (along_y[:, None] * along_x).to(x.dtype)
