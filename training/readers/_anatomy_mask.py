"""The brain in a gradient-echo image of a head, found by brightness: roughly, as a region for scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["anatomy_mask"]

PIXELS = 290
"""The size of the matrix that the radius belongs to."""
RADIUS = 4


def anatomy_mask(magnitude: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the mask (y, x) bool of the brain in magnitudes (y, x).

    As in the ATOMMIC paper: the pixels above Otsu's threshold (1979) are the head with its skull. The rest of its
    convex hull, eroded, contains the brain. In there, pixels above half the threshold are opened by erosion and
    dilation, and their holes are filled. The convex hull of the largest component is the brain. Where nothing is
    enclosed, the mask is all of the head. Where nothing is bright, it is all pixels.
    """
    from scipy import ndimage
    from skimage.filters import threshold_otsu
    from skimage.measure import label
    from skimage.morphology import convex_hull_image

    values = np.nan_to_num(np.asarray(magnitude, np.float32))
    if values.max() <= values.min():
        return np.ones(values.shape, bool)
    times = max(round(RADIUS * min(values.shape) / PIXELS), 1)
    threshold = threshold_otsu(values)
    head = values > threshold
    hull = convex_hull_image(head)
    inside = ndimage.binary_erosion(hull & ~head, iterations=times)
    around = convex_hull_image(inside) if inside.any() else hull
    opened = ndimage.binary_opening((values > threshold / 2) & around, iterations=times)
    filled = ndimage.binary_fill_holes(opened)
    if not filled.any():
        return np.asarray(hull)
    parts = label(filled)
    return np.asarray(convex_hull_image(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])))
