"""Normalisation: scale and offset against numbers worked out by hand, and the way back."""

from typing import Any, get_args

import numpy as np
import pytest

from mrnets.physics.arrays import to_numpy
from mrnets.physics.normalise import Normalisation, denormalised, normalised, scale_and_offset

METHODS = get_args(Normalisation)

HAND = {  # of 1, 2, 3, 6: mean 3, squares of deviations 4 + 1 + 0 + 9
    "max": (6.0, 0.0),
    "minmax": (5.0, 1.0),
    "grayscale": (5.0 / 255, 1.0),
    "mean_std": ((14 / 3) ** 0.5, 3.0),
    "mean_var": (14 / 3, 3.0),
    "fft": (1.0, 0.0),
    "none": (1.0, 0.0),
}


@pytest.mark.parametrize("method", METHODS)
def test_by_hand(xp: Any, method: Normalisation) -> None:
    values = xp.asarray([[1.0, 2.0, 3.0, 6.0], [2.0, 4.0, 6.0, 12.0]], dtype=xp.float32)
    scale, offset = scale_and_offset(values, method)
    wanted_scale, wanted_offset = HAND[method]
    units = 1 if method in ("fft", "none") else 4 if method == "mean_var" else 2
    np.testing.assert_allclose(to_numpy(scale), [wanted_scale, units * wanted_scale], rtol=1e-6)
    np.testing.assert_allclose(to_numpy(offset), [wanted_offset, 2 * wanted_offset], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_complex_values_count_by_their_magnitudes_and_are_only_scaled(xp: Any, method: Normalisation) -> None:
    values = xp.asarray([[1.0, 2j, -3.0, 3.6 - 4.8j]], dtype=xp.complex64)
    scale, offset = scale_and_offset(values, method)
    np.testing.assert_allclose(to_numpy(scale), [HAND[method][0]], rtol=1e-6)
    assert float(offset[0]) == 0


@pytest.mark.parametrize("method", METHODS)
def test_what_does_not_count_is_not_looked_at(xp: Any, method: Normalisation) -> None:
    values = xp.asarray([[100.0, 1.0, 2.0, 0.0, 3.0, 6.0]], dtype=xp.float32)
    where = xp.asarray([[False, True, True, False, True, True]])
    scale, offset = scale_and_offset(values, method, where)
    np.testing.assert_allclose([float(scale[0]), float(offset[0])], HAND[method], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 7.0])
def test_values_without_range_stay_finite(xp: Any, method: Normalisation, value: float) -> None:
    values = xp.zeros((2, 5), dtype=xp.float32) + value
    for where in (None, xp.zeros((2, 5), dtype=xp.bool)):
        scale, offset = scale_and_offset(values, method, where)
        assert np.isfinite(to_numpy(normalised(values, scale, offset))).all()
        assert (to_numpy(scale) > 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_there_and_back(xp: Any, rng: np.random.Generator, method: Normalisation, dtype: str) -> None:
    drawn = 1e-5 * (rng.standard_normal((2, 3, 4, 5)) + (1j * rng.standard_normal((2, 3, 4, 5)) if "c" in dtype else 5))
    x = xp.asarray(drawn.astype(dtype))
    scale, offset = scale_and_offset(xp.reshape(x, (2, 3, 20)), method)
    there = normalised(x, scale, offset)
    assert there.dtype == x.dtype
    back = denormalised(there, scale, offset)
    np.testing.assert_allclose(to_numpy(back), drawn.astype(dtype), rtol=1e-4, atol=1e-11)


def test_ranges() -> None:
    x = np.array([[3.0, 5.0, 11.0, 4.0]], np.float32)
    for method, low, high in (("minmax", 0, 1), ("grayscale", 0, 255)):
        there = normalised(x, *scale_and_offset(x, method))  # type: ignore[arg-type]
        np.testing.assert_allclose([there.min(), there.max()], [low, high], atol=1e-4)
    there = normalised(x, *scale_and_offset(x, "mean_std"))
    np.testing.assert_allclose([there.mean(), there.std(ddof=1)], [0, 1], atol=1e-6)
