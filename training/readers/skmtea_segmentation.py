"""SKM-TEA, DICOM track: knee images (qDESS, two echoes) and six tissues.

image_files/MTR_005.h5 has echo1, echo2 (x, y, slice), one-hot seg (x, y, slice, tissue), and stats. The stats are not
used here, because `mrnets.prepare` normalises. x are rows and y columns of sagittal slices. Tissues: patellar and
femoral cartilage, medial and lateral tibial cartilage, medial and lateral meniscus.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mrnets.errors import InputError
from training.data import Place, Sample, Slices
from training.readers._contrasts import around
from training.readers._skmtea import CLASSES, TISSUES, Classes, files
from training.readers.files import array, examined, hdf5, in_sentences, split_problems
from training.readers.files import slices as slices_of
from training.split import Part, Split

__all__ = ["Reader"]

TRACK = "image_files"
AXES = ("x", "y", "slice")
Echoes = Literal["echo1", "echo2", "both", "rss"]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Sagittal slices: image (1, contrast, [z,] y, x), and a plane for each class."""

    echoes: Echoes = "echo1"
    """The contrast; "both" are two of them."""
    classes: Classes = "paper"
    """See `training.readers._skmtea`."""
    margin: int = 30
    """The first `margin` + 1 and the last `margin` slices are left out, as in the ATOMMIC paper."""
    slices: int = 1
    """Neighbours, an odd number, that make z where more than 1. Edges are repeated."""

    def read(self, folder: Path, part: Part, split: Split) -> Slices:
        """Return the slices of the subjects of `part`. Raises InputError."""
        found, split = files(folder, TRACK, split)
        return slices_of(found, part, split, self._numbers, self._load, tuple(CLASSES[self.classes]))

    @in_sentences
    def check(self, folder: Path, split: Split) -> Iterator[str]:
        """Give a sentence for everything that is missing or malformed, from headers and a few slices."""
        found, own = files(folder, TRACK, split)
        problems = list(split_problems(found, own))
        for path in found.values():
            try:
                if not self._numbers(path):
                    problems.append(f"{path}: no slices are left between the margins of {self.margin}")
            except InputError as error:
                problems.append(str(error))
        yield from problems
        if not problems:
            yield from examined(self.read(folder, "train", split))

    def _numbers(self, path: Path) -> range:
        """The slices of a file, from its headers. Raises InputError where these do not fit each other."""
        with hdf5(path) as file:
            seg = _seg(file)
            for key in ("echo1", "echo2"):
                shape = array(file, key, AXES, "real").shape
                if shape != seg.shape[:3]:
                    raise InputError(f"{path}: {key} has the shape {shape}, but seg {seg.shape}")
            if seg.shape[3] != TISSUES:
                wanted = f"must have {TISSUES} tissues along its last axis"
                raise InputError(f"{path}: seg {wanted}, got the shape {seg.shape}")
            return range(self.margin + 1, seg.shape[2] - self.margin)

    def _load(self, place: Place) -> Sample:
        with hdf5(place.path) as file:
            seg = _seg(file)
            read, which = around(place.index, seg.shape[2], self.slices)
            names = ("echo1", "echo2") if self.echoes in ("both", "rss") else (self.echoes,)
            image = np.stack([array(file, key, AXES, "real")[:, :, read][..., which] for key in names])
            tissues = seg[:, :, read][:, :, which]
        if not np.isin(tissues, (0, 1)).all():
            raise InputError(f"{place.path}: seg, slice {place.index}: must be 0 or 1")
        image = image.astype(np.float32)
        if self.echoes == "rss":
            image = np.sqrt(np.sum(image**2, axis=0, keepdims=True))
        planes = np.stack([tissues[..., [t - 1 for t in group]].any(-1) for group in CLASSES[self.classes].values()])
        image, planes = np.moveaxis(image, -1, 1), np.moveaxis(planes, -1, 1)
        if self.slices == 1:
            image, planes = image[:, 0], planes[:, 0]
        return Sample(
            names=(f"{place.path}, slice {place.index}",),
            image=torch.from_numpy(np.ascontiguousarray(image))[None],
            labels=torch.from_numpy(np.ascontiguousarray(planes))[None],
        )


def _seg(file: Any) -> Any:
    """One-hot labels, (x, y, slice, tissue) of any type."""
    stored = file.get("seg")
    whole = stored is not None and getattr(stored, "dtype", np.dtype(float)).kind == "b"
    return array(file, "seg", (*AXES, "tissue"), "integer" if whole else "real")
