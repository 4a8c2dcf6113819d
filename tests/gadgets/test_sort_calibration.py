"""Calibration lines: embedded, separate, at another resolution."""

from __future__ import annotations

import numpy as np

from mrnets.mrd.flags import Flag
from mrnets.physics.fourier import ifftc
from tests.gadgets import synthetic
from tests.gadgets.sorting import BOTH, COILS, NX, NY, ONLY, frames, images, plain


def test_undersampled_data_give_the_mask_and_embedded_calibration(rng):
    kspace = synthetic.to_kspace(images(rng))
    regular = synthetic.lines(kspace, range(0, NY, 2))
    embedded = synthetic.lines(kspace, range(5, 8, 2), flags=[ONLY])
    regular.headers["flags"][2:4] |= np.uint64(1 << (BOTH - 1))
    (frame,) = frames([regular, embedded], plain(mode="embedded"))
    sampled = {*range(0, NY, 2), 5, 7}
    np.testing.assert_array_equal(frame.raw.mask[0, 0, 0, :, 0], [y in sampled for y in range(NY)])
    assert not frame.raw.kspace[~np.broadcast_to(frame.raw.mask, frame.raw.kspace.shape)].any()
    np.testing.assert_array_equal(frame.raw.calibration[0, 0], kspace[:, 0, 4:9])


def test_separate_calibration_lines_fill_their_own_block(rng):
    kspace, other = (synthetic.to_kspace(images(rng)) for _ in range(2))
    calibration = synthetic.lines(other, range(3, 9), flags=[ONLY], last=[Flag.LAST_IN_SLICE])
    (frame,) = frames([calibration, synthetic.lines(kspace, range(0, NY, 2))], plain(mode="separate"))
    np.testing.assert_array_equal(frame.raw.calibration[0, 0], other[:, 0, 3:9])
    np.testing.assert_array_equal(frame.raw.mask[0, 0, 0, :, 0], np.arange(NY) % 2 == 0)


def test_calibration_lines_between_images_count_from_then_on(rng):
    kspace, other = (synthetic.to_kspace(images(rng)) for _ in range(2))
    imaging = [synthetic.lines(kspace, range(0, NY, 2), last=[Flag.LAST_IN_SLICE], repetition=n) for n in range(2)]
    first, more = (synthetic.lines(other, ys, flags=[ONLY]) for ys in (range(4, 9), (3,)))
    out = frames([first, imaging[0], more, imaging[1]], plain(mode="separate"))
    assert [frame.raw.calibration.shape[-2] for frame in out] == [5, 6]


def test_calibration_after_the_slice_is_waited_for(rng):
    kspace, other = (synthetic.to_kspace(images(rng)) for _ in range(2))
    imaging = synthetic.lines(kspace, range(0, NY, 2), last=[Flag.LAST_IN_SLICE])
    (frame,) = frames([imaging, synthetic.lines(other, range(3, 9), flags=[ONLY])], plain(mode="separate"))
    assert frame.raw.calibration.shape == (1, 1, COILS, 6, NX)


def test_calibration_in_an_encoding_space_of_its_own_gets_the_spacing_of_the_image(rng):
    kspace, low = synthetic.to_kspace(images(rng)), images(rng, y=8, x=16)
    header = synthetic.header(
        synthetic.encoding((NX, NY, 1), fov=(32, 24, 5), mode="separate"),
        synthetic.encoding((16, 8, 1), fov=(64, 24, 5), recon=(8, 8, 1), recon_fov=(32, 24, 5)),
    )
    calibration = synthetic.lines(synthetic.to_kspace(low), flags=[ONLY], encoding_space=1)
    (frame,) = frames([calibration, synthetic.lines(kspace, range(0, NY, 2))], header)
    np.testing.assert_allclose(ifftc(frame.raw.calibration)[0, 0], low[:, 0, :, 4:12], atol=1e-5)

    wide = synthetic.header(header.encoding[0], synthetic.encoding((16, 8, 1), fov=(32, 16, 5)))
    (frame,) = frames([calibration, synthetic.lines(kspace, range(0, NY, 2))], wide)
    np.testing.assert_allclose(ifftc(frame.raw.calibration)[0, 0, :, 2:10], low[:, 0], atol=1e-5)


def test_calibration_of_the_first_repetition_serves_the_later_ones(rng):
    spaces = [synthetic.to_kspace(images(rng)) for _ in range(2)]
    first = synthetic.lines(spaces[0], [0, 2, 4, 5, 6, 7, 8, 10], repetition=0)
    second = synthetic.lines(spaces[1], range(0, NY, 2), repetition=1)
    out = frames([first, second], plain(mode="embedded"))
    for frame in out:
        np.testing.assert_array_equal(frame.raw.calibration[0, 0], spaces[0][:, 0, 4:9])


def test_no_calibration_where_the_centre_is_undersampled(rng):
    (frame,) = frames([synthetic.lines(synthetic.to_kspace(images(rng)), range(0, NY, 2))], plain())
    assert frame.raw.calibration is None


def test_separate_lines_that_do_not_serve_give_way_to_the_centre_of_the_image(rng):
    """Two lines are no block, and slices none for a volume."""
    kspace = synthetic.to_kspace(images(rng))
    few = synthetic.lines(synthetic.to_kspace(images(rng)), (3, 9), flags=[ONLY])
    (frame,) = frames([few, synthetic.lines(kspace)], plain(mode="separate"))
    np.testing.assert_array_equal(frame.raw.calibration[0, 0], kspace[:, 0])
    assert any("separate lines do not serve" in note for note in frame.notes)
    volume = synthetic.to_kspace(images(rng, z=6))
    made = synthetic.header(synthetic.encoding((NX, NY, 6), mode="separate"), synthetic.encoding((NX, NY, 1)))
    flat = synthetic.lines(kspace, flags=[ONLY], encoding_space=1)
    (frame,) = frames([flat, synthetic.lines(volume)], made)
    assert frame.raw.calibration.shape[-2:] == (6, NY)
