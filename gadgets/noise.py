"""Prewhitening: after it, noise has the identity as its covariance in every coil of every imaging line.

Axes: line, coil, sample.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from ismrmrd.xsd import ismrmrdHeader

from gadgets.frame import LEFT_OUT
from gadgets.gadget import gadget
from gadgets.lines import Flag, Item, Lines, has_flag
from mrnets.errors import InputError
from mrnets.physics.arrays import Array, array_namespace, asarray_like, to_numpy
from mrnets.physics.coils import mix
from mrnets.physics.whiten import covariance, noise_scale, whitener

__all__ = ["NoiseScan", "bandwidth", "noise", "require_finite"]

Device = Literal["auto", "cpu", "cuda"]

MOST_NOISE_BYTES = 1 << 30

_logger = logging.getLogger(__name__)


@gadget(takes=("lines",), gives="lines")
def noise(stream: Iterable[Item], header: ismrmrdHeader, *, device: Device = "auto") -> Iterator[Item]:
    """Whiten imaging lines by the covariance of the noise lines (flag 19) before them; noise lines end here.

    Noise of a line is scaled for its dwell time and for the receiver's bandwidth (`physics.whiten.noise_scale`).
    Without noise lines data pass as they are, with a warning, and are not marked as whitened. `device`: where the
    samples go for this and all later gadgets; "auto" is a CUDA device if CuPy is installed and finds one.
    Raises InputError for a noise scan of another coil count or a singular covariance, and for NaN or infinite samples.
    """
    to_device = _mover(device)
    scan = NoiseScan()
    whiten: Callable[[Lines], Lines] | None = None
    for item in stream:
        if not isinstance(item, Lines):
            yield item
        elif has_flag(item.headers, Flag.IS_NOISE_MEASUREMENT).any():
            if whiten is None:
                scan.add(item)
            else:
                _logger.debug("noise: a noise measurement after the first imaging line is ignored, as Gadgetron does")
        else:
            require_finite(item, "noise")
            item = replace(item, data=to_device(item.data))
            if item.whitened or has_flag(item.headers, *LEFT_OUT).all():
                yield item
                continue
            whiten = whiten or _whitening(scan, bandwidth(header))
            yield whiten(item)


@dataclass
class NoiseScan:
    """Noise lines so far."""

    lines: list[Lines] = field(default_factory=list)
    size: int = 0

    def add(self, lines: Lines) -> None:
        """Raises InputError for NaN or infinite samples, for a change of coil count, and for an absurd amount."""
        require_finite(lines, "noise measurement")
        if self.lines and lines.data.shape[1] != self.lines[0].data.shape[1]:
            raise InputError(
                f"noise measurement: acquisition {lines.headers['scan_counter'][0]} has {lines.data.shape[1]} coils, "
                f"the noise lines before it {self.lines[0].data.shape[1]}"
            )
        self.size += lines.data.nbytes
        if self.size > MOST_NOISE_BYTES:
            raise InputError(f"noise measurement: more than {MOST_NOISE_BYTES >> 20} MiB of noise samples")
        self.lines.append(lines)

    @property
    def dwell(self) -> float:
        """µs."""
        return float(self.lines[0].headers["sample_time_us"][0])

    def covariance(self) -> Array:
        """(coil, coil) complex64 NumPy, of all noise samples together."""
        coil_samples = [np.moveaxis(to_numpy(run.data), 1, 0) for run in self.lines]
        samples = np.concatenate([block.reshape(block.shape[0], -1) for block in coil_samples], axis=-1)
        return covariance(samples)


def bandwidth(header: ismrmrdHeader) -> float:
    """The relative receiver noise bandwidth; 0.793, as Gadgetron has it, where the header does not say."""
    system = header.acquisitionSystemInformation
    value = None if system is None else system.relativeReceiverNoiseBandwidth
    return 0.793 if value is None else float(value)


def require_finite(lines: Lines, stage: str) -> None:
    """Raises InputError naming the first acquisition with a NaN or infinite sample."""
    xp = array_namespace(lines.data)
    flat = xp.reshape(lines.data, (-1,))
    with np.errstate(over="ignore", invalid="ignore"):
        if bool(xp.isfinite(xp.vdot(flat, flat).real)):  # one pass at memory speed; look closer only if this fails
            return
    bad = to_numpy(~xp.all(xp.isfinite(lines.data), axis=(1, 2)))
    if bad.any():
        counter = int(lines.headers["scan_counter"][int(np.argmax(bad))])
        raise InputError(f"{stage}: acquisition {counter} (scan_counter) has NaN or infinite samples")


def _whitening(scan: NoiseScan, relative_bandwidth: float) -> Callable[[Lines], Lines]:
    """The whitening of a block of imaging lines, by a matrix that is computed once."""
    if not scan.lines:
        _logger.warning("noise: no noise measurement before the first imaging line; data are not prewhitened")
        return lambda lines: lines
    matrix = whitener(scan.covariance())

    def whiten(lines: Lines) -> Lines:
        coils = lines.data.shape[1]
        if coils != matrix.shape[0]:
            raise InputError(
                f"noise: acquisition {lines.headers['scan_counter'][0]} has {coils} coils, "
                f"but the noise measurement has {matrix.shape[0]}"
            )
        xp = array_namespace(lines.data)
        dwells, which = np.unique(lines.headers["sample_time_us"], return_inverse=True)
        scales = np.asarray([noise_scale(float(dwell), scan.dwell, relative_bandwidth) for dwell in dwells], np.float32)
        scaled = asarray_like(matrix * scales[0], lines.data, dtype=xp.complex64)
        # One large product for a block, rather than one for each line: on a busy machine the threads of BLAS wait for
        # each other at each product, which was measured to take ten times as long.
        data = xp.permute_dims(mix(scaled, xp.permute_dims(lines.data, (1, 0, 2))), (1, 0, 2))
        if len(dwells) > 1:
            data = data * asarray_like((scales / scales[0])[which], lines.data)[:, None, None]
        return replace(lines, data=data, whitened=True)

    return whiten


def _mover(device: Device) -> Callable[[Array], Array]:
    """What brings a block to the device. Raises InputError if "cuda" is asked for in vain."""
    if device == "cpu":
        return lambda x: x
    cupy = _cupy()
    if cupy is not None:
        return cupy.asarray
    if device == "cuda":
        raise InputError("noise: device is cuda, but CuPy is not installed or finds no CUDA device; use cpu or auto")
    return lambda x: x


def _cupy() -> Any:
    """CuPy, or None where it is not installed or there is no device."""
    try:
        import cupy
    except ImportError:
        return None
    try:
        return cupy if cupy.cuda.runtime.getDeviceCount() > 0 else None
    except cupy.cuda.runtime.CUDARuntimeError:
        return None
