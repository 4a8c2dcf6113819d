"""Properties by which simulated scans are compared with real ones. Axes: images (batch, y, x), complex.

The images are fully sampled and combined with sensitivities that contain the phase of the low-resolution image. The
ranges of `Simulation` were chosen so that real scans lie in the middle of what is simulated.
"""

from __future__ import annotations

import torch
from torch.fft import fft2

from training.simulation.fields import frequencies2

__all__ = ["beyond", "imaginary"]

OBJECT = 0.1
"""Of the largest magnitude: less is background."""


def imaginary(images: torch.Tensor) -> torch.Tensor:
    """(batch,): share of the object's energy in the imaginary part, which a low-resolution phase does not explain."""
    magnitude = images.abs()
    inside = magnitude > OBJECT * magnitude.amax((-2, -1), keepdim=True)
    energy = (magnitude.square() * inside).sum((-2, -1))
    return (images.imag.square() * inside).sum((-2, -1)) / energy


def beyond(images: torch.Tensor, radius: float) -> torch.Tensor:
    """(batch,): share of the energy of k-space beyond a `radius`, which is 1 at the edge of each axis."""
    height, width = images.shape[-2], images.shape[-1]
    energy = fft2(images).abs().square()
    y2, x2 = (frequencies2(n, images.device) * (2 / n) ** 2 for n in (height, width))
    return (energy * (y2[:, None] + x2 > radius**2)).sum((-2, -1)) / energy.sum((-2, -1))
