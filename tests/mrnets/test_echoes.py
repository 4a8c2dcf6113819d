"""Echoes of different phases: each comes out as if it were alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from mrnets import store
from mrnets.contract import Estimate, Scan
from mrnets.echoes import each_echo, echo_phases
from mrnets.physics.coils import adjoint, forward
from tests.mrnets.examples import create, scan

RECONSTRUCTION = [
    name
    for name in store.names()
    if store.describe(name).task == "reconstruction" and store.describe(name).echoes == "each"
]


@pytest.fixture
def phases() -> Tensor:
    """(1, 3, y, x): none, a field of a few cycles, and the same twice as long after the excitation."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 20), indexing="ij")
    field = 1.5 * y + 2.0 * x**2 - 1.0 * y * x + 0.5
    return torch.polar(torch.ones(3, 24, 20), torch.stack((0 * field, field, 2 * field)))[None]


@pytest.fixture
def echoes(phases: Tensor) -> Scan:
    """Three echoes of one real, positive object, fully sampled, each with a phase of its own."""
    one = scan((24, 20), fraction=2.0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 20), indexing="ij")
    image = (1.5 + torch.cos(2 * x) * torch.cos(3 * y)) * phases
    sens = one.sens / one.sens.abs().square().sum(2, keepdim=True).sqrt()
    return dataclasses.replace(one, kspace=forward(image, sens, one.mask), sens=sens, image=None)


def real_part(scan: Scan) -> Estimate:
    """A network that treats imaginary parts as noise."""
    image = adjoint(scan.kspace, scan.sens, scan.mask)
    return Estimate(image=image.real + 0j, steps=(Estimate(image=image.real + 0j),))


def test_the_phase_of_each_echo_is_found(echoes: Scan, phases: Tensor) -> None:
    error = torch.angle(echo_phases(echoes) * phases.conj())[:, :, 3:-3, 3:-3]
    assert float(error.abs().mean()) < 0.2


def test_what_takes_imaginary_parts_for_noise_spoils_echoes_only_when_they_go_together(echoes: Scan) -> None:
    truth = adjoint(echoes.kspace, echoes.sens, echoes.mask)
    spoilt = real_part(echoes).image
    kept = each_echo(real_part)(echoes)
    error, before = (
        torch.linalg.vector_norm(x - truth) / torch.linalg.vector_norm(truth) for x in (kept.image, spoilt)
    )
    assert error < 0.25 < 0.5 < before
    torch.testing.assert_close(kept.steps[0].image, kept.image)


@pytest.mark.parametrize("name", RECONSTRUCTION)
def test_every_echo_is_what_it_is_alone(name: str, echoes: Scan) -> None:
    network = each_echo(create(name).eval())
    with torch.inference_mode():
        together = network(echoes).image
        for n in range(3):
            alone = dataclasses.replace(echoes, kspace=echoes.kspace[:, [n, n]])
            torch.testing.assert_close(network(alone).image[:, 0], together[:, n], atol=2e-4, rtol=1e-3)


def test_a_scan_of_one_echo_or_without_maps_goes_through_untouched(echoes: Scan) -> None:
    seen = []

    def network(scan: Scan) -> Estimate:
        seen.append(scan)
        return Estimate()

    for one in (dataclasses.replace(echoes, kspace=echoes.kspace[:, :1]), dataclasses.replace(echoes, sens=None)):
        each_echo(network)(one)
        assert seen[-1] is one
