from __future__ import annotations

import numpy as np
import pytest

from mrnets.physics import coils, simulate
from mrnets.physics.arrays import asarray_like, to_numpy
from mrnets.physics.conjugate import conjugate_gradients
from mrnets.physics.fourier import fftc
from tests.physics.adjoint import assert_adjoint, assert_close, assert_linear, random_complex
from tests.physics.sense import cg_sense

SHAPES = [(8, 6), (7, 9)]


def unit_maps(xp, rng, shape):
    """Maps (coil, y, x) of unit norm, zero in one corner, as outside an object."""
    sens = to_numpy(random_complex(xp, rng, (4, *shape)))
    sens = sens / np.linalg.norm(sens, axis=0)
    sens[:, :2, :2] = 0
    return xp.asarray(sens)


def some_lines(xp, shape):
    return xp.asarray(np.arange(shape[0]) % 2 == 0)[:, None]


@pytest.mark.parametrize("shape", SHAPES)
def test_expand_and_reduce_are_adjoint(xp, rng, shape):
    sens = random_complex(xp, rng, (3, 4, *shape))
    image, other = (random_complex(xp, rng, (3, *shape)) for _ in range(2))
    assert_adjoint(
        lambda x: coils.expand(x, sens), lambda y: coils.reduce(y, sens), image, random_complex(xp, rng, (3, 4, *shape))
    )
    assert_linear(lambda x: coils.expand(x, sens), image, other)


@pytest.mark.parametrize("shape", SHAPES)
def test_encoding_and_its_adjoint(xp, rng, shape):
    sens, mask = unit_maps(xp, rng, shape), some_lines(xp, shape)
    x, y = random_complex(xp, rng, (2, *shape)), random_complex(xp, rng, (2, 4, *shape))
    assert_adjoint(lambda v: coils.forward(v, sens, mask), lambda v: coils.adjoint(v, sens, mask), x, y)
    assert_close(coils.normal(x, sens, mask), coils.adjoint(coils.forward(x, sens, mask), sens, mask))
    assert not np.any(to_numpy(coils.forward(x, sens, mask))[..., 1::2, :])


@pytest.mark.parametrize("shape", SHAPES)
def test_encoding_of_two_sets_of_maps_and_its_adjoint(xp, rng, shape):
    sens, mask = random_complex(xp, rng, (3, 2, 4, *shape)), some_lines(xp, shape)
    x, y = random_complex(xp, rng, (3, 2, *shape)), random_complex(xp, rng, (3, 1, 4, *shape))
    assert_adjoint(lambda v: coils.expand(v, sens, sets=True), lambda v: coils.reduce(v, sens), x, y)
    assert_adjoint(lambda v: coils.forward(v, sens, mask, sets=True), lambda v: coils.adjoint(v, sens, mask), x, y)
    assert_linear(lambda v: coils.forward(v, sens, mask, sets=True), x, random_complex(xp, rng, x.shape))
    both = coils.normal(x, sens, mask, sets=True)
    assert_close(both, coils.adjoint(coils.forward(x, sens, mask, sets=True), sens, mask))
    assert_adjoint(
        lambda v: coils.normal(v, sens, mask, sets=True), lambda v: coils.normal(v, sens, mask, sets=True), x, both
    )
    separate = to_numpy(coils.forward(x[:, 0], sens[:, 0], mask)) + to_numpy(coils.forward(x[:, 1], sens[:, 1], mask))
    assert_close(coils.forward(x, sens, mask, sets=True)[:, 0], separate)


def test_conjugate_gradients_couple_the_sets_of_a_slice_and_nothing_else(xp, rng):
    shape = (8, 7)
    sens = random_complex(xp, rng, (2, 2, 6, *shape))
    image = (
        random_complex(xp, rng, (2, 2, *shape))
        * asarray_like(np.array([1, 1e-4], np.float32), sens)[:, None, None, None]
    )
    full = xp.ones(shape, dtype=xp.bool)

    def solved(which):
        own = sens[which]
        return conjugate_gradients(
            lambda v: coils.normal(v, own, full, sets=True),
            coils.normal(image[which], own, full, sets=True),
            iterations=60,
            tolerance=1e-7,
            axes=(-3, -2, -1),
        )

    together = solved(slice(0, 2))
    for n in range(2):
        assert_close(together[n], image[n], 1e-2)
        assert_close(together[n], solved(slice(n, n + 1))[0], 1e-4)


def test_reduce_undoes_expand_for_maps_of_unit_norm(xp, rng):
    sens, image = unit_maps(xp, rng, (6, 5)), random_complex(xp, rng, (6, 5))
    expected = to_numpy(image).copy()
    expected[:2, :2] = 0
    assert_close(coils.reduce(coils.expand(image, sens), sens), expected)


def test_mix_is_a_matrix_product_over_coils_and_its_adjoint_is_the_adjoint_matrix(xp, rng):
    matrix = random_complex(xp, rng, (2, 1, 3, 4))
    x, y = random_complex(xp, rng, (2, 5, 4, 6, 7)), random_complex(xp, rng, (2, 5, 3, 6, 7))
    assert_close(coils.mix(matrix, x), np.einsum("bevc,btcyx->btvyx", to_numpy(matrix), to_numpy(x)))
    back = xp.conj(xp.matrix_transpose(matrix))
    assert_adjoint(lambda v: coils.mix(matrix, v), lambda v: coils.mix(back, v), x, y)
    shared = matrix[0, 0]
    assert_close(coils.mix(shared, x), np.einsum("vc,btcyx->btvyx", to_numpy(shared), to_numpy(x)))


def test_root_sum_of_squares_of_complex_numbers(xp):
    # Magnitudes 5 and 10; a root of summed squares of the complex numbers themselves would give 3.87.
    coil_images = xp.asarray(np.array([3 + 4j, 6 + 8j], dtype=np.complex64)).reshape(2, 1, 1)
    combined = to_numpy(coils.rss(coil_images))
    assert combined.dtype == np.float32
    np.testing.assert_allclose(combined, [[np.sqrt(125)]], rtol=1e-6)


def encoding_matrix(sens, mask):
    """E as a dense matrix, column by column."""
    n = sens.shape[-2] * sens.shape[-1]
    units = np.eye(n, dtype=np.complex128).reshape(n, *sens.shape[-2:])
    return np.stack([(mask * fftc(sens * u)).ravel() for u in units], axis=1)


@pytest.mark.parametrize("regularisation", [0.0, 0.05])
@pytest.mark.parametrize("given_start", [False, True])
def test_cg_sense_is_the_least_squares_image(xp, rng, regularisation, given_start):
    shape = (6, 7)
    sens, mask = random_complex(np, rng, (4, *shape)) / 2, np.asarray(some_lines(np, shape))
    kspace, start = random_complex(np, rng, (4, *shape)), random_complex(np, rng, shape)
    a = encoding_matrix(sens.astype(np.complex128), mask)
    prior = regularisation * start.ravel() if given_start else 0
    normal = a.conj().T @ a + regularisation * np.eye(a.shape[1])
    expected = np.linalg.solve(normal, a.conj().T @ kspace.ravel() + prior).reshape(shape)
    image = cg_sense(
        *(xp.asarray(v) for v in (kspace, sens, mask)),
        regularisation=regularisation,
        iterations=200,
        tolerance=1e-6,
        start=xp.asarray(start) if given_start else None,
    )
    assert to_numpy(image).dtype == np.complex64
    assert_close(image, expected, 1e-3)


def test_cg_sense_solves_every_slice_as_if_it_were_alone(xp, rng):
    # Scales far apart: with one step length for all slices the small one would not converge.
    sens, mask = unit_maps(xp, rng, (8, 7)), some_lines(xp, (8, 7))
    image = random_complex(xp, rng, (3, 8, 7)) * asarray_like(np.array([1, 1e-4, 0], np.float32), sens)[:, None, None]
    kspace = coils.forward(image, sens, mask)
    together = cg_sense(kspace, sens, mask, iterations=20)
    for i in range(3):
        assert_close(together[i], cg_sense(kspace[i], sens, mask, iterations=20), 1e-4)
    assert not np.any(to_numpy(together[2]))


def test_cg_sense_of_fully_sampled_data_is_the_combined_image(xp, rng):
    sens = unit_maps(xp, rng, (8, 6))
    image = random_complex(xp, rng, (8, 6))
    full = xp.ones((8, 6), dtype=xp.bool)
    kspace = fftc(coils.expand(image, sens))
    assert_close(cg_sense(kspace, sens, full), coils.reduce(coils.expand(image, sens), sens), 1e-4)


@pytest.mark.parametrize("noise", [0.002, 0.1])
def test_regularisation_that_follows_from_the_noise_is_near_the_best(xp, rng, noise):
    image = simulate.phantom((48, 40)).astype(np.complex64)
    sens = simulate.sensitivities(simulate.random_loops(rng, 6), (48, 40))
    sens = (sens / np.linalg.norm(sens, axis=0)).astype(np.complex64)
    mask = rng.random((48, 1)) < 0.3
    mask[20:28] = True
    image, sens, mask = (xp.asarray(a) for a in (image, sens, np.repeat(mask, 40, axis=1)))
    kspace = coils.forward(image, sens, mask) + noise * mask * random_complex(xp, rng, (6, 48, 40))

    def error(weight):
        return np.linalg.norm(to_numpy(cg_sense(kspace, sens, mask, regularisation=weight) - image))

    weight = coils.regularisation_of(coils.adjoint(kspace, sens, mask), noise)
    errors = {fixed: error(fixed) for fixed in (1e-4, 1e-3, 1e-2, 0.1, 1.0)}
    assert error(weight) < 1.15 * min(errors.values())
    assert error(weight) < 0.7 * max(errors.values())


def test_regularisation_has_no_unit(xp, rng):
    start = random_complex(xp, rng, (2, 3, 8, 6))
    noise = xp.asarray(np.asarray([0.1, 0.2], np.float32)[:, None, None, None])
    weight = coils.regularisation_of(start, noise)
    assert weight.shape == (2, 3, 1, 1)
    assert_close(coils.regularisation_of(1000 * start, 1000 * noise), weight)
    assert float(to_numpy(coils.regularisation_of(0 * start, noise)).max()) < 0.1
