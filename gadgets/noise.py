"""Prewhitening: after it, noise has the identity as its covariance in every coil of every imaging line.

Axes: line, coil, sample.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from ismrmrd.xsd import ismrmrdHeader

from gadgets.device_memory import share
from gadgets.gadget import gadget
from gadgets.speaker import note, warn
from mrnets.errors import InputError, counted
from mrnets.mrd.flags import DOUBTFUL, LEFT_OUT, Flag, has_flag
from mrnets.mrd.lines import Item, Lines
from mrnets.mrd.noise import Noise, NoiseScan, bandwidth
from mrnets.mrd.plausible import DWELL
from mrnets.mrd.spare import Spare
from mrnets.physics.arrays import Array, array_namespace, asarray_like, is_numpy_array
from mrnets.physics.whiten import noise_scale, whitener

__all__ = ["noise", "on_host"]

Device = Literal["auto", "cpu", "cuda"]

_logger = logging.getLogger(__name__)


@gadget(takes=("lines",), gives="lines")
def noise(
    stream: Iterable[Item], header: ismrmrdHeader, *, device: Device = "auto", whiten: bool = True
) -> Iterator[Item]:
    """Whiten imaging lines by the covariance of the noise lines (flag 19) before them; noise lines end here.

    Noise of a line is scaled for its dwell time and for the receiver's bandwidth (`physics.whiten.noise_scale`).
    An item `Noise`, which a host puts in front, is the noise of another scan, and is taken instead.
    Without noise data pass as they are, with a warning, and are not marked as whitened. `device`: where the
    samples go for this and all later gadgets; "auto" is a CUDA device if CuPy is installed and finds one.
    `whiten`: false passes all lines as they are; the network gadget whitens them if its weights file asks for that.
    Then an item `Noise` is left out.
    Lines of another coil count than the noise pass as they are, and `sort` leaves them out.
    Raises InputError for noise lines of different coil counts, and for a singular covariance.
    """
    to_device = _mover(device)
    scan, given = NoiseScan(), None
    whitening: Callable[[Lines], Lines] | None = None if whiten else lambda lines: lines
    for item in stream:
        if isinstance(item, Noise):
            given = item
        elif not isinstance(item, Lines):
            yield item
        elif has_flag(item.headers, Flag.IS_NOISE_MEASUREMENT).any():
            if not whiten:
                yield item
            elif whitening is None:
                scan.add(item)
            else:
                warn("noise lines after the first imaging line were ignored, as Gadgetron does", log=_logger)
        else:
            data = to_device(item.data)
            item = item if data is item.data else replace(item, data=data)
            unused = has_flag(item.headers, *LEFT_OUT) & ~has_flag(item.headers, Flag.IS_PHASECORR_DATA)
            if item.whitened or unused.all() or _of_other_coils(item, scan, given):
                yield item
                continue
            whitening = whitening or _whitening(_chosen(scan, given, item.data.shape[1]), bandwidth(header))
            yield whitening(item)


def _of_other_coils(lines: Lines, scan: NoiseScan, given: Noise | None) -> bool:
    """Whether lines may be a surface coil correction scan, to which the noise measurement does not apply."""
    doubtful = has_flag(lines.headers, DOUBTFUL).all()
    known = [scan.coils] if scan.lines else []
    known += [] if given is None else [len(given.covariance)]
    return bool(doubtful and lines.data.shape[1] not in known)


def _chosen(scan: NoiseScan, given: Noise | None, coils: int) -> Noise | None:
    """The noise of another scan if it is of as many coils, or else the scan's own; None where neither can be used."""
    if given is not None:
        if len(given.covariance) == coils:
            return given
        there = len(given.covariance)
        warn(
            f"the noise of another scan is not used: it is of {counted(there, 'coil')}, and this scan has {coils}",
            log=_logger,
        )
    if not scan.lines and scan.damaged:
        warn("all noise lines have NaN or infinite samples; data are not prewhitened", log=_logger)
        return None
    if not scan.lines:
        warn("no noise measurement before the first imaging line; data are not prewhitened", log=_logger)
        return None
    if reason := _unusable(scan, coils):
        warn(f"the noise measurement is not used, and data are not prewhitened: {reason}", log=_logger)
        return None
    measured = scan.measured()
    for fault in measured.notes:
        note(fault)
    return measured


def _unusable(scan: NoiseScan, coils: int) -> str:
    """Why the noise of a scan of so many coils cannot be used; empty if it can."""
    if scan.coils != coils:
        return f"it is of {counted(scan.coils, 'coil')}, and the first line of an image has {coils}"
    return f"{counted(scan.samples, 'sample')} of {counted(coils, 'coil')}: too few" if scan.samples <= coils else ""


def _whitening(noise: Noise | None, relative_bandwidth: float) -> Callable[[Lines], Lines]:
    """The whitening of a block of imaging lines, by a matrix that is computed once."""
    if noise is None:
        return lambda lines: lines
    if noise.dwell and not DWELL[0] <= noise.dwell <= DWELL[1]:
        warn(f"the dwell time of the noise measurement is {noise.dwell:g} µs, which is absurd", log=_logger)
    matrix, spare = whitener(noise.covariance), Spare()

    @np.errstate(invalid="ignore", over="ignore")  # `sort` leaves lines out that are not finite
    def whiten(lines: Lines) -> Lines:
        if lines.data.shape[1] != len(matrix):
            return lines
        xp = array_namespace(lines.data)
        dwells, which = np.unique(lines.headers["sample_time_us"], return_inverse=True)
        scales = np.asarray(
            [noise_scale(float(dwell), noise.dwell, relative_bandwidth) for dwell in dwells], np.float32
        )
        scaled = asarray_like(matrix * scales[0], lines.data, dtype=xp.complex64)
        # A product for each line needs no copies: less than half of the time of one large product for the block. It
        # needs OpenBLAS with one thread, which `mrnets.threads` sets; several would wait for each other at each line.
        room = spare.empty(lines.data.shape) if is_numpy_array(lines.data) else None
        data = xp.matmul(scaled, lines.data, out=room)
        if len(dwells) > 1:
            data *= asarray_like((scales / scales[0])[which], lines.data)[:, None, None]
        return replace(lines, data=data, whitened=True)

    return whiten


def on_host(device: str) -> bool:
    """Return whether samples stay in the host's memory, by the property `device` of the gadget noise."""
    return device.strip() == "cpu" or _cupy() is None


def _mover(device: Device) -> Callable[[Array], Array]:
    """The function that brings a block to the device. Raises InputError if "cuda" is asked for and not available."""
    if device == "cpu":
        return lambda x: x
    cupy = _cupy()
    if cupy is not None:
        share(cupy)
        move: Callable[[Array], Array] = cupy.asarray
        return move
    if device == "cuda":
        raise InputError("device is cuda, but CuPy is not installed or finds no CUDA device; give cpu or auto")
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
