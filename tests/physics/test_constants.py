"""Constants are made once, kept within bounds, and the ones used longest ago go first on the host."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pytest

from mrnets.physics import arrays
from mrnets.physics.patches import _cholesky

torch = pytest.importorskip("torch")
LIKE = np.zeros(1, np.float32)


@pytest.fixture
def made(monkeypatch):
    """Sizes that were made, with room for 100 bytes."""
    monkeypatch.setattr(arrays, "_kept", OrderedDict())
    monkeypatch.setattr(arrays, "MAX_KEPT", 100)
    return []


def get(made, size):
    return arrays.constant(_Make(made), size, like=LIKE)


@dataclass(frozen=True, eq=False)
class _Make:
    """Notes the sizes that it makes. All are one function."""

    made: list

    def __call__(self, size):
        self.made.append(size)
        return np.full(size, size, np.float32)

    def __eq__(self, other):
        return self.made is other.made

    def __hash__(self):
        return id(self.made)


def test_a_constant_is_made_once(made):
    assert get(made, 5) is get(made, 5)
    assert made == [5]


def test_the_constant_used_longest_ago_goes(made):
    for size in (10, 11, 10, 12):  # 40, 44 and 48 bytes
        assert len(get(made, size)) == size
    get(made, 10)
    assert made == [10, 11, 12]
    get(made, 11)
    assert made == [10, 11, 12, 11]


def test_a_constant_that_is_too_large_displaces_no_other(made):
    get(made, 10)
    assert len(get(made, 26)) == 26
    get(made, 10)
    get(made, 26)
    assert made == [10, 26, 26]


def test_what_a_device_has_stays(made, monkeypatch):
    """A graph reads it where it lies."""
    monkeypatch.setattr(arrays, "on_host", lambda x: len(x) != 20)
    for size in (20, 5, 6, 20):
        get(made, size)
    assert made == [20, 5, 6]


def test_a_matrix_that_is_not_positive_definite_gives_nan_and_no_wrong_maps():
    matrices = np.stack([2 * np.eye(3), np.diag([1.0, -1.0, 1.0])]).astype(np.complex64)
    with pytest.raises(np.linalg.LinAlgError):
        _cholesky(matrices)
    triangles = _cholesky(torch.from_numpy(matrices))
    torch.testing.assert_close(triangles[0], torch.eye(3, dtype=torch.complex64) * 2**0.5)
    assert triangles[1].isnan().all()
