"""Kernels of Triton: passes over memory that torch would make one after the other, on a CUDA device.

`mrnets.blocks.fused` starts them, and describes what they do in whole. This package is imported where Triton is there.
"""

from mrnets.blocks.kernels.encoding import cg_advance, cg_turn, kept_in_place, products, weighted_sum
from mrnets.blocks.kernels.features import (
    add_in_place,
    film_in_place,
    gradient_sums,
    moments,
    normalise_gradient,
    normalise_in_place,
)
from mrnets.blocks.kernels.wavelets import BLOCK, wavelet_down, wavelet_up

__all__ = [
    "BLOCK",
    "add_in_place",
    "cg_advance",
    "cg_turn",
    "film_in_place",
    "gradient_sums",
    "kept_in_place",
    "moments",
    "normalise_gradient",
    "normalise_in_place",
    "products",
    "wavelet_down",
    "wavelet_up",
    "weighted_sum",
]
