"""Lines that run backwards without a flag are told, and others are not."""

import numpy as np
import pytest

from gadgets.sort import sort
from mrnets.mrd.direction import around_centre, backwards_doubt
from tests.gadgets import synthetic
from tests.gadgets.frames import SIZE, disc, frames, header, kspace

WORDS = "every second line seems to run backwards"


def slice_of(every=1):
    """(batch, echo, coil, y, x) of which every n-th line was measured, and the mask (y, x)."""
    mask = np.zeros((SIZE, SIZE), bool)
    mask[SIZE // 2 % every :: every] = True
    return (kspace()[:, 0] * mask)[None, None], mask


def doubt(data, mask):
    return backwards_doubt(around_centre(data), mask)


def turned(data, late=0):
    """Every second line of (batch, echo, coil, y, x) turned round, `late` samples late."""
    data = data.copy()
    data[..., 1::2, :] = np.roll(data[..., 1::2, ::-1], 1 + late, axis=-1)
    return data


@pytest.mark.parametrize("late", [-1, 0, 1])
def test_lines_that_run_backwards_are_told(late):
    data, mask = slice_of()
    assert WORDS in doubt(turned(data, late), mask)


@pytest.mark.parametrize("every", [1, 2, 4])
def test_lines_as_they_should_be_are_not_told(every):
    assert doubt(*slice_of(every)) == ""


def test_late_echoes_of_one_direction_are_not_told():
    """As of reversed lines that have their flag, before phase correction."""
    data, mask = slice_of()
    data[..., 1::2, :] = np.roll(data[..., 1::2, :], 2, axis=-1)
    assert doubt(data, mask) == ""


def test_noise_few_lines_and_no_signal_are_not_told(rng):
    data, mask = slice_of()
    parts = rng.standard_normal((2, *data.shape))
    assert doubt((parts[0] + 1j * parts[1]).astype(np.complex64), mask) == ""
    assert doubt(np.zeros_like(data), mask) == ""
    few = mask & (np.arange(SIZE) < 7)[:, None]
    assert doubt(turned(data) * few, few) == ""


def test_the_image_says_so():
    measured = turned(kspace()[None, :, 0])[0]
    (frame,) = sort([synthetic.lines(measured[:, None])], header())
    assert any(WORDS in note for note in frame.notes)


def test_lines_with_the_flag_are_right():
    whole = kspace(disc())
    forwards = synthetic.lines(whole, range(0, SIZE, 2))
    backwards = synthetic.lines(whole, range(1, SIZE, 2), reverse=True)
    (frame,) = sort([synthetic.interleave(forwards, backwards)], header())
    assert not any(WORDS in note for note in frame.notes)


def test_undersampled_scans_are_not_told():
    assert not any(WORDS in note for frame in frames(2) for note in frame.notes)
