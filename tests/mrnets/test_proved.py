"""Kernels are used for a form of scans after their image was that of torch's operations. A stand-in is the kernels."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch

from mrnets.blocks import fused
from mrnets.contract import Estimate, Scan
from mrnets.proved import Proved
from mrnets.trust import classical
from tests.mrnets.examples import scan_for
from tests.mrnets.test_graphs import other


class Network:
    """A network whose kernels make an image that is wrong by `error`."""

    def __init__(self, error: float) -> None:
        self.error, self.kernels = error, list[bool]()

    def __call__(self, scan: Scan) -> Estimate:
        self.kernels.append(fused._wanted.get())
        made = classical(scan)
        assert made.image is not None
        return dataclasses.replace(made, image=made.image * (1 + self.error if self.kernels[-1] else 1))


@pytest.mark.parametrize(("error", "rounded"), [(1e-3, False), (1e-2, True)])
def test_kernels_that_give_the_image_are_used_from_the_second_scan_on(error: float, rounded: bool) -> None:
    network, proved, scan = Network(error), Proved(), scan_for("l1wavelet")
    for seed in range(3):
        proved.run(network, other(scan, seed), "", rounded=rounded)
    assert network.kernels == [False, True, True, True]


def test_kernels_that_fail_cost_no_image(caplog: pytest.LogCaptureFixture) -> None:
    class Refused(Exception):
        """As Triton's errors are: no RuntimeError."""

    def network(scan: Scan) -> Estimate:
        if fused._wanted.get():
            raise Refused("no\ncompiler")
        return classical(scan)

    proved, scan = Proved(), scan_for("l1wavelet")
    for _ in range(3):
        assert proved.run(network, scan, "").image is not None
    assert [record.message for record in caplog.records] == ["Triton's kernels are not used: no compiler"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no"), RuntimeError("Triton Error [CUDA]: out of memory")])
def test_a_lack_of_memory_is_no_verdict(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    class Short(Network):
        def __call__(self, scan: Scan) -> Estimate:
            made = super().__call__(scan)
            if self.kernels == [False, True]:
                raise error
            return made

    network, proved, scan = Short(0.0), Proved(), scan_for("l1wavelet")
    for _ in range(3):
        assert proved.run(network, scan, "").image is not None
    assert network.kernels == [False, True, False, True, True]
    assert not caplog.records


@pytest.mark.parametrize("error", [1e-2, float("nan")])
def test_kernels_that_give_another_image_are_not_used(error: float, caplog: pytest.LogCaptureFixture) -> None:
    network, proved, scan = Network(error), Proved(), scan_for("l1wavelet")
    with caplog.at_level(logging.WARNING):
        for seed in range(3):
            given = other(scan, seed)
            made, wanted = proved.run(network, given, ""), classical(given)
            assert made.image is not None
            assert wanted.image is not None
            assert (made.image == wanted.image).all()
    assert network.kernels == [False, True, False, False]
    (record,) = caplog.records
    assert "not used: their image differs" in record.message


@pytest.mark.parametrize("factor", [0.0, float("nan")])
def test_an_image_that_shows_nothing_proves_nothing(factor: float, caplog: pytest.LogCaptureFixture) -> None:
    network, proved, scan = Network(1e-2), Proved(), scan_for("l1wavelet")
    assert scan.kspace is not None
    for given in (dataclasses.replace(scan, kspace=scan.kspace * factor), scan, scan):
        proved.run(network, given, "")
    assert network.kernels == [False, False, True, False]
    assert len(caplog.records) == 1


def test_the_form_used_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrnets.proved.MOST", 2)
    network, proved, scan = Network(0.0), Proved(), scan_for("l1wavelet")
    for name in ("a", "b", "a", "c"):
        proved.run(network, scan, name)
    network.kernels.clear()
    proved.run(network, scan, "a")
    assert network.kernels == [True]


def test_each_form_is_compared() -> None:
    network, proved, scan = Network(0.0), Proved(), scan_for("l1wavelet")
    assert scan.kspace is not None
    assert scan.mask is not None
    assert scan.sens is not None
    less = dataclasses.replace(scan, kspace=scan.kspace[..., 1:], mask=scan.mask[..., 1:], sens=scan.sens[..., 1:])
    for given in (scan, less, scan, less):
        proved.run(network, given, "")
    assert network.kernels == [False, True, False, True, True, True]
