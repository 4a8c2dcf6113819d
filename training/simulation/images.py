"""Grey images that simulated scans are made of, and the file that holds them.

The file (.npz) has `pixels`, uint8, all images one after the other; `shapes` (image, 2), their y and x; `names`, their
sources. A grey u stands for 2 (u / 255)^2, bright tissue 1: dark greys are finer than bright ones.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.files import whole

__all__ = ["SIZE", "Greys", "Images", "greys", "load_images", "save_images"]

Greys = NDArray[np.uint8]
SIZE = 384
"""Pixels along each axis, at most."""


@dataclass(frozen=True)
class Images:
    """Grey images, each with the name of its source."""

    pixels: tuple[Greys, ...]
    """(y, x) each."""
    names: tuple[str, ...]

    def of(self, names: frozenset[str]) -> Images:
        """Those from these sources."""
        kept = [n for n, name in enumerate(self.names) if name in names]
        return Images(tuple(self.pixels[n] for n in kept), tuple(self.names[n] for n in kept))


def greys(image: NDArray[np.float32]) -> Greys:
    """An image, at least 0, bright tissue 1, in 256 greys."""
    return np.rint(255 * np.sqrt(np.clip(image / 2, 0, 1))).astype(np.uint8)


def save_images(path: Path, images: Images) -> None:
    """Write a file. Raises InputError; then the file before it is kept."""
    with whole(path) as file:
        np.savez_compressed(
            file,
            pixels=np.concatenate([image.ravel() for image in images.pixels]),
            shapes=np.array([image.shape for image in images.pixels], np.int32),
            names=np.array(images.names),
        )


def load_images(path: Path) -> Images:
    """The images of a file. Raises InputError for another file."""
    try:
        with np.load(path) as file:
            pixels, shapes, names = file["pixels"], file["shapes"], file["names"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a file of images with pixels, shapes and names ({error})") from error
    fits = shapes.ndim == 2 and shapes.shape == (len(names), 2) and pixels.dtype == np.uint8 and len(names) > 0
    if not fits or shapes.min() < 1 or shapes.max() > SIZE or shapes.prod(1).sum() != pixels.size:
        raise InputError(f"{path}: its images do not have the shapes that it gives, or are larger than {SIZE} pixels")
    parts = np.split(pixels, np.cumsum(shapes.prod(1))[:-1])
    return Images(
        tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)),
        tuple(str(name) for name in names),
    )
