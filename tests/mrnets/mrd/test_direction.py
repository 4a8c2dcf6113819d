"""Lines that run backwards without a flag are told, and others are not: lines of one echo, and whole echoes."""

import numpy as np
import pytest

from gadgets.sort import sort
from mrnets.mrd.direction import around_centre, backwards_doubt, directed_headers, opposite_doubt
from mrnets.mrd.encoding import ByHand
from mrnets.mrd.flags import Flag, has_flag
from mrnets.physics.fourier import fftc, ifftc
from tests.gadgets import synthetic
from tests.gadgets.frames import SIZE, coil_maps, disc, frames, header, kspace

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


OPPOSITE = "seems to run against contrast 0"


def image_of_echo(number, coils):
    """(coil, y, x): the disc after some decay, with off-resonance that grows from echo to echo."""
    y, x = np.mgrid[-SIZE // 2 : SIZE // 2, -SIZE // 2 : SIZE // 2] / SIZE
    decay = np.exp(-number * (0.2 + 0.3 * (x + y > 0)) + 1j * number * (2 * x + 3 * y))
    return coil_maps()[:coils] * disc() * decay


def echoes(coils, backwards, rng, z=1):
    """Lines of three echoes, of which those in `backwards` were turned round, with noise."""
    runs = []
    for number in range(3):
        image = np.repeat(image_of_echo(number, coils)[:, None], z, axis=1) / z
        space = fftc(image, axes=(-3, -2, -1) if z > 1 else (-2, -1))
        space = space + 0.003 * (rng.standard_normal(space.shape) + 1j * rng.standard_normal(space.shape))
        space = space[..., ::-1] if number in backwards else space
        runs.append(synthetic.lines(space.astype(np.complex64), contrast=number))
    return runs


def echo_header(z=1):
    """A header of three echoes."""
    return synthetic.header(synthetic.encoding((SIZE, SIZE, z)), te=(2.0, 4.0, 6.0))


def told(runs, z=1, by_hand=None):
    options = {} if by_hand is None else {"reversed_contrasts": by_hand}
    (frame,) = sort(runs, echo_header(z), **options)
    return frame, next((note for note in frame.notes if OPPOSITE in note), "")


@pytest.mark.parametrize("z", [1, 8])
@pytest.mark.parametrize("coils", [1, 2, 6])
@pytest.mark.parametrize(("backwards", "named"), [((), ""), ((1,), "1"), ((1, 2), "1, 2"), ((0, 2), "1"), ((2,), "2")])
def test_echoes_that_run_backwards_without_a_flag_are_told(backwards, named, coils, z, rng):
    _, note = told(echoes(coils, backwards, rng, z), z)
    assert note.startswith(f"contrast {named} {OPPOSITE}") if named else note == ""


@pytest.mark.parametrize("z", [1, 8])
def test_an_echo_that_is_turned_round_by_hand_is_right(z):
    plain, _ = told(echoes(6, (), np.random.default_rng(5), z), z)
    turned_by_hand, note = told(echoes(6, (1,), np.random.default_rng(5), z), z, "odd")
    assert note == ""
    ours, theirs = (np.abs(ifftc(frame.raw.kspace)) for frame in (turned_by_hand, plain))
    assert np.linalg.norm(ours - theirs) < 0.05 * np.linalg.norm(theirs)


def test_symmetric_objects_noise_and_no_signal_are_not_told(rng):
    """A profile that is the same both ways says nothing, and neither does noise."""
    symmetric = np.hanning(33)[None, :32]
    for scale in (0.0, 1.0):
        for _ in range(50):
            profiles = [np.abs(scale * symmetric + 0.01 * rng.standard_normal((2, 32))) for _ in range(3)]
            assert opposite_doubt(profiles, [0, 1, 2]) == ""
    assert opposite_doubt([np.zeros((2, 32))] * 2, [0, 1]) == ""
    assert opposite_doubt([np.full((2, 32), np.nan)] * 2, [0, 1]) == ""


def test_headers_get_the_flag_of_odd_contrasts_alone():
    headers = synthetic.interleave(*(synthetic.lines(kspace(), contrast=n) for n in range(4))).headers
    assert directed_headers(headers, ByHand()) is headers
    flagged = has_flag(directed_headers(headers, ByHand(reversed_contrasts="odd")), Flag.IS_REVERSE)
    assert (flagged == (headers["idx"]["contrast"] % 2 == 1)).all()
    assert not has_flag(headers, Flag.IS_REVERSE).any()
