"""From raw k-space to what a network was trained on. The same code runs in training and on the scanner.

A weights file carries its `Preparation`. `prepare` completes what the stages before it have not done yet. It refuses
data on which a stage did something else than the network was trained with. Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from mrnets.contract import Raw, Scan
from mrnets.errors import InputError
from mrnets.physics import whiten
from mrnets.physics.arrays import Array
from mrnets.physics.coils import joined, mix, norm, reduce, rss
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.normalise import scale_and_offset
from mrnets.preparation import Combination, Preparation
from mrnets.restore import Prepared
from mrnets.stages import PART, compression, mixed_raw, sense_raw, whiten_raw
from mrnets.tensors import part, tensors, to_torch
from mrnets.view import cropped, possible_view, unseen
from mrnets.whitening import covariance_left, noise_level

__all__ = ["coil_transform", "combine", "mixed_blocks", "prepare", "prepare_blocks"]

LEFT = "the chain network.xml leaves that to the weights file"
"""The way out where an earlier stage did what the network was not trained with."""


def prepare(
    raw: Raw, preparation: Preparation, *, image: Array | None = None, device: torch.device | str | None = None
) -> Prepared:
    """Return `raw` (of any array library) as the torch Scan that a network with this `preparation` was trained on.

    image: (batch, echo, y, x) complex64, an earlier network's estimate from the same `raw`, restored. It becomes
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
    """Yield what `prepare` returns in blocks of at most `size` along the batch, with the values that the whole has.

    Sensitivities, normalised k-space and images, which together take several times the memory of `raw`, are there for
    one block only. Whitening and coil compression, which look at the whole scan, come before.
    """
    raw, _ = coil_transform(to_torch(raw, device), preparation)
    yield from mixed_blocks(raw, preparation, image=image, size=size)


def coil_transform(raw: Raw, preparation: Preparation) -> tuple[Raw, Callable[[Array], Array]]:
    """Return `raw` (torch) with its coils whitened and compressed, and a function that does the same to other k-space.

    Raises InputError as `prepare` does.
    """
    steps: list[Callable[[Array], Array]] = []
    if preparation.sens == "none":
        raw = dataclasses.replace(raw, sens=None, sens_method=None)
    if (covariance := covariance_left(raw, preparation)) is not None:
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
        raw = dataclasses.replace(raw, variance=raw.variance * preparation.whiten_scale**2)
        steps.append(lambda kspace: kspace * preparation.whiten_scale)
    return raw, lambda kspace: functools.reduce(lambda x, step: step(x), steps, kspace)


def mixed_blocks(
    raw: Raw, preparation: Preparation, *, image: Array | None = None, size: int | None = None
) -> Iterator[Prepared]:
    """Yield what `prepare_blocks` does, for a scan whose coils `coil_transform` has mixed.

    image: (batch, echo, y, x) complex64, as for `prepare`. size: of a block; None: one block for all."""
    noise, notes = noise_level(raw)
    coil = _virtual_coil(raw)
    slices = raw.kspace.shape[0]
    for start in range(0, slices, size or max(slices, 1)):
        batch = slice(start, start + (size or slices))
        own, level = (None if x is None else x[batch] for x in (coil, noise))
        block = _block(part(raw, batch), own, _of(image, batch, raw), preparation, level)
        yield dataclasses.replace(block, notes=(*block.notes, *notes))


def combine(coil_images: Array, sens: Array | None, combination: Combination = "sense") -> Any:
    """Return coil images (batch, echo, coil, y, x) as one image (batch, echo, y, x) of their dtype.

    combination: see `Preparation.combination`. Without sensitivities: the root of the sum of squares. The norm of
    `sens` (batch, set, coil, y, x) does not matter; where it is 0, the image is.
    """
    if sens is None or combination == "rss":
        return rss(coil_images).to(coil_images.dtype)
    size = norm(sens)[:, None]
    return joined(reduce(coil_images[:, :, None], sens[:, None]) / torch.where(size > 0, size, 1))


def _coils(number: int, kind: str = "") -> str:
    return f"{number} {kind}coil{'s' if number > 1 else ''}"


def _compresses(raw: Raw, preparation: Preparation) -> bool:
    """Return whether `raw` is still to be compressed. Raises InputError where the network cannot take its coils."""
    if preparation.coils is None:
        return False
    have = raw.kspace.shape[-3]
    if have < preparation.coils or (raw.compressed and have != preparation.coils):
        how = "was compressed to" if raw.compressed else "has"
        way = f"; {LEFT}" if raw.compressed else ""
        raise InputError(f"the network takes {_coils(preparation.coils)}, but the scan {how} {have}{way}")
    if raw.sens is not None and have != preparation.coils:
        raise InputError(
            f"the network takes {_coils(preparation.coils, 'virtual ')}, and their compression must come before coil "
            f"sensitivities, which the scan has for {_coils(have)}; {LEFT}"
        )
    if raw.compressed and preparation.compression not in ("auto", raw.compressed):
        raise InputError(
            f"the network was trained on coils compressed by {preparation.compression}, "
            f"but the chain used {raw.compressed}; {LEFT}"
        )
    return have != preparation.coils


def _of(image: Array | None, batch: slice, raw: Raw) -> Any:
    """Return the part of `image`, on the device of `raw`."""
    return None if image is None else next(tensors((image[batch],), raw.kspace.device))


def _block(raw: Raw, coil: Any, image: Any, preparation: Preparation, noise: Any) -> Prepared:
    whole = (raw.kspace.shape[-2], raw.kspace.shape[-1])
    view, notes = possible_view(raw, preparation.image_crop)
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
    return Prepared(scan, scale, phase, None, beyond, view, (*notes, *unseen(whole, view)))


def _sensed(raw: Raw, preparation: Preparation) -> Raw:
    if preparation.sens == "none":
        return raw
    if raw.sens is None and raw.sens_method is None:
        return sense_raw(raw, preparation.sens, preparation.espirit)
    if raw.sens_method not in (preparation.sens, "given"):
        raise InputError(
            f"the network was trained with {preparation.sens} sensitivities, but the chain used {raw.sens_method}; "
            f"{LEFT}, or set coils.method={preparation.sens}"
        )
    if raw.sens is None:
        raw = sense_raw(raw, preparation.sens, raw.sens_options or preparation.espirit)
    assert raw.sens is not None
    return dataclasses.replace(raw, sens=raw.sens[:, : preparation.sets])


def _scale(raw: Raw, preparation: Preparation) -> torch.Tensor:
    """Return the divisor (batch,) of k-space; 1 for an empty slice."""
    if preparation.normalisation in ("none", "fft"):
        return torch.ones(raw.kspace.shape[0], device=raw.kspace.device)
    if preparation.normalise == "kspace":
        where = raw.mask.expand(raw.kspace.shape)
        values = raw.kspace.flatten(1)
        return scale_and_offset(values, preparation.normalisation, where.flatten(1))[0]
    image = ifftc(raw.kspace)
    if preparation.normalise == "image":
        image = combine(image, raw.sens, preparation.combination)
    return scale_and_offset(image.flatten(1), preparation.normalisation)[0]


def _virtual_coil(raw: Raw) -> torch.Tensor | None:
    """Return the strongest combination (batch, coil) of the coils in the calibration lines; None without those."""
    if raw.calibration is None:
        return None
    parts = (part.flatten(-2) for part in raw.calibration[:, 0].split(PART))  # no copy of a whole volume
    gram = torch.cat([lines @ lines.mH for lines in parts])
    if raw.readout == "batch":  # a volume has one virtual coil, not one for each readout position
        gram = gram.sum(0, keepdim=True)
    coil = torch.linalg.eigh(gram)[1][..., -1]
    largest = coil.gather(-1, coil.abs().argmax(-1, keepdim=True))
    return (coil * largest.conj()).expand(len(raw.calibration), -1)


def _phase(raw: Raw, coil: torch.Tensor | None) -> torch.Tensor:
    """Return `Prepared.phase`, which is 1 where no sensitivities were estimated from calibration lines."""
    batch, (height, width) = raw.kspace.shape[0], raw.kspace.shape[-2:]
    if raw.sens is None or coil is None or raw.sens_method == "given":
        return torch.ones(batch, height, width, dtype=raw.kspace.dtype, device=raw.kspace.device)
    seen = reduce(raw.sens[:, 0], coil.unsqueeze(-1).unsqueeze(-1))
    return torch.polar(torch.ones_like(seen.real), torch.angle(seen))
