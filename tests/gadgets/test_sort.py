from __future__ import annotations

import itertools
import logging
from dataclasses import replace

import ismrmrd
import numpy as np
import pytest
from gadgetron.types.recon_data import ReconBit, ReconBuffer, ReconData

from gadgets.frame import Frame
from gadgets.sort import sort
from mrnets.errors import InputError
from mrnets.mrd.flags import Flag
from mrnets.mrd.lines import Lines
from mrnets.physics.fourier import fftc, ifftc
from tests.gadgets import synthetic

COILS, NY, NX = 3, 12, 16
BOTH = Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING
ONLY = Flag.IS_PARALLEL_CALIBRATION


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def plain(**options):
    return synthetic.header(synthetic.encoding((NX, NY, 1), **options))


def oversampled(**options):
    fov, recon_fov = (4 * NX, 2 * NY, 1), (2 * NX, 2 * NY, 1)
    return synthetic.header(
        synthetic.encoding((2 * NX, NY, 1), fov=fov, recon=(NX, NY, 1), recon_fov=recon_fov, **options)
    )


def counted(**maxima):
    return plain(limits={name: (0, last, 0) for name, last in maxima.items()})


def images(rng, y=NY, x=NX, z=1):
    return synthetic.coil_images(rng, COILS, y, x, z)


def frames(stream, header, **options):
    out = list(sort(stream, header, **options))
    assert all(isinstance(frame, Frame) for frame in out)
    return out


def assert_is(frame, coil_image, echo=0):
    """The frame's k-space is that of `coil_image` (coil, 1, y, x), by the direct inverse Fourier transform."""
    np.testing.assert_allclose(ifftc(frame.raw.kspace)[0, echo], coil_image[:, 0], atol=1e-5)


def in_blocks(lines, *sizes):
    at = np.cumsum([0, *sizes, len(lines) - sum(sizes)])
    return [
        replace(lines, headers=lines.headers[a:b], data=lines.data[a:b]) for a, b in itertools.pairwise(at) if b > a
    ]


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


@pytest.mark.parametrize(("z", "y", "x"), [(6, 12, 16), (5, 11, 15)])
def test_volume(rng, z, y, x):
    truth = images(rng, y, x, z)
    header = synthetic.header(synthetic.encoding((x, y, z)))
    lines = synthetic.lines(synthetic.to_kspace(truth))
    (frame,) = frames(in_blocks(lines, 13, 20), header)
    assert frame.volume
    assert frame.raw.readout == "batch"
    assert frame.raw.kspace.shape == (x, 1, COILS, z, y)
    assert frame.headers.shape == (1, 1)
    np.testing.assert_allclose(ifftc(frame.raw.kspace)[:, 0], truth.transpose(3, 0, 1, 2), atol=1e-5)
    assert frame.headers[0, 0]["idx"]["kspace_encode_step_2"] == z // 2


def test_volume_undersampled_along_both_axes_with_oversampling_and_averages(rng):
    truth = images(rng, 12, 32, 8)
    kspace = synthetic.to_kspace(truth)
    header = synthetic.header(
        synthetic.encoding(
            (32, 12, 8),
            fov=(64, 24, 8),
            recon=(16, 12, 8),
            recon_fov=(32, 24, 8),
            mode="embedded",
            limits={"average": (0, 1, 0)},
        )
    )
    parts = [
        synthetic.lines(kspace, range(0, 12, 2), range(0, 8, 2), average=0, last=[Flag.LAST_IN_SLICE]),
        synthetic.lines(3 * kspace, range(0, 12, 2), range(0, 8, 2), average=1),
        synthetic.lines(2 * kspace, range(3, 9), range(1, 7), average=0),
    ]
    idx = parts[2].headers["idx"]
    keep = (idx["kspace_encode_step_1"] % 2 == 1) | (idx["kspace_encode_step_2"] % 2 == 1)
    parts[2] = replace(parts[2], headers=parts[2].headers[keep], data=parts[2].data[keep])
    (frame,) = frames(parts, header)
    mask = np.zeros((8, 12), bool)
    mask[::2, ::2] = True
    mask[1:7, 3:9] = True
    np.testing.assert_array_equal(frame.raw.mask[0, 0, 0], mask)
    hybrid = 2 * ifftc(kspace, axes=(-1,))[..., 8:24] * mask[:, :, None]
    np.testing.assert_allclose(frame.raw.kspace[:, 0], hybrid.transpose(3, 0, 1, 2), atol=1e-4)
    np.testing.assert_allclose(frame.raw.calibration[:, 0], hybrid[:, 1:7, 3:9].transpose(3, 0, 1, 2), atol=1e-4)


def test_separate_calibration_of_a_volume_at_low_resolution(rng):
    low = images(rng, 6, 8, 4)
    header = synthetic.header(
        synthetic.encoding((16, 12, 8), fov=(32, 24, 16), mode="separate"),
        synthetic.encoding((8, 6, 4), fov=(32, 24, 16)),
    )
    stream = [
        synthetic.lines(synthetic.to_kspace(low), flags=[ONLY], encoding_space=1),
        synthetic.lines(synthetic.to_kspace(images(rng, 12, 16, 8)), range(0, 12, 2), range(0, 8, 2)),
    ]
    (frame,) = frames(stream, header)
    hybrid = fftc(frame.raw.calibration[:, 0], axes=(0,))[4:12]
    np.testing.assert_allclose(hybrid, synthetic.to_kspace(low).transpose(3, 0, 1, 2), atol=1e-5)


def test_one_partition_by_its_limits_is_two_dimensional(rng):
    truth = images(rng)
    header = synthetic.header(synthetic.encoding((NX, NY, 8), limits={"kspace_encoding_step_2": (0, 0, 0)}))
    (frame,) = frames([synthetic.lines(synthetic.to_kspace(truth))], header)
    assert_is(frame, truth)


class TestTrigger:
    """When slices are finished: as early as is safe, and never too early."""

    def order(self, stream, header, **options):
        """Positions in the stream after which frames came, by consumption."""
        taken = []

        def counting():
            for n, item in enumerate(stream):
                taken.append(n)
                yield item

        return [(len(taken), int(f.headers["idx"]["slice"][0, 0])) for f in sort(counting(), header, **options)]

    def slices(self, rng, **options):
        kspace = synthetic.to_kspace(images(rng))
        return [synthetic.lines(kspace, slice=n, **options) for n in range(3)]

    def test_last_in_slice_finishes_at_once(self, rng):
        stream = self.slices(rng, last=[Flag.LAST_IN_SLICE])
        assert self.order(stream, plain()) == [(1, 0), (2, 1), (3, 2)]
        assert self.order(stream, plain(), trigger="repetition") == [(3, 0), (3, 1), (3, 2)]

    def test_last_in_repetition_finishes_all_slices(self, rng):
        stream = self.slices(rng)
        stream[2].headers["flags"][-1] |= np.uint64(1 << (Flag.LAST_IN_REPETITION - 1))
        taken = list(sort([*stream, ismrmrd.Waveform()], plain()))
        assert [type(item).__name__ for item in taken] == ["Frame"] * 3 + ["Waveform"]

    def test_a_later_repetition_finishes_the_earlier_slice_by_slice(self, rng):
        stream = self.slices(rng) + self.slices(rng, repetition=1)
        assert self.order(stream, plain()) == [(4, 0), (5, 1), (6, 2), (6, 0), (6, 1), (6, 2)]
        assert self.order(stream, plain(), trigger="measurement") == [(6, n) for n in (0, 1, 2, 0, 1, 2)]

    @pytest.mark.parametrize("counter", ["average", "contrast", "segment"])
    def test_flags_of_all_but_the_last_count_are_not_believed(self, rng, counter):
        kspace = synthetic.to_kspace(images(rng))
        last = [Flag.LAST_IN_SLICE, Flag.LAST_IN_REPETITION]
        stream = [synthetic.lines(kspace, last=last, **{counter: n}) for n in range(2)]
        assert self.order(stream, counted(**{counter: 1})) == [(2, 0)]

    def test_flags_are_not_believed_without_limits(self, rng):
        stream = self.slices(rng, last=[Flag.LAST_IN_SLICE])
        assert self.order(stream, plain(all_limits=False)) == [(3, 0), (3, 1), (3, 2)]

    def test_lines_that_come_too_late_are_an_error(self, rng):
        late = self.slices(rng, last=[Flag.LAST_IN_SLICE], first_counter=7)[0]
        with pytest.raises(InputError, match=r"acquisition 7 belongs to .*slice 0.* set sort.trigger"):
            list(sort([late, late], plain()))


class TestCutShort:
    def test_nothing_is_said_of_whole_scans(self, rng):
        kspace = synthetic.to_kspace(images(rng))
        stream = [
            synthetic.lines(kspace, [0, 2, 4, 5, 6, 7, 8, 10], repetition=0),
            synthetic.lines(kspace, range(0, NY, 2), repetition=1),
            synthetic.lines(kspace, range(1, NY, 2), repetition=2),
        ]
        assert [frame.notes for frame in frames(stream, plain(mode="embedded"))] == [(), (), ()]

    def test_a_repetition_of_fewer_lines(self, rng, caplog):
        kspace = synthetic.to_kspace(images(rng))
        stream = [synthetic.lines(kspace, repetition=0), synthetic.lines(kspace, range(9), repetition=1)]
        out = frames(stream, plain(), incomplete="warn")
        assert out[0].notes == ()
        assert out[1].notes == ("cut short? 144 samples came, and 192 for an earlier image of the slice",)
        assert "repetition 1" in caplog.text

    def test_lines_that_the_header_announces(self, rng):
        kspace = synthetic.to_kspace(images(rng, y=64))
        header = synthetic.header(synthetic.encoding((NX, 64, 1)))
        (frame,) = frames([synthetic.lines(kspace, range(40))], header)
        assert frame.notes == ("cut short? lines 0 to 39 came where 0 to 63 were announced",)

    def test_contrasts(self, rng):
        stream = [synthetic.lines(synthetic.to_kspace(images(rng)))]
        (frame,) = frames(stream, counted(contrast=2), incomplete="warn")
        assert frame.notes == ("cut short? 1 of 3 contrasts came",)

    def test_a_slice_that_ended_before_its_centre_loses_no_other_slice(self, rng):
        """Slices are interleaved, and the scan is stopped while the second half of them is measured."""
        kspace = synthetic.to_kspace(images(rng, y=64))
        header = synthetic.header(synthetic.encoding((NX, 64, 1), limits={"slice": (0, 2, 0)}))
        stream = [synthetic.lines(kspace, slice=0), synthetic.lines(kspace, slice=2)]
        made = sort([*stream, synthetic.lines(kspace, range(20), slice=1)], header)
        assert [int(next(made).headers[0, 0]["idx"]["slice"]) for _ in range(2)] == [0, 2]
        with pytest.raises(InputError, match="slice 1 is cut short: it ended before the centre of its k-space"):
            next(made)

    def test_the_end_says_what_is_lacking_after_the_images(self, rng):
        """The images come before the error, which names the property that allows it."""
        stream = [synthetic.lines(synthetic.to_kspace(images(rng)))]
        made = sort(stream, counted(slice=2))
        assert isinstance(next(made), Frame)
        with pytest.raises(InputError, match="slice 1 to 2 did not come, and 0 to 2 are announced; set sort"):
            next(made)
        frames(stream, counted(slice=2), incomplete="warn")


class TestMissingFromTheHeader:
    def test_all_limits(self, rng):
        truth = images(rng)
        (frame,) = frames([synthetic.lines(synthetic.to_kspace(truth))], plain(all_limits=False))
        assert_is(frame, truth)

    def test_all_but_one_limit(self, rng):
        truth = images(rng)
        header = plain(all_limits=False, limits={"kspace_encoding_step_1": (0, NY - 1, NY // 2)})
        (frame,) = frames([synthetic.lines(synthetic.to_kspace(truth))], header)
        assert_is(frame, truth)

    def test_centre_of_limits(self, rng, caplog):
        truth = images(rng)
        header = plain(limits={"kspace_encoding_step_1": (0, NY - 1, 0)})
        with caplog.at_level(logging.WARNING):
            (frame,) = frames([synthetic.lines(synthetic.to_kspace(truth))], header)
        assert_is(frame, truth)
        assert "centre 0 does not fit" in caplog.text

    def test_centre_sample(self, rng):
        truth = images(rng)
        (frame,) = frames([synthetic.lines(synthetic.to_kspace(truth), centre=0)], plain())
        assert_is(frame, truth)

    def test_field_of_view(self, rng):
        truth = images(rng)
        header = synthetic.header(synthetic.encoding((NX, NY, 1), fov=(0, 0, 0)))
        (frame,) = frames([synthetic.lines(synthetic.to_kspace(truth))], header)
        assert_is(frame, truth)

    def test_trajectory_and_times(self, rng):
        truth = images(rng)
        header = synthetic.header(synthetic.encoding((NX, NY, 1)), te=[4.0])
        header.encoding[0].trajectory = None
        (frame,) = frames([synthetic.lines(synthetic.to_kspace(truth), contrast=1)], header)
        assert_is(frame, truth)
        assert frame.raw.echo_times is None


class TestErrors:
    def fails(self, stream, header, match, **options):
        with pytest.raises(InputError, match=match):
            list(sort(stream, header, **options))

    @pytest.mark.parametrize("trajectory", ["radial", "spiral", "goldenangle", "other"])
    def test_trajectory(self, rng, trajectory):
        block = synthetic.lines(synthetic.to_kspace(images(rng)))
        self.fails([block], plain(trajectory=trajectory), f"the trajectory of encoding space 0 is {trajectory}")

    def test_coils(self, rng):
        block = synthetic.lines(synthetic.to_kspace(images(rng)))
        other = synthetic.lines(synthetic.coil_images(rng, 2, NY, NX), first_counter=12)
        self.fails([block, other], plain(), "acquisition 12 has 2 coils, those before it 3")

    def test_many_lines_outside_of_the_matrix(self, rng):
        block = synthetic.lines(synthetic.to_kspace(images(rng)), y_shift=4)
        words = r"4 of 12 lines \(acquisition 8 is the first\) are outside .*_step_1 from 0 to 11; sort.centre_line"
        self.fails([block], plain(), words)

    def test_partitions_of_a_slice(self, rng):
        block = synthetic.lines(synthetic.to_kspace(images(rng)))
        block.headers["idx"]["kspace_encode_step_2"][5] = 200
        self.fails([block], plain(), "acquisition 5 has kspace_encode_step_2 200, an earlier line of its slice 0")

    def test_a_volume_cut_short_in_its_first_partition(self, rng):
        block = synthetic.lines(synthetic.to_kspace(images(rng)))
        header = synthetic.header(synthetic.encoding((NX, NY, 8)))
        self.fails([block], header, "only partition 0 of 0 to 7 came, without the centre 4; .* sort.dimensions")

    def test_encoding_space(self, rng):
        block = synthetic.lines(synthetic.to_kspace(images(rng)), encoding_space=3)
        self.fails([block], plain(), "1 encoding spaces, but the data refer to encoding space 3")

    @pytest.mark.parametrize("bad", [np.nan, -np.inf])
    def test_samples(self, rng, bad):
        block = synthetic.lines(synthetic.to_kspace(images(rng)), first_counter=10)
        block.data[4, 1, 2] = bad
        self.fails([block], plain(), "acquisition 14 ")

    def test_nothing(self, rng):
        for stream in ([], ["text", ismrmrd.Waveform()], [synthetic.noise_lines(np.ones((1, 2, 30)))]):
            self.fails(stream, plain(), "ended before any imaging acquisition came")

    @pytest.mark.parametrize("matrix", [(0, 12, 1), (16, 65535, 1), (16, 12, 99999)])
    def test_matrix(self, rng, matrix):
        block = synthetic.lines(synthetic.to_kspace(images(rng)))
        self.fails([block], synthetic.header(synthetic.encoding(matrix)), "has the matrix")

    def test_memory(self, rng):
        block = synthetic.lines(synthetic.to_kspace(images(rng, z=2)))
        header = synthetic.header(synthetic.encoding((16, 16384, 16384), fov=(9, 9, 9), recon=(16, 16, 16)))
        self.fails([block], header, "sort.memory allows 32 GiB", memory=32.0)
        block = synthetic.lines(synthetic.to_kspace(images(rng)))
        waiting = synthetic.header(synthetic.encoding((NX, NY, 8)))
        self.fails([block], waiting, "lines that wait for others", memory=1e-9)
        stream = [replace(block, headers=block.headers.copy()) for _ in range(4)]
        for n, lines in enumerate(stream):
            lines.headers["idx"]["slice"] = n
        self.fails(stream, plain(), "sort.memory", memory=3 * NX * NY * COILS * 8 / 2**30)

    def test_readout_without_centre(self, rng):
        block = synthetic.lines(synthetic.to_kspace(images(rng)))
        block.headers["discard_pre"] = 12
        self.fails([block], plain(), "acquisition 0 has 16 samples .* misses the k-space centre")

    def test_readout_longer_than_the_header_says(self, rng):
        block = synthetic.lines(synthetic.to_kspace(images(rng, x=2 * NX)), first_counter=3)
        self.fails([block], plain(), "acquisition 3 has 32 samples .* beyond the readout of 16")

    @pytest.mark.parametrize(
        "options",
        [
            {"recon": (16384, 16384, 16)},
            {"fov": (1e9, 24, 1), "recon_fov": (1e-9, 24, 1)},
        ],
    )
    def test_images_of_absurd_size(self, rng, options):
        block = synthetic.lines(synthetic.to_kspace(images(rng)))
        self.fails([block], plain(**options), "absurdly large")

    def test_a_slice_without_its_centre(self, rng):
        header = synthetic.header(synthetic.encoding((NX, 64, 1)))
        block = synthetic.lines(synthetic.to_kspace(images(rng, y=64)), range(10))
        self.fails([block], header, "ended before the centre of its k-space")

    def test_errors_from_upstream_leave_no_frame(self, rng):
        def broken():
            yield synthetic.lines(synthetic.to_kspace(images(rng)), range(9))
            raise InputError("truncated")

        out = []
        with pytest.raises(InputError, match="truncated"):
            out.extend(sort(broken(), plain()))
        assert not out


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


def buffer(kspaces, ys, x=NX, flags=0, **counters):
    """A buffer of slices (LOC) of k-space (coil, 1, y, x), as BucketToBuffer lays it out."""
    data = np.zeros((x, NY, 1, COILS, 1, 1, len(kspaces)), np.complex64, order="F")
    headers = np.empty((NY, 1, 1, 1, len(kspaces)), object)
    for place in np.ndindex(headers.shape):
        headers[place] = ismrmrd.AcquisitionHeader()
    for loc, kspace in enumerate(kspaces):
        for y in ys:
            data[:, y, 0, :, 0, 0, loc] = kspace[:, 0, y].T
            head = headers[y, 0, 0, 0, loc]
            head.number_of_samples, head.active_channels, head.center_sample = x, COILS, x // 2
            head.idx.kspace_encode_step_1, head.idx.slice, head.flags = y, loc, flags
            for name, value in counters.items():
                setattr(head.idx, name, value)
    data.flags.writeable = False  # as gadgetron-python reads them
    return ReconBuffer(data, None, None, headers, None)


class TestReconData:
    def test_slices_mask_and_separate_reference(self, rng):
        truths, others = [images(rng) for _ in range(2)], [images(rng) for _ in range(2)]
        spaces, references = ([synthetic.to_kspace(t) for t in group] for group in (truths, others))
        bit = ReconBit(buffer(spaces, range(0, NY, 2)), buffer(references, range(3, 9)))
        header = oversampled(mode="separate")
        out = frames([ReconData([bit])], header, whitened=True)
        assert len(out) == 2
        for n, frame in enumerate(out):
            assert frame.raw.whitened
            np.testing.assert_array_equal(frame.raw.mask[0, 0, 0, :, 0], np.arange(NY) % 2 == 0)
            np.testing.assert_array_equal(frame.raw.kspace[0, 0, :, ::2], spaces[n][:, 0, ::2])
            np.testing.assert_array_equal(frame.raw.calibration[0, 0], references[n][:, 0, 3:9])
            assert frame.headers["idx"]["slice"][0, 0] == n

    def test_embedded_reference_is_part_of_the_image(self, rng):
        kspace = synthetic.to_kspace(images(rng))
        data = buffer([kspace], range(0, NY, 2))
        reference = buffer([kspace], range(4, 9), flags=1 << (ONLY - 1))
        for y in (4, 6, 8):
            for part in (data, reference):
                part.headers[y, 0, 0, 0, 0].flags = 1 << (BOTH - 1)
        (frame,) = frames([ReconData([ReconBit(data, reference)])], plain(mode="embedded"))
        sampled = [y % 2 == 0 or y in (5, 7) for y in range(NY)]
        np.testing.assert_array_equal(frame.raw.mask[0, 0, 0, :, 0], sampled)
        np.testing.assert_array_equal(frame.raw.calibration[0, 0], kspace[:, 0, 4:9])

    def test_messages_one_after_the_other_with_an_empty_bit(self, rng):
        truths = [images(rng) for _ in range(2)]
        empty = ReconBit(ReconBuffer(np.zeros(0, np.complex64), None, None, np.empty(0, object), None))
        header = synthetic.header(synthetic.encoding((NX, NY, 1)), synthetic.encoding((NX, NY, 1), trajectory="epi"))
        stream = [
            ReconData([empty, ReconBit(buffer([synthetic.to_kspace(t)], range(NY), repetition=n))])
            for n, t in enumerate(truths)
        ]
        out = frames(stream, header)
        assert [frame.encoding for frame in out] == [1, 1]
        for frame, truth in zip(out, truths, strict=True):
            assert_is(frame, truth)

    def test_parts_that_do_not_fit(self, rng):
        data = buffer([synthetic.to_kspace(images(rng))], range(NY))
        data.headers = data.headers[:5]
        with pytest.raises(InputError, match="do not fit together"):
            list(sort([ReconData([ReconBit(data)])], plain()))


def test_lines_survive_unchanged(rng):
    """Sorting does not write into the lines it was given: other hosts may hold on to them."""
    block = synthetic.lines(synthetic.to_kspace(images(rng)))
    copy = Lines(block.headers.copy(), block.data.copy())
    list(sort([block, block], plain()))
    np.testing.assert_array_equal(block.data, copy.data)
    np.testing.assert_array_equal(block.headers, copy.headers)
