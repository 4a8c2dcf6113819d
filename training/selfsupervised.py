"""Self-supervised training on accelerated scans (SSDU: Yaman 2020, MRM 84:3172): their samples are split in two sets.

The network gets one set. The other is its target: what its image predicts there is compared with what was measured.
Each time a slice is taken in training it is split anew (Yaman 2022, NMR Biomed 35:e4798). Outside training the split of
a volume stays the same. Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from mrnets.contract import Estimate, Scan
from mrnets.errors import InputError
from mrnets.physics.arrays import Array
from mrnets.physics.coils import expand
from mrnets.physics.fourier import fftc, resize
from training.data import Example
from training.settings import SelfSupervised

__all__ = ["drawn", "missed", "predicted", "split", "supervised"]

Mask = NDArray[np.bool_]


def split(example: Example, settings: SelfSupervised, rngs: Sequence[np.random.Generator]) -> Example:
    """Return `example` of an accelerated scan with a part of its samples held out, and without a target.

    One generator for each slice. The sensitivities of its scan stay as they are: they are made of all samples. Raises
    InputError where nothing can be held out.
    """
    scan = example.scan
    assert scan.kspace is not None
    assert scan.mask is not None
    masks = scan.mask.expand(len(rngs), *scan.mask.shape[1:])[:, 0, 0].cpu().numpy()
    chosen = [drawn(mask, settings, rng) for mask, rng in zip(masks, rngs, strict=True)]
    for name, one in zip(example.names, chosen, strict=True):
        if not one.any():
            raise InputError(f"{name}: too few samples to hold out a share of {settings.share:g}")
    held = torch.from_numpy(np.stack(chosen)).to(scan.mask.device)[:, None, None]
    kept = scan.mask & ~held
    less = dataclasses.replace(scan, kspace=torch.where(kept, scan.kspace, 0), mask=kept)
    return dataclasses.replace(example, scan=less, target=None, kspace=scan.kspace, held=held)


def supervised(example: Example, kspace: Array) -> Example:
    """Return `example` of a fully sampled scan with everything held out that its mask leaves out.

    kspace (batch, echo, coil, y, x): all samples, in the scale of the scan.
    """
    assert example.scan.mask is not None
    return dataclasses.replace(example, kspace=kspace, held=~example.scan.mask.expand(len(kspace), -1, -1, -1, -1))


def drawn(mask: Mask, settings: SelfSupervised, rng: np.random.Generator) -> Mask:
    """Return the samples of `mask` (y, x) to hold out, of that shape; none where all lie in the centre that is kept."""
    centre = resize(np.ones([min(settings.centre, n) for n in mask.shape], bool), mask.shape)
    held, found = np.zeros_like(mask), np.flatnonzero(mask & ~centre)
    if found.size:  # drawn without replacement by their density (Efraimidis, Spirakis 2006)
        late = rng.exponential(size=found.size) / _density(mask.shape, settings.width).ravel()[found]
        held.ravel()[found[np.argsort(late, kind="stable")[: max(round(settings.share * found.size), 1)]]] = True
    return held


def predicted(estimate: Estimate, scan: Scan) -> Array:
    """Return k-space (batch, echo, coil, y, x) of the image of `estimate`, at all places. It must be `ended`.

    Raises InputError without sensitivities.
    """
    if scan.sens is None:
        raise InputError(
            "option loss.kspace needs sensitivities that are known before the network: preparation.sens=espirit"
        )
    assert estimate.image is not None
    image = estimate.image[:, :, None] if estimate.unweighted is None else estimate.unweighted
    kspace: Array = fftc(expand(image, scan.sens[:, None], sets=True))[:, :, 0]
    return kspace


def missed(estimate: Estimate, example: Example) -> tuple[Array, Array]:
    """Return the error of predicted samples that were held out, and those samples; both are 0 elsewhere.

    Both are (batch, echo, coil, y, x). Raises InputError as `predicted` does.
    """
    assert example.kspace is not None
    assert example.held is not None
    return (predicted(estimate, example.scan) - example.kspace) * example.held, example.kspace * example.held


@lru_cache(maxsize=64)
def _density(shape: tuple[int, ...], width: float) -> NDArray[np.float64]:
    """A Gaussian around the middle of k-space, of standard deviation `width` times each axis; 1 there."""
    y, x = ((np.arange(n) - n // 2) / (width * n) for n in shape)
    return np.asarray(np.exp(-0.5 * (y[:, None] ** 2 + x**2)))
