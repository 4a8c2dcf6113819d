"""Optimisers and schedules by our names and by torch's."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn

from mrnets import store
from mrnets.errors import InputError
from training.optimisers import check, made, rate, restore
from training.options import Network, Options
from training.run import _put_channels_last, built
from training.settings import Optimiser


def rates(settings: Optimiser, steps: int = 110) -> list[float]:
    return [rate(settings, step, steps) for step in range(steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "inverse_sqrt", "constant"])
def test_schedules(schedule: str) -> None:
    settings = Optimiser(learning_rate=1.0, schedule=schedule, warm_up=10)
    factors = rates(settings)
    assert factors == rates(dataclasses.replace(settings, warm_up=10 / 110))
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) <= 1
    assert factors[10] == pytest.approx(1, abs=0.05)
    expected = {"cosine": 0.5, "linear": 0.5, "inverse_sqrt": math.sqrt(10 / 61), "constant": 1.0}[schedule]
    assert factors[60] == pytest.approx(expected)


def test_the_least_rate_is_where_a_schedule_ends() -> None:
    found = rates(Optimiser(learning_rate=1e-3, min_lr=1e-4, schedule="cosine", warm_up=10))
    assert found[9] == pytest.approx(1e-3)
    assert found[60] == pytest.approx(5.5e-4)
    assert found[-1] == pytest.approx(1e-4, rel=0.02)
    assert min(found) > 1e-4


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("StepLR", {"step_size": 20, "gamma": 0.5}),
        ("MultiStepLR", {"milestones": [10, 40], "gamma": 0.1}),
        ("CosineAnnealingWarmRestarts", {"T_0": 25}),
        ("OneCycleLR", {"max_lr": 1.0, "total_steps": 110}),
        ("polynomiallr", {"total_iters": 80, "power": 2.0}),
    ],
)
def test_schedules_of_torch_are_those_of_torch(name: str, options: dict[str, Any]) -> None:
    settings = Optimiser(learning_rate=2e-3, schedule=name, schedule_options=options, warm_up=0)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    every = {key.lower(): value for key, value in vars(torch.optim.lr_scheduler).items()}
    schedule, expected = every[name.lower()](optimiser, **options), []
    for _ in range(100):
        expected.append(2e-3 * optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert [rate(settings, step, 100) for step in range(100)] == pytest.approx(expected)
    late = [rate(settings, step, 100) for step in (70, 3, 99)]  # as after a kill, in any order
    assert late == pytest.approx([expected[70], expected[3], expected[99]])


@pytest.mark.parametrize(
    ("settings", "kind", "expected"),
    [
        (Optimiser(name="adam", betas=(0.9, 0.98)), torch.optim.Adam, {"betas": (0.9, 0.98)}),
        (Optimiser(weight_decay=0.1), torch.optim.AdamW, {"weight_decay": 0.1, "betas": (0.9, 0.999)}),
        (Optimiser(name="SGD", options={"momentum": 0.9}), torch.optim.SGD, {"momentum": 0.9}),
        (Optimiser(name="radam"), torch.optim.RAdam, {}),
    ],
)
def test_optimisers_by_name(settings: Optimiser, kind: type, expected: dict[str, Any]) -> None:
    check(settings)
    optimiser = made(settings, nn.Linear(2, 2).parameters())
    assert type(optimiser) is kind
    assert optimiser.defaults["lr"] == 1e-3
    assert {key: optimiser.defaults[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (Optimiser(name="adamm"), r"unknown value of option optimiser\.name: 'adamm'; did you mean"),
        (Optimiser(name="LBFGS"), r"unknown value of option optimiser\.name: 'LBFGS'"),
        (Optimiser(name="sgd", betas=(0.9, 0.9)), "unknown option of SGD: 'betas'"),
        (Optimiser(options={"epps": 1e-8}), "unknown option of AdamW: 'epps'; did you mean 'eps'"),
        (Optimiser(betas=(2.0, 0.9)), "option optimiser: AdamW: Invalid beta"),
        (Optimiser(schedule="cosin", warm_up=0), r"unknown value of option optimiser\.schedule: 'cosin'; did you mean"),
        (Optimiser(schedule="cosin"), r"unknown value of option optimiser\.schedule"),
        (Optimiser(schedule="StepLR"), r"option optimiser\.schedule_options: StepLR: .*step_size"),
        (Optimiser(schedule="ReduceLROnPlateau"), r"unknown value of option optimiser\.schedule"),
        (Optimiser(min_lr=1.0), r"option optimiser\.min_lr must be from 0 to learning_rate 0\.001, got 1"),
    ],
)
def test_what_torch_does_not_know(settings: Optimiser, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check(settings)


def stepped(optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler, factor: float = 1.0) -> torch.Tensor:
    """The weights after a step along them, times `factor`."""
    (weights,) = optimiser.param_groups[0]["params"]
    optimiser.zero_grad()
    scaler.scale((weights * factor).square().sum()).backward()
    scaler.unscale_(optimiser)
    scaler.step(optimiser)
    scaler.update()
    return weights.detach().clone()


def test_a_run_goes_on_where_weights_are_updated_in_another_way() -> None:
    """As on a CUDA device after steps on a processor, and there again."""
    runs = []
    for ways in ({}, {"fused": True}, {}):
        optimiser = torch.optim.Adam([nn.Parameter(torch.ones(3))], lr=0.1, **ways)
        scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
        if runs:
            (weights,) = optimiser.param_groups[0]["params"]
            weights.data.copy_(runs[-1][1])
            restore(optimiser, runs[-1][0].state_dict())
        assert bool(optimiser.param_groups[0]["fused"]) == bool(ways)
        runs.append((optimiser, stepped(optimiser, scaler)))
    unbroken = torch.optim.Adam([nn.Parameter(torch.ones(3))], lr=0.1)
    expected = [stepped(unbroken, torch.amp.GradScaler("cpu", init_scale=1.0)) for _ in runs][-1]
    torch.testing.assert_close(runs[-1][1], expected)


@pytest.mark.parametrize(("precision", "scale"), [("float32", 1.0), ("bfloat16", 1.0), ("float16", 2.0**13)])
def test_gradients_that_are_not_finite_change_only_the_scale_of_float16(precision: Any, scale: float) -> None:
    network = Network(name="unet", options={"channels": 2, "pooling_layers": 1})
    options = Options(network=network, weights="", folder="", data="", precision=precision)
    run = built(options, torch.device("cpu"))
    optimiser = torch.optim.SGD([nn.Parameter(torch.ones(3))], lr=0.1)
    for _ in range(3):
        assert (stepped(optimiser, run.scaler, math.inf) == 1).all()
    assert run.scaler.get_scale() == scale


@pytest.mark.parametrize(("name", "order"), [("unet", torch.channels_last), ("unet3d", torch.channels_last_3d)])
def test_weights_of_all_convolutions_have_their_channels_last(name: str, order: torch.memory_format) -> None:
    network = store.create(name, **store.describe(name).small)
    _put_channels_last(network)
    ranks = {torch.channels_last: 4, torch.channels_last_3d: 5}
    found = [p for p in network.parameters() if p.ndim == ranks[order]]
    assert found
    assert all(p.is_contiguous(memory_format=order) for p in found)
