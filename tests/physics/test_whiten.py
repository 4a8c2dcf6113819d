from __future__ import annotations

import math

import numpy as np
import pytest

from mrnets.errors import InputError
from mrnets.physics import whiten
from mrnets.physics.arrays import to_numpy
from mrnets.physics.coils import mix
from mrnets.physics.fourier import fftc
from tests.physics.adjoint import assert_close, random_complex


def mixing(rng, coils):
    """Correlated coils of unlike gain: noise is mixing @ white noise, its covariance mixing @ mixing^H, complex."""
    return np.diag(np.linspace(0.2, 3, coils)) @ (np.eye(coils) + 0.6 * random_complex(np, rng, (coils, coils)))


def deviation(matrix, covariance):
    """How far whitened noise of the true covariance is from white: 0 is perfect, 1 like no whitening at all."""
    left = to_numpy(matrix) @ covariance @ to_numpy(matrix).conj().T
    return np.linalg.norm(left - np.eye(len(left))) / math.sqrt(len(left))


def test_covariance_of_known_samples(xp):
    # Two coils, three samples, by hand: n n^H / 2.
    noise = xp.asarray(np.array([[1, 1j, 0], [1j, 1, 2]], dtype=np.complex64))
    found = to_numpy(whiten.covariance(noise))
    np.testing.assert_allclose(found, np.array([[2, 0], [0, 6]]) / 2, atol=1e-7)
    noise = xp.asarray(np.array([[1, 0, 0], [1j, 0, 2]], dtype=np.complex64))
    np.testing.assert_allclose(to_numpy(whiten.covariance(noise)), np.array([[1, -1j], [1j, 5]]) / 2, atol=1e-7)


def test_covariance_takes_all_leading_axes_together(xp, rng):
    noise = random_complex(xp, rng, (3, 2, 4, 50))
    joined = np.moveaxis(to_numpy(noise), 2, 0).reshape(4, -1)
    found = whiten.covariance(noise)
    assert to_numpy(found).dtype == np.complex64
    assert_close(found, joined @ joined.conj().T / 299)
    assert_close(found, to_numpy(found).conj().T, 0)


@pytest.mark.parametrize("coils", [4, 12])
def test_whitening_is_as_good_as_the_noise_scan_is_long(xp, rng, coils):
    mix_noise = mixing(rng, coils)
    scan = (mix_noise @ random_complex(np, rng, (coils, 16384))).astype(np.complex64)
    matrix = whiten.whitener(whiten.covariance(xp.asarray(scan)))
    # A covariance from n samples is off by sqrt(coils / n) of its norm (Wishart): 0.027 for 12 coils and 16384 samples.
    limit = math.sqrt(coils / 16384)
    assert deviation(matrix, mix_noise @ mix_noise.conj().T) < 1.2 * limit
    # With the real part alone, as some do, nothing is white.
    wrong = whiten.whitener(np.real(to_numpy(whiten.covariance(scan))))
    assert deviation(wrong, mix_noise @ mix_noise.conj().T) > 5 * limit


@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_whitener_is_the_inverse_cholesky_factor(xp, rng, scale):
    factor = np.tril(mixing(rng, 6))
    factor[np.diag_indices(6)] = np.abs(np.diag(factor))
    covariance = (factor @ factor.conj().T).astype(np.complex64)
    found = whiten.whitener(xp.asarray(covariance), scale)
    assert to_numpy(found).dtype == np.complex64
    assert not np.any(np.triu(to_numpy(found), 1))
    assert_close(found, scale * np.linalg.inv(factor), 1e-4)
    assert_close(mix(found, xp.asarray(covariance)[..., None])[..., 0], to_numpy(found) @ covariance)


def test_whitener_of_coils_with_gains_far_apart(rng):
    gain = np.logspace(-9, 9, 7)
    covariance = np.diag(gain**2).astype(np.complex64)
    assert deviation(whiten.whitener(covariance), covariance.astype(np.complex128)) < 1e-5


def test_noise_scale_of_gadgetron():
    # Verified on Gadgetron 4.7.2: dwell times of 5 and 10 us give whitened noise of variance 0.80 (0.793).
    assert whiten.noise_scale(5, 10) ** 2 == pytest.approx(0.793)
    assert whiten.noise_scale(2.0, 2.0, bandwidth=0.5) == pytest.approx(1)
    assert whiten.noise_scale(0, 10) == whiten.noise_scale(5, 0) == 1
    for bad in (-1, math.nan, math.inf):
        with pytest.raises(InputError, match="must be a finite number, 0 or more"):
            whiten.noise_scale(5, bad)
        with pytest.raises(InputError, match="bandwidth"):
            whiten.noise_scale(5, 5, bad)


def object_in_noise(rng, coils, noise_level, size=96):
    """k-space (coil, y, x) of a smooth object off the centre, with noise of the returned covariance."""
    y, x = (np.mgrid[:size, :size] - size / 2) / size
    image = np.exp(-(((y - 0.05) / 0.12) ** 2) - ((x / 0.1) ** 2)) * np.exp(3j * x)
    sens = np.exp(1j * np.arange(coils))[:, None, None] * (1 + y * np.cos(np.arange(coils))[:, None, None])
    mix_noise = noise_level * mixing(rng, coils)
    noise = np.tensordot(mix_noise, random_complex(np, rng, (coils, size, size)), 1)
    return (fftc(image * sens) + noise).astype(np.complex64), mix_noise @ mix_noise.conj().T


@pytest.mark.parametrize("noise_level", [0.01, 0.1])
def test_periphery_finds_the_noise_around_the_signal(xp, rng, noise_level):
    kspace, covariance = object_in_noise(rng, 8, noise_level)
    found = whiten.periphery_covariance(xp.asarray(kspace))
    # The limit is sqrt(8 / samples); nearly all of the 9216 are noise, which makes it 0.03.
    assert deviation(whiten.whitener(found), covariance) < 0.04
    assert deviation(whiten.whitener(whiten.covariance(kspace.reshape(8, -1))), covariance) > 0.3


def test_periphery_leaves_out_what_was_not_sampled(xp, rng):
    kspace, covariance = object_in_noise(rng, 6, 0.02)
    kspace[:, 1::2] = 0
    kspace[:, :, :20] = 0  # asymmetric echo
    found = whiten.periphery_covariance(xp.asarray(kspace))
    assert deviation(whiten.whitener(found), covariance) < 0.1
    patch = whiten.periphery_covariance(xp.asarray(kspace), start=(0, 10), length=(20, 86))
    only_sampled = kspace[:, 0:20:2, 20:].reshape(6, -1)
    assert_close(patch, only_sampled @ only_sampled.conj().T / (10 * 76 - 1))


def test_periphery_is_not_too_small_for_having_been_chosen(rng):
    # White noise everywhere: an estimate from the samples with the least energy would be far below 1.
    traces = []
    for _ in range(20):
        noise = random_complex(np, rng, (4, 64, 64))
        traces.append(np.trace(whiten.periphery_covariance(noise)).real / 4)
    assert np.mean(traces) == pytest.approx(1, abs=0.02)


def test_periphery_of_several_slices_uses_all_of_them(xp, rng):
    kspace, covariance = object_in_noise(rng, 6, 0.05, size=32)
    empty = np.zeros_like(kspace)
    one, same = (whiten.periphery_covariance(xp.asarray(k)) for k in (kspace, np.stack([kspace, empty])[:, None]))
    assert_close(same, one)  # a slice that was not measured changes nothing
    repeats = [kspace, kspace + 0.1 * random_complex(np, rng, kspace.shape)]
    both = whiten.periphery_covariance(xp.asarray(np.stack(repeats)[:, None]))
    assert_close(both, (covariance + covariance + 0.01 * np.eye(6)) / 2, 0.15)


def test_bad_noise_is_refused_with_the_coil_named(xp, rng):
    noise = to_numpy(random_complex(xp, rng, (5, 100)))

    def refuse(samples, sentence):
        with pytest.raises(InputError, match=sentence):
            whiten.whitener(whiten.covariance(xp.asarray(samples)))

    refuse(noise[:, :5], "5 coils: needs more samples than coils, got 5")
    refuse(noise[:, :0], "needs more samples than coils, got 0")
    for value in (np.nan, np.inf):
        bad = noise.copy()
        bad[3, 7] = value
        refuse(bad, r"coils \[3\] \(counted from 0\) are NaN")
    dead = noise.copy()
    dead[[1, 4]] = 0
    refuse(dead, r"coils \[1, 4\] \(counted from 0\) have none")
    twins = noise.copy()
    twins[4] = 2j * twins[2]
    refuse(twins, r"coils \[2, 4\] \(counted from 0\) are linearly dependent")


@pytest.mark.parametrize(
    ("covariance", "sentence"),
    [
        (np.ones((2, 3)), "coils x coils"),
        (np.array([[1, np.nan], [np.nan, 1]]), "NaN or Inf"),
        (np.array([[1, 0.5], [0.1, 1]]), "not Hermitian"),
        (np.array([[1, 2], [2, 1]]), "no inverse"),
    ],
)
def test_bad_covariances_are_refused(xp, covariance, sentence):
    with pytest.raises(InputError, match=sentence):
        whiten.whitener(xp.asarray(covariance.astype(np.complex64)))


def test_bad_patches_are_refused(rng):
    kspace = random_complex(np, rng, (2, 16, 16))
    with pytest.raises(InputError, match="both start and length"):
        whiten.periphery_covariance(kspace, start=3)
    for start, length in ((10, 7), (-1, 3), (0, 0)):
        with pytest.raises(InputError, match="leaves"):
            whiten.periphery_covariance(kspace, start=start, length=length)
    with pytest.raises(InputError, match="needs more samples than coils, got 0"):
        whiten.periphery_covariance(np.zeros_like(kspace))
