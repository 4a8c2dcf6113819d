"""The self-check: what is left out, what the measures say of right and wrong images, and what they say of noise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mrnets import store
from mrnets.contract import Check, Estimate, Scan, Trust
from mrnets.ending import consistent
from mrnets.physics import masks, simulate
from mrnets.physics.fourier import fftc, ifftc
from mrnets.preparation import Preparation
from mrnets.selfcheck import checked
from mrnets.tensors import joined
from mrnets.trial import left_out
from mrnets.trust import classical, doubt, examined, mixed, together

SHAPE = (64, 48)
NOISE = 0.02
CLASSICAL = store.create("l1wavelet", iterations=60)


def line_mask(step: int = 3, centre: int = 12) -> Tensor:
    lines = torch.zeros(SHAPE[0], dtype=torch.bool)
    lines[::step] = True
    lines[(SHAPE[0] - centre) // 2 : (SHAPE[0] + centre) // 2] = True
    return lines[:, None].expand(SHAPE).clone()[None, None, None]


def place_mask() -> Tensor:
    return torch.from_numpy(masks.poisson2d(SHAPE, 4.0, np.random.default_rng(0), centre=12))[None, None, None]


def scan(mask: Tensor | None = None, *, noise: float = NOISE, batch: int = 2) -> Scan:
    """Phantoms of different sizes seen by 6 coils, unit-norm maps."""
    mask = line_mask() if mask is None else mask
    generator = torch.Generator().manual_seed(3)
    whole = torch.from_numpy(simulate.phantom(SHAPE)).to(torch.complex64)
    image = torch.stack([whole.roll(3 * n, 0) * (1 - 0.3 * n) for n in range(batch)])[:, None]
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    angles = torch.arange(6) * (math.pi / 3)
    distance = (x - angles.cos()[:, None, None]) ** 2 + (y - angles.sin()[:, None, None]) ** 2
    sens = torch.polar(torch.exp(-distance), (angles[:, None, None] + x).contiguous())
    sens = (sens / torch.linalg.vector_norm(sens, dim=0)).expand(batch, 1, 6, *SHAPE)
    kspace = fftc(image[:, :, None] * sens)
    kspace = kspace + noise * torch.randn(kspace.shape, dtype=torch.complex64, generator=generator)
    return Scan(kspace=kspace * mask, mask=mask, sens=sens, noise=torch.full((batch,), noise))


def measured(network: Callable[[Scan], Estimate], of: Scan) -> list[Trust]:
    with torch.inference_mode():
        return examined(network, of, network(of), classical(of))


def changed(change: Callable[[Tensor], Tensor], *, kept: bool = True) -> Callable[[Scan], Estimate]:
    """l1-wavelet with a changed image; `kept`: followed by consistency with the data, as shipped weights have it."""

    def run(of: Scan) -> Estimate:
        estimate = Estimate(image=change(CLASSICAL(of).image))
        return consistent(estimate, of, Preparation(consistency=0.007)) if kept else estimate

    return run


@pytest.mark.parametrize(("mask", "whole_lines"), [(line_mask(), True), (place_mask(), False)])
def test_some_samples_outside_the_centre_are_left_out(mask: Tensor, whole_lines: bool) -> None:
    held = left_out(mask)
    assert held.shape == mask.shape
    assert not (held & ~mask).any()
    y, x = (n // 2 for n in SHAPE)
    assert not held[..., y - 6 : y + 6, x - 6 : x + 6].any()
    assert 0.02 < held.sum() / mask.sum() < 0.15
    rows = held[0, 0, 0].float().mean(dim=1)
    assert bool(((rows == 0) | (rows == 1)).all()) == whole_lines


def test_lines_along_the_other_axis_are_left_out_whole() -> None:
    held = left_out(line_mask().mT)
    assert torch.equal(held.mT, left_out(line_mask()))


def test_a_line_that_was_measured_in_part_is_left_out_in_part() -> None:
    partial = line_mask().clone()
    partial[..., :10] = False
    held = left_out(partial)
    assert held.any()
    lines = held.any(dim=-1, keepdim=True)
    assert torch.equal(held, partial & lines)


def test_nothing_is_left_out_of_a_centre_alone() -> None:
    centre = torch.zeros(1, 1, 1, *SHAPE, dtype=torch.bool)
    centre[..., 26:38, :] = True
    (trust,) = measured(CLASSICAL, scan(centre, batch=1))
    assert trust.prediction is None
    assert trust.reference is None
    assert doubt(trust) == ""


@pytest.mark.parametrize("mask", [line_mask(), place_mask(), torch.ones(1, 1, 1, *SHAPE, dtype=torch.bool)])
@pytest.mark.parametrize("noise", [0.1, 0.02, 0.002])
def test_a_good_network_is_not_doubted(mask: Tensor, noise: float) -> None:
    for trust in measured(changed(lambda image: image), scan(mask, noise=noise)):
        assert doubt(trust) == ""
        assert trust.prediction == pytest.approx(trust.reference, rel=0.1)


def test_measures_are_in_units_of_the_noise() -> None:
    full = torch.ones(1, 1, 1, *SHAPE, dtype=torch.bool)
    for trust in measured(changed(lambda image: image), scan(full, noise=0.02)):
        # 6 coils: of 6 samples in a place, one degree of freedom is the image's.
        assert trust.residual == pytest.approx(math.sqrt(5 / 6), rel=0.03)
        assert trust.prediction is not None
        assert 0.95 < trust.prediction < 1.2


def error(image: Tensor, truth: Tensor) -> float:
    return float(torch.linalg.vector_norm(image - truth) / torch.linalg.vector_norm(truth))


@pytest.mark.parametrize("mask", [line_mask(4), place_mask()], ids=["lines", "places"])
def test_l1_wavelet_has_the_share_that_the_data_give_it(mask: Tensor) -> None:
    """None beside the truth, all of it beside nothing, and a part beside an image with errors of its own."""
    of = scan(mask)
    full = dataclasses.replace(scan(torch.ones_like(mask), noise=0.0), noise=of.noise)
    truth = store.create("zerofilled")(full).image
    rough = torch.randn(truth.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(5))
    wrong = truth + rough * error(CLASSICAL(of).image, truth) * truth.abs().square().mean().sqrt()
    for image, least, most in ((truth, 0.0, 0.1), (0 * truth, 0.9, 1.0), (wrong, 0.1, 0.9)):
        estimate = Estimate(image=image)
        trusts = examined(lambda _, estimate=estimate: estimate, of, estimate, classical(of))
        assert all(least <= trust.share <= most for trust in trusts)
        mean = mixed(estimate, classical(of), [trust.share for trust in trusts]).image
        assert error(mean, truth) < 1.1 * min(error(image, truth), error(CLASSICAL(of).image, truth)) + 0.01
    assert error(mean, truth) < 0.9 * error(wrong, truth)


@pytest.mark.parametrize("axis", [-2, -1])
def test_where_a_side_of_kspace_is_missing_l1_wavelet_has_no_share(axis: int) -> None:
    """Samples that were left out say nothing of that side."""
    mask = torch.ones(1, 1, 1, *SHAPE, dtype=torch.bool)
    assert all(trust.share > 0.5 for trust in measured(changed(torch.zeros_like, kept=False), scan(mask)))
    mask.narrow(axis, 0, SHAPE[axis] // 4).zero_()
    assert all(trust.share == 0 for trust in measured(changed(torch.zeros_like, kept=False), scan(mask)))


def test_an_image_that_is_wrong_by_chance_is_found() -> None:
    """The network gives another slice's image once, and is right when samples are left out."""
    of = scan(line_mask(2), noise=0.005)
    right = CLASSICAL(of)
    wrong = Estimate(image=right.image.roll(1, 0))
    for estimate, found in ((right, False), (wrong, True)):
        for trust in examined(CLASSICAL, of, estimate, classical(of)):
            trust = dataclasses.replace(trust, residual=1.0)  # that of an image made consistent with the data
            assert bool(doubt(trust)) == found
            assert not found or "the samples between the measured ones change by" in doubt(trust)


@pytest.mark.parametrize(("side", "changes"), [("between", True), ("measured", False), ("missing", False)])
def test_a_change_counts_between_the_samples_alone(side: str, changes: bool) -> None:
    """Samples of one side are missing, as in partial Fourier. Consistency with the data hides changes of the others."""
    mask = line_mask(2)
    mask[..., :20, :] = False
    row = {"between": 53, "measured": 54, "missing": 9}[side]
    more = torch.zeros(1, 1, 1, *SHAPE, dtype=torch.complex64)
    more[..., row, 30] = 5.0
    of = Scan(
        kspace=torch.zeros_like(more),
        mask=mask,
        sens=torch.ones(1, 1, 1, *SHAPE, dtype=torch.complex64),
        noise=torch.full((1,), 0.1),
    )
    wrong, nothing = (Estimate(image=ifftc(x)[:, 0]) for x in (more, torch.zeros_like(more)))
    (trust,) = examined(lambda _: nothing, of, wrong, nothing, lambda _: nothing)
    count = int((~mask[..., 20:63, :]).sum())  # row 62 is the last that is sampled
    assert trust.change == pytest.approx(50 / math.sqrt(count) if changes else 0.0, abs=1e-4)
    assert trust.reference_change == 0.0


def judged(change: Tensor, other: Tensor) -> list[Trust]:
    """Measures of a network and a classical method whose k-space is `change` and `other` off the data (batch, y, x)."""
    of = scan(line_mask(2), batch=1)
    images = [Estimate(image=ifftc(x)[:, None]) for x in (change, other)]
    shape = (len(change), 1, 1, *SHAPE)
    of = dataclasses.replace(
        of,
        kspace=torch.zeros(shape, dtype=torch.complex64),
        sens=torch.ones(shape, dtype=torch.complex64),
        noise=torch.full((len(change),), 1.0),
    )
    return examined(lambda _: images[0], of, images[0], images[1], lambda _: images[1])


def rough(seed: int, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *SHAPE, dtype=torch.complex64, generator=generator)


def test_predictions_that_are_equally_good_differ_by_about_one_standard_error() -> None:
    """The larger of two, each normal, is above 2 in at most 4.6 % of the scans."""
    found = [trust.significance for trust in judged(rough(1, 400), rough(2, 400))]
    assert 0.005 < np.mean(np.greater(found, 2.0)) < 0.06
    assert np.mean(np.greater(found, 4.0)) == 0.0


def test_an_error_in_one_sample_is_chance_and_one_in_all_is_not() -> None:
    """Both networks have twice the error of l1-wavelet. One has it in a single strong sample."""
    one, all_of_it = 10 * rough(1, 1), 20 * rough(1, 1)
    place = torch.nonzero(left_out(line_mask(2))[0, 0, 0])[7]
    energy = float((one.abs().square() * left_out(line_mask(2))[0, 0]).sum())
    strong = one.clone()
    strong[0, place[0], place[1]] = math.sqrt(3 * energy)
    for wrong, found in ((strong, False), (all_of_it, True)):
        (trust,) = judged(wrong, one)
        assert trust.prediction == pytest.approx(2 * trust.reference, rel=0.02)
        trust = dataclasses.replace(trust, residual=1.0)
        assert bool(doubt(trust)) == found


@pytest.mark.parametrize(
    ("significance", "found"), [(-3.0, False), (1.9, False), (2.1, True), (math.nan, True), (None, True)]
)
def test_only_what_is_significant_is_doubted(significance: float | None, found: bool) -> None:
    trust = Trust(residual=1.0, prediction=1.5, reference=1.0, reference_residual=1.0, significance=significance)
    assert bool(doubt(trust)) == found
    assert doubt(dataclasses.replace(trust, prediction=1.1)) == ""  # significant or not: less than the noise allows


@pytest.mark.parametrize(("misfit", "found"), [(1.0, True), (50.0, False)])
def test_what_sensitivities_do_not_explain_is_noise(misfit: float, found: bool) -> None:
    trust = Trust(residual=misfit, prediction=22.9, reference=22.0, significance=5.0, reference_residual=misfit)
    assert bool(doubt(trust)) == found


def test_without_a_share_the_image_stays() -> None:
    estimate = Estimate(image=torch.ones(2, 1, *SHAPE, dtype=torch.complex64))
    assert mixed(estimate, classical(scan()), [None, 0.0]) is estimate
    assert mixed(estimate, None, [1.0, 0.5]) is estimate


@pytest.mark.parametrize("check", ["fallback", "warn", "off"])
def test_without_sensitivities_the_image_is_the_network_s_alone(check: Check) -> None:
    estimate = Estimate(image=torch.ones(2, 1, *SHAPE, dtype=torch.complex64))
    run = checked(lambda _: estimate, check, 2)
    assert run(dataclasses.replace(scan(), sens=None)) == estimate


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        torch.zeros_like,
        lambda image: 1e30 * image,
        lambda image: image.roll(1, 0),
        lambda image: image.flip(-2),
        lambda image: image + 0.3 * image.roll(16, -2),
    ],
    ids=["zeros", "1e30", "another slice", "upside down", "a fold"],
)
@pytest.mark.parametrize("mask", [line_mask(), place_mask()], ids=["lines", "places"])
def test_wrong_images_are_doubted(mask: Tensor, change: Callable[[Tensor], Tensor], kept: bool) -> None:
    of = scan(mask)
    assert all(doubt(trust) for trust in measured(changed(change, kept=kept), of))


def test_without_noise_the_prediction_alone_counts() -> None:
    of = dataclasses.replace(scan(), noise=None)
    good, wrong = (measured(network, of)[0] for network in (CLASSICAL, changed(torch.zeros_like, kept=False)))
    assert good.residual is None
    assert doubt(good) == ""
    assert wrong.prediction == pytest.approx(1.0)  # of the size of the samples: nothing of them was predicted
    assert "of their size" in doubt(wrong)


def test_slices_count_together_by_their_squares() -> None:
    assert together([]) is None
    one = Trust(residual=3.0, prediction=None, significance=1.0)
    other = Trust(residual=4.0, prediction=2.0, significance=3.0)
    both = together([one, other])
    assert both is not None
    assert both.residual == pytest.approx(math.sqrt(12.5))
    assert both.prediction == 2.0
    assert both.reference is None
    assert both.significance == pytest.approx(4 / math.sqrt(2))  # that of the sum of both


@pytest.mark.parametrize("mask", [line_mask(), place_mask()])
@pytest.mark.parametrize("check", ["warn", "fallback"])
@pytest.mark.parametrize("batch", [1, 2])
def test_both_runs_in_one_say_the_same(mask: Tensor, check: Check, batch: int) -> None:
    sizes: list[int] = []

    def counted(of: Scan) -> Estimate:
        sizes.append(len(of.kspace))  # type: ignore[arg-type]
        return changed(lambda image: image * 1.01)(of)

    of = scan(mask, batch=batch)
    with torch.inference_mode():
        apart = checked(counted, check, 1, counted)(of)
        assert sizes == [batch] * 4
        sizes.clear()
        one = checked(counted, check, 1, counted, 2 * batch)(of)
        assert sizes == [2 * batch] * 2
    torch.testing.assert_close(one.image, apart.image, rtol=1e-5, atol=1e-5)
    for a, b in zip(one.trust, apart.trust, strict=True):
        for field in dataclasses.fields(Trust):
            assert getattr(a, field.name) == pytest.approx(getattr(b, field.name), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("at_once", [0, 4])
def test_maps_and_logits_beside_the_image_stay(at_once: int) -> None:
    def more(of: Scan) -> Estimate:
        estimate = CLASSICAL(of)
        assert estimate.image is not None
        size = estimate.image.abs()
        return dataclasses.replace(estimate, maps={"deviation": size[:, 0]}, logits=size)

    of = scan(batch=2)
    with torch.inference_mode():
        wanted, found = more(of), checked(more, "warn", 1, CLASSICAL, at_once)(of)
    torch.testing.assert_close(found.maps, wanted.maps)
    torch.testing.assert_close(found.logits, wanted.logits)


def test_more_slices_than_one_run_takes_go_one_after_another() -> None:
    sizes: list[int] = []

    def counted(of: Scan) -> Estimate:
        sizes.append(len(of.kspace))  # type: ignore[arg-type]
        return CLASSICAL(of)

    with torch.inference_mode():
        checked(counted, "warn", 1, counted, 3)(scan())
    assert sizes == [2] * 4


def test_scans_with_and_without_a_noise_level_are_no_batch() -> None:
    """The level of the others would be lost."""
    known = scan(batch=1)
    unknown = dataclasses.replace(known, noise=None)
    assert joined([unknown, unknown]).noise is None
    for scans in ([known, unknown], [unknown, known]):
        with pytest.raises(ValueError, match="noise is not known for all slices"):
            joined(scans)


def test_a_mask_for_all_slices_is_repeated_where_other_scans_have_another() -> None:
    two, one = scan(line_mask(), batch=2), scan(place_mask(), batch=1)
    mask, kspace = joined([two, one]).mask, joined([two, one]).kspace
    assert mask is not None
    assert kspace is not None
    assert len(mask) == len(kspace) == 3
    for n, wanted in enumerate((line_mask(), line_mask(), place_mask())):
        assert torch.equal(mask[n : n + 1], wanted)
