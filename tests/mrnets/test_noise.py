"""The noise level from calibration lines, against the level with which the lines were made."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mrnets.contract import Raw
from mrnets.noise import agreed_noise, unpredictable
from mrnets.physics import simulate
from mrnets.physics.fourier import fftc, resize


def lines(rng: np.random.Generator, coils: int, block: tuple[int, int], noise: float) -> np.ndarray:
    """Calibration lines (coil, y, x) of a phantom of brightness 1, with complex noise of that standard deviation."""
    image = simulate.phantom((96, 96)).astype(np.complex64)
    maps = simulate.sensitivities(simulate.random_loops(rng, coils), (96, 96))
    kspace = resize(fftc(image * maps), block)
    white = rng.standard_normal((2, *kspace.shape))
    return (kspace + noise * (white[0] + 1j * white[1]) / np.sqrt(2)).astype(np.complex64)


@pytest.mark.parametrize("noise", [1.0, 0.03, 0.001])
@pytest.mark.parametrize(("coils", "block"), [(4, (24, 96)), (8, (24, 96)), (16, (12, 96)), (8, (24, 24))])
def test_what_neighbours_do_not_predict_is_noise(
    rng: np.random.Generator, noise: float, coils: int, block: tuple[int, int]
) -> None:
    found = unpredictable(lines(rng, coils, block, noise))
    assert found is not None
    assert 0.5 * noise < found < 2 * noise


def test_data_without_noise_have_a_level_of_rounding() -> None:
    """Patches of one plane wave are multiples of each other: all eigenvalues but one are 0, or below it by rounding."""
    wave = np.exp(1j * (0.3 * np.arange(24)[:, None] + 0.2 * np.arange(96)))
    found = unpredictable(np.stack([wave * factor for factor in (1, 2j, -1, 0.5)]))
    assert found is not None
    assert 0 < found < 1e-6
    assert unpredictable(np.zeros((4, 24, 96), np.complex64)) == 0


def test_a_block_too_small_tells_nothing(rng: np.random.Generator) -> None:
    assert unpredictable(lines(rng, 16, (6, 6), 0.1)) is None


@pytest.fixture
def raw(rng: np.random.Generator) -> Raw:
    """Whitened as the noise measurement says: noise has the variance 1."""
    block = lines(rng, 6, (24, 96), 0.02) / np.float32(0.02)
    return Raw(
        kspace=np.zeros((1, 1, 6, 96, 96), np.complex64),
        mask=np.ones((1, 1, 1, 96, 96), bool),
        calibration=block[None, None],
        whitened=True,
    )


def test_a_noise_measurement_that_fits_is_believed(raw: Raw) -> None:
    assert agreed_noise(raw) == (raw, ())


@pytest.mark.parametrize("factor", [0.01, 30.0])
def test_a_noise_measurement_of_another_scale_is_replaced_and_said(raw: Raw, factor: float) -> None:
    """The noise of the data is `factor` times the noise that whitened data should have."""
    wrong = dataclasses.replace(raw, calibration=raw.calibration * np.float32(factor))
    mended, (note,) = agreed_noise(wrong)
    assert 0.5 * factor < mended.averages**-0.5 < 2 * factor
    assert "noise measurement" in note


def test_data_that_were_not_whitened_are_left_alone(raw: Raw) -> None:
    other = dataclasses.replace(raw, calibration=raw.calibration * 100, whitened=False)
    assert agreed_noise(other) == (other, ())


def test_signal_of_one_coil_is_not_taken_for_noise(rng: np.random.Generator) -> None:
    """Its neighbours in k-space do not predict a strong signal. They still tell where the measured noise is too strong.

    Images were too smooth."""
    kspace = lines(rng, 1, (96, 96), 0.001) / np.float32(0.001)
    block = kspace[None, None, :, 36:60]
    found = unpredictable(block[0, 0])
    assert found is not None
    assert found > 9
    raw = Raw(kspace=kspace[None, None], mask=np.ones((1, 1, 1, 96, 96), bool), calibration=block, whitened=True)
    assert agreed_noise(raw) == (raw, ())
    faint = dataclasses.replace(raw, calibration=block / np.float32(1000 * found))
    mended, (note,) = agreed_noise(faint)
    assert mended.averages == pytest.approx(1e6, rel=1e-2)
    assert "noise measurement" in note
