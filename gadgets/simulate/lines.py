"""Acquisitions: k-space cut into lines, with the counters, flags, times and places that a scanner gives them.

Axes:

- k-space (echo, coil, y, x) of a slice or partition;
- masks (z, y) of a 3-D scan, (1, y) of slices;
- lines (line, coil, sample).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gadgets.simulate.sampling import left_out
from gadgets.simulate.settings import ORIENTATIONS, Settings, heights, position
from mrnets.mrd.flags import Flag, bits
from mrnets.mrd.lines import ACQUISITION_HEADER, Lines

__all__ = ["DWELL_US", "Part", "encoded", "noise_lines", "numbered"]

Complex = NDArray[np.complex64]

DWELL_US = 5.0
"""µs, of a sample without oversampling. A sample of the noise measurement takes twice that."""


@dataclass(frozen=True)
class Part:
    """Lines of one kind: those of the image, or those of a separate calibration."""

    mask: NDArray[np.bool_]
    """The phase encodings that are measured."""
    flag: Flag
    flagged: NDArray[np.bool_]
    """The phase encodings whose lines get the flag."""


def encoded(settings: Settings, kspace: Complex, n: int, part: Part) -> Iterator[Lines]:
    """The lines of slice or partition `n`, echoes in turn; none where the mask has none."""
    row = n if settings.three_d else 0
    where = np.flatnonzero(part.mask[row])
    if not where.size:
        return
    echo, coils, _, samples = kspace.shape
    lines = _lines(settings, kspace[:, :, where].transpose(2, 0, 1, 3).reshape(-1, coils, samples))
    headers = lines.headers
    headers["idx"]["kspace_encode_step_1"] = np.repeat(where - left_out(settings), echo)
    headers["idx"]["contrast"] = np.tile(np.arange(echo), where.size)
    headers["idx"]["kspace_encode_step_2" if settings.three_d else "slice"] = n
    headers["position"] = position(settings, settings.offset if settings.three_d else float(heights(settings)[n]))
    headers["flags"][np.repeat(part.flagged[row, where], echo)] |= np.uint64(bits(part.flag))
    if part.flag != Flag.IS_PARALLEL_CALIBRATION:
        _set_ends(settings, headers, n, part.mask)
    yield lines


def _set_ends(settings: Settings, headers: NDArray[np.void], n: int, mask: NDArray[np.bool_]) -> None:
    """Flags of the first and last lines of an image, in each echo, and of the scan's last line."""
    sampled = np.flatnonzero(mask.any(axis=1)) if settings.three_d else np.array([n])
    if n == sampled[0]:
        headers["flags"][: settings.echoes] |= np.uint64(bits(Flag.FIRST_IN_SLICE))
    if n == sampled[-1]:
        headers["flags"][-settings.echoes :] |= np.uint64(bits(Flag.LAST_IN_SLICE))
    if n == (sampled[-1] if settings.three_d else settings.slices - 1):
        headers["flags"][-1] |= np.uint64(bits(Flag.LAST_IN_MEASUREMENT))


def noise_lines(settings: Settings, noise: Complex) -> Lines:
    """A noise measurement of samples (line, coil, sample), at twice the dwell time."""
    lines = _lines(settings, noise)
    lines.headers["flags"] = bits(Flag.IS_NOISE_MEASUREMENT)
    lines.headers["sample_time_us"] *= 2
    return lines


def numbered(lines: Lines, before: int, measurement: int) -> Lines:
    """`lines` with the scan counters, times and number of the measurement; `before` lines came before them."""
    headers = lines.headers.copy()
    headers["measurement_uid"] = measurement
    headers["scan_counter"] = before + np.arange(len(lines))
    headers["acquisition_time_stamp"] = 2 * headers["scan_counter"]  # of 2.5 ms: TR is 5 ms
    return Lines(headers, lines.data)


def _lines(settings: Settings, data: Complex) -> Lines:
    """Lines of data (line, coil, sample) with the fields that all acquisitions share."""
    n, coils, samples = data.shape
    headers = np.zeros(n, ACQUISITION_HEADER)
    headers["version"] = 1
    headers["number_of_samples"], headers["center_sample"] = samples, samples // 2
    headers["available_channels"] = headers["active_channels"] = coils
    headers["channel_mask"] = [(1 << min(max(coils - 64 * word, 0), 64)) - 1 for word in range(16)]
    headers["sample_time_us"] = DWELL_US / settings.oversampling
    read, phase, normal = ORIENTATIONS[settings.orientation]
    headers["read_dir"], headers["phase_dir"], headers["slice_dir"] = read, phase, normal
    return Lines(headers, np.ascontiguousarray(data))
