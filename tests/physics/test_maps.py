"""The facts about maps, against the signal model: how maps change with the image."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mrnets.physics.arrays import to_numpy
from mrnets.physics.maps import MAPS, Map, facts, scaled, turned
from mrnets.physics.relaxation import signal

TIMES = np.array([0.003, 0.009, 0.015, 0.021])


@pytest.fixture
def maps() -> dict[str, np.ndarray]:
    """(batch, y, x) each, of the sizes that the table tells."""
    rng = np.random.default_rng(7)
    shape = (2, 5, 4)
    made = {name: (known.size or 1.0) * rng.random(shape) for name, known in MAPS.items()}
    return {
        name: m - (known.size or 1.0) / 2 if known.signed else m
        for (name, m), known in zip(made.items(), MAPS.values(), strict=True)
    }


def echoes(maps: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(signal(np.stack([maps[name] for name in MAPS], axis=1), TIMES))


def test_maps_of_a_scaled_image(xp, maps) -> None:
    factor = np.random.default_rng(8).random((2, 5, 4)) + 0.5
    changed = scaled({name: xp.asarray(m) for name, m in maps.items()}, xp.asarray(factor))
    expected = echoes(maps) * factor[:, None]
    np.testing.assert_allclose(echoes({name: to_numpy(m) for name, m in changed.items()}), expected, rtol=1e-6)


def test_maps_of_an_image_with_another_phase(xp, maps) -> None:
    phase = np.exp(1j * np.random.default_rng(9).uniform(-9, 9, (2, 5, 4)))
    changed = turned({name: xp.asarray(m) for name, m in maps.items()}, xp.asarray(phase))
    expected = echoes(maps) * phase[:, None]
    np.testing.assert_allclose(echoes({name: to_numpy(m) for name, m in changed.items()}), expected, rtol=1e-6)
    assert float(abs(to_numpy(changed["phase"])).max()) <= math.pi


def test_windows_hold_values_of_usual_size(maps) -> None:
    for name, m in maps.items():
        low, high = facts(name).window
        assert low <= m.min()
        assert m.max() <= high
        assert (low < 0) == facts(name).signed


def test_of_another_map_nothing_is_known() -> None:
    other = np.ones((1, 2, 2))
    assert facts("T1") == Map()
    assert facts("T1").unit == ""
    assert scaled({"T1": other}, np.full_like(other, 2))["T1"] is other
    assert turned({"T1": other}, -1j * other)["T1"] is other
