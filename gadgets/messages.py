"""The messages of Gadgetron's wire protocol as plain data. Acquisitions, images and waveforms are ismrmrd's."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, TypeAlias

import ismrmrd
import numpy as np

from mrnets.mrd.lines import Line
from mrnets.mrd.streams import CONFIG_FILE_BYTES, Id
from mrnets.physics.arrays import Array

__all__ = [
    "CONFIG_FILE_BYTES",
    "IMAGE_TYPES",
    "Bucket",
    "Close",
    "ConfigFile",
    "ConfigText",
    "DependencyQuery",
    "Error",
    "Header",
    "Id",
    "ImageArray",
    "Message",
    "Query",
    "ReconBit",
    "ReconBuffer",
    "ReconData",
    "Response",
    "ResultQuery",
    "SamplingDescription",
    "SamplingLimit",
]

IMAGE_TYPES = {
    code: np.dtype(name) for code, name in enumerate(("<u2", "<i2", "<u4", "<i4", "<f4", "<f8", "<c8", "<c16"), start=1)
}
"""ISMRMRD's image data types. (ismrmrd 1.15 takes its 4, a 32-bit integer, for a 64-bit one.)"""


@dataclass(frozen=True)
class ConfigFile:
    """The name of a configuration that the receiver has."""

    name: str


@dataclass(frozen=True)
class ConfigText:
    """A configuration: of a whole chain, or the <configuration> of an external node."""

    text: bytes


@dataclass(frozen=True)
class Header:
    """An ISMRMRD header, XML."""

    text: bytes


@dataclass(frozen=True)
class Close:
    """The sender's last message."""


@dataclass(frozen=True)
class Query:
    """A question by key, such as gadgetron::version; the response carries the same number."""

    number: int
    key: str


@dataclass(frozen=True)
class Response:
    """The answer to a query."""

    number: int
    text: str


@dataclass(frozen=True)
class DependencyQuery:
    """The question what is known of the noise that a scan depends on, and the answer to it."""

    meta: bytes
    """ISMRMRD's meta XML."""


@dataclass(frozen=True)
class ResultQuery:
    """The question for the images of a deferred scan. The host answers it; no message carries it."""

    measurement: str
    """The measurement ID."""


@dataclass(frozen=True)
class Error:
    """Why an external process gave up; only ever from it to Gadgetron."""

    text: str


@dataclass(frozen=True)
class Bucket:
    """Acquisitions that Gadgetron has gathered: for imaging, for calibration; lines that are for both are in both."""

    data: tuple[Line, ...]
    calibration: tuple[Line, ...]
    waveforms: tuple[ismrmrd.Waveform, ...]


class SamplingLimit(ctypes.Structure):
    """First, central and last index of one encoding direction."""

    _fields_ = (("min", ctypes.c_uint16), ("center", ctypes.c_uint16), ("max", ctypes.c_uint16))


class SamplingDescription(ctypes.Structure):
    """Field of view (mm), matrix and limits along readout, encode step 1 and encode step 2; 56 bytes."""

    _fields_ = (
        ("encoded_FOV", ctypes.c_float * 3),
        ("recon_FOV", ctypes.c_float * 3),
        ("encoded_matrix", ctypes.c_uint16 * 3),
        ("recon_matrix", ctypes.c_uint16 * 3),
        ("sampling_limits", SamplingLimit * 3),
    )


@dataclass(frozen=True)
class ReconBuffer:
    """Sorted k-space. Attributes are named as in gadgetron-python, whose objects may stand in for these."""

    data: Array
    """(e0, e1, e2, coil, n, s, loc) complex64."""
    trajectory: Array | None
    density: Array | None
    headers: Array
    """(e1, e2, n, s, loc) objects, ismrmrd.AcquisitionHeader; number_of_samples is 0 where nothing was acquired."""
    sampling: SamplingDescription


@dataclass(frozen=True)
class ReconBit:
    """One encoding space: imaging data, and calibration data or None."""

    data: ReconBuffer
    ref: ReconBuffer | None = None


@dataclass(frozen=True)
class ReconData:
    """The output of Gadgetron's BucketToBuffer: one bit for each encoding space."""

    bits: list[ReconBit]


@dataclass(frozen=True)
class ImageArray:
    """Images with their headers and meta texts; attributes named as in gadgetron-python."""

    data: Array
    """(x, y, z, channel, n, s, loc) complex64."""
    headers: Array
    """(n, s, loc) objects, ismrmrd.ImageHeader."""
    meta: list[str]
    waveform: list[ismrmrd.Waveform] | None = None
    acq_headers: Array | None = None


Message: TypeAlias = Any
"""ConfigFile, ConfigText, Header, Close, Query, Response, DependencyQuery, Error, Bucket, Line, or an Item."""
