"""Every network is one graph for torch.compile, forward and backward, or the reason why not is written down here."""

from __future__ import annotations

import pytest
import torch

from mrnets import store
from tests.mrnets.examples import create, energy, scan_for

_CONJUGATE = "conjugate gradients stop when the residual is small, which depends on the data"
_ECHO_TIMES = "echo times are checked before they are used, which depends on the data"
NOT_ONE_GRAPH = {"cgsense": _CONJUGATE, "modl": _CONJUGATE, "qcirim": _ECHO_TIMES, "qvarnet": _ECHO_TIMES}


def _network(name: str) -> object:
    if name not in NOT_ONE_GRAPH:
        return name
    fails = pytest.mark.xfail(reason=NOT_ONE_GRAPH[name], raises=torch._dynamo.exc.TorchDynamoException)
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
