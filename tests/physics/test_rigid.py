from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from mrnets.physics.arrays import to_numpy
from mrnets.physics.rigid import moved, moved_back
from tests.physics.adjoint import assert_adjoint, assert_close, assert_linear, random_complex

MOTIONS = [(0.0, (1.3, -2.0)), (0.3, (0.0, 0.0)), (-0.7, (0.4, 3.1))]


def blob(shape, centre):
    """Smooth, of limited bandwidth, asymmetric."""
    y, x = (np.arange(n) - n // 2 for n in shape)
    r = ((y[:, None] - centre[0]) / 5) ** 2 + ((x[None] - centre[1]) / 3) ** 2
    return (np.exp(-r / 2) * (1 + 0.5j * np.tanh(x / 4)[None])).astype(np.complex64)


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("shape", [(12, 10), (9, 13)])
def test_motion_is_linear_and_unitary(xp, rng, shape, motion):
    x, y = (random_complex(xp, rng, (2, *shape)) for _ in range(2))
    assert_adjoint(lambda v: moved(v, *motion), lambda v: moved_back(v, *motion), x, y)
    assert_linear(lambda v: moved(v, *motion), x, y)
    assert_close(moved_back(moved(x, *motion), *motion), x)


@pytest.mark.parametrize("shift", [(3, -5), (-2, 0)])
def test_shifts_by_whole_pixels_roll_the_image(xp, rng, shift):
    image = random_complex(xp, rng, (3, 11, 12))
    assert_close(moved(image, 0.0, shift), np.roll(to_numpy(image), shift, axis=(-2, -1)))


@pytest.mark.parametrize("degrees", [4.0, -11.0, 35.0])
def test_a_turn_is_that_of_an_interpolation(xp, degrees):
    """SciPy turns by splines, from the axis x towards y where the index y grows, about (n - 1) / 2."""
    image = blob((65, 65), (6.0, -7.0))
    turned = to_numpy(moved(xp.asarray(image), math.radians(degrees), (0.0, 0.0)))
    parts = (ndimage.rotate(part, -degrees, reshape=False, order=5) for part in (image.real, image.imag))
    expected = sum(part * unit for part, unit in zip(parts, (1, 1j), strict=True))
    assert np.abs(turned - expected).max() < 0.01


def test_a_quarter_turn(xp):
    image = blob((65, 65), (6.0, -7.0))
    turned = to_numpy(moved(xp.asarray(image), math.pi / 2, (0.0, 0.0)))
    assert np.abs(turned - np.rot90(image, -1)).max() < 1e-3
