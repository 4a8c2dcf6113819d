"""Relaxation: the signal model against its formula, its derivative against differences, the fit against truth."""

import math

import numpy as np
import pytest
import torch

from mrnets.errors import InputError
from mrnets.physics.maps import MAPS
from mrnets.physics.relaxation import differential, differential_adjoint, fit, signal, signal_region
from mrnets.physics.unwrap import unwrap

EVEN = (0.003, 0.0115, 0.020, 0.0285)
UNEVEN = (0.002, 0.0033, 0.009, 0.021, 0.030)
TWO = (0.004, 0.006)
LIBRARIES = [np.asarray, torch.as_tensor]


def object_of(shape=(37, 40)) -> np.ndarray:
    y, x = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    return x**2 + y**2 < 0.8


def truth(b0: float, shape=(37, 40)) -> np.ndarray:
    """Return maps (4, y, x). R2* is 10 to 60 1/s, S0 0.5 to 1.5, B0 up to about 1.6 `b0`; the phase is nearly full."""
    y, x = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    maps = np.stack([35 + 25 * x, 1 + 0.5 * y, b0 * (x + 0.7 * np.sin(3 * y)), 2.5 * x + 0.5 * y])
    return (maps * object_of(shape)).astype(np.float32)


def relative(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Relative error of each map."""
    return np.linalg.norm(got - want, axis=(-2, -1)) / np.linalg.norm(want, axis=(-2, -1))


def test_signal_is_the_formula():
    maps, times = truth(30.0).astype(np.float64), np.array(EVEN)
    r2, s0, b0, phase = maps
    want = [s0 * np.exp(1j * phase) * np.exp(-t * (r2 - 2j * np.pi * b0)) for t in times]
    np.testing.assert_allclose(signal(maps, times), want, atol=1e-12)


@pytest.mark.parametrize("library", LIBRARIES)
def test_types_are_kept(library):
    maps, times = library(truth(30.0)), library(np.array(EVEN, np.float32))
    echoes = signal(maps, times)
    assert str(echoes.dtype).endswith("complex64")
    for real in (fit(echoes, times), differential_adjoint(maps, times, echoes)):
        assert str(real.dtype).endswith("float32")
        assert tuple(real.shape) == tuple(maps.shape)


def test_differential_is_the_limit_of_differences():
    rng = np.random.default_rng(3)
    maps, times = truth(30.0).astype(np.float64), np.array(UNEVEN)
    change = rng.normal(size=maps.shape)
    step = 1e-6
    want = (signal(maps + step * change, times) - signal(maps - step * change, times)) / (2 * step)
    np.testing.assert_allclose(differential(maps, times, change), want, atol=1e-8)


@pytest.mark.parametrize("times", [EVEN, UNEVEN, TWO])
@pytest.mark.parametrize("shape", [(2, 8, 8), (7, 5)])
def test_differential_and_its_adjoint(times, shape):
    rng = np.random.default_rng(4)
    *batch, y, x = shape
    maps, change = rng.normal(size=(2, *batch, 4, y, x))
    residual = rng.normal(size=(*batch, len(times), y, x)) + 1j * rng.normal(size=(*batch, len(times), y, x))
    left = np.vdot(residual, differential(maps, times, change)).real
    right = np.vdot(differential_adjoint(maps, times, residual), change)
    assert left == pytest.approx(right, rel=1e-10)


def test_adjoint_of_the_residual_is_the_gradient_of_autograd():
    maps = torch.from_numpy(truth(30.0).astype(np.float64)).requires_grad_()
    data = torch.from_numpy(signal(truth(20.0).astype(np.float64), EVEN)) + 0.1
    residual = signal(maps, EVEN) - data
    (want,) = torch.autograd.grad(0.5 * (residual.abs() ** 2).sum(), maps)
    torch.testing.assert_close(differential_adjoint(maps, EVEN, residual).detach(), want)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("times", [EVEN, UNEVEN, TWO])
@pytest.mark.parametrize("b0", [15.0, 120.0])
def test_fit_of_echoes_without_noise(library, times, b0):
    """120 Hz aliases at the spacing of EVEN (+-59 Hz): what is right then is known up to one turn for the slice."""
    want = truth(b0)
    images = signal(library(want), library(np.array(times, np.float32)))
    got = np.asarray(fit(images, library(np.array(times, np.float32))))
    assert relative(got, want).max() < 1e-3
    assert want[2].min() < -b0
    assert want[2].max() > b0


def test_fit_beyond_the_alias_limit_needs_the_neighbours():
    want = truth(120.0)
    got = fit(signal(want, EVEN), EVEN, unwrapped=False)
    assert np.abs(got[2]).max() <= 1.001 / (2 * 0.0085)
    turns = (got - want)[2] * 0.0085
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-3)
    assert np.any(np.round(turns) != 0)


def test_fit_is_linear_in_the_scale_and_batched():
    want = np.stack([truth(10.0), truth(40.0)])
    images = signal(want, EVEN)
    both = fit(images, EVEN)
    np.testing.assert_allclose(both[1], fit(images[1], EVEN), atol=1e-5)
    larger = fit(images * np.float32(1e6), EVEN)
    np.testing.assert_allclose(larger[:, 1], both[:, 1] * 1e6, rtol=1e-5)
    np.testing.assert_allclose(larger[:, 2], both[:, 2], atol=1e-3)


def test_noisy_fit_is_near_the_cramer_rao_bound():
    """Standard deviation of R2* and B0 in one voxel's ensemble, against the bound of linearised least squares."""
    rng = np.random.default_rng(5)
    maps = np.array([25.0, 1.0, -20.0, 1.0])[:, None, None] * np.ones((4, 60, 60))
    noise = 0.02
    images = signal(maps, EVEN)
    images = images + noise * (rng.normal(size=images.shape) + 1j * rng.normal(size=images.shape))
    got = fit(images, EVEN)
    times = np.array(EVEN)
    weights = np.exp(-2 * 25.0 * times)
    spread = np.sum(weights * (times - np.average(times, weights=weights)) ** 2)
    bound = noise / math.sqrt(spread)
    assert got[0].std() < 1.1 * bound
    assert got[2].std() < 1.1 * bound / (2 * np.pi)
    assert abs(got[2].mean() + 20.0) < 3 * bound / 60


def test_rising_signal_and_no_signal_stay_finite():
    images = np.zeros((4, 9, 7), np.complex64)
    images[:, 0, 0] = [1, 2, 3, 4]  # grows
    images[:, 1, 1] = [1, 0, 0, 0]  # gone at once
    images[:, 2, 2] = [0, 0, 0, 1]
    images[:, 3, 3] = [1, 1e-18, 1e-18, 1e-18]
    got = fit(images, EVEN)
    assert np.isfinite(got).all()
    assert got[0].min() >= 0
    assert got[0, 0, 0] == 0
    assert got[0].max() <= 10 / EVEN[1] * 1.0001
    assert np.all(got[:, 8] == 0)


def test_no_signal_around_an_aliased_object_is_zero():
    want = truth(120.0)
    assert np.all(fit(signal(want, EVEN), EVEN)[:, ~object_of()] == 0)


@pytest.mark.parametrize("times", [(0.003,), (0.003, 0.002, 0.004, 0.005), (0.001, 0.002), (0.0, 1.0, 2.0, np.nan)])
def test_times_that_do_not_fit_are_refused(times):
    with pytest.raises(InputError, match="echo"):
        fit(np.ones((4, 4, 4), np.complex64), np.array(times))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("shape", [(40, 31), (2, 33, 48)])
def test_unwrap_brings_back_a_steep_phase(library, shape):
    rng = np.random.default_rng(6)
    y, x = np.meshgrid(np.linspace(-1, 1, shape[-2]), np.linspace(-1, 1, shape[-1]), indexing="ij")
    want = np.broadcast_to(12 * np.exp(-3 * (x**2 + y**2)) - 8 * x + 0.1 * rng.normal(size=shape), shape)
    wrapped = np.angle(np.exp(1j * want)).astype(np.float32)
    got = np.asarray(unwrap(library(wrapped), library(np.ones(shape, np.float32))))
    turns = (got - want) / (2 * np.pi)
    np.testing.assert_allclose(turns, np.broadcast_to(np.round(turns[..., :1, :1]), shape), atol=1e-5)


def test_unwrap_of_an_object_in_noise():
    """Outside the object the phase is random and must not pull on the inside."""
    rng = np.random.default_rng(7)
    inside = object_of((64, 60))
    y, x = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 60), indexing="ij")
    want = np.where(inside, 9 * x + 5 * y**2, 0)
    wrapped = np.angle(np.where(inside, np.exp(1j * want), np.exp(2j * np.pi * rng.random((64, 60)))))
    got = unwrap(wrapped, np.where(inside, 1.0, 0.02 * rng.random((64, 60))))
    turns = ((got - want) / (2 * np.pi))[inside]
    np.testing.assert_allclose(turns, np.full_like(turns, np.round(turns[0])), atol=1e-6)


def test_names_of_the_maps():
    assert tuple(MAPS) == ("R2*", "S0", "B0", "phase")


AWAY = np.hypot(*np.meshgrid(np.linspace(-1, 1, 40), np.linspace(-1, 1, 37))) > 0.8**0.5 + 0.17
"""More than three pixels away from the object."""


def background(library, noise: float) -> tuple:
    """Maps of the object, with the fit to noise of this level around it; and the object."""
    maps, rng = truth(30.0), np.random.default_rng(4)
    inside = object_of()
    echoes = signal(maps, np.array(EVEN, np.float32))
    echoes = echoes + noise * (rng.normal(size=echoes.shape) + 1j * rng.normal(size=echoes.shape)) * ~inside
    return library(fit(echoes.astype(np.complex64), EVEN)), inside


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_the_region_of_signal_is_the_object(library, scale):
    maps, inside = background(library, 0.01)
    maps = maps * library(np.array([1, scale, 1, 1], np.float32))[:, None, None]
    region = np.asarray(signal_region(maps, EVEN[0], library(np.float32(0.02 * scale))))
    assert region[inside].all()
    assert not region[AWAY].any()


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_is_no_stronger_than_the_noise_is_no_signal(library):
    maps, inside = background(library, 0.2)
    alone = np.asarray(signal_region(maps, EVEN[0]))
    known = np.asarray(signal_region(maps, EVEN[0], library(np.float32(0.5))))
    assert alone[AWAY].mean() > 0.95  # without the noise level these values pass for an object
    assert known[AWAY].mean() < 0.05
    assert known[inside].mean() > 0.95


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_empty_slice_has_no_region(library):
    assert not np.asarray(signal_region(library(np.zeros((2, 4, 9, 8), np.float32)), 0.003)).any()


def test_each_slice_has_its_own_region():
    maps = np.stack([truth(30.0), 1000 * truth(30.0)])
    both = signal_region(maps, EVEN[0], np.array([0.01, 10.0], np.float32))
    np.testing.assert_array_equal(
        both, np.stack([signal_region(m, EVEN[0], n) for m, n in zip(maps, (0.01, 10.0), strict=True)])
    )
