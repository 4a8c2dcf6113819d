"""The ISMRMRD header of a simulated scan, in the style of a vendor's converter.

No element `version` is written. Gadgetron's C++ library refuses to rewrite a header with another version, and its
client then waits for ever.
"""

from __future__ import annotations

import numpy as np
from ismrmrd import xsd
from numpy.typing import NDArray

from gadgets.simulate.sampling import centre, left_out
from gadgets.simulate.settings import Settings, echo_times
from gadgets.simulate.vendors import Vendor, named
from mrnets.physics import masks

__all__ = ["NOISE", "SCAN", "document", "measurement"]

NOISE, SCAN = 1, 2
"""Numbers of the measurements: the noise of a scan of its own, and the scan."""


def measurement(settings: Settings, number: int) -> str:
    """The measurement ID of scan `number`."""
    return named(settings.vendor).measurement.format(number)


def document(settings: Settings, mask: NDArray[np.bool_], number: int = SCAN) -> bytes:
    """XML of the header; mask (z, y): the phase encodings that are measured."""
    vendor = named(settings.vendor)
    study = {"studyID": "study"} if vendor.subject else None
    header = xsd.ismrmrdHeader(
        subjectInformation=xsd.subjectInformationType(patientID="subject") if vendor.subject else None,
        studyInformation=xsd.studyInformationType(**study) if study else None,
        measurementInformation=_measurement(settings, number),
        acquisitionSystemInformation=_system(settings, vendor),
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=vendor.frequency),
        encoding=[_encoding(settings, vendor, mask)],
        sequenceParameters=xsd.sequenceParametersType(
            TR=[5.0], TE=[float(1e3 * te) for te in echo_times(settings)], flipAngle_deg=[15.0], sequence_type="Flash"
        ),
    )
    return bytes(header.toXML().encode())


def _measurement(settings: Settings, number: int) -> xsd.measurementInformationType:
    dependency = []
    if number == SCAN and settings.noise_from is not None:
        dependency = [xsd.measurementDependencyType(dependencyType="Noise", measurementID=settings.noise_from)]
    return xsd.measurementInformationType(
        measurementID=measurement(settings, number),
        patientPosition=xsd.patientPositionType.HFS,
        protocolName="simulated",
        measurementDependency=dependency,
    )


def _system(settings: Settings, vendor: Vendor) -> xsd.acquisitionSystemInformationType:
    names = [] if vendor.coil_name is None else [vendor.coil_name.format(i + 1) for i in range(settings.coils)]
    return xsd.acquisitionSystemInformationType(
        systemVendor=vendor.system,
        systemModel=vendor.model,
        systemFieldStrength_T=vendor.field_strength,
        relativeReceiverNoiseBandwidth=vendor.bandwidth,
        receiverChannels=settings.coils,
        coilLabel=[xsd.coilLabelType(coilNumber=i, coilName=name) for i, name in enumerate(names)],
        deviceID="device" if vendor.subject else None,
    )


def _encoding(settings: Settings, vendor: Vendor, mask: NDArray[np.bool_]) -> xsd.encodingType:
    n, nz = settings.matrix, settings.slices if settings.three_d else 1
    depth = settings.thickness * nz
    ny = n - left_out(settings) if vendor.measured_matrix else n
    parallel = None
    if vendor.calibration:
        parallel = xsd.parallelImagingType(
            accelerationFactor=_acceleration(settings, mask),
            calibrationMode=xsd.calibrationModeType("separate" if settings.separate else "embedded"),
        )
    return xsd.encodingType(
        encodedSpace=_space(
            (n * settings.oversampling, ny, nz), (settings.fov * settings.oversampling, settings.fov, depth)
        ),
        reconSpace=_space((n, n, nz), (settings.fov, settings.fov, depth)),
        encodingLimits=_limits(settings, vendor),
        trajectory=xsd.trajectoryType.CARTESIAN,
        parallelImaging=parallel,
    )


def _space(matrix: tuple[int, int, int], fov: tuple[float, float, float]) -> xsd.encodingSpaceType:
    x, y, z = matrix
    return xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(x=x, y=y, z=z),
        fieldOfView_mm=xsd.fieldOfViewMm(x=fov[0], y=fov[1], z=fov[2]),
    )


def _acceleration(settings: Settings, mask: NDArray[np.bool_]) -> xsd.accelerationFactorType:
    """Return the distance between lines, as scanners say it; for other masks, whole numbers by the lines there are."""
    if masks.kind(settings.mask).by_distance:
        return xsd.accelerationFactorType(kspace_encoding_step_1=int(settings.acceleration), kspace_encoding_step_2=1)
    sampled = int(mask.any(axis=0).sum()), int(mask.any(axis=1).sum())
    steps = [max(1, round(n / max(there, 1))) for n, there in zip(mask.shape[::-1], sampled, strict=True)]
    return xsd.accelerationFactorType(kspace_encoding_step_1=steps[0], kspace_encoding_step_2=steps[1])


def _limits(settings: Settings, vendor: Vendor) -> xsd.encodingLimitsType:
    samples, lines = settings.matrix * settings.oversampling, settings.matrix - left_out(settings)
    middle = {"right": centre(settings)[0], "matrix": settings.matrix // 2, "lines": lines // 2}[vendor.centre]
    nz = settings.slices if settings.three_d and vendor.step_2 else 1
    slices = 1 if settings.three_d else settings.slices
    one = _limit(1)
    return xsd.encodingLimitsType(
        kspace_encoding_step_0=_limit(samples, samples // 2) if vendor.step_0 else None,
        kspace_encoding_step_1=_limit(lines, middle),
        kspace_encoding_step_2=_limit(nz, nz // 2),
        slice=_limit(slices, slices // 2 if vendor.middles else 0),
        contrast=_limit(settings.echoes, settings.echoes // 2 if vendor.middles else 0),
        average=one,
        phase=one,
        repetition=one,
        set=one,
        segment=one,
    )


def _limit(n: int, middle: int = 0) -> xsd.limitType:
    return xsd.limitType(minimum=0, maximum=n - 1, center=middle)
