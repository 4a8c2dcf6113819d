"""Lines with a damaged header: alone they are left out with a note, and many of them refuse the scan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gadgets.noise import noise
from gadgets.sort import sort
from gadgets.speaker import IncompleteError
from mrnets.errors import InputError
from mrnets.mrd.flags import Flag
from mrnets.mrd.lines import take, with_data
from tests.gadgets import synthetic
from tests.gadgets.sorting import NX, NY, ONLY, assert_is, counted, flagged, frames, images, in_blocks, plain

DAMAGES = [
    ("kspace_encode_step_2", 200, "has kspace_encode_step_2 200, other lines of its slice 0"),
    ("encoding_space_ref", 7, "1 encoding spaces, but the data refer to encoding space 7"),
    ("discard_pre", 60000, "has 16 samples with centre 8 and 60000 \\+ 0 discarded"),
    ("center_sample", 15, "has 16 samples with centre 15, which reach beyond the readout"),
]


def damaged_data(lines, which, kind):
    """Blocks as hosts make them, in which some lines have samples that are not finite, or another number of coils."""
    bad = take(lines, np.arange(len(lines))[which])
    if kind == "coils":
        bad = with_data(bad, bad.data[:, :2])
    else:
        bad = replace(bad, data=bad.data.copy())
        bad.data[:, 1, 2] = kind
    first, last = (edge(np.arange(len(lines))[which]) for edge in (min, max))
    before, after = (take(lines, np.arange(*ends)) for ends in ((0, first), (last + 1, len(lines))))
    return [part for part in (before, bad, after) if len(part)]


def damaged(lines, which, name, value):
    """Blocks as hosts make them, in which some lines have another value in their headers."""
    headers = lines.headers.copy()
    (headers if name in headers.dtype.names else headers["idx"])[name][which] = value
    lines = replace(lines, headers=headers)
    sizes = np.diff(np.flatnonzero(np.diff(headers["encoding_space_ref"])) + 1, prepend=0)
    return in_blocks(lines, *sizes)


@pytest.mark.parametrize("at", [0, 2, NY - 1])
@pytest.mark.parametrize(("name", "value", "words"), DAMAGES)
def test_one_line_is_left_out_and_noted(rng, caplog, name, value, words, at):
    lines = synthetic.lines(synthetic.to_kspace(images(rng)), first_counter=30)
    (frame,) = frames(damaged(lines, at, name, value), plain())
    (expected,) = frames([take(lines, np.delete(np.arange(NY), at))], plain())
    np.testing.assert_array_equal(frame.raw.kspace, expected.raw.kspace)
    np.testing.assert_array_equal(frame.raw.mask, expected.raw.mask)
    (note,) = set(frame.notes) - set(expected.notes)
    assert note.startswith(f"1 of 12 lines were left out; the first: acquisition {30 + at}")
    assert note in caplog.text


DATA = [
    (np.nan, "has NaN or infinite samples"),
    (complex(0, -np.inf), "has NaN or infinite samples"),
    ("coils", "has 2 coils, others 3"),
]


@pytest.mark.parametrize("at", [2, NY - 1])
@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize(("kind", "words"), DATA)
def test_one_line_of_damaged_samples_is_left_out_and_noted(rng, caplog, kind, words, whitened, at):
    """Also behind the gadget noise, which passes it on."""
    lines = synthetic.lines(synthetic.to_kspace(images(rng)), first_counter=30)
    measured = [synthetic.noise_lines(rng.standard_normal((5, 3, 40)))] if whitened else []
    (frame,) = frames(noise([*measured, *damaged_data(lines, slice(at, at + 1), kind)], plain()), plain())
    (expected,) = frames(noise([*measured, take(lines, np.delete(np.arange(NY), at))], plain()), plain())
    np.testing.assert_array_equal(frame.raw.kspace, expected.raw.kspace)
    np.testing.assert_array_equal(frame.raw.mask, expected.raw.mask)
    assert frame.raw.whitened is whitened
    (note,) = set(frame.notes) - set(expected.notes)
    assert note == f"1 of 12 lines were left out; the first: acquisition {30 + at} {words}"
    assert note in caplog.text


@pytest.mark.parametrize(("kind", "words"), DATA)
def test_more_than_a_quarter_of_damaged_samples_refuses_the_scan(rng, kind, words):
    lines = synthetic.lines(synthetic.to_kspace(images(rng)))
    assert len(frames(damaged_data(lines, slice(8, 11), kind), plain(), incomplete="warn")) == 1
    with pytest.raises(InputError, match=words):
        list(sort(damaged_data(lines, slice(8, 12), kind), plain()))


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_an_image_of_damaged_lines_costs_no_other(rng, caplog, bad):
    """But for the first one: there the header must be wrong, and the scan is refused at once."""
    slices = [synthetic.lines(synthetic.to_kspace(images(rng)), slice=n, first_counter=12 * n) for n in range(3)]
    slices[bad].data[3:9, 1, 2] = np.nan
    if bad == 0:
        with pytest.raises(InputError, match="acquisition 3 has NaN"):
            list(sort(slices, counted(slice=2)))
        return
    found = frames(slices, counted(slice=2), incomplete="warn")
    assert [int(frame.headers[0, 0]["idx"]["slice"]) for frame in found] == [n for n in range(3) if n != bad]
    words = (
        f"images that could not be made: repetition 0, set 0, phase 0, slice {bad}: acquisition {12 * bad + 3} has NaN"
    )
    assert words in caplog.text
    if bad == 2:  # none of its lines can be used, and they are a third of the scan
        slices[bad].data[:, 1, 2] = np.nan
        slices[bad] = replace(slices[bad])
    given = sort(slices, counted(slice=2))
    assert len([next(given) for _ in range(2)]) == 2
    with pytest.raises(IncompleteError, match=f"acquisition {12 * bad + 3 * (bad != 2)} has NaN or infinite samples"):
        next(given)


def test_navigators_and_lines_of_no_use_may_be_damaged(rng):
    """A damaged navigator is not one, and a damaged dummy line costs nothing."""
    lines = synthetic.lines(synthetic.to_kspace(images(rng)))
    for flag, count in ((Flag.IS_PHASECORR_DATA, 1), (Flag.IS_DUMMYSCAN_DATA, 0)):
        other = synthetic.lines(synthetic.to_kspace(images(rng)), [3], flags=[flag])
        other.data[0, 1, 2] = np.nan
        (frame,) = frames([other, lines], plain())
        assert [note.startswith("1 of 13 lines were left out") for note in frame.notes] == count * [True]


def test_damaged_calibration_and_doubtful_lines(rng):
    lines = synthetic.lines(synthetic.to_kspace(images(rng, y=32)), range(0, 32, 2))
    calibration = synthetic.lines(synthetic.to_kspace(images(rng, y=32)), range(10, 22), flags=[ONLY])
    header = synthetic.header(synthetic.encoding((NX, 32, 1), mode="separate"))
    (frame,) = frames([*damaged_data(calibration, slice(0, 1), np.nan), lines], header)
    assert frame.raw.calibration.shape[-2] == 11
    assert "1 of 17 lines were left out; the first: acquisition 0 has NaN" in frame.notes[0]
    flagged_lines = synthetic.lines(synthetic.to_kspace(images(rng)), flags=[Flag.IS_SURFACECOILCORRECTIONSCAN_DATA])
    flagged_lines.data[4, 1, 2] = np.nan
    (frame,) = frames([flagged_lines], plain())
    assert not frame.raw.mask[..., 4, :].any()


@pytest.mark.parametrize(("name", "value", "words"), DAMAGES)
def test_more_than_a_quarter_refuses_the_scan(rng, name, value, words):
    lines = synthetic.lines(synthetic.to_kspace(images(rng)))
    assert len(frames(damaged(lines, slice(8, 11), name, value), plain(), incomplete="warn")) == 1
    with pytest.raises(InputError, match=words):
        list(sort(damaged(lines, slice(8, 12), name, value), plain()))


def test_the_first_line_of_a_slice_may_be_the_damaged_one_and_come_alone(rng):
    """As the first line of a repetition does, which completes the image before it."""
    coil_images = images(rng)
    lines = synthetic.lines(synthetic.to_kspace(coil_images))
    blocks = [part for block in damaged(lines, 0, "kspace_encode_step_2", 3) for part in in_blocks(block, 1)]
    assert [len(block) for block in blocks] == [1, NY - 1]
    (frame,) = frames(blocks, plain())
    np.testing.assert_array_equal(frame.raw.kspace[0, 0, :, 1:], synthetic.to_kspace(coil_images)[:, 0, 1:])
    assert not frame.raw.mask[..., 0, :].any()
    assert "1 of 12 lines were left out; the first: acquisition 0 has kspace_encode_step_2 3" in frame.notes[0]


def test_a_line_of_no_space_and_of_no_image_is_in_the_log(rng, caplog):
    lines = synthetic.lines(synthetic.to_kspace(images(rng)), last=[Flag.LAST_IN_SLICE])
    stray = synthetic.lines(synthetic.to_kspace(images(rng)), [3], encoding_space=9, slice=5)
    (frame,) = frames([lines, stray], plain())
    assert not frame.notes
    assert "1 of 13 lines were left out; the first: acquisition 0: the header has 1 encoding spaces" in caplog.text


def test_separate_calibration_lines(rng):
    lines = synthetic.lines(synthetic.to_kspace(images(rng, y=32)), range(0, 32, 2))
    calibration = synthetic.lines(synthetic.to_kspace(images(rng, y=32)), range(10, 22), flags=[ONLY])
    header = synthetic.header(synthetic.encoding((NX, 32, 1), mode="separate"))
    (frame,) = frames([*damaged(calibration, 0, "discard_pre", 60000), lines], header)
    assert frame.raw.calibration.shape[-2] == 11
    assert "calibration: 1 of 12 lines were left out; the first: acquisition 0 has 16 samples" in frame.notes[-1]
    with pytest.raises(InputError, match="60000 \\+ 0 discarded"):
        list(sort([*damaged(calibration, slice(0, 4), "discard_pre", 60000), lines], header))


class TestCentre:
    """A line whose center_sample is a little wrong fits the readout, and is shifted along it."""

    @pytest.mark.parametrize(("lines", "noted"), [(1, True), (3, True), (4, False)])
    def test_a_few_lines_with_another_centre_are_noted(self, rng, lines, noted):
        block = synthetic.lines(synthetic.to_kspace(images(rng)))
        (frame,) = frames(damaged(block, slice(0, lines), "center_sample", 9), plain())
        words = f"{lines} of 12 lines have their k-space centre at sample 9, the others at 8; they may be damaged"
        assert (words in frame.notes) == noted

    @pytest.mark.parametrize("value", [0, 60000])
    def test_a_centre_that_is_not_set_is_the_middle(self, rng, value):
        coil_images = images(rng)
        block = synthetic.lines(synthetic.to_kspace(coil_images))
        (frame,) = frames(damaged(block, 5, "center_sample", value), plain())
        assert_is(frame, coil_images)
        assert not frame.notes

    def test_of_asymmetric_echoes_it_is_noted(self, rng):
        block = synthetic.lines(synthetic.to_kspace(images(rng)), centre=7)
        (frame,) = frames(damaged(block, 5, "center_sample", 0), plain())
        assert any("1 of 12 lines have their k-space centre at sample 8, the others at 7" in n for n in frame.notes)

    def test_reversed_lines_and_other_contrasts_have_theirs(self, rng):
        kspace = synthetic.to_kspace(images(rng))
        forwards = synthetic.lines(kspace, range(0, NY, 4), centre=7)
        backwards = synthetic.lines(kspace, [y for y in range(NY) if y % 4], centre=7, reverse=True)
        other = synthetic.lines(kspace, contrast=1)
        found = frames([forwards, backwards, other], plain())
        assert not any("k-space centre at sample" in note for frame in found for note in frame.notes)


@pytest.mark.parametrize(
    "flag", [Flag.IS_NAVIGATION_DATA, Flag.IS_PHASECORR_DATA, Flag.IS_DUMMYSCAN_DATA, Flag.IS_RTFEEDBACK_DATA]
)
def test_navigators_of_no_space_are_no_damage(rng, caplog, flag):
    """No image uses them, whatever their encoding space is."""
    lines = synthetic.lines(synthetic.to_kspace(images(rng)))
    navigators = synthetic.lines(synthetic.to_kspace(images(rng)), flags=[flag], encoding_space=1)
    (frame,) = frames([navigators, lines], plain())
    assert not frame.notes
    assert "left out" not in caplog.text


def test_doubtful_lines_of_no_space(rng):
    """They refuse a scan only where there are no others."""
    lines = synthetic.lines(synthetic.to_kspace(images(rng)))
    doubtful = flagged(lines, slice(None))
    doubtful.headers["encoding_space_ref"] = 1
    (frame,) = frames([doubtful, lines], plain())
    assert not frame.notes
    with pytest.raises(InputError, match="1 encoding spaces, but the data refer to encoding space 1"):
        list(sort([doubtful], plain()))


def test_separate_calibration_lines_beyond_the_matrix_are_noted(rng):
    header = synthetic.header(synthetic.encoding((NX, 32, 1), mode="separate"))
    lines = synthetic.lines(synthetic.to_kspace(images(rng, y=32)), range(0, 32, 2))
    calibration = synthetic.lines(synthetic.to_kspace(images(rng, y=48)), range(10, 48), flags=[ONLY])
    (frame,) = frames([calibration, lines], header)
    assert frame.raw.calibration is not None
    assert "calibration: 16 of 38 lines (acquisition 22 is the first) are outside of the matrix" in frame.notes[-1]


def test_faults_of_two_kinds_count_together(rng):
    lines = synthetic.lines(synthetic.to_kspace(images(rng)))
    (outside,) = damaged(lines, slice(0, 2), "kspace_encode_step_1", 500)
    with pytest.raises(InputError, match="60000 \\+ 0 discarded"):
        list(sort(damaged(outside, slice(9, 11), "discard_pre", 60000), plain()))


def test_runs_of_any_size_give_the_same_header_and_the_same_note(rng):
    """The first of two lines at the centre tells where an image lies; the first faulty line is named."""
    kspace = synthetic.to_kspace(images(rng))
    twice = [synthetic.lines(kspace, average=n, first_counter=20 * n) for n in (0, 1)]
    (first,) = damaged(twice[0], slice(3, None), "discard_pre", 1)
    (first,) = damaged(first, 2, "discard_pre", 60000)
    (first,) = damaged(first, 5, "kspace_encode_step_2", 3)
    headers, data = (
        np.concatenate([getattr(part, name) for part in (first, twice[1])]) for name in ("headers", "data")
    )
    lines = replace(first, headers=headers, data=data)
    together, alone = (
        frames(blocks, counted(average=1))[0] for blocks in ([lines], in_blocks(lines, *[1] * (len(lines) - 1)))
    )
    assert together.headers["scan_counter"] == alone.headers["scan_counter"] == 6
    assert together.notes == alone.notes
    assert "2 of 24 lines were left out; the first: acquisition 2 has 16 samples" in together.notes[0]
