"""Multi-echo gradient echoes: the signal model, its derivative, and the fit of R2*, S0, B0 and phase.

The model is s(t) = S0 exp(i phase) exp(-t (R2* - i 2 pi B0)). R2* is in 1/s, B0 in Hz, phase in rad, t in s, and S0 in
the unit of the image. Axes: images (..., echo, y, x) complex; maps (..., 4, y, x) real, in the order of `maps.MAPS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from mrnets.errors import InputError
from mrnets.physics.arrays import Array, array_namespace, asarray_like, clipped
from mrnets.physics.unwrap import unwrap

__all__ = ["check_echo_times", "differential", "differential_adjoint", "fit", "signal", "signal_region"]

_TAU = 2 * math.pi
_AROUND = 2
"""Pixels on each side of one whose signal is averaged, to tell the object from single bright pixels of noise."""
_LEAST = 0.12
"""Least signal of the object, relative to the mean signal of its pixels."""


def check_echo_times(echo_times: Array | Sequence[float] | None, echoes: int, what: str) -> tuple[float, ...]:
    """The echo times as plain numbers, s. Raises InputError, naming `what`, unless they are as many as `echoes`, two or
    more, finite, not negative and ascending."""
    if echo_times is None:
        raise InputError(f"{what} needs the echo times, and the scan has none")
    times = tuple(map(float, echo_times))
    if len(times) < 2 or len(times) != echoes:
        raise InputError(f"{what} needs two or more echoes and their times, not {echoes} echoes and {len(times)} times")
    if not all(map(math.isfinite, times)) or times[0] < 0 or any(b <= a for a, b in pairwise(times)):
        raise InputError(f"{what} needs ascending echo times in s, not {', '.join(f'{t:g}' for t in times)}")
    return times


def signal(maps: Array, echo_times: Array) -> Array:
    """The echoes (..., echo, y, x) complex of `maps` (..., 4, y, x) at `echo_times` (echo,)."""
    return maps[..., 1, None, :, :] * _unit(maps, _times(maps, echo_times))


def differential(maps: Array, echo_times: Array, change: Array) -> Array:
    """The derivative of `signal` at `maps` along `change` (..., 4, y, x): (..., echo, y, x) complex."""
    t = _times(maps, echo_times)
    s0, (r2, d_s0, b0, phase) = maps[..., 1, None, :, :], _split(change)
    return _unit(maps, t) * (d_s0 - t * s0 * r2 + 1j * (s0 * (phase + _TAU * t * b0)))


def differential_adjoint(maps: Array, echo_times: Array, residual: Array) -> Array:
    """The adjoint of `differential` (real inner products): residual (..., echo, y, x) complex to (..., 4, y, x) real.

    For residual = signal(maps) - data it is the gradient of half the sum of |signal - data|^2 with respect to the maps.
    """
    xp = array_namespace(maps, residual)
    t = _times(maps, echo_times)
    s0 = maps[..., 1, :, :]
    turned = xp.conj(_unit(maps, t)) * residual
    along, across = xp.real(turned), xp.imag(turned)
    return xp.stack(
        (
            -s0 * xp.sum(t * along, axis=-3),
            xp.sum(along, axis=-3),
            _TAU * s0 * xp.sum(t * across, axis=-3),
            s0 * xp.sum(across, axis=-3),
        ),
        axis=-3,
    )


def fit(images: Array, echo_times: Array, *, unwrapped: bool = True) -> Array:
    """Maps (..., 4, y, x) of `images` (..., echo, y, x), all voxels at once; zeros where there is no signal.

    R2* and S0: a line through log |s|, weighted with |s|^2, the inverse variance of log |s| at high SNR. R2* is limited
    to the range from 0 to 10 / (second echo time), because faster decay leaves no signal to measure. S0 follows from
    the limited value.
    B0: the phase advance between neighbouring echoes is averaged as complex numbers over the closest-spaced pairs. It
    is unambiguous within +-1 / (2 dTE), where dTE is the smallest spacing. With `unwrapped` the map exceeds that range
    where neighbouring voxels require it (`mrnets.physics.unwrap`). One multiple of 1 / dTE for the whole slice stays
    unknown. It is chosen such that the weighted mean is the least. The advances over wider spacings refine the map,
    smallest first. A weighted line through the remaining phases of all echoes gives B0 and the phase at t = 0, within
    (-pi, pi].
    Raises InputError where the echo times do not fit the images.
    """
    xp = array_namespace(images)
    times = check_echo_times(echo_times, images.shape[-3], "the fit of relaxation maps")
    power = xp.real(images) ** 2 + xp.imag(images) ** 2
    t = asarray_like(times, images, power.dtype)[:, None, None]
    r2, s0 = _decay(power, t, times[1])
    coarse = _advance(images, power, times, unwrapped)
    b0, phase = _phase_line(images, power, t, coarse)
    return xp.stack((r2, s0, xp.where(s0 > 0, b0, 0.0), phase), axis=-3)


def signal_region(maps: Array, first: float, noise: Array | None = None) -> Array:
    """Where `maps` (..., 4, y, x) have a signal at the echo time `first` (s): (..., y, x) bool.

    Elsewhere R2*, B0 and phase are values at random. The signal is the root mean square over 5 x 5 pixels. It must
    exceed 12 % of the object's mean, in which each pixel weighs as much as its signal, so that air counts little.
    noise: (...,) standard deviation of complex noise in the images, which it must exceed, too. None: not known.
    """
    xp = array_namespace(maps)
    s = xp.abs(maps[..., 1, :, :]) * xp.exp(-first * maps[..., 0, :, :])
    power = s * s
    around = _averaging(s.shape[-2], s) @ power @ xp.matrix_transpose(_averaging(s.shape[-1], s))
    mean = _ratio(xp.sum(power, axis=(-2, -1)), xp.sum(s, axis=(-2, -1)))
    least = _LEAST * mean if noise is None else xp.maximum(_LEAST * mean, noise)
    return around > (least * least)[..., None, None]


def _averaging(pixels: int, like: Array) -> Array:
    """The matrix that replaces each pixel of an axis by the mean of those around it, (pixels, pixels)."""
    xp = array_namespace(like)
    place = asarray_like(range(pixels), like, like.dtype)
    near = xp.astype(xp.abs(place[:, None] - place) <= _AROUND, like.dtype)
    return near / xp.sum(near, axis=-1)[:, None]


def _times(maps: Array, echo_times: Array) -> Array:
    return asarray_like(echo_times, maps, maps.dtype)[:, None, None]


def _split(maps: Array) -> tuple[Array, ...]:
    """The four maps, each (..., 1, y, x)."""
    return tuple(maps[..., i : i + 1, :, :] for i in range(4))


def _unit(maps: Array, t: Array) -> Array:
    """The echoes of S0 = 1."""
    xp = array_namespace(maps)
    r2, _, b0, phase = _split(maps)
    return xp.exp(-t * r2) * _turn(phase + _TAU * t * b0)


def _turn(angle: Array) -> Array:
    """exp(i angle); by cosine and sine, which are much faster than the complex exponential."""
    xp = array_namespace(angle)
    return xp.cos(angle) + 1j * xp.sin(angle)


def _angle(z: Array) -> Array:
    xp = array_namespace(z)
    return xp.atan2(xp.imag(z), xp.real(z))


def _ratio(numerator: Array, denominator: Array) -> Array:
    """The quotient, 0 where the denominator vanishes."""
    xp = array_namespace(denominator)
    some = denominator > 0
    return xp.where(some, numerator / xp.where(some, denominator, 1.0), 0.0)


def _line(t: Array, values: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Weighted line through (..., echo, y, x): its slope, and the point (t, value) that it passes, each (..., y, x)."""
    xp = array_namespace(values)
    total = xp.sum(weights, axis=-3)
    centre = _ratio(xp.sum(weights * t, axis=-3), total)
    mean = _ratio(xp.sum(weights * values, axis=-3), total)
    lever = weights * (t - centre[..., None, :, :])
    spread = xp.sum(lever * t, axis=-3)
    return _ratio(xp.sum(lever * values, axis=-3), spread), centre, mean


def _decay(power: Array, t: Array, second: float) -> tuple[Array, Array]:
    xp = array_namespace(power)
    logs = 0.5 * xp.log(xp.where(power > 0, power, 1.0))
    slope, centre, mean = _line(t, logs, power)
    r2 = clipped(-slope, 0.0, 10.0 / second)
    some = xp.any(power > 0, axis=-3)
    return r2, xp.where(some, xp.exp(mean + r2 * centre), 0.0)


def _advance(images: Array, power: Array, times: tuple[float, ...], unwrapped: bool) -> Array:
    """B0 in Hz from the phase advances between neighbouring echoes, in ascending order of their spacing."""
    xp = array_namespace(images)
    gaps = [b - a for a, b in pairwise(times)]
    groups: list[list[int]] = []
    for i in sorted(range(len(gaps)), key=gaps.__getitem__):
        if groups and gaps[i] <= 1.01 * gaps[groups[-1][0]]:
            groups[-1].append(i)
        else:
            groups.append([i])
    b0 = None
    for group in groups:
        gap = sum(gaps[i] for i in group) / len(group)
        product = sum(images[..., i + 1, :, :] * xp.conj(images[..., i, :, :]) for i in group)
        if b0 is None:
            advance = _angle(product)
            if unwrapped:
                advance = unwrap(advance, xp.sqrt(xp.sum(power, axis=-3)))
            b0 = advance / (_TAU * gap)
        else:
            b0 = b0 + _angle(product * _turn(-_TAU * gap * b0)) / (_TAU * gap)
    return b0


def _phase_line(images: Array, power: Array, t: Array, coarse: Array) -> tuple[Array, Array]:
    """B0 in Hz and the phase at t = 0, by a line through the phases that remain after `coarse` (..., y, x)."""
    xp = array_namespace(images)
    still = images * _turn(-_TAU * t * coarse[..., None, :, :])
    reference = xp.sum(still, axis=-3)
    rest = _angle(still * xp.conj(reference)[..., None, :, :])
    slope, centre, mean = _line(t, rest, power)
    phase = _angle(reference) + mean - slope * centre
    return coarse + slope / _TAU, phase - _TAU * xp.round(phase / _TAU)
