"""Odd scans of every kind of the field: the same images through every host, and the same k-space in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gadgets.frame import Frame
from gadgets.messages import Close, ConfigText, Header
from gadgets.sort import sort
from mrnets.mrd.files import write_scan
from mrnets.mrd.header import read_header
from tests.faults.hosts import HOSTS, Outcome
from tests.gadgets.odd_scans import ODD, Scan
from tests.gadgets.toys import blob, chain, configuration, stage
from training.readers.ismrmrd import Reader
from training.split import Split

GADGETS = (
    *(stage("noise"), stage("sort"), stage("coils", method="rss")),
    *(stage("network", name="zerofilled"), stage("images", scaling="first", scale="1")),
)


def through(host: str, scan: Scan, folder: Path) -> Outcome:
    """Return the outcome of a scan in a host. serve and external get the chain with it."""
    text = configuration(*GADGETS) if host == "external" else chain(*GADGETS)
    configured = [ConfigText(text.encode())] if host in ("serve", "external") else []
    folder.mkdir()
    return HOSTS[host](blob([*configured, Header(scan.header), *scan.blocks, Close()]), chain(*GADGETS), folder)


def assert_same(one: Outcome, other: Outcome, rtol: float = 0.0) -> None:
    assert [image.key for image in one.images] == [image.key for image in other.images]
    for first, second in zip(one.images, other.images, strict=True):
        np.testing.assert_allclose(first.pixels, second.pixels, rtol=0, atol=rtol * np.abs(second.pixels).max())


@pytest.mark.parametrize("kind", ODD)
def test_hosts_give_the_images_of_the_plain_scan(kind: str, tmp_path: Path) -> None:
    odd = ODD[kind]()
    found = {host: through(host, odd.scan, tmp_path / host) for host in HOSTS}
    for host, outcome in found.items():
        assert outcome.whole, host
        assert not outcome.sentences
        assert outcome.images
        assert_same(outcome, found["pipe"])
        for image in outcome.images:
            assert any(odd.note in note for note in image.notes), (host, image.notes)
    if odd.plain is not None:
        assert_same(found["pipe"], through("pipe", odd.plain, tmp_path / "plain"), rtol=1e-3)


@pytest.mark.parametrize("kind", ODD)
def test_training_reads_what_the_gadgets_sort(kind: str, tmp_path: Path, rng: np.random.Generator) -> None:
    scan = ODD[kind]().scan
    write_scan(tmp_path / "scan.h5", scan.header, scan.blocks)
    frames = [item for item in sort(iter(scan.blocks), read_header(scan.header).header) if isinstance(item, Frame)]
    source = Reader(prospective=True).read(tmp_path, "train", Split(validation=0))
    expected = [(frame.raw, part) for frame in frames for part in _positions(frame)]
    assert len(source.places) == len(expected)
    for n in sorted({0, len(expected) // 2, len(expected) - 1}):
        found, (raw, part) = source.take([n], rng).raw, expected[n]
        scale = np.abs(raw.kspace).max()
        np.testing.assert_allclose(found.kspace, raw.kspace[part], rtol=0, atol=2e-6 * scale)
        np.testing.assert_array_equal(found.mask, raw.mask)
        assert found.variance == raw.variance
        if found.calibration is not None:  # otherwise training takes the centre of the lines themselves
            np.testing.assert_allclose(found.calibration, raw.calibration[part], rtol=0, atol=2e-6 * scale)


def _positions(frame: Frame) -> list[Any]:
    """The parts of a frame that training has as examples: readout positions of a volume."""
    return [slice(x, x + 1) for x in range(len(frame.raw.kspace))] if frame.volume else [slice(None)]
