from __future__ import annotations

import importlib.util
import logging
from dataclasses import replace

import numpy as np
import pytest

from gadgets.noise import noise
from gadgets.sort import sort
from gadgets.speaker import Speech
from mrnets.errors import InputError
from mrnets.mrd.flags import Flag
from mrnets.mrd.lines import take
from mrnets.mrd.noise import NoiseScan
from tests.gadgets import synthetic

COILS = 3
HEADER = synthetic.header(synthetic.encoding((16, 12, 1)))


def correlated(rng, count, samples=4000, scale=1.0):
    white = synthetic.coil_images(rng, COILS, count, samples)[:, 0].swapaxes(0, 1) / np.sqrt(2)
    mixing = np.array([[1, 0, 0], [0.5j, 2, 0], [0.2, -0.3 + 0.4j, 0.7]])
    return scale * mixing @ white


def imaging(rng, **options):
    return synthetic.lines(synthetic.to_kspace(synthetic.coil_images(rng, COILS, 12, 16)), **options)


def covariance_of(data):
    flat = np.moveaxis(data, 1, 0).reshape(COILS, -1)
    return flat @ flat.conj().T / flat.shape[1]


def test_whitened_noise_has_identity_covariance_scaled_for_dwell_time_and_bandwidth():
    rng = np.random.default_rng(0)
    header = synthetic.header(synthetic.encoding((16, 12, 1)), bandwidth=0.8)
    measured = synthetic.noise_lines(correlated(rng, 8), dwell=10.0)
    same_noise = synthetic.noise_lines(correlated(rng, 8), dwell=5.0)
    same_noise.headers["flags"] = 0
    (out,) = noise([measured, same_noise], header)
    assert out.whitened
    np.testing.assert_allclose(covariance_of(out.data), 2 * 0.8 * 0.5 * np.eye(COILS), atol=0.03)


def test_whitening_is_one_matrix_for_all_lines_and_independent_of_blocks():
    rng = np.random.default_rng(1)
    block = imaging(rng)
    halves = [replace(block, headers=block.headers[s], data=block.data[s]) for s in (slice(0, 5), slice(5, None))]
    measured = synthetic.noise_lines(correlated(rng, 2, 200))
    (whole,) = noise([measured, block], HEADER)
    parts = list(noise([measured, *halves], HEADER))
    np.testing.assert_allclose(whole.data, np.concatenate([part.data for part in parts]), rtol=1e-5, atol=1e-6)
    ratio = whole.data @ np.linalg.pinv(block.data)
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[0], ratio.shape), atol=1e-4)


@pytest.mark.parametrize(("dwell", "absurd"), [(5.0, False), (0.0, False), (1e-6, True), (3e38, True)])
def test_an_absurd_dwell_time_of_the_noise_is_told(caplog, dwell, absurd):
    rng = np.random.default_rng(2)
    list(noise([synthetic.noise_lines(correlated(rng, 8), dwell=dwell), imaging(rng)], HEADER))
    assert ("the dwell time of the noise measurement is" in caplog.text) == absurd


@pytest.mark.parametrize(("dwell", "noise_dwell"), [(0.0, 5.0), (5.0, 0.0), (0.0, 0.0)])
def test_no_scaling_where_a_dwell_time_is_unknown(dwell, noise_dwell):
    rng = np.random.default_rng(2)
    block = imaging(rng, dwell=dwell)
    samples = correlated(rng, 2, 500)
    (out,) = noise([synthetic.noise_lines(samples, dwell=noise_dwell), block], HEADER)
    matrix = (out.data @ np.linalg.pinv(block.data))[0]
    whitened = matrix @ covariance_of(samples) @ matrix.conj().T
    np.testing.assert_allclose(whitened, np.eye(COILS), atol=5e-3)


def test_lines_of_different_dwell_time_in_one_block_are_scaled_each():
    rng = np.random.default_rng(3)
    block = imaging(rng)
    block.headers["sample_time_us"][::2] = 20.0
    measured = synthetic.noise_lines(correlated(rng, 2, 300), dwell=5.0)
    (out,) = noise([measured, block], HEADER)
    block.headers["sample_time_us"] = 5.0
    (reference,) = noise([measured, block], HEADER)
    np.testing.assert_allclose(out.data[::2], 2 * reference.data[::2], rtol=1e-5)
    np.testing.assert_allclose(out.data[1::2], reference.data[1::2], rtol=1e-5)


def test_without_noise_lines_one_warning_and_data_unchanged(caplog):
    block = imaging(np.random.default_rng(4))
    with caplog.at_level(logging.WARNING):
        out = list(noise([block, block, "text"], HEADER))
    assert [len(caplog.records), out[2]] == [1, "text"]
    assert not out[0].whitened
    np.testing.assert_array_equal(out[0].data, block.data)


def test_noise_lines_never_pass_and_later_ones_are_ignored():
    rng = np.random.default_rng(5)
    first, late = (synthetic.noise_lines(correlated(rng, 2, scale=scale)) for scale in (1, 9))
    block = imaging(rng)
    out = list(noise([first, block, late, block], HEADER))
    assert len(out) == 2
    np.testing.assert_array_equal(out[0].data, out[1].data)


def test_all_lines_pass_as_they_are_when_the_weights_file_is_to_whiten():
    rng = np.random.default_rng(9)
    given = [synthetic.noise_lines(correlated(rng, 2)), imaging(rng), imaging(rng)]
    out = list(noise(given, HEADER, whiten=False))
    assert [lines.whitened for lines in out] == [False, False, False]
    for before, after in zip(given, out, strict=True):
        np.testing.assert_array_equal(before.data, after.data)


def test_navigator_lines_of_other_coils_pass_unchanged():
    rng = np.random.default_rng(6)
    body = synthetic.lines(synthetic.coil_images(rng, 2, 3, 16), flags=[Flag.IS_SURFACECOILCORRECTIONSCAN_DATA])
    out = list(noise([synthetic.noise_lines(correlated(rng, 2)), body, imaging(rng)], HEADER))
    np.testing.assert_array_equal(out[0].data, body.data)
    assert out[1].whitened


def test_data_that_are_whitened_already_stay_as_they_are():
    rng = np.random.default_rng(7)
    block = replace(imaging(rng), whitened=True)
    (out,) = noise([synthetic.noise_lines(correlated(rng, 2)), block], HEADER)
    np.testing.assert_array_equal(out.data, block.data)


def test_errors_name_what_came():
    rng = np.random.default_rng(8)
    measured, block = synthetic.noise_lines(correlated(rng, 2)), imaging(rng, first_counter=40)
    with pytest.raises(InputError, match="noise measurement: acquisition 0 has 2 coils, the noise lines before it 3"):
        list(noise([measured, replace_data(measured, measured.data[:, :2])], HEADER))
    with pytest.raises(InputError, match="coil"):
        list(noise([replace_data(measured, 0 * measured.data), block], HEADER))


@pytest.mark.parametrize(
    ("coils", "samples", "words"), [(COILS - 1, 64, "it is of 2 coils, and"), (COILS, COILS, "too few")]
)
def test_noise_that_cannot_be_used_costs_no_scan(caplog, coils, samples, words):
    """It is of other coils than the images, or has too few samples."""
    rng = np.random.default_rng(8)
    block, measured = imaging(rng), synthetic.noise_lines(rng.standard_normal((1, coils, samples)))
    (out,) = noise([measured, block], HEADER)
    assert not out.whitened
    np.testing.assert_array_equal(out.data, block.data)
    assert "the noise measurement is not used" in caplog.text
    assert words in caplog.text


def test_a_disconnected_coil_is_told_and_costs_no_scan(caplog):
    """The other coils are whitened as they are without it."""
    rng = np.random.default_rng(8)
    measured, block = synthetic.noise_lines(correlated(rng, 4)), imaging(rng)
    on = np.array([1, 1, 0])[:, None]
    (out,) = noise([replace_data(measured, measured.data * on), replace_data(block, block.data * on)], HEADER)
    pair = [replace_data(lines, lines.data[:, :2]) for lines in (measured, block)]
    (expected,) = noise(pair, HEADER)
    np.testing.assert_allclose(out.data[:, :2], expected.data, rtol=1e-5)
    assert not out.data[:, 2].any()
    assert "coils [2] (counted from 0) have no noise" in caplog.text


def test_noise_lines_that_come_too_late_are_told():
    rng = np.random.default_rng(8)
    early, late = (synthetic.noise_lines(correlated(rng, 4)) for _ in range(2))
    speech = Speech()
    list(speech.named("noise", iter(noise([early, imaging(rng), late, imaging(rng)], HEADER))))
    assert ["noise lines after the first imaging line" in note for note in speech.said().notes] == [True]


@pytest.mark.parametrize("fault", ["a coil without noise", "too few samples"])
def test_faults_of_the_noise_measurement_stand_in_the_comment(fault):
    rng = np.random.default_rng(8)
    measured, block = synthetic.noise_lines(correlated(rng, 4)), imaging(rng)
    if fault == "a coil without noise":
        scan = [replace_data(measured, measured.data * np.array([1, 1, 0])[:, None]), block]
    else:
        scan = [synthetic.noise_lines(rng.standard_normal((1, COILS, COILS))), block]
    speech = Speech()
    list(speech.named("noise", iter(noise(scan, HEADER))))
    words = "(counted from 0) have no noise" if fault == "a coil without noise" else "samples of 3 coils: too few"
    assert [words in note for note in speech.said().notes] == [True]


def replace_data(lines, data):
    headers = lines.headers.copy()
    headers["active_channels"], headers["number_of_samples"] = data.shape[1:]
    return replace(lines, headers=headers, data=data.astype(np.complex64))


@pytest.mark.parametrize(("coils", "samples"), [(0, 0), (0, 8), (3, 0)])
def test_lines_without_coils_or_samples_are_named(coils, samples):
    """As in lists of a sequence's lines, without data."""
    nothing = np.zeros((4, coils, samples), np.complex64)
    with pytest.raises(InputError, match=f"noise measurement: acquisition 0 .* has {coils} coils of {samples} samples"):
        list(noise([replace_data(synthetic.noise_lines(np.zeros((4, 3, 8))), nothing)], HEADER))
    block = replace_data(imaging(np.random.default_rng(9), first_counter=100), np.zeros((12, coils, samples)))
    with pytest.raises(InputError, match=f"acquisition 100 .* has {coils} coils of {samples} samples"):
        list(sort(noise([block], HEADER), HEADER))


@pytest.mark.parametrize("bad", [np.nan, np.inf, complex(0, -np.inf)])
def test_noise_lines_with_nan_and_infinite_samples_are_left_out(bad, caplog):
    rng = np.random.default_rng(9)
    block, measured = imaging(rng), synthetic.noise_lines(correlated(rng, 3))
    damaged = synthetic.noise_lines(measured.data.copy())
    damaged.data[2, 0, 0] = bad
    (found,) = noise([damaged, block], HEADER)
    (expected,) = noise([take(measured, np.delete(np.arange(len(measured)), 2)), block], HEADER)
    np.testing.assert_array_equal(found.data, expected.data)
    assert "1 noise lines have NaN or infinite samples and were left out" in caplog.text
    damaged.data[:, 0, 0] = bad
    (found,) = noise([replace(damaged), block], HEADER)  # a new object: the peaks of the other one are known
    assert found.data is block.data
    assert "all noise lines have NaN or infinite samples; data are not prewhitened" in caplog.text
    with pytest.raises(InputError, match="no line without NaN or infinite samples"):
        NoiseScan().measured()


def test_huge_but_finite_samples_pass():
    block = imaging(np.random.default_rng(10))
    block.data[0] = 1e30
    assert len(list(noise([block], HEADER))) == 1


def test_cuda_asked_for_in_vain():
    if importlib.util.find_spec("cupy"):
        pytest.skip("CuPy is installed")
    with pytest.raises(InputError, match="device is cuda, but CuPy is not installed"):
        list(noise([imaging(np.random.default_rng(11))], HEADER, device="cuda"))


@pytest.mark.gpu
def test_blocks_move_to_the_device():
    cupy = pytest.importorskip("cupy")
    rng = np.random.default_rng(12)
    stream = [synthetic.noise_lines(correlated(rng, 2)), imaging(rng)]
    (there,) = noise(stream, HEADER, device="cuda")
    (here,) = noise(stream, HEADER, device="cpu")
    assert isinstance(there.data, cupy.ndarray)
    np.testing.assert_allclose(there.data.get(), here.data, rtol=1e-5, atol=1e-5)
