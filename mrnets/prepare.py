"""From raw k-space to what a network was trained on, and back. The same code runs in training and on the scanner.

A weights file carries its `Preparation`. `prepare` completes what the stages before it have not done yet, and refuses
data on which a stage did something else than the network was trained with. Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from array_api_compat import is_cupy_array, is_numpy_array
from torch.utils.dlpack import from_dlpack

from mrnets.contract import Raw, Scan
from mrnets.ending import consistent, ended
from mrnets.errors import InputError
from mrnets.noise import unpredictable
from mrnets.physics import whiten
from mrnets.physics.arrays import Array
from mrnets.physics.coils import mix, reduce, rss
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.normalise import normalised, scale_and_offset
from mrnets.preparation import Combination, Compression, Plane, Preparation, Sensitivities
from mrnets.restore import Prepared, restore
from mrnets.stages import complete_axes, compress_raw, compression, crop_raw, mixed_raw, sense_raw, whiten_raw

__all__ = [
    "Compression",
    "Preparation",
    "Prepared",
    "Sensitivities",
    "coil_transform",
    "combine",
    "compress_raw",
    "consistent",
    "crop_raw",
    "cropped",
    "ended",
    "mixed_blocks",
    "prepare",
    "prepare_blocks",
    "prepare_image",
    "restore",
    "sense_raw",
    "to_torch",
    "whiten_raw",
]

LEFT = "the chain network.xml leaves that to the weights file"
"""The way out where an earlier stage did what the network was not trained with."""
ESTIMATED_FROM = 8
"""Slices, evenly spaced, from which an unknown noise level is estimated."""

_logger = logging.getLogger(__name__)


def prepare(
    raw: Raw, preparation: Preparation, *, image: Array | None = None, device: torch.device | str | None = None
) -> Prepared:
    """`raw` (of any array library) as the torch Scan that a network with this `preparation` was trained on.

    `image` (batch, echo, y, x) complex64: an earlier network's estimate from the same `raw`, restored; becomes
    `scan.image`, in the scale and with the phase of the scan, for networks that start from it.
    Runs on `device`; None: where the data are. CuPy arrays come over without a copy. Raises InputError where an earlier
    stage contradicts `preparation`, or where the data cannot fulfil it (too few coils, no calibration lines).
    """
    (whole,) = prepare_blocks(raw, preparation, image=image, device=device)
    return whole


def prepare_blocks(
    raw: Raw,
    preparation: Preparation,
    *,
    image: Array | None = None,
    size: int | None = None,
    device: torch.device | str | None = None,
) -> Iterator[Prepared]:
    """As `prepare`, in blocks of at most `size` along the batch, one at a time, with the result that the whole has.

    Sensitivities, normalised k-space and images, which together take several times the memory of `raw`, are there for
    one block only. Whitening and coil compression, which look at the whole scan, come before.
    """
    raw, _ = coil_transform(to_torch(raw, device), preparation)
    yield from mixed_blocks(raw, preparation, image=image, size=size)


def coil_transform(raw: Raw, preparation: Preparation) -> tuple[Raw, Callable[[Array], Array]]:
    """`raw` (torch) with its coils whitened and compressed, and what does the same to any k-space of that scan.

    Raises InputError as `prepare` does.
    """
    steps: list[Callable[[Array], Array]] = []
    if preparation.sens == "none":
        raw = dataclasses.replace(raw, sens=None, sens_method=None)
    if (covariance := _covariance(raw, preparation)) is not None:
        matrix = whiten.whitener(covariance)
        raw = whiten_raw(raw, covariance)
        steps.append(lambda kspace: mix(matrix, kspace))
    if _compresses(raw, preparation):
        assert preparation.coils is not None
        name, compressed = compression(raw, preparation.coils, preparation.compression, preparation.gdcc)
        raw = mixed_raw(raw, compressed, compressed=name)
        steps.append(compressed)
    if raw.whitened and preparation.whiten_scale != 1:
        raw = mixed_raw(raw, lambda kspace: kspace * preparation.whiten_scale)
        steps.append(lambda kspace: kspace * preparation.whiten_scale)
    return raw, lambda kspace: functools.reduce(lambda x, step: step(x), steps, kspace)


def mixed_blocks(
    raw: Raw, preparation: Preparation, *, image: Array | None = None, size: int | None = None
) -> Iterator[Prepared]:
    """As `prepare_blocks`, for a scan whose coils `coil_transform` has mixed."""
    noise, notes = _noise(raw, preparation)
    coil = _virtual_coil(raw)
    batch = raw.kspace.shape[0]
    for start in range(0, batch, size or max(batch, 1)):
        part = slice(start, start + (size or batch))
        own = None if coil is None else coil[part]
        block = _block(
            _part(raw, part), own, _of(image, part, raw), preparation, None if noise is None else noise[part]
        )
        yield dataclasses.replace(block, notes=(*block.notes, *notes))


def prepare_image(image: Array, preparation: Preparation) -> Prepared:
    """Images (batch, contrast, [z,] y, x), complex or real, of any array library, as the Scan of a network on images.

    z is there where `preparation.slices` is more than 1, and is that number: the neighbouring slices. Each contrast of
    each sample is normalised by itself, since contrasts have units of their own: magnitudes as real images, with an
    offset. A crop of k-space is made before the magnitude is taken. Raises InputError for other axes or contrasts.
    """
    (x,) = _tensors((image,), None)
    _check_image(x, preparation)
    x = x.to(torch.complex64 if x.is_complex() else torch.float32)
    whole = (x.shape[-2], x.shape[-1])
    view = _at_most(whole, preparation.image_crop)
    size = _at_most(view, preparation.kspace_crop)
    x = resize(x, view)
    if size != view:
        coarse = ifftc(resize(fftc(x + 0j), size))
        x = coarse if x.is_complex() else coarse.real
    if preparation.image == "magnitude" and x.is_complex():
        x = x.abs()
    values = x if preparation.normalise == "image" else fftc(x + 0j)
    scale, offset = scale_and_offset(values.flatten(2), preparation.normalisation)
    phase = torch.ones((len(x), *size), device=x.device)
    beyond = None if size == whole else whole
    scan = Scan(image=normalised(x, scale, offset))
    return Prepared(scan, scale, phase, offset, beyond, view, _black(whole, view))


def combine(coil_images: Array, sens: Array | None, combination: Combination = "sense") -> Any:
    """Coil images (..., coil, y, x) to one image (..., y, x) of their dtype, as `Preparation.combination` says; without
    sensitivities by the root of the sum of squares."""
    if sens is None or combination == "rss":
        return rss(coil_images).to(coil_images.dtype)
    return reduce(coil_images, sens)


def to_torch(raw: Raw, device: torch.device | str | None = None) -> Raw:
    """`raw` with torch tensors on `device` (None: where they are); no copy where the memory can be shared."""
    names = [f.name for f in dataclasses.fields(raw)]
    values = _tensors([getattr(raw, name) for name in names], device)
    return dataclasses.replace(raw, **dict(zip(names, values, strict=True)))


def _tensors(values: Iterable[Any], device: torch.device | str | None) -> Iterator[Any]:
    """Arrays as tensors; what is no array stays."""
    for x in values:
        if is_numpy_array(x):
            x = torch.from_numpy(x if x.flags.writeable else x.copy())
        elif is_cupy_array(x):
            x = from_dlpack(x)
        yield x if device is None or not isinstance(x, torch.Tensor) else x.to(device)


def _covariance(raw: Raw, preparation: Preparation) -> Array | None:
    """The noise by which `raw` is still to be whitened; None: by none."""
    if preparation.whiten == "none":
        if raw.whitened:
            raise InputError("the network wants data that are not prewhitened: set noise.whiten=false")
        return None
    if raw.whitened:
        return None
    if raw.noise is not None or preparation.whiten != "periphery":
        return raw.noise
    return _periphery(raw, preparation)


def _noise(raw: Raw, preparation: Preparation) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """Standard deviation (batch,) of complex noise in a sample of one coil, and a note where it was not measured.

    Whitened data have the root of their variance, less by averaging. Other data are looked at: slices one by one, since
    those of a training batch come from several scans, and a volume as a whole.
    """
    batch = raw.kspace.shape[0]
    if raw.whitened:
        level = preparation.whiten_scale * math.sqrt(raw.variance / raw.averages)
        return torch.full((batch,), level, device=raw.kspace.device), ()
    if raw.readout == "batch":
        found = [_estimated(raw)] * batch
    else:
        found = [_estimated(_part(raw, slice(n, n + 1))) for n in range(batch)]
    levels, notes = [level for level, _ in found if level is not None], tuple(dict.fromkeys(n for _, n in found if n))
    return (torch.tensor(levels, device=raw.kspace.device) if len(levels) == batch else None), notes


def _estimated(raw: Raw) -> tuple[float | None, str]:
    """The noise level of unwhitened data, and where it came from.

    That is the calibration lines of the middle slice, or the periphery of k-space of a few slices, by the mean over the
    coils.
    """
    if raw.calibration is not None and (seen := unpredictable(raw.calibration[len(raw.calibration) // 2, 0])):
        return seen, "the noise level was estimated from the calibration lines"
    step = max(len(raw.kspace) // ESTIMATED_FROM, 1)
    try:
        covariance = whiten.periphery_covariance(raw.kspace[::step, :1])
    except InputError:
        return None, "the noise level is not known"
    level = math.sqrt(float(covariance.diagonal().real.mean()))
    return level, "the noise level was estimated from the periphery of k-space" if level else ""


def _periphery(raw: Raw, preparation: Preparation) -> Array:
    start, length = preparation.patch_start, preparation.patch_length
    return whiten.periphery_covariance(
        raw.kspace[:, :1], start=start, length=length
    )  # of the first echo, as calibration


def _compresses(raw: Raw, preparation: Preparation) -> bool:
    """Whether `raw` is still to be compressed. Raises InputError where its coils are not those of the network."""
    if preparation.coils is None:
        return False
    have = raw.kspace.shape[-3]
    if have < preparation.coils or (raw.compressed and have != preparation.coils):
        how = "compressed to" if raw.compressed else "has"
        way = f"; {LEFT}" if raw.compressed else ""
        raise InputError(f"the network takes {preparation.coils} coils, but the scan {how} {have}{way}")
    if raw.sens is not None and have != preparation.coils:
        raise InputError(
            f"the network takes {preparation.coils} virtual coils, and their compression must come before coil "
            f"sensitivities, which the scan has for {have} coils; {LEFT}"
        )
    if raw.compressed and preparation.compression not in ("auto", raw.compressed):
        raise InputError(
            f"the network was trained on coils compressed by {preparation.compression}, "
            f"but the chain used {raw.compressed}; {LEFT}"
        )
    return have != preparation.coils


def _part(raw: Raw, part: slice) -> Raw:
    """Part of the batch. Arrays that are the same for all of it stay."""
    arrays = ("kspace", "mask", "calibration", "sens")
    values = {name: getattr(raw, name) for name in arrays}
    same = raw.mask.shape[0] == 1 and raw.kspace.shape[0] > 1
    cut = {name: x if x is None or (name == "mask" and same) else x[part] for name, x in values.items()}
    return dataclasses.replace(raw, **cut)


def _of(image: Array | None, part: slice, raw: Raw) -> Any:
    """The part of `image`, on the device of `raw`."""
    return None if image is None else next(_tensors((image[part],), raw.kspace.device))


def _block(raw: Raw, coil: Any, image: Any, preparation: Preparation, noise: Any) -> Prepared:
    whole = (raw.kspace.shape[-2], raw.kspace.shape[-1])
    view, notes = _possible_view(raw, preparation.image_crop)
    raw = _sensed(cropped(raw, preparation), preparation)
    scale, phase = _scale(raw, preparation), _phase(raw, coil)
    if image is not None:
        view_image = resize(image, view)
        image = view_image if raw.kspace.shape[-2:] == view else ifftc(resize(fftc(view_image), raw.kspace.shape[-2:]))
        gain = preparation.whiten_scale if raw.whitened else 1.0
        image = image * (gain * phase.conj() / scale[:, None, None])[:, None]
    factor = (1 / scale)[:, None, None, None, None]
    scan = Scan(
        kspace=raw.kspace * factor,
        mask=raw.mask,
        sens=raw.sens,
        image=image,
        echo_times=raw.echo_times,
        calibration=None if raw.calibration is None else raw.calibration * factor,
        noise=None if noise is None else noise / scale,
    )
    scale = scale / preparation.whiten_scale if raw.whitened else scale
    beyond = None if tuple(raw.kspace.shape[-2:]) == whole else whole
    return Prepared(scan, scale, phase, None, beyond, view, (*notes, *_black(whole, view)))


def cropped(raw: Raw, preparation: Preparation) -> Raw:
    """`raw` with its field of view and its k-space cropped as `preparation` says, along axes where that can be had."""
    view, _ = _possible_view(raw, preparation.image_crop)
    return crop_raw(raw, image=view, kspace=preparation.kspace_crop)


def _possible_view(raw: Raw, crop: Plane | None) -> tuple[Plane, tuple[str, ...]]:
    """The field of view that can be had, and a note where it is not the one asked for."""
    whole = (raw.kspace.shape[-2], raw.kspace.shape[-1])
    wanted = _at_most(whole, crop)
    if wanted == whole:
        return whole, ()
    y, x = (m if complete else n for n, m, complete in zip(whole, wanted, complete_axes(raw.mask), strict=True))
    if (y, x) == wanted:
        return wanted, ()
    note = f"the network was trained on {wanted[0]} x {wanted[1]} pixels; undersampled axes are not cropped to that"
    return (y, x), (note,)


def _at_most(shape: Plane, crop: Plane | None) -> Plane:
    return shape if crop is None else (min(shape[0], crop[0]), min(shape[1], crop[1]))


def _black(whole: Plane, view: Plane) -> tuple[str, ...]:
    if view == whole:
        return ()
    return (f"the network sees the middle {view[0]} x {view[1]} of {whole[0]} x {whole[1]} pixels; the rest is zero",)


def _sensed(raw: Raw, preparation: Preparation) -> Raw:
    if preparation.sens == "none":
        return raw
    if raw.sens is None:
        return sense_raw(raw, preparation.sens, preparation.espirit)
    if raw.sens_method not in (preparation.sens, "given"):
        raise InputError(
            f"the network was trained with {preparation.sens} sensitivities, but the chain used {raw.sens_method}; "
            f"{LEFT}, or set coils.method={preparation.sens}"
        )
    return raw


def _scale(raw: Raw, preparation: Preparation) -> torch.Tensor:
    """(batch,): the divisor of k-space; 1 for an empty slice."""
    if preparation.normalisation in ("none", "fft"):
        return torch.ones(raw.kspace.shape[0], device=raw.kspace.device)
    if preparation.normalise == "kspace":
        where = raw.mask.expand(raw.kspace.shape)
        values = raw.kspace.flatten(1)
        return scale_and_offset(values, preparation.normalisation, where.flatten(1))[0]
    image = combine(ifftc(raw.kspace), raw.sens, preparation.combination)
    return scale_and_offset(image.flatten(1), preparation.normalisation)[0]


def _virtual_coil(raw: Raw) -> torch.Tensor | None:
    """(batch, coil): the strongest combination of the coils in the calibration lines; None without those."""
    if raw.calibration is None:
        return None
    lines = raw.calibration[:, 0].flatten(-2)
    gram = lines @ lines.mH
    if raw.readout == "batch":  # a volume has one virtual coil, not one for each readout position
        gram = gram.sum(0, keepdim=True)
    coil = torch.linalg.eigh(gram)[1][..., -1]
    largest = coil.gather(-1, coil.abs().argmax(-1, keepdim=True))
    return (coil * largest.conj()).expand(len(lines), -1)


def _phase(raw: Raw, coil: torch.Tensor | None) -> torch.Tensor:
    """`Prepared.phase`: 1 where there are no sensitivities, or none that were estimated from calibration lines."""
    batch, (height, width) = raw.kspace.shape[0], raw.kspace.shape[-2:]
    if raw.sens is None or coil is None or raw.sens_method == "given":
        return torch.ones(batch, height, width, dtype=raw.kspace.dtype, device=raw.kspace.device)
    seen = reduce(raw.sens[:, 0], coil.unsqueeze(-1).unsqueeze(-1))
    return torch.polar(torch.ones_like(seen.real), torch.angle(seen))


def _check_image(image: torch.Tensor, preparation: Preparation) -> None:
    axes = 4 if preparation.slices == 1 else 5
    names = "(batch, contrast, y, x)" if axes == 4 else f"(batch, contrast, {preparation.slices}, y, x)"
    shape = tuple(image.shape)
    if image.ndim != axes or (axes == 5 and shape[2] != preparation.slices):
        raise InputError(f"the network takes images {names}, not of shape {shape}")
    if preparation.contrasts not in (None, shape[1]):
        raise InputError(f"the network takes images of {preparation.contrasts} contrasts, and {shape[1]} came")
    if preparation.image == "complex" and not image.is_complex():
        raise InputError(f"the network takes complex images, and {image.dtype} came")
