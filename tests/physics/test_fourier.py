from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import mrnets.physics
from mrnets.physics.arrays import to_numpy
from mrnets.physics.fourier import fftc, ifftc, resize
from tests.physics.adjoint import assert_adjoint, assert_close, assert_linear, assert_unitary, random_complex

SHAPES = [(8, 6), (7, 6), (8, 5), (9, 7), (1, 4)]


def dft(n):
    """The centred orthonormal DFT as a matrix, from its definition."""
    index = np.arange(n) - n // 2
    return np.exp(-2j * np.pi * np.outer(index, index) / n) / np.sqrt(n)


@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_transform_of_its_definition(xp, rng, shape):
    x = random_complex(xp, rng, (3, 2, *shape))
    assert_close(fftc(x), dft(shape[0]) @ to_numpy(x) @ dft(shape[1]).T)


@pytest.mark.parametrize("shape", SHAPES)
def test_unitary_linear_and_adjoint(xp, rng, shape):
    x, y = (random_complex(xp, rng, (2, *shape)) for _ in range(2))
    assert_unitary(fftc, ifftc, x)
    assert_unitary(ifftc, fftc, x)
    assert_linear(fftc, x, y)
    assert_adjoint(fftc, ifftc, x, y)


@pytest.mark.parametrize("shape", SHAPES)
def test_constant_image_is_one_sample_at_the_centre(xp, shape):
    k = to_numpy(fftc(xp.ones(shape, dtype=xp.complex64)))
    expected = np.zeros(shape)
    expected[shape[0] // 2, shape[1] // 2] = np.sqrt(shape[0] * shape[1])
    np.testing.assert_allclose(k, expected, atol=1e-5)


@pytest.mark.parametrize("axes", [(-1,), (0,), (0, 2), (0, 1, 2)])
def test_axes_are_transformed_and_no_others(xp, rng, axes):
    x = random_complex(xp, rng, (5, 4, 6))
    expected = to_numpy(x).astype(np.complex128)
    for axis in axes:
        expected = np.moveaxis(np.tensordot(dft(x.shape[axis]), expected, (1, axis)), 0, axis)
    assert_close(fftc(x, axes=axes), expected)
    assert_close(ifftc(fftc(x, axes=axes), axes=axes), x)


@pytest.mark.parametrize("small", [3, 4])
@pytest.mark.parametrize("large", [7, 8])
def test_crop_and_zero_fill_are_adjoint_and_keep_the_centre(xp, rng, small, large):
    x, y = random_complex(xp, rng, (2, large, 5)), random_complex(xp, rng, (2, small, 5))
    assert_adjoint(lambda v: resize(v, (small, 5)), lambda v: resize(v, (large, 5)), x, y)
    assert_close(resize(resize(y, (large, 5)), (small, 5)), y, 0)
    assert_close(resize(x, (small, 5))[:, small // 2], x[:, large // 2], 0)
    assert_close(resize(y, (large, 5))[:, large // 2], y[:, small // 2], 0)


def test_resize_can_crop_one_axis_and_fill_another(xp, rng):
    x = random_complex(xp, rng, (6, 2, 3))
    out = resize(x, (4, 5), axes=(0, 2))
    assert out.shape == (4, 2, 5)
    assert_close(out[:, :, 1:4], x[1:5], 0)
    assert np.count_nonzero(to_numpy(out)) == 4 * 2 * 3


def test_every_transform_of_the_physics_is_orthonormal():
    """NumPy's plain transforms of single precision take several times as long. See `mrnets.physics.fourier`."""
    kinds = {f"{inverse}{real}fft{axes}" for inverse in ("", "i") for real in ("", "r") for axes in ("", "2", "n")}
    found = 0
    for path in sorted(Path(mrnets.physics.__file__).parent.glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in kinds:
                given = {key.arg: ast.unparse(key.value) for key in call.keywords}
                assert given.get("norm") == "'ortho'", f"{path.name}:{call.lineno}"
                found += 1
    assert found >= 8
