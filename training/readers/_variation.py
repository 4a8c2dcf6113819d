"""Images as other scanners would have made them: contrast, shading, sharpness, and a scalp where there is none.

Axes: (n, y, x), bright tissue 1.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from training.readers.anatomy import blurred

__all__ = ["smooth", "varied", "weighted"]


def weighted(images: torch.Tensor, companion: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return images (contrast, z, y, x) times a power of the `companion`: (contrast * z, y, x).

    Longer or shorter times of a sequence change images so. A dark companion, as in liquid, counts as half as bright as
    tissue.
    """
    return (images * companion.clamp(0.5, 1.5) ** float(rng.uniform(-0.7, 0.3))).flatten(0, 1)


def varied(images: torch.Tensor, scalp: float, rng: np.random.Generator) -> torch.Tensor:
    """Return images (n, y, x), bright tissue 1, sharper or more blurred, of other contrast, shaded, some with a
    scalp."""
    if rng.random() < scalp:
        images = _with_scalp(images, rng)
    if rng.random() < 0.5:
        images = blurred(images, rng.uniform(0, 1.2))
    images = images ** float(np.exp(rng.normal(0, 0.3)))
    shade = torch.exp(float(rng.uniform(0, 0.4)) * smooth(rng, (images.shape[-2], images.shape[-1]), 3))
    return images * shade


def smooth(rng: np.random.Generator, shape: tuple[int, int], nodes: int) -> torch.Tensor:
    """Normal numbers on `nodes` x `nodes` points, interpolated: (y, x)."""
    coarse = torch.from_numpy(rng.standard_normal((1, 1, nodes, nodes))).float()
    return functional.interpolate(coarse, size=shape, mode="bicubic", align_corners=True)[0, 0]


def _with_scalp(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Add a band at a distance around a stripped brain, and patches (eyes, muscles) in half of the images.

    A network must learn not to take them for labelled tissue.
    """
    shape = (images.shape[-2], images.shape[-1])
    brain = ndimage.binary_fill_holes(images.amax(0).numpy() > 0.15)
    size = max(float(np.sqrt(brain.sum())), 1.0)
    away = torch.from_numpy(ndimage.distance_transform_edt(~brain)).float() / size
    inner = rng.uniform(0.02, 0.1) * (1 + 0.3 * smooth(rng, shape, 4))
    outer = inner + rng.uniform(0.02, 0.15) * (1 + 0.4 * smooth(rng, shape, 6)).clamp(0.2)
    edge = rng.uniform(0.5, 1.5) / size
    band = torch.sigmoid((away - inner) / edge) * torch.sigmoid((outer - away) / edge)
    if rng.random() < 0.5:
        patches = torch.sigmoid((smooth(rng, shape, int(rng.integers(6, 16))) - 0.8) / 0.1)
        band = torch.maximum(band, patches * torch.sigmoid((away - inner) / edge) * (away < outer.clamp(0.2)))
    levels = [rng.uniform(0.2, 2.0) * (1 + 0.3 * smooth(rng, shape, 12)).clamp(0.1) for _ in images]
    return torch.maximum(images, band * torch.stack(levels))
