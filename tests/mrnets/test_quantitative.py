"""Relaxation maps as networks estimate them: in physical units, by the physical model, from any number of echoes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from mrnets import store
from mrnets.blocks.relaxometry import relaxometry
from mrnets.contract import Estimate, Scan
from mrnets.ending import consistent, ended, maps_of_object
from mrnets.errors import InputError
from mrnets.physics.coils import forward
from mrnets.physics.maps import MAPS
from mrnets.physics.relaxation import fit, signal
from mrnets.preparation import Preparation
from tests.mrnets.examples import create, scan

EVEN = (0.003, 0.0115, 0.020, 0.0285)
NAMES = ["qcirim", "qvarnet"]
PARAMETERS = {"qcirim": 302_720, "qvarnet": 19_637_632}


def truth(shape: tuple[int, int] = (32, 28), scale: float = 1.0) -> Tensor:
    """Maps (1, 4, y, x): an ellipse with a lesion, B0 from -40 to 40 Hz."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, shape[0]), torch.linspace(-1, 1, shape[1]), indexing="ij")
    inside = x**2 + 1.2 * y**2 < 0.8
    lesion = (x - 0.3) ** 2 + y**2 < 0.1
    maps = torch.stack((25 + 20 * lesion, scale * (1 - 0.4 * lesion), 40 * x, 1.2 * y + 0.3))
    return (maps * inside)[None]


def quantitative_scan(maps: Tensor, times: tuple[float, ...] = EVEN, *, fraction: float = 2.0) -> Scan:
    """The noise-free scan of `maps` at these echo times, sampled as `scan` does."""
    example = scan(tuple(maps.shape[-2:]), coils=4, echoes=len(times), fraction=fraction)
    echoes = signal(maps, times)
    return dataclasses.replace(
        example, kspace=forward(echoes, example.sens, example.mask), echo_times=torch.tensor(times), image=echoes
    )


def relative(got: Tensor, want: Tensor) -> float:
    return float((got - want).norm() / want.norm())


def without_network(name: str, **options: float) -> torch.nn.Module:
    """The network whose learned corrections are zero: what is left is its physics."""
    network = create(name, **options)
    last = "decoder.head" if name == "qvarnet" else "last"
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if last in key:
                parameter.zero_()
    return network


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_number_of_parameters_at_the_published_options(name: str, count: int) -> None:
    with torch.device("meta"):
        network = store.create(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("times", [EVEN, (0.004, 0.009), (0.002, 0.0033, 0.009, 0.021, 0.030)])
@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_physics_alone_keeps_true_maps_in_si_units(name: str, times: tuple[float, ...], scale: float) -> None:
    """Any number of echoes from two on, B0 of both signs, and k-space of any scale."""
    want = truth(scale=scale)
    with torch.no_grad():
        maps = without_network(name)(quantitative_scan(want, times)).maps
    assert tuple(maps) == tuple(MAPS)
    inside = want[:, 1] > 0
    for index, key in enumerate(MAPS):
        assert relative(maps[key][inside], want[:, index][inside]) < 0.01, key
    assert maps["B0"].min() < -30
    assert maps["B0"].max() > 30


def test_qvarnet_s_steps_alone_descend_to_the_data() -> None:
    """From a poor start, undersampled: many cascades without U-Nets bring the signal of the maps nearer to k-space."""
    example = quantitative_scan(truth(), fraction=0.5)

    def misfit(cascades: int) -> float:
        with torch.no_grad():
            found = without_network("qvarnet", cascades=cascades, start_iterations=1)(example).maps
        echoes = signal(torch.stack([found[key] for key in MAPS], dim=1), EVEN)
        return relative(forward(echoes, example.sens, example.mask), example.kspace)

    assert misfit(40) < 0.5 * misfit(1)


@pytest.mark.parametrize("name", NAMES)
def test_a_regularised_start_has_less_noise(name: str) -> None:
    example = quantitative_scan(truth(), fraction=0.4)
    noise = torch.randn(example.kspace.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    example = dataclasses.replace(example, kspace=example.kspace + 0.05 * noise * example.mask)
    inside = truth()[:, 1] > 0

    def error(regularisation: float) -> float:
        options = {"cascades": 1, **({"time_steps": 1} if name == "qcirim" else {})}
        with torch.no_grad():
            maps = without_network(name, **options, start_regularisation=regularisation)(example).maps
        return float((maps["R2*"] - truth()[:, 0])[inside].abs().mean())

    assert error(0.1) < 0.9 * error(1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_negative_b0_is_possible_with_the_network_at_work(name: str) -> None:
    maps = truth()
    maps[:, 2] = -40 * (maps[:, 1] > 0)
    with torch.no_grad():
        estimate = create(name)(quantitative_scan(maps)).maps
    assert estimate["B0"].min() < -10
    assert estimate["R2*"].min() >= 0


def test_gradient_is_that_of_autograd() -> None:
    example = quantitative_scan(truth((9, 8)), fraction=0.6)
    problem, maps = relaxometry(example, torch.nn.Identity(), start="cgsense", iterations=3)
    maps = (maps + 0.1 * torch.randn(maps.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
    predicted = forward(signal(maps * problem.units, example.echo_times), example.sens, example.mask)
    unit = problem.units[:, 1].max()
    loss = 0.5 * ((predicted - example.kspace).abs() ** 2).sum() / (4 * unit**2)
    (want,) = torch.autograd.grad(loss, maps)
    torch.testing.assert_close(problem.gradient(maps), want, rtol=1e-3, atol=1e-5)


def test_units_make_the_maps_equally_strong() -> None:
    """A change by 1 of a map changes the signal by about S0, whichever the map."""
    example = quantitative_scan(truth())
    problem, maps = relaxometry(example, torch.nn.Identity(), start="cgsense", iterations=3)
    typical = math.sqrt(sum(t * t for t in EVEN) / 4)
    assert problem.units[0, 0].item() == pytest.approx(1 / typical)
    assert problem.units[0, 2].item() == pytest.approx(1 / (2 * math.pi * typical))
    base = signal(maps * problem.units, EVEN)
    for index in (0, 2, 3):
        changed = maps.clone()
        changed[:, index] += 0.01
        difference = (signal(changed * problem.units, EVEN) - base).norm() / 0.01
        assert 0.3 < difference / base.norm() < 1.2


@pytest.mark.parametrize("name", NAMES)
def test_starts_from_the_images_of_another_network_on_request(name: str) -> None:
    """The two-stage scheme: the k-space here is too sparse for CG-SENSE, the given images are right."""
    want = truth()
    example = quantitative_scan(want, fraction=0.15)
    two_stage = without_network(name, start="image")
    with torch.no_grad():
        given = two_stage(example).maps["R2*"]
        own = without_network(name)(example).maps["R2*"]
    assert relative(given, want[:, 0]) < 0.01 < relative(own, want[:, 0])
    with pytest.raises(InputError, match=f"{name} with start='image' needs complex images"):
        two_stage(dataclasses.replace(example, image=None))
    with pytest.raises(InputError, match="complex"):
        two_stage(dataclasses.replace(example, image=example.image.real))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("times", "message"), [(None, "echo times"), ((0.01,), "two or more"), ((0.02, 0.01, 0.03, 0.04), "ascending")]
)
def test_echo_times_that_do_not_fit_are_refused(name: str, times: tuple[float, ...] | None, message: str) -> None:
    example = quantitative_scan(truth())
    times = None if times is None else torch.tensor(times)
    with pytest.raises(InputError, match=f"{name} needs.*{message}"):
        create(name)(dataclasses.replace(example, echo_times=times))


def test_the_start_is_the_fit() -> None:
    example = quantitative_scan(truth())
    problem, maps = relaxometry(example, torch.nn.Identity(), start="image", iterations=1)
    torch.testing.assert_close(maps * problem.units, fit(example.image, EVEN), rtol=2e-3, atol=1e-4)


def test_the_start_has_no_large_values_where_there_is_no_signal() -> None:
    example = quantitative_scan(truth())
    generator = torch.Generator().manual_seed(0)
    noise = 1e-3 * torch.randn(example.image.shape, dtype=torch.complex64, generator=generator)
    example = dataclasses.replace(example, image=example.image + noise)
    _, maps = relaxometry(example, torch.nn.Identity(), start="image", iterations=1)
    inside = truth()[0, 1] > 0
    for index in (0, 2):
        assert maps[0, index][~inside].abs().max() < maps[0, index][inside].abs().max()


def test_qcirim_gives_every_step_in_training_and_remembers() -> None:
    example = quantitative_scan(truth(), fraction=0.6)
    network = create("qcirim", time_steps=3, cascades=2).train()
    with torch.no_grad():
        estimate = network(example)
        assert len(estimate.steps) == 2 * 3 - 1
        assert all(tuple(step.maps) == tuple(MAPS) for step in estimate.steps)
        assert all(step.maps["R2*"].min() >= 0 for step in estimate.steps)
        assert not torch.equal(estimate.steps[-1].maps["B0"], estimate.maps["B0"])
        for machine in network.machines:
            for unit in machine.units:
                unit.hidden.zero_()
        forgetful = network.eval()(example)
    assert forgetful.steps == ()
    assert not torch.allclose(forgetful.maps["S0"], estimate.maps["S0"])


def test_qcirim_s_machine_sees_maps_and_gradient() -> None:
    network = create("qcirim", cascades=1, time_steps=1)
    maps = network(quantitative_scan(truth(), fraction=0.5)).maps
    sum((maps[key] ** 2).mean() for key in MAPS).backward()
    assert bool((network.machines[0].convs[0].weight.grad.abs().amax(dim=(0, 2, 3)) > 0).all())


def estimate_of(maps: Tensor) -> Estimate:
    return Estimate(maps=dict(zip(MAPS, maps.unbind(1), strict=True)))


def wrong(maps: Tensor) -> Tensor:
    """Maps with an error of each, in the object alone."""
    change = torch.tensor([8.0, 0.1, 5.0, 0.2])[:, None, None]
    return maps + change * (maps[:, 1:2] > 0)


@pytest.mark.parametrize("noise", [1e-4, 1.0])
def test_maps_keep_the_data_as_far_as_their_noise_allows(noise: float) -> None:
    maps = truth()
    example = dataclasses.replace(quantitative_scan(maps, fraction=1.0), noise=torch.tensor([noise]))
    made = consistent(estimate_of(wrong(maps)), example, Preparation(consistency=0.035)).maps
    inside = maps[:, 1] > 0
    for name, true, before in zip(MAPS, maps.unbind(1), wrong(maps).unbind(1), strict=True):
        now = made[name]
        want = true if noise < 0.01 else before
        torch.testing.assert_close(now[inside], want[inside], atol=2e-3 * float(want.abs().max()), rtol=0)


def test_maps_stay_where_consistency_is_off_or_the_noise_unknown() -> None:
    maps = truth()
    example = dataclasses.replace(quantitative_scan(maps), noise=torch.tensor([1e-4]))
    estimate = estimate_of(wrong(maps))
    assert consistent(estimate, example, Preparation(consistency=None)) is estimate
    assert consistent(estimate, dataclasses.replace(example, noise=None), Preparation()) is estimate


def test_a_network_learns_through_the_correction_of_its_maps() -> None:
    maps = truth()
    example = dataclasses.replace(quantitative_scan(maps), noise=torch.tensor([1e-2]))
    learnt = wrong(maps).requires_grad_()
    made = ended(lambda _: estimate_of(learnt), Preparation(), "together")(example).maps
    torch.stack([m.sum() for m in made.values()]).sum().backward()
    assert learnt.grad is not None
    assert bool(torch.isfinite(learnt.grad).all())
    inside = maps[:, 1] > 0
    torch.testing.assert_close(learnt.grad[:, :1][inside[:, None]], torch.ones(int(inside.sum())))


def test_maps_are_zero_outside_the_object_and_where_no_coil_sees_it() -> None:
    maps = truth()
    outside = maps[:, 1:2] == 0
    ring = torch.where(outside, torch.tensor([100.0, 0.02, 80.0, 2.0])[:, None, None], maps)
    example = quantitative_scan(maps)
    assert example.sens is not None
    sens = example.sens.clone()
    sens[..., :12, :] = 0
    made = maps_of_object({**estimate_of(ring).maps, "T1": maps[:, 0]}, dataclasses.replace(example, sens=sens))
    away = torch.nn.functional.max_pool2d((~outside).float(), 5, 1, 2)[:, 0] == 0
    for name, true in zip(MAPS, maps.unbind(1), strict=True):
        assert bool((made[name][away] == 0).all())
        assert bool((made[name][:, :12] == 0).all())
        torch.testing.assert_close(made[name][:, 14:][true[:, 14:] != 0], true[:, 14:][true[:, 14:] != 0])
    torch.testing.assert_close(made["T1"], maps[:, 0])  # not of this signal model
