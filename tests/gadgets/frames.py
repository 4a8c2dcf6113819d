"""Small frames for tests of the gadgets after sort: smooth coils, a disc, undersampled with calibration lines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gadgets.frame import Frame
from gadgets.sort import sort
from mrnets.physics.fourier import fftc
from tests.gadgets import synthetic

COILS, SIZE = 6, 32


def disc(y: int = SIZE, x: int = SIZE) -> Any:
    """(y, x), off centre, so that no flip goes unseen."""
    v, u = np.meshgrid((np.arange(y) - y // 2) / y, (np.arange(x) - x // 2) / x, indexing="ij")
    inside = (u - 0.08) ** 2 + (v + 0.05) ** 2 < 0.09
    return (inside * (1 + u)).astype(np.complex64)


def coil_maps(coils: int = COILS, y: int = SIZE, x: int = SIZE) -> Any:
    """(coil, y, x) of smooth sensitivities around the image, root of the sum of squares 1."""
    v, u = np.meshgrid((np.arange(y) - y // 2) / y, (np.arange(x) - x // 2) / x, indexing="ij")
    angles = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    distance = (u - 0.6 * np.cos(angles)) ** 2 + (v - 0.6 * np.sin(angles)) ** 2
    maps = np.exp(-2 * distance + 1j * (angles + u * np.cos(angles) + v * np.sin(angles)))
    return (maps / np.sqrt((np.abs(maps) ** 2).sum(axis=0))).astype(np.complex64)


def kspace(image: Any = None) -> Any:
    """(coil, 1, y, x)."""
    image = disc() if image is None else image
    return fftc(coil_maps(y=image.shape[0], x=image.shape[1]) * image)[:, None]


def header(**options: Any) -> Any:
    return synthetic.header(synthetic.encoding((SIZE, SIZE, 1), mode="embedded", **options))


def frames(slices: int = 1, acceleration: int = 2, calibration: int = 12, **counters: int) -> list[Frame]:
    """Frames of the disc, multiplied by slice + 1."""
    centre = range(SIZE // 2 - calibration // 2, SIZE // 2 + calibration // 2)
    lines = sorted({*range(0, SIZE, acceleration), *centre})
    stream = [synthetic.lines(kspace((n + 1) * disc()), lines, slice=n, **counters) for n in range(slices)]
    return [replace(frame, history=()) for frame in sort(stream, header())]


def volume() -> Frame:
    """3-D: (x = 16, y = 32, z = 32), the disc in (z, y), brighter along x; undersampled along y."""
    x = 16
    profile = 1 + np.arange(x) / x
    images = (coil_maps() * disc())[..., None] * profile
    lines = synthetic.lines(
        synthetic.to_kspace(images.astype(np.complex64)), sorted({*range(0, SIZE, 2), *range(10, 22)})
    )
    made = synthetic.header(synthetic.encoding((x, SIZE, SIZE), mode="embedded"))
    (frame,) = sort([lines], made)
    assert isinstance(frame, Frame)
    return frame
