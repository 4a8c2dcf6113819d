from __future__ import annotations

import logging
from dataclasses import replace

import ismrmrd
import numpy as np
import pytest

from gadgets.sort import sort
from mrnets.mrd.flags import Flag
from mrnets.mrd.lines import Lines
from mrnets.physics.fourier import fftc, ifftc
from tests.gadgets import synthetic
from tests.gadgets.sorting import COILS, NX, NY, assert_is, counted, frames, images, in_blocks, oversampled, plain


@pytest.mark.parametrize(("y", "x"), [(12, 16), (11, 15), (1, 16), (12, 7)])
def test_one_slice_fully_sampled(rng, y, x):
    truth = images(rng, y, x)
    header = synthetic.header(synthetic.encoding((x, y, 1)))
    (frame,) = frames([synthetic.lines(synthetic.to_kspace(truth))], header)
    assert_is(frame, truth)
    raw = frame.raw
    assert raw.kspace.dtype == np.complex64
    assert raw.kspace.shape == (1, 1, COILS, y, x)
    assert raw.mask.shape == (1, 1, 1, y, x)
    assert raw.mask.all()
    assert (raw.readout, raw.whitened, raw.echo_times) == ("x", False, None)


def test_any_order_of_lines_and_any_blocks_give_the_same(rng):
    truth = images(rng)
    order = rng.permutation(NY)
    block = synthetic.lines(synthetic.to_kspace(truth), list(order))
    (frame,) = frames(in_blocks(block, 5, 1, 3), plain())
    assert_is(frame, truth)
    centre = int(np.flatnonzero(order == NY // 2)[0])
    assert frame.headers[0, 0] == block.headers[centre]


def test_interleaved_slices_in_one_block(rng):
    truths = [images(rng) for _ in range(4)]
    runs = [synthetic.lines(synthetic.to_kspace(t), slice=n) for n, t in enumerate(truths)]
    out = frames([synthetic.interleave(*(runs[n] for n in (0, 2, 1, 3)))], plain())
    assert [int(frame.headers["idx"]["slice"][0, 0]) for frame in out] == [0, 1, 2, 3]
    for frame, truth in zip(out, truths, strict=True):
        assert_is(frame, truth)


def test_counters_make_images_of_their_own(rng):
    stream, truths = [], []
    for repetition in range(2):
        for set_ in range(2):
            for phase in range(2):
                truths.append(images(rng))
                counters = {"repetition": repetition, "set": set_, "phase": phase}
                stream.append(synthetic.lines(synthetic.to_kspace(truths[-1]), **counters))
    out = frames(stream, plain())
    assert len(out) == 8
    for frame, truth in zip(out, truths, strict=True):
        assert_is(frame, truth)


def test_segments_of_one_image(rng):
    truth = images(rng)
    kspace = synthetic.to_kspace(truth)
    stream = [synthetic.lines(kspace, range(n, NY, 3), segment=n, last=[Flag.LAST_IN_SLICE]) for n in range(3)]
    (frame,) = frames(stream, counted(segment=2))
    assert_is(frame, truth)


def test_averages_are_averaged_line_by_line(rng):
    truths = [images(rng) for _ in range(3)]
    spaces = [synthetic.to_kspace(t) for t in truths]
    stream = [synthetic.lines(spaces[0], average=0), synthetic.lines(spaces[1], average=1)]
    stream.append(synthetic.lines(spaces[2], range(4, 8), average=2))
    (frame,) = frames(stream, counted(average=2))
    mean = (spaces[0] + spaces[1]) / 2
    mean[:, :, 4:8] = (spaces[0] + spaces[1] + spaces[2])[:, :, 4:8] / 3
    np.testing.assert_allclose(frame.raw.kspace[0, 0], mean[:, 0], rtol=1e-5, atol=1e-5)
    (mixed,) = frames([synthetic.interleave(*stream[:2])], counted(average=1))
    np.testing.assert_allclose(mixed.raw.kspace[0, 0], ((spaces[0] + spaces[1]) / 2)[:, 0], rtol=1e-5, atol=1e-5)


def test_lines_repeated_with_the_same_counters_are_averaged_with_a_warning(rng, caplog):
    kspace = synthetic.to_kspace(images(rng))
    with caplog.at_level(logging.WARNING):
        (frame,) = frames([synthetic.lines(kspace, [*range(NY), 3, 3])], plain())
    assert "twice" in caplog.text
    np.testing.assert_allclose(frame.raw.kspace[0, 0], kspace[:, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("interleaved", [True, False])
def test_contrasts_become_echoes_with_their_times(rng, interleaved):
    truths = [images(rng) for _ in range(3)]
    runs = [synthetic.lines(synthetic.to_kspace(t), contrast=n) for n, t in enumerate(truths)]
    limits = {"contrast": (0, 2, 0)}
    header = synthetic.header(synthetic.encoding((NX, NY, 1), limits=limits), te=[3.0, 11.5, 20.0])
    (frame,) = frames([synthetic.interleave(*runs)] if interleaved else runs, header)
    assert frame.headers.shape == (1, 3)
    assert list(frame.headers["idx"]["contrast"][0]) == [0, 1, 2]
    np.testing.assert_allclose(frame.raw.echo_times, [3e-3, 11.5e-3, 20e-3], rtol=1e-6)
    for n, truth in enumerate(truths):
        assert_is(frame, truth, echo=n)


def test_echoes_sampled_differently_become_frames_of_their_own(rng):
    kspace = synthetic.to_kspace(images(rng))
    stream = [synthetic.lines(kspace, contrast=0), synthetic.lines(kspace, range(0, NY, 2), contrast=1)]
    out = frames(stream, counted(contrast=1))
    assert [frame.raw.mask[..., 0].sum() for frame in out] == [NY, NY // 2]
    assert [int(frame.headers["idx"]["contrast"][0, 0]) for frame in out] == [0, 1]


@pytest.mark.parametrize(("encoded", "recon"), [(32, 16), (30, 15), (36, 20), (24, 16)])
def test_readout_oversampling_is_cut_in_image_space(rng, encoded, recon):
    big = images(rng, x=encoded)
    fov, recon_fov = (2.0 * encoded, 24, 1), (2.0 * recon, 24, 1)
    header = synthetic.header(synthetic.encoding((encoded, NY, 1), fov=fov, recon=(recon, NY, 1), recon_fov=recon_fov))
    (frame,) = frames([synthetic.lines(synthetic.to_kspace(big))], header)
    start = encoded // 2 - recon // 2
    assert_is(frame, big[..., start : start + recon])
    assert frame.raw.mask.all()
    assert frame.encoded.matrix == (recon, NY, 1)
    assert frame.encoded.fov[0] == pytest.approx(2.0 * recon)


def test_oversampling_that_was_removed_before_is_not_removed_again(rng):
    truth = images(rng)
    header = oversampled()
    (frame,) = frames([synthetic.lines(synthetic.to_kspace(truth))], header)
    assert_is(frame, truth)


@pytest.mark.parametrize("early", [True, False])
def test_asymmetric_echo(rng, early):
    kspace = synthetic.to_kspace(images(rng))
    cut, part = 3, slice(3, None) if early else slice(None, NX - 3)
    lines = synthetic.lines(kspace[..., part], centre=NX // 2 - (cut if early else 0))
    (frame,) = frames([lines], plain())
    expected = np.zeros_like(kspace)
    expected[..., part] = kspace[..., part]
    np.testing.assert_array_equal(frame.raw.kspace[0, 0], expected[:, 0])
    sampled = np.zeros(NX, bool)
    sampled[part] = True
    np.testing.assert_array_equal(frame.raw.mask[0, 0, 0], np.broadcast_to(sampled, (NY, NX)))


def test_asymmetric_echo_with_oversampling(rng):
    kspace = synthetic.to_kspace(images(rng, x=32))
    header = oversampled()
    (frame,) = frames([synthetic.lines(kspace[..., 8:], centre=8)], header)
    filled = kspace.copy()
    filled[..., :8] = 0
    expected = fftc(ifftc(filled, axes=(-1,))[..., 8:24], axes=(-1,))
    np.testing.assert_array_equal(frame.raw.mask[0, 0, 0, 0], np.arange(16) >= 4)
    np.testing.assert_allclose(frame.raw.kspace[0, 0, ..., 4:], expected[:, 0, ..., 4:], atol=1e-5)
    assert not frame.raw.kspace[..., :4].any()


def test_discarded_samples_are_not_sampled(rng):
    kspace = synthetic.to_kspace(images(rng))
    lines = synthetic.lines(kspace)
    lines.headers["discard_pre"], lines.headers["discard_post"] = 2, 1
    (frame,) = frames([lines], plain())
    np.testing.assert_array_equal(frame.raw.mask[0, 0, 0, 0], (np.arange(NX) >= 2) & (np.arange(NX) < NX - 1))
    assert not frame.raw.kspace[..., :2].any()
    assert frame.limits[0] == type(frame.limits[0])(2, 8, 14)


@pytest.mark.parametrize("x", [16, 15])
def test_reversed_lines(rng, x):
    truth = images(rng, x=x)
    kspace = synthetic.to_kspace(truth)
    forward = synthetic.lines(kspace, range(0, NY, 2))
    backward = synthetic.lines(kspace, range(1, NY, 2), reverse=True)
    header = synthetic.header(synthetic.encoding((x, NY, 1)))
    (frame,) = frames([synthetic.interleave(forward, backward)], header)
    assert_is(frame, truth)


def test_partial_fourier_and_partial_phase_resolution_lie_by_the_centre(rng):
    # as a Siemens scan: matrix 12, counters 0 .. 7 with the centre at 3
    kspace = synthetic.to_kspace(images(rng))
    lines = synthetic.lines(kspace, range(3, 11), y_shift=-3)
    (frame,) = frames([lines], plain(limits={"kspace_encoding_step_1": (0, 7, 3)}))
    expected = np.zeros_like(kspace)
    expected[:, :, 3:11] = kspace[:, :, 3:11]
    np.testing.assert_array_equal(frame.raw.kspace[0, 0], expected[:, 0])
    assert (frame.limits[1].minimum, frame.limits[1].centre, frame.limits[1].maximum) == (3, 6, 10)


@pytest.mark.parametrize(
    "flag",
    [
        Flag.IS_NAVIGATION_DATA,
        Flag.IS_PHASECORR_DATA,
        Flag.IS_HPFEEDBACK_DATA,
        Flag.IS_DUMMYSCAN_DATA,
        Flag.IS_RTFEEDBACK_DATA,
        Flag.IS_SURFACECOILCORRECTIONSCAN_DATA,
        Flag.IS_PHASE_STABILIZATION,
    ],
)
def test_lines_that_are_no_part_of_the_image_are_left_out(rng, flag):
    truth = images(rng)
    junk = synthetic.lines(np.full((2, 1, 3, 9), 99, np.complex64), flags=[flag])
    imaging = in_blocks(synthetic.lines(synthetic.to_kspace(truth)), 4)
    same_shape = synthetic.lines(np.full((COILS, 1, NY, NX), 99, np.complex64), flags=[flag])
    (frame,) = frames([junk, imaging[0], same_shape, imaging[1], junk], plain())
    assert_is(frame, truth)


def test_other_items_pass_in_order(rng):
    block = synthetic.lines(synthetic.to_kspace(images(rng)), last=[Flag.LAST_IN_SLICE])
    waveform, image = ismrmrd.Waveform(), ismrmrd.Image()
    out = list(sort(["a", waveform, block, image, "b"], plain()))
    assert [out[0], out[1], out[3], out[4]] == ["a", waveform, image, "b"]


def test_noise_lines_that_no_gadget_took_give_the_covariance(rng):
    header = synthetic.header(synthetic.encoding((NX, NY, 1)), bandwidth=0.5)
    samples = synthetic.coil_images(rng, COILS, 4, 500)[:, 0].swapaxes(0, 1)
    block = synthetic.lines(synthetic.to_kspace(images(rng)), dwell=10.0)
    (frame,) = frames([synthetic.noise_lines(samples, dwell=5.0), block], header)
    flat = np.moveaxis(samples, 1, 0).reshape(COILS, -1)
    np.testing.assert_allclose(frame.raw.noise, flat @ flat.conj().T / flat.shape[1] / 2, atol=2e-3)
    (frame,) = frames([replace(block, whitened=True)], header)
    assert frame.raw.whitened
    assert frame.raw.noise is None


def test_lines_survive_unchanged(rng):
    """Sorting does not write into the lines it was given: other hosts may hold on to them."""
    block = synthetic.lines(synthetic.to_kspace(images(rng)))
    copy = Lines(block.headers.copy(), block.data.copy())
    list(sort([block, block], plain()))
    np.testing.assert_array_equal(block.data, copy.data)
    np.testing.assert_array_equal(block.headers, copy.headers)
