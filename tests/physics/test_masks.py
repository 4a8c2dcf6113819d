from __future__ import annotations

import itertools

import numpy as np
import pytest

from mrnets.errors import InputError
from mrnets.physics import masks

KINDS = [masks.kind(name) for name in masks.names()]
ONE_D = [kind.draw for kind in KINDS if kind.axes == 1 and not kind.by_distance]
TWO_D = [kind.draw for kind in KINDS if kind.axes == 2]
ALL = ONE_D + TWO_D
BY_DISTANCE = [kind.draw for kind in KINDS if kind.by_distance]


def centred(shape, height, width):
    top, left = shape[0] // 2 - height // 2, shape[1] // 2 - width // 2
    return slice(top, top + height), slice(left, left + width)


@pytest.mark.parametrize("shape", [(256, 218), (65, 90)])
@pytest.mark.parametrize("acceleration", [1, 2, 3.5, 5, 10])
@pytest.mark.parametrize("mask", TWO_D)
def test_acceleration_of_two_dimensional_masks(mask, acceleration, shape, rng):
    made = mask(shape, acceleration, rng)
    assert made.shape == shape
    assert made.dtype == np.bool_
    assert made.size / made.sum() == pytest.approx(acceleration, rel=0.02)


@pytest.mark.parametrize("lines", [256, 65, 320])
@pytest.mark.parametrize("acceleration", [1, 2, 3.5, 4, 8])
@pytest.mark.parametrize("mask", ONE_D)
def test_acceleration_of_one_dimensional_masks_is_exact_to_the_line(mask, acceleration, lines, rng):
    made = mask((lines, 12), acceleration, rng)
    assert np.all(made == made[:, :1])
    assert made[:, 0].sum() == round(lines / acceleration)


@pytest.mark.parametrize("mask", BY_DISTANCE)
@pytest.mark.parametrize("distance", [0, 2.5, 65, float("nan")])
def test_impossible_distances_are_refused(mask, distance, rng):
    with pytest.raises(InputError, match="distance between lines must be a whole number from 1 to 64"):
        mask((64, 64), distance, rng)


def test_an_unknown_mask_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="unknown mask: 'poison2d'; did you mean 'poisson2d'"):
        masks.kind("poison2d")


@pytest.mark.parametrize("kind", KINDS, ids=masks.names())
@pytest.mark.parametrize(("centre", "width"), [(0.1, 10), (12, 12), (1, 1), (1.0, 1)])
def test_centre_is_a_width_in_samples_from_1_on_and_a_fraction_below(kind, centre, width, rng):
    made = kind.draw((100, 100), 6, rng, centre=centre)
    rows, columns = centred(made.shape, width, width)
    assert made[rows, 50].all()
    assert made[50, columns].all()


@pytest.mark.parametrize("mask", ALL + BY_DISTANCE)
def test_same_seed_same_mask_and_another_seed_another(mask):
    def draw(seed):
        return mask((96, 80), 5, np.random.default_rng(seed))

    assert np.array_equal(draw(3), draw(3))
    assert not all(np.array_equal(draw(3), draw(seed)) for seed in range(4, 8))


def test_masks_do_not_change_from_release_to_release():
    # Published scores hang on them. A NumPy release may change its streams; then the changelog has to say so.
    made = {f.__name__: np.flatnonzero(f((24, 20), 4, np.random.default_rng(7))[:, 0]).tolist() for f in ONE_D}
    assert made == {
        "equispaced1d": [3, 8, 11, 12, 16, 21],
        "random1d": [11, 12, 14, 16, 19, 21],
        "gaussian1d": [6, 10, 11, 12, 13, 14],
    }


@pytest.mark.parametrize("mask", [*ONE_D, masks.equispaced2d, masks.poisson2d])
@pytest.mark.parametrize(("centre", "width"), [(0.1, 10), (12, 12), (0, 0)])
def test_centre_is_fully_sampled(mask, centre, width, rng):
    made = mask((100, 100), 6, rng, centre=centre)
    across = 100 if mask in ONE_D else width
    assert made[centred(made.shape, width, across)].all()
    if width:
        height, found = masks.calibration_region(made)
        assert height >= width
        assert found >= across


def test_gaussian2d_has_an_ellipse_with_half_axes_of_half_the_centre(rng):
    made = masks.gaussian2d((200, 100), 10, rng, centre=0.2)
    y, x = np.mgrid[:200, :100]
    inside = ((y - 100) / 20) ** 2 + ((x - 50) / 10) ** 2 <= 1
    assert made[inside].all()
    assert made[~inside].mean() < 0.1


def test_equispaced1d_keeps_its_distance(rng):
    lines = np.flatnonzero(masks.equispaced1d((256, 1), 4, rng, centre=24)[:, 0])
    distances = np.diff(lines[lines < 116]), np.diff(lines[lines >= 140])
    spacing = (256 - 24) / (64 - 24)
    for found in distances:
        assert set(found) <= {int(np.floor(spacing)), int(np.ceil(spacing))}


def test_equispaced2d_is_a_grid(rng):
    made = masks.equispaced2d((120, 90), 6, rng, centre=0)
    rows, columns = made.any(axis=1), made.any(axis=0)
    assert np.array_equal(made, rows[:, None] & columns)
    for lines in rows, columns:
        assert set(np.diff(np.flatnonzero(lines))) <= {2, 3}


@pytest.mark.parametrize("fwhm", [0.3, 0.7])
def test_gaussian1d_has_the_density_it_is_asked_for(fwhm, rng):
    # Few lines of many, so that drawing without replacement is nearly drawing with it.
    n, draws = 400, 1500
    counts = sum(masks.gaussian1d((n, 1), 40, rng, centre=0, fwhm=fwhm)[:, 0].astype(int) for _ in range(draws))
    index = np.arange(n) - n // 2
    density = np.exp(-4 * np.log(2) * (index / (fwhm * n)) ** 2)
    measured, expected = (d.reshape(20, -1).sum(axis=1) / d.sum() for d in (counts, density))
    assert np.abs(measured - expected).max() < 0.1 * expected.max()


def test_random1d_is_uniform(rng):
    counts = sum(masks.random1d((80, 1), 4, rng, centre=0)[:, 0].astype(int) for _ in range(2000))
    # 2000 draws with probability 1/4: standard deviation 19.4
    assert np.abs(counts - 500).max() < 5 * 19.4


@pytest.mark.parametrize("mask", [masks.gaussian2d, masks.poisson2d])
def test_density_falls_outwards(mask, rng):
    made = sum(mask((160, 120), 8, rng).astype(float) for _ in range(8))
    y, x = np.mgrid[:160, :120]
    radius = np.hypot((y - 80) / 80, (x - 60) / 60)
    density = [made[(radius >= r) & (radius < r + 0.2)].mean() for r in (0.2, 0.4, 0.6, 0.8)]
    assert all(a > 1.15 * b for a, b in itertools.pairwise(density))


def nearest(points):
    """Distance of each point to its nearest neighbour, and which that is."""
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(gaps, np.inf)
    return gaps.min(axis=1), gaps.argmin(axis=1)


@pytest.mark.parametrize("variation", [0.0, 2.0])
def test_poisson_samples_keep_their_distance(variation, rng):
    shape = (100, 120)
    points = np.argwhere(masks.poisson2d(shape, 12, rng, centre=0, variation=variation))
    gap, neighbour = nearest(points.astype(float))
    growth = 1 + variation * np.hypot(*((points - [50, 60]) / [50, 60]).T)
    relative = gap / np.minimum(growth, growth[neighbour])
    # Random discs jam at 54.7 % of the area. A dart thrower that stops anywhere near that keeps most of this distance;
    # independent random samples of this density have neighbours that touch.
    y, x = np.mgrid[:100, :120]
    area = (1 + variation * np.hypot((y - 50) / 50, (x - 60) / 60)) ** -2
    jammed = np.sqrt(4 * 0.547 / np.pi * area.sum() / len(points))
    assert relative.min() > 0.85 * jammed


def test_poisson_covers_without_holes(rng):
    made = masks.poisson2d((128, 128), 10, rng, centre=0, variation=0.0)
    points = np.argwhere(made).astype(float)
    far = max(np.min(np.linalg.norm(points - p, axis=1)) for p in np.argwhere(~made)[::7])
    assert far < 1.3 * np.median(nearest(points)[0]) + 1


@pytest.mark.parametrize("mask", ALL)
def test_impossible_requests_say_what_is_wrong(mask, rng):
    with pytest.raises(InputError, match=rf"{mask.__name__}: 8-fold .* the fully sampled centre alone has"):
        mask((64, 64), 8, rng, centre=0.6)
    with pytest.raises(InputError, match=r"acceleration must be 1 or more, got 0\.5"):
        mask((64, 64), 0.5, rng)
    with pytest.raises(InputError, match="acceleration must be 1 or more, got nan"):
        mask((64, 64), float("nan"), rng)
    with pytest.raises(InputError, match="centre must be a fraction"):
        mask((64, 64), 4, rng, centre=1.2)
    with pytest.raises(InputError, match="centre must be a fraction"):
        mask((64, 64), 4, rng, centre=65)
    with pytest.raises(InputError, match="at least 1 along each axis"):
        mask((0, 64), 4, rng, centre=0)


def test_impossible_densities(rng):
    with pytest.raises(InputError, match="gaussian1d: fwhm must be positive"):
        masks.gaussian1d((64, 64), 4, rng, fwhm=0)
    with pytest.raises(InputError, match="poisson2d: variation must be 0 or more"):
        masks.poisson2d((64, 64), 4, rng, variation=-1)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (2, 40)])
@pytest.mark.parametrize("mask", ALL)
def test_tiny_matrices(mask, shape, rng):
    assert mask(shape, 1, rng, centre=0).all()
    if shape[0] > 1:
        assert mask(shape, 2, rng, centre=0).any()
    else:
        with pytest.raises(InputError, match=r"2-fold acceleration of 1.* leaves nothing"):
            mask(shape, 2, rng, centre=0)


def test_partial_fourier_leaves_out_the_first_lines(rng):
    full = masks.random1d((64, 8), 2, rng, centre=20)
    cut = masks.partial_fourier(full, 0.25)
    assert not cut[:16].any()
    assert np.array_equal(cut[16:], full[16:])
    assert full[:16].any()  # the argument is left alone
    assert masks.calibration_region(cut)[0] >= 20
    for fraction in (0.5, -0.1, float("nan")):
        with pytest.raises(InputError, match=r"must be in \[0, 0.5\)"):
            masks.partial_fourier(full, fraction)


def brute_force_region(mask):
    ny, nx = mask.shape
    fits = [
        (min(h, w), h * w, h, w)
        for h in range(1, ny + 1)
        for w in range(1, nx + 1)
        if mask[centred(mask.shape, h, w)].all()
    ]
    largest = max((area for _, area, _, _ in fits), default=0)
    return max((fit for fit in fits if fit[1] >= largest * 2 / 3), default=(0, 0, 0, 0))[2:]


@pytest.mark.parametrize("shape", [(8, 8), (9, 6), (7, 11), (1, 5)])
def test_calibration_region_is_the_squarest_of_the_large_centred_blocks(shape, rng):
    for density in np.linspace(0.3, 1, 40):
        mask = rng.random(shape) < density
        mask[centred(shape, min(3, shape[0]), 3)] |= rng.random() < 0.8
        height, width = masks.calibration_region(mask)
        expected = brute_force_region(mask)
        assert height * width == expected[0] * expected[1]
        assert min(height, width) == min(expected)
        assert mask[centred(shape, height, width)].all()


def test_calibration_region_is_not_long_and_thin_by_chance():
    mask = np.zeros((64, 64), dtype=bool)
    mask[centred(mask.shape, 16, 16)] = True
    mask[centred(mask.shape, 9, 39)] = True  # 351 samples, more than 256
    assert masks.calibration_region(mask) == (16, 16)
    mask[centred(mask.shape, 9, 63)] = True
    assert masks.calibration_region(mask) == (9, 63)


def test_calibration_region_of_partial_fourier_and_of_several_slices(xp):
    mask = np.ones((64, 48), dtype=bool)
    assert masks.calibration_region(xp.asarray(mask)) == (64, 48)
    mask[:24] = False  # 8 lines before the centre and 39 after it: the block is -8 ... +8
    assert masks.calibration_region(xp.asarray(mask)) == (17, 48)
    two = np.stack([mask, mask])[:, None, None]
    two[1, ..., 35:, :] = False  # centre + 3 and on
    assert masks.calibration_region(xp.asarray(two)) == (6, 48)
    assert masks.calibration_region(xp.asarray(np.zeros((5, 5), dtype=bool))) == (0, 0)


@pytest.mark.parametrize(("lines", "step", "centre"), [(256, 2, 32), (144, 3, 48), (65, 4, 0)])
@pytest.mark.parametrize("draw", BY_DISTANCE)
def test_masks_by_distance_are_every_nth_line_and_the_centre(draw, rng, lines, step, centre):
    mask = draw((lines, 8), step, rng, centre=centre)
    assert (mask == mask[:, :1]).all()
    block = slice(lines // 2 - centre // 2, lines // 2 - centre // 2 + centre)
    assert mask[block].all()
    outside = np.delete(np.arange(lines), np.r_[block])
    acquired = outside[mask[outside, 0]]
    assert len(np.unique(acquired % step)) == 1
    assert abs(len(acquired) - len(outside) / step) <= 1
