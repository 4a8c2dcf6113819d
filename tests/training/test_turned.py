"""Calibration lines with exchanged axes: held out is what was measured there, of the image turned likewise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mrnets.contract import Estimate, Scan
from mrnets.physics.coils import forward
from mrnets.physics.fourier import ifftc
from mrnets.physics.masks import calibration_region
from mrnets.prepare import combine
from training.data import Example
from training.losses import loss
from training.options import Loss
from training.selfsupervised import split
from training.settings import SelfSupervised
from training.turned import turned


def accelerated(shape: tuple[int, int], rng: np.random.Generator) -> tuple[Example, torch.Tensor]:
    """Two slices without noise, every third line and eight in the middle measured; and their images."""

    def numbers(*size: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal((*size, 2)).astype(np.float32).view(np.complex64)[..., 0])

    image, sens = numbers(2, 1, *shape), numbers(2, 1, 3, *shape)
    mask = torch.zeros(1, 1, 1, *shape, dtype=torch.bool)
    middle = shape[0] // 2
    mask[..., 1::3, :] = mask[..., middle - 4 : middle + 4, :] = True
    kspace = forward(image[:, :, :], sens, mask)
    scan = Scan(kspace=kspace, mask=mask, sens=sens, noise=torch.tensor([0.1, 0.2]))
    return Example(scan=scan, names=("a", "b"), kspace=kspace, weight=torch.ones(2)), image


@pytest.mark.parametrize("shape", [(36, 36), (36, 24), (31, 45)])
def test_the_image_with_exchanged_axes_has_no_loss(shape: tuple[int, int], rng: np.random.Generator) -> None:
    example, image = accelerated(shape, rng)
    other = turned(example)
    assert other is not None
    assert other.held is not None
    scan, held = other.scan, other.held
    assert scan.kspace.shape == (2, 1, 3, *shape[::-1])
    assert held.any()
    assert not (held & scan.mask).any()
    known = (held | scan.mask)[:, 0, 0]
    assert (known == known[:, :1]).all()  # the band is whole along the new y
    assert int(known[0, 0].sum()) == calibration_region(example.scan.mask)[0]
    assert not scan.kspace[~scan.mask.expand_as(scan.kspace)].any()
    peaks = [combine(ifftc(s.kspace), s.sens).abs().amax(dim=(1, 2, 3)) for s in (scan, example.scan)]
    torch.testing.assert_close(*peaks)
    scale = example.scan.noise / scan.noise
    right = Estimate(image=(image / scale[:, None, None, None]).transpose(-2, -1))
    assert float(loss(right, other, Loss(kspace=1.0))) < 1e-4
    assert float(loss(Estimate(image=right.image.flip(-1)), other, Loss(kspace=1.0))) > 0.5


def test_lines_along_the_new_axis_are_those_of_the_scan(rng: np.random.Generator) -> None:
    example, _ = accelerated((36, 36), rng)
    other = turned(example)
    assert other is not None
    assert torch.equal(other.scan.mask.any(dim=-1), example.scan.mask.any(dim=-1))
    longer = turned(accelerated((36, 48), rng)[0])
    assert longer is not None
    middle = longer.scan.mask.any(dim=-1)[0, 0, 0, 6:42]
    assert torch.equal(middle, example.scan.mask.any(dim=-1)[0, 0, 0])


def test_scans_without_whole_lines_or_gaps_have_none(rng: np.random.Generator) -> None:
    example, _ = accelerated((36, 36), rng)
    scattered = example.scan.mask.clone()
    scattered[..., 1, ::2] = False
    for mask in (scattered, torch.ones_like(example.scan.mask), example.scan.mask & ~example.scan.mask[..., 18:19, :]):
        assert turned(dataclasses.replace(example, scan=dataclasses.replace(example.scan, mask=mask))) is None


def test_a_share_of_the_examples_is_turned(rng: np.random.Generator) -> None:
    example, _ = accelerated((36, 24), rng)
    settings = SelfSupervised(share=0.5, turned=0.3)
    found = [
        split(example, settings, [np.random.default_rng([seed, n]) for n in range(2)]).scan.mask.shape[-2]
        for seed in range(100)
    ]
    assert 15 < found.count(24) < 45
    assert found.count(24) + found.count(36) == 100
