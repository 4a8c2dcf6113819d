"""Gadgetron's ReconData as frames."""

from __future__ import annotations

import ismrmrd
import numpy as np
import pytest
from gadgetron.types.recon_data import ReconBit, ReconBuffer, ReconData

from gadgets.sort import sort
from mrnets.errors import InputError
from tests.gadgets import synthetic
from tests.gadgets.sorting import BOTH, COILS, NX, NY, ONLY, assert_is, frames, images, oversampled, plain


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
