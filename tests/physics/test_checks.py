"""Wrong arguments of the physics get one sentence, and what means the same is taken."""

from __future__ import annotations

import numpy as np
import pytest

from mrnets.errors import InputError
from mrnets.physics import coils, espirit, fourier, masks
from mrnets.physics.arrays import to_numpy
from mrnets.physics.low_resolution import rss_maps, unitary_maps
from tests.physics.adjoint import random_complex

MAPS = {
    "espirit": espirit.espirit,
    "folded": espirit.folded,
    "rss": rss_maps,
    "unitary": unitary_maps,
}


def told(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", MAPS)
def test_maps_of_what_is_no_kspace(name, xp, rng):
    maps, block = MAPS[name], random_complex(xp, rng, (4, 12, 12))
    assert "complex" in told(lambda: maps(xp.real(block), (24, 24)))
    assert "got list" in told(lambda: maps(to_numpy(block).tolist(), (24, 24)))
    assert "coil" in told(lambda: maps(block[0], (24, 24)))
    for shape in (24, (24.0, 24), "ab", None):
        assert "whole numbers" in told(lambda shape=shape: maps(block, shape))
    for shape in ((0, 24), (-24, 24)):
        assert "at least" in told(lambda shape=shape: maps(block, shape))


@pytest.mark.parametrize("shape", [(np.int64(24), np.int32(26)), np.array([24, 26]), [24, 26]])
def test_shapes_of_numpy_are_shapes(shape, rng):
    block = random_complex(np, rng, (4, 12, 12))
    for maps in (espirit.espirit, rss_maps, unitary_maps):
        np.testing.assert_array_equal(maps(block, shape), maps(block, (24, 26)))
    np.testing.assert_array_equal(fourier.resize(block, shape), fourier.resize(block, (24, 26)))
    masked = [masks.poisson2d(tuple(shape), 2, np.random.default_rng(0), centre=8) for shape in (shape, (24, 26))]
    np.testing.assert_array_equal(*masked)


def test_axes_that_are_not_there(xp, rng):
    line = random_complex(xp, rng, (8,))
    for transform in (fourier.fftc, fourier.ifftc):
        assert "(-2, -1)" in told(lambda transform=transform: transform(line))
    assert "(-2, -1)" in told(lambda: fourier.resize(line, (4, 4)))
    assert "whole numbers" in told(lambda: fourier.resize(line, (4.0,), (-1,)))
    assert "at least" in told(lambda: fourier.resize(line, (-4,), (-1,)))


def test_mixing_other_coils(xp, rng):
    matrix, data = random_complex(xp, rng, (2, 3)), random_complex(xp, rng, (4, 8, 8))
    assert "(2, 3) and (4, 8, 8)" in told(lambda: coils.mix(matrix, data))
    assert "mixing coils" in told(lambda: coils.mix(matrix, data[0]))


@pytest.mark.parametrize("name", masks.names())
def test_masks_of_what_is_no_plane(name):
    draw, rng = masks.kind(name).draw, np.random.default_rng(0)
    assert "whole numbers" in told(lambda: draw(64, 2, rng))
    assert "whole numbers" in told(lambda: draw((64.0, 64), 2, rng))
    assert "(y, x)" in told(lambda: draw((64, 64, 64), 2, rng))
    assert "generator" in told(lambda: draw((64, 64), 2, 0))
