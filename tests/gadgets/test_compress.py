from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from gadgets.compress import compress
from mrnets.errors import InputError
from mrnets.physics.coils import rss
from mrnets.physics.fourier import ifftc, resize
from tests.gadgets.frames import COILS, frames, header, volume


@pytest.mark.parametrize("method", ["auto", "gdcc", "svd"])
def test_virtual_coils_keep_the_image(method):
    (frame,) = frames(acceleration=1)
    (out,) = compress([frame], header(), coils=4, method=method)
    assert out.raw.kspace.shape[-3] == out.raw.calibration.shape[-3] == 4
    assert out.raw.compressed == ("gdcc" if method == "auto" else method)
    before, after = (rss(ifftc(f.raw.kspace)) for f in (frame, out))
    assert np.linalg.norm(after - before) < 0.05 * np.linalg.norm(before)
    assert out.history == (f"4 virtual coils ({out.raw.compressed})",)


@pytest.mark.parametrize("make", [lambda: frames(acceleration=1)[0], volume])
def test_matrices_come_from_the_lines_asked_for(make):
    """As where there are no other lines."""
    frame = make()
    axes = (-2, -1) if frame.volume else (-2,)
    block = resize(frame.raw.calibration, (4,) * len(axes), axes)
    narrow = replace(frame, raw=replace(frame.raw, calibration=block))
    out, expected = (next(compress([f], header(), coils=3, lines=n)) for f, n in ((frame, 4), (narrow, None)))
    np.testing.assert_allclose(out.raw.kspace, expected.raw.kspace, rtol=1e-4, atol=1e-4)
    assert out.raw.calibration.shape[-2:] == frame.raw.calibration.shape[-2:]


def test_volume_is_compressed_in_hybrid_space():
    frame = volume()
    (out,) = compress([frame], header(), coils=4)
    assert out.raw.kspace.shape == (16, 1, 4, 32, 32)
    assert out.raw.compressed == "gdcc"


def test_frames_with_no_more_coils_and_other_items_pass():
    (frame,) = frames()
    assert list(compress(["text", frame], header(), coils=COILS)) == ["text", frame]


@pytest.mark.parametrize("options", [{"coils": 0}, {"window": 0}, {"lines": 0}])
def test_absurd_options(options):
    with pytest.raises(InputError, match="at least 1"):
        list(compress([], header(), **options))


def test_twice_is_an_error():
    with pytest.raises(InputError, match="already compressed"):
        list(compress(compress(frames(), header(), coils=4), header(), coils=2))


def test_the_streaming_gadgets_start_without_torch():
    modules = "gadgets.noise, gadgets.sort, gadgets.compress, gadgets.coils, gadgets.network, gadgets.images"
    code = f"import {modules}, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
