"""Networks that follow their papers where an earlier implementation did not: the very thing that each one must do."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from mrnets import store
from mrnets.blocks.consistency import combined, replace
from mrnets.blocks.encoding import Encoding, initial_image
from mrnets.blocks.sensitivity import unit_norm
from mrnets.blocks.wavelet import MWCNN, haar, inverse_haar
from mrnets.errors import InputError
from mrnets.nets.jointicnet import image_gradient, sens_gradient
from mrnets.physics.coils import expand, forward, reduce
from mrnets.physics.fourier import fftc, ifftc
from tests.mrnets.examples import create, energy, scan

PARAMETERS = {
    "crnn": 260_611,
    "jointicnet": 349_648,
    "kikinet": 466_184,
    "lpdnet": 1_182_660,
    "vsnet": 762_280,
    "xpdnet": 11_690_020,
}


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_number_of_parameters_at_the_published_options(name: str, count: int) -> None:
    with torch.device("meta"):
        network = store.create(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def silenced(network: torch.nn.Module, *last: str) -> torch.nn.Module:
    """The network with the weights of the named parts at zero, so that they give zero."""
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if any(part in key for part in last):
                parameter.zero_()
    return network


def test_combined_is_the_coils_k_space_drawn_to_the_data_and_combined() -> None:
    example = scan((9, 12), batch=2, echoes=2)
    sens = example.sens * torch.linspace(0, 1, 12)  # not of unit norm
    encoding = Encoding(example.kspace, example.mask, sens, initial_image(example.kspace, example.mask, sens))
    image = initial_image(torch.randn_like(example.kspace), example.mask, sens)
    kspace = fftc(expand(image, sens))
    for weight in (1.0, 0.3):
        drawn = kspace - weight * example.mask * (kspace - example.kspace)
        torch.testing.assert_close(combined(image, encoding, weight), reduce(ifftc(drawn), sens))
    want = reduce(ifftc(replace(kspace, example.kspace, example.mask)), sens)
    torch.testing.assert_close(combined(image, encoding), want)


def test_crnn_remembers_the_iterations_before() -> None:
    network = create("crnn")
    example = scan()
    with torch.no_grad():
        image = network(example).image
        without = silenced(network, "hidden").forward(example).image
    assert (image - without).abs().max() > 1e-3 * image.abs().max()


def test_crnn_corrects_in_both_directions() -> None:
    """The last layer is linear: with its weights negated the correction is the negative one."""
    network = create("crnn", iterations=1)
    example = scan(batch=2)
    start = initial_image(example.kspace, example.mask, example.sens)
    with torch.no_grad():
        network.dc_weight.zero_()
        change = network(example).image - start
        for parameter in network.last.parameters():
            parameter.neg_()
        torch.testing.assert_close(network(example).image - start, -change, rtol=1e-4, atol=1e-5)
    assert change.abs().max() > 1e-2


@pytest.mark.parametrize("name", ["crnn", "kikinet"])
def test_a_fully_sampled_scan_comes_back_exactly(name: str) -> None:
    example = scan((17, 22), fraction=2.0)
    truth = reduce(ifftc(example.kspace), example.sens)
    torch.testing.assert_close(create(name)(example).image, truth, rtol=1e-5, atol=1e-6)


def test_vsnet_imposes_the_measured_data_in_every_cascade() -> None:
    """Without a denoiser a cascade is x <- average x + (1 - average) z: iterated it solves the SENSE equations."""
    network = silenced(create("vsnet", cascades=64), "denoisers")
    example = scan(batch=2, fraction=0.7)
    truth = reduce(ifftc(fftc(expand(_image_of(example), example.sens))), example.sens)
    with torch.no_grad():
        first = create("vsnet", cascades=1)
        silenced(first, "denoisers")
        error = [(net(example).image - truth).abs().norm() / truth.norm() for net in (first, network)]
        residual = forward(network(example).image, example.sens, example.mask) - example.kspace
    assert error[1] < 0.5 * error[0]
    assert residual.norm() < 0.02 * example.kspace.norm()


def _image_of(example) -> Tensor:
    """The image that `scan` with that seed was made from, from its fully sampled twin."""
    twin = scan(batch=2, fraction=2.0)
    torch.testing.assert_close(twin.kspace * example.mask, example.kspace)
    return reduce(ifftc(twin.kspace), twin.sens)


def test_vsnet_depends_on_the_data_beyond_its_start() -> None:
    """The measured data enter a cascade themselves, not only through the image that the first one starts from."""
    network = silenced(create("vsnet", cascades=1), "denoisers")
    with torch.no_grad():
        network.average.zero_()
        network.dc_weight.fill_(1.0)
        image = network(scan(fraction=0.6)).image
    example = scan(fraction=0.6)
    start = initial_image(example.kspace, example.mask, example.sens)
    want = reduce(ifftc(replace(fftc(expand(start, example.sens)), example.kspace, example.mask)), example.sens)
    torch.testing.assert_close(image, want)


@pytest.mark.parametrize("echoes", [1, 3])
def test_jointicnet_descends_the_gradient_of_its_data_term(echoes: int) -> None:
    example = scan((9, 8), batch=2, echoes=echoes)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, echoes, 9, 8), dtype=torch.complex64, generator=generator, requires_grad=True)
    sens = example.sens.clone().requires_grad_()
    loss = 0.5 * (forward(x, sens, example.mask) - example.kspace).abs().square().sum()
    by_image, by_sens = torch.autograd.grad(loss, (x, sens))
    torch.testing.assert_close(image_gradient(x, sens, example.kspace, example.mask), by_image, rtol=1e-4, atol=1e-5)
    ours = sens_gradient(x, sens, example.kspace, example.mask)
    torch.testing.assert_close(ours * echoes, by_sens, rtol=1e-4, atol=1e-5)


def test_jointicnet_corrects_wrong_sensitivities() -> None:
    """With no regularisation it is plain descent: from wrong maps the joint fit to the data beats the image's alone."""
    example = scan(fraction=2.0)
    truth = reduce(ifftc(example.kspace), example.sens).abs()
    slopes = torch.tensor([0.5, 0.0, -0.5])[:, None, None]
    wrong = dataclasses.replace(example, sens=unit_norm(example.sens * (1 + slopes * torch.linspace(-1, 1, 20))))
    network = silenced(create("jointicnet", iterations=20), "image_weight", "kspace_weight", "sens_weight")
    with torch.no_grad():
        network.sens_step.fill_(2.0)
        joint = (network(wrong).image.abs() - truth).norm()
        alone = (silenced(network, "sens_step")(wrong).image.abs() - truth).norm()
        assert joint < 0.5 * alone


def test_jointicnet_s_maps_stay_zero_where_they_are() -> None:
    example = scan()
    sens = example.sens.clone()
    sens[..., :5] = 0
    network = silenced(create("jointicnet"), "image_weight", "kspace_weight")
    with torch.no_grad():
        image = network(dataclasses.replace(example, sens=sens)).image
    assert bool((image[..., :5] == 0).all())
    assert bool((image[..., 5:] != 0).all())


def test_jointicnet_s_sensitivities_receive_gradient() -> None:
    example = scan()
    sens = example.sens.clone().requires_grad_()
    network = create("jointicnet")
    energy(network(dataclasses.replace(example, sens=sens))).backward()
    assert sens.grad.abs().max() > 0
    for parameter in (network.sens_step, network.sens_weight, *network.map_net.parameters()):
        assert bool((parameter.grad != 0).any())


@pytest.mark.parametrize(
    ("name", "parts"), [("kikinet", ("kspace_nets", "image_nets")), ("lpdnet", ("primal_nets", "dual_nets"))]
)
def test_every_iteration_has_weights_of_its_own(name: str, parts: tuple[str, str]) -> None:
    network = create(name, cascades=3)
    one = create(name, cascades=1)
    parameters = list(network.parameters())
    assert len({id(parameter) for parameter in parameters}) == len(parameters)
    assert sum(p.numel() for p in parameters) == 3 * sum(p.numel() for p in one.parameters())
    energy(network(scan())).backward()
    for part in parts:
        first, second, _ = (next(net.parameters()).grad for net in getattr(network, part))
        assert not torch.allclose(first, second)


def test_kikinet_s_last_word_is_the_measured_k_space() -> None:
    """With one coil the k-space of the image is the network's last k-space: its samples are the measured ones."""
    example = scan(coils=1)
    image = create("kikinet")(example).image
    kspace = fftc(expand(image, example.sens))
    torch.testing.assert_close(kspace * example.mask, example.kspace, rtol=1e-4, atol=1e-5)
    assert (kspace * ~example.mask).abs().max() > 0


def test_lpdnet_uses_the_data_in_its_dual_and_the_dual_in_its_image() -> None:
    network = create("lpdnet", cascades=1)
    example = scan()
    with torch.no_grad():
        image = network(example).image
        start = initial_image(example.kspace, example.mask, example.sens)
        assert not torch.allclose(image, silenced(network, "dual_nets.0.unet.decoder.head")(example).image)
        silenced(network, "primal_nets.0.unet.decoder.head")
        torch.testing.assert_close(network(example).image, start)  # a change of zero


@pytest.mark.parametrize("shape", [(8, 8), (2, 6), (10, 4)])
def test_haar_transform_is_orthonormal_and_comes_back(shape: tuple[int, int]) -> None:
    x = torch.randn((2, 3, *shape), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bands = haar(x)
    assert bands.shape == (2, 12, shape[0] // 2, shape[1] // 2)
    torch.testing.assert_close(inverse_haar(bands), x)
    torch.testing.assert_close(bands.norm(), x.norm())
    other = torch.randn_like(bands)
    torch.testing.assert_close((bands * other).sum(), (x * inverse_haar(other)).sum())


def test_haar_bands_are_mean_and_differences_along_y_x_and_both() -> None:
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    for plane, band in ((torch.ones(4, 6), 0), (y % 2, 1), (x % 2, 2), ((x + y) % 2, 3)):
        strengths = haar((plane - (0.5 if band else 0))[None, None]).abs().amax(dim=(0, 2, 3))
        assert strengths.argmax() == band
        assert strengths.sum() == strengths.max()


@pytest.mark.parametrize("shape", [(16, 16), (13, 10), (3, 1)])
def test_mwcnn_has_its_scales_and_gives_both_signs(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = MWCNN(4, 2, channels=4, scales=3)
    assert len(net.down) == 4
    assert [block[0].in_channels for block in net.down] == [4, 16, 32, 64]
    out = net(torch.randn(2, 4, *shape))
    assert out.shape == (2, 2, *shape)
    assert out.min() < 0 < out.max()


def test_mwcnn_sees_far() -> None:
    """Three wavelet scales and their convolutions reach over 16 voxels; a 3x3 convolution would see one."""
    torch.manual_seed(0)
    x = torch.randn(1, 2, 64, 64, requires_grad=True)
    MWCNN(2, 1, channels=4, scales=3)(x)[0, 0, 32, 32].backward()
    reached = x.grad[0].abs().sum(0).nonzero() - 32
    assert reached.abs().max() >= 16


def test_xpdnet_s_iterations_use_the_scales_and_the_data() -> None:
    network = create("xpdnet", scales=2)
    example = scan()
    energy(network(example)).backward()
    for net in network.image_nets:
        assert len(net.up) == 2
        assert all(bool((p.grad != 0).any()) for block in net.down for p in block.parameters())
        first = net.down[0][0].weight.grad
        gradient_channels = first.reshape(first.shape[0], 2, -1, 3, 3)[:, :, -1]
        assert bool((gradient_channels != 0).any())


def test_proximal_varnet_s_steps_are_regularised_sense_around_the_denoised_image() -> None:
    """With D = 0 and n cascades: Tikhonov regularisation iterated n times, by its closed form on the normal matrix."""
    network = silenced(create("varnet", cascades=3, consistency="proximal", consistency_iterations=60), "head")
    example = scan((5, 6), coils=2, fraction=0.5)
    start = initial_image(example.kspace, example.mask, example.sens).flatten()
    basis = torch.eye(30, dtype=torch.complex64).reshape(30, 1, 5, 6)
    matrix = reduce(
        ifftc(example.mask * fftc(expand(basis, example.sens.expand(30, -1, -1, -1, -1)))),
        example.sens.expand(30, -1, -1, -1, -1),
    )
    normal = matrix.reshape(30, 30).T
    x = torch.zeros(30, dtype=torch.complex64)
    for weight in network.log_weight.exp().detach():
        x = torch.linalg.solve(normal + weight * torch.eye(30), start + weight * x)
    with torch.inference_mode():
        torch.testing.assert_close(network(example).image.flatten(), x, rtol=1e-3, atol=1e-4)


def test_proximal_varnet_ends_with_its_denoiser_and_every_weight_learns() -> None:
    network = create("varnet", consistency="proximal").train()
    energy(network(scan(batch=2))).backward()
    assert all(bool((parameter.grad != 0).any()) for parameter in network.parameters())
    with pytest.raises(InputError, match="combination 'rss' needs consistency 'gradient'"):
        create("atommic.varnet", consistency="proximal", combination="rss")
