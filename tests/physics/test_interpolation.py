"""Nearest pixels of another grid over the same field of view."""

from __future__ import annotations

import numpy as np
import pytest

from mrnets.physics.arrays import to_numpy
from mrnets.physics.interpolation import nearest


@pytest.mark.parametrize(("have", "size"), [(240, 160), (160, 240), (7, 12), (12, 7), (5, 5), (8, 16), (16, 8), (1, 6)])
def test_each_pixel_has_the_value_of_the_nearest(xp, have: int, size: int) -> None:
    """All distances are compared, in integers. The right one of two equally near counts, and at the edges the last."""
    found = to_numpy(nearest(xp.asarray(np.arange(have)), size, 0))
    wanted = (np.arange(size) - size // 2) * have  # in units of 1 / (have * size) of the field of view
    distances = np.abs(wanted[:, None] - (np.arange(have) - have // 2) * size)
    np.testing.assert_array_equal(found, have - 1 - np.argmin(distances[:, ::-1], axis=1))


def test_steps_between_pixels_are_even(xp) -> None:
    """Rounding half to even would take some pixels three times and others once."""
    found = to_numpy(nearest(xp.asarray(np.arange(80)), 160, 0))
    assert set(np.bincount(found)[1:-1]) == {2}
    assert set(np.diff(to_numpy(nearest(xp.asarray(np.arange(240)), 160, 0)))) == {1, 2}


def test_any_axis_and_type(xp) -> None:
    x = np.random.default_rng(1).random((2, 6, 5)) > 0.5
    for axis in (1, -2):
        np.testing.assert_array_equal(to_numpy(nearest(xp.asarray(x), 3, axis)), x[:, [1, 3, 5]])
    assert nearest(x, 5, -1) is x
