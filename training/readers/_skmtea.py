"""Folders, split and tissue classes that the two tracks of SKM-TEA (Desai 2021, Stanford AIMI) share.

The folder of the data set (v1-release) has image_files/*.h5, files_recon_calib-24/*.h5,
segmentation_masks/raw-data-track/*.nii.gz and annotations/VERSION/{train,val,test}.json, which name the split.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from mrnets.errors import InputError
from training.readers.files import listed
from training.split import Split

__all__ = ["CLASSES", "Classes", "files", "root"]

Classes = Literal["paper", "merged", "all"]

CLASSES: dict[Classes, dict[str, tuple[int, ...]]] = {
    "paper": {
        "lateral tibial cartilage": (4,),
        "medial tibial cartilage": (3,),
        "lateral meniscus": (6,),
        "medial meniscus": (5,),
    },
    "merged": {
        "patellar cartilage": (1,),
        "femoral cartilage": (2,),
        "tibial cartilage": (3, 4),
        "meniscus": (5, 6),
    },
    "all": {
        "patellar cartilage": (1,),
        "femoral cartilage": (2,),
        "medial tibial cartilage": (3,),
        "lateral tibial cartilage": (4,),
        "medial meniscus": (5,),
        "lateral meniscus": (6,),
    },
}
"""Classes of a network, of the data set's labels from 1 on. "paper": the four of the ATOMMIC paper's text. "merged":
the four that its implementation trains on. "all": all six. They do not overlap, and none of them is the background."""

TISSUES = 6
MAX_BYTES = 1 << 28
"""The largest size of an annotation file."""


def root(folder: Path, track: str) -> Path:
    """Return the folder of the data set, where `folder` is it or its part `track`."""
    return folder.parent if folder.name == track and not (folder / track).is_dir() else folder


def files(folder: Path, track: str, split: Split) -> tuple[dict[str, Path], Split]:
    """Return the scans of a track by name, and how they are split.

    The data set's own annotations decide where they exist and `split` names no subjects. Names are then
    "train/MTR_005", and counts do not matter. Scans that the annotations do not list belong to no part.
    """
    base = root(folder, track)
    found = listed(base / track if (base / track).is_dir() else folder, ".h5")
    own = {} if split.validation or split.test or split.lists else _annotated(base / "annotations")
    if not own:
        return found, split
    named = {f"{own[p.stem]}/{p.stem}" if p.stem in own else p.stem: p for p in found.values()}
    return dict(sorted(named.items())), dataclasses.replace(split, counts=())


def _annotated(folder: Path) -> dict[str, str]:
    """Scan to train, val or test; of the newest version."""
    versions = sorted(p.parent for p in folder.glob("*/train.json"))
    if not versions:
        return {}
    parts = {part: versions[-1] / f"{part}.json" for part in ("train", "val", "test")}
    return {scan: part for part, path in parts.items() if path.is_file() for scan in _scans(path)}


def _scans(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES} bytes; no annotations of SKM-TEA")
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        return [Path(image["file_name"]).stem for image in values["images"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f'{path}: must be JSON with "images", each with a "file_name" ({error!r})') from None
