"""Stages on volumes: part by part along the readout, with the values that the whole has."""

import tracemalloc

import numpy as np
import pytest

from mrnets.contract import Raw
from mrnets.physics import compress
from mrnets.physics.coils import mix
from mrnets.physics.compress import gdcc_hybrid_matrices
from mrnets.stages import PART, compress_raw

COILS, VIRTUAL = 8, 4


def volume(positions: int) -> Raw:
    """A volume as sort gives it: in memory the readout, which is the batch, is the last axis."""
    rng = np.random.default_rng(4)
    shape = (24, COILS, 40, positions)
    kspace = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    kspace *= np.arange(1, COILS + 1)[:, None, None]  # coils of which some count more
    kspace = np.moveaxis(kspace, -1, 0)
    raw = kspace.transpose(0, 2, 1, 3)[:, None]
    mask = np.ones((1, 1, 1, *raw.shape[-2:]), bool)
    return Raw(kspace=raw, mask=mask, calibration=raw[..., 8:16, 12:28], readout="batch")


@pytest.mark.parametrize("positions", [1, PART, 2 * PART + 3])
def test_a_volume_is_compressed_as_a_whole_would_be(positions):
    raw = volume(positions)
    found = compress_raw(raw, VIRTUAL, "gdcc")
    matrices = gdcc_hybrid_matrices(raw.calibration[:, 0], VIRTUAL)[:, None]
    for own, whole in ((found.kspace, raw.kspace), (found.calibration, raw.calibration)):
        np.testing.assert_allclose(own, mix(matrices, whole), rtol=1e-5, atol=1e-5)


def test_matrices_of_a_volume_do_not_depend_on_its_parts(monkeypatch):
    block = volume(37).calibration[:, 0]
    expected = gdcc_hybrid_matrices(block, VIRTUAL)
    monkeypatch.setattr(compress, "_BLOCK", 2 * block[0].size)
    np.testing.assert_allclose(gdcc_hybrid_matrices(block, VIRTUAL), expected, rtol=1e-5, atol=1e-6)


def test_compression_of_a_volume_takes_little_more_memory_than_its_result():
    raw = volume(8 * PART)
    tracemalloc.start()
    try:
        found = compress_raw(raw, VIRTUAL, "gdcc")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    made = found.kspace.nbytes + found.calibration.nbytes
    assert made <= peak < 1.5 * made
