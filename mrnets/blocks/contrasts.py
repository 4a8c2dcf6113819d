"""What a segmentation network takes from a scan: images of a fixed number of contrasts, as real channels."""

from __future__ import annotations

from torch import Tensor

from mrnets.contract import Scan
from mrnets.errors import InputError

__all__ = ["contrast_images"]


def contrast_images(scan: Scan, name: str, contrasts: int, dimensions: int = 2) -> Tensor:
    """`scan.image`, its magnitude if it is complex: real (batch, contrasts, [z,] y, x), z where `dimensions` is 3.

    Raises InputError, which names the network, where there is no image or it has other axes or contrasts.
    """
    image: Tensor | None = scan.image
    axes = "(batch, contrast, z, y, x)" if dimensions == 3 else "(batch, contrast, y, x)"
    if image is None:
        raise InputError(f"{name} needs images {axes}, and the scan has none")
    if image.ndim != dimensions + 2 or image.shape[1] != contrasts:
        shape = tuple(image.shape)
        raise InputError(f"{name} needs images {axes} of {contrasts} contrasts, not of shape {shape}")
    return image.abs() if image.is_complex() else image
