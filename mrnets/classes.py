"""The classes of a segmentation: whether they exclude each other, and which pixels belong to which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mrnets.physics.arrays import Array, array_namespace, asarray_like

__all__ = ["BACKGROUND", "Classes", "classes_of", "decided", "foreground"]

Classes = Literal["exclusive", "overlapping"]
"""The meaning of logits.

"exclusive": softmax; every pixel has one class, and the first class is the background.
"overlapping": sigmoid; each class is by itself, where its logit is above 0. One class alone is always of this kind."""
BACKGROUND = "background"


def classes_of(labels: Sequence[str]) -> Classes:
    """Return whether classes of these names exclude each other: they do where the first is the background."""
    return "exclusive" if len(labels) > 1 and labels[0] == BACKGROUND else "overlapping"


def foreground(labels: Sequence[str]) -> int:
    """Return the index of the first class that is no background."""
    return int(classes_of(labels) == "exclusive")


def decided(logits: Array, classes: Classes) -> Array:
    """Return masks (batch, class, [z,] y, x) bool of logits of that shape: the largest, or all above 0."""
    if classes == "overlapping" or logits.shape[1] == 1:
        return logits > 0
    xp = array_namespace(logits)
    numbers = asarray_like(range(logits.shape[1]), logits)
    return xp.argmax(logits, axis=1)[:, None] == xp.reshape(numbers, (-1, *[1] * (logits.ndim - 2)))
