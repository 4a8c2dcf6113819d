"""Coil sensitivities against analytic coils, and against figures of SigPy and BART on the same data."""

import numpy as np
import pytest

from mrnets.errors import InputError
from mrnets.physics.espirit import espirit, rss_maps, unitary_maps
from mrnets.physics.fourier import fftc, resize


def ellipses(shape):
    """A Shepp-Logan-like object with a smooth phase, (y, x) complex."""
    y, x = np.meshgrid(*[(np.arange(n) - n // 2) / (n / 2) for n in shape], indexing="ij")
    image = np.zeros(shape)
    for value, a, b, x0, y0, angle in [
        (1.0, 0.69, 0.92, 0, 0, 0),
        (-0.8, 0.6624, 0.874, 0, 0.0184, 0),
        (-0.2, 0.11, 0.31, 0.22, 0, -0.3),
        (-0.2, 0.16, 0.41, -0.22, 0, 0.3),
        (0.1, 0.21, 0.25, 0, -0.35, 0),
        (0.1, 0.046, 0.046, 0, 0.1, 0),
        (0.2, 0.046, 0.023, -0.08, 0.605, 0),
    ]:
        u, v = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle), (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle)
        image[(u / a) ** 2 + (v / b) ** 2 <= 1] += value
    return image * np.exp(1j * (1.5 * x + 2 * y**2 - 0.8 * x * y))


def birdcage(coils, shape, radius=1.5):
    """Coils around the object, (coil, y, x), unit norm."""
    y, x = np.meshgrid(*[(np.arange(n) - n // 2) / (n / 2) for n in shape], indexing="ij")
    angle = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    u, v = x - radius * np.cos(angle), y - radius * np.sin(angle)
    sens = np.exp(1j * (np.arctan2(u, -v) - angle)) / np.hypot(u, v)
    return sens / np.sqrt(np.sum(np.abs(sens) ** 2, axis=0))


def scan(coils=12, shape=(128, 128), snr=200.0, seed=0):
    """Noise-free coil images and noisy k-space, (coil, y, x) complex64."""
    image = ellipses(shape)
    images = birdcage(coils, shape) * image
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((2, *images.shape)) * np.abs(image).max() / snr / np.sqrt(2)
    return images.astype(np.complex64), (fftc(images) + noise[0] + 1j * noise[1]).astype(np.complex64)


def projection_error(sens, images):
    """|| (1 - S S^H) x || / || x || over coil images x."""
    projected = sens * np.sum(np.conj(sens) * images, axis=0)
    return np.linalg.norm(images - projected) / np.linalg.norm(images)


@pytest.mark.parametrize("coils", [4, 12, 32])
def test_projection_error(coils):
    images, kspace = scan(coils)
    sens = espirit(resize(kspace, (24, 24)), (128, 128))
    assert sens.dtype == np.complex64
    assert projection_error(sens, images) < {4: 0.0058, 12: 0.0060, 32: 0.0079}[coils]  # SigPy 0.1.27, same data
    norm = np.sum(np.abs(sens) ** 2, axis=0)
    np.testing.assert_allclose(norm[norm > 0], 1, atol=1e-5)
    assert np.all(norm[np.abs(images).sum(axis=0) > 0.05] > 0)
    assert np.mean(norm == 0) > 0.2


def test_simple_maps():
    images, kspace = scan()
    block = resize(kspace, (24, 24))
    assert projection_error(rss_maps(block, (128, 128)), images) < 0.021
    unit = unitary_maps(block, (128, 128))
    assert unit.shape == (12, 128, 128)
    np.testing.assert_allclose(np.sum(np.abs(unit) ** 2, axis=0), 1, rtol=1e-5)


def test_block_smaller_than_the_kernel():
    with pytest.raises(InputError, match="at least 6 samples"):
        espirit(np.ones((4, 5, 24), np.complex64), (64, 64))
