"""Undersampling: fully sampled scans, or prospective ones, as a faster scan would have measured them.

Axes: see `mrnets.contract`. Masks from a file: .npy or an HDF5 data set of bool or numbers (0: not sampled), (y, x) or
(n, y, x). One of them is drawn for each slice.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import typing
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrnets.errors import InputError, unknown
from mrnets.mrd.calibration import centre_block
from mrnets.physics import masks
from mrnets.physics.arrays import Array
from mrnets.physics.fourier import ifftc
from mrnets.tensors import sent
from training.data import Sample
from training.planes import fully_sampled, image_cropped, kspace_cropped
from training.readers.files import read_mask
from training.settings import Masks
from training.typed import fitted

__all__ = ["as_sampled", "generator", "masked", "require_calibration"]

Mask = NDArray[np.bool_]
Shape = tuple[int, int]

_logger = logging.getLogger(__name__)


def generator(seed: int, *place: int | str) -> np.random.Generator:
    """The generator of a place in a run (a part, a position, the name of a volume): the same in every process."""
    return np.random.default_rng([seed, *(zlib.crc32(p.encode()) if isinstance(p, str) else p for p in place)])


def masked(sample: Sample, settings: Masks, rngs: Sequence[np.random.Generator]) -> Sample:
    """`sample` cropped and undersampled, with what it was before as its `coil_images`. One generator for each slice.

    Samples without raw data, and scans that come sampled and with their coil images (simulated ones), pass unchanged.
    Fills `raw.mask`, `raw.calibration` and `raw.readout`. The calibration is the fully sampled centre block that all
    slices of the batch have, or None where it is too small. Samples that were not measured stay so: a prospective mask
    and a drawn one combine. Raises InputError where a mask cannot be had or does not fit.
    """
    if sample.raw is None or (sample.coil_images is not None and not fully_sampled(sample)):
        return sample
    if settings.kspace_crop is not None:
        sample = kspace_cropped(sample, settings.kspace_crop)
    if settings.image_crop is not None:
        sample = image_cropped(sample, settings.image_crop)
    raw = sample.raw
    assert raw is not None
    full = sample.coil_images if sample.coil_images is not None else ifftc(raw.kspace)
    drawn = _masks(sample, settings, rngs)
    if not fully_sampled(sample):
        _tell_of_gaps()
        if drawn is None:
            return as_sampled(sample)
    if drawn is None:
        raise InputError(
            f'{sample.names[0]}: masks.source is "data", but it is fully sampled and comes without a mask; '
            f'"drawn" draws one'
        )
    mask = raw.mask & drawn
    lines = bool((drawn == drawn[..., :1]).all())
    readout = None if raw.readout == "x" and not lines else raw.readout
    measured = dataclasses.replace(raw, kspace=raw.kspace * mask, mask=mask, readout=readout, calibration=None)
    return dataclasses.replace(sample, coil_images=full, raw=_with_calibration(measured))


def as_sampled(sample: Sample) -> Sample:
    """`sample` of an accelerated scan with its own sampling. Its coil images are those of k-space with gaps."""
    assert sample.raw is not None
    full = sample.coil_images if sample.coil_images is not None else ifftc(sample.raw.kspace)
    return dataclasses.replace(sample, coil_images=full, raw=_with_calibration(sample.raw))


def _with_calibration(raw: Any) -> Any:
    """`raw` with the fully sampled centre of its first echo as calibration, where it has none yet.

    It is what the sort gadget gives: all of the centre, and nothing where that is too small. A `sens_net` sees it."""
    if raw.calibration is not None:
        return raw
    return dataclasses.replace(raw, calibration=centre_block(raw.kspace, raw.mask))


def require_calibration(sample: Sample) -> None:
    """Raise InputError, with the numbers, for a scan whose fully sampled centre is too small for sensitivities.

    Scans with maps or calibration lines of their own pass."""
    raw = sample.raw
    assert raw is not None
    if raw.calibration is not None or raw.sens is not None:
        return
    height, width = masks.calibration_region(raw.mask)
    raise InputError(
        f"{sample.names[0]}: the fully sampled centre of k-space is {height} x {width} samples (y, x), and "
        f"sensitivities need {masks.LEAST_CALIBRATION} along each axis; masks.centres must be wider"
    )


@lru_cache
def _tell_of_gaps() -> None:
    """Once in each process."""
    _logger.warning("data that are not fully sampled: targets hold what was measured, and zeros in the gaps of k-space")


def _masks(sample: Sample, settings: Masks, rngs: Sequence[np.random.Generator]) -> Array | None:
    """(batch, 1, 1, y, x) bool on the device of the data; None: what the data say, and they come without a mask."""
    assert sample.raw is not None
    kspace, given = sample.raw.kspace, sample.mask
    shape: Shape = (kspace.shape[-2], kspace.shape[-1])
    if settings.source == "data":
        if given is not None and tuple(given.shape[-2:]) != shape:
            raise InputError(
                f"{sample.names[0]}: its mask is {_x(given.shape[-2:])}, its k-space (after the crops of masks) "
                f"{_x(shape)}"
            )
        return given
    if settings.source == "drawn":
        makers = {name: _maker(name, settings) for name in settings.names}
        drawn = [_draw(name, makers, shape, settings, r) for name, r in zip(sample.names, rngs, strict=True)]
    else:
        drawn = [_from_file(Path(settings.source), settings.key, shape, r) for r in rngs]
    return sent(torch.from_numpy(np.stack(drawn)), kspace.device)[:, None, None]


def _draw(
    name: str, makers: dict[str, Callable[..., Mask]], shape: Shape, settings: Masks, rng: np.random.Generator
) -> Mask:
    """A mask (y, x) for the slice `name`: its kind, then its acceleration and centre, then itself."""
    make = makers[settings.names[int(rng.integers(len(settings.names)))]]
    which = int(rng.integers(len(settings.accelerations)))
    centre = settings.centres[which if len(settings.centres) > 1 else 0]
    try:
        mask = make(shape, settings.accelerations[which], rng, centre=centre)
        return masks.partial_fourier(mask, settings.partial_fourier)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _maker(name: str, settings: Masks) -> Callable[..., Mask]:
    """The function of `mrnets.physics.masks` with those options that are its parameters.

    Raises InputError for an option that is no parameter of any function of the settings, or is not of the right type.
    """
    known = {n: inspect.signature(masks.kind(n).draw).parameters for n in settings.names}
    for key in settings.options:
        if key == "centre" or not any(key in own for own in known.values()):
            every = {k for own in known.values() for k, p in own.items() if p.kind is p.KEYWORD_ONLY} - {"centre"}
            raise unknown("option of masks.options", key, every)
    function = masks.kind(name).draw
    hints = typing.get_type_hints(function)
    given = {k: fitted(hints[k], v, f"masks.options.{k}") for k, v in settings.options.items() if k in known[name]}

    def make(*arguments: Any, **more: Any) -> Mask:
        return function(*arguments, **given, **more)

    return make


def _from_file(path: Path, key: str, shape: Shape, rng: np.random.Generator) -> Mask:
    """A mask (y, x) of a file; only this one is read."""
    mask = read_mask(path, int(rng.integers(1 << 32)), key)
    if mask.shape != shape:
        raise InputError(
            f"{path}: its masks are {_x(mask.shape)}, but k-space (after the crops of masks) is {_x(shape)}"
        )
    return mask


def _x(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
