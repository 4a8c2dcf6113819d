"""Scans as converters write them: wrong centres, counters and flags. Each gives an image and says what was guessed."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from ismrmrd import xsd

from gadgets.frame import Frame
from gadgets.sort import sort
from mrnets.errors import InputError
from mrnets.mrd.centre import centre_doubts
from mrnets.mrd.flags import Flag
from mrnets.mrd.lines import Lines
from mrnets.physics import masks
from tests.gadgets import frames as discs
from tests.gadgets import synthetic

COILS, NX, NY, NZ = 3, 16, 12, 6
STEP_1, STEP_2 = "kspace_encoding_step_1", "kspace_encoding_step_2"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def kspace(rng: np.random.Generator, x: int = NX, y: int = NY, z: int = 1) -> Any:
    """(coil, z, y, x) of random images."""
    return synthetic.to_kspace(synthetic.coil_images(rng, COILS, y, x, z))


def header(matrix: tuple[int, int, int] = (NX, NY, 1), vendor: str | None = "SIEMENS", **options: Any) -> Any:
    made = synthetic.header(synthetic.encoding(matrix, **options), bandwidth=0.79)
    made.acquisitionSystemInformation.systemVendor = vendor
    return made


def frames(stream: Any, made: Any, **options: Any) -> list[Frame]:
    out = list(sort(stream, made, **options))
    assert all(isinstance(frame, Frame) for frame in out)
    return out


def changed(lines: Lines, **counters: int) -> Lines:
    headers = lines.headers.copy()
    for name, value in counters.items():
        headers["idx"][name] = value
    return replace(lines, headers=headers)


def flagged(lines: Lines, which: slice) -> Lines:
    headers = lines.headers.copy()
    headers["flags"][which] |= np.uint64(1 << (Flag.IS_SURFACECOILCORRECTIONSCAN_DATA - 1))
    return replace(lines, headers=headers)


def sampled(space: Any, ys: Any, zs: Any = (0,)) -> Any:
    """`space` with zeros where nothing was sampled."""
    there = np.zeros_like(space)
    at = np.ix_(range(len(space)), list(zs), list(ys), range(space.shape[-1]))
    there[at] = space[at]
    return there


def assert_is(frame: Frame, expected: Any, echo: int = 0) -> None:
    np.testing.assert_allclose(frame.raw.kspace[0, echo], expected[:, 0], atol=1e-5)


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
        assert_is(frame, sampled(space, lines))
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
        assert_is(frame, sampled(space, range(NY - 3)))
        assert not any("contradicts" in note for note in frame.notes)


class TestOnePartition:
    @pytest.mark.parametrize(
        ("matrix", "recon", "limit"),
        [
            ((NX, NY, 2), (NX, NY, 1), (0, 1, 1)),
            ((NX, NY, 2), (NX, NY, 1), (0, 0, 1)),
            ((NX, NY, 2), (NX, NY, 1), None),
            ((NX, NY, 8), (NX, NY, 1), (0, 0, -4)),
            ((NX, NY, 8), (NX, NY, 8), (0, 0, 65532)),
            ((NX, NY, 8), (NX, NY, 8), (0, 7, 65532)),
            ((NX, NY, 8), (NX, NY, 8), (0, 7, 4)),
        ],
    )
    def test_is_a_slice(self, rng: np.random.Generator, matrix: Any, recon: Any, limit: Any) -> None:
        made = header(matrix, recon=recon, limits={STEP_2: limit or (0, 0, 0)})
        if limit is None:
            made.encoding[0].encodingLimits.kspace_encoding_step_2 = None
        spaces = [kspace(rng) for _ in range(3)]
        stream = [synthetic.lines(space, slice=n) for n, space in enumerate(spaces)]
        for frame, space in zip(frames(stream, made), spaces, strict=True):
            assert_is(frame, space)
            assert not frame.volume
            assert any("partitions and one was measured" in note for note in frame.notes)

    def test_of_any_number(self, rng: np.random.Generator) -> None:
        space = kspace(rng)
        (frame,) = frames([changed(synthetic.lines(space), kspace_encode_step_2=5)], header())
        assert_is(frame, space)

    def test_dimensions_by_hand(self, rng: np.random.Generator) -> None:
        space = kspace(rng)
        (frame,) = frames([synthetic.lines(space)], header((NX, NY, 8)), dimensions="2d")
        assert_is(frame, space)
        (frame,) = frames([synthetic.lines(kspace(rng, z=2))], header((NX, NY, 2), recon=(NX, NY, 1)), dimensions="3d")
        assert frame.raw.kspace.shape == (NX, 1, COILS, 2, NY)


def test_a_centre_beyond_the_limits_is_the_middle_of_the_matrix(rng: np.random.Generator) -> None:
    space = kspace(rng)
    for centre in (-4, 65532, NY):
        (frame,) = frames([synthetic.lines(space)], header(limits={STEP_1: (0, NY - 1, centre)}))
        assert_is(frame, space)
        assert any(f"centre {centre} does not fit" in note for note in frame.notes)


@pytest.mark.parametrize("z", [1, NZ])
def test_lines_beyond_the_matrix_are_left_out(rng: np.random.Generator, z: int) -> None:
    space = kspace(rng, y=NY + 2, z=z)
    limits = {STEP_1: (0, NY + 1, NY // 2 + 1)}
    (frame,) = frames([synthetic.lines(space)], header((NX, NY, z), limits=limits))
    (expected,) = frames([synthetic.lines(space[:, :, 1:-1])], header((NX, NY, z)))
    np.testing.assert_array_equal(frame.raw.kspace, expected.raw.kspace)
    assert any(f"{2 * z} of {(NY + 2) * z} lines" in note for note in frame.notes)


class TestSurfaceCoilCorrection:
    @pytest.mark.parametrize("which", [slice(None), slice(0, None, 2), slice(0, NY // 2)])
    @pytest.mark.parametrize("z", [1, NZ])
    def test_lines_with_the_flag_are_lines_of_the_image(self, rng: np.random.Generator, which: slice, z: int) -> None:
        block = synthetic.lines(kspace(rng, z=z), last=[Flag.LAST_IN_SLICE])
        made = header((NX, NY, z))
        (frame,) = frames([flagged(block, which)], made)
        (expected,) = frames([block], made)
        np.testing.assert_array_equal(frame.raw.kspace, expected.raw.kspace)
        assert any("no other lines have their places" in note for note in frame.notes)

    @pytest.mark.parametrize("first", [True, False])
    def test_a_scan_of_its_own_is_left_out(self, rng: np.random.Generator, first: bool) -> None:
        space, other = kspace(rng), kspace(rng)
        image, correction = synthetic.lines(space), flagged(synthetic.lines(other), slice(None))
        (frame,) = frames([correction, image] if first else [image, correction], header())
        assert_is(frame, space)
        assert any("other lines have their places" in note for note in frame.notes)

    def test_of_another_image_or_other_coils(self, rng: np.random.Generator) -> None:
        space = kspace(rng)
        others = [changed(flagged(synthetic.lines(kspace(rng)), slice(None)), set=1)]
        others.append(flagged(synthetic.lines(kspace(rng)[:2, ..., :5]), slice(None)))
        (frame,) = frames([*others, synthetic.lines(space)], header())
        assert_is(frame, space)


class TestReversedLines:
    def test_centre_in_the_middle(self, rng: np.random.Generator) -> None:
        """Siemens leaves center_sample at N/2, where the standard would have N/2 - 1."""
        spaces = [kspace(rng) for _ in range(3)]
        runs = [synthetic.lines(space, contrast=n, reverse=n == 1) for n, space in enumerate(spaces)]
        runs[1].headers["center_sample"] = NX // 2
        (frame,) = frames(runs, header())
        for echo, space in enumerate(spaces):
            assert_is(frame, space, echo)
        assert any("center_sample of reversed lines" in note for note in frame.notes)

    def test_standard(self, rng: np.random.Generator) -> None:
        space = kspace(rng)
        (frame,) = frames([synthetic.lines(space, reverse=True)], header())
        assert_is(frame, space)
        assert not frame.notes

    @pytest.mark.parametrize(("vendor", "how"), [("SIEMENS", "auto"), ("GE", "kept"), (None, "kept")])
    def test_partial_echoes_by_vendor_and_by_hand(self, rng: np.random.Generator, vendor: str | None, how: Any) -> None:
        space = kspace(rng)
        block = synthetic.lines(space[..., 5:], centre=NX // 2 - 5, reverse=True)
        (frame,) = frames([block], header(vendor="GE"))
        assert_is(frame, np.where(np.arange(NX) < 5, 0, space))
        block.headers["center_sample"] = NX // 2 - 5
        (frame,) = frames([block], header(vendor=vendor), reversed_centre=how)
        assert_is(frame, np.where(np.arange(NX) < 5, 0, space))


class TestTimeInterleaved:
    @pytest.mark.parametrize(("factor", "z"), [(2, 1), (3, 1), (2, NZ)])
    def test_calibration_is_the_mean_over_repetitions(self, rng: np.random.Generator, factor: int, z: int) -> None:
        spaces = [kspace(rng, z=z) for _ in range(2 * factor)]
        made = header((NX, NY, z), mode="interleaved")
        stream = [synthetic.lines(s, range(n % factor, NY, factor), repetition=n) for n, s in enumerate(spaces)]
        out = frames(stream, made)
        assert len(out) == len(spaces)
        for n, frame in enumerate(out):
            window = range(max(n - factor + 1, 0), max(n + 1, factor))
            joint = np.zeros_like(spaces[0])
            for m in window:
                joint += sampled(spaces[m], range(m % factor, NY, factor), range(z))
            (expected,) = frames([synthetic.lines(joint)], header((NX, NY, z)))
            np.testing.assert_allclose(frame.raw.calibration, expected.raw.kspace, atol=1e-5)
            assert any(f"mean over {factor} repetitions" in note for note in frame.notes)

    def test_images_come_as_soon_as_the_pattern_is_complete(self, rng: np.random.Generator) -> None:
        came = []

        def stream() -> Any:
            for n in range(4):
                yield synthetic.lines(kspace(rng), range(n % 2, NY, 2), repetition=n, last=[Flag.LAST_IN_SLICE])
                came.append(n)

        limits = dict.fromkeys(("average", "contrast", "segment"), (0, 0, 0))
        first = next(iter(sort(stream(), header(mode="interleaved", limits=limits))))
        assert first.raw.calibration is not None
        assert came == [0]  # the second repetition is on its way

    def test_average_by_hand(self, rng: np.random.Generator) -> None:
        stream = [synthetic.lines(kspace(rng), range(n % 2, NY, 2), repetition=n) for n in range(2)]
        assert [frame.raw.calibration is None for frame in frames(stream, header())] == [True, True]
        assert [f.raw.calibration.shape[-2] for f in frames(stream, header(), calibration="average")] == [NY, NY]

    def test_a_pattern_that_is_never_complete(self, rng: np.random.Generator) -> None:
        stream = [synthetic.lines(kspace(rng), range(0, NY, 2), repetition=n) for n in range(3)]
        out = frames(stream, header(mode="interleaved"))
        assert [frame.raw.calibration for frame in out] == [None] * 3


def test_labels_that_are_not_set_are_averaged_and_said(rng: np.random.Generator) -> None:
    space = kspace(rng)
    blocks = [synthetic.lines(space, first_counter=n * NY) for n in range(3)]
    (frame,) = frames(blocks, header())
    assert_is(frame, space)
    assert "lines that came twice with the same counters were averaged" in frame.notes


def test_several_slices_excited_at_once_are_refused(rng: np.random.Generator) -> None:
    made = header(mode="embedded")
    made.encoding[0].parallelImaging.multiband = xsd.multibandType(
        spacing=[xsd.multibandSpacingType(dZ=[20.0])],
        deltaKz=0.0,
        multiband_factor=3,
        calibration=xsd.multibandCalibrationType.SEPARABLE2_D,
        calibration_encoding=0,
    )
    with pytest.raises(InputError, match=r"3 slices were excited at once \(multiband_factor\)"):
        frames([synthetic.lines(kspace(rng))], made)


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
        assert_is(frame, np.where(np.arange(NX) < 4, 0, space))


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
