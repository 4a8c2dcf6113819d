"""Regridding along the readout: areas of trapezoids, and the pseudo-inverse of uneven samples."""

from __future__ import annotations

import numpy as np
import pytest

from mrnets.physics.fourier import ifftc
from mrnets.physics.regrid import regridding, supported, trapezoid_area


@pytest.mark.parametrize(("up", "top", "down"), [(10, 30, 10), (5, 0, 20), (0, 30, 0), (10, 30, 0)])
def test_areas_of_trapezoids(up: float, top: float, down: float) -> None:
    whole = up + top + down
    times = np.linspace(-5, whole + 5, 241)
    fine = np.linspace(0, whole, 200_001)
    height = np.interp(fine, [0, up + 1e-9, up + top, whole], [0.0 if up else 1.0, 1.0, 1.0, 0.0 if down else 1.0])
    expected = np.interp(times, fine, np.concatenate([[0], np.cumsum((height[1:] + height[:-1]) / 2)]) * fine[1])
    np.testing.assert_allclose(trapezoid_area(times, up, top, down), expected, atol=2e-3)


@pytest.mark.parametrize(("size", "pixels"), [(16, 16), (16, 8), (15, 15), (15, 7), (16, 7)])
def test_even_samples_are_the_fourier_transform(size: int, pixels: int) -> None:
    made = regridding(np.arange(size) - size // 2.0, size, pixels)
    first = size // 2 - pixels // 2
    np.testing.assert_allclose(made, ifftc(np.eye(size), axes=(-1,))[:, first : first + pixels].T, atol=1e-12)


def test_pixels_that_samples_can_tell() -> None:
    assert supported(np.arange(16.0), 16) == 16
    assert supported(np.arange(8) * 2.0, 16) == 8
    assert supported(np.array([0.0, 0.5, 2.0]), 16) == 10
