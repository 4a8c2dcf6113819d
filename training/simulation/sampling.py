"""Sampling masks of a batch: drawn in advance for each matrix, kept on the device, mirrored at random."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mrnets.physics import masks
from training.simulation.draws import Draws
from training.simulation.settings import Simulation

__all__ = ["Masks", "draw_masks"]

Plane = tuple[int, int]


@dataclass(frozen=True)
class Masks:
    """Masks of one matrix, or of one batch."""

    sampled: torch.Tensor
    """(mask, y, x) bool."""
    calibration: torch.Tensor
    """(mask, 2) int64: height and width of the fully sampled block around the centre."""

    def chosen(self, draws: Draws) -> Masks:
        """One for each slice of a batch, mirrored along y, along x, or not."""
        number = draws.integers(len(self.sampled))
        sampled = self.sampled[number]
        for axis in (1, 2):
            mirrored = sampled.flip(axis).roll(1, axis) if sampled.shape[axis] % 2 == 0 else sampled.flip(axis)
            sampled = torch.where(draws.chance(0.5, 1, 1) > 0, mirrored, sampled)
        return Masks(sampled, self.calibration[number])


def draw_masks(shape: Plane, rng: np.random.Generator, options: Simulation, device: torch.device) -> Masks:
    """`options.masks_each` masks of a matrix (y, x)."""
    drawn = [_mask(shape, rng, options) for _ in range(options.masks_each)]
    blocks = [masks.calibration_region(mask) for mask in drawn]
    return Masks(torch.from_numpy(np.stack(drawn)).to(device), torch.tensor(blocks).to(device))


def _mask(shape: Plane, rng: np.random.Generator, options: Simulation) -> NDArray[np.bool_]:
    kind = masks.kind(str(rng.choice(options.masks)))
    acceleration = math.exp(rng.uniform(*np.log(options.acceleration)))
    room = 0.6 * shape[0] / acceleration
    if kind.axes == 2:
        room = min((0.5 * shape[0] * shape[1] / acceleration) ** 0.5, *shape)
    least, most = options.calibration
    centre = int(rng.integers(least, max(min(most, int(room)), least), endpoint=True))
    if kind.by_distance:
        acceleration = float(round(acceleration))
    elif kind.axes == 1:
        acceleration = min(acceleration, shape[0] / (1.3 * centre))
    mask = kind.draw(shape, acceleration, rng, centre=centre)
    if rng.random() < options.partial_fourier:
        most_left_out = 0.5 - (centre / 2 + 1) / shape[0]
        mask = masks.partial_fourier(mask, rng.uniform(0.05, max(min(0.35, most_left_out), 0.06)))
    return mask
