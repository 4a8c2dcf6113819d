"""Undersampling: what is taken away, what is kept, and that it is the same everywhere."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from mrnets.contract import Raw
from mrnets.errors import InputError
from mrnets.physics import masks, simulate
from mrnets.physics.fourier import fftc, ifftc, resize
from training.data import Sample
from training.settings import Masks
from training.undersample import generator, masked

ALL = [name for name in masks.names() if not masks.kind(name).by_distance]


def sample(shape=(64, 48), *, batch=1, echoes=1, coils=3, readout="x", **fields):
    rng = np.random.default_rng(5)
    values = rng.standard_normal((batch, echoes, coils, *shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    mask = torch.ones((batch, 1, 1, *shape), dtype=torch.bool)
    raw = Raw(kspace=torch.from_numpy(values), mask=mask, readout=readout)
    return Sample(names=tuple(f"scan.h5, slice {i}" for i in range(batch)), raw=raw, **fields)


def draws(batch=1, seed=0):
    return [generator(seed, "train", i) for i in range(batch)]


def test_measured_samples_stay_and_the_rest_is_zero():
    whole = sample(batch=2, echoes=2)
    given = masked(whole, Masks(accelerations=(3.0,)), draws(2))
    raw = given.raw
    assert raw.mask.shape == (2, 1, 1, 64, 48)
    assert raw.mask.dtype == torch.bool
    where = raw.mask.expand(raw.kspace.shape)
    assert torch.equal(raw.kspace[where], whole.raw.kspace[where])
    assert not raw.kspace[~where].any()
    assert torch.equal(given.coil_images, ifftc(whole.raw.kspace))
    assert not torch.equal(raw.mask[0], raw.mask[1])


@pytest.mark.parametrize("acceleration", [2.5, 5.0, 10.0])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("fraction", [0.0, 0.2])
def test_acceleration(name, acceleration, fraction):
    """Exact to 2 % (or to half a line) over the whole matrix; partial Fourier then leaves out the first lines."""
    shape = (160, 120)
    settings = Masks(names=(name,), accelerations=(acceleration,), centres=(6.0,), partial_fourier=fraction)
    mask = masked(sample(shape, coils=1), settings, draws()).raw.mask
    full = masked(sample(shape, coils=1), dataclasses.replace(settings, partial_fourier=0), draws()).raw.mask
    assert full.numel() / int(full.sum()) == pytest.approx(acceleration, rel=0.02)
    left_out = int(fraction * 160)
    assert not mask[..., :left_out, :].any()
    assert torch.equal(mask[..., left_out:, :], full[..., left_out:, :])


def test_accelerations_and_kinds_are_mixed_with_their_own_centres():
    settings = Masks(names=("equispaced1d", "poisson2d"), accelerations=(2.0, 8.0), centres=(20.0, 6.0))
    seen = set()
    for i in range(24):
        raw = masked(sample(coils=1), settings, [generator(i)]).raw
        acceleration = round(raw.mask.numel() / int(raw.mask.sum()))
        lines = bool((raw.mask == raw.mask[..., :1]).all())
        assert raw.readout == ("x" if lines else None)
        assert raw.calibration[0, 0, 0].numel() >= {2: 20, 8: 6}[acceleration] ** 2
        seen.add((acceleration, lines))
    assert len(seen) == 4


def test_calibration_is_the_centre_that_all_slices_have():
    """All of it, as the sort gadget gives it: a network with a `sens_net` would see other images of the coils."""
    raw = masked(sample((64, 96), batch=3), Masks(accelerations=(4.0,), centres=(8.0,)), draws(3)).raw
    height, width = masks.calibration_region(raw.mask)
    assert height >= 8
    assert raw.calibration.shape == (3, 1, 3, height, 96)  # the whole of the readout
    assert torch.equal(raw.calibration, resize(raw.kspace, (height, width)))
    whole = masked(sample((64, 96)), Masks(accelerations=(1.0,)), draws()).raw
    assert torch.equal(whole.calibration, whole.kspace)
    volume = masked(sample((64, 96), readout="batch"), Masks(accelerations=(1.0,)), draws()).raw
    assert torch.equal(volume.calibration, volume.kspace)
    assert volume.readout == "batch"
    none = masked(sample(), Masks(accelerations=(4.0,), centres=(0.0,)), draws()).raw
    assert none.calibration is None


def test_slices_of_a_volume_get_one_mask_from_one_generator():
    settings = Masks(names=("poisson2d",), accelerations=(5.0,))
    first, again = (masked(sample(), settings, [generator(3, 1, "a/brain.h5")]).raw.mask for _ in range(2))
    other = masked(sample(), settings, [generator(3, 1, "a/other.h5")]).raw.mask
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


SCRIPT = """
import hashlib, numpy, torch
from mrnets.contract import Raw
from training.data import Sample
from training.settings import Masks
from training.undersample import generator, masked
raw = Raw(kspace=torch.ones((1, 1, 1, 40, 36), dtype=torch.complex64), mask=torch.ones((1, 1, 1, 40, 36)).bool())
settings = Masks(names=("poisson2d", "gaussian2d", "random1d"), accelerations=(3.0, 5.0), centres=(4.0,))
made = [masked(Sample(names=("s",), raw=raw), settings, [generator(7, "train", i)]).raw.mask for i in range(6)]
print(hashlib.sha256(torch.cat(made).numpy().tobytes()).hexdigest())
"""


def test_the_same_masks_in_every_process(capsys):
    exec(SCRIPT, {})
    here = capsys.readouterr().out.strip()
    assert len(here) == len(hashlib.sha256().hexdigest())
    environment = {**os.environ, "PYTHONHASHSEED": "4321", "OMP_NUM_THREADS": "1"}
    there = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_a_mask_that_comes_with_the_data():
    own = torch.zeros((1, 1, 1, 64, 48), dtype=torch.bool)
    own[..., ::3, :] = True
    given = masked(sample(mask=own), Masks(source="data"), draws())
    assert torch.equal(given.raw.mask, own)
    with pytest.raises(InputError, match=r"scan\.h5, slice 0: .* fully sampled and comes without a mask"):
        masked(sample(), Masks(source="data"), draws())
    with pytest.raises(InputError, match=r"its mask is 64x48, its k-space .* 32x48"):
        masked(sample(mask=own), Masks(source="data", image_crop=(32, 48)), draws())


def prospective():
    whole = sample()
    mask = whole.raw.mask.clone()
    mask[..., 50:, :] = False
    return dataclasses.replace(whole, raw=dataclasses.replace(whole.raw, kspace=whole.raw.kspace * mask, mask=mask))


def test_what_was_not_measured_stays_so():
    scan = prospective()
    as_it_is = masked(scan, Masks(source="data"), draws())
    assert torch.equal(as_it_is.raw.kspace, scan.raw.kspace)
    assert torch.equal(as_it_is.raw.mask, scan.raw.mask)
    assert as_it_is.raw.calibration.shape[-2:] == (36, 48)
    drawn = masked(scan, Masks(accelerations=(2.0,)), draws())
    assert not drawn.raw.mask[..., 50:, :].any()
    assert torch.equal(drawn.coil_images, ifftc(scan.raw.kspace))
    with pytest.raises(InputError, match=r"masks\.image_crop needs fully sampled k-space"):
        masked(scan, Masks(image_crop=(32, 32)), draws())


def test_what_is_masked_already_or_has_no_kspace_passes_unchanged():
    simulated = dataclasses.replace(prospective(), coil_images=ifftc(sample().raw.kspace))
    assert masked(simulated, Masks(), draws()) is simulated
    images = Sample(names=("a",), image=torch.zeros(1, 2, 8, 8))
    assert masked(images, Masks(), draws()) is images


def test_noise_free_coil_images_of_a_full_scan_stay_the_target():
    clean = torch.zeros((1, 1, 3, 64, 48), dtype=torch.complex64)
    assert masked(sample(coil_images=clean), Masks(), draws()).coil_images is clean


@pytest.mark.parametrize("kind", ["npy", "h5"])
def test_masks_from_a_file(tmp_path, kind):
    stack = np.random.default_rng(0).random((3, 64, 48)) < 0.3
    path = tmp_path / f"masks.{kind}"
    if kind == "npy":
        np.save(path, stack.astype(np.float32))
    else:
        with h5py.File(path, "w") as file:
            file["mask_5x"] = stack.astype(np.uint8)
    settings = Masks(source=str(path), key="mask_5x")
    drawn = {masked(sample(), settings, draws(seed=s)).raw.mask.numpy().tobytes() for s in range(20)}
    assert drawn == {m.tobytes() for m in stack}
    with pytest.raises(InputError, match=r"masks are 64x48, but k-space .* is 64x32"):
        masked(sample((64, 32)), settings, draws())


def test_one_mask_from_a_file_that_crops_fit(tmp_path):
    np.save(tmp_path / "m.npy", np.tri(32, 24, dtype=bool))
    settings = Masks(source=str(tmp_path / "m.npy"), kspace_crop=(32, 24))
    assert torch.equal(masked(sample(), settings, draws()).raw.mask[0, 0, 0], torch.ones(32, 24).tril().bool())


def test_files_that_cannot_be_used(tmp_path):
    def expect(name, message, key=""):
        with pytest.raises(InputError, match=message):
            masked(sample(), Masks(source=str(tmp_path / name), key=key), draws())

    expect("absent.npy", r"absent\.npy")
    expect("absent.h5", r"absent\.h5: there is no such file")
    (tmp_path / "text.npy").write_text("no array")
    expect("text.npy", r"text\.npy: cannot be read")
    (tmp_path / "text.h5").write_text("no HDF5")
    expect("text.h5", r"text\.h5: cannot be read")
    np.savez(tmp_path / "several.npz", np.zeros((64, 48)))
    (tmp_path / "several.npz").rename(tmp_path / "zip.npy")
    expect("zip.npy", r"zip\.npy: cannot be read")
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    expect("object.npy", r"object\.npy: cannot be read")
    np.save(tmp_path / "complex.npy", np.zeros((64, 48), dtype=complex))
    expect("complex.npy", "masks must be numbers, got complex128")
    np.save(tmp_path / "nan.npy", np.full((64, 48), np.nan))
    expect("nan.npy", "not finite")
    np.save(tmp_path / "flat.npy", np.zeros(64))
    expect("flat.npy", r"must have the axes \(y, x\) or \(mask, y, x\)")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["mask_5x"] = np.zeros((64, 48))
        file["group/inner"] = np.zeros((64, 48))
    expect("m.h5", "unknown data set: 'mask_6x'; did you mean 'mask_5x'", key="mask_6x")
    expect("m.h5", "unknown data set: 'group'; did you mean 'group/inner'", key="group")
    expect("m.h5", "unknown data set")


def test_options_of_the_mask_function():
    dense, wide = (
        masked(
            sample(), Masks(names=("gaussian1d",), centres=(0.0,), accelerations=(8.0,), options={"fwhm": w}), draws()
        ).raw.mask
        for w in (0.05, 5)
    )
    lines = torch.nonzero(dense[0, 0, 0, :, 0]).flatten()
    assert (lines - 32).abs().max() < 8  # the densest of 64 lines
    assert not torch.equal(dense, wide)
    both = Masks(names=("equispaced1d", "poisson2d"), options={"variation": 1.0})  # known to one of them
    for seed in range(4):
        masked(sample(), both, draws(seed=seed))
    with pytest.raises(InputError, match=r"unknown option of masks\.options: 'fwmh'; did you mean 'fwhm'"):
        masked(sample(), Masks(names=("gaussian1d",), options={"fwmh": 1.0}), draws())
    with pytest.raises(InputError, match=r"masks\.options\.fwhm must be a number, got 'wide'"):
        masked(sample(), Masks(names=("gaussian1d",), options={"fwhm": "wide"}), draws())
    with pytest.raises(InputError, match=r"scan\.h5, slice 0: Mask equispaced1d: 20-fold"):
        masked(sample(), Masks(accelerations=(20.0,)), draws())
    with pytest.raises(InputError, match=r"whole number of samples from 1 to 64, got 8\.5"):
        masked(sample(), Masks(centres=(8.5,)), draws())


@pytest.mark.parametrize("shape", [(32, 24), (33, 24), (31, 49)])
def test_image_crop_keeps_the_pixels_of_the_centre(shape):
    sens = sample().raw.kspace[:, :1]
    region = torch.rand(1, 64, 48) > 0.5
    whole = sample(labels=region[:, None], region=region, maps={"B0": torch.rand(1, 64, 48)})
    whole = dataclasses.replace(whole, raw=dataclasses.replace(whole.raw, sens=sens, sens_method="given"))
    given = masked(whole, Masks(image_crop=shape, accelerations=(1.0,)), draws())
    kept = (min(shape[0], 64), min(shape[1], 48))
    expected = resize(ifftc(whole.raw.kspace), kept)
    torch.testing.assert_close(ifftc(given.raw.kspace), expected)
    torch.testing.assert_close(given.coil_images, expected)
    assert given.raw.mask.shape[-2:] == kept
    assert torch.equal(given.raw.sens, resize(sens, kept))
    assert torch.equal(given.labels[:, 0], resize(region, kept))
    assert torch.equal(given.region, resize(region, kept))
    assert torch.equal(given.maps["B0"], resize(whole.maps["B0"], kept))


@pytest.mark.parametrize("shape", [(32, 24), (45, 31), (33, 48)])
def test_kspace_crop_keeps_values_and_places(shape):
    """A smooth object in smooth coils on the coarse grid is what the low-pass filtered fine one is."""

    def seen(size):
        image = simulate.phantom((512, 512), [(1.0, 0.5, 0.6, 0.1, 0.2, 20.0)], supersampling=1, like=torch.zeros(1))
        y, x = (torch.arange(n) - n // 2 for n in (512, 512))
        smooth = torch.exp(-((y[:, None] / 9) ** 2 + (x / 9) ** 2)) + 0j
        image = ifftc(fftc(image + 0j) * smooth)  # a Gaussian of k-space: all of it within the smaller matrix
        sens = torch.ones((1, 2, 512, 512), dtype=torch.complex64) / 2**0.5
        sens[:, 1] *= 1j
        return simulate.encode(image[None], sens, size)[:, None], sens

    shape_now = (64, 48)
    fine, _ = seen(shape_now)
    coarse, _ = seen(shape)
    whole = sample(coils=2)
    sens = torch.full((1, 1, 2, *shape_now), 2**-0.5, dtype=torch.complex64)
    sens[..., :10, :] = 0
    labels = torch.zeros((1, 1, *shape_now), dtype=torch.bool)
    labels[..., 32, 24] = True
    noise = torch.eye(2, dtype=torch.complex64)
    raw = dataclasses.replace(whole.raw, kspace=fine, sens=sens, sens_method="given", noise=noise)
    given = masked(
        dataclasses.replace(whole, raw=raw, labels=labels, mask=torch.ones((1, 1, 1, *shape_now)).bool()),
        Masks(kspace_crop=shape, source="data"),
        draws(),
    )
    torch.testing.assert_close(given.raw.kspace, coarse, atol=1e-3 * float(coarse.abs().max()), rtol=0)
    norm = given.raw.sens.abs().square().sum(2)
    assert set(norm.round(decimals=5).unique().tolist()) == {0.0, 1.0}
    assert bool(given.labels[0, 0, shape[0] // 2, shape[1] // 2])
    ratio = shape[0] * shape[1] / (64 * 48)
    torch.testing.assert_close(given.raw.noise, noise * ratio)


def test_noise_of_cropped_kspace_has_the_covariance_that_it_says():
    whole = sample((128, 96), coils=2)
    raw = dataclasses.replace(whole.raw, noise=2 * torch.eye(2, dtype=torch.complex64))  # two normal variates
    given = masked(dataclasses.replace(whole, raw=raw), Masks(kspace_crop=(64, 48), accelerations=(1.0,)), draws()).raw
    measured = given.kspace.abs().square().mean(dim=(0, 1, 3, 4))
    torch.testing.assert_close(measured, given.noise.diagonal().real, rtol=0.1, atol=0)
