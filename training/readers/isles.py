"""ISLES 2022 (Hernandez Petzsche 2022, zenodo 7153326): sub-acute stroke in diffusion-weighted images and FLAIR.

As published (BIDS), FLAIR has a grid of its own, and labels have the grid of the DWI:

    rawdata/sub-strokecase0001/ses-0001/sub-strokecase0001_ses-0001_{adc,dwi,flair}.nii.gz
    derivatives/sub-strokecase0001/ses-0001/sub-strokecase0001_ses-0001_msk.nii.gz

As ATOMMIC converts it, ADC, DWI and FLAIR have one grid, and there are only slices with a lesion:

    data/sub-strokecase0001.nii.gz (contrast, y, x, slice)
    segmentations/sub-strokecase0001-seg.nii.gz (y, x, slice)

Labels: 1 lesion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError
from training.data import Place, Sample, Slices
from training.readers._contrasts import (
    ENDINGS,
    THREE,
    Subject,
    around,
    as_sample,
    block,
    examined_volumes,
    stem,
    told,
    volumes,
    with_anatomy,
)
from training.readers.files import in_sentences, listed, nifti, voxels
from training.split import Part, Split

__all__ = ["CONTRASTS", "LABELS", "Reader"]

CONTRASTS = ("adc", "dwi", "flair")
CLASSES = {"lesion": (1,)}
LABELS = tuple(CLASSES)
LEFT_OUT = "no labels (*_msk.nii.gz, *-seg.nii.gz); left out"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Slices of the DWI: image (1, 3, [z,] y, x), the contrasts in the order of CONTRASTS, and one plane, the lesion.

    Subjects without labels and slices that show nothing are left out.
    """

    contrasts: ClassVar[tuple[str, ...]] = CONTRASTS
    slices: int = 1
    """Neighbours, an odd number, that make z where more than 1. Edges are repeated."""
    lesions_only: bool = False
    """Leave out slices without a lesion, for which the labels of all subjects are read (seconds)."""

    def read(self, folder: Path, part: Part, split: Split) -> Slices:
        """Return the slices of the subjects of `part`. Raises InputError."""
        subjects, unlabelled = _subjects(folder)
        told(unlabelled, LEFT_OUT)
        table = {s.path: s for s in subjects}
        load = partial(_load, subjects=table, slices=self.slices, lesions_only=self.lesions_only)
        return volumes(subjects, part, split, load, LABELS, _with_lesion if self.lesions_only else None)

    @in_sentences
    def check(self, folder: Path, split: Split) -> Iterator[str]:
        """Give a sentence for everything that is missing or malformed, from headers and a few slices."""
        subjects, unlabelled = _subjects(folder)
        yield from (f"{path}: {LEFT_OUT}" for path in unlabelled)
        yield from examined_volumes(subjects, len(CONTRASTS), split, partial(self.read, folder, "train", split))


def _subjects(folder: Path) -> tuple[list[Subject], list[str]]:
    """The subjects with labels, and the paths of those without. Not all files of a subject need be there."""
    found: dict[str, dict[str, Path]] = {}
    for file in listed(folder, *ENDINGS).values():
        name = stem(file)
        if name.endswith("-seg"):
            found.setdefault(name.removesuffix("-seg"), {})["msk"] = file
        else:
            scan, _, kind = name.rpartition("_")
            known = kind in (*CONTRASTS, "msk")
            found.setdefault(scan if known else name, {})[kind if known else "all"] = file
    subjects, unlabelled = [], []
    for scan, files in found.items():
        first = next(iter(files.values()))
        path = files.get("all") or next((f for kind, f in files.items() if kind in CONTRASTS), first).parent
        if "msk" not in files:
            unlabelled.append(str(path))
            continue
        contrasts = tuple(files.get(c, path / f"{scan}_{c}.nii.gz") for c in CONTRASTS)
        one = files.get("all")
        subjects.append(
            Subject(
                str(path),
                scan.split("_")[0],
                (one,) if one else contrasts,
                files["msk"],
                transposed=one is not None,
                elsewhere=(CONTRASTS.index("flair"),),
            )
        )
    if not subjects:
        raise InputError(f"{folder}: no subject with labels (*_msk.nii.gz, *-seg.nii.gz) in it or below")
    return subjects, unlabelled


def _with_lesion(subject: Subject) -> Sequence[int]:
    labels = voxels(subject.labels, axes=THREE)
    return [int(n) for n in np.flatnonzero(labels.any(axis=(0, 1)))]


def _load(place: Place, *, subjects: Mapping[str, Subject], slices: int, lesions_only: bool) -> Sample:
    subject = subjects[place.path]
    number = place.index if lesions_only else with_anatomy(subject, place.index)
    if len(subject.images) == 1:
        values = [block(subject.images[0], subject.axes, number, slices)]
    else:
        adc, dwi, flair = subject.images
        values = [block(adc, THREE, number, slices), block(dwi, THREE, number, slices)]
        values.append(_on_grid(flair, dwi, number, slices))
    return as_sample(subject, number, values, CONTRASTS, CLASSES, slices)


def _on_grid(path: Path, grid: Path, number: int, slices: int) -> NDArray[np.float32]:
    """Return `slices` neighbours of slice `number` of the volume `grid`, (x, y, z), as the volume `path` shows them.

    They are interpolated linearly, after a low pass along axes whose voxels are smaller than the grid's. Beyond the
    field of view they are 0.
    """
    from scipy import ndimage

    moving, fixed = nifti(path, THREE), nifti(grid, THREE)
    if moving.shape == fixed.shape and np.allclose(moving.affine, fixed.affine, atol=1e-3):
        return block(path, THREE, number, slices)
    read, which = around(number, fixed.shape[2], slices)
    try:
        there = np.linalg.inv(moving.affine) @ fixed.affine
    except np.linalg.LinAlgError:
        raise InputError(f"{path}: its header has no usable position in space (affine)") from None
    finer = np.linalg.norm(there[:3, :3], axis=1)
    corners = [
        (x, y, z, 1)
        for x in (0, fixed.shape[0] - 1)
        for y in (0, fixed.shape[1] - 1)
        for z in (read.start, read.stop - 1)
    ]
    reach = (np.array(corners) @ there.T)[:, 2]
    margin = 2 + int(finer[2])
    low = int(np.clip(np.floor(reach.min()) - margin, 0, moving.shape[2] - 1))
    high = int(np.clip(np.ceil(reach.max()) + margin + 1, low + 1, moving.shape[2]))
    part = ndimage.gaussian_filter(
        voxels(path, (..., slice(low, high)), THREE), np.maximum(finer - 1, 0) / 2, truncate=3
    )
    offset = there[:3, 3] + there[:3, 2] * read.start - np.array([0, 0, low])
    shape = (*fixed.shape[:2], read.stop - read.start)
    return ndimage.affine_transform(part, there[:3, :3], offset, shape, order=1)[..., which]
