"""Volumes: sampled along two axes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mrnets.mrd.flags import Flag
from mrnets.physics.fourier import fftc, ifftc
from tests.gadgets import synthetic
from tests.gadgets.sorting import COILS, NX, NY, ONLY, assert_is, frames, images, in_blocks


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
