"""Memory of k-space is used again when nobody has it any more, and never shows what it held before."""

import gc

import numpy as np
import pytest

from gadgets.sort import sort
from mrnets.mrd.lines import ACQUISITION_HEADER, MAX_LINES, Line, coalesce
from mrnets.mrd.spare import KEPT, KEPT_BYTES, Spare
from tests import test_one_reading as scans

SCANS = (
    *(
        scans.slices,
        scans.separate_volume,
        scans.separate_of_each_repetition,
        scans.partial_fourier,
        scans.partial_echo,
    ),
    *(scans.later_repetitions_without_calibration, scans.half_of_a_volume_doubtful, scans.time_interleaved_volume),
    *(scans.averages, scans.reversed_lines, scans.echo_planar, scans.echo_planar_volume),
)


def averages_of_some_lines(rng):
    """A block in which some lines are the first of their place, and others are not."""
    kspace = scans.kspace(rng)
    first, second = scans.synthetic.lines(kspace, range(6)), scans.synthetic.lines(kspace, range(4, 12), average=1)
    return scans.Case(scans.header(), [first, second])


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_comes_back_when_the_last_view_is_gone():
    spare = Spare()
    first = spare.empty((2, 3, 4))
    place, view = address(first), first.swapaxes(0, 2)[1:]
    del first
    gc.collect()
    assert address(spare.empty((2, 3, 4))) != place
    del view
    gc.collect()
    again = spare.empty((4, 6))
    assert (address(again), again.shape, again.dtype) == (place, (4, 6), np.complex64)
    assert again.flags.writeable


def test_memory_of_another_size_is_given_back():
    spare = Spare()
    array = spare.empty((8,))
    del array
    gc.collect()
    assert [piece.nbytes for piece in spare._pieces] == [64]
    larger = spare.empty((9,))
    assert larger.shape == (9,)
    assert not spare._pieces


def test_little_is_kept():
    spare = Spare()
    arrays = [spare.empty((5,)) for _ in range(KEPT + 2)]
    del arrays
    gc.collect()
    assert len(spare._pieces) == KEPT
    large = Spare()
    array = large.empty((KEPT_BYTES // 8 + 1,))
    del array
    gc.collect()
    assert not large._pieces


def test_blocks_of_lines_use_memory_again_that_nobody_has(monkeypatch):
    back, keep = [], Spare._keep

    def kept_again(self, piece):
        back.append(piece)
        keep(self, piece)

    monkeypatch.setattr(Spare, "_keep", kept_again)

    def fill(value):
        return lambda data, _: data.fill(value)

    header = np.zeros(1, ACQUISITION_HEADER)
    header["active_channels"], header["number_of_samples"] = 1, 2
    stream = (Line(header.tobytes(), fill(n)) for n in range(8 * MAX_LINES))
    places, kept = [], []
    for number, run in enumerate(coalesce(stream)):
        places.append(address(run.data))
        if number in (0, 3):
            kept.append(run)
    assert len(places) == 8
    assert len(set(places)) < 6
    assert len(back) == 5  # all but the two that are kept here, and the last one
    assert [run.data[:, 0, 0].real.tolist() for run in kept] == [
        list(range(n * MAX_LINES, (n + 1) * MAX_LINES)) for n in (0, 3)
    ]


@pytest.mark.parametrize("make", [*SCANS, averages_of_some_lines], ids=lambda make: make.__name__)
def test_what_memory_held_before_is_never_seen(make, monkeypatch):
    """k-space begins as NaN in one case, and as zeros in the other."""
    found = []
    for value in (0, np.nan):
        monkeypatch.setattr(Spare, "empty", lambda self, shape, value=value: np.full(shape, value, np.complex64))
        case = make(np.random.default_rng(5))
        found.append([frame.raw for frame in sort(case.lines, case.header)])
    for cleared, dirty in zip(*found, strict=True):
        assert cleared.kspace.tobytes() == dirty.kspace.tobytes()
        assert np.isfinite(dirty.kspace).all()
        assert (cleared.calibration is None) == (dirty.calibration is None)
        if dirty.calibration is not None:
            assert cleared.calibration.tobytes() == dirty.calibration.tobytes()
