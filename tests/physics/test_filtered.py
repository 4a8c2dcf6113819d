"""Filtered k-space is noticed, and the level of its noise found in the background."""

from __future__ import annotations

import numpy as np
import pytest

from mrnets.physics.filtered import filtered_noise
from mrnets.physics.fourier import fftc

N, NOISE = 128, 0.5
U = np.abs(np.arange(N) - N // 2) / (N / 2)
FILTERS = {
    "hamming": 0.54 + 0.46 * np.cos(np.pi * U),
    "hann": 0.5 + 0.5 * np.cos(np.pi * U),
    "tukey": np.where(U < 0.7, 1, 0.5 + 0.5 * np.cos(np.pi * (U - 0.7) / 0.3)),
    "fermi": 1 / (1 + np.exp((U - 0.9) / 0.03)),
}


def kspace(rng, snr, radius=0.7, coils=1):
    """(1, 1, coil, y, x) of a disc with a texture; every second line was sampled outside of the centre."""
    y, x = np.mgrid[-1 : 1 : N * 1j, -1 : 1 : N * 1j]
    disc = (np.hypot(y, x) < radius) * (1 + 0.3 * np.sin(9 * x + 5 * y))
    full = fftc(snr * NOISE * np.tile(disc, (1, 1, coils, 1, 1)))
    full = full + NOISE * (rng.standard_normal((2, *full.shape)) * [[[[[[1]]]]], [[[[[1j]]]]]]).sum(axis=0) / np.sqrt(2)
    full[..., 1 : N // 2 - 12 : 2, :] = 0
    return full.astype(np.complex64)


@pytest.mark.parametrize("coils", [1, 3])
@pytest.mark.parametrize("snr", [5, 20, 100])
@pytest.mark.parametrize("name", FILTERS)
def test_the_noise_of_filtered_kspace(xp, rng, name, snr, coils):
    filtered = kspace(rng, snr, coils=coils) * FILTERS[name].astype(np.float32)
    level = filtered_noise(xp.asarray(filtered), 0.2 * NOISE)
    assert level == pytest.approx(NOISE * np.sqrt(np.mean(FILTERS[name] ** 2)), rel=0.15)


@pytest.mark.parametrize("radius", [0.7, 1.5])
@pytest.mark.parametrize("snr", [0, 5, 20, 100, 1000])
@pytest.mark.parametrize("sampled", [slice(None), slice(N // 4, None), slice(16, N - 16)])
def test_no_other_kspace_is_taken_for_filtered(xp, rng, snr, radius, sampled):
    """Objects in the field of view or beyond it, asymmetric echoes, and edges filled with zeros."""
    k = kspace(rng, snr, radius)
    there = np.zeros_like(k)
    there[..., sampled] = k[..., sampled]
    assert filtered_noise(xp.asarray(there), NOISE) is None


def test_too_few_lines_or_lines_with_gaps_tell_nothing(rng):
    k = kspace(rng, 20) * FILTERS["hann"].astype(np.float32)
    few, gaps = np.zeros_like(k), k.copy()
    few[..., 60:66, :] = k[..., 60:66, :]
    gaps[..., ::3] = 0
    assert filtered_noise(few, 0.01) is None
    assert filtered_noise(gaps, 0.01) is None
