"""Pictures of a validation: the zero-filled image, the estimate, the target, and the error, for each field."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrnets.classes import classes_of, decided, foreground
from mrnets.contract import Estimate
from mrnets.files import write_bytes
from mrnets.physics.arrays import to_numpy
from mrnets.physics.maps import facts
from training.data import Example
from training.metrics import comparable, positive

__all__ = ["background", "colours", "outlines", "picture", "write"]

Picture = NDArray[np.uint8]


def picture(estimate: Estimate, example: Example, labels: Sequence[str] = ()) -> Picture:
    """Return the first slice of a batch as RGB, (y, x, 3) uint8, with one row of tiles for each field that both have.

    Images: zero-filled, estimate, target, and the error five times as bright; without a target the first two. Maps, in
    the windows of `mrnets.physics.maps`: estimate, target, error. Segmentations: the image alone, with the outlines of
    the estimate, with those of the target.
    """
    rows: list[list[Picture]] = []
    if estimate.image is not None and example.target is not None:
        image, target = estimate.image[0, 0].abs().float(), example.target[0, 0].abs()
        peak = positive(target.max())
        first = [] if example.scan.kspace is None else [_zerofilled(example) / peak]
        rows.append([_grey(t) for t in (*first, image / peak, target / peak, 5 * (image - target).abs() / peak)])
    elif estimate.image is not None and example.scan.kspace is not None:
        zerofilled, image = _zerofilled(example), estimate.image[0, 0].abs().float()
        rows.append([_grey(t / positive(t.max())) for t in (zerofilled, image)])
    for name, (x, y) in comparable(estimate.maps, example.maps, example.region).items():
        error = (x - y)[0].square().sum(dim=0).sqrt()
        rows.append([*(_grey(_windowed(name, planes[0])) for planes in (x, y)), _grey(error)])
    if estimate.logits is not None and example.labels is not None:
        grey = _grey(background(example))
        masks = [_middle(m[0]) for m in (decided(estimate.logits, classes_of(labels)), example.labels)]
        drawn = [outlines(grey, to_numpy(m)[foreground(labels) :]) for m in masks]
        rows.append([grey, *drawn])
    return _stacked([np.concatenate(row, axis=1) for row in rows])


def write(path: Path, pictures: Sequence[Picture]) -> None:
    """Write a PNG of pictures, one below the other; nothing where pillow is absent. Raises InputError."""
    try:
        from PIL import Image
    except ModuleNotFoundError:
        return
    picture = io.BytesIO()
    Image.fromarray(_stacked(pictures)).save(picture, format="PNG")
    write_bytes(path, picture.getvalue())


def background(example: Example) -> Tensor:
    """Return an image of the slice, (y, x), from 0 to 1: the target, the middle slice of the first contrast, or the
    zero-filled image."""
    shown: Tensor | None = example.target if example.target is not None else example.scan.image
    if shown is None:
        shown = _zerofilled(example)[None, None]
    image = _middle(shown[0, :1].abs() if shown.is_complex() else shown[0, :1].float())[0]
    least = image.min()
    return (image - least) / positive(image.max() - least)


def colours(count: int) -> list[tuple[int, int, int]]:
    """Return RGB of `count` classes, spread over the hues."""
    hues = [colorsys.hsv_to_rgb(n / max(count, 1), 1.0, 1.0) for n in range(count)]
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in hues]


def outlines(grey: Picture, masks: NDArray[np.bool_]) -> Picture:
    """Return `grey` (y, x, 3) with the inner border of each of `masks` (class, y, x) in the colour of its class."""
    from scipy import ndimage

    drawn = grey.copy()
    for mask, colour in zip(masks, colours(len(masks)), strict=True):
        drawn[mask & ~ndimage.binary_erosion(mask)] = colour
    return drawn


def _zerofilled(example: Example) -> Tensor:
    from mrnets.nets.zerofilled import ZeroFilled

    with torch.no_grad():
        image = ZeroFilled()(example.scan).image
    assert image is not None
    return image[0, 0].abs()


def _windowed(name: str, planes: Tensor) -> Tensor:
    """A map (plane, y, x), as `comparable` gives it, from 0 to 1 in its window."""
    known = facts(name)
    values = torch.atan2(planes[1], planes[0]) if known.wraps else planes[0] * (known.size or 1.0)
    low, high = known.window
    return (values - low) / (high - low)


def _middle(planes: Tensor) -> Tensor:
    """(class, y, x) of (class, [z,] y, x)."""
    return planes[:, planes.shape[1] // 2] if planes.ndim == 4 else planes


def _grey(values: Any) -> Picture:
    """(y, x) from 0 to 1 as RGB."""
    levels = to_numpy((torch.nan_to_num(values).clamp(0, 1) * 255).to(torch.uint8))
    return np.repeat(levels[:, :, None], 3, axis=2)


def _stacked(rows: Sequence[Picture]) -> Picture:
    """Pictures below each other, black where some are narrower."""
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])
