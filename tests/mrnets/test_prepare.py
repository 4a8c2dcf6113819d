"""Preparation: what earlier stages did is completed, or refused; and the way back to scanner units."""

import dataclasses
from typing import Any, get_args

import numpy as np
import pytest
import torch

from mrnets.contract import Estimate, Raw
from mrnets.ending import consistent, ended
from mrnets.errors import InputError
from mrnets.physics import simulate
from mrnets.physics.compress import Gdcc
from mrnets.physics.fourier import fftc
from mrnets.physics.normalise import Normalisation
from mrnets.preparation import Preparation
from mrnets.prepare import combine, prepare, prepare_blocks
from mrnets.prepare_image import prepare_image
from mrnets.restore import restore
from mrnets.stages import compress_raw, crop_raw, sense_raw, whiten_raw
from mrnets.tensors import to_torch
from mrnets.whitening import noise_level

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


def test_prepare_gives_a_whitened_scaled_scan_with_weighted_maps(raw: Raw) -> None:
    prepared = prepare(raw, Preparation())
    scan = prepared.scan
    assert scan.kspace.dtype == torch.complex64
    assert scan.sens.shape == (2, 1, COILS, Y, X)
    power = (scan.sens.abs() ** 2).sum(-3)
    assert power.max() < 1 + 1e-4
    assert power[..., Y // 2, X // 2].min() > 0.5
    combined = combine(_images(scan.kspace), scan.sens).abs()
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
        ({"whitened": True}, {"whiten": "none"}, "noise.whiten=false"),
        ({}, {"coils": 8}, "takes 8 coils, but the scan has 6"),
        ({"compressed": "svd", "whitened": True}, {"coils": 4}, "compressed to 6; the chain network.xml"),
        ({"compressed": "svd", "whitened": True}, {"coils": 1}, "takes 1 coil, but the scan was compressed to 6"),
        (
            {"compressed": "svd", "whitened": True},
            {"coils": 6, "compression": "gdcc"},
            r"compressed by gdcc, but the chain used svd; the chain network\.xml",
        ),
        ({"calibration": None}, {}, "no calibration lines"),
        (
            {"sens": np.ones((2, 1, 6, Y, X), np.complex64), "sens_method": "rss", "noise": None},
            {},
            r"trained with espirit .*; the chain network\.xml leaves .*, or set coils\.method=espirit",
        ),
        ({"sens": np.ones((2, 1, 6, Y, X), np.complex64), "sens_method": "given"}, {}, "before coil compression"),
        (
            {"sens": np.ones((2, 1, 6, Y, X), np.complex64), "sens_method": "espirit", "noise": None},
            {"coils": 4},
            r"before coil sensitivities, which the scan has for 6 coils; the chain network\.xml",
        ),
        ({"readout": None}, {"coils": 4, "compression": "gdcc"}, "fully sampled readout"),
    ],
)
def test_contradictions_are_refused_in_one_sentence(raw: Raw, change: dict, preparation: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        prepare(dataclasses.replace(raw, **change), Preparation(**preparation))


def test_sensitivities_that_a_network_does_not_take_are_no_contradiction(raw: Raw) -> None:
    preparation = Preparation(coils=1, sens="none", combination="rss")
    sens = np.ones((2, 1, 6, Y, X), np.complex64)
    plain = prepare(raw, preparation).scan
    sensed = prepare(dataclasses.replace(raw, sens=sens, sens_method="espirit"), preparation).scan
    assert sensed.sens is None
    np.testing.assert_array_equal(sensed.kspace.numpy(), plain.kspace.numpy())


def test_a_preparation_survives_json_and_refuses_what_it_does_not_know() -> None:
    preparation = Preparation(coils=8, compression="svd", sens="unitary", crop=0.8)
    assert Preparation.from_json(preparation.to_json()) == preparation
    with pytest.raises(InputError, match="did you mean 'kernel'"):
        Preparation.from_json({"kernal": 5})
    with pytest.raises(InputError, match="coils must be an integer"):
        Preparation.from_json({"coils": "8"})
    with pytest.raises(InputError, match="did you mean 'espirit'"):
        Preparation(sens="esprit")  # type: ignore[arg-type]


@pytest.mark.parametrize("array", [np.asarray, torch.from_numpy])
def test_a_crop_that_would_take_the_object_is_not_applied(array: Any, caplog: Any) -> None:
    """Nine calibration lines of 26 coils in much noise, and the same without noise."""
    rng = np.random.default_rng(17)
    image = simulate.phantom((96, 96)) * simulate.random_phase(rng, (96, 96), strength=2)
    kspace = simulate.encode(image, simulate.sensitivities(simulate.random_loops(rng, 26), (96, 96)), (64, 62))
    noise = simulate.noise(rng, np.eye(26, dtype=np.complex64) / 2**2, kspace.shape)
    both = np.stack([kspace + noise, kspace])[:, None]
    raw = Raw(
        kspace=array(both), mask=array(np.ones((1, 1, 1, 64, 62), bool)), calibration=array(both[..., 28:37, 27:36])
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


NORMALISATIONS = get_args(Normalisation)


@pytest.mark.parametrize("domain", ["image", "coils", "kspace"])
@pytest.mark.parametrize("method", NORMALISATIONS)
def test_every_normalisation_of_kspace_is_a_scale_and_comes_back(raw: Raw, method: str, domain: str) -> None:
    plain = prepare(raw, Preparation(normalisation="none"))
    prepared = prepare(raw, Preparation(normalisation=method, normalise=domain))  # type: ignore[arg-type]
    ratio = plain.scan.kspace / prepared.scan.kspace
    sampled = plain.scan.kspace != 0
    scale = prepared.scale[:, None, None, None, None].expand_as(ratio)[sampled]
    torch.testing.assert_close(ratio[sampled], scale.to(ratio.dtype), rtol=1e-4, atol=0)
    images = [combine(_images(x.scan.kspace), x.scan.sens) for x in (plain, prepared)]
    back = [restore(Estimate(image=i), p).image for i, p in zip(images, (plain, prepared), strict=True)]
    torch.testing.assert_close(back[1], back[0], rtol=1e-4, atol=1e-4 * float(back[0].abs().max()))
    seen = {
        "image": images[0],
        "coils": _images(plain.scan.kspace),
        "kspace": plain.scan.kspace[sampled].reshape(2, 1, -1),
    }
    values = seen[domain].abs().flatten(1)
    low, high = values.amin(1), values.amax(1)
    expected = {
        "max": high,
        "minmax": high - low,
        "grayscale": (high - low) / 255,
        "mean_std": values.std(1),
        "mean_var": values.var(1),
    }
    torch.testing.assert_close(prepared.scale, expected.get(method, torch.ones(2)), rtol=1e-4, atol=0)


def test_rss_normalises_by_the_root_sum_of_squares(raw: Raw) -> None:
    prepared = prepare(raw, Preparation(combination="rss"))
    combined = combine(_images(prepared.scan.kspace), prepared.scan.sens, "rss")
    assert combined.dtype == torch.complex64
    torch.testing.assert_close(combined.real.amax(dim=(1, 2, 3)), torch.ones(2))
    expected = (_images(prepared.scan.kspace).abs() ** 2).sum(-3).sqrt()
    torch.testing.assert_close(combined.real, expected)


def test_a_network_with_sensitivities_of_its_own_does_not_see_those_of_the_chain(raw: Raw) -> None:
    preparation = Preparation(sens="none")
    without = prepare(raw, preparation)
    given = prepare(sense_raw(whiten_raw(to_torch(raw), torch.from_numpy(raw.noise))), preparation)
    torch.testing.assert_close(given.scan.kspace, without.scan.kspace)
    torch.testing.assert_close(given.phase, without.phase)


@pytest.mark.parametrize("scale", [0.5, 30.0])
def test_the_scale_of_whitened_noise_is_for_the_network_alone(raw: Raw, scale: float) -> None:
    """Whoever whitens, k-space has it; what comes back has not."""
    plain = prepare(raw, Preparation(normalisation="none"))
    preparation = Preparation(normalisation="none", whiten_scale=scale)
    staged = whiten_raw(to_torch(raw), torch.from_numpy(raw.noise))
    for data in (raw, staged):
        prepared = prepare(data, preparation)
        torch.testing.assert_close(prepared.scan.kspace, scale * plain.scan.kspace, rtol=1e-4, atol=1e-3)
        images = [Estimate(image=x.scan.kspace[:, :, 0]) for x in (plain, prepared)]
        back = [restore(i, p).image for i, p in zip(images, (plain, prepared), strict=True)]
        error = torch.linalg.vector_norm(back[1] - back[0]) / torch.linalg.vector_norm(back[0])
        assert float(error) < 1e-3  # where maps are nearly zero, their phase is that of rounding
    unwhitened = dataclasses.replace(raw, noise=None)
    torch.testing.assert_close(
        prepare(unwhitened, preparation).scan.kspace, prepare(unwhitened, Preparation(normalisation="none")).scan.kspace
    )


def test_noise_from_a_patch_whitens(raw: Raw) -> None:
    rng = np.random.default_rng(3)
    factor = np.linalg.cholesky(raw.noise)
    noise = factor @ (rng.normal(size=(2, 1, Y, COILS, X)) + 1j * rng.normal(size=(2, 1, Y, COILS, X))) / 2**0.5
    kspace = np.swapaxes(noise, -3, -2).astype(np.complex64)
    kspace[..., 20:, :] *= 100  # signal, where the patch is not
    patched = dataclasses.replace(raw, kspace=kspace, noise=None, mask=np.ones_like(raw.mask))
    preparation = Preparation(whiten="periphery", patch_start=(0, 4), patch_length=(18, 32), normalisation="none")
    white = prepare(patched, preparation).scan.kspace[..., :18, 4:36]
    samples = white.moveaxis(2, 0).reshape(COILS, -1)
    covariance = samples @ samples.mH / samples.shape[1]
    torch.testing.assert_close(covariance, torch.eye(COILS) + 0j, atol=0.02, rtol=0)


def test_compression_takes_the_lines_window_and_alignment_of_the_preparation(raw: Raw) -> None:
    unwhitened = to_torch(dataclasses.replace(raw, noise=None))
    options: dict[str, Any] = {"lines": 8, "window": 3, "align": False}
    expected = compress_raw(unwhitened, 4, "gdcc", Gdcc(**options))
    preparation = Preparation(
        coils=4,
        sens="none",
        compression="gdcc",
        compression_lines=8,
        compression_window=3,
        compression_align=False,
        normalisation="none",
    )
    prepared = prepare(unwhitened, preparation)
    torch.testing.assert_close(prepared.scan.kspace, expected.kspace, rtol=1e-4, atol=1e-4)
    for name, value in {"lines": None, "window": 5, "align": True}.items():  # each of them matters
        other = compress_raw(unwhitened, 4, "gdcc", Gdcc(**{**options, name: value}))
        assert not torch.allclose(other.kspace, expected.kspace, rtol=1e-3, atol=1e-3)


def _object(shape: tuple[int, int]) -> Any:
    """(y, x) complex, with nothing near the edges of k-space or of the image."""
    y, x = np.meshgrid(*((np.arange(n) - n // 2) / n for n in shape), indexing="ij")
    return torch.from_numpy((np.exp(-60 * ((x - 0.05) ** 2 + y**2)) * (1 + 0.5j * x)).astype(np.complex64))


def _kspace(image: Any) -> Any:
    axes = (-2, -1)
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image, dim=axes), norm="ortho"), dim=axes)


@pytest.mark.parametrize(("image", "kspace"), [((100, 31), None), (None, (24, 100)), ((40, 32), (24, 23))])
def test_crops_come_back_on_the_whole_grid(image: Any, kspace: Any) -> None:
    """A fully sampled object that fits into both crops comes back whole, at its position."""
    full = _object((48, 40))
    raw = Raw(kspace=_kspace(full)[None, None, None], mask=torch.ones(1, 1, 1, 48, 40, dtype=torch.bool))
    prepared = prepare(raw, Preparation(sens="none", image_crop=image, kspace_crop=kspace))
    view = (48, 40) if image is None else (min(image[0], 48), min(image[1], 40))
    size = view if kspace is None else (min(kspace[0], view[0]), min(kspace[1], view[1]))
    assert tuple(prepared.scan.kspace.shape[-2:]) == tuple(prepared.scan.mask.shape[-2:]) == size
    seen = _images(prepared.scan.kspace)[:, :, 0]
    back = restore(Estimate(image=seen, maps={"S0": seen[:, 0].abs(), "R2*": seen[:, 0].abs()}), prepared)
    assert back.image.shape == (1, 1, 48, 40)
    torch.testing.assert_close(back.image[0, 0], full, atol=2e-3, rtol=0)
    coarse = size != view
    torch.testing.assert_close(back.maps["S0"][0], full.abs(), atol=0.2 if coarse else 2e-3, rtol=0)
    assert abs(float(back.maps["S0"].max()) - 1) < 0.02
    assert any("pixels" in note for note in prepared.notes) == (image is not None)


def test_an_undersampled_axis_keeps_its_field_of_view(raw: Raw) -> None:
    """Objects fold along y, so only the readout can be cropped; nothing is lost, and the note says it."""
    prepared = prepare(raw, Preparation(image_crop=(32, 30)))
    assert prepared.scan.kspace.shape[-2:] == (Y, 30)
    assert prepared.scan.sens.shape[-2:] == (Y, 30)
    assert "undersampled axes are not cropped" in prepared.notes[0]
    with pytest.raises(InputError, match="along y: that axis is undersampled"):
        crop_raw(raw, image=(32, 30))
    assert crop_raw(raw, image=(100, 30)).kspace.shape[-2:] == (Y, 30)


def test_cropped_data_keep_their_sensitivities(raw: Raw) -> None:
    """Estimated before the crop, after it, or given: the combined image is the same, up to its phase."""
    full = dataclasses.replace(raw, noise=None)
    preparation = Preparation(image_crop=(Y, 30), kspace_crop=(28, 26), normalisation="none")
    staged = sense_raw(to_torch(full))
    scans = [
        prepare(data, preparation).scan for data in (full, staged, dataclasses.replace(staged, sens_method="given"))
    ]
    images = [(scan.sens.conj() * _images(scan.kspace)).sum(-3).abs() for scan in scans]
    for image in images[1:]:
        assert torch.linalg.vector_norm(image - images[0]) < 0.05 * torch.linalg.vector_norm(images[0])


def test_blocks_are_parts_of_the_whole(raw: Raw) -> None:
    volume = dataclasses.replace(raw, readout="batch")
    image = torch.ones(2, 1, Y, X, dtype=torch.complex64)
    preparation = Preparation(coils=4)
    whole = prepare(volume, preparation, image=image)
    blocks = list(prepare_blocks(volume, preparation, image=image, size=1))
    assert len(blocks) == 2
    for name in ("kspace", "sens", "calibration", "image"):
        joined = torch.cat([getattr(block.scan, name) for block in blocks])
        torch.testing.assert_close(joined, getattr(whole.scan, name), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat([block.phase for block in blocks]), whole.phase, rtol=1e-4, atol=1e-4)


def test_an_earlier_image_comes_in_the_scale_and_phase_of_the_scan(raw: Raw) -> None:
    preparation = Preparation(kspace_crop=(30, 30))
    first = prepare(raw, Preparation())
    image = (first.scan.sens.conj() * _images(first.scan.kspace)).sum(-3)
    second = prepare(raw, preparation, image=restore(Estimate(image=image), first).image)
    own = (second.scan.sens.conj() * _images(second.scan.kspace)).sum(-3)
    difference = torch.linalg.vector_norm(second.scan.image - own)
    assert second.scan.image.shape == (2, 1, 30, 30)
    assert difference < 0.1 * torch.linalg.vector_norm(own)


class TestImages:
    def image(self, contrasts: int = 2, *more: int) -> Any:
        torch.manual_seed(1)
        units = torch.tensor([1.0, 500.0])[:contrasts].reshape(1, contrasts, *[1] * (len(more) + 2))
        return units * (2 + torch.rand(2, contrasts, *more, 12, 10))

    @pytest.mark.parametrize("method", NORMALISATIONS)
    def test_every_normalisation_comes_back(self, method: Normalisation) -> None:
        image = self.image()
        prepared = prepare_image(image, Preparation(normalisation=method))
        back = restore(Estimate(image=prepared.scan.image), prepared).image
        torch.testing.assert_close(back, image)
        seen = prepared.scan.image
        if method in ("minmax", "grayscale"):
            assert abs(float(seen.min())) < 1e-4
            torch.testing.assert_close(seen.amax(dim=(-2, -1)), torch.full((2, 2), 255.0 if method[0] == "g" else 1.0))
        elif method == "mean_std":
            torch.testing.assert_close(seen.mean(dim=(-2, -1)), torch.zeros(2, 2), atol=1e-4, rtol=0)

    def test_contrasts_have_units_of_their_own(self) -> None:
        prepared = prepare_image(self.image(), Preparation())
        torch.testing.assert_close(prepared.scan.image.amax(dim=(-2, -1)), torch.ones(2, 2))

    @pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float64])
    def test_whole_numbers_as_files_have_them(self, dtype: Any) -> None:
        image = np.arange(2 * 12 * 10).reshape(1, 2, 12, 10).astype(dtype)
        seen = prepare_image(image, Preparation(normalisation="minmax")).scan.image
        assert seen.dtype == torch.float32
        torch.testing.assert_close(seen[0, 0], torch.linspace(0, 1, 120).reshape(12, 10))

    def test_complex_images(self) -> None:
        image = self.image() * 1j
        assert prepare_image(image.numpy(), Preparation()).scan.image.dtype == torch.float32
        seen = prepare_image(image, Preparation(image="complex", normalisation="minmax"))
        assert seen.scan.image.dtype == torch.complex64
        assert (seen.scan.image.real == 0).all()
        torch.testing.assert_close(restore(Estimate(image=seen.scan.image), seen).image, image)

    def test_crops(self) -> None:
        image = _object((48, 40)).abs()[None, None]
        prepared = prepare_image(image, Preparation(image_crop=(40, 34), kspace_crop=(26, 26)))
        assert prepared.scan.image.shape == (1, 1, 26, 26)
        torch.testing.assert_close(
            restore(Estimate(image=prepared.scan.image), prepared).image, image, atol=1e-2, rtol=0
        )
        logits = restore(Estimate(logits=torch.ones(1, 3, 26, 26)), prepared).logits
        assert logits.shape == (1, 3, 48, 40)
        assert (logits[..., 4:44, 3:37] == 1).all()
        assert logits.sum() == 3 * 40 * 34

    @pytest.mark.parametrize(
        ("shape", "preparation", "sentence"),
        [
            ((1, 2, 8, 8), {"contrasts": 4}, "images of 4 contrasts, and 2 came"),
            ((1, 2, 8, 8), {"slices": 3}, r"images \(batch, contrast, 3, y, x\), not of shape \(1, 2, 8, 8\)"),
            ((1, 2, 5, 8, 8), {"slices": 3}, "not of shape"),
            ((1, 2, 3, 8, 8), {}, "not of shape"),
            ((1, 2, 8, 8), {"image": "complex"}, "takes complex images, and torch.float32 came"),
        ],
    )
    def test_other_images_are_refused(self, shape: Any, preparation: Any, sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            prepare_image(torch.zeros(shape), Preparation(**preparation))


def test_an_old_preparation_has_the_old_meaning() -> None:
    old = {
        "whiten": "covariance",
        "coils": None,
        "compression": "auto",
        "sens": "espirit",
        "kernel": 6,
        "calibration": 24,
        "threshold": 0.01,
        "crop": 0.9,
        "normalisation": "max",
    }
    assert Preparation.from_json(old) == Preparation()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"kspace_crop": [3]}, r"kspace_crop must be \[an integer, an integer\]"),
        ({"kspace_crop": [3, 0]}, "kspace_crop must be at least 1"),
        ({"compression_align": 1}, 'compression_align must be "true"'),
        ({"compression_window": 4}, "compression_window must be odd"),
        ({"slices": 2}, "slices must be odd"),
        ({"whiten_scale": float("nan")}, "whiten_scale must be a number"),
        ({"patch_start": [0, 0]}, "go together"),
        ({"patch_start": [0, 0], "patch_length": [9, 9]}, "whiten is covariance"),
        ({"normalisation": "minmex"}, "did you mean 'minmax'"),
        ({"classes": "exclusiv"}, "did you mean 'exclusive'"),
    ],
)
def test_a_preparation_that_makes_no_sense(values: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Preparation.from_json(values)


@pytest.mark.parametrize("averages", [1.0, 4.0])
@pytest.mark.parametrize("coils", [None, 4])
def test_the_noise_level_is_that_of_the_samples(raw: Raw, averages: float, coils: int | None) -> None:
    """The measured scan minus the same scan without noise, in the scale of the network."""
    rng = np.random.default_rng(11)
    white = rng.normal(size=(2, 64, *raw.kspace.shape[1:])).astype(np.float32)
    factor = np.linalg.cholesky(raw.noise / averages)
    noise = np.einsum("ij,bejyx->beiyx", factor, (white[0] + 1j * white[1]) / np.sqrt(2)).astype(np.complex64)
    many = dataclasses.replace(
        raw,
        kspace=np.concatenate([raw.kspace[:1]] * 64) + noise * raw.mask,
        calibration=np.concatenate([raw.calibration[:1]] * 64),
        averages=averages,
    )
    scan = prepare(many, Preparation(coils=coils)).scan
    sampled = raw.mask[0, 0, 0]
    differences = scan.kspace / scan.noise[:, None, None, None, None]
    differences = (differences - differences.mean(0)).numpy()[..., sampled]
    assert abs(np.std(differences) / np.sqrt(63 / 64) - 1) < 0.02


def test_an_unknown_noise_level_is_estimated_and_said(raw: Raw) -> None:
    rng = np.random.default_rng(12)
    noise = rng.normal(size=(2, *raw.kspace.shape)) * 0.5
    kspace = (raw.kspace + (noise[0] + 1j * noise[1]) * raw.mask).astype(np.complex64)
    noisy = dataclasses.replace(raw, kspace=kspace, calibration=kspace[..., Y // 2 - 8 : Y // 2 + 8, :], noise=None)
    prepared = prepare(noisy, Preparation())
    level = prepared.scan.noise * prepared.scale
    torch.testing.assert_close(level, torch.full((2,), 0.5 * 2**0.5), rtol=0.3, atol=0)
    assert any("noise level was estimated" in note for note in prepared.notes)


@pytest.mark.parametrize("coils", [1, 2, 3])
def test_what_few_coils_cannot_predict_is_not_taken_for_noise(coils: int) -> None:
    """The object fills the field of view. Calibration lines of one coil show 85 times the noise then."""
    rng, size, sigma = np.random.default_rng(13), 64, 0.01
    y, x = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    image = (1 + np.cos(7 * x + 3 * y) / 2 + (np.abs(x) < 0.9) * (np.abs(y) < 0.95)) * np.exp(1j * (2 * x + y * y))
    angles = np.arange(coils) * 2 * np.pi / coils
    maps = np.stack([np.exp(-((y - np.sin(a)) ** 2 + (x - np.cos(a)) ** 2) / 2 + 1j * a * (x + y)) for a in angles])
    axes = (-2, -1)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image * maps, axes=axes), norm="ortho"), axes=axes)
    noise = rng.standard_normal((2, *kspace.shape)) * sigma / 2**0.5
    kspace = (kspace + noise[0] + 1j * noise[1])[None, None].astype(np.complex64)
    scan = Raw(kspace=kspace, mask=np.ones((1, 1, 1, size, size), bool), calibration=kspace[..., 20:44, :])
    level, notes = noise_level(to_torch(scan))
    assert level is not None
    assert abs(float(level) / sigma - 1) < 0.25
    assert notes == ("the noise level was estimated from the periphery of k-space",)


@pytest.mark.parametrize("coils", [1, 3])
def test_a_filter_does_not_hide_the_noise(coils: int) -> None:
    """Hann's filter leaves 0.6 of the noise, and a hundredth of it at the periphery of k-space."""
    rng, size = np.random.default_rng(14), 128
    line = np.linspace(-1, 1, size)
    image = 20.0 * (np.hypot(line[:, None], line) < 0.6) * np.ones((coils, 1, 1))
    noise = rng.standard_normal((2, *image.shape)) / 2**0.5
    kspace = fftc(image) + noise[0] + 1j * noise[1]
    kspace = (kspace * (0.5 + 0.5 * np.cos(np.pi * line)))[None, None].astype(np.complex64)
    scan = Raw(kspace=kspace, mask=np.ones((1, 1, 1, size, size), bool))
    level, notes = noise_level(to_torch(scan))
    assert level is not None
    assert abs(float(level) / 0.375**0.5 - 1) < 0.1
    assert notes[0].endswith("background of the image, since the edges of k-space seem to be filtered")


@pytest.mark.parametrize("level", [0.01, 0.1])
def test_consistency_keeps_a_fully_sampled_scan(raw: Raw, level: float) -> None:
    """The closed form of a fully sampled scan: (E^H y + w z) / (S^H S + w)."""
    full = dataclasses.replace(raw, mask=np.ones_like(raw.mask))
    prepared = prepare(full, Preparation(consistency=level))
    scan = prepared.scan
    own = (scan.sens.conj() * _images(scan.kspace)).sum(-3)
    z = torch.roll(own, 5, -1)
    image = consistent(Estimate(image=z), scan, Preparation(consistency=level)).image
    power = (scan.sens.abs() ** 2).sum(-3)
    inside = (power > 0.5).expand(own.shape)
    weight = (scan.noise / level)[:, None, None, None] ** 2
    torch.testing.assert_close(image[inside], ((own + weight * z) / (power + weight))[inside], atol=1e-4, rtol=0)


def test_consistency_changes_nothing_where_it_is_off_or_the_noise_unknown(raw: Raw) -> None:
    scan = prepare(raw, Preparation()).scan
    estimate = Estimate(image=torch.ones(2, 1, Y, X, dtype=torch.complex64))
    assert consistent(estimate, scan, Preparation(consistency=None)) is estimate
    assert consistent(estimate, dataclasses.replace(scan, noise=None), Preparation()) is estimate


@pytest.mark.parametrize("level", [0.0, -1.0, float("nan")])
def test_an_absurd_consistency_is_refused(level: float) -> None:
    with pytest.raises(InputError, match="consistency"):
        Preparation(consistency=level)


def test_a_fully_sampled_scan_does_not_show_the_weight_of_its_maps(raw: Raw) -> None:
    """Images are larger by the inverse of the norm of the maps, and are multiplied with it at last."""
    full = dataclasses.replace(raw, mask=np.ones_like(raw.mask))
    scan = prepare(full, Preparation(crop=0.0)).scan
    size = torch.linspace(0.3, 1, X)
    scan = dataclasses.replace(scan, sens=scan.sens * size, noise=torch.full((2,), 1e-4))
    estimate = ended(lambda of: Estimate(image=torch.zeros(2, 1, Y, X) + 0j), Preparation(), "each")(scan)
    torch.testing.assert_close(estimate.image, combine(_images(scan.kspace), scan.sens), atol=1e-3, rtol=0)
    torch.testing.assert_close(estimate.unweighted[:, :, 0] * size, estimate.image)


@pytest.mark.parametrize("level", [None, 0.035])
def test_where_no_coil_sees_anything_the_image_is_zero(raw: Raw, level: float | None) -> None:
    preparation = Preparation(consistency=level)
    scan = prepare(raw, preparation).scan
    sens = scan.sens.clone()
    sens[..., :10, :] = 0
    estimate = ended(lambda scan: Estimate(image=torch.ones(2, 1, Y, X) + 0j), preparation, "each")
    image = estimate(dataclasses.replace(scan, sens=sens)).image
    assert bool((image[..., :10, :] == 0).all())
    assert bool((image[..., Y // 2, X // 2] != 0).all())
