"""Wavelets on odd and even sizes and every array library, and the reconstruction that stands on them."""

from __future__ import annotations

import numpy as np
import pytest

from mrnets.errors import InputError
from mrnets.physics import coils, simulate, wavelets
from mrnets.physics.arrays import to_numpy
from mrnets.physics.coils import adjoint, forward
from tests.physics.adjoint import assert_adjoint, assert_close, assert_linear, random_complex
from tests.physics.sense import cg_sense

SHAPES = [(16, 24), (17, 23), (40, 8), (5, 64)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels", [1, 3])
def test_the_transform_keeps_the_norm_and_its_adjoint_is_its_inverse(xp, rng, shape, levels):
    image = random_complex(xp, rng, (2, *shape))
    made = wavelets.transform(shape, xp.real(image), levels=levels, shift=(3, 5))
    coefficients = wavelets.analysis(image, made)
    assert abs(np.linalg.norm(to_numpy(coefficients)) / np.linalg.norm(to_numpy(image)) - 1) < 1e-5
    assert_close(wavelets.synthesis(coefficients, made), image)
    other = random_complex(xp, rng, coefficients.shape)
    assert_adjoint(lambda x: wavelets.analysis(x, made), lambda c: wavelets.synthesis(c, made), image, other)
    assert_linear(lambda x: wavelets.analysis(x, made), image, random_complex(xp, rng, image.shape))


def test_bands_have_the_energy_that_pywavelets_gives(xp):
    """PyWavelets 1.8: wavedec2(roll(image, (1, 1)), "db2", mode="periodization", level=2), norms of its bands."""
    image = np.random.default_rng(5).standard_normal((16, 24)).round(3)
    made = wavelets.transform(image.shape, xp.asarray(image.astype(np.float32)), levels=2)
    c = np.abs(to_numpy(wavelets.analysis(xp.asarray(image.astype(np.complex64)), made)))
    bands = [c[:4, :6], c[4:8, :6], c[:4, 6:12], c[4:8, 6:12], c[8:, :12], c[:8, 12:], c[8:, 12:]]
    golden = [5.031868, 4.163887, 4.646001, 5.190336, 10.240837, 10.428083, 7.381688]
    np.testing.assert_allclose([np.linalg.norm(band) for band in bands], golden, rtol=1e-5)


def test_a_shift_of_the_transform_is_a_shift_of_the_image(xp, rng):
    image = random_complex(xp, rng, (24, 16))
    plain = wavelets.transform((24, 16), xp.real(image))
    shifted = wavelets.transform((24, 16), xp.real(image), shift=(5, 2))
    assert_close(wavelets.analysis(image, shifted), wavelets.analysis(xp.roll(image, (5, 2), axis=(0, 1)), plain))


def test_shrinking_spares_smooth_images_and_takes_noise(xp, rng):
    y, x = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 48), indexing="ij")
    smooth = xp.asarray(np.exp(-12 * (x**2 + y**2) + 1j * x).astype(np.complex64))
    noise = 0.01 * random_complex(xp, rng, (64, 48))
    made = wavelets.transform((64, 48), xp.real(smooth))
    out = wavelets.shrunk(smooth + noise, 0.03, made)
    left = np.linalg.norm(to_numpy(out - smooth)) / np.linalg.norm(to_numpy(noise))
    assert left < 0.8


@pytest.mark.parametrize("levels", [0, -1])
def test_no_levels_are_refused(levels):
    with pytest.raises(InputError, match="level"):
        wavelets.transform((8, 8), np.zeros((8, 8)), levels=levels)


def test_the_noise_of_an_image_is_found(xp, rng):
    image = np.zeros((1, 96, 80), np.complex64)
    image[:, 20:70, 15:60] = 5
    noisy = xp.asarray(image) + 0.2 * random_complex(xp, rng, image.shape)
    assert abs(float(to_numpy(wavelets.detail_noise(noisy))[0, 0, 0]) / 0.2 - 1) < 0.05


@pytest.fixture
def scan(xp, rng):
    """Noise-free image, unit-norm maps, mask, E^H y and noise level of a 4-fold scan with 6 coils."""
    image = simulate.phantom((64, 56)).astype(np.complex64)
    maps = simulate.sensitivities(simulate.random_loops(rng, 6), (64, 56))
    maps = maps / np.linalg.norm(maps, axis=0)
    mask = rng.random((64, 1)) < 0.35
    mask[26:38] = True
    image, maps, mask = (xp.asarray(a) for a in (image, maps.astype(np.complex64), np.repeat(mask, 56, axis=1)))
    noise = 0.003
    kspace = forward(image, maps, mask) + noise * mask * random_complex(xp, rng, (6, 64, 56))
    return image, maps, mask, kspace, noise


def error(image, reference):
    return np.linalg.norm(to_numpy(image) - to_numpy(reference)) / np.linalg.norm(to_numpy(reference))


def test_l1_wavelet_is_better_than_least_squares_and_the_same_every_time(scan):
    image, maps, mask, kspace, noise = scan
    start = adjoint(kspace, maps, mask)
    out = wavelets.l1_wavelet(start, maps, mask, noise)
    assert_close(wavelets.l1_wavelet(start, maps, mask, noise), out, 1e-7)
    least = min(error(cg_sense(kspace, maps, mask, regularisation=r), image) for r in (1e-4, 1e-3, 1e-2, 1e-1))
    assert error(out, image) < 0.7 * least


def test_l1_wavelet_follows_the_scale_and_the_phase_of_the_data(scan):
    _, maps, mask, kspace, noise = scan
    start = adjoint(kspace, maps, mask)
    out = wavelets.l1_wavelet(start, maps, mask, noise, iterations=10)
    turned = wavelets.l1_wavelet((300j) * start, maps, mask, 300 * noise, iterations=10)
    assert_close(turned, 300j * out, 1e-4)


def test_l1_wavelet_of_a_batch_is_that_of_each(xp, scan):
    _, maps, mask, kspace, noise = scan
    start = adjoint(kspace, maps, mask)
    levels = xp.asarray(np.asarray([1, 5], np.float32)[:, None, None] * noise)
    both = wavelets.l1_wavelet(xp.stack([start, 0.2 * start]), maps, mask, levels, iterations=5)
    for n, factor in enumerate((1, 0.2)):
        alone = wavelets.l1_wavelet(factor * start, maps, mask, levels[n], iterations=5)
        assert_close(both[n], alone, 1e-5)


def test_nothing_measured_gives_nothing(xp):
    start = xp.zeros((1, 16, 16), dtype=xp.complex64)
    out = wavelets.l1_wavelet(start, xp.ones((1, 1, 16, 16), dtype=xp.complex64), xp.zeros((16, 16), dtype=bool), 0.1)
    assert float(np.abs(to_numpy(out)).max()) == 0


@pytest.mark.parametrize("sets", [1, 2])
def test_maps_of_any_norm_do_not_diverge(xp, rng, sets):
    """With maps twice as large the image is half as large."""
    shape = (1, sets, 4, 32, 32)
    sens = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    sens /= np.sqrt(np.sum(np.abs(sens) ** 2, axis=(1, 2), keepdims=True))
    if sets == 2:
        sens[:, 1] = sens[:, 0]  # they overlap altogether
    else:
        sens = sens[:, 0]
    mask = np.ones((1, 1, 32, 32), bool) if sets == 1 else np.ones((1, 1, 1, 32, 32), bool)
    truth = np.ones((1, sets, 32, 32)) if sets == 2 else np.ones((1, 32, 32))

    def solved(factor):
        maps = xp.asarray((factor * sens).astype(np.complex64))
        image = xp.asarray(truth.astype(np.complex64))
        start = coils.normal(image, maps, xp.asarray(mask), sets=sets == 2)
        noise = xp.asarray(np.zeros((1,) * start.ndim, np.float32))
        found = wavelets.l1_wavelet(start, maps, xp.asarray(mask), noise, sets=sets == 2, iterations=80)
        error = coils.normal(found - image, maps, xp.asarray(mask), sets=sets == 2)
        return float(np.linalg.norm(to_numpy(error)) / np.linalg.norm(to_numpy(start)))

    assert solved(1.0) < 0.02
    assert solved(3.0) < 0.02
