"""Changes of a sample in image space, of everything of it that has pixels. Axes: the last two are (y, x)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mrnets.errors import InputError
from mrnets.physics.arrays import Array
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.interpolation import nearest
from training.data import Sample

__all__ = ["fully_sampled", "image_cropped", "kspace_cropped", "moved", "moved_planes"]

Move = Callable[[Array], Array]
"""(..., y, x) to (..., y', x')."""


def fully_sampled(sample: Sample) -> bool:
    """Return whether there is k-space without gaps."""
    return sample.raw is not None and bool(sample.raw.mask.all())


def moved(sample: Sample, move: Move) -> Sample:
    """Return `sample` with its image-space arrays, and the images of its k-space, moved by `move`; masks stay."""
    raw = sample.raw
    if raw is not None:
        sens = None if raw.sens is None else move(raw.sens)
        raw = dataclasses.replace(raw, kspace=fftc(move(ifftc(raw.kspace))), sens=sens)
    return dataclasses.replace(moved_planes(sample, move), raw=raw)


def moved_planes(sample: Sample, move: Move) -> Sample:
    """Return `sample` with everything but its raw data and masks moved by `move`."""
    fields: dict[str, Any] = {
        name: None if getattr(sample, name) is None else move(getattr(sample, name))
        for name in ("coil_images", "image", "labels", "region")
    }
    return dataclasses.replace(sample, **fields, maps={name: move(m) for name, m in sample.maps.items()})


def image_cropped(sample: Sample, shape: Sequence[int]) -> Sample:
    """Return the centre of the field of view, at most `shape` (y, x) pixels. Raises InputError where k-space has
    gaps."""
    return _cropped(sample, shape, lambda s, sizes: moved(s, lambda x: resize(x, sizes)), "image_crop")


def kspace_cropped(sample: Sample, shape: Sequence[int]) -> Sample:
    """Return the centre of k-space, at most `shape` (y, x) samples: the same field of view in larger pixels.

    Images keep their values. Maps, labels and region are those of the nearest pixel. Sensitivities are low-pass
    filtered and get a sum over coils of |sens|^2 = 1 again. Raises InputError where k-space has gaps.
    """
    return _cropped(sample, shape, _kspace_cropped, "kspace_crop")


def _cropped(
    sample: Sample, shape: Sequence[int], crop: Callable[[Sample, tuple[int, ...]], Sample], option: str
) -> Sample:
    if sample.raw is None:
        return sample
    now = tuple(sample.raw.kspace.shape[-2:])
    wanted = tuple(min(n, m) for n, m in zip(now, shape, strict=True))
    if wanted == now:
        return sample
    if not fully_sampled(sample):
        raise InputError(f"{sample.names[0]}: masks.{option} needs fully sampled k-space")
    cropped = crop(sample, wanted)
    assert cropped.raw is not None
    mask = torch.ones((*sample.raw.mask.shape[:-2], *wanted), dtype=torch.bool, device=sample.raw.mask.device)
    return dataclasses.replace(cropped, raw=dataclasses.replace(cropped.raw, mask=mask, calibration=None))


def _kspace_cropped(sample: Sample, shape: tuple[int, ...]) -> Sample:
    raw = sample.raw
    assert raw is not None
    now = tuple(raw.kspace.shape[-2:])
    scale = (shape[0] * shape[1] / (now[0] * now[1])) ** 0.5  # an orthonormal transform of fewer samples grows

    def filtered(image: Array) -> Array:
        return ifftc(resize(fftc(image), shape)) * scale

    def sampled(x: Array) -> Array:
        return nearest(nearest(x, shape[0], -2), shape[1], -1)

    planes = moved_planes(dataclasses.replace(sample, coil_images=None), sampled)
    small = dataclasses.replace(
        raw,
        kspace=resize(raw.kspace, shape) * scale,
        noise=None if raw.noise is None else raw.noise * scale**2,
        sens=None if raw.sens is None else _unit(filtered(raw.sens), sampled(raw.sens)),
    )
    coil_images = None if sample.coil_images is None else filtered(sample.coil_images)
    mask = None if sample.mask is None else resize(sample.mask, shape)
    return dataclasses.replace(planes, raw=small, coil_images=coil_images, mask=mask)


def _unit(sens: Array, where: Array) -> Array:
    """`sens` (..., coil, y, x) of norm 1 where `where` has any coil, else 0."""
    norm = sens.abs().square().sum(-3, keepdim=True).sqrt()
    inside = (where.abs().sum(-3, keepdim=True) > 0) & (norm > 0)
    return torch.where(inside, sens / norm.clamp(min=1e-12), torch.zeros_like(sens))
