"""Every network is one graph for torch.compile, forward and backward, or its traits say why not."""

from __future__ import annotations

import pytest
import torch

from mrnets import store
from tests.mrnets.examples import create, energy, scan_for


def _network(name: str) -> object:
    reason = store.describe(name).breaks_graph
    if reason is None:
        return name
    fails = pytest.mark.xfail(reason=reason, raises=torch._dynamo.exc.TorchDynamoException)
    return pytest.param(name, marks=fails)


@pytest.mark.slow
# Dynamo makes an instance of an autograd function where it traces one.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning:torch._dynamo")
@pytest.mark.parametrize("name", [_network(name) for name in store.names()])
def test_compiles_into_one_graph(name: str) -> None:
    torch._dynamo.reset()
    network, scan = create(name).train(), scan_for(name)
    estimate = torch.compile(network, fullgraph=True, backend="eager")(scan)
    if list(network.parameters()):
        energy(estimate).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
