from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import gadgets.compress as module
from gadgets import batches
from gadgets.compress import compress
from gadgets.frame import Frame
from mrnets import stages
from mrnets.contract import Raw
from mrnets.errors import InputError
from mrnets.physics.coils import rss
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.tensors import to_torch
from tests.gadgets.frames import COILS, coil_maps, disc, frames, header, volume


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


def arrived(count, **raw):
    """Slices that have all come, the first ones with more noise."""
    rng = np.random.default_rng(3)
    made = []
    for n, frame in enumerate(frames(slices=count)):
        noise = 0.3 * 0.1**n * rng.standard_normal((2, *frame.raw.calibration.shape))
        block = (frame.raw.calibration + noise[0] + 1j * noise[1]).astype(np.complex64)
        one = to_torch(replace(frame.raw, whitened=True, calibration=block, variance=0.18 * 0.01**n, **raw))
        made.append(replace(frame, raw=one, behind=count - 1 - n))
    return made


@pytest.mark.parametrize("coils", [3, None])
@pytest.mark.parametrize("same", [True, False])
def test_slices_on_a_device_are_compressed_together_as_each_alone(monkeypatch, coils, same):
    given = arrived(4)
    if same:
        given = [replace(f, raw=replace(f.raw, variance=given[0].raw.variance)) for f in given]
    alone = list(compress(given, header(), coils=coils))
    monkeypatch.setattr(batches, "on_host", lambda x: False)
    sizes = []
    monkeypatch.setattr(
        module, "compress_raw", lambda raw, *args: sizes.append(len(raw.kspace)) or stages.compress_raw(raw, *args)
    )
    together = list(compress(given, header(), coils=coils))
    assert (4 in sizes) == (same and len({f.raw.kspace.shape for f in alone}) == 1)
    for one, other in zip(together, alone, strict=True):
        assert one.history == other.history
        for a, b in ((one.raw.kspace, other.raw.kspace), (one.raw.calibration, other.raw.calibration)):
            np.testing.assert_allclose(rss(a), rss(b), rtol=1e-4, atol=1e-4)


def test_a_slice_that_cannot_be_compressed_costs_no_other(monkeypatch):
    monkeypatch.setattr(batches, "on_host", lambda x: False)
    given = arrived(3)
    given = [replace(f, raw=replace(f.raw, variance=1.0)) for f in given]
    given[1] = replace(given[1], raw=replace(given[1].raw, calibration=given[1].raw.calibration * np.nan))
    made = list(compress(given, header(), coils=3))
    assert [frame.raw.kspace.shape[-3] for frame in made] == [3, given[1].raw.kspace.shape[-3], 3]
    assert "coil compression failed" in made[1].notes[-1]


def test_slices_whose_copy_does_not_fit_the_memory_are_compressed_one_by_one(monkeypatch):
    def full(frames, **options):
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(batches, "on_host", lambda x: False)
    monkeypatch.setattr(module, "as_one", full)
    made = list(compress(arrived(3), header(), coils=3))
    assert [frame.raw.kspace.shape[-3] for frame in made] == [3, 3, 3]
    assert not any(frame.notes for frame in made)


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


def many_coils(noise: float, slices: int = 1) -> list[Frame]:
    """Frames of a disc under 24 coils, whitened: noise of variance 1, a disc 1 / noise as bright."""
    rng = np.random.default_rng(0)
    images = coil_maps(24, 64, 64) * disc(64, 64) / noise
    (frame,) = frames()
    made = []
    for _ in range(slices):
        white = rng.standard_normal((2, *images.shape)) / 2**0.5
        kspace = (fftc(images) + white[0] + 1j * white[1]).astype(np.complex64)[None, None]
        mask = np.ones((1, 1, 1, 64, 64), dtype=bool)
        raw = Raw(kspace=kspace, mask=mask, calibration=resize(kspace, (24, 64)), whitened=True)
        made.append(replace(frame, raw=raw))
    return made


@pytest.mark.parametrize("method", ["gdcc", "svd"])
def test_as_many_virtual_coils_as_the_noise_asks_for(method):
    found = []
    for noise in (1.0, 0.03, 0.0003):
        (frame,) = many_coils(noise)
        (out,) = compress([frame], header(), method=method)
        found.append(out.raw.kspace.shape[-3])
        lost = np.linalg.norm(frame.raw.kspace) ** 2 - np.linalg.norm(out.raw.kspace) ** 2
        dropped = 24 - found[-1]
        assert lost < (dropped + 0.3) * 64 * 64  # noise of the coils that were left out, and less than half of one
    assert found == sorted(found)
    assert found[-1] < 24
    assert all(n % 4 == 0 for n in found)


def test_coils_that_all_see_something_else_are_all_kept(rng):
    (frame,) = many_coils(1.0)
    images = rng.standard_normal((1, 1, 24, 64, 64)) * 20
    kspace = (frame.raw.kspace + fftc(images)).astype(np.complex64)
    raw = replace(frame.raw, kspace=kspace, calibration=resize(kspace, (24, 64)))
    (out,) = compress([replace(frame, raw=raw)], header())
    assert out.raw.kspace.shape[-3] == 24


def test_all_coils_where_the_noise_is_not_known_or_wrong_and_never_more_than_32():
    (frame,) = many_coils(0.3)
    for change in ({"whitened": False}, {"calibration": None}, {"variance": 1e4}):
        (out,) = compress([replace(frame, raw=replace(frame.raw, **change))], header())
        assert out.raw.kspace.shape[-3] == 24
        assert out.raw.compressed is None
    wide = np.concatenate([frame.raw.kspace] * 2, axis=-3)
    (out,) = compress([replace(frame, raw=replace(frame.raw, kspace=wide, calibration=wide, whitened=False))], header())
    assert out.raw.kspace.shape[-3] == 32


def test_a_number_of_coils_is_kept_whatever_the_noise():
    (out,) = compress(many_coils(0.3), header(), coils=20)
    assert out.raw.kspace.shape[-3] == 20
