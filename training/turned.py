"""Scans whose images are turned: they teach what the gaps of an accelerated scan hide (equivariant imaging, Chen 2022).

The scan's gaps always lie in the same direction of its k-space. With its image turned by about 90 degrees, measured
samples lie where these gaps are. Samples that were not measured come from the network's own image, without a gradient.
The turned scan is sampled as the scan itself was, and the samples that this leaves out are its targets. A network that
sees objects at many angles learns nothing that holds for one of them alone. So what it learns there holds for the scan
itself. (Chen, Tachella, Davies: Robust equivariant imaging, CVPR 2022, p. 5647.) Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from mrnets.contract import Estimate, Scan
from mrnets.physics.arrays import Array
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.rigid import moved
from training.data import Example
from training.selfsupervised import predicted

__all__ = ["LARGEST", "turned"]

LARGEST = math.radians(35)
"""Largest distance of a turn from 90 degrees."""


@torch.no_grad()
def turned(example: Example, estimate: Estimate) -> Example:
    """Return the scan of `example` with its image turned, and held out all that its own sampling leaves out there.

    Each slice is transposed, and then turned by up to `LARGEST`, drawn by torch's generator of its device. Samples that
    were not measured come from `estimate`. Raises InputError as `predicted` does.
    """
    scan, held = example.scan, example.held
    assert scan.mask is not None
    assert held is not None
    assert example.kspace is not None
    measured = scan.mask | held
    own = measured if example.target is None else scan.mask  # a fully sampled scan has the sampling of its mask
    filled = torch.where(measured, example.kspace, predicted(estimate, scan))
    angle = LARGEST * (2 * torch.rand(len(filled), 1, 1, 1, 1, device=filled.device) - 1)
    kspace = fftc(moved(_transposed(ifftc(filled)), angle, (0.0, 0.0)))
    kept = _continued(own, (kspace.shape[-2], kspace.shape[-1])).expand(len(kspace), -1, -1, -1, -1)
    block = scan.calibration
    less = Scan(
        kspace=kspace * kept,
        mask=kept,
        sens=_turned(_transposed(scan.sens), angle),
        echo_times=scan.echo_times,
        calibration=None if block is None else resize(kspace, (block.shape[-2], block.shape[-1])),
        noise=scan.noise,
    )
    return Example(scan=less, names=example.names, kspace=kspace, held=~kept, weight=example.weight)


def _transposed(x: Array) -> Array:
    return x.transpose(-2, -1)


def _turned(maps: Array, angle: Array) -> Array:
    """`maps` (batch, ..., y, x) turned as `moved` turns images, by interpolation: their edges would ring otherwise."""
    y, x = (torch.arange(n, device=maps.device) - n // 2 for n in maps.shape[-2:])
    cos, sin = angle.cos()[:, 0, 0], angle.sin()[:, 0, 0]
    places = (cos * x + sin * y[:, None], cos * y[:, None] - sin * x)
    sizes = (maps.shape[-1], maps.shape[-2])
    grid = torch.stack([2 * (p + n // 2) / (n - 1) - 1 for p, n in zip(places, sizes, strict=True)], dim=-1)
    planes = torch.cat((maps.real, maps.imag), dim=1)
    found = functional.grid_sample(planes.flatten(1, -3), grid, align_corners=True).reshape(planes.shape)
    return torch.complex(*found.chunk(2, dim=1))


def _continued(mask: Array, shape: tuple[int, int]) -> Array:
    """`mask` on axes of other lengths: cropped around the middle, or continued beyond its ends."""
    for axis, n in zip((-2, -1), shape, strict=True):
        size = mask.shape[axis]
        mask = mask.index_select(axis, (torch.arange(n, device=mask.device) - n // 2 + size // 2) % size)
    return mask
