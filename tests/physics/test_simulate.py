"""Simulated scans: the physics against closed forms, and the same draws on every array library."""

from typing import Any

import numpy as np
import pytest

from mrnets.errors import InputError
from mrnets.physics.arrays import to_numpy
from mrnets.physics.coils import expand, rss
from mrnets.physics.fourier import fftc, ifftc
from mrnets.physics.simulate import (
    Loops,
    encode,
    noise,
    phantom,
    random_covariance,
    random_loops,
    random_phase,
    sensitivities,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("shape", [(64, 64), (63, 50)])
def test_an_ellipse_has_its_area_and_its_place(shape: tuple[int, int]) -> None:
    image = phantom(shape, [(2.0, 0.5, 0.25, 0.2, 0.4, 30.0)], supersampling=8)
    pixel = 4 / (shape[0] * shape[1])
    assert image.sum() * pixel == pytest.approx(2.0 * np.pi * 0.5 * 0.25, rel=1e-2)
    y, x = ((np.arange(n) - n // 2) * 2 / n for n in shape)
    assert (image.sum(axis=0) @ x) / image.sum() == pytest.approx(0.2, abs=0.01)
    assert (image.sum(axis=1) @ y) / image.sum() == pytest.approx(-0.4, abs=0.01)  # up in the table is row 0


def test_the_shepp_logan_phantom_has_tofts_grey_values() -> None:
    image = phantom((128, 128))
    assert image.dtype == np.float32
    assert image.max() == pytest.approx(1.0)  # skull
    assert image[64, 64] == pytest.approx(0.2, abs=1e-6)
    assert image[0].max() == 0


def test_the_field_on_the_axis_of_a_loop() -> None:
    """B = mu0 I R^2 / 2 (R^2 + d^2)^(3/2), the wire's radius of 0.1 squared added to the distance squared."""
    loop = Loops(np.array([[-1.5, 0.0, 0.0]]), np.array([[1.0, 0.0, 0.0]]), np.array([0.5]))
    sens = sensitivities(loop, (32, 32), segments=360, nodes=40)[0, 16]
    distance = 1.5 + (np.arange(32) - 16) / 16
    expected = (0.25 + distance**2 + 0.01) ** -1.5
    np.testing.assert_allclose(abs(sens) / abs(sens[16]), expected / expected[16], rtol=1e-4)


def test_a_coil_does_not_receive_along_the_main_field() -> None:
    """On the axis of a loop whose normal is the main field there is no transverse field."""
    loop = Loops(np.array([[0.0, 0.0, 1.0]]), np.array([[0.0, 0.0, 1.0]]), np.array([0.5]))
    sens = abs(sensitivities(loop, (33, 33), segments=360)[0])
    assert sens[16, 16] < 1e-4 * sens.max()


@pytest.mark.parametrize("coils", [1, 4, 12, 32])
def test_interpolated_sensitivities_are_those_of_a_finer_grid(coils: int) -> None:
    loops = random_loops(rng(coils), coils)
    coarse, fine = (sensitivities(loops, (45, 64), z=0.2, nodes=nodes) for nodes in (32, 64))
    assert coarse.shape == (coils, 45, 64)
    assert coarse.dtype == np.complex64
    assert abs(coarse - fine).max() < 1e-3 * abs(fine).max()
    assert np.mean(rss(fine) ** 2) == pytest.approx(1, rel=0.1)


def test_no_coils_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        random_loops(rng(), 0)


def test_phase_is_smooth_and_of_the_strength_asked_for() -> None:
    phase = random_phase(rng(), (64, 80), strength=0.5)
    np.testing.assert_allclose(abs(phase), 1, rtol=1e-6)
    turned = np.angle(phase * np.conj(phase.mean() / abs(phase.mean())))
    assert turned.std() == pytest.approx(0.5, rel=0.02)
    assert abs(np.angle(phase[1:] * phase[:-1].conj())).max() < 0.2


@pytest.mark.parametrize("coils", [1, 2, 16])
def test_covariances_are_hermitian_and_positive_definite(coils: int) -> None:
    covariance = random_covariance(rng(), coils)
    np.testing.assert_allclose(covariance, covariance.conj().T, atol=1e-6)
    assert np.linalg.eigvalsh(covariance).min() > 0
    assert np.trace(covariance).real == pytest.approx(coils, rel=1e-5)
    assert coils == 1 or abs(covariance[0, 1]) > 1e-3


def test_noise_has_the_covariance_asked_for() -> None:
    covariance = random_covariance(rng(1), 6)
    samples = noise(rng(2), covariance, (4, 6, 100, 100))
    assert samples.dtype == np.complex64
    flat = samples.transpose(1, 0, 2, 3).reshape(6, -1)
    np.testing.assert_allclose(flat @ flat.conj().T / flat.shape[1], covariance, atol=0.03)
    assert abs(np.mean(flat**2)) < 0.02  # circular


def test_encoding_keeps_the_values_of_a_finer_image() -> None:
    image = random_phase(rng(), (96, 80)) * phantom((96, 80), [(1.0, 0.7, 0.7, 0, 0, 0)])
    sens = np.ones((1, 96, 80), np.complex64)
    seen = ifftc(encode(image, sens, (48, 40)))[0]
    assert abs(seen[24, 20]) == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(encode(image, sens, (96, 80)), fftc(expand(image, sens)), atol=1e-6)
    with pytest.raises(InputError, match="at least as fine"):
        encode(image, sens, (48, 81))


def test_every_array_library_gets_the_same_scan(xp: Any) -> None:
    like = xp.zeros(1)
    loops = random_loops(rng(3), 4)

    def scan(like: Any) -> Any:
        sens = sensitivities(loops, (30, 33), like=like)
        image = phantom((30, 33), like=like) * random_phase(rng(5), (30, 33), like=like)
        kspace = encode(image, sens, (20, 21))
        return kspace + noise(rng(4), random_covariance(rng(6), 4, like=like), (4, 20, 21))

    assert type(scan(like)) is type(like)
    np.testing.assert_allclose(to_numpy(scan(like)), scan(None), atol=1e-5)
