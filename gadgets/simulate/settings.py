"""Settings of a simulated scan, their checks, and the places of slices, partitions and echoes that follow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gadgets.simulate import vendors
from mrnets.errors import Faults, InputError, unknown
from mrnets.physics import masks

__all__ = ["ORIENTATIONS", "Settings", "check", "echo_times", "heights", "position"]

ORIENTATIONS = {  # read, phase, slice direction
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (-1.0, 0.0, 0.0)),
}
ECHO_SPACING = 4e-3
"""s; the first echo comes at this time, too."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A scan to simulate; the options of the command line."""

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
    partial_fourier: float = 0.0
    """Fraction of the phase encodings that is left out before the centre of k-space: 0.25 is 6/8."""
    noise_lines: int = 32
    oversampling: int = 2
    echoes: int = 1
    three_d: bool = False
    vendor: str = "plain"
    """The vendor whose converter's style header and lines have; see gadgets/simulate/vendors.py."""
    noise_from: str | None = None
    """Measurement ID of the scan that measured the noise. None: this scan does. The scan then has no noise lines."""
    seed: int = 0


def check(settings: Settings) -> None:
    """Raise InputError for settings that make no scan, with all numbers that are wrong."""
    _check_numbers(settings)
    if settings.orientation not in ORIENTATIONS:
        raise unknown("orientation", settings.orientation, ORIENTATIONS)
    if masks.kind(settings.mask).axes == 2 and not settings.three_d:
        raise InputError(f"{settings.mask} undersamples two phase encodings; it needs a 3-D scan (--three-d)")
    if settings.three_d and settings.slices < 8:
        raise InputError(f"a 3-D scan needs at least 8 partitions (--slices), got {settings.slices}")
    before = settings.matrix // 2 - settings.calibration // 2
    if math.floor(settings.partial_fourier * settings.matrix) > before:
        raise InputError(
            f"partial_fourier {settings.partial_fourier:g} leaves out lines of the calibration; at most "
            f"{before} of {settings.matrix} lines are before it"
        )
    if settings.separate and not vendors.named(settings.vendor).calibration:
        raise InputError(
            f"the converter of {settings.vendor} marks no calibration lines; --separate needs another vendor"
        )


def _check_numbers(settings: Settings) -> None:
    faults = Faults()
    for name, least, most in (
        ("coils", 1, 128),
        ("matrix", 16, 4096),
        ("slices", 1, 1024),
        ("noise_lines", 0, 4096),
        ("oversampling", 1, 8),
        ("echoes", 1, 64),
        ("calibration", 0, settings.matrix),
    ):
        with faults.gathered():
            if not least <= getattr(settings, name) <= most:
                raise InputError(f"{name} must be from {least} to {most}, got {getattr(settings, name)}")
    for name in ("fov", "thickness", "snr"):
        with faults.gathered():
            if not 0 < getattr(settings, name) < math.inf:
                raise InputError(f"{name} must be positive, got {getattr(settings, name)}")
    with faults.gathered():
        if not 0 <= settings.partial_fourier < 0.5:
            raise InputError(f"partial_fourier must be from 0 to below 0.5, got {settings.partial_fourier:g}")
    faults.tell()


def heights(settings: Settings) -> NDArray[np.float64]:
    """(slice,): places along the slice direction, mm from the volume's centre. Partition n // 2 is the middle one."""
    middle = settings.slices // 2 if settings.three_d else (settings.slices - 1) / 2
    return (np.arange(settings.slices, dtype=np.float64) - middle) * settings.thickness + settings.offset


def position(settings: Settings, height: float) -> NDArray[np.float64]:
    """(3,): a place along the slice direction in patient axes, mm."""
    return height * np.array(ORIENTATIONS[settings.orientation][2])


def echo_times(settings: Settings) -> NDArray[np.float64]:
    """(echo,) s."""
    return ECHO_SPACING * np.arange(1, settings.echoes + 1, dtype=np.float64)
