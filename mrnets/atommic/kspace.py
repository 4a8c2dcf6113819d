"""Scans as ATOMMIC's networks see them, and how they combine coils.

Most of its networks see images alone, which are the same whatever the transform. Networks that see k-space, or the
place of a sample, see it in the order of their training. "centred": centred and orthonormal, as everywhere here.
"plain": the zero frequency is in the corner, and only the inverse transform is normalised.

Axes: image (batch, echo, y, x); kspace (batch, echo, coil, y, x); mask (batch or 1, 1, 1, y, x); sens (batch, 1, coil,
y, x).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mrnets.blocks.encoding import measured, sensitivities
from mrnets.contract import Scan
from mrnets.physics.coils import expand, reduce
from mrnets.physics.fourier import fftc, ifftc

__all__ = [
    "Combination",
    "Data",
    "Start",
    "Transform",
    "components",
    "inverse",
    "sampled",
    "seen",
    "transformed",
    "with_phase",
]

Start = Literal["sense", "rss_components"]
Combination = Literal["sense", "rss"]
Transform = Literal["centred", "plain"]


@dataclass(frozen=True)
class Data:
    """The samples y of a scan with its mask M, and the operators F and S of one kind of transform."""

    kspace: Tensor
    """M y, in the order of `transform`."""
    mask: Tensor
    sens: Tensor
    transform: Transform

    def expand(self, image: Tensor) -> Tensor:
        """F S x: an image as the k-space of all coils, without the mask."""
        return transformed(expand(image, self.sens), self.transform)

    def reduce(self, kspace: Tensor) -> Tensor:
        """S^H F^-1 k: the k-space of all coils as one image."""
        image: Tensor = reduce(inverse(kspace, self.transform), self.sens)
        return image

    def combined(self, kspace: Tensor, combination: Combination) -> Tensor:
        """`reduce`; with "rss" it has the magnitude of the root of the sum of squares over coils."""
        image = self.reduce(kspace)
        return image if combination == "sense" else with_phase(inverse(kspace, self.transform), image)


def transformed(image: Tensor, transform: Transform) -> Tensor:
    """F of images, or of coil images."""
    kspace: Tensor = fftc(image) if transform == "centred" else torch.fft.fft2(image)
    return kspace


def inverse(kspace: Tensor, transform: Transform) -> Tensor:
    """The inverse of F."""
    image: Tensor = ifftc(kspace) if transform == "centred" else torch.fft.ifft2(kspace)
    return image


def seen(scan: Scan, network: nn.Module, transform: Transform) -> Data:
    """The data of `scan`. Raises InputError, which names `network`, where k-space, mask or sensitivities are absent."""
    return Data(*sampled(scan, network, transform), sensitivities(scan, network), transform)


def sampled(scan: Scan, network: nn.Module, transform: Transform) -> tuple[Tensor, Tensor]:
    """k-space, zero where not sampled, and mask of `scan` in the order of `transform`. Raises InputError likewise."""
    kspace, mask = measured(scan, network)
    if transform == "centred":
        return kspace * mask, mask
    return transformed(ifftc(kspace * mask), transform), torch.fft.ifftshift(mask, dim=(-2, -1))


def components(coil_images: Tensor) -> Tensor:
    """Root of the sum of squares over coils, of real and imaginary parts each by themselves: complex."""
    parts = (torch.linalg.vector_norm(part, dim=-3) for part in (coil_images.real, coil_images.imag))
    return torch.complex(*parts)


def with_phase(coil_images: Tensor, image: Tensor) -> Tensor:
    """The root of the sum of squares over coils, with the phase of `image`."""
    phase = torch.where(image == 0, torch.ones_like(image), torch.sgn(image))
    return torch.linalg.vector_norm(coil_images, dim=-3) * phase
