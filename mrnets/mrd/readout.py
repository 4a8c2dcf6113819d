"""Readouts: lines turned round, brought to the grid along x, and freed of oversampling.

Axes: line, coil, x. The k-space centre of the grid is at n // 2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.mrd import ramps
from mrnets.mrd.encoding import Encoding
from mrnets.mrd.flags import Flag, has_flag
from mrnets.mrd.lines import Lines
from mrnets.mrd.ramps import Ramps
from mrnets.mrd.strength import in_parts
from mrnets.physics.arrays import Array, array_namespace, asarray_like, is_numpy_array
from mrnets.physics.fourier import fftc, ifftc, resize

__all__ = ["centre_of", "noise_gain", "on_readout"]


def on_readout(lines: Lines, encoding: Encoding) -> tuple[Array, int, int, str]:
    """Lines (line, coil, x), alike in layout, on the readout grid without oversampling, in image space for volumes.

    With them the first sample along x, one past the last, and a sentence if the centre was guessed. Raises InputError
    if they miss the centre. Lines with samples on ramps are regridded."""
    header, data = lines.headers[0], lines.data
    if encoding.ramps is not None:
        return _regridded(lines, encoding, encoding.ramps)
    n, size, reduced = data.shape[-1], encoding.encoded.matrix[0], encoding.reduced.matrix[0]
    centre, pre, post, note = _centre(header, encoding)
    if has_flag(lines.headers, Flag.IS_REVERSE)[0]:
        data = array_namespace(data).flip(data, axis=-1)
    if centre <= reduced // 2 and n - centre <= reduced - reduced // 2:
        size = reduced  # an earlier gadget has removed the oversampling
    shift = size // 2 - centre
    start, stop = max(shift + pre, 0), min(shift + n - post, size)
    if n - pre - post - (stop - start) > size // 16 + 1:
        raise InputError(
            f"acquisition {int(header['scan_counter'])} has {n} samples with centre {centre}, which reach beyond "
            f"the readout of {size} that the header announces"
        )
    if not start <= size // 2 < stop:
        raise InputError(
            f"acquisition {int(header['scan_counter'])} has {n} samples with centre {centre} and {pre} + {post} "
            f"discarded, which misses the k-space centre of a readout of {size}"
        )
    if (n, start, stop) != (size, 0, size):
        filled = array_namespace(data).zeros((*data.shape[:2], size), dtype=data.dtype, device=device(data))
        filled[..., start:stop] = data[..., start - shift : stop - shift]
        data = filled
    if size == reduced and not encoding.volume:
        return data, start, stop, note
    if encoding.volume:
        return _in_parts(_image_along_x, data, reduced), 0, reduced, note
    step = size / reduced
    first = int(np.ceil((start - size // 2) / step)) + reduced // 2
    last = int(np.floor((stop - 1 - size // 2) / step)) + reduced // 2
    return _in_parts(_without_oversampling, data, reduced), max(first, 0), min(last + 1, reduced), note


def noise_gain(encoding: Encoding) -> float:
    """The variance of noise in a sample on the grid, relative to that of a sample as it was measured."""
    if encoding.ramps is None:
        return 1.0
    sizes, samples = (encoding.encoded.matrix[0], encoding.reduced.matrix[0]), encoding.ramps.samples
    return ramps.noise_gain(
        ramps.operator(encoding.ramps, sizes, ramps.Line(samples // 2, (0, samples), backwards=False))
    )


def centre_of(header: NDArray[np.void], encoding: Encoding) -> int:
    """Return the sample at the k-space centre of a line with this header (), after it was turned round if reversed."""
    return _centre(header, encoding)[0]


def _regridded(lines: Lines, encoding: Encoding, times: Ramps) -> tuple[Array, int, int, str]:
    """As `on_readout`, for lines with samples on ramps."""
    header, n = lines.headers[0], lines.data.shape[-1]
    if n != times.samples:
        raise InputError(
            f"acquisition {int(header['scan_counter'])} has {n} samples, and the header's trajectory description says "
            f"that {times.samples} were taken on the gradient's ramps and between; they cannot be regridded"
        )
    centre, pre, post, note = _centre(header, encoding)
    backwards = bool(has_flag(lines.headers, Flag.IS_REVERSE)[0])
    data = array_namespace(lines.data).flip(lines.data, axis=-1) if backwards else lines.data
    size, pixels = encoding.encoded.matrix[0], encoding.reduced.matrix[0]
    if not pre <= centre < n - post:
        raise InputError(
            f"acquisition {int(header['scan_counter'])} has {n} samples with centre {centre} and {pre} + {post} "
            f"discarded, which misses the k-space centre"
        )
    fov = encoding.encoded.fov[0]
    shift = float(header["position"] @ header["read_dir"]) / fov if encoding.siemens and fov else 0.0
    line = ramps.Line(centre, (pre, n - post), backwards, round(shift, 6) if np.isfinite(shift) else 0.0)
    operator = ramps.operator(times, (size, pixels), line)
    image = data[..., pre : n - post] @ asarray_like(operator.T, data)
    if encoding.volume:
        return image, 0, pixels, note
    ends = times.positions(size, centre, backwards=backwards)[[pre, n - post - 1]] * pixels / size
    first, last = (round(float(end)) + pixels // 2 for end in ends)
    return fftc(image, axes=(-1,)), max(first, 0), min(last + 1, pixels), note


def _centre(header: NDArray[np.void], encoding: Encoding) -> tuple[int, int, int, str]:
    """The sample at the k-space centre of a line, its discarded samples before and after, and a sentence on a guess.

    They count after a reversed line was turned round."""
    fields = ("number_of_samples", "center_sample", "discard_pre", "discard_post")
    n, told, pre, post = (int(header[name]) for name in fields)
    whole = encoding.ramps is not None or n in (encoding.encoded.matrix[0], encoding.reduced.matrix[0])
    backwards = bool(has_flag(header, Flag.IS_REVERSE))
    if encoding.sample is not None:
        centre = encoding.sample
    elif (told == 0 or told >= n) and whole:
        centre = n // 2  # not set
    else:
        centre = _centre_of_reversed(told, n, whole, encoding) if backwards else told
    guessed = backwards and encoding.sample is None and encoding.reversed_centre == "auto" and centre != n - 1 - told
    note = "center_sample of reversed lines was taken as counted from the start of k-space" if guessed else ""
    return (centre, post, pre, note) if backwards else (centre, pre, post, note)


def _centre_of_reversed(centre: int, n: int, whole: bool, encoding: Encoding) -> int:
    """The centre of a reversed line of n samples after it is turned round. By the standard it is mirrored then.
    Siemens' centre is not, and that of a whole line is in the middle."""
    mirrored = n - 1 - centre
    if encoding.reversed_centre != "auto":
        return centre if encoding.reversed_centre == "kept" else mirrored
    if whole and n // 2 in (centre, mirrored):
        return n // 2
    return centre if encoding.siemens else mirrored


def _in_parts(transform: Callable[[Array, int], Array], data: Array, size: int) -> Array:
    """Return `transform` of lines, of `size` samples each. On the host, parts that fit the cache take a fifth less."""
    if not is_numpy_array(data):
        return transform(data, size)
    found = np.empty((*data.shape[:-1], size), data.dtype)
    for part in in_parts(data):
        found[part] = transform(data[part], size)
    return found


def _without_oversampling(data: Array, size: int) -> Array:
    """Lines (line, coil, x) with the middle `size` pixels of their field of view."""
    n = data.shape[-1]
    if n % 2 or size % 2:
        return fftc(resize(ifftc(data, axes=(-1,)), (size,), axes=(-1,)), axes=(-1,))
    # For even sizes centring is a factor (-1)^x before and after, which cancels: without it there is half the work.
    xp = array_namespace(data)
    image = xp.fft.ifft(data, norm="ortho")
    return xp.fft.fft(xp.concat([image[..., : size // 2], image[..., n - size // 2 :]], axis=-1), norm="ortho")


def _image_along_x(data: Array, size: int) -> Array:
    """Lines (line, coil, x), inverse-transformed along x; the middle `size` pixels."""
    n = data.shape[-1]
    if n % 2 or size % 2:
        return resize(ifftc(data, axes=(-1,)), (size,), axes=(-1,))
    xp = array_namespace(data)
    image = xp.fft.ifft(data, norm="ortho")
    image = xp.concat([image[..., n - size // 2 :], image[..., : size // 2]], axis=-1)
    image *= asarray_like((-1.0) ** (np.arange(size) - size // 2), data, dtype=xp.float32)
    return image
