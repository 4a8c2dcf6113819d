"""Peaks and energies that are measured as lines come are those of the finished k-space."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gadgets import sort as module
from gadgets.sort import sort
from mrnets.mrd.lines import take, with_data
from mrnets.mrd.plausible import nonzero
from mrnets.mrd.strength import PART_BYTES, in_parts, peaks_of, profiles_of, squares_of
from tests import test_one_reading as scans
from tests.questions import seen

MEASURED = (scans.slices, scans.odd_and_oversampled, scans.echoes, scans.volume, scans.reversed_lines_of_siemens)
LOST = (scans.averages, scans.partial_echo, scans.reversed_lines, scans.echo_planar, scans.echo_planar_volume)
"""k-space is more than lines put to their places: sums, cut readouts, lines brought into phase."""


def parts_of(make, monkeypatch):
    """The parts of the images that the sort gadget makes of a scan."""
    found = []
    monkeypatch.setattr(module, "implausible", lambda key, group, parts, space: found.extend(parts) or ())
    case = make(np.random.default_rng(3))
    assert list(sort(case.lines, case.header))
    return found


@pytest.mark.parametrize("make", MEASURED, ids=lambda make: make.__name__)
def test_what_is_measured_is_that_of_k_space(make, monkeypatch):
    for part in parts_of(make, monkeypatch):
        strength, kspace = part.echo.strength, part.echo.kspace
        assert np.array_equal(strength.peaks, np.stack([peaks_of(plane) for plane in kspace]))
        squares = squares_of(np.moveaxis(kspace, 2, 1))
        for known, energy in zip(strength.profiles, profiles_of(squares, kspace.shape[-1]), strict=True):
            assert energy.max() > 0
            np.testing.assert_allclose(known, energy, rtol=1e-5)


@pytest.mark.parametrize("make", LOST, ids=lambda make: make.__name__)
def test_where_k_space_is_more_than_its_lines_nothing_is_known(make, monkeypatch):
    assert parts_of(make, monkeypatch)[0].echo.strength is None


@pytest.mark.parametrize("shape", [(5, 3, 7), (2, 1, 1), (3, 4, 0), (0, 2, 8), (9, 64, 512)])
def test_peaks_are_the_largest_parts(shape):
    rng = np.random.default_rng(1)
    lines = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    parts = np.stack([lines.real, lines.imag]).reshape(2, shape[0], int(np.prod(shape[1:])))
    expected = np.abs(parts).max(axis=(0, 2), initial=0)
    for some in (lines, lines[..., ::-1], np.moveaxis(np.moveaxis(lines, 1, 0).copy(), 0, 1)):
        assert np.array_equal(peaks_of(some), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, complex(0, np.nan), complex(0, -np.inf)])
def test_peaks_of_lines_that_are_not_finite_are_not_finite(bad):
    lines = np.ones((3, 2, 4), np.complex64)
    lines[1, 1, 2] = bad
    assert np.isfinite(peaks_of(lines)).tolist() == [True, False, True]


def test_parts_fit_the_cache_and_are_all_lines():
    lines = np.empty((9, 64, 512), np.complex64)
    parts = [lines[part] for part in in_parts(lines)]
    assert [len(part) for part in parts] == [4, 4, 1]
    assert all(part.nbytes <= PART_BYTES for part in parts)


def test_peaks_of_changed_lines_are_their_own():
    lines = scans.synthetic.lines(scans.kspace(np.random.default_rng(2)))
    changed = with_data(lines, 2 * lines.data)
    assert np.array_equal(changed.peaks, 2 * lines.peaks)
    assert np.array_equal(take(changed, np.array([3, 1])).peaks, changed.peaks[[3, 1]])


def test_a_device_is_asked_once_for_the_checks_of_a_block(monkeypatch):
    monkeypatch.setattr("mrnets.mrd.lines.peaks_of", lambda data: torch.view_as_real(data).abs().amax((1, 2, 3)))
    lines = scans.synthetic.lines(scans.kspace(np.random.default_rng(2)))
    there = replace(lines, data=torch.from_numpy(lines.data))
    with seen() as found:
        assert there.finite.all()
        assert nonzero(there) is there
    assert found.asked == {"lines.peaks": 1}
