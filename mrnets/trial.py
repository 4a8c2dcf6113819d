"""A scan without some of its samples. An image that is made without them is judged by how well it predicts them.

Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrnets.contract import Scan
from mrnets.physics.masks import calibration_region
from mrnets.tensors import sent

__all__ = ["SHARE", "Trial", "left_out", "trial_of"]

SHARE = 0.06
"""Share of the samples outside the fully sampled centre that are left out, and at least `LEAST` of them."""
LEAST = 2
CENTRE = 24
"""Samples along each axis, at most, that are never left out."""
ONE_SIDED = 0.8
"""Reach of the samples to one side of the centre over that to the other, below which one side is missing. Samples that
are left out say nothing of it. There l1-wavelet has no share: it made the error 1.4 times as large."""


@dataclass(frozen=True)
class Trial:
    """A scan without some of its samples."""

    scan: Scan
    held: Tensor
    """(batch or 1, 1, 1, y, x) bool: these samples."""
    between: Tensor
    """Places between the samples of the whole scan, of that shape."""
    both_sides: Tensor
    """(batch or 1,) bool: whether samples reach about as far to both sides of the centre."""


def trial_of(scan: Scan) -> Trial | None:
    """Return `scan` without the samples that a network is tested with. None where `scan` has no k-space."""
    if scan.kspace is None or scan.mask is None:
        return None
    held, between, both_sides = _chosen(scan.mask)
    kept = scan.mask & ~held
    kspace = torch.where(kept, scan.kspace, torch.zeros_like(scan.kspace))
    return Trial(dataclasses.replace(scan, kspace=kspace, mask=kept), held, between, both_sides)


def left_out(mask: Tensor) -> Tensor:
    """Samples to leave out of `mask` (batch or 1, 1, 1, y, x) bool, of that shape; none where few lie outside a centre.

    Whole lines where all sampled lines have the same samples, else single places. They are spread from the centre
    outwards, so that some hold signal. They are the same for all scans with that mask.
    """
    return _chosen(mask)[0]


def _chosen(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`left_out`, places between the samples, and whether these reach about as far to both sides of the centre.

    All are bool, the first two of the shape of the mask, the third (batch or 1,). A device is asked once."""
    masks = mask[:, 0, 0].cpu().numpy()
    places = np.stack([[_held(one), _between(one)] for one in masks], axis=1)
    held, between = sent(torch.from_numpy(places), mask.device)[:, :, None, None]
    sides = [all(_reach(one.any(axis)) >= ONE_SIDED for axis in (0, 1)) for one in masks]
    return held, between, sent(torch.tensor(sides), mask.device)


def _between(sampled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(y, x): places that are not sampled, in rows and columns no farther out than the last that are."""
    rows, columns = (_extent(np.asarray(sampled.any(axis=axis))) for axis in (1, 0))
    return rows[:, None] & columns & ~sampled


def _extent(sampled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """From the first sampled place of an axis to the last."""
    within, places = np.zeros_like(sampled), np.flatnonzero(sampled)
    if len(places):
        within[places[0] : places[-1] + 1] = True
    return within


def _reach(sampled: NDArray[np.bool_]) -> float:
    """Reach of the samples of an axis to one side, the shorter one, over that to the other."""
    places = np.flatnonzero(sampled)
    if not len(places):
        return 0.0
    middle = len(sampled) // 2
    sides = (middle - int(places[0]), int(places[-1]) + 1 - middle)
    return min(sides) / max(sides)


def _held(sampled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(y, x)."""
    rows, columns = (np.asarray(sampled.any(axis=axis, keepdims=True)) for axis in (1, 0))
    centre = _block(sampled.shape, [min(n, CENTRE) for n in calibration_region(sampled)])
    if not (sampled == (rows & columns)).all():
        return _spread(sampled & ~centre)
    if _runs(columns) > 1 >= _runs(rows):
        return sampled & _spread(columns & ~centre.any(axis=0, keepdims=True))
    if _runs(rows) > 1 and _runs(columns) > 1:
        return _spread(sampled & ~centre)
    return sampled & _spread(rows & ~centre.any(axis=1, keepdims=True))


def _runs(places: NDArray[np.bool_]) -> int:
    """How many times sampled places follow ones that are not."""
    return int((np.diff(places.ravel().astype(np.int8), prepend=0) > 0).sum())


def _block(shape: tuple[int, ...], size: Sequence[int]) -> NDArray[np.bool_]:
    """(y, x): true in the middle `size` samples, as `fourier.resize` crops."""
    block = np.zeros(shape, bool)
    block[tuple(slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(shape, size, strict=True))] = True
    return block


def _spread(places: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Some of the `places`, evenly spread by their distance from the centre; none where there are too few."""
    held = np.zeros_like(places)
    found = np.argwhere(places)
    count = max(round(SHARE * len(found)), LEAST)
    if len(found) < 2 * count:
        return held
    middle = np.array(places.shape) // 2
    order = np.argsort((np.abs(found - middle) / np.maximum(middle, 1)).sum(axis=1), kind="stable")
    chosen = found[order[np.arange(count) * len(found) // count]]
    held[tuple(chosen.T)] = True
    return held
