"""The styles of three vendors' converters: what they write and leave out, as far as their public sources say.

plain: a complete and right header, of nobody's converter.
siemens: siemens_to_ismrmrd with its style sheet IsmrmrdParameterMap_Siemens.xsl.
ge: ge_to_ismrmrd with default.xsl. philips: philips_to_ismrmrd with IsmrmrdPhilips.xsl.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mrnets.errors import unknown
from mrnets.mrd.flags import Flag, bits
from mrnets.mrd.lines import Lines
from mrnets.physics.whiten import RELATIVE_BANDWIDTH

__all__ = ["VENDORS", "Vendor", "named", "styled"]


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """How one converter writes a scan."""

    system: str
    model: str | None = None
    field_strength: float | None = 3.0
    """T."""
    frequency: int = 127_728_000
    """Hz; 0 where the converter does not know it."""
    bandwidth: float = RELATIVE_BANDWIDTH
    """relativeReceiverNoiseBandwidth."""
    coil_name: str | None = "C{}"
    measurement: str = "device_subject_study_{}"
    """measurementID of scan number {}."""
    subject: bool = True
    """Whether patient and study are named."""
    centre: Literal["right", "matrix", "lines"] = "right"
    """Centre of step 1 in the header: the right one, half of the matrix, or half of the lines that were measured."""
    step_0: bool = True
    """Whether the limits have step 0, the readout."""
    step_2: bool = True
    """Whether the limits of a 3-D scan say how many partitions there are."""
    middles: bool = False
    """Whether the centres of slice and contrast are their middles."""
    calibration: bool = True
    """Whether calibration lines have flags, and the header an element parallelImaging."""
    noise: bool = True
    """Whether noise lines are converted."""
    oversampling: bool = True
    """Whether the readout is still oversampled."""
    measured_matrix: bool = False
    """Whether the encoded matrix has the lines that were measured, and not those of the grid."""
    counters: bool = False
    """Whether idx.user[5] and [6] hold the centre's line and partition."""
    flags: tuple[Flag, ...] | None = None
    """The flags that are set; None: all."""
    geometry: bool = True
    """Whether lines have their position and directions."""
    dwell: bool = True
    """Whether lines have their sample time."""
    reversed_axes: bool = False
    """Whether directions are those of images by a forward Fourier transform; see `gadgets.geometry`."""


VENDORS = {
    "plain": Vendor(system="simulated", model="simulated"),
    "siemens": Vendor(
        system="SIEMENS",
        model="Skyra",
        field_strength=2.89362,
        frequency=123_249_000,
        coil_name="HeadNeck_20:1:H{}",
        measurement="45387_66015401_66015410_{}",
        subject=False,
        centre="matrix",
        step_0=False,
        counters=True,
        reversed_axes=True,
    ),
    "ge": Vendor(
        system="GE MEDICAL SYSTEMS",
        model="DISCOVERY MR750",
        bandwidth=1.0,
        coil_name=None,
        measurement="{}",
        centre="lines",
        step_0=False,
        step_2=False,
        middles=True,
        calibration=False,
        noise=False,
        oversampling=False,
        measured_matrix=True,
        flags=(Flag.FIRST_IN_SLICE, Flag.LAST_IN_SLICE),
        dwell=False,
    ),
    "philips": Vendor(
        system="PHILIPS",
        field_strength=None,
        frequency=0,
        coil_name="CH{}",
        measurement="PATIENT_STUDY_{}",
        subject=False,
        centre="lines",
        step_0=False,
        calibration=False,
        flags=(Flag.IS_NOISE_MEASUREMENT,),
        geometry=False,
        dwell=False,
    ),
}


def named(name: str) -> Vendor:
    """The vendor of that name. Raises InputError for an unknown one."""
    if name not in VENDORS:
        raise unknown("vendor", name, VENDORS)
    return VENDORS[name]


def styled(lines: Lines, vendor: Vendor, centre: tuple[int, int], *, volume: bool) -> Lines:
    """`lines` with what the vendor's converter adds to their headers, and without what it leaves out.

    centre: line and partition of the centre of k-space, as the counters count. volume: partitions are encoded.
    """
    headers = lines.headers.copy()
    if vendor.counters:
        headers["idx"]["user"][:, 5:7] = centre
    if vendor.reversed_axes:
        for field in ("read_dir", "phase_dir", *(["slice_dir"] if volume else [])):
            headers[field] = 0 - headers[field]
    if vendor.flags is not None:
        headers["flags"] &= np.uint64(bits(*vendor.flags))
    if not vendor.geometry:
        for field in ("position", "read_dir", "phase_dir", "slice_dir"):
            headers[field] = 0
    if not vendor.dwell:
        headers["sample_time_us"] = 0
    return Lines(headers, lines.data)
