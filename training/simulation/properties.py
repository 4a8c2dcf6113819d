"""Properties by which simulated scans are compared with real ones. Axes: images (batch, y, x), complex.

The images are fully sampled and combined with sensitivities that contain the phase of the low-resolution image. The
ranges of `Simulation` were chosen so that real scans lie in the middle of what is simulated.
"""

from __future__ import annotations

import torch
from torch.fft import fft2

from training.simulation.fields import frequencies2

__all__ = ["amplification", "beyond", "imaginary"]

OBJECT = 0.1
"""Pixels below this share of the largest magnitude are background."""


def imaginary(images: torch.Tensor) -> torch.Tensor:
    """(batch,): share of the object's energy in the imaginary part, which a low-resolution phase does not explain."""
    inside = _inside(images)
    return (images.imag.square() * inside).sum((-2, -1)) / (images.abs().square() * inside).sum((-2, -1))


def beyond(images: torch.Tensor, radius: float) -> torch.Tensor:
    """(batch,): share of the energy of k-space beyond a `radius`, which is 1 at the edge of each axis."""
    height, width = images.shape[-2], images.shape[-1]
    energy = fft2(images).abs().square()
    y2, x2 = (frequencies2(n, images.device) * (2 / n) ** 2 for n in (height, width))
    return (energy * (y2[:, None] + x2 > radius**2)).sum((-2, -1)) / energy.sum((-2, -1))


def amplification(images: torch.Tensor, sens: torch.Tensor, acceleration: int) -> torch.Tensor:
    """(batch,): median geometry factor in the object, where every n-th line along y is sampled (Pruessmann 1999).

    sens (batch, coil, y, x); y is a multiple of the acceleration. Pixels outside the object are known to be dark.
    """
    inside = _inside(images)
    folded = (sens * inside[:, None]).unflatten(-2, (acceleration, -1))
    gram = torch.einsum("bcryx,bcsyx->byxrs", folded.conj(), folded)
    dark = (~inside).unflatten(-2, (acceleration, -1)).movedim(1, -1).float()
    gram = gram + torch.diag_embed(dark + 1e-6)
    squared = (torch.linalg.inv(gram).diagonal(dim1=-2, dim2=-1) * gram.diagonal(dim1=-2, dim2=-1)).real
    return torch.where(dark > 0, torch.nan, squared.clamp(min=1).sqrt()).flatten(1).nanmedian(1).values


def _inside(images: torch.Tensor) -> torch.Tensor:
    magnitude = images.abs()
    return magnitude > OBJECT * magnitude.amax((-2, -1), keepdim=True)
