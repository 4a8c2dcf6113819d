"""Headers that lack something, and scans that are refused."""

from __future__ import annotations

import logging
from dataclasses import replace

import ismrmrd
import numpy as np
import pytest

from gadgets.sort import sort
from mrnets.errors import InputError
from tests.gadgets import synthetic
from tests.gadgets.sorting import COILS, NX, NY, assert_is, frames, images, plain


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
        self.fails([block, other], plain(), "acquisition 12 has 2 coils, others 3")

    def test_many_lines_outside_of_the_matrix(self, rng):
        block = synthetic.lines(synthetic.to_kspace(images(rng)), y_shift=4)
        words = r"4 of 12 lines \(acquisition 8 is the first\) are outside .*_step_1 from 0 to 11; sort.centre_line"
        self.fails([block], plain(), words)

    def test_partitions_of_a_slice(self, rng):
        block = synthetic.lines(synthetic.to_kspace(images(rng)))
        block.headers["idx"]["kspace_encode_step_2"][5:9] = 200
        self.fails([block], plain(), "acquisition 5 has kspace_encode_step_2 200, other lines of its slice 0")

    def test_a_volume_cut_short_in_its_first_partition(self, rng):
        block = synthetic.lines(synthetic.to_kspace(images(rng)))
        header = synthetic.header(synthetic.encoding((NX, NY, 8)))
        self.fails([block], header, "only partition 0 of 0 to 7 came, without the centre 4; .* sort.dimensions")

    def test_encoding_space(self, rng):
        block = synthetic.lines(synthetic.to_kspace(images(rng)), encoding_space=3)
        self.fails([block], plain(), "1 encoding spaces, but the data refer to encoding space 3")

    @pytest.mark.parametrize("bad", [np.nan, -np.inf])
    def test_samples_of_many_lines(self, rng, bad):
        block = synthetic.lines(synthetic.to_kspace(images(rng)), first_counter=10)
        block.data[4:8, 1, 2] = bad
        self.fails([block], plain(), "acquisition 14 has NaN or infinite samples")

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
