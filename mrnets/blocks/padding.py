"""Any plane size through networks that halve it several times: zero-padded before, cropped after.

Axes: (..., y, x).
"""

from __future__ import annotations

from types import EllipsisType

from torch import Tensor
from torch.nn import functional

from mrnets.blocks.checks import whole

__all__ = ["check_padding", "padded"]


def check_padding(padding: int | None) -> int | None:
    """`padding` if it is None or a bit mask that `padded` takes; InputError otherwise."""
    return None if padding is None else whole("padding", padding, 0, 1023)


def padded(x: Tensor, levels: int, padding: int | None = None) -> tuple[Tensor, tuple[EllipsisType, slice, slice]]:
    """`x` with zeros around it, and the index of the plane of `x` in a result of its size.

    padding None: each side goes to the next multiple of 2^levels, so that every one of `levels` halvings is even and
    every voxel passes all of them. An int is a bit mask as in fastMRI (15) and ATOMMIC (11): a side n goes to
    ((n - 1) | padding) + 1; for weights that were trained so. Planes too small for two pixels after the last halving,
    which normalisation needs, are padded to that.
    """
    height, width = x.shape[-2:]
    multiple = 2**levels
    mask = multiple - 1 if padding is None else padding
    smallest = multiple if max(_side(height, mask), _side(width, mask)) >= 2 * multiple else 2 * multiple
    extra_y = _side(max(height, smallest), mask) - height
    extra_x = _side(max(width, smallest), mask) - width
    top, left = extra_y // 2, extra_x // 2
    if extra_y or extra_x:
        x = functional.pad(x, (left, extra_x - left, top, extra_y - top))
    return x, (..., slice(top, top + height), slice(left, left + width))


def _side(n: int, mask: int) -> int:
    return ((n - 1) | mask) + 1
