"""Records of what was made of which scan, beside the images: they tell what need not be made again.

A record is a JSON file in the hidden folder `.replay` of the folder of the images. It is written before the images, so
that images without a record are known not to be of such a replay. It is completed when all is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from mrnets.errors import InputError
from mrnets.files import make_folder, write_text

__all__ = ["Record", "digest", "digest_of_file", "place_of", "read_record", "stamp", "write_record"]

BLOCK = 1 << 20
MAX_BYTES = 1 << 20
"""The largest record; a usual one has some kilobytes."""
Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class Record:
    """A scan, and the images that were made of it."""

    stamp: Stamp = (0, 0, 0, 0)
    """Size, times and number of the scan's file. Where they are the same, the file need not be read again."""
    scan: str = ""
    """Digest of the scan's file."""
    settings: str = ""
    """Digest of the chains with their settings, of weights, of the noise of another scan, and of the program."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Digests of the image files by their names; empty before they are whole."""
    formats: tuple[str, ...] = ()
    """The other formats in which the images were written, with their places."""
    lacking: str = ""
    """A sentence on the parts that the scan lacks; empty: it is complete."""

    def is_of(self, other: Record) -> bool:
        """Return whether both are of one scan and the same settings."""
        return (self.scan, self.settings) == (other.scan, other.settings)

    def has(self, images: Iterable[Path]) -> bool:
        """Return whether the image files are there as they were written."""
        names = {path.name: path for path in images}
        there = self.images.keys() == names.keys() and all(path.is_file() for path in names.values())
        return there and all(digest_of_file(path) == self.images[name] for name, path in names.items())


def place_of(folder: Path, name: str) -> Path:
    """Return the place of the record of the scan `name`."""
    return folder / ".replay" / f"{name}.json"


def read_record(path: Path) -> Record | None:
    """Return a record; an empty one where it is damaged, and None where there is none."""
    try:
        with open(path, "rb") as file:
            values = json.loads(file.read(MAX_BYTES))
        return _record(values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError):
        return Record()


def _record(values: Any) -> Record:
    """Return the record of JSON values. Raises TypeError or ValueError for others than `write_record` writes."""
    if not isinstance(values, dict) or {one.name for one in fields(Record)} != values.keys():
        raise ValueError("no record")
    a, b, c, d = (int(value) for value in values.pop("stamp"))
    images = {str(name): str(value) for name, value in dict(values.pop("images")).items()}
    formats = tuple(str(one) for one in values.pop("formats"))
    return Record((a, b, c, d), images=images, formats=formats, **{name: str(text) for name, text in values.items()})


def write_record(path: Path, record: Record) -> None:
    """Write a record. Raises InputError where it cannot be written."""
    make_folder(path.parent)
    write_text(path, json.dumps({one.name: getattr(record, one.name) for one in fields(Record)}, indent=1))


def stamp(path: Path) -> Stamp:
    """Return size, times (ns) and number of a file, which change with it. Raises InputError where there is none."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def digest(*values: object) -> str:
    """Return the SHA-256 of values that are written as JSON."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's content. Raises InputError where it cannot be read."""
    return _digest_of_file(path, stamp(path))


@lru_cache(maxsize=64)
def _digest_of_file(path: Path, _: Stamp) -> str:
    """Return the digest of a file, which is read once as long as its stamp stays."""
    found = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                found.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    return found.hexdigest()
