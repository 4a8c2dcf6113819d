"""The calibration block of an image of an ISMRMRD file, as the gadgets' sort finds it.

These blocks come from separate lines, from an earlier image of the slice, or from the mean over repetitions or phases.
The undersampling (`training.undersample`) takes the centre of the image's own lines.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import naming
from mrnets.mrd.calibration import (
    Mean,
    Middle,
    centre_block,
    for_later,
    has_centre_block,
    middle_of,
    on_spacing_of,
    window_mean,
)
from mrnets.mrd.encoding import Encoding
from mrnets.mrd.images import Key
from mrnets.mrd.kspace import line_counts
from training.readers._kspace import gridded
from training.readers._scan import Calibration, Origin, Rows, Scan, scan_of

__all__ = ["calibration", "windows"]

Complex = NDArray[np.complex64]

MAX_BYTES = 512 << 20
"""Most bytes of a volume's k-space in memory. A larger volume is read from the file in several passes."""


def calibration(scan: Scan, number: int, mask: NDArray[np.bool_]) -> Mean:
    """Return the calibration block of image `number` with this mask (y, x).

    It is (1, 1, coil, y', x) of a slice, (x, 1, coil, z', y') of a volume. No block: the image's own centre is to be
    used, or there are no calibration lines. Raises InputError.
    """
    image = scan.images[number]
    if image.calibration is not None:
        return Mean(_separate(scan, image.calibration, image.key))
    if has_centre_block(mask):
        return Mean(None)
    if scan.encoding.calibration == "interleaved":
        return _mean(scan, number)
    earlier = _earlier(scan, number)
    return _mean(scan, number) if earlier is None and scan.encoding.series else Mean(earlier)


def windows(scan: Scan, encoding: Encoding) -> list[slice]:
    """Parts of the readout of a volume that fit the memory; slices are not divided."""
    x, y, z = encoding.reduced.matrix
    step = max(1, min(x, MAX_BYTES // (scan.coils * z * y * 8))) if encoding.volume else x
    return [slice(start, start + step) for start in range(0, x, step)]


def _separate(scan: Scan, lines: Calibration, key: Key) -> Complex | None:
    """The fully sampled centre of separate lines, on the spacing of the scan's k-space."""
    found = _centre(scan, lines.rows, lines.encoding, key)
    if found is None:
        return None
    with naming(scan.path):
        return np.asarray(on_spacing_of(found, lines.encoding, scan.encoding))


def _centre(scan: Scan, rows: Rows, encoding: Encoding, key: Key) -> Complex | None:
    parts = (centre_block(*gridded(scan, rows, encoding, key, window)) for window in windows(scan, encoding))
    blocks = [block for block in parts if block is not None]
    return np.concatenate(blocks) if blocks else None


def _mean(scan: Scan, number: int) -> Mean:
    counter = {scan.encoding.series or "repetition": 0}
    key = scan.images[number].key._replace(**counter)
    series = [n for n, image in enumerate(scan.images) if image.key._replace(**counter) == key]

    def middle(n: int) -> Middle | None:
        return _middle(scan.origin, series[n]) if n < len(series) else None

    mean = window_mean(middle, series.index(number), ended=True)
    return Mean(None) if mean is None else mean


def _earlier(scan: Scan, number: int) -> Complex | None:
    """The newest block of an earlier image of the slice."""
    for n in range(number - 1, -1, -1):
        if scan.images[n].key.slice == scan.images[number].key.slice and _may_have_centre(scan, n):
            found = _kept(scan.origin, n)
            if found is not None:
                return found
    return None


def _may_have_centre(scan: Scan, number: int) -> bool:
    """Whether the lines can contain a calibration block, as far as their headers show."""
    sampled = line_counts(scan.heads[scan.images[number].echoes[0]], scan.encoding) > 0
    return has_centre_block(sampled if scan.encoding.volume else np.repeat(sampled[0][:, None], scan.width, axis=1))


@functools.lru_cache(maxsize=32)
def _middle(origin: Origin, number: int) -> Middle:
    found = scan_of(origin)
    image, volume = found.images[number], found.encoding.volume
    parts = [
        middle_of(*gridded(found, image.echoes[0], found.encoding, image.key, window), volume=volume)
        for window in windows(found, found.encoding)
    ]
    return Middle(np.concatenate([part.kspace for part in parts]), parts[0].mask)


@functools.lru_cache(maxsize=32)
def _kept(origin: Origin, number: int) -> Complex | None:
    found = scan_of(origin)
    image = found.images[number]
    block = _centre(found, image.echoes[0], found.encoding, image.key)
    return None if block is None else np.asarray(for_later(block, volume=found.encoding.volume))
