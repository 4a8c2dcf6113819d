from dataclasses import replace

import pytest

from gadgets.neighbours import with_neighbours
from mrnets.errors import InputError
from tests.gadgets.frames import frames, header


def test_coil_maps_wait_with_their_slices(monkeypatch):
    """Two slices with maps fit, and the third does not, though its k-space would."""
    scan = [replace(one, raw=replace(one.raw, sens=one.raw.kspace)) for one in frames(3)]
    monkeypatch.setattr("gadgets.neighbours.usual_memory", lambda share: 5 * scan[0].raw.kspace.nbytes / 2**30)
    assert list(with_neighbours(scan[:2], header(), lambda slices: slices)) == scan[:2]
    with pytest.raises(InputError, match="of slices wait for their neighbours"):
        list(with_neighbours(scan, header(), lambda slices: slices))


def test_slices_wait_for_their_neighbours_and_not_without_end(monkeypatch):
    """Three slices fit, and the fourth does not."""
    scan = frames(4)
    room = 3.5 * scan[0].raw.kspace.nbytes / 2**30
    monkeypatch.setattr("gadgets.neighbours.usual_memory", lambda share: room)
    assert list(with_neighbours(scan[:3], header(), lambda slices: slices)) == scan[:3]
    with pytest.raises(InputError, match="of slices wait for their neighbours"):
        list(with_neighbours(scan, header(), lambda slices: slices))
