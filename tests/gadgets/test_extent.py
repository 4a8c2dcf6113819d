"""Headers that announce line 0 alone, as Siemens' interpreter of Pulseq writes them: the lines tell the matrix."""

import numpy as np
import pytest

from gadgets.sort import sort
from mrnets.errors import InputError
from mrnets.mrd.flags import Flag
from mrnets.physics.coils import rss
from mrnets.physics.fourier import ifftc
from tests.gadgets import synthetic
from tests.gadgets.frames import SIZE, disc, kspace

SENTENCE = f"lines 0 to {SIZE - 1} of {SIZE} samples came; a matrix of {SIZE} x {SIZE} over the field of view"


def header(x=SIZE // 2, y=SIZE // 2, centre=SIZE // 4):
    limits = {"kspace_encoding_step_1": (0, 0, centre)}
    return synthetic.header(synthetic.encoding((x, y, 1), fov=(200, 100, 5), recon_fov=(200, 200, 5), limits=limits))


def block(**options):
    return synthetic.lines(kspace(), **options)


@pytest.mark.parametrize("x", [SIZE // 2, SIZE])
def test_the_matrix_is_that_of_the_lines(x):
    (frame,) = sort([block()], header(x=x))
    np.testing.assert_allclose(rss(ifftc(frame.raw.kspace))[0, 0], np.abs(disc()), atol=1e-5)
    assert frame.raw.mask.all()
    assert frame.recon.matrix == (SIZE, SIZE, 1)
    assert frame.recon.fov == (200, 200, 5)
    assert any(SENTENCE in note for note in frame.notes)


def test_lines_that_fit_the_matrix_leave_it_and_are_told():
    (frame,) = sort([block()], header(x=SIZE, y=SIZE, centre=SIZE // 2))
    np.testing.assert_allclose(rss(ifftc(frame.raw.kspace))[0, 0], np.abs(disc()), atol=1e-5)
    assert any(f"announces no line but 0; taking the centre {SIZE // 2}" in note for note in frame.notes)
    assert not any("a matrix of" in note for note in frame.notes)


def test_the_first_slice_does_not_wait_for_the_others():
    def stream():
        yield block(last=[Flag.LAST_IN_SLICE])
        raise AssertionError("a line of the second slice was asked for")

    assert next(sort(stream(), header())).recon.matrix == (SIZE, SIZE, 1)


def test_later_slices_are_on_the_matrix_of_the_first():
    made = list(sort([block(slice=n) for n in range(3)], header()))
    assert [frame.recon.matrix for frame in made] == 3 * [(SIZE, SIZE, 1)]


def test_spokes_are_refused():
    spokes = np.repeat(kspace()[:, :, SIZE // 2 : SIZE // 2 + 1], SIZE, axis=2)
    with pytest.raises(InputError, match=rf"line {SIZE // 2} in the middle does not stand out"):
        list(sort([synthetic.lines(spokes)], header()))


def test_a_centre_that_is_elsewhere_is_refused():
    with pytest.raises(InputError, match="does not stand out"):
        list(sort([synthetic.lines(np.roll(kspace(), 8, axis=2))], header()))


def test_the_last_line_of_a_calibration_is_not_that_of_an_image():
    """Separate calibration lines come first. Those of the image that come after it tell the matrix."""
    few = range(SIZE // 2 - 8, SIZE // 2)
    first = block(ys=few, flags=[Flag.IS_PARALLEL_CALIBRATION], last=[Flag.LAST_IN_SLICE])
    (frame,) = sort([first, block()], header())
    assert frame.recon.matrix == (SIZE, SIZE, 1)


@pytest.mark.parametrize("counters", [{3: 65535}, {30: 40000, 3: 65535}, {SIZE // 2: 65535}, {3: SIZE + 4}])
def test_a_damaged_counter_costs_its_line_alone(counters):
    odd = block()
    for line, counter in counters.items():
        odd.headers["idx"]["kspace_encode_step_1"][line] = counter
    (frame,) = sort([odd], header())
    kept = np.delete(np.arange(SIZE), list(counters))
    assert frame.recon.matrix == (SIZE, SIZE, 1)
    assert frame.raw.mask[0, 0, 0].any(axis=-1).nonzero()[0].tolist() == kept.tolist()
    np.testing.assert_allclose(frame.raw.kspace[0, 0, :, kept], kspace()[:, 0, kept].swapaxes(0, 1), atol=1e-5)
    assert any(f"{len(counters)} of {SIZE} lines (acquisition {min(counters)} is the first)" in n for n in frame.notes)


def test_many_counters_far_away_are_not_damage():
    odd = block()
    odd.headers["idx"]["kspace_encode_step_1"][-8:] += 1000
    with pytest.raises(InputError, match="does not stand out"):
        list(sort([odd], header()))


def test_the_last_line_of_irregular_sampling_stays():
    ys = [*range(8, 24), 26, SIZE - 1]
    (frame,) = sort([block(ys=ys)], header())
    assert frame.recon.matrix == (SIZE, SIZE, 1)
