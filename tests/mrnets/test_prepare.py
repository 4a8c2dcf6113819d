"""Preparation: what earlier stages did is completed, or refused; and the way back to scanner units."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from mrnets.contract import Estimate, Raw
from mrnets.errors import InputError
from mrnets.physics import simulate
from mrnets.prepare import Preparation, compress_raw, prepare, restore, sense_raw, to_torch, whiten_raw

COILS, Y, X = 6, 48, 40


@pytest.fixture
def raw() -> Raw:
    """Two smooth slices under six Gaussian coils, twofold undersampled, 16 calibration lines, correlated noise."""
    rng = np.random.default_rng(7)
    y, x = np.meshgrid(np.linspace(-1, 1, Y), np.linspace(-1, 1, X), indexing="ij")
    angles = np.arange(COILS) * 2 * np.pi / COILS
    coils = np.stack([np.exp(-((y - np.sin(a)) ** 2 + (x - np.cos(a)) ** 2) + 1j * a * (x + y)) for a in angles])
    objects = np.stack([(x**2 + y**2 < 0.6) * (1 + x), (x**2 + 2 * y**2 < 0.7) * 3.0])
    images = objects[:, None, None] * coils
    axes = (-2, -1)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes=axes), norm="ortho"), axes=axes)
    noise = rng.normal(size=(2, *kspace.shape))
    factor = np.eye(COILS) + 0.3 * rng.normal(size=(COILS, COILS))
    kspace += 0.002 * np.einsum("ij,bejyx->beiyx", factor, noise[0] + 1j * noise[1])
    mask = np.zeros((1, 1, 1, Y, X), bool)
    mask[..., ::2, :] = True
    mask[..., Y // 2 - 8 : Y // 2 + 8, :] = True
    return Raw(
        kspace=(kspace * mask).astype(np.complex64),
        mask=mask,
        calibration=kspace[..., Y // 2 - 8 : Y // 2 + 8, :].astype(np.complex64),
        noise=(2 * 0.002**2 * factor @ factor.T).astype(np.complex64),
    )


def test_prepare_gives_a_whitened_scaled_scan_with_unit_norm_maps(raw: Raw) -> None:
    prepared = prepare(raw, Preparation())
    scan = prepared.scan
    assert scan.kspace.dtype == torch.complex64
    assert scan.sens.shape == (2, 1, COILS, Y, X)
    power = (scan.sens.abs() ** 2).sum(-3)
    torch.testing.assert_close(power[power > 0], torch.ones_like(power[power > 0]), atol=1e-4, rtol=0)
    assert power[..., Y // 2, X // 2].min() > 0.5
    combined = (scan.sens.conj() * _images(scan.kspace)).sum(-3).abs()
    torch.testing.assert_close(combined.amax(dim=(-2, -1)).squeeze(1), torch.ones(2), atol=1e-5, rtol=0)


def test_the_scale_of_the_data_leaves_the_network_alone_and_comes_back(raw: Raw) -> None:
    once = prepare(raw, Preparation())
    louder = dataclasses.replace(
        raw, kspace=raw.kspace * 1000, calibration=raw.calibration * 1000, noise=raw.noise * 1e6
    )
    again = prepare(louder, Preparation())
    torch.testing.assert_close(again.scan.kspace, once.scan.kspace, atol=1e-5, rtol=1e-4)
    unwhitened = dataclasses.replace(raw, noise=None)
    estimate = Estimate(image=torch.ones(2, 1, Y, X), maps={"S0": torch.ones(2, Y, X), "R2*": torch.ones(2, Y, X)})
    prepared = prepare(unwhitened, Preparation())
    back = restore(estimate, prepared)
    torch.testing.assert_close(back.image[:, 0, 0, 0].abs(), prepared.scale)
    torch.testing.assert_close(back.maps["S0"][:, 0, 0], prepared.scale)
    torch.testing.assert_close(back.maps["R2*"], torch.ones(2, Y, X))


def test_phase_differences_between_scans_survive_the_sensitivities_of_each(raw: Raw) -> None:
    """Velocity, temperature, field: the phase by which two scans differ, each with its own calibration lines."""
    y, x = np.meshgrid(np.linspace(-1, 1, Y), np.linspace(-1, 1, X), indexing="ij")
    turned = np.exp(1j * (0.8 * x - 0.5 * y)).astype(np.complex64)
    full = dataclasses.replace(raw, mask=np.ones_like(raw.mask), noise=None)
    images = _images(torch.from_numpy(raw.calibration))  # low resolution: what both scans resolve
    estimates = []
    for factor in (np.ones_like(turned), turned):
        coarse = torch.nn.functional.interpolate(images[:, 0].abs(), (Y, X)) * torch.from_numpy(factor)
        coarse = coarse * torch.exp(1j * torch.arange(COILS))[:, None, None]
        kspace = torch.fft.fftshift(
            torch.fft.fft2(torch.fft.ifftshift(coarse, dim=(-2, -1)), norm="ortho"), dim=(-2, -1)
        )
        scan = dataclasses.replace(
            to_torch(full), kspace=kspace[:, None], calibration=kspace[:, None, :, Y // 2 - 8 : Y // 2 + 8]
        )
        prepared = prepare(scan, Preparation(sens="rss"))
        combined = (prepared.scan.sens.conj() * _images(prepared.scan.kspace)).sum(-3)
        assert torch.angle(combined[combined.abs() > 0.5]).abs().max() < 0.5  # the network sees nearly real images
        estimates.append(restore(Estimate(image=combined), prepared).image)
    difference = torch.angle(estimates[1] * estimates[0].conj())
    inside = estimates[0].abs() > 0.5 * estimates[0].abs().max()
    wanted = torch.from_numpy(np.angle(turned)).expand_as(difference)
    drift = (difference - wanted)[inside]
    assert (drift - drift.median()).abs().max() < 0.2


def test_what_a_stage_has_done_is_not_done_again(raw: Raw) -> None:
    staged = sense_raw(whiten_raw(to_torch(raw), torch.from_numpy(raw.noise)))
    direct = prepare(raw, Preparation())
    through = prepare(staged, Preparation())
    torch.testing.assert_close(through.scan.kspace, direct.scan.kspace)
    torch.testing.assert_close(through.scan.sens, direct.scan.sens)


def test_an_empty_slice_stays_finite(raw: Raw) -> None:
    empty = dataclasses.replace(raw, kspace=raw.kspace * 0, calibration=raw.calibration * 0, noise=None)
    prepared = prepare(empty, Preparation())
    assert torch.isfinite(torch.view_as_real(prepared.scan.kspace)).all()
    assert torch.isfinite(torch.view_as_real(prepared.scan.sens)).all()
    torch.testing.assert_close(prepared.scale, torch.ones(2))


@pytest.mark.parametrize("method", ["svd", "gdcc"])
def test_compression_takes_data_and_calibration_by_the_same_matrices(raw: Raw, method: str) -> None:
    small = compress_raw(raw, 4, method)
    assert small.kspace.shape == (2, 1, 4, Y, X)
    assert small.compressed == method
    # Calibration lines are part of the data here, so they must agree after compression too.
    lines = small.kspace[..., Y // 2 - 8 : Y // 2 + 8, :]
    np.testing.assert_allclose(small.calibration, lines, atol=1e-5 * np.abs(lines).max())
    kept = np.linalg.norm(small.kspace) / np.linalg.norm(raw.kspace)
    assert 0.99 < kept <= 1 + 1e-5


def test_compression_of_a_volume_is_aligned_along_the_batch(raw: Raw) -> None:
    volume = dataclasses.replace(raw, readout="batch")
    small = compress_raw(volume, 4, "gdcc")
    assert small.kspace.shape == (2, 1, 4, Y, X)
    # Slice by slice the energy kept is the best possible for four coils.
    for before, after in zip(raw.calibration, small.calibration, strict=True):
        singular = np.linalg.svd(before.reshape(COILS, -1), compute_uv=False)
        assert np.linalg.norm(after) ** 2 > 0.95 * (singular[:4] ** 2).sum()


def _images(kspace: torch.Tensor) -> torch.Tensor:
    axes = (-2, -1)
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(kspace, dim=axes), norm="ortho"), dim=axes)


@pytest.mark.parametrize(
    ("change", "preparation", "sentence"),
    [
        ({"whitened": True}, {"whiten": "none"}, "noise gadget"),
        ({}, {"coils": 8}, "takes 8 coils, but the scan has 6"),
        ({"compressed": "svd", "whitened": True}, {"coils": 4}, "compressed to 6"),
        (
            {"compressed": "svd", "whitened": True},
            {"coils": 6, "compression": "gdcc"},
            "trained on coils compressed by gdcc",
        ),
        ({"calibration": None}, {}, "no calibration lines"),
        (
            {"sens": np.ones((2, 1, 6, Y, X), np.complex64), "sens_method": "rss", "noise": None},
            {},
            "trained with espirit",
        ),
        ({"sens": np.ones((2, 1, 6, Y, X), np.complex64), "sens_method": "given"}, {}, "before coil compression"),
        ({"readout": None}, {"coils": 4, "compression": "gdcc"}, "fully sampled readout"),
    ],
)
def test_contradictions_are_refused_in_one_sentence(raw: Raw, change: dict, preparation: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        prepare(dataclasses.replace(raw, **change), Preparation(**preparation))


def test_a_preparation_survives_json_and_refuses_what_it_does_not_know() -> None:
    preparation = Preparation(coils=8, compression="svd", sens="unitary", crop=0.8)
    assert Preparation.from_json(preparation.to_json()) == preparation
    with pytest.raises(InputError, match="did you mean 'kernel'"):
        Preparation.from_json({"kernal": 5})
    with pytest.raises(InputError, match="coils must be int"):
        Preparation.from_json({"coils": "8"})
    with pytest.raises(InputError, match="did you mean 'espirit'"):
        Preparation(sens="esprit")  # type: ignore[arg-type]


@pytest.mark.parametrize("array", [np.asarray, torch.from_numpy])
def test_a_crop_that_would_take_the_object_is_not_applied(array: Any, caplog: Any) -> None:
    """Eleven calibration lines of 26 coils in much noise, and the same without noise."""
    rng = np.random.default_rng(17)
    image = simulate.phantom((96, 96)) * simulate.random_phase(rng, (96, 96), strength=2)
    kspace = simulate.encode(image, simulate.sensitivities(simulate.random_loops(rng, 26), (96, 96)), (64, 62))
    noise = simulate.noise(rng, np.eye(26, dtype=np.complex64) / 4**2, kspace.shape)
    both = np.stack([kspace + noise, kspace])[:, None]
    raw = Raw(
        kspace=array(both), mask=array(np.ones((1, 1, 1, 64, 62), bool)), calibration=array(both[..., 27:38, 26:37])
    )
    head = np.abs(simulate.phantom((64, 62))) > 0.1
    power = (np.abs(np.asarray(sense_raw(raw).sens)) ** 2).sum(-3)[:, 0]
    assert "the background is kept" in caplog.text
    assert (power[0] > 0.99).all()
    assert (power[1][head] > 0.99).mean() > 0.95
    assert (power[1] == 0).any()


def test_read_only_arrays_are_taken(raw: Raw) -> None:
    kspace = raw.kspace.copy()
    kspace.flags.writeable = False
    assert to_torch(dataclasses.replace(raw, kspace=kspace)).kspace.dtype == torch.complex64
