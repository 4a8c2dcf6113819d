"""Kernels of Triton against torch's operations in double precision: by Triton's interpreter, and on a CUDA device."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mrnets import blocks
from mrnets.blocks import fused
from mrnets.blocks.unet import Unet
from mrnets.contract import Scan
from mrnets.physics import coils, conjugate, wavelets
from tests.mrnets.examples import create, scan_for

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")  # Triton's interpreter

SHAPES = [(2, 18, 20, 20), (1, 5, 33, 47), (1, 40, 64, 32), (2, 3, 3, 9, 10)]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 1e-3}
"""Distance that is allowed, relative to the norm. Halves end with the rounding of their results."""


def _interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let CPU tensors go through the kernels, in Triton's interpreter. Triton reads the variable when it is loaded."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton's interpreter is asked for by TRITON_INTERPRET=1")
    pytest.importorskip("triton")
    if np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        pytest.skip("Triton 3.6's interpreter makes integers of arrays, which NumPy refuses since 2.4")
    monkeypatch.setattr(fused, "known", lambda x: True)


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "interpreter":
        _interpreted(monkeypatch)
    with torch.inference_mode(), fused.with_kernels():
        yield "cpu" if request.param == "interpreter" else "cuda"


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def close(ours: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
    wanted = wanted.to(ours.device)
    assert torch.linalg.vector_norm(ours.to(wanted.dtype) - wanted) <= tolerance * torch.linalg.vector_norm(wanted)


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_passes_over_features(shape: tuple[int, ...], dtype: torch.dtype, last: bool, device: str) -> None:
    """With a mean far from 0, and every element of another size than its neighbours."""
    planes = [1] * (len(shape) - 2)
    x, other = (3 + 2 * randn(*shape)).to(dtype), randn(*shape, seed=1).to(dtype)
    bias, film = randn(shape[1], seed=2), randn(shape[0], 2 * shape[1], seed=3).to(dtype)
    scale, shift = film.double().reshape(shape[0], -1, *planes).chunk(2, dim=1)
    biased = x.double() + bias.double().reshape(-1, *planes)
    if last:
        x = x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    there = x.to(device)
    wanted = functional.leaky_relu(functional.instance_norm(x.double()), 0.2)
    tolerance = TOLERANCE[dtype]
    close(fused.normalised(there.clone(), 0.2), wanted, tolerance)
    wanted = functional.relu(biased * (1 + scale) + shift)
    close(fused.filmed(there.clone(), bias.to(device), film.to(device)), wanted, tolerance)
    made = fused.added(there.clone(), bias.to(device), other.to(device))
    close(made, biased + other.double(), tolerance)
    assert made.stride() == x.stride()


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gradient_of_a_normalisation(shape: tuple[int, ...], dtype: torch.dtype, last: bool, device: str) -> None:
    """Also of one that lies elsewhere in memory than the features, as behind a concatenation."""
    x, gradient = (3 + 2 * randn(*shape)).to(dtype), randn(*shape, seed=1).to(dtype)
    with torch.inference_mode(False):
        exact = x.double().clone().requires_grad_()
        functional.leaky_relu(functional.instance_norm(exact), 0.2).backward(gradient.double().clone())
    assert exact.grad is not None
    if last:
        x = x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    out, scales = fused.scaled(x.to(device), 0.2)
    assert out.stride() == x.stride()
    for given in (gradient, gradient.mT.contiguous().mT):
        made = fused.normalised_gradient(given.to(device), out, scales, 0.2)
        assert (made.dtype, made.stride()) == (dtype, out.stride())
        close(made, exact.grad, 2 * TOLERANCE[dtype])


def test_a_unet_learns_as_without(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x = randn(1, 2, 24, 20)

    def gradients() -> list[Tensor]:
        torch.manual_seed(1)
        net = Unet(2, 2, channels=4, pooling_layers=2).to(device)
        net(x.to(device).clone()).square().mean().backward()
        return [p.grad for p in net.parameters() if p.grad is not None]

    with torch.inference_mode(False):
        ours = gradients()
        monkeypatch.setattr(fused, "known", lambda x: False)
        wanted = gradients()
    assert ours
    for one, other in zip(ours, wanted, strict=True):
        close(one, other, 1e-3)


def test_a_large_mean_is_taken_out_and_a_constant_plane_is_zero(device: str) -> None:
    x = 1e4 + randn(1, 2, 40, 30)
    wanted = functional.leaky_relu(functional.instance_norm(x.double()), 0.2)
    close(fused.normalised(x.to(device), 0.2), wanted, 3e-3)  # float32: 1,200 of 1e4 are summed to within 1 or 2
    assert not fused.normalised(torch.full((1, 3, 8, 8), 7.0, device=device), 0.2).any()


def test_what_is_not_a_number_is_not_hidden(device: str) -> None:
    bad, none = torch.full((1, 2, 4, 4), torch.nan, device=device), torch.zeros(1, 4, device=device)
    assert bool(fused.normalised(bad.clone(), 0.2).isnan().all())
    assert bool(fused.filmed(bad.clone(), none[0, :2], none).isnan().all())
    image = torch.complex(bad, bad)
    assert bool(fused.shrinking(image, 1)(image, torch.ones(1, 1, 1, 1, device=device), (0, 0)).isnan().all())


@pytest.mark.parametrize(("batch", "images", "sets"), [(1, 1, 1), (2, 3, 1), (2, 2, 2)])
@pytest.mark.parametrize("shared", [False, True], ids=["a mask each", "one mask"])
def test_normal_operator(batch: int, images: int, sets: int, shared: bool, device: str) -> None:
    image = randn(batch, images, 33, 21, dtype=torch.complex64)
    sens = randn(batch, sets, 3, 33, 21, seed=1, dtype=torch.complex64)
    mask = randn(1 if shared else batch, 1, 1, 33, 21, seed=2) > 0.4
    wanted = coils.convolved(image.to(torch.complex128), sens.to(torch.complex128), mask, sets=sets > 1)
    close(fused.convolved(image.to(device), sens.to(device), mask.to(device), sets=sets > 1), wanted)


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 2, 17, 23), (1, 1, 40, 9)], ids=str)
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("shift", [(0, 0), (3, 5), (7, 1)])
def test_wavelets(shape: tuple[int, ...], levels: int, shift: tuple[int, int], device: str) -> None:
    image = randn(*shape, dtype=torch.complex64)
    threshold = torch.linspace(0.5, 1.5, shape[0])[:, None, None, None]
    wanted = wavelets.by_matrices(image, levels)(image, threshold, shift)
    close(fused.shrinking(image.to(device), levels)(image.to(device), threshold.to(device), shift), wanted)


@pytest.mark.parametrize("axes", [(-2, -1), (-3, -2, -1)])
@pytest.mark.parametrize("tolerance", [1e-6, 0.3], ids=["all iterations", "some stop early"])
def test_conjugate_gradients(axes: tuple[int, ...], tolerance: float, device: str) -> None:
    rhs = randn(3, 2, 33, 40, dtype=torch.complex64) * torch.tensor([1, 0, 5])[:, None, None, None]
    scale = torch.linspace(0.2, 2, 40) ** torch.tensor([1, 2])[:, None, None]

    def solved(solve: Callable[..., Tensor], rhs: Tensor) -> Tensor:
        many = scale.to(device=rhs.device, dtype=rhs.real.dtype)
        return solve(lambda x: many * x, rhs, iterations=4, tolerance=tolerance, axes=axes)

    wanted = solved(conjugate.conjugate_gradients, rhs.to(torch.complex128))
    close(solved(fused.conjugate_gradients, rhs.to(device)), wanted)


@pytest.mark.parametrize("name", ["l1varnet", "l1wavelet", "varnet"])
def test_networks_give_the_same(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, scan = create(name).eval(), scan_for(name)
    for parameter in network.parameters():
        parameter.add_(0.02 * randn(*parameter.shape))
    with monkeypatch.context() as patch:
        patch.setattr(fused, "can", lambda x: False)
        wanted = network(scan).image
    network.to(device)
    arrays = {f.name: getattr(scan, f.name) for f in dataclasses.fields(scan)}
    there = Scan(**{key: None if x is None else x.to(device) for key, x in arrays.items()})
    # A device has TF32 in its convolutions, whose rounding other sums change.
    close(network(there).image, wanted, 1e-5 if device == "cpu" else 1e-3)


@pytest.mark.gpu
def test_double_precision_and_training_keep_the_operations_of_torch() -> None:
    x = torch.ones(1, 1, 2, 2, device="cuda")
    with torch.inference_mode():
        assert not fused.can(x)
    with fused.with_kernels():
        assert not fused.can(x)
    with torch.inference_mode(), fused.with_kernels():
        assert fused.can(x)
        assert not fused.can(x.double())
        assert not fused.can(x[:0])


class Starts:
    """Stands for the kernels: their first one fails by these errors in turn, and then does what it should."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.kept_in_place = self

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def start(kspace: Tensor, *given: object, **sizes: object) -> None:
            if self.errors:
                raise self.errors.pop(0)
            kspace[0] = 0

        return start


def test_a_lack_of_memory_passes_and_other_failures_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    asked = fused._kernels.__wrapped__
    monkeypatch.setattr(fused, "_kernels", functools.cache(asked))
    short = Starts(torch.OutOfMemoryError("CUDA out of memory"))
    monkeypatch.setitem(sys.modules, "mrnets.blocks.kernels", short)
    monkeypatch.setattr(blocks, "kernels", short, raising=False)
    with pytest.raises(torch.OutOfMemoryError):
        fused._kernels(device)
    assert fused._kernels(device) is short
    refused = Starts(RuntimeError("no compiler"))
    monkeypatch.setitem(sys.modules, "mrnets.blocks.kernels", refused)
    monkeypatch.setattr(blocks, "kernels", refused, raising=False)
    monkeypatch.setattr(fused, "_kernels", functools.cache(asked))
    assert fused._kernels(device) is None
    assert fused._kernels(device) is None
