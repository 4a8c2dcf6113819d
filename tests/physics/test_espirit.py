"""Coil sensitivities against analytic coils, a plain reference by SVD, and figures of SigPy and BART on such data."""

from __future__ import annotations

import numpy as np
import pytest

from mrnets.errors import InputError
from mrnets.physics.arrays import to_numpy
from mrnets.physics.espirit import AT_CROP, Espirit, espirit, espirit_and_folded, folded, weight
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.interpolation import along, cubic, trigonometric
from mrnets.physics.low_resolution import rss_maps, unitary_maps
from mrnets.physics.patches import widths_of

# Projection errors of SigPy 0.1.27 (calib_width=24, crop=0.9) and BART 0.8.00 (ecalib -m1 -r24) on `scan(coils)`.
SIGPY = {4: 0.0058, 12: 0.0060, 32: 0.0079}
BART = {4: 0.0091, 12: 0.0104, 32: 0.0113}
SIGPY_NOISY = {4: 0.0235, 12: 0.0456, 32: 0.0812}  # signal-to-noise ratio 20


def grid(shape):
    return np.meshgrid(*[(np.arange(n) - n // 2) / (n / 2) for n in shape], indexing="ij")


def head(shape):
    """A Shepp-Logan-like object with a smooth phase, ([z,] y, x) complex."""
    *depth, y, x = grid(shape)
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
    if depth:
        image = image * (np.abs(depth[0]) < 0.75)
    return image * np.exp(1j * (1.5 * x + 2 * y**2 - 0.8 * x * y))


def birdcage(coils, shape, radius=1.5):
    """Coils around the object, (coil, [z,] y, x), unit norm."""
    *depth, y, x = grid(shape)
    number = np.arange(coils).reshape(-1, *[1] * len(shape))
    angle = 2 * np.pi * number / coils
    u, v = x - radius * np.cos(angle), y - radius * np.sin(angle)
    along_z = depth[0] - 0.8 * (-1) ** number if depth else 0
    sens = np.exp(1j * (np.arctan2(u, -v) - angle)) / np.sqrt(u**2 + v**2 + along_z**2)
    return sens / np.sqrt(np.sum(np.abs(sens) ** 2, axis=0))


def scan(coils=12, shape=(128, 128), snr=200.0, seed=0):
    """Noise-free coil images and noisy k-space, (coil, [z,] y, x) complex64; snr at the brightest pixel."""
    image = head(shape)
    images = birdcage(coils, shape) * image
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((2, *images.shape)) * np.abs(image).max() / snr / np.sqrt(2)
    kspace = fftc(images, tuple(range(-len(shape), 0))) + noise[0] + 1j * noise[1]
    return images.astype(np.complex64), kspace.astype(np.complex64)


def small_scan():
    images, kspace = scan(4, (65, 48))
    return images, resize(kspace, (24, 24))


def unweighted(sens, axis=-3):
    """Maps of norm 1 where there are any."""
    sens = to_numpy(sens)
    size = np.sqrt(np.sum(np.abs(sens) ** 2, axis=axis, keepdims=True))
    return sens / np.where(size > 0, size, 1)


def projection_error(sens, images):
    """|| (1 - S S^H) x || / || x || over coil images x; sens (..., coil, y, x), projections on all sets summed."""
    sens = unweighted(sens)
    projected = sens * np.sum(np.conj(sens) * images, axis=-3, keepdims=True)
    return np.linalg.norm(images - projected.reshape(-1, *images.shape).sum(axis=0)) / np.linalg.norm(images)


def assert_norm_of_a_weight(sens, axis=-3):
    """Between 0 and 1, and 1 in most of the object."""
    norm = np.sqrt(np.sum(np.abs(to_numpy(sens)) ** 2, axis=axis))
    assert norm.max() < 1 + 1e-5
    assert np.median(norm[norm > 0]) > 1 - 1e-5


@pytest.mark.parametrize("coils", [4, 12, 32])
def test_better_than_sigpy_and_bart(coils):
    images, kspace = scan(coils)
    sens = espirit(resize(kspace, (24, 24)), (128, 128))
    assert sens.dtype == np.complex64
    assert projection_error(sens, images) < min(SIGPY[coils], BART[coils])
    assert_norm_of_a_weight(sens)


@pytest.mark.parametrize("coils", [4, 12])
def test_much_noise_correlated_between_coils(coils):
    images, kspace = scan(coils, snr=20)
    assert projection_error(espirit(resize(kspace, (24, 24)), (128, 128)), images) < SIGPY_NOISY[coils]
    mixing = np.eye(coils) + 0.3 * np.eye(coils, k=1) + 0.3j * np.eye(coils, k=-1)
    noise = np.einsum("ij,jyx->iyx", mixing / np.linalg.norm(mixing, axis=1)[:, None], kspace - fftc(images))
    sens = espirit(resize((fftc(images) + noise).astype(np.complex64), (24, 24)), (128, 128))
    assert projection_error(sens, images) < 1.2 * SIGPY_NOISY[coils]
    assert np.all(np.abs(sens).sum(axis=0)[np.abs(images).sum(axis=0) > 0] > 0)  # no holes in the object


@pytest.mark.parametrize("shape", [(128, 128), (117, 90)])
def test_maps_are_those_of_the_coils(shape):
    images, kspace = scan(8, shape)
    sens = espirit(resize(kspace, (24, 24)), shape)
    inside = np.abs(images).sum(axis=0) > 0.1
    # complex, relative phases included; a phase common to all coils is free
    agreement = np.abs(np.sum(np.conj(sens) * birdcage(8, shape), axis=0))[inside]
    assert np.min(agreement) > 0.98
    assert np.mean(agreement) > 0.9998


def test_zero_outside_the_object_and_nowhere_inside():
    images, kspace = scan(8)
    sens = espirit(resize(kspace, (24, 24)), (128, 128))
    kept = np.abs(sens).sum(axis=0) > 0
    inside = np.abs(images).sum(axis=0) > 0
    assert np.all(kept[inside])
    assert np.mean(np.linalg.norm(sens, axis=0)[inside] > 0.99) > 0.99
    assert not kept[:16, :16].any()
    assert not kept[-16:, -16:].any()
    assert np.mean(np.linalg.norm(sens, axis=0)[~inside] > AT_CROP) < 0.6
    everywhere = espirit(resize(kspace, (24, 24)), (128, 128), Espirit(crop=0))
    np.testing.assert_allclose(np.sum(np.abs(everywhere) ** 2, axis=0), 1, atol=1e-5)


def test_combined_image_has_no_phase_left_but_detail():
    """S carries the phase of the image at low resolution, so no vortex of a vanishing virtual coil can show."""
    images, kspace = scan(8)
    sens = espirit(resize(kspace, (24, 24)), (128, 128))
    combined = np.sum(np.conj(sens) * images, axis=0)
    inside = np.abs(combined) > 0.1
    assert np.quantile(np.abs(np.angle(combined[inside])), 0.95) < 0.2


@pytest.mark.parametrize("crop", [0.5, 0.8, 0.9, 0.99])
def test_weight_rises_from_background_to_object(xp, crop):
    eigenvalues = xp.asarray(np.linspace(-0.1, 1.1, 1201, dtype=np.float32))
    size = to_numpy(weight(eigenvalues, crop))
    assert size.dtype == np.float32
    assert np.all(np.diff(size) >= 0)
    where = np.linspace(-0.1, 1.1, 1201)
    assert not size[where < 2 * crop - 1 - 1e-4].any()
    assert np.all(size[where > (1 + crop) / 2 + 1e-4] == 1)
    assert float(weight(xp.asarray(np.array([crop], np.float32)), crop)[0]) == pytest.approx(AT_CROP, abs=1e-4)
    assert np.all(to_numpy(weight(eigenvalues, 0.0)) == 1)


def plain_reference(block, shape, kernel, threshold):
    """The same estimate, nothing clever: SVD of the calibration matrix, H(x) at each pixel, NumPy's eigenvectors."""
    coils, height, width = block.shape
    offsets = np.arange(kernel) - (kernel - 1) / 2
    ball = np.argwhere(offsets[:, None] ** 2 + offsets**2 <= (kernel / 2) ** 2)
    rows = [
        [block[c, y + dy, x + dx] for c in range(coils) for dy, dx in ball]
        for y in range(height - kernel + 1)
        for x in range(width - kernel + 1)
    ]
    _, s, basis = np.linalg.svd(np.array(rows, np.complex128), full_matrices=False)
    basis = basis * (s**2 / (s**2 + (threshold * s[0]) ** 2))[:, None] ** 0.5
    y, x = (np.arange(n) - n // 2 for n in shape)
    phases = np.exp(
        2j * np.pi * (ball[:, 0, None, None] * (y / shape[0])[:, None] + ball[:, 1, None, None] * x / shape[1])
    )
    filters = np.einsum("fck,kyx->yxcf", basis.reshape(len(s), coils, -1), phases)
    values, vectors = np.linalg.eigh(filters @ np.conj(np.swapaxes(filters, -1, -2)) / len(ball))
    return np.moveaxis(vectors[..., -1], -1, 0), values[..., -1]


@pytest.mark.parametrize("size", [(12, 12), (24, 20)])  # more columns than rows in the calibration matrix, and less
def test_agrees_with_a_plain_implementation(size):
    images, kspace = scan(3, (33, 30))
    block = resize(kspace, size)
    expected, values = plain_reference(block, (33, 30), 5, 0.01)
    sens = espirit(block, (33, 30), Espirit(kernel=5, crop=0))
    agreement = np.abs(np.sum(np.conj(sens) * expected, axis=0))
    assert np.min(agreement[np.abs(images).sum(axis=0) > 0]) > 0.998
    size = np.linalg.norm(espirit(block, (33, 30), Espirit(kernel=5, crop=0.9)), axis=0)
    np.testing.assert_allclose(size, weight(values.astype(np.float32), 0.9), atol=0.05)


def test_all_libraries_and_batches(xp):
    images, block = small_scan()
    alone = espirit(block, (65, 48))
    other = espirit(block[:, ::-1].copy(), (65, 48))
    batch = xp.asarray(np.stack([block, block[:, ::-1]])[:, None])  # (slice, 1, coil, y, x)
    sens = espirit(batch, (65, 48))
    assert sens.shape == (2, 1, 4, 65, 48)
    assert to_numpy(sens).dtype == np.complex64
    np.testing.assert_allclose(to_numpy(sens)[0, 0], alone, atol=2e-3)
    np.testing.assert_allclose(to_numpy(sens)[1, 0], other, atol=2e-3)
    two = espirit(batch, (65, 48), maps=2)
    assert two.shape == (2, 1, 2, 4, 65, 48)
    assert_norm_of_a_weight(two)
    assert projection_error(sens[0, 0], images) < 0.006


def test_many_slices_are_cut_into_parts_of_bounded_memory(monkeypatch):
    _, block = small_scan()
    whole = espirit(np.stack([block] * 3), (65, 48))
    monkeypatch.setattr("mrnets.physics.espirit.ENTRIES_AT_ONCE", 4 * 4 * 48 * 10)
    np.testing.assert_allclose(espirit(np.stack([block] * 3), (65, 48)), whole, atol=1e-4)


def test_three_dimensions():
    shape = (24, 31, 28)
    images, kspace = scan(6, shape)
    sens = espirit(resize(kspace, (12, 14, 14), (-3, -2, -1)), shape, Espirit(kernel=4, crop=0.8))
    assert sens.shape == (6, *shape)
    assert_norm_of_a_weight(sens, axis=0)
    projected = sens * np.sum(np.conj(sens) * images, axis=0)
    assert np.linalg.norm(images - projected) / np.linalg.norm(images) < 0.03


@pytest.mark.parametrize("shape", [(192, 192), (150, 117)])
def test_interpolated_maps_of_two_sets_stay_orthogonal(xp, shape):
    """Overlapping ones gave an encoding of norm 1.4, with which l1-wavelet diverged."""
    rng = np.random.default_rng(3)
    images = birdcage(6, shape) * head(shape) + np.roll(birdcage(6, shape) * head(shape), shape[0] // 2, axis=-2)
    block = resize(fftc(images), (24, 24)) + 1e-2 * rng.standard_normal((6, 24, 24))
    first, second = to_numpy(espirit(xp.asarray(block.astype(np.complex64)), shape, Espirit(crop=0.8), maps=2))
    assert np.any(second)
    assert np.abs(np.sum(np.conj(first) * second, axis=0)).max() < 1e-4


@pytest.mark.parametrize("size", [(24, 24), (12, 24)])
def test_known_little_noise_makes_maps_more_exact(xp, size):
    """Without it, singular values of the coils are lost below the threshold, too."""
    images, kspace = scan(8, snr=2000)
    block, noise = xp.asarray(resize(kspace, size)), float(np.abs(head((128, 128))).max()) / 2000
    known, unknown = (projection_error(espirit(block, (128, 128), noise=n), images) for n in (noise, None))
    assert known < 0.95 * unknown
    much = projection_error(espirit(block, (128, 128), noise=1e3 * noise), images)
    assert much == pytest.approx(unknown, rel=1e-3)  # the threshold of the options is the largest


def test_kernels_are_narrower_where_patches_fill_their_space(xp):
    """In noise alone every patch is possible. Each problem of a batch has its own width, and the maps that it has
    alone."""
    rng = np.random.default_rng(4)
    every = (rng.standard_normal((16, 24, 24)) + 1j * rng.standard_normal((16, 24, 24))).astype(np.complex64)
    _, kspace = scan(16, (96, 96), snr=2000)
    block = xp.asarray(np.stack([resize(every, (12, 12)), resize(kspace, (12, 12)), resize(every, (12, 12))]))
    narrow, wide, same = widths_of(block, 6, 0.01)
    assert narrow == same == (3, 3)
    assert wide == (5, 5)
    together = to_numpy(espirit(block, (96, 96)))
    for n in range(3):
        np.testing.assert_allclose(together[n], to_numpy(espirit(block[n], (96, 96))), atol=1e-4)
    assert widths_of(xp.asarray(every)[None], 6, 0.01) == [(6, 6)]


def test_maps_and_folds_together_are_those_made_apart(xp):
    """Problems with kernels of different widths, of which one is folded. Axes in front of them stay."""
    rng = np.random.default_rng(4)
    _, whole = scan(16, (96, 96), snr=2000)
    every = rng.standard_normal((16, 12, 12)) + 1j * rng.standard_normal((16, 12, 12))
    blocks = [resize(whole, (12, 12)), resize(whole[:, ::2], (12, 12)), every, resize(whole, (12, 12))]
    given = xp.asarray(np.stack(blocks).astype(np.complex64).reshape(2, 2, 16, 12, 12))
    sens, share = espirit_and_folded(given, (96, 96), noise=1e-3)
    assert tuple(share.shape) == (2, 2)
    np.testing.assert_allclose(to_numpy(share), to_numpy(folded(given, (96, 96))), atol=1e-5)
    np.testing.assert_allclose(to_numpy(sens), to_numpy(espirit(given, (96, 96), noise=1e-3)), atol=1e-5)
    assert to_numpy(share)[0, 1] > 0.05 > to_numpy(share)[0, 0]


def test_only_the_centre_of_a_wide_block_is_used():
    _, kspace = scan(4, (64, 96))
    few = espirit(resize(kspace, (20, 24)), (64, 96))
    np.testing.assert_allclose(espirit(resize(kspace, (20, 96)), (64, 96)), few, atol=1e-5)
    assert np.abs(espirit(resize(kspace, (20, 96)), (64, 96), Espirit(calibration=32)) - few).max() > 1e-3


@pytest.mark.parametrize(
    ("size", "error"),
    [((24, 24), 0.005), ((16, 16), 0.006), ((12, 12), 0.02), ((8, 8), 0.06), ((6, 6), 0.15), ((8, 24), 0.06)],
)
def test_few_calibration_lines(size, error):
    images, kspace = scan(8)
    block = resize(kspace, size)
    sens = espirit(block, (128, 128))
    assert projection_error(sens, images) < error
    assert projection_error(sens, images) < projection_error(rss_maps(block, (128, 128)), images)


@pytest.mark.parametrize("scale", [1e-9, 1e7])
def test_units_of_the_scanner_do_not_matter(scale):
    _, block = small_scan()
    np.testing.assert_allclose(
        espirit((scale * block).astype(np.complex64), (65, 48)), espirit(block, (65, 48)), atol=1e-3
    )


def test_one_coil():
    images, kspace = scan(1, (64, 64))
    sens = espirit(resize(kspace, (24, 24)), (64, 64))
    assert projection_error(sens, images) < 1e-4
    assert np.abs(sens).max() < 1 + 1e-5


def test_double_precision_stays():
    _, block = small_scan()
    assert espirit(block.astype(np.complex128), (65, 48)).dtype == np.complex128


def test_slices_without_signal(rng):
    _, block = small_scan()
    noise = rng.standard_normal((*block.shape, 2)).astype(np.float32).view(np.complex64)[..., 0]
    sens = espirit(np.stack([block, np.zeros_like(block), noise]), (65, 48))
    np.testing.assert_allclose(sens[0], espirit(block, (65, 48)), atol=1e-4)
    assert not sens[1].any()
    assert np.isfinite(sens[2]).all()
    assert np.linalg.norm(sens[2], axis=0).max() < 1 + 1e-5
    assert not rss_maps(np.zeros_like(block), (65, 48)).any()


def test_two_sets_of_maps_where_the_object_is_folded():
    images, kspace = scan(8, (128, 64))
    seen, kspace = ifftc(fftc(images)[:, ::2]), kspace[:, ::2]  # half the field of view along y
    block = resize(kspace, (24, 24))
    one, two = (espirit(block, (64, 64), Espirit(crop=0.8), maps=maps) for maps in (1, 2))
    assert projection_error(one, seen) > 0.07
    assert projection_error(two, seen) < 0.015
    np.testing.assert_allclose(np.abs(np.sum(np.conj(two[0]) * two[1], axis=0)), 0, atol=1e-5)
    unfolded = espirit(resize(scan(8, (64, 64))[1], (24, 24)), (64, 64), maps=2)
    assert np.mean(np.abs(unfolded[1]).sum(axis=0) > 0) < 0.1  # nothing is folded, hardly anything in the second set


def test_low_resolution_maps(xp):
    images, kspace = scan()
    block = resize(kspace, (24, 24))
    sens = rss_maps(xp.asarray(block), (128, 128))
    assert to_numpy(sens).dtype == np.complex64
    assert projection_error(sens, images) < 0.021
    assert_norm_of_a_weight(sens)
    # from the calibration lines only: one line per axis gives the constant image of its coil
    np.testing.assert_allclose(
        to_numpy(rss_maps(xp.asarray(block[:, 12:13, 12:13]), (9, 8)))[:, 3, 5],
        block[:, 12, 12] / np.linalg.norm(block[:, 12, 12]),
        atol=1e-5,
    )


def test_unitary_maps(xp):
    sens = unitary_maps(xp.zeros((2, 1, 4, 8, 8), dtype=xp.complex64), (5, 6))
    assert to_numpy(sens).dtype == np.complex64
    np.testing.assert_array_equal(to_numpy(sens), np.full((2, 1, 4, 5, 6), 0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 1}, "kernel of 2 to 16"),
        ({"kernel": 17}, "kernel of 2 to 16"),
        ({"threshold": 0.0}, "0.001 <= threshold < 1"),
        ({"threshold": float("nan")}, "0.001 <= threshold < 1"),
        ({"crop": 1.0}, "crop < 1"),
        ({"calibration": 5}, "at least 6 samples along each axis, got 24x24, used up to a width of 5"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        espirit(np.ones((4, 24, 24), np.complex64), (64, 64), Espirit(**options))


def test_sets_of_maps_out_of_range():
    with pytest.raises(InputError, match="maps must be 1 or 2, got 3"):
        espirit(np.ones((4, 24, 24), np.complex64), (64, 64), maps=3)


def test_bad_calibration_data():
    with pytest.raises(InputError, match="at least 6 samples along each axis, got 5x24"):
        espirit(np.ones((4, 5, 24), np.complex64), (64, 64))
    with pytest.raises(InputError, match="NaN or infinite"):
        espirit(np.full((4, 24, 24), np.nan, np.complex64), (64, 64))
    with pytest.raises(InputError, match="expected the axes"):
        espirit(np.ones((24, 24), np.complex64), (64, 64))


@pytest.mark.parametrize("points", [11, 20, 21])
def test_trigonometric_interpolation_is_exact_for_its_polynomials(rng, points):
    coefficients = rng.standard_normal(11) + 1j * rng.standard_normal(11)
    orders = np.arange(-5, 6)

    def polynomial(t):
        return np.exp(2j * np.pi * np.multiply.outer(t, orders)) @ coefficients

    expected = polynomial((np.arange(points) - points // 2) / points)
    np.testing.assert_allclose(trigonometric(points, 11) @ polynomial(np.arange(11) / 11), expected, atol=1e-9)


@pytest.mark.parametrize(("pixels", "points"), [(64, 16), (45, 16), (46, 15), (16, 16)])
def test_cubic_interpolation(pixels, points):
    matrix = cubic(pixels, points)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    smooth = np.cos(2 * np.pi * (np.arange(points) - points // 2) / points)
    expected = np.cos(2 * np.pi * (np.arange(pixels) - pixels // 2) / pixels)
    np.testing.assert_allclose(matrix @ smooth, expected, atol=5e-3)


def test_matrices_along_axes(xp, rng):
    x = rng.standard_normal((2, 3, 4))
    for axis, letters in enumerate(["mn,nbc->mbc", "mn,anc->amc", "mn,abn->abm"]):
        matrix = rng.standard_normal((5, x.shape[axis]))
        result = along(matrix, xp.asarray(x), axis)
        np.testing.assert_allclose(to_numpy(result), np.einsum(letters, matrix, x), atol=1e-12)
