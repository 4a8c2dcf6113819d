"""Maps with a weight (soft SENSE, Uecker 2014): what a hard crop of the maps loses stays."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from mrnets import store
from mrnets.contract import Raw, Scan
from mrnets.ending import ended
from mrnets.physics.coils import norm
from mrnets.physics.espirit import AT_CROP
from mrnets.physics.fourier import fftc, resize
from mrnets.preparation import Preparation
from mrnets.prepare import prepare
from tests.physics.test_espirit import birdcage, grid

SIZE = 96
PLAIN = Preparation(normalisation="none", consistency=None)


def scan_of(images: np.ndarray, *, noise: float, lines: int, step: int, width: int = SIZE) -> Raw:
    """Every `step`-th line and `lines` central ones of coil images (coil, y, x), with noise of variance 1."""
    rng = np.random.default_rng(0)
    white = rng.standard_normal((2, *images.shape))
    kspace = (fftc(images) / noise + (white[0] + 1j * white[1]) / 2**0.5).astype(np.complex64)
    y = np.arange(images.shape[-2]) - images.shape[-2] // 2
    mask = np.broadcast_to(((y % step == 0) | (abs(y + 0.5) < lines / 2))[:, None], images.shape[-2:])
    block = resize(kspace, (lines, width))
    return Raw(
        kspace=(kspace * mask)[None, None],
        mask=mask[None, None, None].copy(),
        calibration=block[None, None],
        whitened=True,
    )


def error(image: Tensor, truth: np.ndarray, where: np.ndarray) -> float:
    """Relative to the truth, in magnitude."""
    difference = np.abs(image[0, 0].numpy()) - np.abs(truth)
    return float(np.linalg.norm(difference[where]) / np.linalg.norm(truth[where]))


def test_a_small_object_beside_a_large_one_stays() -> None:
    y, x = grid((SIZE, SIZE))
    small = (x - 0.9) ** 2 + (y - 0.1) ** 2 < 0.06**2
    objects = ((x**2 + y**2 < 0.55**2) + 0.3 * small) * np.exp(1j * (1.5 * x + 2 * y**2))
    raw = scan_of(birdcage(8, (SIZE, SIZE)) * objects, noise=0.01, lines=12, step=2, width=12)
    scan = prepare(raw, PLAIN).scan
    size = norm(scan.sens)
    hard = dataclasses.replace(scan, sens=scan.sens * ((size >= AT_CROP) / size.clamp_min(1e-6))[:, :, None])
    network = ended(store.create("cgsense"), PLAIN, "each")

    def lost(of: Scan) -> float:
        return error(network(of).image * 0.01, objects, small)

    with torch.inference_mode():
        assert lost(hard) > 0.4
        assert lost(scan) < 0.12
