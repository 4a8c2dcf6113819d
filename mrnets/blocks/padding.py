"""Any plane size through networks that halve it several times: zero-padded before, cropped after.

Axes: (..., y, x).
"""

from __future__ import annotations

from types import EllipsisType

from torch import Tensor
from torch.nn import functional

__all__ = ["padded"]


def padded(x: Tensor, levels: int, bits: int | None = None) -> tuple[Tensor, tuple[EllipsisType, slice, slice]]:
    """`x` with zeros around it, and the index of the plane of `x` in a result of its size.

    Each side goes to the next multiple of 2^levels: every one of `levels` halvings is then even, and every voxel passes
    all of them. Planes too small for two pixels after the last halving, which normalisation needs, are padded to that.
    bits: a side n goes to ((n - 1) | bits) + 1, for weights that were trained so by fastMRI (15) or ATOMMIC (11).
    """
    height, width = x.shape[-2:]
    multiple = 2**levels
    mask = multiple - 1 if bits is None else bits
    smallest = multiple if max(_side(height, mask), _side(width, mask)) >= 2 * multiple else 2 * multiple
    extra_y = _side(max(height, smallest), mask) - height
    extra_x = _side(max(width, smallest), mask) - width
    top, left = extra_y // 2, extra_x // 2
    if extra_y or extra_x:
        x = functional.pad(x, (left, extra_x - left, top, extra_y - top))
    return x, (..., slice(top, top + height), slice(left, left + width))


def _side(n: int, mask: int) -> int:
    return ((n - 1) | mask) + 1
