"""A whole scan: its header, and its lines in the order in which they are measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gadgets.simulate import vendors
from gadgets.simulate.header import NOISE, SCAN, document
from gadgets.simulate.lines import Part, encoded, noise_lines, numbered
from gadgets.simulate.sampling import calibration_block, centre, imaged
from gadgets.simulate.scanner import spectra
from gadgets.simulate.settings import Settings, check
from mrnets.mrd.flags import Flag
from mrnets.mrd.lines import Lines
from mrnets.physics import simulate
from mrnets.physics.whiten import RELATIVE_BANDWIDTH, whitener

__all__ = ["make_noise_scan", "make_scan"]

Real = NDArray[np.float32]


def make_scan(settings: Settings) -> tuple[bytes, Iterator[Lines], list[Real]]:
    """ISMRMRD header, the lines (made as they are asked for), and a list that then holds the reference images.

    reference: (echo, y, x) float32 for each slice, root sum of squares of the noise-free coil images prewhitened by the
    true noise covariance. It is what a chain gives of the fully sampled noise-free scan, up to one factor for all
    slices. Raises InputError for settings that make no scan.
    """
    settings = _adapted(settings)
    mask = imaged(settings)
    reference: list[Real] = []
    lines = _finished(settings, _lines(settings, mask, reference), SCAN)
    return document(settings, mask), lines, reference


def make_noise_scan(settings: Settings) -> tuple[bytes, Iterator[Lines]]:
    """Header and lines of a scan of its own that measures the noise of `make_scan` with the same settings."""
    settings = _adapted(settings)
    measured = [_noise(settings)] if settings.noise_lines else []
    return document(settings, imaged(settings), NOISE), _finished(settings, measured, NOISE)


def _adapted(settings: Settings) -> Settings:
    """Checked, and without what the vendor's converter does not convert."""
    check(settings)
    vendor = vendors.named(settings.vendor)
    if not vendor.noise:
        settings = replace(settings, noise_lines=0)
    return settings if vendor.oversampling else replace(settings, oversampling=1)


def _finished(settings: Settings, blocks: Iterable[Lines], number: int) -> Iterator[Lines]:
    """Blocks of lines with their counters, as the vendor's converter writes them."""
    vendor, before = vendors.named(settings.vendor), 0
    for lines in blocks:
        yield vendors.styled(numbered(lines, before, number), vendor, centre(settings), volume=settings.three_d)
        before += len(lines)


def _lines(settings: Settings, mask: NDArray[np.bool_], reference: list[Real]) -> Iterator[Lines]:
    """Noise, calibration if it is separate, then slice by slice or partition by partition."""
    if settings.noise_lines and settings.noise_from is None:
        yield _noise(settings)
    rng = np.random.default_rng([settings.seed, 0])
    covariance = _covariance(settings)
    clean: Iterable[NDArray[np.complex64]] = spectra(settings, rng, whitener(covariance), reference)
    block = calibration_block(settings, mask)
    parts = [Part(mask, Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING, block & mask)]
    if settings.separate:
        parts = [Part(block, Flag.IS_PARALLEL_CALIBRATION, block), replace(parts[0], flagged=np.zeros_like(mask))]
        clean = list(clean)  # calibration lines of all slices come before the first image
    for part in parts:
        for n, spectrum in enumerate(clean):
            yield from encoded(settings, spectrum + simulate.noise(rng, covariance, spectrum.shape), n, part)


def _covariance(settings: Settings) -> NDArray[np.complex64]:
    """(coil, coil): of the noise of a sample of the image."""
    covariance = simulate.random_covariance(np.random.default_rng([settings.seed, 3]), settings.coils)
    return np.asarray(covariance / np.float32(settings.snr) ** 2)


def _noise(settings: Settings) -> Lines:
    """The noise measurement: half the bandwidth of the image, seen through the receiver's filter."""
    shape = (settings.noise_lines, settings.coils, 1, settings.matrix * settings.oversampling)
    covariance = _covariance(settings) * np.float32(RELATIVE_BANDWIDTH / 2)
    return noise_lines(settings, simulate.noise(np.random.default_rng([settings.seed, 2]), covariance, shape)[:, :, 0])
