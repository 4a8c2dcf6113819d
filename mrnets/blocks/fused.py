"""Parts of networks as one pass over memory on a CUDA device, by Triton, which comes with torch there.

Axes: features (batch, channel, [z,] y, x); image (batch, set, y, x); sens (batch, set, coil, y, x).
Float32 results are within 1e-5 of the norm of those in double precision, as Triton's interpreter shows on a processor.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from mrnets.physics import coils, conjugate
from mrnets.physics.wavelets import Shrinking, by_matrices
from mrnets.tensors import lacks_memory

__all__ = [
    "added",
    "can",
    "conjugate_gradients",
    "convolved",
    "filmed",
    "known",
    "normalised",
    "normalised_gradient",
    "scaled",
    "shrinking",
    "with_kernels",
]

_logger = logging.getLogger(__name__)

_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.complex64)
_TILE = 4096
"""Features that a program has at once."""
_SECTORS = 64
"""Bytes of neighbouring channels in a tile: two sectors of the device's memory."""
_PROGRAMS = 512
"""Programs that fill a device, at least."""
_MOST = 64
"""Chunks of a plane whose moments are taken by themselves, at most: every program reads those of all."""
_PAIRS = 1024
"""Complex numbers that a program has at once."""


@cache
def _kernels(device: torch.device) -> ModuleType | None:
    """Return the kernels; None where Triton cannot be had, or cannot make them for this device.

    It needs a C compiler and a folder to write to, which an image of a container may lack. Raises the error where the
    device's memory does not suffice: that passes, and they are asked for again.
    """
    try:
        from mrnets.blocks import kernels

        kspace, mask = torch.ones(2, 2, device=device), torch.tensor([0, 1], dtype=torch.uint8, device=device)
        with torch.cuda.device_of(kspace):
            kernels.kept_in_place[1, 1](kspace, mask, 2, 1, ONE_MASK=True, SIZE=2)
        if kspace.tolist() == [[0, 0], [1, 1]]:
            return kernels
        _logger.warning("Triton's kernels are not used: a first one gave the wrong numbers")
    except Exception as error:  # whatever it fails by, torch's operations are there
        if lacks_memory(error):
            raise
        _logger.warning("Triton's kernels are not used: %s", " ".join(str(error).split())[:200])
    return None


_wanted: ContextVar[bool] = ContextVar("_wanted", default=False)


@contextmanager
def with_kernels() -> Iterator[None]:
    """Use the kernels in this thread, where they can be had. Elsewhere everything is left to torch's operations.

    Whoever asks for them compares what they make (`mrnets.proved`). Training asks where its option says so."""
    token = _wanted.set(True)
    try:
        yield
    finally:
        _wanted.reset(token)


def can(x: Tensor) -> bool:
    """Whether the functions of this module take `x`, where no gradient is asked for."""
    return not torch.is_grad_enabled() and known(x)


def known(x: Tensor) -> bool:
    """Whether they take `x` in a function that brings its own gradient."""
    # torch.compile reads this, too. It knows no context variables.
    if x.device.type != "cuda" or torch.compiler.is_compiling() or not _wanted.get():
        return False
    if x.dtype not in _TYPES or (x.dtype == torch.bfloat16 and torch.cuda.get_device_capability(x.device) < (8, 0)):
        return False
    return 0 < x.numel() < len(x) * 2**30 and _kernels(x.device) is not None


@dataclass(frozen=True)
class _Order:
    """Features as kernels see them, and the tile of a program."""

    x: Tensor
    sizes: tuple[int, int]
    """Pixels and channels."""
    tile: dict[str, int]
    grid: tuple[int, int, int]
    """Programs: over pixels, channels and the batch."""


def _ordered(x: Tensor) -> _Order:
    """`x`, or a copy of it, in one of the two orders of memory."""
    channels, pixels = x.shape[1], math.prod(x.shape[2:])
    wide = 1
    if not x.is_contiguous():
        last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        if x.is_contiguous(memory_format=last):
            wide = min(_SECTORS // x.element_size(), _power(channels))
        else:
            x = x.contiguous()
    long = min(_TILE // wide, _power(pixels))
    grid = (-(-pixels // long), -(-channels // wide), len(x))
    return _Order(x, (pixels, channels), {"BLOCK_P": long, "BLOCK_C": wide}, grid)


def _power(n: int) -> int:
    """The next power of two."""
    return 1 << (n - 1).bit_length()


def normalised(x: Tensor, slope: float) -> Tensor:
    """Instance normalisation and leaky ReLU of features, which are overwritten. Sums are float32."""
    return _normalised(x, slope, None)


def scaled(x: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """As `normalised`, with what deviations from the mean were multiplied with: (batch, channel) float32."""
    scales = x.new_empty(x.shape[:2], dtype=torch.float32)
    return _normalised(x, slope, scales), scales


def _normalised(x: Tensor, slope: float, scales: Tensor | None) -> Tensor:
    kernels, order = _kernels(x.device), _ordered(x)
    assert kernels is not None
    grid, chunk, parts = _split(order)
    sizes = {"SCALES": scales is not None, "SPLITS": _power(grid[0]), **order.tile}
    with torch.cuda.device_of(x):
        kernels.moments[grid](order.x, parts, *order.sizes, chunk, **order.tile)
        kernels.normalise_in_place[grid](
            order.x, parts if scales is None else scales, parts, *order.sizes, chunk, slope, **sizes
        )
    return order.x


def normalised_gradient(gradient: Tensor, out: Tensor, scales: Tensor, slope: float) -> Tensor:
    """The gradient before `scaled`, which gave `out` and `scales`, of the one behind it."""
    kernels, order = _kernels(out.device), _ordered(out)
    assert kernels is not None
    if gradient.stride() != order.x.stride() or gradient.dtype != out.dtype:
        gradient = torch.empty_like(order.x).copy_(gradient)
    made = torch.empty_like(order.x)
    grid, chunk, parts = _split(order)
    with torch.cuda.device_of(out):
        kernels.gradient_sums[grid](gradient, order.x, parts, *order.sizes, chunk, slope, **order.tile)
        kernels.normalise_gradient[grid](
            gradient, order.x, made, scales, parts, *order.sizes, chunk, slope, SPLITS=_power(grid[0]), **order.tile
        )
    return made


def _split(order: _Order) -> tuple[tuple[int, int, int], int, Tensor]:
    """The programs of sums over planes, the pixels of each, and memory for its part of them."""
    (tiles, blocks, batch), (pixels, _) = order.grid, order.sizes
    splits = min(_MOST, _power(-(-_PROGRAMS // (batch * blocks))), tiles)
    chunk = -(-tiles // splits) * order.tile["BLOCK_P"]
    grid = (-(-pixels // chunk), blocks, batch)
    return grid, chunk, order.x.new_empty((*grid, 2, order.tile["BLOCK_C"]), dtype=torch.float32)


def filmed(x: Tensor, bias: Tensor, film: Tensor) -> Tensor:
    """relu((x + bias) (1 + scale) + shift) of features, which are overwritten; film (batch, 2 channel): both."""
    kernels, order = _kernels(x.device), _ordered(x)
    assert kernels is not None
    with torch.cuda.device_of(x):
        kernels.film_in_place[order.grid](order.x, bias, film.contiguous(), *order.sizes, **order.tile)
    return order.x


def added(x: Tensor, bias: Tensor, other: Tensor) -> Tensor:
    """x + bias + other of features of one shape, in the type of `x`, which is overwritten."""
    kernels, order = _kernels(x.device), _ordered(x)
    assert kernels is not None
    if other.stride() != order.x.stride():
        other = torch.empty_like(order.x).copy_(other)
    with torch.cuda.device_of(x):
        kernels.add_in_place[order.grid](order.x, bias, other, *order.sizes, **order.tile)
    return order.x


def convolved(image: Tensor, sens: Tensor, plain: Tensor, *, sets: bool = False) -> Tensor:
    """As `mrnets.physics.coils.convolved`, on a CUDA device in fewer passes.

    The mask is applied by writing zeros alone. The sum over coils is one pass, without products in memory.
    """
    kernels = _kernels(image.device) if can(image) and _usual(image, sens, plain) else None
    if kernels is None:
        made: Tensor = coils.convolved(image, sens, plain, sets=sets)
        return made
    kspace = torch.fft.fft2(coils.expand(image, sens, sets=sets)).contiguous()
    count, pixels = kspace.shape[2], math.prod(kspace.shape[-2:])
    size = min(_PAIRS, _power(pixels))
    blocks, planes = -(-pixels // size), kspace.shape[1] * count
    out = torch.empty_like(image, memory_format=torch.contiguous_format)
    with torch.cuda.device_of(image):
        mask = plain.contiguous().view(torch.uint8)
        kernels.kept_in_place[blocks, len(kspace)](
            torch.view_as_real(kspace), mask, pixels, planes, ONE_MASK=len(plain) == 1, SIZE=size
        )
        pairs = [torch.view_as_real(x.contiguous()) for x in (out, torch.fft.ifft2(kspace, norm="forward"), sens)]
        grid = (blocks, math.prod(image.shape[:2]))
        kernels.weighted_sum[grid](*pairs, pixels, count, image.shape[1], SETS=sets, SIZE=size)
    return out


def _usual(image: Tensor, sens: Tensor, plain: Tensor) -> bool:
    """Whether arrays have the axes and types that the kernels of `convolved` take."""
    pairs = image.dtype == sens.dtype == torch.complex64 and plain.dtype == torch.bool
    return pairs and image.ndim == 4 and len(sens) == len(image) and plain.ndim == 5 and plain.shape[1:3] == (1, 1)


def shrinking(image: Tensor, levels: int) -> Shrinking:
    """As `mrnets.physics.wavelets.by_matrices`, on a CUDA device by filters, one pass a level and direction."""
    kernels = _kernels(image.device) if can(image) and image.dtype == torch.complex64 else None
    if kernels is None:
        return by_matrices(image, levels)
    plane, planes = image.shape[-2:], math.prod(image.shape[:-2])
    halves = [tuple(-(-n // 2**levels) * 2 ** (levels - 1 - level) for n in plane) for level in range(levels)]
    bands = [image.new_empty((planes, 4, *half)).view(torch.float32) for half in halves]
    grids = [(-(-math.prod(half) // kernels.BLOCK.value), planes) for half in halves]

    def shrunk(image: Tensor, threshold: Tensor, shift: Sequence[int]) -> Tensor:
        x = torch.view_as_real(image.contiguous())
        out = torch.empty_like(x)
        y, c = (n % (2 * half) for n, half in zip(shift, halves[0], strict=True))
        drawn = threshold.expand(*image.shape[:-2], 1, 1).contiguous()
        sizes = [(*plane, 256 * y + c, *halves[0])]
        sizes += [(2 * half[0], 2 * half[1], 0, *half) for half in halves[1:]]
        with torch.cuda.device_of(image):
            for n, (source, size) in enumerate(zip([x, *bands], sizes, strict=False)):
                kernels.wavelet_down[grids[n]](source, bands[n], drawn, *size, FIRST=n == 0)
            for n, (target, size) in reversed(list(enumerate(zip([out, *bands], sizes, strict=False)))):
                kernels.wavelet_up[grids[n]](bands[n], target, *size, FIRST=n == 0)
        return torch.view_as_complex(out)

    return shrunk


def conjugate_gradients(
    operator: Callable[[Tensor], Tensor], rhs: Tensor, *, iterations: int, tolerance: float, axes: tuple[int, ...]
) -> Tensor:
    """As `mrnets.physics.conjugate.conjugate_gradients`, on a CUDA device in three passes beside the operator."""
    kernels = _kernels(rhs.device) if can(rhs) and rhs.dtype == torch.complex64 else None
    if kernels is None:
        found: Tensor = conjugate.conjugate_gradients(
            operator, rhs, iterations=iterations, tolerance=tolerance, axes=axes
        )
        return found
    state = torch.stack((torch.zeros_like(rhs), rhs, rhs))
    real = torch.view_as_real(state)
    length = 2 * math.prod(rhs.shape[axis] for axis in axes)
    size = min(2 * _PAIRS, _power(length))
    blocks, problems = -(-length // size), 2 * rhs.numel() // length
    curvatures, old, new = real.new_empty((3, problems, blocks))
    sizes = {"BLOCKS": _power(blocks), "SIZE": size}
    with torch.cuda.device_of(rhs):
        kernels.products[blocks, problems](real[1], real[1], old, length, SIZE=size)
        enough = tolerance**2 * old.sum(dim=1)
        for _ in range(iterations):
            image = torch.view_as_real(operator(state[2]).contiguous())
            kernels.products[blocks, problems](real[2], image, curvatures, length, SIZE=size)
            kernels.cg_advance[blocks, problems](real, image, enough, curvatures, old, new, length, **sizes)
            kernels.cg_turn[blocks, problems](real, enough, old, new, length, **sizes)
            old, new = new, old
    return state[0]
