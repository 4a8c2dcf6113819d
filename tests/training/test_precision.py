"""Mixed precision: convolutions in half, Fourier transforms and data consistency in float32, for every network."""

import pytest
import torch
from torch import Tensor

from mrnets import store
from mrnets.contract import Estimate
from tests.mrnets.examples import create, scan_for

NAMES = [name for name in store.names() if store.describe(name).learns]


def outputs(estimate: Estimate) -> list[Tensor]:
    found = [estimate.image, estimate.logits, *estimate.maps.values()]
    return [torch.view_as_real(x) if x.is_complex() else x for x in found if x is not None]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_gives_nearly_the_same_and_finite_gradients(name: str, dtype: torch.dtype) -> None:
    network, one = create(name).eval(), scan_for(name)
    with torch.no_grad():
        exact = network(one)
    with torch.autocast("cpu", dtype):
        estimate = network(one)
    for half, full in zip(outputs(estimate), outputs(exact), strict=True):
        assert half.dtype == full.dtype or estimate.logits is not None
        error = torch.linalg.vector_norm(half.detach().float() - full) / torch.linalg.vector_norm(full)
        assert float(error) < 0.1
    if estimate.image is not None:
        assert estimate.image.dtype == torch.complex64
    sum(x.float().square().mean() for x in outputs(estimate)).backward()  # type: ignore[union-attr]
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
