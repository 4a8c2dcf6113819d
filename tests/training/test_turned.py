"""Turned scans: their images are those of the scan at other angles, sampled as the scan itself was."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from mrnets.contract import Estimate, Scan
from mrnets.physics.coils import expand, forward
from mrnets.physics.fourier import fftc, ifftc
from mrnets.physics.rigid import moved
from training.data import Example
from training.losses import loss
from training.options import Loss
from training.selfsupervised import split
from training.settings import SelfSupervised
from training.turned import LARGEST, turned

SHAPES = [(48, 48), (48, 40), (41, 45)]


def blobs(shape: tuple[int, int]) -> torch.Tensor:
    """Two smooth images (2, 1, y, x), complex and without any symmetry, that leave the edge of the field free."""
    y, x = (torch.arange(n) - n // 2 for n in shape)
    places = [(3.0, 2.0, -1.5), (-2.0, 4.0, 0.5)]
    made = [torch.exp(-(((y[:, None] - v) / 5) ** 2) - ((x - u) / 3.5) ** 2) * (1 + p * x / 20) for v, u, p in places]
    return torch.stack(made)[:, None].to(torch.complex64) * (1 + 0.4j)


def accelerated(shape: tuple[int, int]) -> tuple[Example, torch.Tensor, torch.Tensor]:
    """Two slices without noise, split; every third line and eight in the middle are measured. Images; the mask."""
    image = blobs(shape)
    y, x = ((torch.arange(n) - n // 2) / n for n in shape)
    sens = torch.stack([1 + y[:, None] + 0 * x, 0.7 - x + 0 * y[:, None]]).expand(2, 1, 2, *shape).to(torch.complex64)
    mask = torch.zeros(1, 1, 1, *shape, dtype=torch.bool)
    middle = shape[0] // 2
    mask[..., 1::3, :] = mask[..., middle - 4 : middle + 4, :] = True
    kspace = forward(image[:, :, :], sens, mask)
    scan = Scan(kspace=kspace, mask=mask, sens=sens, noise=torch.tensor([0.1, 0.2]))
    whole = Example(scan=scan, names=("a", "b"), kspace=kspace, weight=torch.ones(2))
    settings = SelfSupervised(share=0.4)
    return split(whole, settings, [np.random.default_rng(n) for n in range(2)]), image, mask


def angles(seed: int) -> torch.Tensor:
    """Those that `turned` draws."""
    torch.manual_seed(seed)
    return LARGEST * (2 * torch.rand(2, 1, 1, 1, 1) - 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_turned_image_has_no_loss(shape: tuple[int, int]) -> None:
    example, image, _ = accelerated(shape)
    drawn = angles(3)
    torch.manual_seed(3)
    other = turned(example, Estimate(image=image))
    assert other.held is not None
    assert other.kspace is not None
    assert other.scan.kspace.shape == (2, 1, 2, *shape[::-1])
    assert torch.equal(other.held, ~other.scan.mask)
    torch.testing.assert_close(other.scan.kspace, other.kspace * other.scan.mask)
    right = moved(image.transpose(-2, -1), drawn[:, 0], (0.0, 0.0))
    assert float(loss(Estimate(image=right), other, Loss(kspace=1.0))) < 0.03  # maps are interpolated
    assert float(loss(Estimate(image=image.transpose(-2, -1)), other, Loss(kspace=1.0))) > 0.5
    assert float((drawn[0] - drawn[1]).abs()) > 0.1  # each slice has its own


@pytest.mark.parametrize("shape", SHAPES)
def test_measured_samples_stay_and_the_image_fills_the_gaps_without_a_gradient(shape: tuple[int, int]) -> None:
    example, image, mask = accelerated(shape)
    drawn = angles(5)
    made = []
    for one in (image, (2 * image).requires_grad_()):
        torch.manual_seed(5)
        made.append(turned(example, Estimate(image=one)).kspace)
    assert not made[1].requires_grad
    back = fftc(moved(ifftc(made[1] - made[0]), -drawn, (0.0, 0.0)).transpose(-2, -1))
    gaps = fftc(expand(image[:, :, None], example.scan.sens[:, None], sets=True))[:, :, 0] * ~mask
    torch.testing.assert_close(back, gaps, rtol=0, atol=2e-3 * float(gaps.abs().max()))


def test_it_is_sampled_along_its_new_axis_as_along_its_own() -> None:
    example, image, mask = accelerated((48, 48))
    assert torch.equal(turned(example, Estimate(image=image)).scan.mask, mask.expand(2, -1, -1, -1, -1))
    example, image, mask = accelerated((36, 48))
    lines = turned(example, Estimate(image=image)).scan.mask[0, 0, 0].any(dim=-1)
    assert torch.equal(lines[6:42], mask[0, 0, 0, :, 0])
    assert torch.equal(lines[:6], mask[0, 0, 0, 30:, 0])  # the pattern goes on


def test_turns_reach_from_55_to_125_degrees() -> None:
    found = torch.cat([angles(n).flatten() for n in range(200)])
    assert math.degrees(float(found.max())) == pytest.approx(35, abs=1)
    assert math.degrees(float(found.min())) == pytest.approx(-35, abs=1)


def test_calibration_lines_are_those_of_the_turned_scan() -> None:
    example, image, _ = accelerated((48, 40))
    block = torch.zeros(2, 1, 2, 8, 6, dtype=torch.complex64)
    other = turned(
        dataclasses.replace(example, scan=dataclasses.replace(example.scan, calibration=block)), Estimate(image=image)
    )
    assert torch.equal(other.scan.calibration, other.kspace[..., 16:24, 21:27])


def test_a_scan_without_gaps_has_no_loss_and_no_gradient_that_is_not_finite() -> None:
    example, image, _ = accelerated((48, 48))
    whole = turned(dataclasses.replace(example, held=~example.scan.mask), Estimate(image=image))
    guess = torch.ones_like(whole.kspace[:, :, 0]).requires_grad_()
    value = loss(Estimate(image=guess), whole, Loss(kspace=1.0))
    assert float(value.detach()) == 0
    value.backward()
    assert not torch.view_as_real(guess.grad).any()
