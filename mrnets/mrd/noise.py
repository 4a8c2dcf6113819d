"""Noise measurements of a scan: the covariance between coils, scaled for the dwell time of other lines.

Axes: line, coil, sample.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

from mrnets.errors import InputError, naming
from mrnets.mrd.lines import Lines, counter, require_samples, take
from mrnets.physics.arrays import Array, to_numpy
from mrnets.physics.whiten import RELATIVE_BANDWIDTH, covariance, noise_scale

__all__ = ["Noise", "NoiseScan", "bandwidth", "whitened_variance"]

MAX_BYTES = 1 << 30
DAMAGED = 10.0
"""Energy of a line in a coil, relative to the median of all lines. Noise of 24 samples varies by a fifth."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Noise:
    """The result of a noise measurement."""

    covariance: Array
    """(coil, coil) complex64 NumPy, at the dwell time of the measurement."""
    dwell: float
    """µs; 0: not known."""
    notes: tuple[str, ...] = ()
    """Sentences on faults of the measurement, which were logged."""

    def at(self, dwell: float, relative_bandwidth: float) -> Array:
        """(coil, coil) complex64 NumPy: the covariance of samples with the dwell time `dwell`, µs."""
        return self.covariance / noise_scale(dwell, self.dwell, relative_bandwidth) ** 2


def whitened_variance(dwell: float) -> float:
    """Variance of complex noise in samples of the dwell time `dwell`, µs, that were whitened by a noise measurement.

    2 as Gadgetron scales: real and imaginary part have 1 each (Kellman and McVeigh 2005). On real scans it was 2.0 to
    2.3. It is 1 where the dwell time is not known (0), since nothing is scaled then.
    """
    return 2.0 if dwell > 0 else 1.0


@dataclass
class NoiseScan:
    """The noise lines that came so far."""

    lines: list[Lines] = field(default_factory=list)
    size: int = 0
    """Bytes."""
    damaged: int = 0
    """Lines with NaN or infinite samples, which were left out."""

    def add(self, lines: Lines) -> None:
        """Take lines, but for those with NaN or infinite samples. Raises InputError for a change of coil count, and for
        an absurd amount."""
        with naming("noise measurement"):
            self._check(lines)
        self.damaged += int(np.count_nonzero(~lines.finite))
        lines = take(lines, np.flatnonzero(lines.finite))
        if len(lines):
            self.size += lines.data.nbytes
            self.lines.append(lines)

    def _check(self, lines: Lines) -> None:
        require_samples(lines)
        if self.lines and lines.data.shape[1] != self.coils:
            raise InputError(
                f"acquisition {counter(lines)} has {lines.data.shape[1]} coils, the noise lines before it {self.coils}"
            )
        if self.size + lines.data.nbytes > MAX_BYTES:
            raise InputError(f"more than {MAX_BYTES >> 20} MiB of noise samples")

    def of_coils(self, coils: int | None) -> bool:
        """Return whether there is noise of so many coils."""
        return bool(self.lines) and self.coils == coils

    @property
    def coils(self) -> int:
        """The number of coils; of no use before the first line."""
        return int(self.lines[0].data.shape[1])

    @property
    def samples(self) -> int:
        """The number of samples of each coil."""
        return sum(run.data.shape[0] * run.data.shape[2] for run in self.lines)

    def measured(self) -> Noise:
        """The covariance of all noise samples together, but for lines that are damaged, of which it warns.

        It warns, too, of some coils without any noise: they get that of a usual one. Raises InputError for too few
        samples, and for no lines."""
        if not self.lines:
            raise InputError("the noise measurement has no line without NaN or infinite samples")
        runs, notes = _sound([to_numpy(run.data) for run in self.lines])
        if self.damaged:
            notes = (*notes, f"{self.damaged} noise lines have NaN or infinite samples and were left out")
        coil_samples = [np.moveaxis(run, 1, 0) for run in runs]
        samples = np.concatenate([block.reshape(block.shape[0], -1) for block in coil_samples], axis=-1)
        found = covariance(samples)
        variance = np.diagonal(found).real
        dead = np.flatnonzero(variance <= 0)
        if 0 < len(dead) < len(found):
            notes = (*notes, f"coils {dead.tolist()} (counted from 0) have no noise; they may be disconnected")
            found[dead, dead] = np.median(variance[variance > 0])
        for note in notes:
            _logger.warning("%s", note)
        return Noise(found, float(self.lines[0].headers["sample_time_us"][0]), notes)


def _sound(runs: list[NDArray[np.complex64]]) -> tuple[list[NDArray[np.complex64]], tuple[str, ...]]:
    """Return runs of noise (line, coil, sample) without lines that are much stronger than the others in some coil.

    With them a sentence on those lines, if there are any."""
    energies = [np.mean(np.abs(run.astype(np.complex128)) ** 2, axis=-1) for run in runs]
    bound = DAMAGED * np.median(np.concatenate(energies), axis=0)
    damaged = [(energy > bound).any(axis=1) for energy in energies]
    count, lines = sum(int(which.sum()) for which in damaged), sum(len(run) for run in runs)
    note = f"{count} of {lines} noise lines are much stronger than the others and were left out"
    return [run[~which] for run, which in zip(runs, damaged, strict=True)], (note,) if count else ()


def bandwidth(header: ismrmrdHeader) -> float:
    """The relative receiver noise bandwidth; Gadgetron's default where the header does not say."""
    system = header.acquisitionSystemInformation
    value = None if system is None else system.relativeReceiverNoiseBandwidth
    return RELATIVE_BANDWIDTH if value is None else float(value)
