"""Requirements on every network. A new file in mrnets/nets is tested here without a change."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from mrnets import store
from mrnets.blocks.consistency import sparse
from mrnets.blocks.encoding import encoded
from mrnets.blocks.sensitivity import SensitivityNet
from mrnets.errors import InputError
from mrnets.physics.coils import norm, reduce
from mrnets.physics.fourier import ifftc
from tests.mrnets.examples import create, energy, pick, scan, scan_for, tensors
from training.batches import to_device

NAMES = store.names()
RECONSTRUCTION = [name for name in NAMES if store.describe(name).task == "reconstruction"]
WITH_SENS_NET = [name for name in NAMES if "sens_net" in store.bind(name)]
PARAMETERS = {
    "ccnn": 1_131_551,
    "cgsense": 0,
    "cirim": 980_480,
    "modl": 407_809,  # the published 407,808 and the weight of the data consistency
    "rim": 94_080,
    "rvn": 1_796_120,
    "unet": 31_024_386,
    "varnet": 19_634_712,
    "zerofilled": 0,
}
EXACT_WHEN_FULLY_SAMPLED = [name for name in RECONSTRUCTION if not store.describe(name).learns]


@pytest.mark.parametrize("shape", [(24, 20), (17, 23), (3, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_gives_finite_results_of_the_scan_s_shape(name: str, shape: tuple[int, int]) -> None:
    with torch.inference_mode():
        estimate = create(name).eval()(scan_for(name, shape, batch=2, coils=2))
    fields = list(tensors(estimate))
    assert fields
    assert all(field.shape[0] == 2 and field.shape[-2:] == shape for field in fields)
    assert all(bool(torch.isfinite(field).all()) for field in fields)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_gives_the_same_on_a_cuda_device(name: str) -> None:
    example, network = scan_for(name, batch=2), create(name).eval()
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        here = list(tensors(network(example)))
        there = list(tensors(network.cuda()(to_device(example, "cuda"))))
    assert len(here) == len(there)
    for one, other in zip(here, there, strict=True):
        assert other.is_cuda
        torch.testing.assert_close(other.cpu(), one, rtol=1e-3, atol=1e-3 * float(one.abs().max()))


@pytest.mark.parametrize("coils", [1, 5])
@pytest.mark.parametrize("name", RECONSTRUCTION)
def test_reconstructs_every_echo_for_any_number_of_coils(name: str, coils: int) -> None:
    network = create(name).eval()
    example = scan(batch=2, echoes=3, coils=coils)
    image = network(example).image
    assert image.shape == (2, 3, 24, 20)
    assert image.dtype == torch.complex64
    if store.describe(name).echoes == "together":
        return
    alone = network(dataclasses.replace(example, kspace=example.kspace[:, 1:2])).image
    torch.testing.assert_close(alone, image[:, 1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_parameter(name: str) -> None:
    network = create(name).train()
    energy(network(scan_for(name, batch=2))).backward() if list(network.parameters()) else None
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert bool(torch.isfinite(parameter.grad).all()), key
        assert bool((parameter.grad != 0).any()), key


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_an_empty_and_a_constant_image_are_finite_in_both_directions(name: str, value: float) -> None:
    network = create(name)
    example = scan_for(name, (16, 16))
    kspace = torch.zeros_like(example.kspace)
    kspace[..., 8, 8] = 16 * value
    sens = torch.full_like(example.sens, 3**-0.5)
    flat = torch.full_like(example.image, value)
    estimate = network(dataclasses.replace(example, kspace=kspace, sens=sens, image=flat))
    assert all(bool(torch.isfinite(field).all()) for field in tensors(estimate))
    if list(network.parameters()):
        energy(estimate).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {"combination": "rss"}) for name in ("ccnn", "rvn", "varnet")),
        *((name, {"start": "rss_components"}) for name in ("cirim", "rim", "rvn", "unet")),
        ("modl", {"start": "rss_components", "conjugate_gradient": False}),
        ("rvn", {"initializer_transform": "plain"}),
        ("modl", {"conjugate_gradient": False}),
    ],
)
def test_what_imported_weights_want_has_finite_gradients(name: str, options: dict[str, str]) -> None:
    network = create(f"atommic.{name}", **options).train()
    example = scan(batch=2)
    kspace = example.kspace.clone()
    kspace[1] = 0
    estimate = network(dataclasses.replace(example, kspace=kspace))
    energy(estimate).backward()
    assert all(bool(torch.isfinite(field).all()) for field in tensors(estimate))
    assert all(bool(torch.isfinite(p.grad).all()) and bool((p.grad != 0).any()) for p in network.parameters())


@pytest.mark.parametrize("name", ["ccnn", "rvn"])
def test_combined_by_root_of_squares_a_full_scan_has_that_magnitude_and_its_own_phase(name: str) -> None:
    network = create(f"atommic.{name}", combination="rss").eval()
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if any(last in key for last in ("convs.2", "convs.4")):
                parameter.zero_()  # no correction
    example = scan((9, 12), fraction=2.0)
    sens = example.sens * torch.tensor([1.0, 0.5, 0.0])[:, None, None]  # so that the two differ
    image = network(dataclasses.replace(example, sens=sens)).image
    coil_images = ifftc(example.kspace)
    torch.testing.assert_close(image.abs(), torch.linalg.vector_norm(coil_images, dim=2))
    torch.testing.assert_close(image.angle(), reduce(coil_images, sens).angle(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_two_is_two_batches_of_one(name: str) -> None:
    network = create(name).eval()
    both = scan_for(name, batch=2)
    with torch.inference_mode():
        together = list(tensors(network(both)))
        alone = [list(tensors(network(pick(both, index)))) for index in (0, 1)]
    for field, first, second in zip(together, *alone, strict=True):
        torch.testing.assert_close(field, torch.cat((first, second)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_comes_back_from_its_file_exactly(name: str, tmp_path: Path) -> None:
    path = tmp_path / "trained.safetensors"
    network = create(name).eval()
    store.save(path, network, name=name, options=store.describe(name).small, preparation={})
    trained = store.load(path)
    assert not trained.network.training
    assert trained.options == store.bind(name, **store.describe(name).small)
    assert not any(tensor.data_ptr() % 64 for tensor in trained.network.state_dict().values())
    example = scan_for(name)
    with torch.inference_mode():
        for field, again in zip(tensors(network(example)), tensors(trained.network(example)), strict=True):
            assert torch.equal(field, again)


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_has_the_published_number_of_parameters(name: str, count: int) -> None:
    with torch.device("meta"):
        network = store.create(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("name", EXACT_WHEN_FULLY_SAMPLED)
def test_a_fully_sampled_scan_comes_back_exactly(name: str) -> None:
    example = dataclasses.replace(scan((17, 22), fraction=2.0), noise=torch.zeros(1))
    truth = reduce(ifftc(example.kspace), example.sens)
    options = {key: 0.0 for key in store.bind(name) if key == "regularisation"}
    torch.testing.assert_close(create(name, **options)(example).image, truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_options_are_refused_by_name(name: str) -> None:
    for option, default in store.bind(name).items():
        with pytest.raises(InputError, match=option):
            store.create(name, **{option: object()})
        if isinstance(default, int) and not isinstance(default, bool):
            with pytest.raises(InputError, match=option.removeprefix("sens_")), torch.device("meta"):
                store.create(name, **{"sens_net": True} if "sens_" in option else {}, **{option: -1})


@pytest.mark.parametrize("name", RECONSTRUCTION)
def test_a_scan_without_k_space_is_refused_by_the_network_s_name(name: str) -> None:
    with pytest.raises(InputError, match=name):
        create(name)(dataclasses.replace(scan(), kspace=None))


@pytest.mark.parametrize("name", [name for name in NAMES if store.describe(name).sens == "needed"])
def test_a_scan_without_sensitivities_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} needs coil sensitivities"):
        create(name)(dataclasses.replace(scan_for(name), sens=None))


@pytest.mark.parametrize("name", WITH_SENS_NET)
def test_can_estimate_its_own_sensitivities(name: str) -> None:
    network = create(name, sens_net=True, sens_channels=2, sens_pooling_layers=2)
    example = dataclasses.replace(scan_for(name, batch=2), sens=None)
    energy(network(example)).backward()
    assert all(bool((p.grad != 0).any()) for key, p in network.named_parameters() if key.startswith("sens_net"))
    with pytest.raises(InputError, match="calibration"):
        network(dataclasses.replace(example, calibration=None))


@pytest.mark.parametrize("name", WITH_SENS_NET)
def test_can_refine_the_sensitivities_of_a_scan(name: str) -> None:
    network = create(name, sens_net=True, sens_from="maps", sens_channels=2, sens_pooling_layers=2)
    example = dataclasses.replace(scan_for(name, batch=2), calibration=None)
    energy(network(example)).backward()
    assert all(bool((p.grad != 0).any()) for key, p in network.named_parameters() if key.startswith("sens_net"))
    for sens, have in ((None, "none"), (torch.cat((example.sens, example.sens), dim=1), "2 sets of them")):
        with pytest.raises(InputError, match=f"{name} refines one set of coil sensitivities, and the scan has {have}"):
            network(dataclasses.replace(example, sens=sens))


def test_refined_sensitivities_keep_their_norm() -> None:
    network = SensitivityNet(channels=2, pooling_layers=2)
    sens = scan_for("varnet").sens * torch.linspace(0, 1, scan_for("varnet").sens.shape[-1])
    refined = network.refined(sens)
    torch.testing.assert_close(norm(refined), norm(sens))
    assert not torch.allclose(refined, sens)
    assert not refined[..., 0].any()  # nothing where the scan has no maps


@pytest.mark.parametrize("name", NAMES)
def test_what_can_learn_and_uses_sensitivities_can_estimate_them(name: str) -> None:
    network = create(name).eval()
    example = scan_for(name)
    other = dataclasses.replace(example, sens=example.sens.roll(1, dims=2))
    with torch.inference_mode():
        pairs = zip(tensors(network(example)), tensors(network(other)), strict=True)
        uses = any(not torch.equal(one, another) for one, another in pairs)
    traits = store.describe(name)
    assert uses == (traits.sens != "unused")
    assert traits.learns == bool(list(network.parameters()))
    assert ("sens_net" in store.bind(name)) == (uses and traits.learns)


@pytest.mark.parametrize("name", NAMES)
def test_intermediate_estimates_are_there_where_papers_train_on_them(name: str) -> None:
    network = create(name)
    example = scan_for(name)
    with torch.no_grad():
        steps = network.train()(example).steps
        assert network.eval()(example).steps == ()
    assert len(steps) == store.describe(name).steps
    assert all(field.shape[-2:] == (24, 20) for step in steps for field in tensors(step))


@pytest.mark.parametrize("name", [name for name in NAMES if store.describe(name).sens == "optional"])
def test_without_sensitivities_coils_are_combined_by_root_of_sum_of_squares(name: str) -> None:
    example = dataclasses.replace(scan(echoes=2), sens=None)
    image = create("zerofilled")(example).image
    coil_images = ifftc(example.kspace)
    torch.testing.assert_close(image.real, torch.sqrt((coil_images.abs() ** 2).sum(2)))
    assert not image.imag.any()
    assert bool(torch.isfinite(create(name)(example).image).all())


def test_the_wavelet_image_is_the_same_under_mixed_precision() -> None:
    encoding = encoded(scan(), create("l1wavelet"))
    for noise in (None, scan().noise):
        plain = sparse(encoding, noise, iterations=5)
        with torch.autocast("cpu", torch.float16):
            assert torch.equal(sparse(encoding, noise, iterations=5), plain)


def test_l1varnet_is_finite_and_itself_on_scans_without_noise() -> None:
    """Noise levels that no training shows are told as the lowest one that it shows."""
    network = create("l1varnet").eval()
    example = scan((24, 20))
    with torch.inference_mode():
        images = [network(dataclasses.replace(example, noise=torch.full((1,), n))).image for n in (0.0, 1e-9, 2e-4)]
    assert bool(torch.isfinite(images[0]).all())
    torch.testing.assert_close(images[0], images[2])
    torch.testing.assert_close(images[1], images[2])


def test_orientations_together_are_those_one_by_one() -> None:
    """A device computes them at once, as if they were echoes."""
    generator = torch.Generator().manual_seed(0)
    network, scan = create("l1varnet", orientations=3).eval(), scan_for("l1varnet", batch=2, echoes=2)
    with torch.inference_mode():
        encoding = encoded(scan, network)
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        turns = ((), (-2, -1), (-1,))
        *_, together = network._cascaded(encoding.start, encoding, scan.noise, turns)
        apart = [network._cascaded(encoding.start, encoding, scan.noise, (turn,))[-1] for turn in turns]
    torch.testing.assert_close(together, torch.cat(apart, dim=1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(apart[0], apart[1])
