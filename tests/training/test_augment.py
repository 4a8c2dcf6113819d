"""Augmentation: everything that belongs to a slice goes with it, exactly, and k-space is that of the new image."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mrnets.contract import Raw
from mrnets.physics.coils import rss
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.relaxation import fit
from training.augment import augmented
from training.data import Sample
from training.settings import Augmentation, Masks, Motion
from training.undersample import masked

SHAPES = [(16, 12), (17, 12), (15, 15)]
ECHO_TIMES = torch.tensor([0.002, 0.006, 0.011])


def scan(shape=(16, 12), *, batch=2, coils=4, readout="batch", sens=True, seed=3):
    """A multi-echo scan of known maps: object and maps of random numbers, so that every pixel is told from the others.
    The labels say where the object is bright, the region where it is not dark."""
    rng = np.random.default_rng(seed)

    def numbers(*size):
        return torch.from_numpy(rng.uniform(0.2, 1, size).astype(np.float32))

    s0, r2star, b0, phase = numbers(batch, *shape), 50 * numbers(batch, *shape), 20 * numbers(batch, *shape), 0
    times = ECHO_TIMES[None, :, None, None]
    object_ = torch.polar(s0[:, None] * torch.exp(-times * r2star[:, None]), 2 * np.pi * times * b0[:, None] + phase)
    maps = torch.polar(numbers(batch, 1, coils, *shape), 6 * numbers(batch, 1, coils, *shape))
    maps = maps / maps.abs().square().sum(2, keepdim=True).sqrt()
    raw = Raw(
        kspace=fftc(object_[:, :, None] * maps),
        mask=torch.ones((batch, 1, 1, *shape), dtype=torch.bool),
        sens=maps if sens else None,
        sens_method="given" if sens else None,
        echo_times=ECHO_TIMES,
        readout=readout,
    )
    known = {"S0": s0, "R2*": r2star, "B0": b0, "phase": torch.zeros(batch, *shape)}
    labels = torch.stack((s0 <= 0.6, s0 > 0.6), 1)
    return Sample(names=("a", "b")[:batch], raw=raw, maps=known, labels=labels, region=s0 > 0.4)


def image(raw):
    return (ifftc(raw.kspace) * raw.sens.conj()).sum(2)


def agree(sample):
    """The maps of `sample` are those that its k-space says; S0 of it."""
    found = fit(image(sample.raw), ECHO_TIMES)
    for n, name in enumerate(("R2*", "S0", "B0")):
        torch.testing.assert_close(sample.maps[name], found[:, n], rtol=1e-3, atol=1e-3)
    return sample.maps["S0"]


def seeds(settings, sample, count=24):
    return [augmented(sample, settings, np.random.default_rng(seed)) for seed in range(count)]


def test_off_is_the_sample_itself(rng):
    sample = scan()
    assert augmented(sample, Augmentation(), rng) is sample


def test_scans_that_are_sampled_already_stay(rng):
    simulated = dataclasses.replace(scan(), coil_images=ifftc(scan().raw.kspace))
    assert augmented(simulated, Augmentation(flips=True, noise=(1, 1)), rng) is simulated


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("settings", [Augmentation(flips=True), Augmentation(rotations=True), Augmentation(crop=0.6)])
def test_what_moves_moves_together(shape, settings):
    found = set()
    for made in seeds(settings, scan(shape)):
        s0 = agree(made)
        assert torch.equal(made.labels, torch.stack((s0 <= 0.6, s0 > 0.6), 1))
        assert torch.equal(made.region, s0 > 0.4)
        norm = made.raw.sens.abs().square().sum(2)
        torch.testing.assert_close(norm, torch.ones_like(norm))
        assert made.raw.mask.shape[-2:] == s0.shape[-2:]
        assert made.raw.mask.all()
        found.add(s0.numpy().tobytes())
    assert len(found) >= 4


@pytest.mark.parametrize("shape", SHAPES)
def test_kspace_is_that_of_the_flipped_image(shape):
    """Half-way through k-space a plain reversal of it would be one sample off on even sizes."""
    whole = scan(shape)
    coil_images = ifftc(whole.raw.kspace)
    flips = {axes: fftc(coil_images.flip(axes)) for axes in ((), (-2,), (-1,), (-2, -1))}
    seen = set()
    for made in seeds(Augmentation(flips=True), whole):
        which = [axes for axes, k in flips.items() if torch.allclose(k, made.raw.kspace, atol=1e-5)]
        assert len(which) == 1
        seen.update(which)
    assert len(seen) == 4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("settings", [Augmentation(flips=True), Augmentation(rotations=True)])
def test_gaps_and_masks_move_with_kspace(shape, settings):
    """A scan with gaps is the whole scan, moved and then sampled by the moved mask."""
    mask = torch.rand((1, 1, 1, *shape), generator=torch.Generator().manual_seed(1)) < 0.5
    whole = dataclasses.replace(scan(shape, batch=1), mask=mask)
    gaps = dataclasses.replace(whole.raw, kspace=whole.raw.kspace * mask, mask=mask)
    for made, full in zip(seeds(settings, dataclasses.replace(whole, raw=gaps)), seeds(settings, whole), strict=True):
        torch.testing.assert_close(made.raw.kspace, full.raw.kspace * made.raw.mask, atol=1e-5, rtol=0)
        assert torch.equal(made.raw.mask, made.mask)
        assert int(made.mask.sum()) == int(mask.sum())
        assert torch.equal(full.mask, made.mask)


def test_gaps_and_own_masks_are_not_cropped(rng):
    sample = scan()
    mask = sample.raw.mask.clone()
    mask[..., 13:, :] = False
    gaps = dataclasses.replace(sample.raw, kspace=sample.raw.kspace * mask, mask=mask)
    for whole in (dataclasses.replace(sample, mask=sample.raw.mask), dataclasses.replace(sample, raw=gaps)):
        made = augmented(whole, Augmentation(crop=0.5, noise=(1.0, 1.0)), rng)
        assert made.raw.kspace.shape == whole.raw.kspace.shape
        assert torch.equal(made.raw.mask, whole.raw.mask)
        assert torch.equal(made.maps["S0"], whole.maps["S0"])
    torch.testing.assert_close(made.raw.kspace, gaps.kspace)  # no noise either: there is no target without it
    assert not masked(made, Masks(), [rng, rng]).raw.mask[..., :13, :].all()


def test_a_readout_in_the_plane_is_turned_by_180_degrees_only():
    def turns(readout):
        whole = scan((14, 14), readout=readout)
        s0 = whole.maps["S0"]
        made = seeds(Augmentation(rotations=True), whole)
        return {k for m in made for k in range(4) if torch.equal(m.maps["S0"], s0.rot90(k, (-2, -1)))}

    assert turns("batch") == {0, 1, 2, 3}
    assert turns("x") == {0, 2}


def test_crops_are_of_the_size_asked_for_and_anywhere():
    made = [m.maps["S0"] for m in seeds(Augmentation(crop=0.5), scan((20, 20)), 60)]
    assert min(min(m.shape[-2:]) for m in made) >= 10
    assert {m.shape[-2] for m in made} == set(range(11, 21))


def test_intensity_acts_on_the_magnitude_only(rng):
    whole = scan()
    made = augmented(whole, Augmentation(intensity=(1.7, 1.7)), rng)
    agree(made)  # R2* and B0 as they were, S0 as the image
    before, after = ifftc(whole.raw.kspace), ifftc(made.raw.kspace)
    torch.testing.assert_close(torch.angle(after * before.conj()), torch.zeros_like(before.real), atol=1e-3, rtol=0)
    for old, new in zip(rss(before)[:, 0], rss(after)[:, 0], strict=True):
        torch.testing.assert_close(new / old.max(), (old / old.max()) ** 1.7)
    assert torch.equal(made.maps["R2*"], whole.maps["R2*"])
    assert torch.equal(made.labels, whole.labels)


def test_intensity_of_an_empty_slice(rng):
    whole = scan()
    empty = dataclasses.replace(whole, raw=dataclasses.replace(whole.raw, kspace=torch.zeros_like(whole.raw.kspace)))
    settings = Augmentation(intensity=(0.5, 0.5), noise=(0.1, 0.1), phase=1.0)
    assert torch.isfinite(torch.view_as_real(augmented(empty, settings, rng).raw.kspace)).all()


def test_phase_is_smooth_and_leaves_maps_alone(rng):
    whole = scan((32, 24))
    made = augmented(whole, Augmentation(phase=1.0), rng)
    agree(made)
    added = image(made.raw) * image(whole.raw).conj()
    unit = added / added.abs()
    torch.testing.assert_close(unit[:, 0], unit[:, 2], atol=1e-4, rtol=0)
    assert torch.angle(unit[:, 0, 1:] * unit[:, 0, :-1].conj()).abs().max() < 0.8
    assert (unit[0, 0] - unit[1, 0]).abs().max() > 0.1
    torch.testing.assert_close(torch.polar(torch.ones(2, 32, 24), made.maps["phase"]), unit[:, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(rss(ifftc(made.raw.kspace)), rss(ifftc(whole.raw.kspace)))


@pytest.mark.parametrize("level", [0.02, 0.3])
def test_noise_is_of_the_level_asked_for_and_not_in_the_target(rng, level):
    whole = scan((64, 48), coils=3)
    made = augmented(whole, Augmentation(noise=(level, level)), rng)
    peak = rss(ifftc(whole.raw.kspace[:, 0])).amax((-2, -1))
    added = made.raw.kspace - whole.raw.kspace
    torch.testing.assert_close(added.abs().square().mean((1, 2, 3, 4)).sqrt(), level * peak, rtol=0.03, atol=0)
    torch.testing.assert_close(made.coil_images, ifftc(whole.raw.kspace))
    thinned = masked(made, Masks(), [rng, rng])
    assert not thinned.raw.mask.all()
    assert thinned.coil_images is made.coil_images


def test_noise_has_the_covariance_that_the_scan_says(rng):
    whole = scan((96, 64), coils=2, batch=1)
    covariance = torch.tensor([[2, 0.5 + 0.5j], [0.5 - 0.5j, 1]], dtype=torch.complex64) * 1e-3
    noisy = dataclasses.replace(whole.raw, noise=covariance)
    made = augmented(dataclasses.replace(whole, raw=noisy), Augmentation(noise=(0.1, 0.1)), rng)
    added = (made.raw.kspace - whole.raw.kspace).transpose(1, 2).reshape(2, -1)
    measured = added @ added.mH / added.shape[1]
    torch.testing.assert_close(
        made.raw.noise - covariance, measured, rtol=0.05, atol=0.05 * float(measured.abs().max())
    )


@pytest.mark.parametrize("sens", [True, False])
def test_coil_subsets(sens):
    whole = scan(coils=6, sens=sens)
    whole = dataclasses.replace(whole, raw=dataclasses.replace(whole.raw, noise=torch.diag(torch.arange(6.0) + 0j)))
    counts = set()
    for made in seeds(Augmentation(coils=0.5), whole):
        kept = made.raw.noise.diagonal().real.long()
        counts.add(len(kept))
        torch.testing.assert_close(made.raw.kspace, whole.raw.kspace[:, :, kept])
        if sens:
            norm = made.raw.sens.abs().square().sum(2)
            torch.testing.assert_close(norm, torch.ones_like(norm))
            agree(made)
        else:
            combined = rss(ifftc(made.raw.kspace[:, 0])) / rss(ifftc(whole.raw.kspace[:, 0]))
            torch.testing.assert_close(made.maps["S0"], whole.maps["S0"] * combined)
    assert counts == {4, 5, 6}


@pytest.mark.parametrize("shape", [(12, 10), (4, 12, 10)])
def test_images_and_labels_move_together(shape):
    image = torch.rand((2, 3, *shape), generator=torch.Generator().manual_seed(0))
    sample = Sample(names=("a", "b"), image=image, labels=image[:, :2] > 0.5, region=image[:, 0, ..., :, :] > 0.2)
    found = set()
    for made in seeds(Augmentation(flips=True, rotations=True, crop=0.7), sample):
        assert torch.equal(made.labels, made.image[:, :2] > 0.5)
        assert torch.equal(made.region, made.image[:, 0] > 0.2)
        assert made.image.shape[:-2] == image.shape[:-2]
        found.add(tuple(made.image.shape[-2:]))
    assert len(found) > 4


def test_intensity_and_noise_of_images(rng):
    image = torch.randn((2, 3, 40, 40), generator=torch.Generator().manual_seed(0))
    sample = Sample(names=("a", "b"), image=image)
    made = augmented(sample, Augmentation(intensity=(2.0, 2.0)), rng).image
    peak = image.abs().amax((-2, -1), keepdim=True)
    torch.testing.assert_close(made, image * image.abs() / peak)
    noisy = augmented(sample, Augmentation(noise=(0.2, 0.2)), rng).image
    torch.testing.assert_close((noisy - image).std((-2, -1)), 0.2 * peak[..., 0, 0], rtol=0.1, atol=0)
    assert noisy.dtype == torch.float32


def test_the_same_from_the_same_seed():
    settings = Augmentation(
        flips=True, rotations=True, crop=0.7, intensity=(0.8, 1.2), phase=1.0, noise=(0.0, 0.1), coils=0.5
    )
    first, again, other = (augmented(scan(), settings, np.random.default_rng(s)) for s in (1, 1, 2))
    assert torch.equal(first.raw.kspace, again.raw.kspace)
    assert torch.equal(first.maps["S0"], again.maps["S0"])
    assert first.raw.kspace.shape != other.raw.kspace.shape or not torch.equal(first.raw.kspace, other.raw.kspace)


@pytest.mark.parametrize("shape", [(33, 28), (40, 40)])
@pytest.mark.parametrize("seed", range(4))
def test_lines_of_a_moved_object_are_those_of_its_pose(shape, seed):
    """Each line is that of one of the poses; those in the middle are of the object at rest, which is the target."""
    whole = scan(shape, batch=1)
    still = fftc(ifftc(whole.raw.kspace))
    made = augmented(whole, Augmentation(motion=Motion(share=1.0, poses=3, turn=0.0)), np.random.default_rng(seed))
    torch.testing.assert_close(made.coil_images, ifftc(whole.raw.kspace))
    ratio = made.raw.kspace / still
    torch.testing.assert_close(ratio.abs(), torch.ones_like(ratio.abs()), rtol=1e-3, atol=1e-3)  # a shift is a phase
    steps = torch.angle(ratio[..., 1:] * ratio[..., :-1].conj())[0, 0, 0].median(dim=-1).values
    assert len(torch.unique((1e3 * steps).round())) == 3
    assert abs(float(steps[shape[0] // 2])) < 1e-4
    assert made.raw.mask.all()


def test_turned_lines_keep_their_energy_in_the_whole(rng):
    whole = scan((48, 48), batch=1)
    made = augmented(whole, Augmentation(motion=Motion(share=1.0, poses=2, turn=20.0, shift=0.0)), rng)
    changed = (made.raw.kspace - whole.raw.kspace).abs().amax(dim=(0, 1, 2, 4)) > 1e-3
    assert 0 < int(changed.sum()) < 48
    assert not changed[24]


def test_some_slices_move_and_scans_with_gaps_never(rng):
    whole = scan((20, 20))
    settings = Augmentation(motion=Motion(share=0.5))
    moved = [not torch.allclose(m.raw.kspace, whole.raw.kspace, atol=1e-3) for m in seeds(settings, whole, 40)]
    assert 8 < sum(moved) < 32
    mask = whole.raw.mask.clone()
    mask[..., 13:, :] = False
    gaps = dataclasses.replace(whole.raw, kspace=whole.raw.kspace * mask, mask=mask)
    for made in seeds(Augmentation(motion=Motion(share=1.0)), dataclasses.replace(whole, raw=gaps)):
        torch.testing.assert_close(made.raw.kspace, gaps.kspace)


@pytest.mark.parametrize("settings", [Augmentation(flips=True), Augmentation(rotations=True), Augmentation(coils=0.5)])
def test_calibration_lines_of_their_own_go_with_a_scan_with_gaps(settings):
    """The moved calibration is the part that is cut from the moved k-space."""
    whole = scan((20, 20), batch=1)
    mask = torch.rand((1, 1, 1, 20, 20), generator=torch.Generator().manual_seed(1)) < 0.5
    gaps = dataclasses.replace(whole.raw, kspace=whole.raw.kspace * mask, mask=mask)
    separate = dataclasses.replace(gaps, calibration=resize(whole.raw.kspace[:, :1], (8, 7)))
    made = zip(seeds(settings, dataclasses.replace(whole, raw=separate)), seeds(settings, whole), strict=True)
    for gapped, full in made:
        block = gapped.raw.calibration
        torch.testing.assert_close(block, resize(full.raw.kspace[:, :1], block.shape[-2:]), atol=1e-5, rtol=0)
        assert min(block.shape[-2:]) >= 7


def test_scans_with_gaps_keep_intensity_and_phase(rng):
    whole = scan()
    mask = whole.raw.mask.clone()
    mask[..., 13:, :] = False
    gaps = dataclasses.replace(whole.raw, kspace=whole.raw.kspace * mask, mask=mask)
    made = augmented(dataclasses.replace(whole, raw=gaps), Augmentation(intensity=(2.0, 2.0), phase=2.0), rng)
    torch.testing.assert_close(made.raw.kspace, gaps.kspace)
