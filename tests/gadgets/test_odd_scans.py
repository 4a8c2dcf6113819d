"""Scans as converters write them: wrong centres, counters and flags. Each gives an image and says what was guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ismrmrd import xsd

from gadgets.sort import sort
from mrnets.errors import InputError
from mrnets.mrd.flags import Flag
from tests.gadgets import synthetic
from tests.gadgets.sorting import (
    COILS,
    NX,
    NY,
    NZ,
    STEP_1,
    STEP_2,
    assert_kspace,
    changed,
    flagged,
    frames,
    header,
    kspace,
    sampled,
)


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
            assert_kspace(frame, space)
            assert not frame.volume
            assert any("partitions and one was measured" in note for note in frame.notes)

    def test_of_any_number(self, rng: np.random.Generator) -> None:
        space = kspace(rng)
        (frame,) = frames([changed(synthetic.lines(space), kspace_encode_step_2=5)], header())
        assert_kspace(frame, space)

    def test_dimensions_by_hand(self, rng: np.random.Generator) -> None:
        space = kspace(rng)
        (frame,) = frames([synthetic.lines(space)], header((NX, NY, 8)), dimensions="2d")
        assert_kspace(frame, space)
        (frame,) = frames([synthetic.lines(kspace(rng, z=2))], header((NX, NY, 2), recon=(NX, NY, 1)), dimensions="3d")
        assert frame.raw.kspace.shape == (NX, 1, COILS, 2, NY)


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
        assert_kspace(frame, space)
        assert any("other lines have their places" in note for note in frame.notes)

    def test_of_another_image_or_other_coils(self, rng: np.random.Generator) -> None:
        space = kspace(rng)
        others = [changed(flagged(synthetic.lines(kspace(rng)), slice(None)), set=1)]
        others.append(flagged(synthetic.lines(kspace(rng)[:2, ..., :5]), slice(None)))
        (frame,) = frames([*others, synthetic.lines(space)], header())
        assert_kspace(frame, space)


class TestReversedLines:
    def test_centre_in_the_middle(self, rng: np.random.Generator) -> None:
        """Siemens leaves center_sample at N/2, where the standard would have N/2 - 1."""
        spaces = [kspace(rng) for _ in range(3)]
        runs = [synthetic.lines(space, contrast=n, reverse=n == 1) for n, space in enumerate(spaces)]
        runs[1].headers["center_sample"] = NX // 2
        (frame,) = frames(runs, header())
        for echo, space in enumerate(spaces):
            assert_kspace(frame, space, echo)
        assert any("center_sample of reversed lines" in note for note in frame.notes)

    def test_standard(self, rng: np.random.Generator) -> None:
        space = kspace(rng)
        (frame,) = frames([synthetic.lines(space, reverse=True)], header())
        assert_kspace(frame, space)
        assert not frame.notes

    @pytest.mark.parametrize(("vendor", "how"), [("SIEMENS", "auto"), ("GE", "kept"), (None, "kept")])
    def test_partial_echoes_by_vendor_and_by_hand(self, rng: np.random.Generator, vendor: str | None, how: Any) -> None:
        space = kspace(rng)
        block = synthetic.lines(space[..., 5:], centre=NX // 2 - 5, reverse=True)
        (frame,) = frames([block], header(vendor="GE"))
        assert_kspace(frame, np.where(np.arange(NX) < 5, 0, space))
        block.headers["center_sample"] = NX // 2 - 5
        (frame,) = frames([block], header(vendor=vendor), reversed_centre=how)
        assert_kspace(frame, np.where(np.arange(NX) < 5, 0, space))


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
    assert_kspace(frame, space)
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
