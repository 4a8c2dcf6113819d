"""Images: from estimates to ISMRMRD images on the grid that the header asks for, with geometry, counters and meta data.

Axes: (slice, echo, z, y, x) for pixels, x being the readout and fastest; nothing is flipped or transposed. A volume is
one slice with many z; 2-D slices have one. Triples are in the order x, y, z, as in ISMRMRD headers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import ismrmrd
import numpy as np
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

from gadgets.frame import Frame
from gadgets.gadget import gadget
from gadgets.greys import Greys, Scaling
from gadgets.meta import meta_of
from gadgets.numbers import Numbers
from gadgets.received import annotated
from mrnets.classes import BACKGROUND, decided
from mrnets.errors import InputError
from mrnets.mrd.encoding import Space
from mrnets.mrd.lines import Item
from mrnets.physics.arrays import Array, to_numpy
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.interpolation import nearest

__all__ = ["images"]

Output = Literal["magnitude", "phase", "real", "imaginary", "complex"]
Pixels = NDArray[Any]

MAX_SERIES = 65535
"""ISMRMRD stores the index of a series in 16 bits."""
_PARTS: dict[Output, tuple[Callable[[Pixels], Pixels], int]] = {
    "magnitude": (np.abs, ismrmrd.IMTYPE_MAGNITUDE),
    "phase": (np.angle, ismrmrd.IMTYPE_PHASE),
    "real": (np.real, ismrmrd.IMTYPE_REAL),
    "imaginary": (np.imag, ismrmrd.IMTYPE_IMAG),
    "complex": (np.asarray, ismrmrd.IMTYPE_COMPLEX),
}


@gadget(takes=("estimates",), gives="images")
def images(
    stream: Iterable[Item],
    header: ismrmrdHeader,
    *,
    output: Output = "magnitude",
    format: Literal["float", "short"] = "float",
    scaling: Scaling = "series",
    scale: float | None = None,
    series: int = 1,
) -> Iterator[Item]:
    """Make an ismrmrd.Image of each slice (or volume) and echo of a frame. Everything else passes.

    `output`: the part of the complex image that leaves, or all of it.
    The image is one series. Each map, and the segmentation, is another. `series` is the index of the first. Phase is in
    rad. In 16 bits it is the pixel minus GADGETRON_ScaleOffset, over GADGETRON_ScaleRatio. Maps are in SI units, and 0
    where there is no signal. Labels are 16-bit numbers from 0. Classes that overlap have a segmentation each.
    `format` "short": unsigned 16-bit pixels of the image (maps stay floats). The whole series has one scale, so that
    slices can be compared. See `gadgets.greys` for `scaling` and `scale`.
    Raises InputError for a frame without estimate, for 16-bit pixels of an output that has a sign, and for a scale of 0
    or less. Raises it also for a series that is no 16-bit number, that of maps and labels included.
    """
    if not 0 <= series <= MAX_SERIES:
        raise InputError(f"series must be from 0 to {MAX_SERIES}, got {series}")
    if scale is not None and not scale > 0:
        raise InputError(f"scale must be positive, got {scale}")
    if format == "short" and output not in ("magnitude", "phase"):
        raise InputError(f"format short is for magnitude and phase; output {output} needs format float")
    greys = Greys.of(output, scaling, scale) if format == "short" else None
    numbers: defaultdict[int, Numbers] = defaultdict(Numbers)
    for item in stream:
        if not isinstance(item, Frame):
            yield item
            continue
        yield from (annotated(image, item.notes) for image in item.sent)
        first = max([series, *(int(image.image_series_index) for image in item.sent)])
        for picture in _pictures(item, output):
            number = first + picture.series
            if number > MAX_SERIES:
                raise InputError(f"{picture.role} would be series {number}; series must be from 0 to {MAX_SERIES}")
            for image in _images(item, picture, header, number, numbers[number]):
                if greys is not None and picture.series == 0:
                    yield from greys.take(image)
                else:
                    yield image
    if greys is not None:
        yield from greys.rest()


@dataclass(frozen=True)
class _Picture:
    """One field of an estimate, on the grid of the images."""

    pixels: Pixels
    """(slice, echo, z, y, x); maps and labels have one echo."""
    image_type: int
    series: int
    """0 for the image, then maps, then labels."""
    role: str
    """Image, the name of a map, or Segmentation."""
    labels: tuple[str, ...] = ()
    """The meanings of the numbers of a segmentation, from 0."""


def _pictures(frame: Frame, output: Output) -> Iterator[_Picture]:
    estimate = frame.estimate
    if estimate is None:
        raise InputError("a frame came without an estimate; the chain needs a network gadget before this one")
    if estimate.image is not None and not frame.sent:
        part, image_type = _PARTS[output]
        pixels = _interpolated(_stacked(estimate.image, frame), frame)
        yield _Picture(part(pixels), image_type, 0, "Image")
    for n, (name, values) in enumerate(sorted(estimate.maps.items())):
        pixels = _nearest(_stacked(values[:, None], frame), frame).astype(np.float32)
        yield _Picture(pixels, ismrmrd.IMTYPE_REAL if (pixels < 0).any() else ismrmrd.IMTYPE_MAGNITUDE, n + 1, name)
    if estimate.logits is not None:
        for n, (pixels, labels) in enumerate(_segmentations(to_numpy(estimate.logits), frame)):
            stacked = pixels[:, None] if pixels.ndim == 4 else _stacked(pixels[:, None], frame)
            series = len(estimate.maps) + 1 + n
            yield _Picture(_nearest(stacked, frame), ismrmrd.IMTYPE_MAGNITUDE, series, "Segmentation", labels)


def _segmentations(logits: Pixels, frame: Frame) -> Iterator[tuple[Pixels, tuple[str, ...]]]:
    """Yield logits (batch, class, [z,] y, x) as labels, uint16 (batch, [z,] y, x), and what the numbers mean.

    Classes that exclude each other make one picture, with the number of the likeliest class. Classes that overlap, and
    a single class, make a picture each, which is 1 where the class is likelier than not. There are no labels where the
    image is exactly 0 in all contrasts, as around a stripped head."""
    classes = logits.shape[1]
    masks = decided(logits, frame.classes)
    image = None if frame.estimate is None else frame.estimate.image
    if image is not None and masks.ndim == 4:
        masks = masks & (to_numpy(image) != 0).any(axis=1)[:, None]
    if classes > 1 and frame.classes == "exclusive":
        yield masks.argmax(axis=1).astype(np.uint16), frame.labels
        return
    names = frame.labels if len(frame.labels) == classes else tuple(f"class {n + 1}" for n in range(classes))
    for n, name in enumerate(names):
        yield masks[:, n].astype(np.uint16), (BACKGROUND, name)


def _stacked(values: Array, frame: Frame) -> Pixels:
    """Return values (batch, echo, y, x), on the grid of a frame's raw data, as (slice, echo, z, y, x)."""
    pixels = to_numpy(values)
    if frame.volume:  # (readout, echo, encode step 2, encode step 1)
        return np.moveaxis(pixels, 0, -1)[None]
    return pixels[:, :, None]


def _axes(frame: Frame) -> Iterator[tuple[int, int, int, int]]:
    """Yield (axis, size, whole, wanted) of each axis of pixels that is encoded.

    size: of k-space. whole: pixels of the image over the whole encoded field of view. wanted: pixels of the image."""
    for axis, n in ((-1, 0), (-2, 1), (-3, 2)):
        if n == 2 and not frame.volume:
            continue
        wanted = frame.recon.matrix[n]
        fov, recon_fov = frame.encoded.fov[n], frame.recon.fov[n]
        whole = max(round(wanted * fov / recon_fov), 1) if fov and recon_fov else wanted
        yield axis, frame.encoded.matrix[n], whole, wanted


def _interpolated(pixels: Pixels, frame: Frame) -> Pixels:
    """Return complex pixels on the grid of the images. Intensities are kept.

    K-space is zero-filled or cropped to the pixel size. Then the image is cropped to the field of view."""
    for axis, size, whole, wanted in _axes(frame):
        if whole != size:
            kspace = resize(fftc(pixels, axes=(axis,)), (whole,), axes=(axis,))
            pixels = ifftc(kspace, axes=(axis,)) * np.float32(math.sqrt(whole / size))
        pixels = resize(pixels, (wanted,), axes=(axis,))
    return np.ascontiguousarray(pixels)


def _nearest(pixels: Pixels, frame: Frame) -> Pixels:
    """Return labels or maps on the grid of the images, each pixel the nearest one. No new values are made."""
    for axis, _, whole, wanted in _axes(frame):
        pixels = resize(nearest(pixels, whole, axis), (wanted,), axes=(axis,))
    return np.ascontiguousarray(pixels)


def _images(
    frame: Frame, picture: _Picture, header: ismrmrdHeader, series: int, numbers: Numbers
) -> Iterator[ismrmrd.Image]:
    slices, echoes = picture.pixels.shape[:2]
    times = None if frame.raw.echo_times is None else to_numpy(frame.raw.echo_times)
    for n in range(slices):
        for echo in range(echoes):
            of = n, min(echo, frame.headers.shape[1] - 1)
            acquisition = ismrmrd.AcquisitionHeader.from_buffer_copy(frame.headers[of].tobytes())
            head = ismrmrd.ImageHeader.from_acquisition(acquisition)
            head.version = 1
            head.image_type = picture.image_type
            head.image_series_index = series
            head.image_index = numbers.of(head, header, frame.encoding, frame.encoded.matrix[2] if frame.volume else 1)
            head.field_of_view = _field_of_view(frame.recon, frame.encoded)
            time = float(times[echo]) if times is not None and echoes == len(times) and not picture.series else None
            meta = meta_of(frame, acquisition, frame.times[of], header, picture.role, time, picture.labels)
            meta["GADGETRON_ImageNumber"] = str(head.image_index)
            if picture.image_type == ismrmrd.IMTYPE_PHASE:
                meta["Unit"] = "rad"
            yield ismrmrd.Image(head=head, data=picture.pixels[n, echo][None], meta=meta)


def _field_of_view(recon: Space, encoded: Space) -> tuple[float, float, float]:
    x, y, z = (wanted or fov for wanted, fov in zip(recon.fov, encoded.fov, strict=True))
    return x, y, z
