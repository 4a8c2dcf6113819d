"""Random relaxation maps for a slice of anatomy, from which a magnitude image gets echoes.

Axes: (y, x); R2* in 1/s, B0 in Hz. Sizes follow 3 T to 7 T brains. The R2* of tissue follows its grey value, with a
smooth bias and a texture. Iron and veins have more. B0 has what a shim leaves, and dipoles of air and tissue. Within
these dipoles R2* is higher, too.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from training.readers.anatomy import blurred
from training.settings import Simulated

__all__ = ["random_b0", "random_r2"]

MOST = 2.5
"""R2* of veins, over the largest of tissue."""


def random_r2(image: torch.Tensor, b0: torch.Tensor, settings: Simulated, rng: np.random.Generator) -> torch.Tensor:
    """R2* (y, x) of a slice `image` (y, x) of bright tissue 1 with the field `b0` (y, x)."""
    least, largest = settings.decay
    values = np.exp(rng.uniform(np.log(least), np.log(largest), 9))
    if rng.random() < 0.5:
        values = np.sort(values)[:: rng.choice([-1, 1])]
    grey = np.interp(image.numpy(), np.linspace(0, 1.2, 9), values).astype(np.float32)
    bias = 0.2 * rng.random() * _smooth(image.shape, int(rng.integers(3, 6)), rng)
    texture = blurred(_white(image.shape, rng)[None], rng.uniform(0.7, 3))[0]
    texture = rng.uniform(0, 0.15) * texture / texture.std()
    r2 = torch.from_numpy(grey) * torch.exp(bias + texture)
    for _ in range(int(rng.integers(0, 6))):
        r2 = r2 * (1 + rng.uniform(-0.5, 1.5) * _spot(image.shape, rng))
    if rng.random() < 0.5:
        r2 = r2 + rng.uniform(0.3, MOST) * largest * _veins(image.shape, rng)
    slope = torch.stack(torch.gradient(b0)).square().sum(0).sqrt()  # Hz for a pixel: dephasing across the slice
    return (r2 + rng.uniform(0, 1) * slope).clamp(0.2 * least, MOST * largest)


def random_b0(image: torch.Tensor, most: float, spacing: float, rng: np.random.Generator) -> torch.Tensor:
    """Return B0 (y, x) with a largest value of about `most` Hz in the object.

    Its weighted mean is within a third of 1 / `spacing` (s, of the echoes). A scan cannot tell multiples of that.
    """
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing="ij")
    linear, square = rng.normal(0, 1, 2), rng.normal(0, 0.7, 3)
    field = linear[0] * y + linear[1] * x + square[0] * y**2 + square[1] * x * y + square[2] * x**2
    main = rng.normal(0, 1, 3)
    main /= np.linalg.norm(main)
    for _ in range(int(rng.integers(0, 5))):
        size, place = rng.uniform(0.08, 0.3), rng.uniform(-0.9, 0.9, 3) * [0.5, 1, 1]
        square_distance = place[0] ** 2 + (y - place[1]) ** 2 + (x - place[2]) ** 2
        along = main @ np.stack([np.full(y.size, place[0]), (y - place[1]).ravel(), (x - place[2]).ravel()])
        angle = 3 * along.reshape(y.shape) ** 2 / (square_distance + size**2) - 1
        field = field + rng.normal(0, 6) * angle * (size**2 / (square_distance + size**2)) ** 1.5
    inside = image.numpy() > 0.1
    weights = np.where(inside, image.numpy(), 1e-6)
    field = field - np.average(field, weights=weights)
    field *= most / max(float(np.percentile(np.abs(field[inside]), 99)) if inside.any() else 1.0, 1e-6)
    return torch.from_numpy((field + rng.uniform(-0.3, 0.3) / spacing).astype(np.float32))


def _white(shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def _smooth(shape: tuple[int, ...], nodes: int, rng: np.random.Generator) -> torch.Tensor:
    """A random field (y, x), smooth between nodes^2 points, of standard deviation 1."""
    field = functional.interpolate(_white((1, 1, nodes, nodes), rng), shape, mode="bicubic", align_corners=True)[0, 0]
    field = field - field.mean()
    return field / field.std().clamp(min=1e-3)


def _spot(shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    """An ellipse of ones with a soft edge."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij")
    (down, right), angle = rng.uniform(-0.6, 0.6, 2), rng.uniform(0, np.pi)
    one, other = rng.uniform(0.03, 0.25, 2)
    u = (np.cos(angle) * (y - down) + np.sin(angle) * (x - right)) / one
    v = (np.cos(angle) * (x - right) - np.sin(angle) * (y - down)) / other
    return torch.sigmoid((1 - torch.sqrt(u**2 + v**2)) / rng.uniform(0.05, 0.3))


def _veins(shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    """Winding lines, one to two pixels wide, here and there: where a smooth random field passes through zero."""
    field = _smooth(shape, int(rng.integers(6, 14)), rng)
    slope = torch.stack(torch.gradient(field)).square().sum(0).sqrt().clamp(min=1e-3)
    lines = torch.exp(-((field / (slope * rng.uniform(0.5, 1.2))) ** 2))
    return lines * torch.sigmoid(4 * (_smooth(shape, 4, rng) - rng.uniform(0, 1)))
