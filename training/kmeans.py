"""Classes of the grey values of an image without training: the best k-means there is, since there is one axis only."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from mrnets.physics.arrays import to_numpy

__all__ = ["classes"]

BINS = 256
"""Bins of the histogram, from 0 to `BRIGHT`."""
BRIGHT = 0.999
"""Quantile of the values above 0 beyond which all values count alike."""


def classes(image: torch.Tensor, count: int) -> torch.Tensor:
    """(count, y, x) float32: 1 for the class of each pixel of `image` (y, x), from the darkest to the brightest.

    The classes are those whose values differ least from their means (squares, over all pixels). Dynamic programming
    over a histogram finds them exactly (Wang and Song, Ckmeans.1d.dp, R Journal 3/2:29-33, 2011).
    """
    values = np.abs(to_numpy(image)).astype(np.float64)
    positive = values[values > 0]
    top = float(np.quantile(positive, BRIGHT)) if positive.size else 1.0
    counts, edges = np.histogram(values.clip(0, top), BINS, (0, top))
    numbers = np.digitize(values, edges[_cuts(counts, (edges[1:] + edges[:-1]) / 2, count)])
    planes = np.stack([numbers == n for n in range(count)]).astype(np.float32)
    return torch.from_numpy(planes).to(image.device)


def _cuts(counts: NDArray[np.int64], centres: NDArray[np.float64], count: int) -> list[int]:
    """The first bin of each class but the first."""
    cost = _costs(counts, centres)
    least, starts = cost[0], []  # by the end of the last class
    for _ in range(count - 1):
        total = least[:, None] + cost
        starts.append(len(total) - 1 - total[::-1].argmin(axis=0))  # of equals the last: what is left is darker
        least = total.min(axis=0)
    cuts, end = [], len(counts)
    for start in reversed(starts):
        end = int(start[end])
        cuts.append(end)
    return cuts[::-1]


def _costs(counts: NDArray[np.int64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """(start, end): sum of squared distances from their mean of the values in the bins from start to end - 1."""

    def between(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.concatenate([[0.0], np.cumsum(weights)])
        return np.asarray(total[None] - total[:, None])

    number, first, second = (between(counts * centres**power) for power in (0, 1, 2))
    cost = np.where(number > 0, second - first**2 / np.maximum(number, 1), 0.0)
    cost[np.tril_indices(len(cost), -1)] = np.inf
    return cost
