"""The subjects of each part of a data set: by number, by name, by folder, or by lists of files as ATOMMIC has them.

A path of a list names a subject where it has the subject's whole name in it, after "/" and before a sign that is no
letter and no digit: "/home/me/BraTS-GLI-00000-000-t1c.nii.gz" names BraTS-GLI-00000.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal

from mrnets.errors import InputError, unknown

__all__ = ["PARTS", "Part", "Split", "part_of"]

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
MAX_BYTES = 1 << 28
"""The largest size of a list."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """The subjects of each part. Names decide before counts; the rest is for training."""

    counts: tuple[int, ...] = ()
    """(training, validation, test) subjects in the order of their names. Where there are fewer, the parts get the same
    shares. Empty: the data set's own folders train, val and test where it has them, else 8 : 1 : 1."""
    validation: tuple[str, ...] = ()
    """Subjects whose name contains one of these."""
    test: tuple[str, ...] = ()
    lists: dict[str, str] = field(default_factory=dict)
    """JSON files for train, validation and test, each an array of paths. Then nothing else decides."""


def part_of(subjects: Sequence[str], part: Part, split: Split) -> list[str]:
    """Return the subjects of `part`, sorted by name. A single subject serves for all parts.

    Raises InputError for counts and lists that cannot be."""
    ordered = sorted(set(subjects))
    if split.lists:
        return _listed(ordered, part, split.lists)
    if len(ordered) == 1:
        return ordered
    if split.validation or split.test:
        held = {
            "validation": [s for s in ordered if any(name in s for name in split.validation)],
            "test": [s for s in ordered if any(name in s for name in split.test)],
        }
        rest = [s for s in ordered if s not in held["validation"] and s not in held["test"]]
        return rest if part == "train" else held[part]
    own: dict[str, list[str]] = {p: [s for s in ordered if _own_part(s) == p] for p in PARTS}
    if not split.counts and own["train"] and own["validation"]:
        return own[part]
    counts = split.counts or (8, 1, 1)
    if len(counts) != 3 or min(counts) < 0 or counts[0] < 1:
        raise InputError(f"split.counts must be three numbers (training, validation, test), got {list(counts)}")
    ends = _ends(len(ordered), counts, exact=bool(split.counts))
    start = {"train": 0, "validation": ends[0], "test": ends[1]}[part]
    return ordered[start : ends[PARTS.index(part)]]


def _own_part(subject: str) -> Part | None:
    """The part that the innermost folder of this kind names: train, val(idation), test."""
    for folder in reversed(Path(subject.lower()).parts[:-1]):
        for part in PARTS:
            name = "val" if part == "validation" else part
            if folder.startswith((name, f"multicoil_{name}", f"singlecoil_{name}")):
                return part
    return None


def _ends(subjects: int, counts: Sequence[int], *, exact: bool) -> tuple[int, int, int]:
    """The end of each part. With too few subjects the parts get shares, and validation at least one."""
    total = sum(counts)
    if exact and subjects >= total:
        return counts[0], counts[0] + counts[1], total
    kept = sum(count > 0 for count in counts[1:])  # one for each of the other parts, where there are as many
    training = min(max(round(subjects * counts[0] / total), 1), max(subjects - kept, 1))
    validation = max(round(subjects * counts[1] / total), 1) if counts[1] else 0
    if not counts[2]:
        validation = min(validation, subjects - 1)
        training = subjects - validation
    return training, min(training + validation, subjects), subjects


def _listed(subjects: Sequence[str], part: str, lists: Mapping[str, str]) -> list[str]:
    """Those of the `subjects` that the list of `part` names; none for a part without a list.

    Raises InputError for lists that cannot be read or name nobody, and for subjects in two of them.
    """
    for key in lists:
        if key not in PARTS:
            raise unknown("part of reader.split.lists", key, PARTS)
    named = {key: _named(tuple(subjects), path) for key, path in lists.items()}
    for subject in subjects:
        both = [key for key, found in named.items() if subject in found]
        if len(both) > 1:
            raise InputError(f"{subject} is in two lists of reader.split.lists: {', '.join(both)}")
    return sorted(named.get(part, ()))


@lru_cache(maxsize=32)
def _named(subjects: tuple[str, ...], path: str) -> frozenset[str]:
    """The subjects that a list names. Raises InputError."""
    paths = _paths(Path(path))
    by_name: dict[str, list[str]] = {}
    for subject in subjects:
        by_name.setdefault(PurePosixPath(subject).name, []).append(subject)
    found = {s for entry in paths for name in _names(entry) for s in by_name.get(name, ()) if _is(s, entry)}
    if not found:
        raise InputError(f"{path}: none of its {len(paths)} paths is of the data set, such as {subjects[0]!r}")
    return frozenset(found)


def _names(entry: str) -> set[str]:
    """The names that a subject with this path may have: its folders, and the beginnings of them up to a sign."""
    parts = PurePosixPath(entry.replace("\\", "/")).parts
    return {part[: sign.start()] for part in parts for sign in re.finditer(r"[^0-9A-Za-z]|$", part)}


def _is(subject: str, entry: str) -> bool:
    """Whether the folders of a subject come before its name in the path, too."""
    return re.search(rf"(^|/){re.escape(subject)}($|[^0-9A-Za-z])", entry.replace("\\", "/")) is not None


def _paths(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES} bytes; no list of files")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as a list of files ({' '.join(str(error).split())})") from None
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise InputError(f"{path}: must be a JSON array of paths")
    return values
