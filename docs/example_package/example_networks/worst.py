"""A loss that looks at the worst pixels."""

from collections.abc import Sequence

from torch import Tensor

from mrnets.contract import Estimate
from training.data import Example

__all__ = ["worst"]

SHARE = 0.01


def worst(estimate: Estimate, example: Example, labels: Sequence[str]) -> Tensor:
    """Return the mean error of the worst hundredth of the pixels, relative to the largest of the target: (batch,)."""
    assert estimate.image is not None
    assert example.target is not None
    errors = (estimate.image - example.target).abs().flatten(1)
    largest = example.target.abs().flatten(1).amax(dim=1)
    found: Tensor = errors.topk(max(round(SHARE * errors.shape[1]), 1), dim=1).values.mean(dim=1) / largest
    return found
