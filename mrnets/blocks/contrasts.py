"""The input of segmentation networks: images of a fixed number of contrasts, as real channels."""

from __future__ import annotations

from torch import Tensor, nn

from mrnets.blocks.encoding import name_of
from mrnets.contract import Scan
from mrnets.errors import InputError, counted

__all__ = ["contrast_images"]


def contrast_images(scan: Scan, network: nn.Module, contrasts: int, dimensions: int = 2) -> Tensor:
    """`scan.image`, its magnitude if it is complex: real (batch, contrasts, [z,] y, x), z where `dimensions` is 3.

    Raises InputError, which names `network`, where there is no image or it has other axes or contrasts.
    """
    image: Tensor | None = scan.image
    name = name_of(network)
    axes = "(batch, contrast, z, y, x)" if dimensions == 3 else "(batch, contrast, y, x)"
    if image is None:
        raise InputError(f"{name} needs images {axes}, and the scan has none")
    if image.ndim != dimensions + 2 or image.shape[1] != contrasts:
        shape = tuple(image.shape)
        raise InputError(f"{name} needs images {axes} of {counted(contrasts, 'contrast')}, not of shape {shape}")
    return image.abs() if image.is_complex() else image
