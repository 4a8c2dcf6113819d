"""Lists of files in JSON, as ATOMMIC splits data sets by them: an array of paths for each part."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from mrnets.errors import InputError, unknown

__all__ = ["listed"]

KEYS = ("train", "validation", "test")
MAX_BYTES = 1 << 28
"""The largest size of a list."""


def listed(subjects: Sequence[str], part: str, lists: Mapping[str, str]) -> list[str]:
    """Return those of the `subjects` that the list of `part` names; none for a part without a list.

    A path names the subject whose name ends its folders and its own name, whatever comes before and behind:
    "/home/me/BraTS-GLI-00000-000-t1c.nii.gz" names BraTS-GLI-00000. Raises InputError for lists that cannot be read or
    name nobody, and for subjects in two of them.
    """
    for key in lists:
        if key not in KEYS:
            raise unknown("part of reader.split.lists", key, KEYS)
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
    """What a subject may be called by whose path this is: its folders, and its beginnings up to a sign."""
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
