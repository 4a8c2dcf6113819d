"""k-means of grey values: against every partition there is, and on an image of known tissues."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from mrnets.contract import Scan
from training import classical
from training.data import Example
from training.kmeans import classes


def spread(values: np.ndarray) -> float:
    return float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_no_partition_is_better(count: int, seed: int) -> None:
    values = np.sort(np.random.default_rng(seed).choice(np.arange(1, 100), 12, replace=False)).astype(np.float32)
    numbers = classes(torch.from_numpy(values.reshape(3, 4)), count).argmax(0).numpy().ravel()
    got = sum(spread(values[numbers == n]) for n in range(count))
    best = min(
        sum(spread(part) for part in np.split(values, cuts)) for cuts in combinations(range(1, len(values)), count - 1)
    )
    assert got == pytest.approx(best, rel=0.02)  # bins of the histogram
    assert (np.diff(numbers) >= 0).all()  # the brightest class is the last


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_tissues_are_found_whatever_the_scale(scale: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(4, (40, 50), p=[0.5, 0.1, 0.2, 0.2])
    image = np.abs(np.array([0.0, 0.3, 0.6, 1.0])[truth] + 0.03 * rng.standard_normal(truth.shape)) * scale
    numbers = classes(torch.from_numpy(image.astype(np.float32)), 4).argmax(0).numpy()
    assert (numbers == truth).mean() > 0.995


def test_an_empty_slice_is_all_background() -> None:
    planes = classes(torch.zeros(6, 5), 4)
    assert bool((planes.sum(0) == 1).all())
    assert bool(planes[0].all())


def test_methods_for_slices_of_one_contrast_only() -> None:
    def example(contrasts: int) -> Example:
        scan = Scan(image=torch.rand(2, contrasts, 8, 9))
        return Example(
            scan=scan, names=("a", "b"), labels=torch.ones(2, 4, 8, 9, dtype=torch.bool), weight=torch.ones(2)
        )

    logits = classical.segmentations(example(1))["kmeans"].logits
    assert logits is not None
    assert logits.shape == (2, 4, 8, 9)
    assert classical.segmentations(example(2)) == {}
