"""Classes of a segmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mrnets.classes import classes_of, decided, foreground


@pytest.mark.parametrize(
    ("labels", "classes", "first"),
    [
        (("background", "GM"), "exclusive", 1),
        (("GM", "WM"), "overlapping", 0),
        (("background",), "overlapping", 0),
        ((), "overlapping", 0),
    ],
)
def test_classes_exclude_each_other_where_the_first_is_the_background(labels, classes, first) -> None:
    assert classes_of(labels) == classes
    assert foreground(labels) == first


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 3, 2, 5, 4), (2, 1, 5, 4)])
@pytest.mark.parametrize("of", [np.asarray, torch.as_tensor])
def test_masks_of_logits(shape, of) -> None:
    logits = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    logits[0, :, 0] = 0.25  # a tie: the first class
    overlapping, exclusive = (np.asarray(decided(of(logits), classes)) for classes in ("overlapping", "exclusive"))
    np.testing.assert_array_equal(overlapping, logits > 0)
    if shape[1] == 1:
        np.testing.assert_array_equal(exclusive, logits > 0)
    else:
        np.testing.assert_array_equal(exclusive.sum(axis=1), 1)
        np.testing.assert_array_equal(exclusive.argmax(axis=1), logits.argmax(axis=1))
