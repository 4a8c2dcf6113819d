"""Small scans and small options, for tests that run over every network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mrnets import store
from mrnets.contract import Estimate, Scan
from mrnets.physics.fourier import fftc, resize


def create(name: str, **options: Any) -> torch.nn.Module:
    """A small network of that name with seeded weights."""
    torch.manual_seed(7)
    return store.create(name, **{**store.describe(name).small, **options})


def scan(
    shape: tuple[int, int] = (24, 20),
    *,
    batch: int = 1,
    echoes: int = 1,
    coils: int = 3,
    fraction: float = 0.5,
    contrasts: tuple[int, ...] = (4,),
    seed: int = 1,
) -> Scan:
    """A scan with every field that any network may want. Smooth random object and unit-norm maps, no noise."""
    generator = torch.Generator().manual_seed(seed)

    def smooth(*leading: int) -> Tensor:
        low = torch.randn((*leading, 5, 5), dtype=torch.complex64, generator=generator)
        return fftc(resize(low, shape))

    image = smooth(batch, echoes)
    sens = smooth(batch, 1, coils)
    sens = sens / torch.linalg.vector_norm(sens, dim=2, keepdim=True)
    mask = torch.rand((1, 1, 1, shape[0], 1), generator=generator) < fraction
    mask[..., shape[0] // 2, :] = True
    mask = mask.expand(1, 1, 1, *shape).clone()
    full = fftc(image[:, :, None] * sens)
    return Scan(
        kspace=full * mask,
        mask=mask,
        sens=sens,
        image=smooth(batch, *contrasts).abs(),
        echo_times=torch.arange(1, echoes + 1) * 0.005,
        calibration=resize(full[:, :1], (min(6, shape[0]), min(6, shape[1]))),
        noise=torch.full((batch,), 0.01),
    )


def scan_for(name: str, shape: tuple[int, int] = (24, 20), **how: Any) -> Scan:
    """A scan with the images that the network of that name takes, its number of coils and enough echoes."""
    traits = store.describe(name)
    options = store.bind(name, **traits.small)
    slices = (traits.slices,) if traits.slices > 1 else ()
    how["coils"] = options.get("coils", how.get("coils", 3))
    how.setdefault("echoes", 4 if traits.task == "quantitative" else 1)
    return scan(shape, contrasts=(options.get("contrasts", 4), *slices), **how)


def pick(batch: Scan, index: int) -> Scan:
    """One element of a batch, as a batch of one."""
    return Scan(
        kspace=batch.kspace[index : index + 1],
        mask=batch.mask,
        sens=batch.sens[index : index + 1],
        image=batch.image[index : index + 1],
        echo_times=batch.echo_times,
        calibration=batch.calibration[index : index + 1],
        noise=batch.noise[index : index + 1],
    )


def tensors(estimate: Estimate) -> Iterator[Tensor]:
    """All that a network has estimated, its earlier steps included."""
    yield from (field for field in (estimate.image, estimate.logits, *estimate.maps.values()) if field is not None)
    for step in estimate.steps:
        yield from tensors(step)


def energy(estimate: Estimate) -> Tensor:
    """A scalar that depends on everything that a network has estimated."""
    return torch.stack([(field.abs() ** 2).mean() for field in tensors(estimate)]).sum()
