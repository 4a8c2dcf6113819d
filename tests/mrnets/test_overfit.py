"""Every network can learn: a narrow one learns four slices by heart. Slow: minutes in all on two cores."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mrnets import store
from mrnets.blocks.relaxometry import relaxometry
from mrnets.contract import Estimate, Scan
from mrnets.physics.coils import forward
from mrnets.physics.maps import MAPS
from mrnets.physics.relaxation import signal
from training.metrics import dice, ssim

SIZE = 40
TIMES = (0.003, 0.0115, 0.020, 0.0285)
TASKS = {name: store.describe(name).task for name in store.names()}
LEARNED = [name for name in TASKS if store.describe(name).learns]


def grid() -> tuple[Tensor, Tensor]:
    line = torch.linspace(-1, 1, SIZE)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return y, x


def discs(generator: torch.Generator, slices: int, number: int) -> Tensor:
    """(slice, number, y, x): ones in ellipses at random places."""
    y, x = grid()
    centres = torch.rand((slices, number, 2, 1, 1), generator=generator) - 0.5
    radii = 0.08 + 0.25 * torch.rand((slices, number, 2, 1, 1), generator=generator)
    away = torch.stack((y, x)) - centres
    return ((away / radii).square().sum(dim=2) < 1).float()


def coils(number: int) -> Tensor:
    """(1, 1, number, y, x) of unit norm."""
    y, x = grid()
    angles = (2 * math.pi / number * torch.arange(number))[:, None, None]
    distance = (y - 1.2 * angles.sin()) ** 2 + (x - 1.2 * angles.cos()) ** 2
    sens = torch.polar(torch.exp(-distance / 1.5), angles * (1 + x))
    return (sens / torch.linalg.vector_norm(sens, dim=0))[None, None]


def sampled(
    echoes: Tensor, generator: torch.Generator, fraction: float, *, sigma: float = 0.002, **fields: Tensor
) -> Scan:
    """The scan of `echoes` (slice, echo, y, x) under six coils: a fraction of the lines, and the six in the middle."""
    mask = torch.rand((1, 1, 1, SIZE, 1), generator=generator) < fraction
    mask[..., SIZE // 2 - 3 : SIZE // 2 + 3, :] = True
    mask = mask.expand(1, 1, 1, SIZE, SIZE).clone()
    sens = coils(6).expand(len(echoes), -1, -1, -1, -1)
    kspace = forward(echoes, sens, mask)
    noise = sigma * torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)
    level = torch.full((len(echoes),), sigma)
    return Scan(kspace=kspace + mask * noise, mask=mask, sens=sens, noise=level, **fields)


def labelled(generator: torch.Generator, number: int) -> tuple[Tensor, Tensor]:
    """Classes (number, y, x) from 0 to 3, ellipses on a background, and images (number, 4, y, x) of four contrasts."""
    labels = torch.zeros((number, SIZE, SIZE), dtype=torch.long)
    for index, disc in enumerate(discs(generator, number, 3).unbind(1), start=1):
        labels[disc > 0] = index
    contrasts = torch.rand((4, 4), generator=generator)
    images = contrasts[:, labels].movedim(0, 1)
    return labels, images + 0.1 * torch.randn(images.shape, generator=generator)


def overlap(logits: Tensor, labels: Tensor) -> float:
    """The least Dice coefficient of the classes 1 to 3, over everything."""
    decided = logits.argmax(dim=1)
    return min(dice(decided.numpy() == index, labels.numpy() == index) for index in (1, 2, 3))


def image_loss(estimate: Estimate, image: Tensor) -> Tensor:
    error = estimate.image - image
    magnitude = (estimate.image.abs() ** 2 + 1e-12).sqrt()
    return (error.abs() ** 2 + 1e-12).sqrt().mean() + 0.2 * (1 - ssim(magnitude, image.abs()).mean())


def alike(estimate: Estimate, image: Tensor) -> bool:
    return bool((ssim(estimate.image.abs(), image.abs()) > 0.98).all())


def train(name: str, scan: Scan, loss: Any, good: Any, steps: int = 500) -> bool:
    """Whether `good` of the estimate becomes true within `steps` steps of Adam on `loss`."""
    traits = store.describe(name)
    torch.manual_seed(0)
    network = store.create(name, **traits.narrow)
    assert not good(network(scan))
    optimiser = torch.optim.Adam(network.parameters(), traits.learning_rate)
    for _ in range(steps):
        estimate: Estimate = network(scan)
        everything = (*estimate.steps, estimate)
        weights = torch.logspace(-1, 0, len(everything))
        optimiser.zero_grad()
        sum(w * loss(one) for w, one in zip(weights, everything, strict=True)).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if good(estimate):
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LEARNED if TASKS[name] == "reconstruction"])
def test_learns_four_slices(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    y, x = grid()
    amounts = 0.6 * torch.rand((4, 10, 1, 1), generator=generator) - 0.2
    magnitude = (0.5 + (amounts * discs(generator, 4, 10)).sum(dim=1)) * (x**2 + 1.2 * y**2 < 0.8)
    image = torch.polar(magnitude.clamp(min=0), 0.8 * x + y**2)[:, None]
    image = image / image.abs().amax()
    scan = sampled(image, generator, 0.15)

    def loss(estimate: Estimate) -> Tensor:
        return image_loss(estimate, image)

    def good(estimate: Estimate) -> bool:
        return alike(estimate, image)

    assert not good(store.create("zerofilled")(scan))
    assert train(name, scan, loss, good)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LEARNED if TASKS[name] == "quantitative"])
def test_learns_the_maps_of_four_slices(name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    y, x = grid()
    inside = (x**2 + 1.2 * y**2 < 0.8).float()
    spots = discs(generator, 4, 6)
    decay = 25 + (20 * torch.rand((4, 6, 1, 1), generator=generator) * spots).sum(dim=1)
    density = 0.8 + (0.3 * (torch.rand((4, 6, 1, 1), generator=generator) - 0.5) * spots).sum(dim=1)
    smooth = torch.stack((40 * x - 25 * y**2, 1.2 * y + 0.3)).expand(4, -1, -1, -1)
    maps = inside * torch.cat((decay[:, None], density[:, None], smooth), dim=1)
    scan = sampled(signal(maps, TIMES), generator, 0.1, sigma=0.01, echo_times=torch.tensor(TIMES))
    size = (maps**2).mean(dim=(0, 2, 3), keepdim=True)

    def errors(estimate: Estimate) -> Tensor:
        return inside * (torch.stack([estimate.maps[key] for key in MAPS], dim=1) - maps)

    def loss(estimate: Estimate) -> Tensor:
        return (errors(estimate) / size.sqrt()).abs().mean()

    def good(estimate: Estimate) -> bool:
        return bool(((errors(estimate) ** 2).mean(dim=(0, 2, 3)) < 0.02 * size.flatten()).all())

    problem, start = relaxometry(scan, torch.nn.Identity(), start="cgsense", iterations=10)
    assert not good(problem.estimate(start))
    assert train(name, scan, loss, good)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LEARNED if TASKS[name] == "segmentation"])
def test_learns_the_labels_of_four_slices(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    slices = store.describe(name).slices
    labels, images = labelled(generator, 4 * slices)
    if slices > 1:  # the neighbours of each slice are learned with it
        labels, images = labels.unflatten(0, (4, slices)), images.unflatten(0, (4, slices)).movedim(1, 2)

    def loss(estimate: Estimate) -> Tensor:
        return functional.cross_entropy(estimate.logits, labels)

    def good(estimate: Estimate) -> bool:
        return overlap(estimate.logits, labels) > 0.95

    assert train(name, Scan(image=images), loss, good)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LEARNED if TASKS[name] == "joint"])
def test_learns_images_and_labels_of_four_slices(name: str) -> None:
    generator = torch.Generator().manual_seed(4)
    labels, contrasts = labelled(generator, 4)
    y, x = grid()
    image = torch.polar((0.3 + contrasts[:, :1].clamp(min=0)) * (x**2 + 1.2 * y**2 < 0.8), 0.8 * x + y**2)
    image = image / image.abs().amax()
    scan = sampled(image, generator, 0.15)

    def loss(estimate: Estimate) -> Tensor:
        image_part = 0.0 if estimate.image is None else image_loss(estimate, image)
        return image_part + (0.0 if estimate.logits is None else functional.cross_entropy(estimate.logits, labels))

    def good(estimate: Estimate) -> bool:
        return alike(estimate, image) and overlap(estimate.logits, labels) > 0.95

    assert not alike(store.create("zerofilled")(scan), image)
    assert train(name, scan, loss, good)
