"""Small streams for tests: headers, and lines cut out of known k-space, with any flags, counters and limits.

Axes: coil images and k-space (coil, z, y, x); 2-D ones have z = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ismrmrd import xsd

from mrnets.mrd.flags import Flag
from mrnets.mrd.lines import ACQUISITION_HEADER, Lines
from mrnets.physics.fourier import fftc

COUNTERS = ("average", "slice", "contrast", "phase", "repetition", "set", "segment")


def limit(minimum: int, maximum: int, centre: int) -> Any:
    return xsd.limitType(minimum=minimum, maximum=maximum, center=centre)


def space(matrix: Sequence[int], fov: Sequence[float]) -> Any:
    x, y, z = matrix
    return xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(x=x, y=y, z=z),
        fieldOfView_mm=xsd.fieldOfViewMm(x=fov[0], y=fov[1], z=fov[2]),
    )


def encoding(
    matrix: Sequence[int],
    *,
    fov: Sequence[float] | None = None,
    recon: Sequence[int] | None = None,
    recon_fov: Sequence[float] | None = None,
    limits: dict[str, tuple[int, int, int]] | None = None,
    all_limits: bool = True,
    trajectory: str = "cartesian",
    mode: str | None = None,
) -> Any:
    """One encoding space; `limits` (minimum, maximum, centre) beside those that follow from the matrix."""
    x, y, z = matrix
    fov = fov or (float(2 * x), float(2 * y), float(2 * z))
    counted = {"kspace_encoding_step_1": (0, y - 1, y // 2), "kspace_encoding_step_2": (0, z - 1, z // 2)}
    counted |= dict.fromkeys(COUNTERS, (0, 0, 0))
    spans = {name: limit(*span) for name, span in ((counted if all_limits else {}) | (limits or {})).items()}
    parallel = None
    if mode is not None:
        factor = xsd.accelerationFactorType(kspace_encoding_step_1=2, kspace_encoding_step_2=1)
        parallel = xsd.parallelImagingType(accelerationFactor=factor, calibrationMode=xsd.calibrationModeType(mode))
    return xsd.encodingType(
        encodedSpace=space(matrix, fov),
        reconSpace=space(recon or matrix, recon_fov or fov),
        encodingLimits=xsd.encodingLimitsType(**spans) if spans else None,
        trajectory=xsd.trajectoryType(trajectory),
        parallelImaging=parallel,
    )


def header(*encodings: Any, te: Sequence[float] = (), bandwidth: float | None = None) -> Any:
    sequence = xsd.sequenceParametersType(TE=list(te)) if te else None
    system = (
        None if bandwidth is None else xsd.acquisitionSystemInformationType(relativeReceiverNoiseBandwidth=bandwidth)
    )
    return xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=128_000_000),
        encoding=list(encodings),
        sequenceParameters=sequence,
        acquisitionSystemInformation=system,
    )


def coil_images(rng: np.random.Generator, coils: int, y: int, x: int, z: int = 1) -> Any:
    """Random complex coil images: every sample counts, and no symmetry hides a flip."""
    parts = rng.standard_normal((2, coils, z, y, x))
    return (parts[0] + 1j * parts[1]).astype(np.complex64)


def to_kspace(images: Any) -> Any:
    """Centred k-space (coil, z, y, x); along z, too."""
    return fftc(images, axes=(-3, -2, -1))


def lines(
    kspace: Any,
    ys: Sequence[int] | None = None,
    zs: Sequence[int] | None = None,
    *,
    flags: Sequence[Flag] = (),
    last: Sequence[Flag] = (),
    first_counter: int = 0,
    y_shift: int = 0,
    dwell: float = 5.0,
    centre: int | None = None,
    encoding_space: int = 0,
    reverse: bool = False,
    **counters: int,
) -> Lines:
    """Lines at the positions ys x zs (all by default) of kspace (coil, z, y, x); `last`: flags of the last line.

    `y_shift` is added to positions to get counters."""
    coils, nz, ny, nx = kspace.shape
    places = [(z, y) for z in (range(nz) if zs is None else zs) for y in (range(ny) if ys is None else ys)]
    headers = np.zeros(len(places), ACQUISITION_HEADER)
    headers["version"] = 1
    headers["scan_counter"] = first_counter + np.arange(len(places))
    headers["acquisition_time_stamp"] = 1000 + headers["scan_counter"]
    headers["physiology_time_stamp"] = 7
    headers["number_of_samples"] = nx
    headers["available_channels"] = headers["active_channels"] = coils
    headers["center_sample"] = nx // 2 if centre is None else centre
    headers["encoding_space_ref"] = encoding_space
    headers["sample_time_us"] = dwell
    headers["read_dir"], headers["phase_dir"], headers["slice_dir"] = np.eye(3)
    headers["position"] = (1.0, 2.0, 3.0 + counters.get("slice", 0))
    headers["patient_table_position"] = (0.0, 0.0, -5.0)
    headers["idx"]["kspace_encode_step_1"] = [y + y_shift for _, y in places]
    headers["idx"]["kspace_encode_step_2"] = [z for z, _ in places]
    for name, value in counters.items():
        headers["idx"][name] = value
    for flag in flags:
        headers["flags"] |= np.uint64(1 << (flag - 1))
    for flag in last:
        headers["flags"][-1] |= np.uint64(1 << (flag - 1))
    data = np.stack([kspace[:, z, y] for z, y in places]).astype(np.complex64)
    if reverse:
        headers["flags"] |= np.uint64(1 << (Flag.IS_REVERSE - 1))
        data = np.ascontiguousarray(data[..., ::-1])
        headers["center_sample"] = nx - 1 - headers["center_sample"]
    return Lines(headers, data)


def noise_lines(samples: Any, *, dwell: float = 5.0) -> Lines:
    """A noise measurement of samples (line, coil, sample)."""
    n, coils, length = samples.shape
    made = lines(np.zeros((coils, 1, n, length), np.complex64), flags=[Flag.IS_NOISE_MEASUREMENT], dwell=dwell)
    return Lines(made.headers, samples.astype(np.complex64))


def interleave(*runs: Lines) -> Lines:
    """Line 0 of each run, then line 1 of each, and so on; runs of one length."""
    order = np.arange(len(runs) * len(runs[0])).reshape(len(runs), -1).T.ravel()
    headers = np.concatenate([run.headers for run in runs])[order]
    return Lines(headers, np.concatenate([run.data for run in runs])[order])
