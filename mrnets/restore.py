"""The way back: from a network's estimate to the units and the grid of the scan. Axes: see `mrnets.contract`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from mrnets.contract import Estimate, Scan
from mrnets.physics.arrays import Array
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.interpolation import nearest
from mrnets.physics.maps import scaled, turned
from mrnets.physics.normalise import denormalised
from mrnets.preparation import Plane

__all__ = ["Prepared", "restore"]


@dataclass(frozen=True)
class Prepared:
    """A network's input, and the way back."""

    scan: Scan
    scale: Array
    """The divisor of `scan`: (batch,) float32; of `prepare_image` (batch, contrast)."""
    phase: Array
    """(batch, y, x) of magnitude 1, complex64; of `prepare_image` 1, float32: the phase that the image of `scan` lacks.
    Sensitivities estimated from the data contain the phase of the low-resolution image, so a network sees an image that
    is nearly real. Its estimate gets back the phase that a fixed combination of the coils sees: the strongest virtual
    coil of the calibration lines."""
    offset: Array | None = None
    """The number that was subtracted from real images before; shape as `scale`. None: nothing."""
    whole: Plane | None = None
    """(y, x) before cropping; None: nothing was cropped."""
    view: Plane | None = None
    """(y, x) between the crop of the field of view and that of k-space."""
    notes: tuple[str, ...] = ()
    """Sentences that whoever looks at the images must know."""


def restore(estimate: Estimate, prepared: Prepared) -> Estimate:
    """Return `estimate` of `prepared.scan` in the units and on the grid of what was prepared, without `steps`.

    The image and its maps get back scale and phase (`physics.maps`). Cropped k-space is zero-filled. Beyond a cropped
    field of view images, maps and logits are 0: the first class if classes are exclusive, none if they overlap. Maps
    and logits, which are not band-limited, take the nearest value.
    """
    image, maps, logits = estimate.image, dict(estimate.maps), estimate.logits
    if image is not None:
        offset = torch.zeros_like(prepared.scale) if prepared.offset is None else prepared.offset
        image = _filled(denormalised(image, prepared.scale, offset) * prepared.phase[:, None], prepared)
    if maps:
        gain = _gain(next(iter(maps.values())), prepared)
        maps = turned(scaled(maps, prepared.scale[:, None, None] * gain), prepared.phase)
    return Estimate(
        image=image,
        maps={name: _nearest(m, prepared) for name, m in maps.items()},
        logits=None if logits is None else _nearest(logits, prepared),
        trust=estimate.trust,
    )


def _gain(values: torch.Tensor, prepared: Prepared) -> float:
    """Gain of pixel values by the orthonormal transform to the larger matrix; 1 without a crop of k-space."""
    return 1.0 if prepared.view is None else math.sqrt(math.prod(values.shape[-2:]) / math.prod(prepared.view))


def _filled(image: torch.Tensor, prepared: Prepared) -> Any:
    """On the grid before cropping, k-space and field of view filled with zeros."""
    if prepared.whole is None or prepared.view is None:
        return image
    if tuple(image.shape[-2:]) != prepared.view:
        filled = ifftc(resize(fftc(image + 0j), prepared.view))
        image = filled if image.is_complex() else filled.real
    return resize(image, prepared.whole)


def _nearest(values: torch.Tensor, prepared: Prepared) -> Any:
    if prepared.whole is None or prepared.view is None:
        return values
    for axis, size in zip((-2, -1), prepared.view, strict=True):
        values = nearest(values, size, axis)
    return resize(values, prepared.whole)
