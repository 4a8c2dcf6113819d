"""Any plane size through networks that halve it several times: zero-padded before, cropped after.

Axes: (..., y, x).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from mrnets.blocks.checks import whole

__all__ = ["check_padding", "padded"]


def check_padding(padding: int | None) -> int | None:
    """`padding` if it is None or a bit mask that `padded` takes; InputError otherwise."""
    return None if padding is None else whole("padding", padding, 0, 1023)


def padded(x: Tensor, levels: int, padding: int | None = None) -> tuple[Tensor, tuple[slice, slice]]:
    """`x` with zeros around it, and where in it the plane of `x` is: index the last two axes of a result with that.

    padding None: each side goes to the next multiple of 2^levels, so that every one of `levels` halvings is even and
    every voxel passes all of them, with at least two pixels left (normalisation needs two). An int is a bit mask as in
    fastMRI (15) and ATOMMIC (11): a side n goes to ((n - 1) | padding) + 1; for weights that were trained so.
    """
    height, width = x.shape[-2:]
    extra_y, extra_x = _side(height, levels, padding) - height, _side(width, levels, padding) - width
    top, left = extra_y // 2, extra_x // 2
    if extra_y or extra_x:
        x = functional.pad(x, (left, extra_x - left, top, extra_y - top))
    return x, (slice(top, top + height), slice(left, left + width))


def _side(n: int, levels: int, padding: int | None) -> int:
    multiple = 2**levels
    return ((max(n, 2 * multiple) - 1) | (multiple - 1 if padding is None else padding)) + 1
