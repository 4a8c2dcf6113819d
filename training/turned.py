"""Calibration lines with x and y exchanged: targets that the gaps of an accelerated scan never give.

A scan measures its calibration lines along the whole of x. With its axes exchanged, a narrow band of k-space is then
fully sampled along y. The scan's own sampling along y leaves lines of it out, and these are known. Images look alike
along both axes, so what a network learns there holds for the scan itself. The band is the image blurred along x.
Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from mrnets.contract import Scan
from mrnets.physics.arrays import Array
from mrnets.physics.fourier import ifftc, resize
from mrnets.physics.masks import calibration_region
from mrnets.prepare import combine
from training.data import Example

__all__ = ["turned"]


def turned(example: Example) -> Example | None:
    """Return the calibration lines of `example` with x and y exchanged, and held out what its own sampling leaves out.

    k-space is 0 outside these lines. Its image has the peak of that of `example`. None where the scan has no whole
    lines, no calibration lines, or where its sampling, along x, leaves no line out.
    """
    scan = example.scan
    kspace, mask, sens = scan.kspace, scan.mask, scan.sens
    assert kspace is not None
    assert mask is not None
    assert sens is not None
    (ny, nx), (height, _) = mask.shape[-2:], calibration_region(mask)
    lines = _along(mask[..., 0], nx)
    if height == 0 or bool((mask != mask[..., :1]).any()) or bool(lines.all(dim=-1).any()):
        return None
    band = resize(torch.ones(height, 1, dtype=torch.bool, device=mask.device), (ny, 1))[:, 0]
    known = _turn(kspace) * band
    kept = lines[..., None] & band
    scale = (_peak(known * kept, _turn(sens)) / _peak(kspace, sens))[:, None, None, None, None]
    less = Scan(
        kspace=known * kept / scale,
        mask=kept,
        sens=_turn(sens),
        echo_times=scan.echo_times,
        calibration=None if scan.calibration is None else _calibration(scan.calibration, height) / scale,
        noise=None if scan.noise is None else scan.noise / scale[:, 0, 0, 0, 0],
    )
    held = (~lines[..., None] & band).expand(len(kspace), -1, -1, -1, -1)
    return dataclasses.replace(
        example, scan=less, target=None, maps={}, labels=None, region=None, kspace=known / scale, held=held
    )


def _turn(x: Array) -> Array:
    """Exchange y and x."""
    return x.transpose(-2, -1)


def _along(lines: Array, n: int) -> Array:
    """`lines` (..., y) on an axis of n samples: cropped around the middle, or continued beyond its ends."""
    size = lines.shape[-1]
    return lines[..., torch.from_numpy((np.arange(n) - n // 2 + size // 2) % size)]


def _calibration(block: Array, height: int) -> Array:
    """The middle `height` lines of the calibration block with its axes exchanged."""
    there = _turn(block)
    return resize(there, (min(height, there.shape[-2]), there.shape[-1]))


def _peak(kspace: Array, sens: Array) -> Array:
    """(batch,): the largest magnitude of the zero-filled image; 1 for an empty slice."""
    largest = combine(ifftc(kspace), sens).abs().amax(dim=(1, 2, 3))
    return torch.where(largest > 0, largest, torch.ones_like(largest))
