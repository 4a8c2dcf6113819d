"""Networks as ATOMMIC 1.0.1 computes them, where that differs from their papers.

A form takes a published network and gives one with the same parameters under the same names, so that imported weights
fit. Its options are those of `mrnets.atommic.PUBLISHED`; with their defaults it is the published network. Networks
with other parameters have their own files in `mrnets/atommic/nets`.

padding: bit mask of the sizes to which U-Nets pad their planes, see `mrnets.blocks.padding.padded`.
start: with "rss_components" the network starts from the image that ATOMMIC calls "RSS". That is the root of the sum of
squares over coils, of real and imaginary parts each by themselves. Its magnitude is that of the usual one. Its phase,
between 0 and 90 degrees, has no meaning, and so only magnitudes are given back.
combination: with "rss" the image has the magnitude of the root of the sum of squares over coils.

Axes: image (batch, echo, y, x); coil images (batch, echo, coil, y, x).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn

from mrnets.atommic import PREFIX, own
from mrnets.atommic.around import (
    with_checkers,
    with_empty_coils,
    with_magnitude,
    with_min_max,
    with_scale,
    with_transposed,
)
from mrnets.atommic.kspace import Combination, Start, Transform, components, with_phase
from mrnets.atommic.sensitivity import with_maps
from mrnets.blocks.checks import one_of, whole
from mrnets.blocks.complex import on_planes
from mrnets.blocks.consistency import cascaded, solved
from mrnets.blocks.encoding import Encoding, encoded, measured, name_of
from mrnets.blocks.recurrent import Rim, inferred
from mrnets.contract import Estimate, Scan
from mrnets.errors import InputError, unknown
from mrnets.nets.rvn import recurrent_steps
from mrnets.physics.fourier import fftc, ifftc
from mrnets.traits import Traits

__all__ = ["FORMS", "around", "padded", "root_of_squares"]

Compute = Callable[[Any, Scan], Estimate]


class _Form(nn.Module):
    """The parts of a published network under their names, and another computation with them."""

    def __init__(self, published: nn.Module, compute: Compute) -> None:
        super().__init__()
        for name, part in (*published.named_children(), *published.named_parameters(recurse=False)):
            setattr(self, name, part)
        self.name = f"{PREFIX}{name_of(published)}"
        self.compute = compute

    def forward(self, scan: Scan) -> Estimate:
        return self.compute(self, scan)


def padded(network: nn.Module, *, padding: int | None = None) -> nn.Module:
    """`network`, whose U-Nets pad as `padding` says."""
    if padding is not None:
        whole("padding", padding, 0, 1023)
        for part in network.modules():
            if hasattr(part, "padding_bits"):
                part.padding_bits = padding  # type: ignore[assignment]
    return network


def unet(network: Any, *, padding: int | None = None, start: Start = "sense") -> nn.Module:
    """The U-Net with another padding and start."""
    one_of("start", start, get_args(Start))
    network = padded(network, padding=padding)
    return network if start == "sense" else _Form(network, _unet)


def _unet(network: Any, scan: Scan) -> Estimate:
    kspace, mask = measured(scan, network)
    return Estimate(image=on_planes(network.unet, components(ifftc(kspace * mask))))


def rim(network: Any, *, start: Start = "sense") -> nn.Module:
    """RIM or CIRIM with another start."""
    one_of("start", start, get_args(Start))
    return network if start == "sense" else _Form(network, partial(_rim, time_steps=network.time_steps))


def _rim(network: Any, scan: Scan, *, time_steps: int) -> Estimate:
    encoding = encoded(scan, network)
    machines = [part for part in network.modules() if isinstance(part, Rim)]
    images = inferred(machines, time_steps, components(encoding.coil_images()), encoding)
    return encoding.estimate(*images, steps=network.training)


def modl(network: Any, *, start: Start = "sense", conjugate_gradient: bool = True) -> nn.Module:
    """MoDL with another start; conjugate_gradient False: x <- D(x), with no data consistency at all."""
    one_of("start", start, get_args(Start))
    iterations, solver = network.iterations, network.consistency_iterations if conjugate_gradient else 0
    if not conjugate_gradient:
        del network.log_weight
    return _Form(network, partial(_modl, iterations=iterations, solver=solver, start=start))


def _modl(network: Any, scan: Scan, *, iterations: int, solver: int, start: Start) -> Estimate:
    encoding = encoded(scan, network)
    x = _first(encoding, start)
    for _ in range(iterations):
        denoised = on_planes(network.denoiser, x)
        if solver:
            weight = network.log_weight.exp()
            denoised = solved(encoding.start + weight * (x + denoised), encoding, weight, iterations=solver)
        x = denoised
    return encoding.estimate(x)


def ccnn(network: Any, *, combination: Combination = "sense") -> nn.Module:
    """CCNN whose images are combined otherwise."""
    one_of("combination", combination, get_args(Combination))
    return network if combination == "sense" else _Form(network, _ccnn)


def _ccnn(network: Any, scan: Scan) -> Estimate:
    encoding = encoded(scan, network)
    denoisers = [partial(stack, slope=network.slope) for stack in network.stacks]
    return encoding.estimate(root_of_squares(encoding, denoisers, network.dc_weight)[-1])


def varnet(network: Any, *, padding: int | None = None, combination: Combination = "sense") -> nn.Module:
    """VarNet with another padding and combination."""
    one_of("combination", combination, get_args(Combination))
    if combination == "sense":
        return padded(network, padding=padding)
    if network.dc_weight is None or network.start_iterations:
        raise InputError("atommic.varnet: combination 'rss' needs consistency 'gradient' and start_iterations 0")
    return _Form(padded(network, padding=padding), _varnet)


def _varnet(network: Any, scan: Scan) -> Estimate:
    encoding = encoded(scan, network)
    return encoding.estimate(root_of_squares(encoding, network.unets, network.dc_weight)[-1])


def rvn(
    network: Any,
    *,
    start: Start = "sense",
    combination: Combination = "sense",
    initializer_transform: Transform = "centred",
) -> nn.Module:
    """RVN with another combination, and another start of its first state.

    initializer_transform: "plain", that start goes to k-space without shifts and without normalisation.
    """
    one_of("start", start, get_args(Start))
    one_of("combination", combination, get_args(Combination))
    one_of("initializer_transform", initializer_transform, get_args(Transform))
    transform = fftc if initializer_transform == "centred" else torch.fft.fft2
    return _Form(network, partial(_rvn, start=start, combination=combination, transform=transform))


def _rvn(
    network: Any, scan: Scan, *, start: Start, combination: Combination, transform: Callable[[Tensor], Tensor]
) -> Estimate:
    encoding = encoded(scan, network)
    steps = recurrent_steps(network.blocks, network.initializer, transform(_first(encoding, start)))
    cascades = cascaded if combination == "sense" else root_of_squares
    return encoding.estimate(*cascades(encoding, steps, network.learning_rate), steps=network.training)


def idslr(network: Any, *, padding: int | None = None, magnitude: bool = False) -> nn.Module:
    """IDSLR with another padding; magnitude: the logits are given as magnitudes."""
    if magnitude:
        network.register_forward_hook(_magnitude_of_logits)
    return padded(network, padding=padding)


def _magnitude_of_logits(network: nn.Module, inputs: object, estimate: Estimate) -> Estimate:
    assert estimate.logits is not None
    return dataclasses.replace(estimate, logits=estimate.logits.abs())


FORMS: dict[str, Callable[..., nn.Module]] = {
    **dict.fromkeys(("attentionunet", "idslrunet", "mtlrs", "segnet", "segunet", "unet3d"), padded),
    "ccnn": ccnn,
    "cirim": rim,
    "idslr": idslr,
    "modl": modl,
    "rim": rim,
    "rvn": rvn,
    "unet": unet,
    "varnet": varnet,
}
"""The form of each network that has one."""


_STARTING = ("cirim", "jointicnet", "lpdnet", "modl", "rim", "unet")
"""Networks that only give magnitudes where they start from "rss_components"."""


def around(name: str, traits: Traits) -> list[Callable[..., nn.Module]]:
    """The functions that follow the class of the network `name` ("atommic."). Raises InputError where there is none."""
    published = name.removeprefix(PREFIX)
    makers: list[Callable[..., nn.Module]] = []
    if own(published) is None:
        if published not in FORMS:
            raise unknown("network", name, [f"{PREFIX}{form}" for form in FORMS])
        makers.append(FORMS[published])
    if traits.task in ("segmentation", "joint"):
        makers.append(with_min_max)
    if traits.task in ("reconstruction", "joint"):
        makers.append(with_scale)
    if traits.takes == "kspace":
        makers += [with_transposed, with_checkers]
    if published in _STARTING:
        makers.append(with_magnitude)
    if published in ("idslr", "idslrunet", "segnet"):
        makers.append(with_empty_coils)
    return [*makers, with_maps] if traits.can_estimate_maps else makers


def _first(encoding: Encoding, start: Start) -> Tensor:
    return encoding.start if start == "sense" else components(encoding.coil_images())


def root_of_squares(
    encoding: Encoding, denoisers: Iterable[Callable[[Tensor], Tensor]], weights: Tensor
) -> list[Tensor]:
    """Images after each cascade k <- k - w M (k - y) - E D(E^H k), as `cascaded`, with the k-space of all coils.

    Their magnitude is the root of the sum of squares over coils, their phase that of E^H k.
    """
    data = kspace = encoding.kspace * encoding.mask
    x, images = encoding.start, []
    for denoiser, weight in zip(denoisers, weights, strict=True):
        correction = fftc(encoding.expand(on_planes(denoiser, x)))
        kspace = kspace - weight * (encoding.mask * (kspace - data)) - correction
        coil_images = ifftc(kspace)
        x = encoding.reduce(coil_images)
        images.append(with_phase(coil_images, x))
    return images
