"""Images that are sent in instead of raw data, as frames for networks on images.

Axes: (echo, z, y, x) for the images of one slice or volume, x being the readout; contrasts take the place of echoes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import ismrmrd
import numpy as np
from ismrmrd import xsd
from ismrmrd.meta import Meta
from numpy.typing import NDArray

from gadgets.frame import Frame
from gadgets.geometry import axes_reversed
from mrnets.contract import Estimate, Raw
from mrnets.contrasts import named
from mrnets.errors import InputError, counted, printable
from mrnets.mrd.encoding import Limit, Space
from mrnets.mrd.lines import ACQUISITION_HEADER, Item
from mrnets.physics.fourier import fftc

__all__ = ["annotated", "contrast_of", "header_for", "with_frames"]

MAX_WAITING = 2 << 30
"""Bytes of images that wait for other contrasts of their slices."""
_TYPES = (0, ismrmrd.IMTYPE_MAGNITUDE, ismrmrd.IMTYPE_COMPLEX)
"""The types of images that show the object; 0 is unset."""
SERIES, NAMED = "image_series_index", -1
"""The number that stands for a series whose images belong to others by their names."""
NAMES_IN_META = ("SeriesDescription", "SequenceDescription", "GADGETRON_SeqDescription", "protocolName")
"""Meta data that may name the contrast of a series, the first of them that does."""
_ALIKE = (SERIES, "average", "repetition", "set", "phase", "slice")
_COUNTERS = ("average", "slice", "contrast", "phase", "repetition", "set")
_SAME = (
    *("measurement_uid", "acquisition_time_stamp", "physiology_time_stamp", "patient_table_position"),
    *("position", "read_dir", "phase_dir", "slice_dir", "user_int", "user_float"),
)


def with_frames(stream: Iterable[Item], contrasts: int, names: Sequence[str] = ()) -> Iterator[Item]:
    """Yield `stream` with frames in place of the images that show the object. Everything else passes.

    contrasts: how many images of a slice make a frame.
    names: of these contrasts, in order (`mrnets.contrasts`). Images of series with such names belong together,
    whatever their series; those of other contrasts pass. Images without a known name are put together by their
    contrast counters within a series, or pass where others have names.
    Raises InputError for images that are not finite or do not fit each other, for slices that lack contrasts, and for
    too many waiting images.
    """
    waiting: dict[tuple[int, ...], list[ismrmrd.Image]] = {}
    held, made = 0, False
    for item in stream:
        name = contrast_of(item) if names and isinstance(item, ismrmrd.Image) else None
        if not (isinstance(item, ismrmrd.Image) and _shows_the_object(item)) or (name and name not in names):
            yield item
            continue
        key = tuple(NAMED if name and n == SERIES else int(getattr(item, n)) for n in _ALIKE)
        waiting.setdefault(key, []).append(item)
        held += item.data.nbytes
        if held > MAX_WAITING:
            raise InputError(f"{held} bytes of images wait for other contrasts; at most {MAX_WAITING} may wait")
        if len(waiting[key]) == contrasts:
            held -= sum(image.data.nbytes for image in waiting[key])
            guess = f"contrasts without known names are taken for {', '.join(names)} by their counters"
            frame = _frame(_ordered(waiting.pop(key), names if name else ()))
            yield replace(frame, notes=(guess,)) if names and not name else frame
            made = made or name is not None
    for images in waiting.values():
        yield from images
    _require_complete([images for key, images in waiting.items() if not made or key[0] == NAMED], contrasts, names)


def _require_complete(waiting: Sequence[Sequence[ismrmrd.Image]], contrasts: int, names: Sequence[str]) -> None:
    """Raise InputError for slices that still wait for contrasts."""
    if not waiting:
        return
    fewest = min(waiting, key=len)
    came = ", ".join(filter(None, (contrast_of(image) for image in fewest))) if names else ""
    wanted = f"{contrasts}: {', '.join(names)}" if names else str(contrasts)
    raise InputError(
        f"{counted(len(waiting), 'slice')} without all contrasts: {len(fewest)} came{f' ({came})' if came else ''}, "
        f"and the network takes {wanted}"
    )


def contrast_of(image: ismrmrd.Image) -> str | None:
    """Return the contrast of an image by the name of its series; None: it has no name that is known."""
    texts = (str(image.meta[key]) for key in NAMES_IN_META if key in image.meta)
    return next((name for name in map(named, texts) if name), None)


def _ordered(images: list[ismrmrd.Image], names: Sequence[str]) -> list[ismrmrd.Image]:
    """Return the images of a slice in the order of the network's contrasts. Raises InputError for one that came twice.

    names: empty for images that are told apart by their counters."""
    kinds = [contrast_of(image) if names else int(image.contrast) for image in images]
    if len(set(kinds)) < len(kinds):
        raise InputError(f"the {len(images)} images of slice {images[0].slice} do not fit each other: {kinds}")
    return sorted(images, key=lambda image: names.index(contrast_of(image) or "") if names else int(image.contrast))


def annotated(image: ismrmrd.Image, notes: Sequence[str]) -> ismrmrd.Image:
    """Return an image with notes behind its comment; without notes the image itself."""
    if not notes:
        return image
    meta = Meta(image.meta)
    before = meta.get("ImageComments", [])
    comments = [*([before] if isinstance(before, str) else before), *map(printable, notes)]
    meta["ImageComments"] = "; ".join(filter(None, comments))
    return ismrmrd.Image(head=image.getHead(), data=image.data, meta=meta)


def header_for(image: ismrmrd.Image, slices: int = 1) -> bytes:
    """Return an ISMRMRD header that says no more than an image does, for clients that send images without one.

    slices: how many there are; 1 where that is not known."""
    x, y, z = image.matrix_size
    fov = xsd.fieldOfViewMm(**dict(zip("xyz", map(float, image.field_of_view), strict=True)))
    space = xsd.encodingSpaceType(matrixSize=xsd.matrixSizeType(x=int(x), y=int(y), z=int(z)), fieldOfView_mm=fov)
    encoding = xsd.encodingType(
        encodedSpace=space,
        reconSpace=space,
        encodingLimits=xsd.encodingLimitsType(
            kspace_encoding_step_1=xsd.limitType(minimum=0, maximum=int(y) - 1, center=int(y) // 2),
            slice=xsd.limitType(minimum=0, maximum=slices - 1, center=slices // 2),
        ),
        trajectory=xsd.trajectoryType.CARTESIAN,
    )
    unknown = xsd.experimentalConditionsType(H1resonanceFrequency_Hz=0)
    return xsd.ToXML(xsd.ismrmrdHeader(experimentalConditions=unknown, encoding=[encoding])).encode()


def _shows_the_object(image: ismrmrd.Image) -> bool:
    role = image.meta.get("GADGETRON_DataRole", "Image")
    return image.image_type in _TYPES and image.channels == 1 and role == "Image"


def _frame(images: list[ismrmrd.Image]) -> Frame:
    if len({image.data.shape for image in images}) > 1 or not all(_lies_as(images[0], image) for image in images):
        raise InputError(f"the {len(images)} images of slice {images[0].slice} do not fit each other")
    pixels = np.stack([np.asarray(image.data[0], np.complex64) for image in images])
    if not np.isfinite(pixels).all():
        raise InputError(f"an image of slice {images[0].slice} has values that are not finite")
    volume = pixels.shape[1] > 1
    stack = np.moveaxis(pixels, -1, 0) if volume else pixels[:, 0][None]
    sizes = pixels.shape[:0:-1]
    grid = Space((sizes[0], sizes[1], sizes[2]), tuple(images[0].field_of_view))
    x, y, z = (Limit(0, n // 2, n - 1) for n in sizes)
    headers = np.stack([_header(image) for image in images])[None]
    return Frame(
        raw=Raw(kspace=fftc(stack)[:, :, None], mask=np.ones((1, 1, 1, *stack.shape[-2:]), bool)),
        headers=headers,
        times=np.repeat(_stamps(headers)[..., None], 2, axis=-1),
        encoding=0,
        volume=volume,
        encoded=grid,
        recon=grid,
        limits=(x, y, z),
        estimate=Estimate(image=stack),
        sent=tuple(images),
    )


def _lies_as(one: ismrmrd.Image, other: ismrmrd.Image) -> bool:
    """Whether the pixels of two images lie at the same places, to 0.05 mm and 0.001 of a direction.

    Pixels that run against their directions lie elsewhere than those that run along the same ones."""

    def alike(names: Sequence[str], tolerance: float) -> bool:
        return all(np.allclose(getattr(one, name), getattr(other, name), rtol=0, atol=tolerance) for name in names)

    directions = alike(("read_dir", "phase_dir", "slice_dir"), 1e-3)
    turned = axes_reversed(one.meta) != axes_reversed(other.meta)
    return alike(("position", "field_of_view"), 0.05) and directions and not turned


def _header(image: ismrmrd.Image) -> NDArray[np.void]:
    """The header of an acquisition with the geometry, the counters and the times of an image."""
    head: NDArray[Any] = np.zeros((), ACQUISITION_HEADER)
    for name in _SAME:
        head[name] = getattr(image, name)
    for name in _COUNTERS:
        head["idx"][name] = getattr(image, name)
    head["version"], head["active_channels"], head["number_of_samples"] = 1, 1, image.data.shape[-1]
    return head


def _stamps(headers: NDArray[np.void]) -> NDArray[np.uint32]:
    return np.concatenate([headers["acquisition_time_stamp"][..., None], headers["physiology_time_stamp"]], axis=-1)
