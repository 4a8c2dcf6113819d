"""Pictures of a validation: what was put in, the estimate, the target, and the error; for every field that is there."""

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

from mrnets.contract import Estimate
from mrnets.files import write_bytes
from mrnets.physics.arrays import to_numpy
from training.data import Example
from training.metrics import comparable, decided, exclusive, positive

__all__ = ["background", "colours", "outlines", "picture", "write"]

Picture = NDArray[np.uint8]


def picture(estimate: Estimate, example: Example, labels: Sequence[str] = ()) -> Picture:
    """The first slice of a batch as RGB, (y, x, 3) uint8: one row of tiles for each field that both have.

    Images: zero-filled, estimate, target, the error five times as bright. Maps, from -1 to 1 or 0 to 2 of the units of
    `training.metrics`: estimate, target, error. Segmentations: the image, with the estimate's outlines, the target's.
    """
    rows: list[list[Picture]] = []
    if estimate.image is not None and example.target is not None:
        image, target = estimate.image[0, 0].abs().float(), example.target[0, 0].abs()
        peak = positive(target.max())
        first = [] if example.scan.kspace is None else [_zerofilled(example) / peak]
        rows.append([_grey(t) for t in (*first, image / peak, target / peak, 5 * (image - target).abs() / peak)])
    for name, (x, y) in comparable(estimate.maps, example.maps, example.region).items():
        shown = [torch.atan2(m[0, -1], m[0, 0]) / 3.2 if name == "phase" else m[0, 0] for m in (x, y)]
        signed = name in ("B0", "phase")
        error = (x - y)[0].square().sum(dim=0).sqrt()
        rows.append([*(_grey((m + 1) / 2 if signed else m / _brightest(name)) for m in shown), _grey(error)])
    if estimate.logits is not None and example.labels is not None:
        grey = _grey(background(example))
        masks = [_middle(m[0]) for m in (decided(estimate.logits, labels), example.labels)]
        drawn = [outlines(grey, to_numpy(m)[int(exclusive(labels)) :]) for m in masks]
        rows.append([grey, *drawn])
    return _stacked([np.concatenate(row, axis=1) for row in rows])


def write(path: Path, pictures: Sequence[Picture]) -> None:
    """PNG of pictures, one below the other. Writes nothing where pillow is absent."""
    try:
        from PIL import Image
    except ModuleNotFoundError:
        return
    picture = io.BytesIO()
    Image.fromarray(_stacked(pictures)).save(picture, format="PNG")
    write_bytes(path, picture.getvalue())


def background(example: Example) -> Tensor:
    """The image that labels are drawn on, (y, x), from 0 to 1: the first contrast, its middle slice, or the target."""
    shown: Tensor | None = example.target if example.target is not None else example.scan.image
    assert shown is not None
    image = _middle(shown[0, :1].abs() if shown.is_complex() else shown[0, :1].float())[0]
    least = image.min()
    return (image - least) / positive(image.max() - least)


def colours(count: int) -> list[tuple[int, int, int]]:
    """RGB of `count` classes, spread over the hues."""
    hues = [colorsys.hsv_to_rgb(n / max(count, 1), 1.0, 1.0) for n in range(count)]
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in hues]


def outlines(grey: Picture, masks: NDArray[np.bool_]) -> Picture:
    """`grey` (y, x, 3) with the inner border of each of `masks` (class, y, x) in the colour of its class."""
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


def _brightest(name: str) -> float:
    """Of a map that has no sign, in its unit; S0 is relative to its maximum."""
    return 1.0 if name == "S0" else 2.0


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
