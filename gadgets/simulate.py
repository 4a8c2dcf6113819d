"""`python -m gadgets simulate`: an ISMRMRD scan that never took place, of a phantom or of anatomy from a NIfTI file.

Many coils with correlated noise, a noise measurement, calibration lines, a chosen mask, readout oversampling, several
echoes, 2-D slices or a 3-D volume; a header with all that a scanner's header says. The same seed gives the same file.
Axes: volume (z, y, x) of the scan: x = readout (read_dir), y = phase encoding, z = slice or partition. Patient axes are
DICOM's: left, posterior, superior.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ismrmrd import xsd
from numpy.typing import NDArray

from mrnets.errors import InputError, unknown
from mrnets.files import whole
from mrnets.heads import icbm152
from mrnets.mrd.files import write_scan
from mrnets.mrd.flags import Flag
from mrnets.mrd.lines import ACQUISITION_HEADER, Lines
from mrnets.physics import masks, simulate
from mrnets.physics.coils import mix, rss
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.interpolation import along
from mrnets.physics.whiten import whitener

__all__ = ["Settings", "add_arguments", "make_scan", "run"]

Complex = NDArray[np.complex64]
Real = NDArray[np.float32]

ORIENTATIONS = {  # read, phase, slice direction
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (-1.0, 0.0, 0.0)),
}
DETAIL = 1.25
"""The object has this many times the resolution of the matrix, so that k-space is cut off as a scanner cuts it."""
DWELL_US = 5.0
"""Of a sample without oversampling; the noise measurement has twice that."""
BANDWIDTH = 0.793
"""Of the noise measurement relative to that of its samples; a Siemens figure that Gadgetron takes as default."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to simulate; the command line's options."""

    volume: str | None = None
    """NIfTI file, or "icbm152" (in the nilearn package); None: a Shepp-Logan phantom."""
    coils: int = 12
    matrix: int = 256
    slices: int = 1
    """Slices, or partitions of a 3-D scan."""
    orientation: str = "axial"
    fov: float = 256.0
    """mm."""
    thickness: float = 4.0
    """mm, of a slice or partition; slices have no gaps."""
    offset: float = 0.0
    """mm, of the middle slice from the volume's centre along the slice direction."""
    snr: float = 50.0
    """Bright tissue over the standard deviation of the complex noise, in the fully sampled combined image."""
    acceleration: float = 4.0
    mask: str = "equispaced1d"
    calibration: int = 24
    """Fully sampled width at the centre of k-space; 0: none."""
    separate: bool = False
    """Calibration lines are acquired before the image, for themselves."""
    noise_lines: int = 32
    oversampling: int = 2
    echoes: int = 1
    three_d: bool = False
    seed: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    default = Settings()
    parser.add_argument("-o", "--output", default="scan.h5", help="ISMRMRD file to write (%(default)s)")
    parser.add_argument("--reference", help="write the noise-free fully sampled images here: .npy (slice, echo, y, x)")
    parser.add_argument("--volume", help='NIfTI file, or "icbm152" of the nilearn package; else a Shepp-Logan phantom')
    parser.add_argument("--orientation", choices=sorted(ORIENTATIONS), default=default.orientation)
    parser.add_argument(
        "--mask", choices=masks.names(), default=default.mask, help="2-D masks are for --three-d (%(default)s)"
    )
    for name, text in (
        ("coils", "receive coils"),
        ("matrix", "samples along both axes of the plane"),
        ("slices", "slices, or partitions with --three-d"),
        ("fov", "field of view, mm"),
        ("thickness", "of a slice, mm"),
        ("offset", "of the middle slice from the volume's centre, mm"),
        ("snr", "of bright tissue in the fully sampled image"),
        ("acceleration", "of the whole mask, its centre included; of regular1d the distance between lines"),
        ("calibration", "fully sampled width at the centre of k-space"),
        ("noise_lines", "lines of the noise measurement; 0: none"),
        ("oversampling", "of the readout"),
        ("echoes", "contrasts, with T2* decay and off-resonance"),
        ("seed", "of everything that is random"),
    ):
        value = getattr(default, name)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(value), default=value, help=f"{text} (%(default)s)")
    parser.add_argument("--separate", action="store_true", help="calibration lines before the image, for themselves")
    parser.add_argument("--three-d", action="store_true", help="a volume with two phase encodings")


def run(args: argparse.Namespace) -> int:
    """Make the scan and write it; InputError for settings that make no scan."""
    settings = Settings(**{name: getattr(args, name) for name in Settings.__dataclass_fields__})
    for path in filter(None, (args.output, args.reference)):
        if not Path(path).resolve().parent.is_dir():
            raise InputError(f"{path}: there is no folder {Path(path).resolve().parent}")
    header, items, reference = make_scan(settings)
    write_scan(args.output, header, items)
    if args.reference:
        with whole(args.reference) as file:
            np.save(file, np.stack(reference))
    print(f"wrote {args.output}")
    return 0


def make_scan(settings: Settings) -> tuple[bytes, Iterator[Lines], list[Real]]:
    """ISMRMRD header, the lines (made as they are asked for), and a list that then holds the reference images.

    reference: (echo, y, x) float32 for each slice, root sum of squares of the noise-free coil images prewhitened by the
    true noise covariance: what a chain gives of the fully sampled noise-free scan, up to one factor for all slices.
    """
    _check(settings)
    mask = _mask(settings)
    reference: list[Real] = []
    return _header(settings, mask).toXML().encode(), _lines(settings, mask, reference), reference


def _check(settings: Settings) -> None:
    for name, least, most in (
        ("coils", 1, 128),
        ("matrix", 16, 4096),
        ("slices", 1, 1024),
        ("noise_lines", 0, 4096),
        ("oversampling", 1, 8),
        ("echoes", 1, 64),
        ("calibration", 0, settings.matrix),
    ):
        if not least <= getattr(settings, name) <= most:
            raise InputError(f"simulate: {name} must be from {least} to {most}, got {getattr(settings, name)}")
    for name in ("fov", "thickness", "snr"):
        if not 0 < getattr(settings, name) < math.inf:
            raise InputError(f"simulate: {name} must be positive, got {getattr(settings, name)}")
    axes = masks.kind(settings.mask).axes
    if settings.orientation not in ORIENTATIONS:
        raise unknown("orientation", settings.orientation, ORIENTATIONS)
    if axes == 2 and not settings.three_d:
        raise InputError(f"simulate: {settings.mask} undersamples two phase encodings; it needs a 3-D scan (--three-d)")
    if settings.three_d and settings.slices < 8:
        raise InputError(f"simulate: a 3-D scan needs at least 8 partitions (--slices), got {settings.slices}")


# What is sampled


def _mask(settings: Settings) -> NDArray[np.bool_]:
    """(z, y) bool of a 3-D scan, (1, y) of slices: the phase encodings that are imaged."""
    ny, nz = settings.matrix, settings.slices if settings.three_d else 1
    rng = np.random.default_rng([settings.seed, 1])
    centre = 1 if settings.separate else settings.calibration  # an image always has its k-space centre
    kind = masks.kind(settings.mask)
    if kind.axes == 1:
        lines = kind.draw((ny, 1), settings.acceleration, rng, centre=centre)[:, 0]
        return np.repeat(lines[None], nz, axis=0)
    return np.asarray(kind.draw((nz, ny), settings.acceleration, rng, centre=min(centre, nz)))


def _calibration(settings: Settings, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(z, y): the fully sampled centre."""
    block = np.zeros_like(mask)
    (nz, ny), width = mask.shape, settings.calibration
    height = min(width, nz) if masks.kind(settings.mask).axes == 2 or settings.separate else nz
    top, left = nz // 2 - height // 2, ny // 2 - width // 2
    block[top : top + height, left : left + width] = True
    return block


def _lines(settings: Settings, mask: NDArray[np.bool_], reference: list[Real]) -> Iterator[Lines]:
    """Noise, calibration if it is separate, then slice by slice or partition by partition."""
    rng = np.random.default_rng([settings.seed, 0])
    covariance = simulate.random_covariance(rng, settings.coils) / np.float32(settings.snr) ** 2
    count = 0
    if settings.noise_lines:
        shape = (settings.noise_lines, settings.coils, 1, settings.matrix * settings.oversampling)
        # Half the noise bandwidth at twice the dwell time, seen through the receiver's filter.
        noise = simulate.noise(rng, covariance * np.float32(BANDWIDTH / 2), shape)[:, :, 0]
        lines = _acquisitions(settings, noise, Flag.IS_NOISE_MEASUREMENT, count)
        lines.headers["sample_time_us"] = 2 * DWELL_US / settings.oversampling
        count += len(lines)
        yield lines
    calibration = _calibration(settings, mask)
    spectra = enumerate(_spectra(settings, rng, whitener(covariance), reference))
    if settings.separate and settings.calibration:
        held = list(spectra)  # calibration lines of all slices come before the first image
        for n, spectrum in held:
            noisy = spectrum + simulate.noise(rng, covariance, spectrum.shape)
            for lines in _encoded(settings, noisy, n, calibration, Flag.IS_PARALLEL_CALIBRATION, calibration, count):
                count += len(lines)
                yield lines
        spectra = iter(held)  # type: ignore[assignment]
    embedded = np.zeros_like(mask) if settings.separate else calibration & mask
    for n, spectrum in spectra:
        noisy = spectrum + simulate.noise(rng, covariance, spectrum.shape)
        for lines in _encoded(settings, noisy, n, mask, Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING, embedded, count):
            count += len(lines)
            yield lines


def _encoded(
    settings: Settings,
    kspace: Complex,
    n: int,
    mask: NDArray[np.bool_],
    flag: Flag,
    flagged: NDArray[np.bool_],
    count: int,
) -> Iterator[Lines]:
    """Lines of slice or partition `n`, kspace (echo, coil, y, x), echoes in turn; `flag` goes on those `flagged`."""
    row = n if settings.three_d else 0
    where = np.flatnonzero(mask[row])
    if not where.size:
        return
    echo, coils, _, samples = kspace.shape
    data = kspace[:, :, where].transpose(2, 0, 1, 3).reshape(-1, coils, samples)
    lines = _acquisitions(settings, data, None, count)
    headers = lines.headers
    headers["idx"]["kspace_encode_step_1"] = np.repeat(where, echo)
    headers["idx"]["contrast"] = np.tile(np.arange(echo), where.size)
    headers["idx"]["kspace_encode_step_2" if settings.three_d else "slice"] = n
    headers["position"] = _position(settings, settings.offset if settings.three_d else float(_heights(settings)[n]))
    _set(headers["flags"], np.repeat(flagged[row, where], echo), flag)
    sampled = np.flatnonzero(mask.any(axis=1)) if settings.three_d else np.array([n])
    if flag != Flag.IS_PARALLEL_CALIBRATION:
        if n == sampled[0]:
            _set(headers["flags"], slice(echo), Flag.FIRST_IN_SLICE)
        if n == sampled[-1]:
            _set(headers["flags"], slice(-echo, None), Flag.LAST_IN_SLICE)
        if n == (sampled[-1] if settings.three_d else settings.slices - 1):
            _set(headers["flags"], slice(-1, None), Flag.LAST_IN_MEASUREMENT)
    yield lines


def _set(flags: NDArray[np.uint64], where: Any, flag: Flag) -> None:
    flags[where] |= np.uint64(1 << (flag - 1))


def _acquisitions(settings: Settings, data: Complex, flag: Flag | None, count: int) -> Lines:
    """Lines of data (line, coil, sample) with the fields that all acquisitions share; `count` came before."""
    n, coils, samples = data.shape
    headers = np.zeros(n, ACQUISITION_HEADER)
    headers["version"] = 1
    headers["flags"] = 0 if flag is None else 1 << (flag - 1)
    headers["measurement_uid"] = 1
    headers["scan_counter"] = count + np.arange(n)
    headers["acquisition_time_stamp"] = 2 * (count + np.arange(n))  # of 2.5 ms: TR is 5 ms
    headers["number_of_samples"], headers["center_sample"] = samples, samples // 2
    headers["available_channels"] = headers["active_channels"] = coils
    headers["channel_mask"] = [(1 << min(max(coils - 64 * word, 0), 64)) - 1 for word in range(16)]
    headers["sample_time_us"] = DWELL_US / settings.oversampling
    read, phase, normal = ORIENTATIONS[settings.orientation]
    headers["read_dir"], headers["phase_dir"], headers["slice_dir"] = read, phase, normal
    return Lines(headers, np.ascontiguousarray(data))


# What is in the scanner


def _spectra(settings: Settings, rng: np.random.Generator, whiten: Complex, reference: list[Real]) -> Iterator[Complex]:
    """Noise-free k-space (echo, coil, y, oversampled x) of each slice or partition; fills `reference` by the way."""
    section = _phantom(settings) if settings.volume is None else _anatomy(settings)
    loops, field = _receivers(settings, rng)
    ny = nx = settings.matrix
    fine = (round(DETAIL * ny), round(DETAIL * nx))
    wide = (fine[0], fine[1] * settings.oversampling)
    phase = simulate.random_phase(rng, fine)
    off_resonance = 40 * np.angle(simulate.random_phase(rng, fine, strength=0.3))  # Hz
    times = _echo_times(settings)[:, None, None]
    volume = []
    for z in _heights(settings):
        image = section(float(z), fine)
        # R2* of 20 to 40 1/s, by brightness: any map with edges will do
        signal = image * phase * np.exp(times * (2j * np.pi * off_resonance - 20 * (1 + image)))
        sens = simulate.sensitivities(loops, fine, z=2 * float(z) / settings.fov, field=field)
        sens = sens * rss(sens) ** -0.7  # most of the fall-off corrected, as scanners do
        seen = resize(signal.astype(np.complex64), wide)
        kspace = simulate.encode(seen, resize(sens, wide), (ny, nx * settings.oversampling))
        reference.append(rss(mix(whiten, resize(ifftc(kspace), (ny, nx)))))
        volume.append(kspace)
        if not settings.three_d:
            yield volume.pop()
    if volume:
        yield from fftc(np.stack(volume), axes=(0,))


def _receivers(settings: Settings, rng: np.random.Generator) -> tuple[simulate.Loops, tuple[float, ...]]:
    """Coils on rings around the axis of the scanner's bore, and the direction of its field, in the axes of the scan."""
    turn = np.array(ORIENTATIONS[settings.orientation])
    loops = simulate.random_loops(rng, settings.coils)
    field = turn @ np.array([0.0, 0.0, 1.0])
    return replace(loops, centre=loops.centre @ turn.T, normal=loops.normal @ turn.T), tuple(field)


def _echo_times(settings: Settings) -> NDArray[np.float64]:
    """(echo,) s."""
    return 4e-3 * np.arange(1, settings.echoes + 1, dtype=np.float64)


def _heights(settings: Settings) -> NDArray[np.float64]:
    """(slice,): along the slice direction from the volume's centre, mm. Of a volume, partition n // 2 is the middle."""
    middle = settings.slices // 2 if settings.three_d else (settings.slices - 1) / 2
    return (np.arange(settings.slices, dtype=np.float64) - middle) * settings.thickness + settings.offset


Section = Callable[[float, tuple[int, int]], Real]
"""The object at a height (mm) on a grid that spans the field of view: (y, x), bright tissue 1."""


def _phantom(settings: Settings) -> Section:
    def section(z: float, shape: tuple[int, int]) -> Real:
        size = math.sqrt(max(1 - (2 * z / settings.fov) ** 2, 1e-4))  # ellipses of an ellipsoid
        ellipses = [(e[0], *(size * np.array(e[1:5])), e[5]) for e in simulate.SHEPP_LOGAN]
        return np.asarray(simulate.phantom(shape, ellipses))

    return section


def _anatomy(settings: Settings) -> Section:
    volume, spacing = _load(settings)
    bright = float(np.percentile(volume[volume > 0.05 * volume.max()], 98)) if volume.max() > 0 else 1.0
    half = settings.thickness * (np.arange(5) - 2) / 5

    def section(z: float, shape: tuple[int, int]) -> Real:
        profile = _resampling(volume.shape[0], spacing[0], z + half, settings.thickness / 5).mean(axis=0)
        image = np.tensordot(profile.astype(np.float32), volume, axes=1) / np.float32(bright)
        for axis, n in enumerate(shape):
            where = (np.arange(n) - n // 2) * settings.fov / n
            image = along(_resampling(image.shape[axis], spacing[axis + 1], where, settings.fov / n), image, axis)
        return np.asarray(image)

    return section


def _resampling(voxels: int, spacing: float, where: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """(point, voxel): linear interpolation at `where` (mm from the middle), with a wider triangle for wider steps."""
    index = where / spacing + (voxels - 1) / 2
    width = max(step / spacing, 1.0)
    return np.maximum(1 - np.abs(index[:, None] - np.arange(voxels)) / width, 0) / width


def _load(settings: Settings) -> tuple[Real, tuple[float, float, float]]:
    """A NIfTI volume in the axes of the scan, (z, y, x), and its spacing in mm."""
    try:
        import nibabel
    except ModuleNotFoundError:
        raise InputError("simulate: reading NIfTI files needs nibabel (pip install nibabel)") from None
    path = icbm152() if settings.volume == "icbm152" else Path(str(settings.volume))
    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        data = np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, nibabel.filebasedimages.ImageFileError) as error:
        raise InputError(f"simulate: {path} cannot be read as NIfTI ({' '.join(str(error).split())})") from None
    if data.ndim != 3 or not np.isfinite(data).all():
        raise InputError(f"simulate: {path} must have three axes and finite values, it has the shape {data.shape}")
    data, zooms = np.maximum(data[::-1, ::-1], 0), image.header.get_zooms()  # right, anterior -> left, posterior
    read, phase, normal = (int(np.argmax(np.abs(d))) for d in ORIENTATIONS[settings.orientation])
    volume = data.transpose(normal, phase, read)
    for axis, direction in enumerate(reversed(ORIENTATIONS[settings.orientation])):
        if min(direction) < 0:
            volume = np.flip(volume, axis)
    return np.ascontiguousarray(volume), (float(zooms[normal]), float(zooms[phase]), float(zooms[read]))


def _position(settings: Settings, height: float) -> NDArray[np.float64]:
    return height * np.array(ORIENTATIONS[settings.orientation][2])


# What the header says


def _header(settings: Settings, mask: NDArray[np.bool_]) -> xsd.ismrmrdHeader:
    n, nz = settings.matrix, settings.slices if settings.three_d else 1
    depth = settings.thickness * nz
    wide = n * settings.oversampling
    coil_labels = [xsd.coilLabelType(coilNumber=i, coilName=f"C{i + 1}") for i in range(settings.coils)]
    return xsd.ismrmrdHeader(
        version=1,
        measurementInformation=xsd.measurementInformationType(
            measurementID="simulated", patientPosition=xsd.patientPositionType.HFS, protocolName="simulated"
        ),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemVendor="simulated",
            systemModel="simulated",
            systemFieldStrength_T=3.0,
            relativeReceiverNoiseBandwidth=BANDWIDTH,
            receiverChannels=settings.coils,
            coilLabel=coil_labels,
        ),
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=127_728_000),
        encoding=[
            xsd.encodingType(
                encodedSpace=_space((wide, n, nz), (settings.fov * settings.oversampling, settings.fov, depth)),
                reconSpace=_space((n, n, nz), (settings.fov, settings.fov, depth)),
                encodingLimits=_limits(settings),
                trajectory=xsd.trajectoryType.CARTESIAN,
                parallelImaging=xsd.parallelImagingType(
                    accelerationFactor=_acceleration(settings, mask),
                    calibrationMode=xsd.calibrationModeType("separate" if settings.separate else "embedded"),
                ),
            )
        ],
        sequenceParameters=xsd.sequenceParametersType(
            TR=[5.0], TE=[float(1e3 * te) for te in _echo_times(settings)], flipAngle_deg=[15.0], sequence_type="Flash"
        ),
    )


def _space(matrix: tuple[int, int, int], fov: tuple[float, float, float]) -> xsd.encodingSpaceType:
    x, y, z = matrix
    return xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(x=x, y=y, z=z),
        fieldOfView_mm=xsd.fieldOfViewMm(x=fov[0], y=fov[1], z=fov[2]),
    )


def _acceleration(settings: Settings, mask: NDArray[np.bool_]) -> xsd.accelerationFactorType:
    """Whole numbers, as the header wants them, of the lines that there are."""
    sampled = int(mask.any(axis=0).sum()), int(mask.any(axis=1).sum())
    steps = [max(1, round(n / max(there, 1))) for n, there in zip(mask.shape[::-1], sampled, strict=True)]
    return xsd.accelerationFactorType(kspace_encoding_step_1=steps[0], kspace_encoding_step_2=steps[1])


def _limits(settings: Settings) -> xsd.encodingLimitsType:
    def limit(n: int, centre: int = 0) -> xsd.limitType:
        return xsd.limitType(minimum=0, maximum=n - 1, center=centre)

    ny, nz = settings.matrix, settings.slices if settings.three_d else 1
    return xsd.encodingLimitsType(
        kspace_encoding_step_0=limit(ny * settings.oversampling, ny * settings.oversampling // 2),
        kspace_encoding_step_1=limit(ny, ny // 2),
        kspace_encoding_step_2=limit(nz, nz // 2),
        average=limit(1),
        slice=limit(1 if settings.three_d else settings.slices),
        contrast=limit(settings.echoes),
        phase=limit(1),
        repetition=limit(1),
        set=limit(1),
        segment=limit(1),
    )
