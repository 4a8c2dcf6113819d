"""Segmentation networks against ATOMMIC's (reference vectors) and MONAI's (constants from version 1.6.1)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mrnets import store
from mrnets.atommic.keys import state_dict
from mrnets.contract import Scan
from mrnets.errors import InputError
from tests.mrnets.examples import create
from tests.mrnets.vectors import min_max, relative_error, vector

NAMES = [name for name in store.names() if store.describe(name).task == "segmentation"]


def _image(name: str, batch: int, y: int, x: int, *, contrasts: int = 4) -> Tensor:
    slices = store.describe(name).slices
    shape = (batch, contrasts, slices, y, x) if slices > 1 else (batch, contrasts, y, x)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["segunet", "attentionunet", "unet3d"])
def test_logits_are_those_of_atommic(name: str) -> None:
    reference = vector(name)
    network = store.create(reference.name, **reference.options)
    network.load_state_dict(state_dict(name, reference.weights))
    with torch.no_grad():
        logits = network.eval()(Scan(image=reference.tensors["image"])).logits
    assert relative_error(min_max(logits), reference.tensors["normalised"]) < 1e-4


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("segunet", {}, 31_087_876),
        ("attentionunet", {}, 33_184_969),
        ("unet3d", {}, 87_676_420),
        ("dynunet", {}, 20_612_876),  # MONAI's DynUNet of the same strides, widths and heads
        ("dynunet", {"pooling_layers": 4, "deep_supervision": 1}, 7_763_208),
        ("dynunet", {"pooling_layers": 3, "deep_supervision": 0}, 1_927_172),
        ("vnet", {"pooling_layers": 4}, 9_361_548),  # MONAI's VNet, which has this one depth
        ("vnet", {}, 38_400_396),
    ],
)
def test_parameters_at_published_widths(name: str, options: dict[str, int], count: int) -> None:
    with torch.device("meta"):
        network = store.create(name, **options)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def _with_weights_of_a_formula(network: nn.Module) -> nn.Module:
    state = network.state_dict()
    for offset, (key, tensor) in enumerate(state.items()):
        if not tensor.is_floating_point():
            continue
        wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * 1.7 + offset).reshape(tensor.shape)
        if key.endswith("running_var") or (tensor.ndim == 1 and key.endswith("weight")):
            value = 1 + 0.3 * wave
        elif tensor.ndim == 1:
            value = 0.3 * wave
        else:
            value = wave * (2 / tensor[0].numel()) ** 0.5
        state[key] = value.to(tensor.dtype)
    network.load_state_dict(state)
    return network.eval()


def _image_of_a_formula(*shape: int) -> Tensor:
    n = torch.Size(shape).numel()
    return torch.sin(torch.arange(n, dtype=torch.float64) ** 1.3 * 0.01).reshape(shape).float()


def _samples(logits: Tensor) -> Tensor:
    return torch.stack([logits[1, 0, 0, 0], logits[1, 1, 11, 17], logits[1, 2, 23, 39], logits[1, 3, 5, 30]])


@torch.no_grad()
def test_dynunet_gives_the_logits_of_monai_at_every_supervised_level() -> None:
    network = _with_weights_of_a_formula(store.create("dynunet", channels=4, pooling_layers=3)).train()
    estimate = network(Scan(image=_image_of_a_formula(2, 4, 24, 40)))
    monai = [  # DynUNet(strides=[1, 2, 2, 2], deep_supr_num=2) in training, with our weights: coarsest level first
        [-0.35159, 0.00507, 0.07617, 0.31164],
        [-0.36476, 0.85525, 0.73164, -0.14668],
        [0.7828, 0.42397, -0.49614, 0.17246],
    ]
    for ours, theirs in zip((*estimate.steps, estimate), monai, strict=True):
        torch.testing.assert_close(_samples(ours.logits), torch.tensor(theirs), atol=1e-4, rtol=0)


@torch.no_grad()
def test_vnet_gives_the_logits_of_monai() -> None:
    network = _with_weights_of_a_formula(store.create("vnet", pooling_layers=4))
    logits = network(Scan(image=_image_of_a_formula(2, 4, 32, 48))).logits
    torch.testing.assert_close(_samples(logits), torch.tensor([-0.02085, 0.44577, 0.3486, 0.61894]), atol=1e-4, rtol=0)


@torch.no_grad()
def test_dynunet_halves_the_resolution_at_each_level() -> None:
    network = store.create("dynunet", channels=2, pooling_layers=4)
    sizes = [(down.conv1.in_channels, down.conv2.out_channels) for down in network.downs]
    x = network.top(_image("dynunet", 1, 64, 96))
    planes = [x.shape[-2:]]
    for down in network.downs:
        x = down(x)
        planes.append(x.shape[-2:])
    assert planes == [(64, 96), (32, 48), (16, 24), (8, 12), (4, 6)]
    assert sizes == [(2, 4), (4, 8), (8, 16), (16, 32)]


@torch.no_grad()
def test_steps_of_dynunet_are_of_coarser_levels() -> None:
    network = store.create("dynunet", channels=2, pooling_layers=3).train()
    scan = Scan(image=_image("dynunet", 1, 32, 48))
    estimate = network(scan)
    coarsest, coarse = (step.logits for step in estimate.steps)
    for logits, voxel in ((coarsest, 4), (coarse, 2)):
        assert logits.shape == estimate.logits.shape
        repeated = logits[..., ::voxel, ::voxel].repeat_interleave(voxel, -1).repeat_interleave(voxel, -2)
        assert torch.equal(logits, repeated)
    assert not torch.equal(coarse, estimate.logits)
    alone = network.eval()(scan)
    assert alone.steps == ()
    assert torch.equal(alone.logits, estimate.logits)


@pytest.mark.parametrize(
    ("options", "widths"),
    [({"channels": 8, "pooling_layers": 2}, [16, 32]), ({"channels": 5, "pooling_layers": 3}, [10, 20, 40])],
)
def test_vnet_reads_its_options(options: dict[str, int], widths: list[int]) -> None:
    network = store.create("vnet", **options)
    assert [down.down.out_channels for down in network.downs] == widths
    assert [up.up.out_channels for up in network.ups] == [width // 2 for width in reversed(widths)]
    assert network(Scan(image=_image("vnet", 2, 16, 24))).logits.shape == (2, 4, 16, 24)


def test_vnet_drops_channels_in_training_only() -> None:
    network = create("vnet")
    scan = Scan(image=_image("vnet", 2, 16, 16))
    torch.manual_seed(0)
    assert not torch.equal(network(scan).logits, network(scan).logits)
    network.eval()
    assert torch.equal(network(scan).logits, network(scan).logits)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("y", "x"), [(31, 33), (64, 16), (17, 90), (1, 1)])
def test_any_plane_size(name: str, y: int, x: int) -> None:
    network = create(name, contrasts=1, classes=3)
    image = _image(name, 2, y, x, contrasts=1)
    logits = network(Scan(image=image)).logits
    assert logits.shape == (2, 3, *image.shape[2:])
    assert bool(torch.isfinite(logits).all())


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_samples_of_a_batch_do_not_see_each_other(name: str) -> None:
    network = create(name).eval()
    image = _image(name, 2, 24, 40)
    apart = torch.cat([network(Scan(image=sample[None])).logits for sample in image])
    assert relative_error(network(Scan(image=image)).logits, apart) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_complex_images_count_by_their_magnitude(name: str) -> None:
    network = create(name).eval()
    image = _image(name, 1, 24, 24).abs()
    turned = torch.polar(image, torch.linspace(-3, 3, image.numel()).reshape(image.shape))
    assert relative_error(network(Scan(image=turned)).logits, network(Scan(image=image)).logits) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_weight(name: str) -> None:
    network = create(name)
    estimate = network(Scan(image=_image(name, 2, 24, 40)))
    sum(e.logits.square().mean() for e in (estimate, *estimate.steps)).backward()
    assert [key for key, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize("name", NAMES)
def test_other_images_are_refused_by_name(name: str) -> None:
    network = create(name)
    for image in (None, _image(name, 1, 16, 16, contrasts=3), torch.zeros(4, 16, 16)):
        with pytest.raises(InputError, match=name):
            network(Scan(image=image))


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("segunet", {"contrasts": 0}, "contrasts"),
        ("unet3d", {"classes": 0}, "classes"),
        ("atommic.attentionunet", {"padding": -1}, "padding"),
        ("attentionunet", {"dropout": 2.0}, "dropout"),
        ("dynunet", {"deep_supervision": 5}, "deep_supervision"),
        ("dynunet", {"pooling_layers": 0}, "pooling_layers"),
        ("vnet", {"contrasts": 17}, "channels"),
        ("vnet", {"dropout": -0.1}, "dropout"),
    ],
)
def test_options_are_checked(name: str, options: dict[str, float], match: str) -> None:
    with pytest.raises(InputError, match=match):
        store.create(name, **options)
