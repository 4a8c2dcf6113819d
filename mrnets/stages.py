"""Stages on the way from raw k-space to a network's input: whiten, compress, crop, sensitivities. Any array library.

The gadgets call them one by one, `mrnets.prepare` those that are still to be done. Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mrnets.contract import Raw
from mrnets.errors import InputError, counted, unknown
from mrnets.physics import compress, espirit, whiten
from mrnets.physics.arrays import Array, array_namespace, asarray_like, device, to_numpy
from mrnets.physics.coils import mix, norm
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.interpolation import along
from mrnets.physics.low_resolution import rss_maps, unitary_maps
from mrnets.preparation import Compression, Sensitivities

__all__ = [
    "coils_needed",
    "complete_axes",
    "compress_raw",
    "compression",
    "crop_raw",
    "mixed_raw",
    "sense_later",
    "sense_raw",
    "whiten_raw",
]

MAX_CROPPED = 0.3
"""Share of a slice's energy that may have eigenvalues below ESPIRiT's crop."""
MIN_FOLDED = 0.002
"""Share of a slice's energy that is folded where it gets a second set of maps."""
PART = 16
"""Readout positions of a volume that are mixed at once."""
STEP = 4
"""Steps in which the number of virtual coils follows the noise."""

_logger = logging.getLogger(__name__)


def whiten_raw(raw: Raw, covariance: Array) -> Raw:
    """Return `raw` with coils mixed so that noise of `covariance` (coil, coil) becomes white (Pruessmann 2001, app. A).

    Raises InputError for data that are whitened or compressed, or have sensitivities."""
    if raw.whitened:
        raise InputError("prewhitening: these data are whitened already")
    if raw.sens is not None or raw.compressed:
        raise InputError("prewhitening must come before coil compression and before coil sensitivities")
    matrix = whiten.whitener(covariance)
    return mixed_raw(raw, lambda kspace: mix(matrix, kspace), whitened=True)


def mixed_raw(raw: Raw, apply: Callable[[Array], Array], **done: Any) -> Raw:
    """Return `raw` with its coils mixed by `apply`, and with the fields `done` that record it.

    apply: (..., coil, y, x) to (..., coils, y, x); k-space and calibration go through it alike."""
    calibration = None if raw.calibration is None else apply(raw.calibration)
    return dataclasses.replace(raw, kspace=apply(raw.kspace), calibration=calibration, noise=None, **done)


def compress_raw(
    raw: Raw,
    coils: int,
    method: Compression = "auto",
    options: compress.Gdcc = compress.DEFAULT,
) -> Raw:
    """`raw` with `coils` virtual coils, k-space and calibration by the same matrices; unchanged if it has that many.

    Matrices come from the middle `options.lines` calibration lines, or from the sampled k-space where there are none.
    Noise stays white, since every matrix has orthonormal rows.
    """
    if coils == raw.kspace.shape[-3]:
        return raw
    name, apply = compression(raw, coils, method, options)
    return mixed_raw(raw, apply, compressed=name)


def compression(
    raw: Raw, coils: int, method: Compression, options: compress.Gdcc
) -> tuple[str, Callable[[Array], Array]]:
    """How the coils of `raw` are compressed, and what compresses any k-space of the same scan. See `compress_raw`.

    Raises InputError for more coils than there are, for a scan compressed before, and for gdcc without a readout.
    """
    have = raw.kspace.shape[-3]
    if coils > have:
        raise InputError(
            f"coil compression: {counted(coils, 'virtual coil')} asked for, but the data have {counted(have, 'coil')}"
        )
    if raw.compressed:
        raise InputError(f"coil compression: already compressed to {counted(have, 'coil')}, now {coils} asked for")
    if raw.sens is not None:
        raise InputError("coil compression must come before coil sensitivities")
    method, block = _method_and_block(raw, method, options)
    if method == "svd":
        matrices = compress.svd_matrix(block, coils)[:, None]  # the same for every echo
        return method, lambda kspace: mix(matrices, kspace)
    if raw.readout == "batch":
        matrices = compress.gdcc_hybrid_matrices(block, coils, options)[:, None]
        return method, lambda kspace: _mixed_in_parts(matrices, kspace)
    matrices = compress.gdcc_matrices(block, coils, options, size=raw.kspace.shape[-1])[:, None]
    return method, lambda kspace: compress.compress(kspace, matrices)


def _mixed_in_parts(matrices: Array, kspace: Array) -> Array:
    """`coils.mix` of a volume: part by part along its readout, so that no copy of all of it is needed."""
    xp = array_namespace(kspace)
    parts = [slice(n, n + PART) for n in range(0, len(kspace), PART)]
    whole = xp.empty(
        (*kspace.shape[:2], matrices.shape[-2], *kspace.shape[-2:]), dtype=kspace.dtype, device=device(kspace)
    )
    for part in parts:
        whole[part] = mix(matrices[part], kspace[part])
    return whole


def coils_needed(
    raw: Raw, share: float, method: Compression = "auto", options: compress.Gdcc = compress.DEFAULT
) -> list[int]:
    """The number of virtual coils with which compression loses signal worth less than `share` of the noise's energy.

    There is a number for each slice, and a single one for a volume.
    That is the energy of the noise in one image. All coils are needed where the noise is not known or there are no
    calibration lines. In steps of 4, so that most slices of a scan have the same number. Raises InputError as
    `compress_raw` does.
    """
    have: int = raw.kspace.shape[-3]
    if not raw.whitened or raw.calibration is None:
        return [have] * (1 if raw.readout == "batch" else len(raw.kspace))
    method, block = _method_and_block(raw, method, options)
    variance = raw.variance / raw.averages
    limit = share * variance * raw.kspace.shape[-2] * raw.kspace.shape[-1]
    if method == "gdcc" and raw.readout == "batch":
        found = compress.fewest_hybrid(block, limit * raw.kspace.shape[0], variance, options)
    else:
        size = None if method == "svd" else raw.kspace.shape[-1]
        found = compress.fewest(block, limit, variance, options, size=size)
    counts = [min(-(-max(n, 1) // STEP) * STEP, have) for n in found.tolist()]
    return [max(counts)] if raw.readout == "batch" else counts


def _method_and_block(raw: Raw, method: Compression, options: compress.Gdcc) -> tuple[Compression, Array]:
    """The method in place of "auto", and the calibration (batch, coil, y, x) that its matrices come from."""
    if method == "auto":
        method = "svd" if raw.readout is None else "gdcc"
    if method == "gdcc" and raw.readout is None:
        raise InputError("coil compression: gdcc needs a fully sampled readout; use svd")
    block = (raw.kspace if raw.calibration is None else raw.calibration)[:, 0]
    if options.lines is not None:
        axes = (-2,) if raw.readout == "x" else (-2, -1)
        block = resize(block, [min(options.lines, block.shape[axis]) for axis in axes], axes)
    return method, block


def complete_axes(mask: Array) -> tuple[bool, bool]:
    """Whether axis y, and axis x, of a mask (..., y, x) is sampled completely or not at all, and can be transformed."""
    sampled = np.asarray(to_numpy(mask), dtype=bool)
    y, x = (bool((sampled.any(axis=axis) == sampled.all(axis=axis)).all()) for axis in (-2, -1))
    return y, x


def crop_raw(raw: Raw, *, image: tuple[int, int] | None = None, kspace: tuple[int, int] | None = None) -> Raw:
    """`raw` with at most `image` pixels (y, x) in the middle of its field of view, then at most `kspace` samples.

    Nothing is filled up to either; k-space samples (of `kspace`) or pixels (of `image`) keep their values. A field of
    view is cropped by the transform along the axis, which therefore has to be fully sampled: InputError for another.
    Calibration is cropped likewise. Sensitivities that came from it are left out where `kspace` changes the pixel
    size, to be estimated again; given ones are interpolated.
    """
    for n, (axis, name) in enumerate(((-2, "y"), (-1, "x"))):
        size, wanted = raw.kspace.shape[axis], image[n] if image else raw.kspace.shape[axis]
        if wanted >= size:
            continue
        if not complete_axes(raw.mask)[n]:
            raise InputError(
                f"image crop from {size} to {wanted} pixels along {name}: that axis is undersampled, and k-space of a "
                "smaller field of view cannot be had from it; crop before the mask is applied"
            )
        raw = _narrowed(raw, axis, wanted)
    old = tuple(raw.kspace.shape[-2:])
    new = old if kspace is None else tuple(min(n, m) for n, m in zip(old, kspace, strict=True))
    return raw if new == old else _coarser(raw, new)


def _narrowed(raw: Raw, axis: int, size: int) -> Raw:
    """The middle `size` pixels along an axis that is fully sampled."""

    def narrowed(x: Array) -> Array:
        return fftc(resize(ifftc(x, (axis,)), (size,), (axis,)), (axis,))

    whole = raw.kspace.shape[axis]
    calibration = raw.calibration
    if calibration is not None:  # its samples lie as far apart as those of k-space, and so do they afterwards
        width = max(calibration.shape[axis] * size // whole, 1)
        calibration = resize(narrowed(resize(calibration, (whole,), (axis,))), (width,), (axis,))
    return dataclasses.replace(
        raw,
        kspace=narrowed(raw.kspace),
        mask=resize(raw.mask, (size,), (axis,)),
        calibration=calibration,
        sens=None if raw.sens is None else resize(raw.sens, (size,), (axis,)),
    )


def _coarser(raw: Raw, shape: tuple[int, ...]) -> Raw:
    """The middle samples of k-space."""
    calibration, sens = raw.calibration, raw.sens
    again = calibration is not None and raw.sens_method != "given"
    if sens is not None and not again:
        sens = _resampled(sens, shape)
    if calibration is not None:
        block = [min(n, m) for n, m in zip(calibration.shape[-2:], shape, strict=True)]
        calibration = resize(calibration, block)
    return dataclasses.replace(
        raw,
        kspace=resize(raw.kspace, shape),
        mask=resize(raw.mask, shape),
        calibration=calibration,
        sens=None if again else sens,
        sens_method=None if again else raw.sens_method,
    )


def _resampled(sens: Array, shape: tuple[int, ...]) -> Array:
    """Sensitivities on fewer pixels of the same field of view, linearly interpolated; unit norm where there are any."""
    xp = array_namespace(sens)
    for axis, m in zip((sens.ndim - 2, sens.ndim - 1), shape, strict=True):
        n = sens.shape[axis]
        place = np.clip((np.arange(m) - m // 2) * n / m + n // 2, 0, n - 1)
        sens = along(np.maximum(1 - np.abs(place[:, None] - np.arange(n)), 0), sens, axis)
    power = xp.sum(xp.abs(sens) ** 2, axis=-3, keepdims=True)
    return sens / xp.sqrt(xp.where(power > 0, power, xp.ones_like(power)))


def sense_raw(
    raw: Raw,
    method: Sensitivities = "espirit",
    options: espirit.Espirit = espirit.DEFAULT,
) -> Raw:
    """`raw` with sensitivities from its calibration lines. Raises InputError for a scan without such lines.

    Where `options.sets` is 2, ESPIRiT adds a second set of maps to slices whose object is larger than the field of
    view. Other slices have zeros there. A scan without such slices has one set.

    With few calibration lines for many coils, much of the object can have eigenvalues below ESPIRiT's crop. Such slices
    keep all of their maps, with a warning, because a noisy background is better than a missing head.
    """
    lines = _calibration(raw)[:, 0]
    shape = raw.kspace.shape[-2:]
    if method == "espirit":
        known = raw.whitened and raw.calibration_images == 1
        sens = _espirit(lines, shape, options, math.sqrt(raw.variance / raw.averages) if known else None)
    elif method == "rss":
        sens = rss_maps(lines, shape, width=options.calibration)[:, None]
    elif method == "unitary":
        sens = unitary_maps(lines, shape)[:, None]
    else:
        raise unknown("method for coil sensitivities", method, ("espirit", "rss", "unitary"))
    return dataclasses.replace(raw, sens=sens, sens_method=method)


def sense_later(raw: Raw, method: Sensitivities, options: espirit.Espirit) -> Raw:
    """`raw` of which sensitivities are to be estimated where they are needed. Raises InputError without calibration
    lines."""
    _calibration(raw)
    return dataclasses.replace(raw, sens_method=method, sens_options=options)


def _calibration(raw: Raw) -> Array:
    if raw.calibration is None:
        raise InputError("coil sensitivities: the scan has no calibration lines (no fully sampled centre of k-space)")
    return raw.calibration


def _espirit(lines: Array, shape: tuple[int, ...], options: espirit.Espirit, noise: float | None) -> Array:
    """(batch, set, coil, y, x)."""
    if min(options.sets, lines.shape[-3]) == 1:  # maps of one coil cannot be orthogonal
        sens, shares = espirit.espirit(lines, shape, options, noise=noise, finite=True), []
    else:
        sens, share = espirit.espirit_and_folded(lines, shape, options, noise=noise, finite=True)
        shares = [share]
    xp = array_namespace(sens)
    shares = [_cropped(lines, sens), *shares]
    cropped, *folded = to_numpy(xp.stack(shares))  # a device is asked once: these are not finite where lines are not
    if not np.isfinite(cropped).all():  # or where the squares of finite lines overflow
        espirit.require_finite(bool(xp.all(xp.isfinite(lines))))
    empty = cropped > MAX_CROPPED
    if empty.any():
        _logger.warning(
            "coil sensitivities: %s calibration lines do not carry the maps of %d coils; the background is kept",
            "x".join(map(str, lines.shape[-2:])),
            lines.shape[-3],
        )
        uncropped = espirit.espirit(lines, shape, dataclasses.replace(options, crop=0.0), noise=noise, finite=True)
        sens = xp.where(asarray_like(empty, sens)[:, None, None, None], uncropped, sens)
    sens = sens[:, None]
    places = np.flatnonzero((folded[0] > MIN_FOLDED) & ~empty) if folded else np.array([], int)
    if not len(places):
        return sens
    both = xp.concat((sens, xp.zeros_like(sens)), axis=1)
    where = asarray_like(places, sens)
    both[where] = espirit.espirit(xp.take(lines, where, axis=0), shape, options, noise=noise, maps=2, finite=True)
    return both


def _cropped(calibration: Array, sens: Array) -> Array:
    """(batch,): the share of the calibration lines' energy, seen on every fourth pixel, where eigenvalues are below the
    crop."""
    xp = array_namespace(calibration)
    offsets = [n // 2 % 4 for n in sens.shape[-2:]]  # the pixel at n // 2 is one of them
    kept = norm(sens[..., offsets[0] :: 4, offsets[1] :: 4]) >= espirit.AT_CROP
    # From this grid's centre to where n // 2 has come, which is not its own m // 2 where n is not a multiple of 4.
    images = ifftc(resize(calibration, kept.shape[-2:]))
    shift = [n // 2 // 4 - m // 2 for n, m in zip(sens.shape[-2:], kept.shape[-2:], strict=True)]
    energy = xp.roll(xp.sum(xp.abs(images) ** 2, axis=1), shift, axis=(-2, -1))
    total = xp.sum(energy, axis=(-2, -1))
    zero = xp.zeros_like(energy)
    return xp.sum(xp.where(kept, zero, energy), axis=(-2, -1)) / xp.where(total > 0, total, xp.ones_like(total))
