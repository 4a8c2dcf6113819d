"""Acquisition flags, and the role that they give a line: noise, calibration, image, or none of these."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mrnets.physics.arrays import Array

__all__ = ["COMPRESSED", "DOUBTFUL", "LEFT_OUT", "Flag", "Roles", "bits", "has_flag", "is_doubtful", "roles"]


class Flag(IntEnum):
    """Acquisition flags, numbered as ISMRMRD numbers them; `bits` gives their places in a header."""

    FIRST_IN_ENCODE_STEP1 = 1
    LAST_IN_ENCODE_STEP1 = 2
    FIRST_IN_ENCODE_STEP2 = 3
    LAST_IN_ENCODE_STEP2 = 4
    FIRST_IN_AVERAGE = 5
    LAST_IN_AVERAGE = 6
    FIRST_IN_SLICE = 7
    LAST_IN_SLICE = 8
    FIRST_IN_CONTRAST = 9
    LAST_IN_CONTRAST = 10
    FIRST_IN_PHASE = 11
    LAST_IN_PHASE = 12
    FIRST_IN_REPETITION = 13
    LAST_IN_REPETITION = 14
    FIRST_IN_SET = 15
    LAST_IN_SET = 16
    FIRST_IN_SEGMENT = 17
    LAST_IN_SEGMENT = 18
    IS_NOISE_MEASUREMENT = 19
    IS_PARALLEL_CALIBRATION = 20
    IS_PARALLEL_CALIBRATION_AND_IMAGING = 21
    IS_REVERSE = 22
    IS_NAVIGATION_DATA = 23
    IS_PHASECORR_DATA = 24
    LAST_IN_MEASUREMENT = 25
    IS_HPFEEDBACK_DATA = 26
    IS_DUMMYSCAN_DATA = 27
    IS_RTFEEDBACK_DATA = 28
    IS_SURFACECOILCORRECTIONSCAN_DATA = 29
    IS_PHASE_STABILIZATION_REFERENCE = 30
    IS_PHASE_STABILIZATION = 31


LEFT_OUT = (
    Flag.IS_NAVIGATION_DATA,
    Flag.IS_PHASECORR_DATA,
    Flag.IS_HPFEEDBACK_DATA,
    Flag.IS_DUMMYSCAN_DATA,
    Flag.IS_RTFEEDBACK_DATA,
    Flag.IS_PHASE_STABILIZATION_REFERENCE,
    Flag.IS_PHASE_STABILIZATION,
)
"""Lines with any of these flags are no part of an image's k-space."""

DOUBTFUL = Flag.IS_SURFACECOILCORRECTIONSCAN_DATA
"""Converters write Siemens' "raw data correction" as this flag, on ordinary lines of an image. Real surface coil
correction scans have it, too."""


COMPRESSED = 0xF << 52
"""Flags 53 to 56 in a header's field `flags`: the samples are compressed, and their length is not in the header."""


@lru_cache(maxsize=64)
def bits(*flags: Flag | int) -> int:
    """The bits of `flags` in a header's field `flags`: flag k is bit k - 1. Raises ValueError for an unknown flag."""
    return sum(1 << (Flag(flag) - 1) for flag in set(flags))


def has_flag(headers: Array, *flags: Flag | int) -> Array:
    """Whether each header (n,) has any of the flags: (n,) bool."""
    return (headers["flags"] & np.uint64(bits(*flags))) != 0


def is_doubtful(headers: Array) -> Array:
    """Whether each line (n,) is of the image only if no other line has its place: (n,) bool."""
    calibration = has_flag(headers, Flag.IS_PARALLEL_CALIBRATION, Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING)
    return has_flag(headers, DOUBTFUL) & ~calibration & ~has_flag(headers, Flag.IS_NOISE_MEASUREMENT, *LEFT_OUT)


@dataclass(frozen=True)
class Roles:
    """The purposes of some lines; all fields (line,) bool. A line may be of the image and of the calibration."""

    noise: NDArray[np.bool_]
    """Noise measurements."""
    image: NDArray[np.bool_]
    """Lines of the image's k-space, doubtful ones among them."""
    calibration: NDArray[np.bool_]
    """Lines of a separate calibration. None where calibration lines are lines of the image."""


def roles(headers: Array, *, embedded: bool) -> Roles:
    """The roles of lines with the headers (line,).

    embedded: the header says that calibration lines are lines of the image (`Encoding.embedded`).
    """
    noise = has_flag(headers, Flag.IS_NOISE_MEASUREMENT)
    used = ~noise & ~has_flag(headers, *LEFT_OUT)
    if embedded:
        return Roles(noise, used, np.zeros_like(used))
    only = has_flag(headers, Flag.IS_PARALLEL_CALIBRATION)
    both = has_flag(headers, Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING)
    return Roles(noise, used & (both | ~only), used & (only | both))
