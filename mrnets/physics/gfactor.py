"""Noise of SENSE reconstructions: how much more of it an undersampled scan has than a full one of the same duration.

Axes: coil, y, x. Source: Pruessmann et al., SENSE: sensitivity encoding for fast MRI (MRM 1999), equations 21 to 24.
"""

from __future__ import annotations

import numpy as np

from mrnets.physics.arrays import Array, array_namespace, asarray_like, clipped, device
from mrnets.physics.coils import adjoint, normal
from mrnets.physics.conjugate import conjugate_gradients
from mrnets.physics.fourier import fftc

__all__ = ["g_factor"]

REGULARISATION = 1e-3
"""Relative to the sum over coils of |sens|^2, which is 1 in the object."""
AT_ONCE = 16
"""Columns of the image that are computed together."""
ITERATIONS = 20


def g_factor(sens: Array, mask: Array, rng: np.random.Generator, replicas: int = 24) -> Array:
    """Return the g-factor (y, x) float32 of a SENSE reconstruction; 0 where no coil sees anything.

    sens: (coil, y, x) complex64 of whitened coils. mask: (y, x) bool, what was sampled.
    It is exact where whole lines along one axis were sampled. Other masks take `replicas` reconstructions of noise,
    from `rng`, and have the error of that many samples (Robson et al., MRM 2008). A weak regularisation bounds it where
    the mask leaves something open. Raises ValueError for an empty mask."""
    xp = array_namespace(sens)
    sampled = float(xp.sum(xp.astype(mask, xp.float32)))
    if not sampled:
        raise ValueError("the mask samples nothing")
    rows, columns = xp.any(mask, axis=1), xp.any(mask, axis=0)
    if bool(xp.all(mask == (rows[:, None] & columns[None, :]))) and bool(xp.all(columns) | xp.all(rows)):
        if bool(xp.all(columns)):
            variance = _exact(sens, rows)
        else:
            variance = xp.permute_dims(_exact(xp.permute_dims(sens, (0, 2, 1)), columns), (1, 0))
    else:
        variance = _replicated(sens, mask, rng, replicas)
    weight = xp.sum(xp.abs(sens) ** 2, axis=0)
    inside = weight > 0
    full = xp.where(inside, weight / (weight + REGULARISATION) ** 2, xp.ones_like(weight))
    share = sampled / (mask.shape[0] * mask.shape[1])
    found = xp.sqrt(clipped(variance, 0.0) * share / full)
    return xp.astype(xp.where(inside, found, xp.zeros_like(found)), xp.float32)


def _exact(sens: Array, lines: Array) -> Array:
    """Return the noise variance (y, x) where the lines (y,) are sampled, for noise of variance 1 in each sample."""
    xp = array_namespace(sens)
    height, width = sens.shape[-2:]
    whole = xp.eye(height, dtype=sens.dtype, device=device(sens))
    transform = fftc(whole, axes=(0,))
    spread = xp.conj(transform).T @ (xp.astype(lines, sens.dtype)[:, None] * transform)
    parts = []
    for start in range(0, width, AT_ONCE):
        some = xp.permute_dims(sens[:, :, start : start + AT_ONCE], (2, 1, 0))  # (x, y, coil)
        gram = spread * (xp.conj(some) @ xp.matrix_transpose(some))
        inverse = xp.linalg.inv(gram + REGULARISATION * whole)
        own = xp.real(xp.sum(inverse * whole, axis=-1))
        parts.append(own - REGULARISATION * xp.sum(xp.abs(inverse) ** 2, axis=-1))
    return xp.permute_dims(xp.concat(parts), (1, 0))


def _replicated(sens: Array, mask: Array, rng: np.random.Generator, replicas: int) -> Array:
    """Return the noise variance (y, x) of reconstructions of noise."""
    xp = array_namespace(sens)
    total = xp.zeros(mask.shape, dtype=xp.float32, device=device(sens))
    for _ in range(replicas):
        noise = rng.normal(size=(2, *sens.shape)).astype(np.float32) * np.float32(np.sqrt(0.5))
        kspace = asarray_like(noise[0] + 1j * noise[1], sens, dtype=sens.dtype)
        image = conjugate_gradients(
            lambda image: normal(image, sens, mask) + REGULARISATION * image,
            adjoint(kspace, sens, mask),
            iterations=ITERATIONS,
        )
        total = total + xp.abs(image) ** 2
    return total / replicas
