"""Noise-to-recon: images of a scan with more noise are to be as those without it (Desai 2023, MRM 90:2052).

It needs no target, and so works on fully sampled and on accelerated scans. Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses

import torch

from mrnets.contract import Estimate, Scan
from mrnets.errors import InputError
from mrnets.physics.fourier import ifftc
from mrnets.prepare import combine
from training.data import Example
from training.settings import NoiseToRecon

__all__ = ["noisier", "with_noise"]


def with_noise(example: Example, estimate: Estimate, settings: NoiseToRecon) -> Example:
    """Return `example` with more noise in its scan, and the image of `estimate` as its only target.

    No gradient reaches that image: it is not to become as bad as the others. Raises InputError without an image.
    """
    if estimate.image is None:
        raise InputError("option noise_to_recon needs a network that makes images")
    scan, target = noisier(example.scan, settings.levels), estimate.image.detach().to(torch.complex64)
    return Example(scan=scan, names=example.names, target=target, weight=example.weight)


def noisier(scan: Scan, levels: tuple[float, float]) -> Scan:
    """Return `scan` with white noise added to its samples, drawn by torch's generator of its device.

    levels: least and largest standard deviation relative to the largest magnitude of the zero-filled image, one for
    each slice. The noise level of the scan follows. Calibration lines and sensitivities stay.
    """
    assert scan.kspace is not None
    assert scan.mask is not None
    image = combine(ifftc(scan.kspace), scan.sens)
    share = torch.rand(len(image), device=image.device)
    level = (levels[0] + (levels[1] - levels[0]) * share) * image.abs().amax(dim=(1, 2, 3))
    added = torch.randn_like(scan.kspace) * level[:, None, None, None, None] * scan.mask  # complex, of variance 1
    noise = None if scan.noise is None else (scan.noise**2 + level**2).sqrt()
    return dataclasses.replace(scan, kspace=scan.kspace + added, noise=noise)
