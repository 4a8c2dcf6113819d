"""The centre of k-space: in user counters, by hand, from the data, and in doubt."""

from __future__ import annotations

import logging
import re
from typing import Any, ClassVar

import numpy as np
import pytest

from gadgets.sort import sort
from mrnets.mrd.centre import centre_doubts
from mrnets.mrd.flags import Flag
from mrnets.physics import masks
from tests.gadgets import frames as discs
from tests.gadgets import synthetic
from tests.gadgets.sorting import (
    NX,
    NY,
    NZ,
    STEP_1,
    STEP_2,
    assert_kspace,
    changed,
    frames,
    header,
    kspace,
    sampled,
)


class TestCentreInUserCounters:
    """siemens_to_ismrmrd: half of the lines as the centre in the header, the true one in idx.user[5] and [6]."""

    @pytest.mark.parametrize("step", [1, 2])
    def test_slices(self, rng: np.random.Generator, step: int, caplog: pytest.LogCaptureFixture) -> None:
        space, lines = kspace(rng), range(3, NY, step)
        limits = {STEP_1: (0, NY - 4, NY // 2)}
        block = synthetic.lines(space, lines, y_shift=-3)
        block.headers["idx"]["user"][:, 5] = 3
        with caplog.at_level(logging.WARNING):
            (frame,) = frames([block], header(limits=limits))
        assert_kspace(frame, sampled(space, lines))
        words = "kspace_encoding_step_1: the header's centre 6 contradicts 3, which the lines carry; taking 3"
        assert any(words in note for note in frame.notes)
        assert words in caplog.text

    def test_volumes(self, rng: np.random.Generator) -> None:
        space = kspace(rng, z=NZ)
        limits = {STEP_1: (0, NY - 4, 6), STEP_2: (0, NZ - 2, 3)}
        block = synthetic.lines(space, range(3, NY), range(1, NZ), y_shift=-3)
        block.headers["idx"]["kspace_encode_step_2"] -= 1
        block.headers["idx"]["user"][:, 5:7] = 3, 2
        (frame,) = frames([block], header((NX, NY, NZ), limits=limits))
        expected = frames([synthetic.lines(space, range(3, NY), range(1, NZ))], header((NX, NY, NZ)))[0]
        np.testing.assert_array_equal(frame.raw.kspace, expected.raw.kspace)
        assert len(frame.notes) == 2

    @pytest.mark.parametrize(
        ("vendor", "user"), [("GE MEDICAL SYSTEMS", 3), ("SIEMENS", 1), ("SIEMENS", 11), (None, 0)]
    )
    def test_what_is_not_believed(self, rng: np.random.Generator, vendor: str | None, user: int) -> None:
        """Other vendors use these counters for other things, and not all lines would fit around such a centre."""
        space = kspace(rng)
        block = synthetic.lines(space, range(NY - 3))
        block.headers["idx"]["user"][:, 5] = user
        (frame,) = frames([block], header(vendor=vendor, limits={STEP_1: (0, NY - 4, NY // 2)}))
        assert_kspace(frame, sampled(space, range(NY - 3)))
        assert not any("contradicts" in note for note in frame.notes)


def test_a_centre_beyond_the_limits_is_the_middle_of_the_matrix(rng: np.random.Generator) -> None:
    space = kspace(rng)
    for centre in (-4, 65532, NY):
        (frame,) = frames([synthetic.lines(space)], header(limits={STEP_1: (0, NY - 1, centre)}))
        assert_kspace(frame, space)
        assert any(f"centre {centre} does not fit" in note for note in frame.notes)


class TestCentresByHand:
    def test_line_and_partition(self, rng: np.random.Generator) -> None:
        space = kspace(rng, z=NZ)
        block = synthetic.lines(space, range(3, NY), range(1, NZ))
        expected = frames([block], header((NX, NY, NZ)))[0]
        block = synthetic.lines(space, range(3, NY), range(1, NZ), y_shift=-3)
        block.headers["idx"]["kspace_encode_step_2"] -= 1
        made = header((NX, NY, NZ), limits={STEP_1: (0, NY - 4, 6), STEP_2: (0, NZ - 2, 3)})
        (frame,) = frames([block], made, centre_line=3, centre_partition=2)
        np.testing.assert_array_equal(frame.raw.kspace, expected.raw.kspace)
        assert sum("was set by hand" in note for note in frame.notes) == 2

    def test_sample(self, rng: np.random.Generator) -> None:
        space = kspace(rng)
        forwards = synthetic.lines(space[..., 4:], range(0, NY, 2), centre=1)
        backwards = synthetic.lines(space[..., 4:], range(1, NY, 2), centre=1, reverse=True)
        (frame,) = frames([forwards, backwards], header(), centre_sample=NX // 2 - 4)
        assert_kspace(frame, np.where(np.arange(NX) < 4, 0, space))


class TestCentreFromTheData:
    """Converters write half of the measured lines as the centre. Here the first 8 of 32 lines were not measured."""

    LIMITS: ClassVar[Any] = {STEP_1: (0, 23, 12)}
    WORDS = r"step_{}: the header's centre 12 contradicts the data, whose strongest line is [78]; taking 8"

    @pytest.mark.parametrize("order", ["up", "down", "blocks"])
    @pytest.mark.parametrize("step", [1, 2])
    def test_slices(self, order: str, step: int) -> None:
        lines = {"up": range(8, 32, step), "down": range(31, 7, -step), "blocks": [*range(20, 32), *range(8, 20)]}
        stream = [synthetic.lines(discs.kspace(), [line], y_shift=-8, first_counter=line) for line in lines[order]]
        (frame,) = frames(stream, discs.header(limits=self.LIMITS))
        (expected,) = frames([synthetic.lines(discs.kspace(), list(lines[order]))], discs.header())
        np.testing.assert_array_equal(frame.raw.kspace, expected.raw.kspace)
        assert any(re.search(self.WORDS.format(1), note) for note in frame.notes)

    @pytest.mark.parametrize("axis", [1, 2])
    def test_volumes(self, axis: int) -> None:
        lines, partitions = (range(8, 32), range(32)) if axis == 1 else (range(32), range(8, 32))
        images = (discs.coil_maps() * discs.disc())[..., None] * np.hanning(34)[1:-1]
        space = synthetic.to_kspace(np.moveaxis(images, -1, 1).astype(np.complex64))
        block = synthetic.lines(space, lines, partitions)
        made = discs.header()
        made.encoding[0] = synthetic.encoding((32, 32, 32), limits={f"kspace_encoding_step_{axis}": (0, 23, 12)})
        moved = changed(block)
        moved.headers["idx"][f"kspace_encode_step_{axis}"] -= 8
        (frame,) = frames([moved], made)
        made.encoding[0] = synthetic.encoding((32, 32, 32))
        (expected,) = frames([block], made)
        np.testing.assert_array_equal(frame.raw.kspace, expected.raw.kspace)
        assert any(re.search(self.WORDS.format(axis), note) for note in frame.notes)

    def test_a_scan_of_less_resolution_keeps_its_centre(self) -> None:
        block = synthetic.lines(discs.kspace(), range(4, 28), y_shift=-4)
        (frame,) = frames([block], discs.header(limits=self.LIMITS))
        (expected,) = frames([synthetic.lines(discs.kspace(), range(4, 28))], discs.header())
        np.testing.assert_array_equal(frame.raw.kspace, expected.raw.kspace)
        assert not frame.notes

    def test_noise_alone_keeps_the_centre(self, rng: np.random.Generator) -> None:
        block = synthetic.lines(kspace(rng, 32, 32), range(8, 32), y_shift=-8)
        (frame,) = frames([block], header((32, 32, 1), vendor=None, limits=self.LIMITS))
        assert not any("contradicts" in note for note in frame.notes)

    def test_what_is_set_by_hand_counts(self) -> None:
        block = synthetic.lines(discs.kspace(), range(8, 32), y_shift=-8)
        (frame,) = frames([block], discs.header(limits=self.LIMITS), centre_line=12)
        assert any("centre 12 was set by hand" in note for note in frame.notes)

    def test_lines_leave_with_the_next_repetition_where_lines_lack_beside_a_centre(self) -> None:
        came = []

        def stream() -> Any:
            for n in range(4):
                lines = [*range(8, 20), *range(28, 32)]  # none beside 16, where one half of k-space would be full
                yield synthetic.lines(discs.kspace(), lines, y_shift=-8, repetition=n)
                came.append(n)

        frame = next(iter(sort(stream(), discs.header(limits=self.LIMITS))))
        assert any(re.search(self.WORDS.format(1), note) for note in frame.notes)
        assert came == [0]

    def test_lines_leave_as_soon_as_the_centre_is_known(self) -> None:
        came = []

        def stream() -> Any:
            for n in range(3):
                yield synthetic.lines(discs.kspace(), range(8, 32), y_shift=-8, slice=n, last=[Flag.LAST_IN_SLICE])
                came.append(n)

        limits = self.LIMITS | dict.fromkeys(("average", "contrast", "segment"), (0, 0, 0))
        next(iter(sort(stream(), discs.header(limits=limits))))
        assert not came


class TestCentreInDoubt:
    """A smooth object is strongest in the middle of k-space."""

    @pytest.mark.parametrize("shift", [-9, 9])
    def test_a_wrong_centre_is_said(self, shift: int) -> None:
        block = synthetic.lines(discs.kspace(), range(10, 22))
        made = discs.header(limits={STEP_1: (0, 31, 16)})
        assert not frames([block], made)[0].notes
        lines = block.headers["idx"]["kspace_encode_step_1"]
        lines[:] = lines.astype(int) + shift
        (frame,) = frames([block], made)
        side = "after" if shift > 0 else "before"
        assert any(f"strongest k-space along kspace_encode_step_1 is 9 {side}" in note for note in frame.notes)
        (frame,) = frames([block], made, centre_line=16 + shift)
        assert not any("strongest" in note for note in frame.notes)

    def test_a_wrong_centre_of_a_volume_is_said(self) -> None:
        frame = discs.volume()
        assert not frame.notes
        images = (discs.coil_maps() * discs.disc())[..., None] * np.ones(16)
        block = synthetic.lines(synthetic.to_kspace(images.astype(np.complex64)), range(32), range(9, 25))
        block.headers["idx"]["kspace_encode_step_2"] += 6
        (frame,) = frames([block], header((16, 32, 32)))
        assert any("strongest k-space along kspace_encode_step_2 is 6 after" in note for note in frame.notes)

    @pytest.mark.parametrize(
        ("lines", "words"),
        [
            ([*range(13), *range(20, 32)], "no kspace_encode_step_1 from 13 to 19 was sampled"),
            ([*range(12), 16, *range(17, 32)], "no kspace_encode_step_1 from 12 to 15 was sampled"),
            ([*range(9), 23, 24, 31], "no kspace_encode_step_1 from 9 to 22 was sampled"),
            (range(18, 32), "no kspace_encode_step_1 was sampled from the centre 16 to 18"),
            (range(14), "no kspace_encode_step_1 was sampled from the centre 16 to 13"),
        ],
    )
    def test_a_hole_in_the_middle_is_said(self, lines: Any, words: str) -> None:
        (frame,) = frames([synthetic.lines(discs.kspace(), list(lines))], discs.header())
        assert any(words in note for note in frame.notes)

    def test_a_hole_in_one_echo_is_said(self) -> None:
        blocks = [synthetic.lines(discs.kspace(), contrast=0)]
        blocks.append(synthetic.lines(discs.kspace(), [*range(13), *range(20, 32)], contrast=1))
        for frame in frames(blocks, discs.header(limits={"contrast": (0, 1, 0)})):
            assert any("no kspace_encode_step_1 from 13 to 19 was sampled" in note for note in frame.notes)

    def test_a_hole_in_the_middle_of_a_volume_is_said(self) -> None:
        images = (discs.coil_maps() * discs.disc())[..., None] * np.ones(16)
        space = synthetic.to_kspace(images.astype(np.complex64))
        made = synthetic.header(synthetic.encoding((16, 32, 32), mode="embedded"))
        whole = [synthetic.lines(space, range(32), [z]) for z in range(32)]
        assert not frames(whole, made)[0].notes
        for z in range(13, 20):
            whole[z] = synthetic.lines(space, [y for y in range(32) if abs(y - 16) > 3], [z])
        (frame,) = frames(whole, made)
        assert any("none of the 25 lines at the k-space centre was sampled" in note for note in frame.notes)

    @pytest.mark.parametrize("name", masks.names())
    def test_no_mask_has_a_hole(self, name: str) -> None:
        """Undersampling as masks draw it, with few calibration lines, is none."""
        rng = np.random.default_rng(0)
        kind = masks.kind(name)
        for acceleration in (2.0, 4.0):
            shape = (64, 1) if kind.axes == 1 else (64, 64)
            drawn = kind.draw(shape, acceleration, rng, centre=8)
            mask = np.broadcast_to(drawn, (64, 64))
            kspace = np.ones((1, 1, 1, 64, 64), np.complex64) * mask
            found = centre_doubts(kspace, mask, volume=kind.axes == 2)
            assert not [note for note in found if "sampled" in note]

    def test_undersampling_is_no_hole(self) -> None:
        (frame,) = frames([synthetic.lines(discs.kspace(), range(1, 32, 4))], discs.header())
        assert not any("was sampled" in note for note in frame.notes)
