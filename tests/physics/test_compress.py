from __future__ import annotations

from pathlib import Path

import array_api_compat.torch
import numpy as np
import pytest
import torch

from mrnets.errors import InputError
from mrnets.physics import compress
from mrnets.physics.arrays import to_numpy
from mrnets.physics.coils import mix, rss
from mrnets.physics.fourier import fftc, ifftc, resize
from tests.physics.adjoint import assert_adjoint, assert_close, assert_linear, random_complex
from tests.questions import seen

BART = Path(__file__).parents[1] / "data" / "bart_cc.npz"


def sensitivities(coils, shape):
    """Loops in a circle around the field of view; each falls off with distance, its phase turns with direction."""
    y, x = (np.linspace(-1, 1, n, endpoint=False) for n in shape)
    maps = []
    for angle in np.arange(coils) * 2 * np.pi / coils + 0.1:
        away = (x - 1.5 * np.cos(angle)) + 1j * (y[:, None] - 1.5 * np.sin(angle))
        maps.append(1 / away)
    return np.stack(maps) / np.linalg.norm(maps, axis=0)


def coil_images(coils, shape):
    """A lopsided object, so that a mirrored or moved image is far from the right one; complex64."""
    y, x = (np.linspace(-1, 1, n, endpoint=False) for n in shape)
    y = y[:, None]
    image = 1.0 * ((x / 0.7) ** 2 + (y / 0.9) ** 2 < 1)
    image += 1.5 * (((x - 0.3) / 0.2) ** 2 + ((y + 0.5) / 0.25) ** 2 < 1)
    image -= 0.8 * (((x + 0.35) / 0.15) ** 2 + ((y - 0.2) / 0.4) ** 2 < 1)
    return (sensitivities(coils, shape) * image * np.exp(2j * x + 1j * y**2)).astype(np.complex64)


def energy_kept(virtual, kspace):
    return (np.linalg.norm(to_numpy(virtual)) / np.linalg.norm(to_numpy(kspace))) ** 2


def rss_error(virtual, kspace):
    ours, full = (to_numpy(rss(ifftc(k))) for k in (virtual, kspace))
    return np.linalg.norm(ours - full) / np.linalg.norm(full)


def assert_orthonormal_rows(matrices):
    matrices = to_numpy(matrices)
    product = matrices @ np.swapaxes(matrices, -1, -2).conj()
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(matrices.shape[-2]), product.shape), atol=2e-6)


def projector(matrices):
    matrices = to_numpy(matrices)
    return np.swapaxes(matrices, -1, -2).conj() @ matrices


def test_svd_keeps_all_of_complex_data_of_low_rank(xp, rng):
    # With the transpose instead of the adjoint, as some have it, less than half is kept.
    kspace = mix(random_complex(xp, rng, (7, 2)), random_complex(xp, rng, (2, 20, 30)))
    matrix = compress.svd_matrix(kspace, 2)
    assert to_numpy(matrix).dtype == np.complex64
    assert_orthonormal_rows(matrix)
    assert energy_kept(compress.compress(kspace, matrix), kspace) == pytest.approx(1, abs=1e-5)
    assert energy_kept(mix(xp.conj(matrix), kspace), kspace) < 0.9


def test_svd_keeps_what_singular_values_say(xp, rng):
    kspace = xp.asarray(fftc(coil_images(12, (64, 60))))
    values = np.linalg.svd(to_numpy(kspace).reshape(12, -1), compute_uv=False) ** 2
    for coils in (1, 4, 12):
        kept = energy_kept(compress.compress(kspace, compress.svd_matrix(kspace, coils)), kspace)
        assert kept == pytest.approx(values[:coils].sum() / values.sum(), rel=1e-5)


def test_svd_of_each_slice_of_its_own(xp, rng):
    kspace = random_complex(xp, rng, (3, 1, 6, 8, 9))
    matrices = compress.svd_matrix(kspace, 2)
    assert matrices.shape == (3, 1, 2, 6)
    for i in range(3):
        assert_close(projector(matrices[i, 0]), projector(compress.svd_matrix(kspace[i, 0], 2)), 1e-4)


@pytest.mark.parametrize("shape", [(128, 128), (90, 75)])
def test_figures_of_twelve_coils_to_four(xp, shape):
    # Peers on this kind of scan: PCA with the wrong conjugate keeps 0.756; GDCC with mirrored images errs by 0.47.
    kspace = xp.asarray(fftc(coil_images(12, shape)))
    centre = slice(shape[0] // 2 - 12, shape[0] // 2 + 12)
    svd = compress.compress(kspace, compress.svd_matrix(kspace[:, centre], 4))
    matrices = compress.gdcc_matrices(kspace[:, centre], 4, size=shape[1])
    gdcc = compress.compress(kspace, matrices)
    assert to_numpy(gdcc).dtype == np.complex64
    assert energy_kept(svd, kspace) > 0.99
    assert energy_kept(gdcc, kspace) > 0.999
    assert rss_error(gdcc, kspace) < 0.013
    assert rss_error(xp.flip(gdcc, axis=-2), kspace) > 0.3
    assert rss_error(xp.flip(gdcc, axis=-1), kspace) > 0.3


@pytest.mark.parametrize(("method", "energy"), [("svd", 0.993887), ("gdcc", 0.998768)])
def test_agrees_with_bart(xp, method, energy):
    # tests/data/bart_cc.npz: k-space (coil, y, x) of 6 coils with noise, and the matrices of BART 0.8.00. They are by
    # `bart cc -S -A -p3 -M` and `-G` (readout first there), and are conjugated and transposed here. BART has no window.
    with np.load(BART) as reference:
        kspace, theirs = reference["kspace"], reference[method]
    calibration = xp.asarray(kspace)
    if method == "svd":
        ours = compress.svd_matrix(calibration, 3)
    else:
        ours = compress.gdcc_matrices(calibration, 3, size=kspace.shape[-1], options=compress.Gdcc(window=1))
    assert_orthonormal_rows(theirs)
    assert_close(projector(ours), projector(theirs), 1e-4)
    assert energy_kept(compress.compress(calibration, ours), kspace) == pytest.approx(energy, abs=2e-6)


@pytest.mark.parametrize("align", [True, False])
def test_gdcc_matrices_have_orthonormal_rows_even_without_signal(xp, rng, align):
    calibration = to_numpy(random_complex(xp, rng, (5, 8, 17)))
    calibration = fftc(ifftc(calibration, axes=(-1,)) * (np.arange(17) > 6), axes=(-1,)).astype(np.complex64)
    matrices = compress.gdcc_matrices(xp.asarray(calibration), 3, size=17, options=compress.Gdcc(align=align))
    assert matrices.shape == (17, 3, 5)
    assert to_numpy(matrices).dtype == np.complex64
    assert_orthonormal_rows(matrices)
    assert_orthonormal_rows(
        compress.gdcc_matrices(xp.zeros((5, 8, 17), dtype=xp.complex64), 3, size=17, options=compress.Gdcc(align=align))
    )


def test_many_coils_keep_as_much_signal_as_with_all_eigenvectors(xp, rng):
    # 32 coils take subspace iteration; the reference is the full eigendecomposition of every position.
    signal = fftc(coil_images(32, (48, 64)))
    calibration = (signal + 0.02 * random_complex(np, rng, signal.shape))[:, 12:36].astype(np.complex64)
    hybrid = np.moveaxis(ifftc(calibration, axes=(-1,)), -1, 0)
    exact = np.linalg.svd(hybrid)[0][:, :, :8].conj().swapaxes(-1, -2)
    ours = compress.gdcc_matrices(xp.asarray(calibration), 8, size=64, options=compress.Gdcc(window=1))
    assert_orthonormal_rows(ours)
    kept = energy_kept(compress.compress(xp.asarray(signal), ours), signal)
    assert kept > 0.99
    assert kept == pytest.approx(energy_kept(compress.compress(signal, exact), signal), abs=1e-3)


def test_a_device_decomposes_all_positions_in_one_call(rng, monkeypatch):
    """QR would go position by position there. The processor is taken for a device."""
    signal = fftc(coil_images(32, (48, 64)))
    calibration = torch.from_numpy(
        (signal + 0.02 * random_complex(np, rng, signal.shape))[:, 12:36].astype(np.complex64)
    )
    host = compress.gdcc_matrices(calibration, 8, size=64)
    monkeypatch.setattr(compress, "on_host", lambda x: False)
    monkeypatch.setattr(array_api_compat.torch.linalg, "qr", None)
    matrices, launches = [], []
    for size in (64, 128):
        with seen() as found:
            matrices.append(compress.gdcc_matrices(calibration, 8, size=size))
        launches.append(found.launches.total())
    assert launches[1] < launches[0] + 10  # the running product doubles its reach once more
    assert_orthonormal_rows(matrices[0])
    kept = [energy_kept(compress.compress(torch.from_numpy(signal), made), signal) for made in (matrices[0], host)]
    assert kept[0] == pytest.approx(kept[1], abs=1e-4)


def test_white_noise_stays_white(xp, rng):
    matrices = compress.gdcc_matrices(xp.asarray(fftc(coil_images(8, (32, 64)))), 3, size=64)
    noise = to_numpy(compress.compress(random_complex(xp, rng, (8, 200, 64)), matrices)).reshape(3, -1)
    covariance = noise @ noise.conj().T / noise.shape[1]
    np.testing.assert_allclose(covariance, np.eye(3), atol=5 / np.sqrt(noise.shape[1]))


@pytest.mark.parametrize("size", [32, 33])
def test_compression_is_linear_and_has_an_adjoint(xp, rng, size):
    matrices = compress.gdcc_matrices(random_complex(xp, rng, (6, 8, size)), 3, size=size)
    x, other = (random_complex(xp, rng, (2, 6, 5, size)) for _ in range(2))
    back = xp.conj(xp.matrix_transpose(matrices))
    assert_linear(lambda v: compress.compress(v, matrices), x, other)
    assert_adjoint(
        lambda v: compress.compress(v, matrices),
        lambda v: compress.compress(v, back),
        x,
        random_complex(xp, rng, (2, 3, 5, size)),
    )


@pytest.mark.parametrize("size", [32, 33])
def test_compress_works_in_hybrid_space_of_the_centred_transform(xp, rng, size):
    matrices = compress.gdcc_matrices(random_complex(xp, rng, (6, 8, size)), 3, size=size)
    kspace = random_complex(xp, rng, (2, 6, 5, size))
    hybrid = np.einsum("xvc,bcyx->bvyx", to_numpy(matrices), to_numpy(ifftc(kspace, axes=(-1,))))
    assert_close(compress.compress(kspace, matrices), fftc(hybrid, axes=(-1,)))


def test_blocks_of_rows_are_the_same_as_all_at_once(rng, monkeypatch):
    matrices = compress.gdcc_matrices(random_complex(np, rng, (6, 8, 16)), 3, size=16)
    kspace = random_complex(np, rng, (2, 6, 11, 16))
    whole = compress.compress(kspace, matrices)
    monkeypatch.setattr(compress, "_BLOCK", 2 * 6 * 16 * 3)  # three rows: 3 + 3 + 3 + 2
    assert_close(compress.compress(kspace, matrices), whole, 1e-6)


@pytest.mark.parametrize("method", ["svd", "gdcc"])
def test_data_and_maps_are_compressed_alike(xp, method):
    # Peers who take other matrices for the maps than for the data are off by 0.164.
    sens = sensitivities(8, (40, 48)).astype(np.complex64)
    image = to_numpy(coil_images(1, (40, 48)))
    kspace = xp.asarray(fftc(sens * image))
    if method == "svd":
        matrices = compress.svd_matrix(kspace[:, 10:30], 3)
    else:
        matrices = compress.gdcc_matrices(kspace[:, 10:30], 3, size=48)
    virtual = compress.compress_images(xp.asarray(sens), matrices)
    assert_close(compress.compress(kspace, matrices), fftc(virtual * xp.asarray(image)))


def test_matrices_change_smoothly_after_alignment():
    kspace = fftc(coil_images(12, (64, 96)))
    aligned, rough = (
        compress.gdcc_matrices(kspace[:, 20:44], 4, size=96, options=compress.Gdcc(align=a)) for a in (True, False)
    )
    assert_close(projector(aligned), projector(rough), 1e-5)  # the same subspaces
    step_aligned, step_rough = (np.linalg.norm(np.diff(m, axis=0), axis=(1, 2)) for m in (aligned, rough))
    inside = slice(14, 80)  # where there is an object
    assert step_aligned[inside].max() < 0.35
    assert step_rough[inside].max() > 1
    assert np.all(step_aligned <= step_rough + 1e-5)
    strength = np.linalg.norm(compress.compress(kspace[:, 20:44], aligned), axis=(1, 2))
    assert np.all(np.diff(strength) < 0)  # the strongest virtual coil first


def test_alignment_is_the_recursion_of_zhang(xp, rng):
    size = 21
    calibration = random_complex(xp, rng, (6, 9, size))
    rough = to_numpy(compress.gdcc_matrices(calibration, 3, size=size, options=compress.Gdcc(align=False)))
    found = to_numpy(compress.gdcc_matrices(calibration, 3, size=size))
    expected = [rough[0]]
    for matrix in rough[1:]:
        u, _, vh = np.linalg.svd(matrix @ expected[-1].conj().T)
        expected.append((u @ vh).conj().T @ matrix)
    # Equal but for one rotation of all positions alike.
    rotation = found @ np.swapaxes(np.stack(expected), -1, -2).conj()
    assert_close(rotation, np.broadcast_to(rotation[0], rotation.shape), 1e-4)
    assert_orthonormal_rows(rotation)


def test_scan_that_is_transformed_along_its_readout_gets_the_same_matrices(xp):
    volume = np.stack([coil_images(6, (20, 18)) * w for w in (1, 0.5, 0.2, 0.7)])  # (readout', coil, z, y)
    hybrid = np.repeat(volume, 4, axis=0)[:15, None]
    kspace = np.moveaxis(fftc(hybrid[:, 0], axes=(0,)), 0, -1).reshape(6, -1, 15)
    ours = compress.gdcc_hybrid_matrices(xp.asarray(hybrid), 3)
    assert ours.shape == (15, 1, 3, 6)
    expected = compress.gdcc_matrices(xp.asarray(kspace), 3, size=15)
    assert_close(projector(ours[:, 0]), projector(expected), 1e-3)
    virtual = mix(ours, xp.asarray(hybrid))
    assert virtual.shape == (15, 1, 3, 20, 18)
    assert energy_kept(virtual, hybrid) > 0.97


def test_every_slice_has_its_own_matrices(xp, rng):
    calibration, kspace = random_complex(xp, rng, (2, 1, 5, 8, 16)), random_complex(xp, rng, (2, 3, 5, 12, 16))
    matrices = compress.gdcc_matrices(calibration, 2, size=16)
    assert matrices.shape == (2, 1, 16, 2, 5)
    virtual = compress.compress(kspace, matrices)
    for i in range(2):
        alone = compress.gdcc_matrices(calibration[i, 0], 2, size=16)
        assert_close(projector(matrices[i, 0]), projector(alone), 1e-4)
        assert_close(virtual[i], compress.compress(kspace[i], matrices[i, 0]))


def test_calibration_may_be_narrower_than_the_data(xp):
    kspace = xp.asarray(fftc(coil_images(8, (64, 64))))
    block = resize(kspace, (24, 24))
    matrices = compress.gdcc_matrices(block, 4, size=64)
    assert matrices.shape == (64, 4, 8)
    assert energy_kept(compress.compress(kspace, matrices), kspace) > 0.99
    # Compression after the crop gives the same as before it, but for the ends of the crop.
    inner = (..., slice(None), slice(6, 18))
    assert_close(
        compress.compress(block, matrices)[inner], resize(compress.compress(kspace, matrices), (24, 24))[inner], 0.02
    )


def test_a_window_beyond_the_readout_takes_all_positions_at_once(xp, rng):
    """It took a turn for each position of the window, and 2**31 of them from a client would have held up a server."""
    calibration = random_complex(xp, rng, (4, 6, 8))
    found = [
        to_numpy(compress.gdcc_matrices(calibration, 2, size=8, options=compress.Gdcc(window=window)))
        for window in (17, 2**31 - 1)
    ]
    np.testing.assert_array_equal(*found)


def test_what_cannot_be_compressed_is_refused(xp, rng):
    calibration = random_complex(xp, rng, (4, 6, 8))
    for coils in (0, 5):
        for make in (
            lambda n: compress.svd_matrix(calibration, n),
            lambda n: compress.gdcc_matrices(calibration, n, size=8),
            lambda n: compress.gdcc_hybrid_matrices(calibration[None], n),
        ):
            with pytest.raises(InputError, match=f"{coils} virtual coils asked for, but the data have 4"):
                make(coils)
    for window in (0, 4, -1):
        with pytest.raises(InputError, match="window must be an odd number"):
            compress.gdcc_matrices(calibration, 2, size=8, options=compress.Gdcc(window=window))
    bad = to_numpy(calibration).copy()
    bad[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="NaN or Inf"):
        compress.svd_matrix(xp.asarray(bad), 2)
    matrices = compress.gdcc_matrices(calibration, 2, size=8)
    with pytest.raises(InputError, match="8 readout positions, but 9 came"):
        compress.compress_images(random_complex(xp, rng, (4, 6, 9)), matrices)


def noisy(xp, rng, *, signals=3, coils=16, shape=(12, 20)):
    """Calibration (coil, y, x) of a few strong signals with noise of variance 1."""
    mixing = np.linalg.qr(random_complex(np, rng, (coils, coils)))[0][:, :signals]
    strong = 10 * random_complex(np, rng, (signals, *shape))
    kspace = np.tensordot(mixing, strong, axes=1) + random_complex(np, rng, (coils, *shape))
    return xp.asarray(kspace.astype(np.complex64))


@pytest.mark.parametrize("size", [None, 20, 40])
def test_the_fewest_coils_that_hold_the_signal(xp, rng, size):
    calibration = noisy(xp, rng)
    energy = 100.0 * 12 * 20  # of each signal
    for limit, coils in ((1.5 * energy, 2), (0.5 * energy, 3), (4 * energy, 0)):
        assert compress.fewest(calibration, limit, 1.0, size=size) == coils
    both = xp.stack((calibration, noisy(xp, rng, signals=5)))
    assert compress.fewest(both, 0.5 * energy, 1.0, size=size).tolist() == [3, 5]


def test_the_fewest_coils_of_a_volume_transformed_along_its_readout(xp, rng):
    calibration = noisy(np, rng, shape=(12, 20))
    planes = xp.asarray(np.moveaxis(ifftc(calibration, axes=(-1,)), -1, 0)[..., None].copy())  # (x, coil, y, 1)
    limit = 0.5 * 100 * 12 * 20
    assert compress.fewest_hybrid(planes, limit, 1.0) == 3
    assert compress.fewest(xp.asarray(calibration), limit, 1.0, size=20) == 3


@pytest.mark.parametrize("size", [None, 20])
def test_all_coils_where_the_noise_level_is_wrong(xp, rng, size):
    calibration = noisy(xp, rng)
    for variance in (1e-3, 100.0, 1e6):
        assert compress.fewest(calibration, 10.0 * variance, variance, size=size) == 16
    assert compress.fewest(0 * calibration, 10.0, 1.0, size=size) == 16
    with pytest.raises(InputError, match="NaN or Inf"):
        compress.fewest(np.nan * calibration, 10.0, 1.0, size=size)
