"""The parts of networks against plain formulas."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mrnets.atommic.forms import padded
from mrnets.blocks import unet as blocks
from mrnets.blocks.complex import to_channels, to_complex
from mrnets.blocks.consistency import replace, solved
from mrnets.blocks.encoding import Encoding, initial_image, normal
from mrnets.blocks.sensitivity import SensitivityNet
from mrnets.blocks.taps import by_taps
from mrnets.blocks.unet import NormUnet, Unet, normalised
from mrnets.contract import Scan
from mrnets.errors import InputError
from mrnets.physics import coils
from mrnets.physics.fourier import fftc, ifftc
from tests.mrnets.examples import create, scan
from tests.physics.sense import cg_sense


def complex_randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex64) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_channels_are_all_real_parts_then_all_imaginary_parts() -> None:
    x = complex_randn(2, 3, 4, 5)
    channels = to_channels(x)
    assert torch.equal(channels[:, :3], x.real)
    assert torch.equal(channels[:, 3:], x.imag)
    assert torch.equal(to_complex(channels), x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalised_is_instance_normalisation_and_leaky_relu_in_value_and_gradient(layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 7, 5, dtype=torch.float64, generator=generator).contiguous(memory_format=layout)
    x.requires_grad_()
    upstream = torch.randn(2, 3, 7, 5, dtype=torch.float64, generator=generator)
    ours = normalised(2 * x + 1)
    plain = functional.leaky_relu(functional.instance_norm(2 * x + 1), 0.2)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(ours, x, upstream), torch.autograd.grad(plain, x, upstream))
    assert torch.autograd.gradcheck(lambda x: normalised(2 * x + 1), x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 6e-3)], ids=str
)
@pytest.mark.parametrize("parts", ["processor", "device", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_gradient_of_a_normalisation_comes_from_its_output(
    parts: str, dtype: torch.dtype, tolerance: float, layout: torch.memory_format
) -> None:
    """The parts that are for a device run on a processor, too. Distances are relative to the norm."""
    forward, backward = blocks._normalise, blocks._gradient
    if parts == "processor":
        forward, backward = blocks._normalise_in_place, blocks._gradient_in_place
    generator = torch.Generator().manual_seed(0)
    x, upstream = (torch.randn(2, 5, 17, 13, dtype=torch.float64, generator=generator).to(dtype) for _ in range(2))
    exact = x.double().requires_grad_()
    wanted = functional.leaky_relu(functional.instance_norm(exact), 0.2)
    wanted.backward(upstream.double())
    assert exact.grad is not None
    device = "cuda" if parts == "cuda" else "cpu"
    out, scale = forward(x.clone(memory_format=layout).to(device))
    for ours, plain in ((out, wanted), (backward(upstream.to(device), out, scale), exact.grad)):
        assert (ours.dtype, ours.shape) == (dtype, x.shape)
        ours = ours.cpu()
        assert torch.linalg.vector_norm(ours.double() - plain) <= tolerance * torch.linalg.vector_norm(plain)


def test_a_unet_learns_by_the_parts_for_a_device_as_by_those_for_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, x = Unet(2, 2, channels=4, pooling_layers=2), torch.randn(2, 2, 24, 20)
    weights = list(network.parameters())
    wanted = torch.autograd.grad(network(x).square().mean(), weights)
    monkeypatch.setattr(blocks, "_normalise_in_place", blocks._normalise)
    monkeypatch.setattr(blocks, "_gradient_in_place", blocks._gradient)
    torch.testing.assert_close(torch.autograd.grad(network(x).square().mean(), weights), wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_normunet_scales_with_its_input(scale: float) -> None:
    torch.manual_seed(0)
    network = NormUnet(channels=4, pooling_layers=2)
    x = complex_randn(2, 1, 13, 9)
    torch.testing.assert_close(network(scale * x) / scale, network(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("padding", [None, 15, 11])
@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (33, 18), (64, 48)])
def test_normunet_takes_any_size_with_any_padding(shape: tuple[int, int], padding: int | None) -> None:
    network = padded(NormUnet(2, 1, channels=2, pooling_layers=4), padding=padding)
    out = network(complex_randn(1, 2, *shape))
    assert out.shape == (1, 1, *shape)
    assert bool(torch.isfinite(torch.view_as_real(out)).all())


def test_unet_on_volumes_pools_in_the_plane_only() -> None:
    network = Unet(4, 3, channels=2, pooling_layers=3, dimensions=3)
    assert network(torch.randn(1, 4, 3, 16, 24)).shape == (1, 3, 3, 16, 24)


def test_unet_refuses_widths_and_depths_that_no_file_should_ask_for() -> None:
    with pytest.raises(InputError, match="pooling_layers must be a whole number from 0 to 8, not 40"):
        Unet(2, 2, channels=4, pooling_layers=40)


@pytest.mark.parametrize("shape", [(12, 10), (11, 10), (7, 9)])
def test_normal_operator_is_that_of_the_physics(shape: tuple[int, int]) -> None:
    example = scan(shape, batch=2, echoes=2)
    image = complex_randn(2, 2, *shape)
    torch.testing.assert_close(
        normal(image, example.sens, example.mask), coils.normal(image, example.sens, example.mask), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("trained_maps", [False, True])
def test_data_gradient_is_the_gradient_of_half_the_squared_residual(trained_maps: bool) -> None:
    example = scan((9, 8), fraction=0.4)
    sens = example.sens.clone().requires_grad_(trained_maps)
    image = complex_randn(1, 1, 9, 8).requires_grad_()
    residual = coils.forward(image, sens, example.mask) - example.kspace
    wanted = torch.autograd.grad(0.5 * (residual.abs() ** 2).sum(), image)[0]
    start = initial_image(example.kspace, example.mask, sens)
    ours = Encoding(example.kspace, example.mask, sens, start).gradient(image)
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)
    # ... and it can itself be differentiated, as unrolled networks must, in the image and in the maps.
    inputs = (image, sens) if trained_maps else (image,)
    upstream = complex_randn(1, 1, 9, 8, seed=3)
    plain = coils.adjoint(coils.forward(image, sens, example.mask) - example.kspace, sens, example.mask)
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(plain, inputs, upstream), rtol=1e-4, atol=1e-5
    )


def test_consistency_in_k_space_touches_measured_samples_only() -> None:
    example = scan()
    kspace = complex_randn(*example.kspace.shape)
    hard = replace(kspace, example.kspace, example.mask)
    sampled = example.mask.expand_as(kspace)
    assert torch.equal(hard[sampled], example.kspace[sampled])
    assert torch.equal(hard[~sampled], kspace[~sampled])


def test_estimated_sensitivities_have_unit_norm_everywhere() -> None:
    torch.manual_seed(0)
    net = SensitivityNet(channels=2, pooling_layers=2)
    example = scan(batch=2, coils=4)
    maps = net(example.calibration, (24, 20))
    assert maps.shape == (2, 1, 4, 24, 20)
    torch.testing.assert_close((maps.abs() ** 2).sum(2), torch.ones(2, 1, 24, 20))


@pytest.mark.parametrize("shape", [(24, 20), (15, 17)])
@pytest.mark.parametrize("start_iterations", [0, 5])
def test_varnet_is_its_paper_s_update_of_the_coils_k_space(shape: tuple[int, int], start_iterations: int) -> None:
    network = create("varnet", cascades=3, start_iterations=start_iterations)
    with torch.no_grad():
        network.dc_weight.copy_(torch.tensor([0.3, 0.7, 1.2]))
    example = scan(shape, batch=2, coils=4)
    kspace = example.kspace
    if start_iterations:
        unfolded = cg_sense(kspace, example.sens, example.mask, regularisation=0.01, iterations=start_iterations)
        kspace = replace(fftc(coils.expand(unfolded, example.sens)), kspace, example.mask)
    for unet, weight in zip(network.unets, network.dc_weight, strict=True):
        image = coils.reduce(ifftc(kspace), example.sens)
        correction = fftc(coils.expand(unet(image), example.sens))
        kspace = kspace - weight * example.mask * (kspace - example.kspace) - correction
    torch.testing.assert_close(network(example).image, coils.reduce(ifftc(kspace), example.sens), rtol=1e-4, atol=1e-5)


def dense(example: Scan, weight: torch.Tensor, sens: torch.Tensor) -> torch.Tensor:
    """(E^H E + weight) of one image as a matrix, column by column."""
    plane = example.kspace.shape[-2:]
    columns = torch.eye(plane.numel(), dtype=sens.dtype).reshape(-1, 1, 1, *plane)
    encoded = coils.normal(columns, sens, example.mask) + weight * columns
    return encoded.reshape(plane.numel(), -1).mT


def test_solved_is_the_solution_and_its_gradient_is_the_solution_s() -> None:
    example = scan((5, 4), fraction=0.4)
    rhs = complex_randn(1, 1, 5, 4, dtype=torch.complex128).requires_grad_()
    sens = example.sens.to(torch.complex128).requires_grad_()
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    encoding = Encoding(example.kspace, example.mask, sens, rhs)
    ours = solved(rhs, encoding, weight, iterations=40, tolerance=1e-10)
    exact = torch.linalg.solve(dense(example, weight, sens), rhs.reshape(-1)).reshape(rhs.shape)
    torch.testing.assert_close(ours, exact)
    upstream = complex_randn(1, 1, 5, 4, seed=5, dtype=torch.complex128)
    torch.testing.assert_close(
        torch.autograd.grad(ours, (rhs, sens, weight), upstream),
        torch.autograd.grad(exact, (rhs, sens, weight), upstream),
    )


def test_modl_with_an_identity_denoiser_solves_the_regularised_least_squares() -> None:
    example = scan((6, 5), coils=2, fraction=0.4)
    network = create("modl", iterations=1, consistency_iterations=60, consistency_weight=0.2)
    network.denoiser = torch.nn.Module()
    network.denoiser.forward = torch.zeros_like  # z = x + 0
    start = initial_image(example.kspace, example.mask, example.sens)
    rhs = (start + 0.2 * start).reshape(-1)
    exact = torch.linalg.solve(dense(example, torch.tensor(0.2), example.sens), rhs)
    assert torch.linalg.vector_norm(network(example).image.reshape(-1) - exact) < 1e-4 * torch.linalg.vector_norm(exact)


@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
@pytest.mark.parametrize(("kernel", "bias", "dilation"), [(3, True, 1), (5, False, 1), (1, True, 1), (3, True, 2)])
def test_a_convolution_by_taps_is_that_convolution(padding_mode: str, kernel: int, bias: bool, dilation: int) -> None:
    torch.manual_seed(0)
    how = {"padding": dilation * (kernel // 2), "padding_mode": padding_mode, "dilation": dilation}
    conv = torch.nn.Conv2d(4, 2, kernel, bias=bias, **how)
    x = torch.randn(2, 4, 7, 6, requires_grad=True)
    torch.testing.assert_close(by_taps(conv, x), conv(x))
    inputs = (x, *conv.parameters())
    weights = torch.randn(2, 2, 7, 6)
    ours = torch.autograd.grad((by_taps(conv, x) * weights).sum(), inputs)
    torch.testing.assert_close(ours, torch.autograd.grad((conv(x) * weights).sum(), inputs), rtol=1e-4, atol=1e-5)
