"""A network that fails, and what cannot be had, before and within a scan."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from gadgets.coils import coils
from gadgets.compress import compress
from gadgets.images import images
from mrnets import store
from mrnets.contract import Estimate
from mrnets.errors import InputError
from tests.gadgets.frames import SIZE, frames, header
from tests.gadgets.networks import failing, network, save_small

pytestmark = pytest.mark.usefixtures("no_networks_of_other_tests")


@pytest.fixture
def broken(monkeypatch, weights):
    """Weights whose network is the given one."""

    def install(fake):
        trained = store.load(weights)
        monkeypatch.setattr(store, "load", lambda *_: replace(trained, network=fake))
        return weights

    return install


class TestFallback:
    def check(self, path, caplog, reason, fallback):
        with caplog.at_level(logging.WARNING):
            (frame,) = network(frames(), header(), weights=path, fallback=fallback)
        (expected,) = network(frames(), header(), name=fallback)
        np.testing.assert_array_equal(frame.estimate.image.numpy(), expected.estimate.image.numpy())
        assert frame.fallback
        assert frame.history[-1] == fallback
        assert any("FALLBACK" in note and reason in note for note in frame.notes)
        assert "FALLBACK" in caplog.text
        (image,) = images([frame], header())
        assert "FALLBACK" in image.meta["GADGETRON_SeqDescription"]
        assert any(reason in comment for comment in image.meta["GADGETRON_ImageComment"])

    @pytest.mark.parametrize("fallback", ["cgsense", "zerofilled"])
    def test_out_of_memory(self, broken, caplog, fallback):
        self.check(broken(failing(torch.OutOfMemoryError("out of memory"))), caplog, "out of memory", fallback)

    @pytest.mark.parametrize("field", ["image", "maps", "logits"])
    def test_values_that_are_not_finite(self, broken, caplog, field):
        def output(scan):
            bad = torch.full((1, 1, SIZE, SIZE), torch.nan)
            values = {"maps": {"R2*": bad[:, 0]}, "image": bad + 0j, "logits": bad}
            return replace(Estimate(image=torch.zeros(1, 1, SIZE, SIZE) + 0j), **{field: values[field]})

        self.check(broken(failing(output=output)), caplog, "not finite", "cgsense")

    def test_none(self, broken):
        with pytest.raises(RuntimeError, match="broke"):
            list(network(frames(), header(), weights=broken(failing(RuntimeError("broke"))), fallback="none"))

    def test_one_bad_frame_does_not_spoil_the_others(self, broken):
        def output(scan):
            if float(scan.kspace.abs().sum()) == 0:
                raise RuntimeError("empty")
            return Estimate(image=torch.ones(1, 1, SIZE, SIZE) + 0j)

        scan = frames(3)
        scan[1] = replace(scan[1], raw=replace(scan[1].raw, kspace=0 * scan[1].raw.kspace))
        out = list(network(scan, header(), weights=broken(failing(output=output))))
        assert [frame.fallback for frame in out] == [False, True, False]

    def test_contradictions_are_no_case_for_it(self, tmp_path):
        path = save_small(tmp_path / "coils.safetensors", coils=4)
        with pytest.raises(InputError, match="takes 4 coils"):
            list(network(compress(frames(), header(), coils=3), header(), weights=path))
        path = save_small(tmp_path / "sens.safetensors", sens="rss")
        with pytest.raises(InputError, match="trained with rss sensitivities"):
            list(network(coils(frames(), header()), header(), weights=path))
        with pytest.raises(InputError, match="no calibration lines"):
            list(network(frames(calibration=0), header(), weights=path))


class TestErrorsBeforeTheFirstFrame:
    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({}, "either weights .* or name"),
            ({"weights": "a", "name": "cgsense"}, "either weights .* or name"),
            ({"weights": "nonesuch"}, "no weights 'nonesuch'"),
            ({"weights": "/nowhere/a.safetensors"}, "/nowhere/a.safetensors"),
            ({"weights": "/nowhere/a.safetensors", "options": "a=1"}, "options go with name"),
            ({"weights": "/dev/null/a.safetensors"}, "cannot read"),
            ({"weights": "/dev/full"}, "is not a file that weights can be read from"),
            ({"weights": "/dev"}, "is not a file that weights can be read from"),
            ({"name": "cgsens"}, "cgsense"),
            ({"name": "varnet"}, "has to be trained"),
            ({"name": "cgsense", "options": "iteration=3"}, "iterations"),
            ({"name": "cgsense", "options": "iterations=many"}, "iterations"),
            ({"name": "cgsense", "options": "iterations"}, "options must be like"),
            ({"name": "cgsense", "device": "abacus"}, "no such device"),
            ({"name": "cgsense", "device": "meta"}, "no such device"),
            ({"name": "cgsense", "device": "cuda:77"}, "torch finds"),
            ({"name": "cgsense", "batch": -1}, "batch"),
        ],
    )
    def test_what_cannot_be_had(self, options, match):
        def never():
            pytest.fail("the stream was read")
            yield

        with pytest.raises(InputError, match=match):
            list(network(never(), header(), **options))
