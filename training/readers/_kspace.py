"""Lines of ISMRMRD files, read in blocks and put on their grid as the gadgets' sort puts them.

Axes: z = encode step 2, y = encode step 1, x = readout, as in `mrnets.mrd.kspace`.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError, naming
from mrnets.mrd.calibration import nearest
from mrnets.mrd.centre import centre_doubts
from mrnets.mrd.direction import directed
from mrnets.mrd.encoding import Encoding
from mrnets.mrd.epi import PhaseDifference, phase_difference, require_even, united
from mrnets.mrd.files import open_source
from mrnets.mrd.flags import Flag, has_flag
from mrnets.mrd.images import Key
from mrnets.mrd.kspace import Echo, add_lines, kspace_and_mask
from mrnets.mrd.noise import Noise, NoiseScan, bandwidth
from mrnets.mrd.plausible import nonzero
from training.readers._scan import Image, Origin, Rows, Scan, scan_of

__all__ = ["doubt", "gridded", "noise"]

_logger = logging.getLogger(__name__)

Complex = NDArray[np.complex64]


@np.errstate(invalid="ignore", over="ignore")  # values that are not finite are found by whoever takes the slice
def gridded(
    scan: Scan, rows: Rows, encoding: Encoding, key: Key, window: slice = slice(None)
) -> tuple[Complex, NDArray[np.bool_]]:
    """k-space (batch, 1, coil, y, x) and mask (y, x) of the lines `rows` of image `key`, as in `Raw`.

    window: the readout positions of a volume that are wanted. Memory: those, and a block of lines. Raises InputError.
    """
    backwards = has_flag(scan.heads[rows], Flag.IS_REVERSE)
    directions = (_echo(scan, some, encoding, window) for some in (rows[~backwards], rows[backwards]))
    echoes = [echo for echo in directions if echo is not None]
    if not echoes:
        raise InputError(f"{scan.path}: all lines of {key} are zero")
    with naming(scan.path):
        echo = united(echoes, _difference(scan, key) if len(echoes) > 1 else None, encoding)
    for note in echo.notes:
        _warn(scan.path, note)
    return kspace_and_mask(echo, encoding)


def _echo(scan: Scan, rows: Rows, encoding: Encoding, window: slice) -> Echo | None:
    """Lines of one direction; None without lines that are not zero."""
    echo = None
    with open_source(scan.path) as opened, naming(scan.path):
        for lines in opened.lines(rows):
            lines = directed(nonzero(lines), scan.origin.by_hand)
            if not len(lines):
                continue
            if encoding.epi:
                require_even(lines)
            echo = echo or replace(Echo.empty(encoding, lines, window), strength=None)  # nobody asks for it here
            add_lines(echo, lines, encoding)
            if echo.refused.count:  # a target of training lacks no line
                raise InputError(echo.refused.reason)
    return echo


def _difference(scan: Scan, key: Key) -> PhaseDifference | None:
    """The difference between lines of the two directions, from the phase-correction lines of image `key`, or of the
    nearest with such lines of both directions."""
    known = dict(scan.navigators)
    while known:
        found = nearest(known, key)
        if found is None:
            return None
        difference = _of_navigators(scan.origin, found)
        if difference is not None:
            return difference
        del known[found]
    return None


@functools.lru_cache(maxsize=4096)
def _of_navigators(origin: Origin, key: Key) -> PhaseDifference | None:
    found = scan_of(origin)
    with open_source(origin.path) as opened, naming(origin.path):
        lines = (directed(some, origin.by_hand) for some in opened.lines(found.navigators[key]))
        return phase_difference(list(lines), found.encoding)


def doubt(scan: Scan, kspace: Complex, mask: NDArray[np.bool_]) -> None:
    """Warn where k-space (batch, echo, coil, y, x) with mask (y, x) seems to have its centre elsewhere."""
    for note in centre_doubts(kspace, mask, volume=scan.encoding.volume):
        _warn(scan.path, note)


@functools.lru_cache(maxsize=512)
def _warn(path: str, note: str) -> None:
    """Once for each file and process."""
    _logger.warning("%s: %s", path, note)


def noise(scan: Scan, image: Image) -> Complex | None:
    """Covariance (coil, coil) at the dwell time of `image`; None where no noise was measured. Raises InputError."""
    if not len(scan.noise):
        return np.diag(np.square(scan.deviations)).astype(np.complex64) if scan.deviations else None
    measured = _measured(scan.origin)
    if len(measured.covariance) != scan.coils:
        raise InputError(f"{scan.path}: {scan.coils} coils, but {len(measured.covariance)} in the noise measurement")
    return np.asarray(measured.at(float(scan.heads["sample_time_us"][image.echoes[0][0]]), bandwidth(scan.header)))


@functools.lru_cache(maxsize=64)
def _measured(origin: Origin) -> Noise:
    collected = NoiseScan()
    with open_source(origin.path) as opened, naming(origin.path):
        for lines in opened.lines(scan_of(origin).noise):
            collected.add(lines)
        return collected.measured()
