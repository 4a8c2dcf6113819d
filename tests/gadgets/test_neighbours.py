import pytest

from gadgets.neighbours import with_neighbours
from mrnets.errors import InputError
from tests.gadgets.frames import frames, header


def test_slices_wait_for_their_neighbours_and_not_without_end(monkeypatch):
    """Three slices fit, and the fourth does not."""
    scan = frames(4)
    room = 3.5 * scan[0].raw.kspace.nbytes / 2**30
    monkeypatch.setattr("gadgets.neighbours.usual_memory", lambda share: room)
    assert list(with_neighbours(scan[:3], header(), lambda slices: slices)) == scan[:3]
    with pytest.raises(InputError, match="of slices wait for their neighbours"):
        list(with_neighbours(scan, header(), lambda slices: slices))
