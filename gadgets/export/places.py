"""Where pixels lie in the patient: affine matrices from the headers of images.

Patient coordinates are DICOM's, in mm: left, posterior, superior (LPS). NIfTI's are right, anterior, superior (RAS).
An affine matrix (4, 4) takes (x, y, z, 1) of a pixel, from 0, to the place of that pixel's centre.
"""

from __future__ import annotations

import ismrmrd
import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError

__all__ = ["Affine", "affine_of", "ras"]

Affine = NDArray[np.float64]

UNKNOWN_THICKNESS = 1.0
"""mm; for one slice of which the header tells no thickness."""
TOLERANCE = 1e-3


def affine_of(
    head: ismrmrd.ImageHeader, shape: tuple[int, int, int], what: str, *, reversed_axes: bool = False
) -> Affine:
    """Return the affine matrix to LPS of an image of `shape` (z, y, x).

    Its centre, the pixel n // 2 of each axis, lies at `position`; see `gadgets.geometry`. x runs along `read_dir`,
    y along `phase_dir` and z along `slice_dir`. reversed_axes: x and y run against them, as does z in volumes.
    Raises InputError, naming `what`, for directions that are no perpendicular unit vectors, and where the position or
    the field of view cannot be.
    """
    directions = np.array([head.read_dir, head.phase_dir, head.slice_dir], np.float64)
    if not np.allclose(directions @ directions.T, np.eye(3), atol=TOLERANCE):
        told = ", ".join(str(tuple(round(float(v), 4) for v in row)) for row in directions)
        raise InputError(f"{what} has the directions {told}; perpendicular unit vectors were expected.")
    sizes = np.array(shape[::-1])
    fov = np.array(head.field_of_view, np.float64)
    if sizes[2] == 1 and fov[2] == 0:
        fov[2] = UNKNOWN_THICKNESS
    position = np.array(head.position, np.float64)
    if not (np.isfinite(position).all() and np.isfinite(fov).all() and (fov > 0).all()):
        size, place = (", ".join(f"{value:g}" for value in values) for values in (fov, position + 0.0))  # no -0
        raise InputError(f"{what} has the field of view ({size}) mm at ({place}) mm; it cannot be placed.")
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    if reversed_axes:
        directions[: 3 if sizes[2] > 1 else 2] *= -1
    affine = np.eye(4)
    affine[:3, :3] = directions.T * (fov / sizes)
    affine[:3, 3] = position - affine[:3, :3] @ (sizes // 2)
    return affine


def ras(affine: Affine) -> Affine:
    """Return an affine matrix to LPS as one to RAS."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
