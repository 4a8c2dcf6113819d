"""BraTS 2023 adult glioma (ASNR-MICCAI, Synapse syn51156910): four contrasts and the labels of a tumour.

As published, each scan has a folder, BraTS-GLI-00005-000/BraTS-GLI-00005-000-{t1c,t1n,t2f,t2w,seg}.nii.gz. Volumes are
240 x 240 x 155 and skull-stripped. As ATOMMIC converts it, BraTS-GLI-00005-000.nii.gz is (contrast, x, y, slice), the
contrasts in that order, and BraTS-GLI-00005-000-seg.nii.gz lies in a folder beside. Labels: 1 necrotic core, 2 oedema,
3 enhancing tumour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from mrnets.errors import InputError
from training.data import Place, Sample, Slices
from training.readers._contrasts import (
    ENDINGS,
    Subject,
    as_sample,
    block,
    examined_volumes,
    stem,
    told,
    volumes,
    with_anatomy,
)
from training.readers.files import in_sentences, listed
from training.split import Part, Split

__all__ = ["CONTRASTS", "LABELS", "Reader"]

CONTRASTS = ("t1c", "t1n", "t2f", "t2w")
CLASSES = {"necrotic core": (1,), "oedema": (2,), "enhancing tumour": (3,), "whole tumour": (1, 2, 3)}
LABELS = tuple(CLASSES)
LEFT_OUT = "no labels (*-seg.nii.gz); left out"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Axial slices: image (1, 4, [z,] y, x), contrasts in the order of CONTRASTS, and the overlapping planes LABELS.

    The split is by patients, who can have several scans. Scans without labels and slices without brain are left out.
    """

    contrasts: ClassVar[tuple[str, ...]] = CONTRASTS
    slices: int = 1
    """Neighbours, an odd number, that make z where more than 1. Edges are repeated."""

    def read(self, folder: Path, part: Part, split: Split) -> Slices:
        """Return the slices of the patients of `part`. Raises InputError."""
        subjects, unlabelled = _subjects(folder)
        told(unlabelled, LEFT_OUT)
        load = partial(_load, subjects={s.path: s for s in subjects}, slices=self.slices)
        return volumes(subjects, part, split, load, LABELS)

    @in_sentences
    def check(self, folder: Path, split: Split) -> Iterator[str]:
        """Give a sentence for everything that is missing or malformed, from headers and a few slices."""
        subjects, unlabelled = _subjects(folder)
        yield from (f"{path}: {LEFT_OUT}" for path in unlabelled)
        yield from examined_volumes(subjects, len(CONTRASTS), split, partial(self.read, folder, "train", split))


def _subjects(folder: Path) -> tuple[list[Subject], list[str]]:
    """The scans with labels, and the paths of those without. Not all files of a scan need be there."""
    files = list(listed(folder, *ENDINGS).values())
    labels = {stem(f).removesuffix("-seg"): f for f in files if stem(f).endswith("-seg")}
    found: dict[str, dict[str, Path]] = {}
    for file in files:
        scan, _, kind = stem(file).rpartition("-")
        if kind in CONTRASTS:
            found.setdefault(scan, {})[kind] = file
        elif kind != "seg":
            found.setdefault(stem(file), {})["all"] = file
    subjects, unlabelled = [], []
    for scan, images in found.items():
        path = images.get("all") or next(iter(images.values())).parent
        if scan not in labels:
            unlabelled.append(str(path))
            continue
        contrasts = (path,) if "all" in images else tuple(images.get(c, path / f"{scan}-{c}.nii.gz") for c in CONTRASTS)
        subjects.append(Subject(str(path), scan.rpartition("-")[0] or scan, contrasts, labels[scan]))
    if not subjects:
        raise InputError(f"{folder}: no scan with labels (*-seg.nii.gz) in it or below")
    return subjects, unlabelled


def _load(place: Place, *, subjects: Mapping[str, Subject], slices: int) -> Sample:
    subject = subjects[place.path]
    number = with_anatomy(subject, place.index)
    values = [block(path, subject.axes, number, slices) for path in subject.images]
    return as_sample(subject, number, values, CONTRASTS, CLASSES, slices)
