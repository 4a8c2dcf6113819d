"""Volumes as a stream of ISMRMRD images, slice by slice, and the labels that come back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ismrmrd
import numpy as np
from numpy.typing import NDArray

from gadgets.export.contents import Contents, Picture, Series
from gadgets.segment.volumes import Image
from mrnets.errors import InputError, counted

__all__ = ["Labels", "images_of", "labels_of", "volume_of"]


@dataclass(frozen=True)
class Labels:
    """The labels of a volume."""

    series: Series
    pixels: NDArray[np.uint16]
    """(z, y, x)."""

    @property
    def title(self) -> str:
        """labels; or the name of the class, of one of several classes that overlap."""
        names = self.series.labels
        return names[1] if len(names) == 2 else "labels"

    @property
    def picture(self) -> Picture:
        """An image of the series."""
        return self.series.pictures[0]


def images_of(images: Sequence[Image]) -> Iterator[ismrmrd.Image]:
    """Yield the slices of volumes on one grid, from first to last, and of each slice the contrasts in order."""
    for z in range(images[0].volume.spatial_shape[0]):
        for n, image in enumerate(images):
            yield _slice(image, z, n)


def _slice(image: Image, z: int, number: int) -> ismrmrd.Image:
    pixels = np.ascontiguousarray(image.volume.array[z])
    made = ismrmrd.Image.from_array(pixels[None, None], transpose=False)
    head = made.getHead()
    affine = image.volume.affine
    height, width = pixels.shape
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[::-1]  # x, y, z
    head.image_type = ismrmrd.IMTYPE_MAGNITUDE
    head.image_series_index, head.image_index = number + 1, z + 1
    head.slice, head.contrast = z, number
    head.field_of_view = tuple(spacing * (width, height, 1))
    head.position = tuple((affine @ (z, height // 2, width // 2, 1))[:3])
    for name, column in (("read_dir", 2), ("phase_dir", 1), ("slice_dir", 0)):
        setattr(head, name, tuple(affine[:3, column] / np.linalg.norm(affine[:3, column])))
    told = image.name or f"contrast {number + 1}"
    meta = ismrmrd.Meta({"GADGETRON_DataRole": "Image", "SequenceDescription": told, "ImageComments": told})
    return ismrmrd.Image(head=head, data=made.data, meta=meta)


def labels_of(contents: Contents, shape: tuple[int, ...]) -> list[Labels]:
    """Return the labels in the images that a chain has given for volumes of `shape` (z, y, x).

    Raises InputError where slices have no labels."""
    found = [series for series in contents.series if series.role == "Segmentation"]
    pictures = [picture for series in contents.series for picture in series.pictures]
    why = next((f": {text}" for p in pictures if "FALLBACK" in (text := p.first("ImageComments"))), "")
    if not found:
        raise InputError(f"{contents.path}: there are no labels{why}")
    labels = []
    for series in found:
        pixels = np.full(shape, -1, np.int64)
        for picture in series.pictures:
            pixels[int(picture.head.slice)] = picture.pixels[0, 0]
        lost = np.flatnonzero((pixels < 0).any(axis=(1, 2)))
        if lost.size:
            raise InputError(f"{contents.path}: {counted(lost.size, 'slice')} without labels, first {lost[0]}{why}")
        labels.append(Labels(series, pixels.astype(np.uint16)))
    return labels


def volume_of(labels: Labels, image: Image) -> Any:
    """Return labels as the file of `image` stores its voxels (highdicom.Volume)."""
    return image.volume.with_array(labels.pixels).match_geometry(image.stored)
