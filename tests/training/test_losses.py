"""Losses by hand, from their definitions, and against brute force."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from mrnets.contract import Estimate, Scan
from mrnets.errors import InputError
from training.data import Example
from training.losses import loss, sinkhorn
from training.metrics import ssim
from training.options import Loss

TISSUES = ("background", "GM", "WM")


def example(**fields: object) -> Example:
    values = [v for v in fields.values() if isinstance(v, torch.Tensor)]
    maps = fields.get("maps")
    values += list(maps.values()) if isinstance(maps, dict) else []
    ones = {"scan": Scan(), "names": ("slice",) * len(values[0]), "weight": torch.ones(len(values[0]))}
    return Example(**{**ones, **fields})  # type: ignore[arg-type]


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(2, 3, 16, 14, dtype=torch.complex64, generator=generator) for _ in range(2)]
    return made[0], made[1]


def test_the_terms_of_images_by_their_definition(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, target = pair
    peak = target.abs().amax(dim=(-2, -1), keepdim=True)
    error = (image.abs() - target.abs()) / peak
    wanted = {
        "ssim": 1 - ssim(image.abs(), target.abs()).mean(),
        "l1": error.abs().mean(),
        "l2": (error**2).mean(),
        "complex_l1": ((image - target).abs() / peak).mean(),
    }
    each = {name: float(loss(Estimate(image=image), example(target=target), Loss(**{name: 1.0}))) for name in wanted}
    assert each == pytest.approx({name: float(value) for name, value in wanted.items()}, rel=1e-5)
    mixed = loss(Estimate(image=image), example(target=target), Loss(ssim=2, l1=1, complex_l1=1))
    assert float(mixed) == pytest.approx((2 * each["ssim"] + each["l1"] + each["complex_l1"]) / 4, rel=1e-6)
    assert float(loss(Estimate(image=target), example(target=target), Loss(complex_l1=1.0))) < 1e-5


def test_decibels_count_ratios_and_end_below_the_noise(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, target = pair
    whole, tenth = (
        float(loss(Estimate(image=target + share * (image - target)), example(target=target), Loss(decibel=1.0)))
        for share in (1.0, 0.1)
    )
    peak = target.abs().amax((-2, -1), keepdim=True)
    wanted = 10 * torch.log10(((image - target).abs() / peak).square().mean((1, 2, 3))).mean()
    assert whole == pytest.approx(float(wanted), abs=1e-3)
    assert whole - tenth == pytest.approx(20, abs=1e-2)
    noise = 0.04 * target.abs().amax((1, 2, 3))
    known = dataclasses.replace(example(target=target), scan=Scan(noise=noise))
    assert float(loss(Estimate(image=target), known, Loss(decibel=1.0))) == pytest.approx(-60, abs=0.01)


def test_gradients_where_the_image_or_the_target_vanishes() -> None:
    image = torch.zeros(2, 1, 16, 16, dtype=torch.complex64, requires_grad=True)
    target = torch.zeros(2, 1, 16, 16, dtype=torch.complex64)
    target[0, :, 4:8, 4:8] = 1
    value = loss(Estimate(image=image), example(target=target), Loss(complex_l1=1.0, ssim=1.0, l1=1.0, wasserstein=1.0))
    value.backward()
    assert image.grad is not None
    assert torch.isfinite(torch.view_as_real(image.grad)).all()


def test_slices_that_teach_nothing_have_no_part(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, target = pair
    whole = example(target=target)
    of_one = loss(Estimate(image=image[:1]), example(target=target[:1]), Loss(l1=1.0))
    masked = dataclasses.replace(whole, weight=torch.tensor([1.0, 0.0]))
    assert float(loss(Estimate(image=image), masked, Loss(l1=1.0))) == pytest.approx(float(of_one) / 2, rel=1e-6)


def test_sinkhorn_is_transport() -> None:
    """With little entropy it is the best assignment; else it is the textbook's scaling of a kernel, in float64."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 7, 5))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    rows, columns = linear_sum_assignment(cost)
    tensors = torch.from_numpy(np.stack((x, y)))[:, None]
    sharp = sinkhorn(tensors[0], tensors[1], epsilon=0.01, iterations=3000)
    assert float(sharp) == pytest.approx(cost[rows, columns].mean(), rel=1e-3)

    kernel, v = np.exp(-cost / 2), np.ones(7)
    for _ in range(50):
        u = 1 / 7 / (kernel @ v)
        v = 1 / 7 / (kernel.T @ u)
    textbook = (u[:, None] * kernel * v * cost).sum()
    assert float(sinkhorn(tensors[0], tensors[1], epsilon=2.0, iterations=50)) == pytest.approx(textbook, rel=1e-9)
    assert float(sinkhorn(tensors[0], tensors[0].flip(1))) == pytest.approx(0, abs=1e-3)


def test_sinkhorns_gradient_is_that_of_regularised_transport() -> None:
    """Against finite differences of <P, C> + epsilon <P, log P>, whose minimum P is."""
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.rand(1, 4, 2, dtype=torch.float64, generator=generator) for _ in range(2))

    def regularised(points: torch.Tensor) -> float:
        cost = ((points[0, :, None] - y[0]) ** 2).sum(-1)
        f = g = torch.zeros(4, dtype=torch.float64)
        for _ in range(400):
            f = -0.1 * torch.logsumexp((g - cost) / 0.1, dim=1) - 0.1 * math.log(4)
            g = -0.1 * torch.logsumexp((f[:, None] - cost) / 0.1, dim=0) - 0.1 * math.log(4)
        plan = torch.exp((f[:, None] + g - cost) / 0.1)
        return float((plan * cost).sum() + 0.1 * (plan * plan.log()).sum())

    x.requires_grad_()
    sinkhorn(x, y, iterations=400).sum().backward()
    step = torch.zeros_like(x)
    step[0, 2, 1] = 1e-4
    with torch.no_grad():
        slope = (regularised(x + step) - regularised(x - step)) / 2e-4
    assert x.grad is not None
    assert float(x.grad[0, 2, 1]) == pytest.approx(slope, rel=1e-4)


def test_dice_and_cross_entropy_by_hand() -> None:
    """Two classes beside the background, four pixels; probabilities that are exact fractions."""
    labels = torch.tensor([[[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]], dtype=torch.bool).reshape(1, 3, 2, 2)
    chance = torch.tensor([[[0.5, 0.25, 0.25, 0.5], [0.25, 0.5, 0.5, 0.25], [0.25, 0.25, 0.25, 0.25]]])
    one = Estimate(logits=chance.log().reshape(1, 3, 2, 2))
    dice = ((2 * 1.0 + 1) / (1.5 + 2 + 1) + (2 * 0.25 + 1) / (1.0 + 1 + 1)) / 2
    assert float(loss(one, example(labels=labels), Loss(dice=1.0), TISSUES)) == pytest.approx(1 - dice, rel=1e-6)
    entropy = (3 * math.log(2) + math.log(4)) / 4
    got = float(loss(one, example(labels=labels), Loss(cross_entropy=1.0), TISSUES))
    assert got == pytest.approx(entropy, rel=1e-6)

    lesion = torch.tensor([True, False, False, False]).reshape(1, 1, 2, 2)
    flat = Estimate(logits=torch.full((1, 1, 2, 2), math.log(3.0)))  # everywhere 0.75
    got = float(loss(flat, example(labels=lesion), Loss(dice=1.0), ("lesion",)))
    assert got == pytest.approx(1 - (2 * 0.75 + 1) / (3 + 1 + 1), rel=1e-6)
    got = float(loss(flat, example(labels=lesion), Loss(cross_entropy=1.0), ("lesion",)))
    assert got == pytest.approx(-(math.log(0.75) + 3 * math.log(0.25)) / 4, rel=1e-6)


def test_dice_of_absent_classes() -> None:
    absent = example(labels=torch.zeros(1, 1, 4, 4, dtype=torch.bool))
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    value = loss(Estimate(logits=logits), absent, Loss(dice=1.0), ("lesion",))
    value.backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()
    assert float(loss(Estimate(logits=logits.detach() - 99), absent, Loss(dice=1.0))) == pytest.approx(0, abs=1e-6)


def test_maps_are_compared_without_units_and_inside_the_region() -> None:
    region = torch.zeros(1, 8, 8, dtype=torch.bool)
    region[:, :4] = True
    truth = {n: torch.zeros(1, 8, 8) for n in ("R2*", "S0", "B0", "phase")}
    truth["S0"] += 5e-4
    wrong = {"R2*": truth["R2*"] + 5, "S0": truth["S0"] + 5e-5, "B0": truth["B0"] - 10, "phase": truth["phase"]}
    wrong = {name: m + 1e3 * ~region for name, m in wrong.items()}
    got = float(loss(Estimate(maps=wrong), example(maps=truth, region=region), Loss(l1=1.0)))
    assert got == pytest.approx((0.1 + 0.1 + 0.1 + 0) / 4, rel=1e-4)
    got = float(loss(Estimate(maps=wrong), example(maps=truth, region=region), Loss(l2=1.0)))
    assert got == pytest.approx(3 * 0.01 / 4, rel=1e-4)
    turned = {**truth, "phase": truth["phase"] + 2 * math.pi}
    for terms in (Loss(l1=1.0), Loss(l2=1.0), Loss(ssim=1.0)):
        assert float(loss(Estimate(maps=turned), example(maps=truth, region=region), terms)) < 1e-6


def test_steps_weigh_from_a_tenth_to_one_field_by_field() -> None:
    target = torch.ones(1, 1, 8, 8, dtype=torch.complex64)
    labels = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    off = [Estimate(image=target * (1 + n / 10)) for n in (3, 2)]
    final = Estimate(image=target, logits=torch.full((1, 1, 8, 8), 99.0), steps=tuple(off))
    both = example(target=target, labels=labels)
    weights = np.array([0.1, math.sqrt(0.1), 1.0])
    wanted = (weights * [0.3, 0.2, 0]).sum() / weights.sum()
    assert float(loss(final, both, Loss(l1=1.0))) == pytest.approx(wanted, rel=1e-5)
    assert float(loss(final, both, Loss(l1=1.0, steps=False))) == pytest.approx(0, abs=1e-6)
    # The logits come once: their term counts fully.
    missed = dataclasses.replace(final, logits=torch.zeros(1, 1, 8, 8))
    got = float(loss(missed, both, Loss(l1=1.0, cross_entropy=1.0)))
    assert got == pytest.approx((wanted + math.log(2)) / 2, rel=1e-5)


def test_half_precision_is_computed_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 64, 64, generator=generator).bfloat16()
    labels = torch.randn(1, 2, 64, 64, generator=generator) > 0
    terms = Loss(dice=1.0, cross_entropy=1.0)
    got = loss(Estimate(logits=logits), example(labels=labels), terms)
    assert got.dtype == torch.float32
    assert float(got) == float(loss(Estimate(logits=logits.float()), example(labels=labels), terms))


def test_terms_that_apply_to_nothing_are_named() -> None:
    target = torch.ones(1, 1, 8, 8, dtype=torch.complex64)
    with pytest.raises(InputError, match=r"loss\.dice applies to nothing"):
        loss(Estimate(image=target), example(target=target), Loss(l1=1.0, dice=1.0))
    maps = {"R2*": torch.ones(1, 8, 8)}
    with pytest.raises(InputError, match=r"loss\.complex_l1"):
        loss(Estimate(maps=maps), example(maps=maps), Loss(complex_l1=1.0))
    logits, labels = torch.ones(1, 2, 8, 8), torch.ones(1, 3, 8, 8, dtype=torch.bool)
    with pytest.raises(InputError, match="logits"):
        loss(Estimate(logits=logits), example(labels=labels), Loss(dice=1.0))
