from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

import gadgets.models as module
from gadgets.images import images
from gadgets.network import network
from mrnets import store
from mrnets.contract import Estimate, Trust
from mrnets.preparation import Preparation
from mrnets.selfcheck import CHECKED
from mrnets.trust import classical
from tests.gadgets.frames import frames, header, volume

SMALL = {"cascades": 1, "channels": 2, "pooling_layers": 1}


def zeros(scan):
    return Estimate(image=torch.zeros_like(store.create("zerofilled")(scan).image))


@pytest.fixture
def weights_of(tmp_path, monkeypatch):
    """A weights file whose network is the given one."""
    path = tmp_path / "v.safetensors"
    preparation = Preparation(consistency=None).to_json()
    store.save(path, store.create("varnet", **SMALL), name="varnet", options=SMALL, preparation=preparation)
    trained = store.load(path)

    def install(forward, **changes):
        class Fake(torch.nn.Module):
            def forward(self, scan):
                return forward(scan)

        monkeypatch.setattr(store, "load", lambda *_: replace(trained, network=Fake(), **changes))
        monkeypatch.setattr(module, "_models", module.Cache(8))
        return str(path)

    return install


def good(scan):
    return store.create("l1wavelet", iterations=60)(scan)


def meta_of(frame):
    (image,) = images([frame], header())
    return image.meta


def test_images_say_how_far_they_agree_with_the_data(weights_of, caplog):
    with caplog.at_level(logging.INFO):
        (frame,) = network(frames(), header(), weights=weights_of(good))
    assert not frame.fallback
    meta = meta_of(frame)
    assert float(meta["TrustPredictionError"]) == pytest.approx(float(meta["TrustReferenceError"]), rel=1e-3)
    assert float(meta["TrustResidual"]) > 0
    assert meta["TrustUnit"] == "standard deviations of the noise"
    assert f"v: TrustResidual {meta['TrustResidual']}" in caplog.text


def test_a_doubtful_image_is_replaced_and_says_so(weights_of):
    (frame,) = network(frames(), header(), weights=weights_of(zeros), fallback="zerofilled")
    (expected,) = network(frames(), header(), name="l1wavelet")
    assert torch.equal(frame.estimate.image, expected.estimate.image)
    meta = meta_of(frame)
    assert "FALLBACK to l1wavelet: the network v is not to be trusted: its image differs" in meta["ImageComments"]
    assert meta["SequenceDescription"].endswith("FALLBACK")
    assert float(meta["TrustResidual"]) > 1


def test_an_earlier_image_stays_where_a_later_one_is_doubtful(weights_of):
    (before,) = network(frames(), header(), name="cgsense")
    (frame,) = network([before], header(), weights=weights_of(zeros))
    assert frame.estimate.image is before.estimate.image
    assert frame.fallback


def test_a_warning_keeps_the_image(weights_of):
    (frame,) = network(frames(), header(), weights=weights_of(zeros), check="warn")
    assert not frame.estimate.image.any()
    assert not frame.fallback
    assert "WARNING: the network v is not to be trusted" in meta_of(frame)["ImageComments"]


def test_off_runs_the_network_once_and_says_nothing(weights_of):
    calls = []

    def counted(scan):
        calls.append(len(scan.kspace))
        return zeros(scan)

    (frame,) = network(frames(), header(), weights=weights_of(counted), check="off")
    assert calls == [1]
    meta = meta_of(frame)
    assert not [name for name in meta if name.startswith("Trust")]
    assert "trusted" not in meta["ImageComments"]


@pytest.mark.parametrize("check", ["fallback", "warn"])
def test_l1_wavelet_has_a_share_in_the_image_and_the_meta_data_say_so(weights_of, check):
    """The network adds a little of its own to what l1-wavelet gives."""

    def rough(scan):
        image = good(scan).image
        return Estimate(image=image + 0.0005 * image.abs().amax() * torch.randn(image.shape, generator=seeded()))

    def seeded():
        return torch.Generator().manual_seed(2)

    alone, mixed, classical = (
        next(iter(network(frames(), header(), weights=weights_of(forward), check=how)))
        for forward, how in ((rough, "off"), (rough, check), (good, "off"))
    )
    share = float(meta_of(mixed)["TrustReferenceShare"])
    assert mixed.fallback is False
    assert 0.2 < share <= 1
    part = share if check == "fallback" else 0.0
    whole, change = (classical.estimate.image - alone.estimate.image, mixed.estimate.image - alone.estimate.image)
    assert float((change - part * whole).norm()) < 0.1 * float(whole.norm())


@pytest.mark.parametrize("batch", [1, 3, 5, 16])
def test_positions_between_checked_ones_take_the_share_of_the_one_before(weights_of, monkeypatch, batch):
    monkeypatch.setattr("mrnets.selfcheck.CHECKED", 4)
    monkeypatch.setattr(
        "mrnets.selfcheck.examined", lambda _, scan, *__: [Trust(share=next(given)) for _ in scan.kspace]
    )
    monkeypatch.setattr("mrnets.selfcheck.mixed", lambda estimate, _, shares: taken.extend(shares) or estimate)
    given, taken = iter([0.1, 0.2, None, 0.4]), []
    list(network([volume()], header(), weights=weights_of(good), batch=batch))
    assert taken == [0.1] * 4 + [0.2] * 4 + [None] * 4 + [0.4] * 4


@pytest.mark.parametrize(
    ("check", "share", "expected"), [("warn", 0.5, 4), ("fallback", 0.0, 4), ("fallback", 0.5, 20)]
)
def test_l1_wavelet_runs_where_it_is_needed_alone(weights_of, monkeypatch, check, share, expected):
    """In the positions that are checked; in all of a volume where it has a share in their images."""
    monkeypatch.setattr("mrnets.selfcheck.CHECKED", 4)
    monkeypatch.setattr("mrnets.selfcheck.examined", lambda _, scan, *__: [Trust(share=share)] * len(scan.kspace))
    slices = []

    def counted(scan):
        slices.append(len(scan.kspace))
        return classical(scan)

    monkeypatch.setattr("mrnets.trust.classical", counted)
    list(network([volume()], header(), weights=weights_of(good), check=check))
    assert sum(slices) == expected


@pytest.mark.parametrize("batch", [1, 5, 16])
def test_of_a_volume_some_positions_are_checked_evenly(weights_of, monkeypatch, batch):
    monkeypatch.setattr("mrnets.selfcheck.CHECKED", 4)
    calls = []

    def counted(scan):
        calls.append(len(scan.kspace))
        return good(scan)

    (frame,) = network([volume()], header(), weights=weights_of(counted), batch=batch)
    assert not frame.fallback
    assert sum(calls) == 16 + 4
    assert CHECKED == 16


@pytest.mark.parametrize("check", ["fallback", "off"])
def test_an_image_that_cannot_be_checked_says_so(weights_of, check):
    """A network that takes no coil sensitivities, as one that estimates them itself."""

    def rss(scan):
        return Estimate(image=(scan.kspace.abs().square().sum(2).sqrt() + 0j))

    alone = Preparation(sens="none", combination="rss", consistency=None).to_json()
    (frame,) = network(frames(), header(), weights=weights_of(rss, preparation=alone), check=check)
    assert frame.trust is None
    assert ("v: its image was not checked" in meta_of(frame)["ImageComments"]) == (check != "off")


def test_networks_without_weights_are_not_checked():
    (frame,) = network(frames(), header(), name="cgsense")
    assert frame.trust is None
