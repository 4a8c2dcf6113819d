"""A simulated scan: phantom, receive coils, phase, noise. All random numbers come from an explicit generator.

Axes: image (..., y, x); coil images, sens and k-space (..., coil, y, x). Lengths are in half fields of view. The plane
spans [-1, 1) along y and x, with pixel n // 2 at 0; z is perpendicular to it. NumPy draws the random numbers, so that a
seed gives the same scan on every array library. `like` (an array) sets the library and device of the result (None:
NumPy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.physics.arrays import Array, array_namespace, asarray_like
from mrnets.physics.coils import expand, mix
from mrnets.physics.fourier import fftc, resize
from mrnets.physics.interpolation import along

__all__ = [
    "SHEPP_LOGAN",
    "Loops",
    "encode",
    "noise",
    "phantom",
    "random_covariance",
    "random_loops",
    "random_phase",
    "sensitivities",
]

Real = NDArray[np.float64]

SHEPP_LOGAN = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
    (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -18.0),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18.0),
    (0.1, 0.21, 0.25, 0.0, 0.35, 0.0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0.0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0.0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0.0),
    (0.1, 0.023, 0.023, 0.0, -0.606, 0.0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0.0),
)
"""Ellipses (intensity, half axis x, half axis y, centre x, centre y, degrees) with Toft's contrast (1996, table B.3).
In this table y points up, to the front of the head."""


def phantom(
    shape: Sequence[int],
    ellipses: Sequence[Sequence[float]] = SHEPP_LOGAN,
    *,
    supersampling: int = 4,
    like: Array | None = None,
) -> Array:
    """Sum of ellipses (y, x) float32, row 0 at the front; a pixel is the mean of supersampling^2 points inside it."""
    fine = (np.arange(supersampling) + 0.5) / supersampling - 0.5
    y, x = ((_positions(n)[:, None] + fine * 2 / n).ravel() for n in shape)
    image = np.zeros((y.size, x.size), dtype=np.float32)
    for intensity, half_x, half_y, centre_x, centre_y, degrees in ellipses:
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        right, up = x - centre_x, -y[:, None] - centre_y
        image[((c * right + s * up) / half_x) ** 2 + ((c * up - s * right) / half_y) ** 2 <= 1] += intensity
    image = image.reshape(shape[0], supersampling, shape[1], supersampling).mean(axis=(1, 3))
    return _as(image, like)


@dataclass(frozen=True)
class Loops:
    """Circular receive coils around the object."""

    centre: Real
    """(coil, 3): x, y, z."""
    normal: Real
    """(coil, 3), unit vectors."""
    radius: Real
    """(coil,)."""


def random_loops(rng: np.random.Generator, coils: int, *, distance: float = 1.4, jitter: float = 0.15) -> Loops:
    """Loops on one to three rings around the z axis, about touching each other, displaced and tilted by `jitter`.

    distance: of the rings from the axis. Raises InputError for less than one coil.
    """
    if coils < 1:
        raise InputError(f"simulated coils: at least 1 is needed, got {coils}")
    rings = 1 if coils <= 8 else 2 if coils <= 16 else 3
    ring = np.arange(coils) % rings
    each = np.maximum(np.bincount(ring, minlength=rings)[ring], 3)
    angle = 2 * np.pi * (np.arange(coils) // rings + ring / 2) / each + rng.uniform(0, 2 * np.pi)
    angle = angle + jitter * rng.standard_normal(coils) * np.pi / each
    radius = np.minimum(1.1 * np.pi * distance / each, 0.9) * rng.uniform(0.85, 1.15, coils)
    outward = np.stack([np.cos(angle), np.sin(angle), np.zeros(coils)], axis=1)
    height = (ring - (rings - 1) / 2) * radius.mean() * 1.6 + jitter * rng.standard_normal(coils)
    centre = outward * (distance * rng.uniform(1, 1 + jitter, coils)[:, None])
    centre[:, 2] = height
    normal = outward + jitter * rng.standard_normal((coils, 3))
    return Loops(centre, normal / np.linalg.norm(normal, axis=1, keepdims=True), radius)


def sensitivities(
    loops: Loops,
    shape: Sequence[int],
    *,
    z: float = 0.0,
    field: Sequence[float] = (0.0, 0.0, 1.0),
    segments: int = 24,
    nodes: int = 32,
    like: Array | None = None,
) -> Array:
    """Receive sensitivities (coil, y, x) complex64 by the law of Biot and Savart; root sum of squares of 1 on average.

    By reciprocity a coil receives with B1 = B . (e1 - i e2) of its own unit current, e1 and e2 orthogonal to the main
    field, whose direction is `field` (x, y, z). The plane lies at height `z`. Loops are polygons of `segments` sides.
    The field is smooth inside the object: it is evaluated at nodes^2 Chebyshev points of the plane and interpolated.
    """
    points = np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)
    receive = _biot_savart(loops, points, z, np.asarray(field, dtype=float), segments)
    area = np.sqrt(1 - points**2)  # of the plane that belongs to each point
    power = np.sum(np.abs(receive) ** 2, axis=0)
    receive = receive / np.sqrt(area @ power @ area / area.sum() ** 2)
    sens = _as(receive.astype(np.complex64), like)
    return along(_chebyshev(shape[1], nodes), along(_chebyshev(shape[0], nodes), sens, 1), 2)


def random_phase(
    rng: np.random.Generator, shape: Sequence[int], *, strength: float = 1.0, terms: int = 4, like: Array | None = None
) -> Array:
    """exp(i phi) (y, x) complex64; phi is a smooth random field of `terms` cosines along each axis, of standard
    deviation `strength` (radians)."""
    order = np.arange(terms)
    weight = rng.standard_normal((terms, terms)) / (1 + order[:, None] ** 2 + order**2)
    y, x = (np.cos(np.pi * order * (_positions(n)[:, None] + 1) / 2) for n in shape)
    phi = y @ weight @ x.T
    phi = strength * (phi - phi.mean()) / max(float(phi.std()), 1e-9) + rng.uniform(-np.pi, np.pi)
    return _as(np.exp(1j * phi).astype(np.complex64), like)


def random_covariance(
    rng: np.random.Generator, coils: int, *, coupling: float = 0.3, spread: float = 0.2, like: Array | None = None
) -> Array:
    """Noise covariance (coil, coil) complex64 of coupled coils of different gains: positive definite, mean variance 1.

    coupling: how much of each neighbour's noise a coil receives, less with distance; spread: of the gains' logarithm.
    """
    apart = np.abs(np.subtract.outer(np.arange(coils), np.arange(coils)))
    apart = np.minimum(apart, coils - apart)
    mixing = rng.standard_normal((coils, coils)) + 1j * rng.standard_normal((coils, coils))
    mixing = np.eye(coils) + coupling * np.exp(1.0 - apart) * mixing / np.sqrt(2) * (apart > 0)
    mixing = np.exp(spread * rng.standard_normal(coils))[:, None] * mixing
    covariance = mixing @ mixing.conj().T
    return _as((covariance / np.trace(covariance).real * coils).astype(np.complex64), like)


def noise(rng: np.random.Generator, covariance: Array, shape: Sequence[int]) -> Array:
    """Complex Gaussian noise of `shape` (..., coil, y, x) with E[n n^H] = covariance (coil, coil) over the coils."""
    xp = array_namespace(covariance)
    white = rng.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    factor = xp.linalg.cholesky(covariance)
    return mix(factor, asarray_like(white, covariance, covariance.dtype)) / 2**0.5


def encode(image: Array, sens: Array, shape: Sequence[int]) -> Array:
    """k-space (..., coil, *shape) of a finer image (..., y, x) seen by sens (..., coil, y, x).

    Like a scanner, it measures the centre of k-space of an object with more detail than the matrix resolves. The
    reconstructed image has the values of the fine one. Raises InputError where the image is not at least that fine.
    """
    if any(n > fine for n, fine in zip(shape, image.shape[-2:], strict=True)):
        raise InputError(f"simulated k-space of {tuple(shape)} needs an image at least as fine, got {image.shape[-2:]}")
    scale = (shape[0] * shape[1] / (image.shape[-2] * image.shape[-1])) ** 0.5
    return resize(fftc(expand(image, sens)), shape) * scale


def _as(values: NDArray[Any], like: Array | None) -> Array:
    return values if like is None else asarray_like(values, like)


def _positions(n: int) -> Real:
    return (np.arange(n) - n // 2) * 2.0 / n


def _chebyshev(pixels: int, nodes: int) -> Real:
    """(pixels, nodes): polynomial interpolation from the Chebyshev points cos(pi (k + 1/2) / nodes) to the pixels."""
    points = np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)
    coefficients = np.polynomial.chebyshev.chebvander(points, nodes - 1).T * (2 / nodes)
    coefficients[0] /= 2
    return np.polynomial.chebyshev.chebvander(_positions(pixels), nodes - 1) @ coefficients


def _biot_savart(loops: Loops, points: Real, z: float, field: Real, segments: int) -> NDArray[np.complex128]:
    """(coil, y, x): B . (e1 - i e2) of unit currents, up to a common factor, on the grid `points` x `points`."""
    e1, e2 = _orthogonal(field[None])
    first, second = _orthogonal(loops.normal)
    receive = np.zeros((len(loops.radius), points.size, points.size), dtype=complex)
    wire = 0.1**2  # radius of the wire, squared: keeps a pixel on it finite
    for angle in 2 * np.pi * np.arange(segments) / segments:
        place = loops.centre + loops.radius[:, None] * (np.cos(angle) * first + np.sin(angle) * second)
        current = loops.radius[:, None] * (np.cos(angle) * second - np.sin(angle) * first)
        # (dl x d) . e = d . (e x dl), with d from the wire to the pixel
        weight = np.cross(e1 - 1j * e2, current)[:, :, None, None]
        d_x = points[None, None, :] - place[:, 0, None, None]
        d_y = points[None, :, None] - place[:, 1, None, None]
        d_z = (z - place[:, 2])[:, None, None]
        receive += (weight[:, 0] * d_x + weight[:, 1] * d_y + weight[:, 2] * d_z) / (
            d_x**2 + d_y**2 + d_z**2 + wire
        ) ** 1.5
    return receive


def _orthogonal(direction: Real) -> tuple[Real, Real]:
    """Two unit vectors for each of (n, 3) vectors, right-handed with it."""
    direction = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    least = np.eye(3)[np.argmin(np.abs(direction), axis=1)]
    first = np.cross(least, direction)
    first = first / np.linalg.norm(first, axis=1, keepdims=True)
    return first, np.cross(direction, first)
