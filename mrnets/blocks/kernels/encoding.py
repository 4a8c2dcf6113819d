"""Passes of E^H E and of conjugate gradients. Complex numbers are pairs of float32; axes: (..., coil, pixel)."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["cg_advance", "cg_turn", "kept_in_place", "products", "weighted_sum"]


@triton.jit
def kept_in_place(kspace, mask, pixels, planes, ONE_MASK: tl.constexpr, SIZE: tl.constexpr):
    """kspace (n, planes, pixel) <- 0 where mask (n or 1, pixel) is 0. What is kept is neither read nor written."""
    n = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    if not ONE_MASK:
        mask += n * pixels
    gone = tl.load(mask + p, mask=p < pixels, other=1) == 0
    one = kspace + 2 * (n * planes * pixels + p)
    zero = tl.zeros((SIZE,), tl.float32)
    for _ in range(planes):
        tl.store(one, zero, mask=gone)
        tl.store(one + 1, zero, mask=gone)
        one += 2 * pixels


@triton.jit
def weighted_sum(
    out,
    images,
    sens,
    pixels,
    coils,
    count,
    SETS: tl.constexpr,
    SIZE: tl.constexpr,
):
    """out (n, pixel) <- the mean over pixels' number of conj(sens) images, summed over coils; both (.., coil, pixel).

    `count` results belong to a slice. With SETS they share its coil images, otherwise its maps.
    """
    n = tl.program_id(1)
    shared = (n // count).to(tl.int64) * coils * 2 * pixels
    own = n.to(tl.int64) * coils * 2 * pixels
    p = 2 * (tl.program_id(0) * SIZE) + tl.arange(0, 2 * SIZE)
    inside = p < 2 * pixels
    images += (shared if SETS else own) + p
    sens += (own if SETS else shared) + p
    real = tl.zeros((SIZE,), tl.float32)
    imag = tl.zeros((SIZE,), tl.float32)
    for _ in range(coils):
        image_real, image_imag = tl.split(tl.reshape(tl.load(images, mask=inside, other=0.0), (SIZE, 2)))
        sens_real, sens_imag = tl.split(tl.reshape(tl.load(sens, mask=inside, other=0.0), (SIZE, 2)))
        real += sens_real * image_real + sens_imag * image_imag
        imag += sens_real * image_imag - sens_imag * image_real
        images += 2 * pixels
        sens += 2 * pixels
    factor = 1.0 / pixels
    both = tl.reshape(tl.join(real * factor, imag * factor), (2 * SIZE,))
    tl.store(out + n.to(tl.int64) * 2 * pixels + p, both, mask=inside)


@triton.jit
def products(a, b, parts, length, SIZE: tl.constexpr):
    """Write the sum of a b over each SIZE of `length` numbers: parts (n, block)."""
    p = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    place, inside = tl.program_id(1).to(tl.int64) * length + p, p < length
    both = tl.load(a + place, mask=inside, other=0.0) * tl.load(b + place, mask=inside, other=0.0)
    tl.store(parts + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), tl.sum(both, 0))


@triton.jit
def _total(parts, BLOCKS: tl.constexpr):
    """The sum over the blocks of this program's problem."""
    block = tl.arange(0, BLOCKS)
    there = block < tl.num_programs(0)
    return tl.sum(tl.load(parts + tl.program_id(1) * tl.num_programs(0) + block, mask=there, other=0.0), 0)


@triton.jit
def cg_advance(state, image, enough, curvatures, old, new, length, BLOCKS: tl.constexpr, SIZE: tl.constexpr):
    """Solution and residual of conjugate gradients after a step along the direction, whose image is given.

    state (3, n, length): solution, residual, direction. enough (n,): squared norm of a residual that is small enough.
    curvatures, old, new (n, block): parts of direction * image, and of squared residuals before and after.
    """
    n = tl.program_id(1)
    p = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside, whole = p < length, tl.num_programs(1).to(tl.int64) * length
    energy, curvature = _total(old, BLOCKS), _total(curvatures, BLOCKS)
    moves = (energy > tl.load(enough + n)) & (curvature > 0)
    step = tl.where(moves, energy / tl.where(moves, curvature, 1.0), 0.0)
    x = state + n.to(tl.int64) * length + p
    direction = tl.load(x + 2 * whole, mask=inside, other=0.0)
    tl.store(x, tl.load(x, mask=inside, other=0.0) + step * direction, mask=inside)
    residual = tl.load(x + whole, mask=inside, other=0.0)
    residual -= step * tl.load(image + n.to(tl.int64) * length + p, mask=inside, other=0.0)
    tl.store(x + whole, residual, mask=inside)
    tl.store(new + n * tl.num_programs(0) + tl.program_id(0), tl.sum(residual * residual, 0))


@triton.jit
def cg_turn(state, enough, old, new, length, BLOCKS: tl.constexpr, SIZE: tl.constexpr):
    """The next direction; arguments as for `cg_advance`."""
    n = tl.program_id(1)
    p = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside, whole = p < length, tl.num_programs(1).to(tl.int64) * length
    energy = _total(old, BLOCKS)
    active = energy > tl.load(enough + n)
    share = tl.where(active, _total(new, BLOCKS) / tl.where(active, energy, 1.0), 0.0)
    residual = state + whole + n.to(tl.int64) * length + p
    direction = tl.load(residual, mask=inside, other=0.0) + share * tl.load(residual + whole, mask=inside, other=0.0)
    tl.store(residual + whole, direction, mask=inside)
