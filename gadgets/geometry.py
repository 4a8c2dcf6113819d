"""Images with other pixels: geometry and history change with them. For gadgets that take and give images.

Axes: pixels (channel, z, y, x); x lies along `read_dir`, y along `phase_dir`, z along `slice_dir`. The pixel n // 2 of
each axis is at `position`. Every pixel keeps its place in the patient, whatever the order in which pixels are stored.

Images of Siemens' raw data run the other way along x and y, and volumes along z, too. The directions in such data are
those of images by a forward Fourier transform. Here, as in Gadgetron, the inverse one is taken. The header of an image
has the directions as they came, which clients and scanners expect. `AXES_REVERSED` in its meta data says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import ismrmrd
import numpy as np
from ismrmrd.meta import Meta
from numpy.typing import NDArray

__all__ = ["AXES_REVERSED", "axes_reversed", "changed", "flipped", "swapped"]

Axis = Literal["x", "y", "z"]

AXES_REVERSED = "AxesReversed"
"""Meta data, "true": pixels run against the directions in the image's header; "false": along them."""
_DIRECTIONS: dict[Axis, str] = {"x": "read_dir", "y": "phase_dir", "z": "slice_dir"}
_SIZES = ("encoding_FOV", "recon_FOV", "encoded_matrix", "recon_matrix")
_LIMITS: dict[Axis, str] = {"x": "sampling_limits_RO", "y": "sampling_limits_E1", "z": "sampling_limits_E2"}
_HISTORY = "GADGETRON_ImageProcessingHistory"


def changed(image: ismrmrd.Image, pixels: NDArray[Any], did: str) -> ismrmrd.Image:
    """Return `image` with other `pixels` at the same places; `did` joins the history: "sharpened".

    Raises ValueError for pixels of another shape: those need `flipped` or `swapped`.
    """
    if pixels.shape != image.data.shape:
        raise ValueError(f"pixels of shape {pixels.shape} are not at the places of {image.data.shape}")
    return _made(image.getHead(), pixels, dict(image.meta), did)


def axes_reversed(meta: Mapping[str, Any]) -> bool:
    """Return whether the meta data of an image say that its pixels run against the directions in its header."""
    value = meta.get(AXES_REVERSED, "")
    return (value if isinstance(value, str) else next(iter(value), "")) == "true"


def flipped(image: ismrmrd.Image, axis: Axis) -> ismrmrd.Image:
    """Return `image` with its pixels in reverse order along `axis`, and the direction and position that go with it."""
    number = "xyz".index(axis)
    head, n = image.getHead(), image.data.shape[3 - number]
    direction = np.array(getattr(head, _DIRECTIONS[axis]))
    along = -direction if axes_reversed(image.meta) else direction
    # The pixel n // 2 of the reversed order was the pixel n - 1 - n // 2: of an even size, the one before.
    step = (n - 1 - 2 * (n // 2)) * head.field_of_view[number] / n
    head.position = tuple(np.array(head.position) + step * along)
    setattr(head, _DIRECTIONS[axis], tuple(0.0 - direction))
    return _made(head, np.flip(image.data, 3 - number), dict(image.meta), f"flipped along {axis}")


def swapped(image: ismrmrd.Image) -> ismrmrd.Image:
    """Return `image` with x and y exchanged, and the directions, sizes and limits that go with them."""
    head, meta = image.getHead(), dict(image.meta)
    x, y, z = head.field_of_view
    head.field_of_view = (y, x, z)
    head.read_dir, head.phase_dir = tuple(head.phase_dir), tuple(head.read_dir)
    for key in _SIZES:
        if isinstance(size := meta.get(key), list) and len(size) == 3:
            meta[key] = [size[1], size[0], size[2]]
    if _LIMITS["x"] in meta and _LIMITS["y"] in meta:
        meta[_LIMITS["x"]], meta[_LIMITS["y"]] = meta[_LIMITS["y"]], meta[_LIMITS["x"]]
    return _made(head, np.swapaxes(image.data, -1, -2), meta, "x and y exchanged")


def _made(head: ismrmrd.ImageHeader, pixels: NDArray[Any], meta: dict[str, Any], did: str) -> ismrmrd.Image:
    """Return an image of `head`, `pixels` and `meta`, whose geometry is made that of `head`."""
    for key, field in {**dict.fromkeys(_DIRECTIONS.values()), "PatientPosition": "position"}.items():
        if key in meta:
            meta[key] = [format(value, ".9g") for value in getattr(head, field or key)]
    before = meta.get(_HISTORY, [])
    meta[_HISTORY] = [*([before] if isinstance(before, str) else before), did]
    return ismrmrd.Image(head=head, data=np.ascontiguousarray(pixels), meta=Meta(meta))
