"""SKM-TEA, DICOM track: knee images (qDESS, two echoes) and six tissues.

image_files/MTR_005.h5 has echo1, echo2 (x, y, slice), one-hot seg (x, y, slice, tissue), and stats, which are not used
here: `mrnets.prepare` normalises. x are rows and y columns of sagittal slices. Tissues: patellar and femoral cartilage,
medial and lateral tibial cartilage, medial and lateral meniscus.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mrnets.errors import InputError
from training.data import Part, Place, Sample, Slices, Split
from training.readers._contrasts import around
from training.readers._skmtea import CLASSES, TISSUES, Classes, files
from training.readers.files import array, examined, hdf5, split_problems
from training.readers.files import slices as slices_of

__all__ = ["check", "read"]

TRACK = "image_files"
AXES = ("x", "y", "slice")
Echoes = Literal["echo1", "echo2", "both", "rss"]


def read(
    folder: Path,
    part: Part,
    split: Split,
    *,
    echoes: Echoes = "echo1",
    classes: Classes = "paper",
    margin: int = 30,
    slices: int = 1,
) -> Slices:
    """Sagittal slices: image (1, contrast, [z,] y, x), one contrast or, of `both` echoes, two; a plane for each class.

    `classes`: see `training.readers._skmtea`. As in the ATOMMIC paper, the first `margin` + 1 and the last `margin`
    slices are left out. `slices` neighbours, an odd number, make z where more than 1; edges are repeated.
    """
    found, split = files(folder, TRACK, split)
    load = partial(_load, echoes=echoes, classes=classes, slices=slices)
    return slices_of(found, part, split, partial(_numbers, margin=margin), load, tuple(CLASSES[classes]))


def check(
    folder: Path,
    split: Split,
    *,
    echoes: Echoes = "echo1",
    classes: Classes = "paper",
    margin: int = 30,
    slices: int = 1,
) -> Iterator[str]:
    """What is missing or malformed, from headers and a few slices."""
    try:
        found, own = files(folder, TRACK, split)
    except InputError as error:
        yield str(error)
        return
    problems = list(split_problems(found, own))
    for path in found.values():
        try:
            if not _numbers(path, margin=margin):
                problems.append(f"{path}: no slices are left between the margins of {margin}")
        except InputError as error:
            problems.append(str(error))
    yield from problems
    if not problems:
        options = {"echoes": echoes, "classes": classes, "margin": margin, "slices": slices}
        yield from examined(read(folder, "train", split, **options))  # type: ignore[arg-type]


def _numbers(path: Path, *, margin: int) -> range:
    """The slices of a file, from its headers; InputError where these do not fit each other."""
    with hdf5(path) as file:
        seg = _seg(file)
        for key in ("echo1", "echo2"):
            shape = array(file, key, AXES, "real").shape
            if shape != seg.shape[:3]:
                raise InputError(f"{path}: {key} has the shape {shape}, but seg {seg.shape}")
        if seg.shape[3] != TISSUES:
            raise InputError(f"{path}: seg must have {TISSUES} tissues along its last axis, got the shape {seg.shape}")
        return range(margin + 1, seg.shape[2] - margin)


def _seg(file: Any) -> Any:
    """One-hot labels, (x, y, slice, tissue) of whatever type."""
    stored = file.get("seg")
    whole = stored is not None and getattr(stored, "dtype", np.dtype(float)).kind == "b"
    return array(file, "seg", (*AXES, "tissue"), "integer" if whole else "real")


def _load(place: Place, *, echoes: Echoes, classes: Classes, slices: int) -> Sample:
    with hdf5(place.path) as file:
        seg = _seg(file)
        read, which = around(place.index, seg.shape[2], slices)
        names = ("echo1", "echo2") if echoes in ("both", "rss") else (echoes,)
        image = np.stack([array(file, key, AXES, "real")[:, :, read][..., which] for key in names]).astype(np.float32)
        tissues = seg[:, :, read][:, :, which]
    if not np.isin(tissues, (0, 1)).all():
        raise InputError(f"{place.path}: seg, slice {place.index}: must be 0 or 1")
    if echoes == "rss":
        image = np.sqrt(np.sum(image**2, axis=0, keepdims=True))
    image = np.moveaxis(image, -1, 1)
    planes = np.stack([tissues[..., [t - 1 for t in group]].any(-1) for group in CLASSES[classes].values()])
    planes = np.moveaxis(planes, -1, 1)
    if slices == 1:
        image, planes = image[:, 0], planes[:, 0]
    return Sample(
        names=(f"{place.path}, slice {place.index}",),
        image=torch.from_numpy(np.ascontiguousarray(image))[None],
        labels=torch.from_numpy(np.ascontiguousarray(planes))[None],
    )
