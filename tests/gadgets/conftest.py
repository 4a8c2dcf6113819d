"""Fixtures that several modules share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from gadgets import models
from gadgets.chain import Chain
from gadgets.hosts.rules import Rules
from gadgets.hosts.spool import opened
from mrnets import store
from mrnets.contract import Estimate
from mrnets.mrd.header import read_header
from tests.gadgets import toys
from tests.gadgets.clients import STAGES
from tests.gadgets.networks import save_small
from tests.gadgets.toys import blob, chain, configuration, for_clients, stage


@pytest.fixture(scope="module")
def sent_to_clients() -> bytes:
    """The bytes that a client gets of the toy scan by the chain of toys: without its waveform."""
    made = list(Chain.parse(configuration(*STAGES)).run(iter(toys.scan()), read_header(toys.HEADER).header))
    assert len(for_clients(made)) == len(made) - 1
    return blob(for_clients(made))


@pytest.fixture
def place(tmp_path):
    """A folder with the chain toy.xml."""
    folder = tmp_path / "chains"
    folder.mkdir()
    (folder / "toy.xml").write_text(chain(*STAGES))
    return folder


@pytest.fixture
def kept(tmp_path):
    """A spool."""
    return opened(tmp_path / "spool")


@pytest.fixture
def rules(tmp_path, place):
    """Rules of a server with a spool, and a chain quick.xml."""
    (place / "quick.xml").write_text(chain(stage("noted", scale=1)))
    return Rules(place, spool=opened(tmp_path / "spool"))


@pytest.fixture
def weights(tmp_path):
    """The file of a small varnet."""
    return save_small(tmp_path / "small.safetensors")


@pytest.fixture
def no_networks_of_other_tests(monkeypatch):
    """Let no network be kept from one test to the next."""
    monkeypatch.setattr(models, "_models", models.Cache(8))


@pytest.fixture
def instead(monkeypatch):
    """Weights whose network is the given one."""

    def install(path: str, forward: Any) -> str:
        class Fake(torch.nn.Module):
            def forward(self, scan: Any) -> Estimate:
                return forward(scan)

        load = store.load

        def fake(given: Any, *rest: Any) -> Any:
            trained = load(given, *rest)
            return replace(trained, network=Fake()) if str(given) == path else trained

        monkeypatch.setattr(store, "load", fake)
        return path

    return install
