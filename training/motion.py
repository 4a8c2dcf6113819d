"""Motion during a scan: lines of k-space that were measured in other poses of the object. Axes: `mrnets.contract`.

The coils move with the object. For the few pixels and degrees of a patient who moves, their maps hardly differ.
"""

from __future__ import annotations

import numpy as np
import torch

from mrnets.physics.arrays import Array
from mrnets.physics.fourier import fftc
from mrnets.physics.rigid import moved
from training.settings import Motion

__all__ = ["corrupted", "poses"]


def corrupted(images: Array, settings: Motion, rng: np.random.Generator) -> Array:
    """Return k-space (batch, echo, coil, y, x) of coil `images` of an object that moves, as `settings` say.

    The lines around the middle of k-space, and so the target, are of the pose at rest. Every other pose has a turn and
    a shift of its own, the same for the whole batch.
    """
    kspace = fftc(images)
    if not settings.share or rng.random() >= settings.share:
        return kspace
    pose = poses(kspace.shape[-2], settings.poses, rng)
    rest = pose[kspace.shape[-2] // 2]
    for number in range(settings.poses):
        if number != rest:
            turn = np.deg2rad(rng.uniform(-settings.turn, settings.turn))
            shift = rng.uniform(-settings.shift, settings.shift, 2)
            lines = torch.from_numpy(pose == number).to(kspace.device)
            kspace[..., lines, :] = fftc(moved(images, float(turn), (shift[0], shift[1])))[..., lines, :]
    return kspace


def poses(lines: int, count: int, rng: np.random.Generator) -> Array:
    """Return the number of the pose of each line (y,): those of one pose are neighbours, or come in turn."""
    if rng.random() < 0.5:
        return np.arange(lines) % count
    ends = np.sort(rng.choice(np.arange(1, lines), count - 1, replace=False))
    return np.searchsorted(ends, np.arange(lines), side="right")
