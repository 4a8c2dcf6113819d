"""The g-factor against the closed form of regular undersampling, and its two ways against each other."""

import numpy as np
import pytest

from mrnets.physics.arrays import to_numpy
from mrnets.physics.gfactor import g_factor


@pytest.fixture
def sens(rng):
    """(coil, y, x), the sum of squares is 1."""
    y, x = np.mgrid[-1:1:16j, -1:1:12j]
    centres = rng.uniform(-1.5, 1.5, (4, 2))
    phases = np.exp(2j * np.pi * rng.random(4))
    maps = np.array([p * np.exp(-((y - v) ** 2 + (x - u) ** 2)) for p, (v, u) in zip(phases, centres, strict=True)])
    return (maps / np.sqrt((np.abs(maps) ** 2).sum(axis=0))).astype(np.complex64)


def unfolded(sens, acceleration):
    """Pruessmann 1999, equation 23, for every n-th line: pixels that lie on each other are solved together."""
    height, width = sens.shape[1:]
    found = np.zeros((height, width))
    for x in range(width):
        for y in range(height // acceleration):
            rows = y + np.arange(acceleration) * (height // acceleration)
            normal = sens[:, rows, x].conj().T @ sens[:, rows, x]
            found[rows, x] = np.sqrt(np.real(np.diag(np.linalg.inv(normal)) * np.diag(normal)))
    return found


@pytest.mark.parametrize("axis", [0, 1])
def test_regular_lines_have_the_g_factor_of_sense(xp, sens, rng, axis):
    maps = sens if axis == 0 else np.ascontiguousarray(sens.transpose(0, 2, 1))
    mask = np.zeros(maps.shape[1:], bool)
    mask[(slice(None, None, 2), slice(None))[:: 1 if axis == 0 else -1]] = True
    found = to_numpy(g_factor(xp.asarray(maps), xp.asarray(mask), rng))
    expected = unfolded(sens, 2)
    np.testing.assert_allclose(found if axis == 0 else found.T, expected, rtol=0.02)


def test_a_full_scan_has_no_more_noise_and_outside_there_is_none(xp, sens, rng):
    sens[:, :4] = 0
    sens[:, 4:8] *= np.float32(0.1)  # maps that fade out at the edge
    found = to_numpy(g_factor(xp.asarray(sens), xp.ones(sens.shape[1:], dtype=xp.bool), rng))
    np.testing.assert_allclose(found[4:], 1, atol=2e-3)
    assert not found[:4].any()


def test_replicas_agree_with_the_exact_way(xp, sens, rng):
    mask = np.zeros(sens.shape[1:], bool)
    mask[::2] = True
    exact = to_numpy(g_factor(xp.asarray(sens), xp.asarray(mask), rng))
    mask[1, 0] = True  # no longer whole lines
    found = to_numpy(g_factor(xp.asarray(sens), xp.asarray(mask), rng, replicas=30))
    assert np.median(np.abs(found / exact - 1)) < 0.12


def test_an_empty_mask_is_refused(xp, sens, rng):
    with pytest.raises(ValueError, match="samples nothing"):
        g_factor(xp.asarray(sens), xp.zeros(sens.shape[1:], dtype=xp.bool), rng)
