"""From images to the input of a network on images. Axes: see `mrnets.contract`."""

from __future__ import annotations

import torch

from mrnets.contract import Scan
from mrnets.errors import InputError, counted
from mrnets.physics.arrays import Array
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.normalise import normalised, scale_and_offset
from mrnets.preparation import Preparation
from mrnets.restore import Prepared
from mrnets.tensors import tensors
from mrnets.view import at_most, unseen

__all__ = ["prepare_image"]


def prepare_image(image: Array, preparation: Preparation) -> Prepared:
    """Return images (batch, contrast, [z,] y, x), complex or real, of any array library, as the Scan of a network.

    z is there where `preparation.slices` is more than 1, and is that number: the neighbouring slices. Each contrast of
    each sample is normalised by itself, since contrasts have units of their own: magnitudes as real images, with an
    offset. A crop of k-space is made before the magnitude is taken. Raises InputError for other axes or contrasts.
    """
    (x,) = tensors((image,))
    _check(x, preparation)
    x = x.to(torch.complex64 if x.is_complex() else torch.float32)
    whole = (x.shape[-2], x.shape[-1])
    view = at_most(whole, preparation.image_crop)
    size = at_most(view, preparation.kspace_crop)
    x = resize(x, view)
    if size != view:
        coarse = ifftc(resize(fftc(x + 0j), size))
        x = coarse if x.is_complex() else coarse.real
    if preparation.image == "magnitude" and x.is_complex():
        x = x.abs()
    values = fftc(x + 0j) if preparation.normalise == "kspace" else x
    scale, offset = scale_and_offset(values.flatten(2), preparation.normalisation)
    phase = torch.ones((x.shape[0], *size), device=x.device)
    beyond = None if size == whole else whole
    scan = Scan(image=normalised(x, scale, offset))
    return Prepared(scan, scale, phase, offset, beyond, view, unseen(whole, view))


def _check(image: torch.Tensor, preparation: Preparation) -> None:
    axes = 4 if preparation.slices == 1 else 5
    names = "(batch, contrast, y, x)" if axes == 4 else f"(batch, contrast, {preparation.slices}, y, x)"
    shape = tuple(image.shape)
    if image.ndim != axes or (axes == 5 and shape[2] != preparation.slices):
        raise InputError(f"the network takes images {names}, not of shape {shape}")
    if preparation.contrasts not in (None, shape[1]):
        raise InputError(
            f"the network takes images of {counted(preparation.contrasts, 'contrast')}, and {shape[1]} came"
        )
    if preparation.image == "complex" and not image.is_complex():
        raise InputError(f"the network takes complex images, and {image.dtype} came")
