"""The scans that a command line names by files and folders, and the order in which their noise is to be measured."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gadgets.hosts.recording import open_recording
from mrnets.errors import Faults, InputError
from mrnets.mrd.files import ENDINGS as OF_SCANS
from mrnets.mrd.header import read_header
from mrnets.mrd.noise_store import Key, dependency, own

__all__ = ["ENDINGS", "Found", "find", "noise_first"]

ENDINGS = (*OF_SCANS, ".mrd2")
"""Files that are taken for scans in a folder."""


@dataclass(frozen=True)
class Found:
    """A scan."""

    name: str
    """Its name in the folder of the images: the path below the folder that was named, with _ for /, without ending."""
    path: Path


def find(given: Sequence[str], out: Path) -> list[Found]:
    """Return the scans among files and folders, sorted within each folder. Links to folders are not followed.

    out: the folder of the images, in which no scans are looked for. Hidden files and folders are left out.
    Raises InputError for what is not there, for a folder without scans, and for two scans of one name."""
    found: dict[str, Found] = {}
    faults = Faults()
    for text in given:
        with faults.gathered():
            for scan in _in(Path(text), out):
                other = found.setdefault(scan.name, scan)
                if not os.path.samefile(other.path, scan.path):
                    raise InputError(f"{other.path} and {scan.path} would both become {scan.name}; rename one of them")
    faults.tell()
    return list(found.values())


def _in(place: Path, out: Path) -> Iterator[Found]:
    if place.is_file():
        yield Found(_stem(place.name), place)
    elif place.is_dir():
        paths = list(_below(place, out))
        if not paths:
            raise InputError(f"{place}: there are no scans, files that end with {', '.join(ENDINGS)}")
        yield from (Found("_".join((*path.parent.relative_to(place).parts, _stem(path.name))), path) for path in paths)
    else:
        raise InputError(f"{place}: there is no such file or folder")


def _below(folder: Path, out: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        inside = (name for name in sorted(folders) if not name.startswith("."))
        folders[:] = [name for name in inside if (Path(parent) / name).resolve() != out.resolve()]
        names = (name for name in sorted(files) if name.endswith(ENDINGS) and not name.startswith("."))
        yield from (Path(parent) / name for name in names)


def _stem(name: str) -> str:
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)


def noise_first(scans: Iterable[Found], group: str) -> tuple[list[Found], list[Found]]:
    """Return the scans whose noise others of them need, and the others. The first are to be replayed before.

    group: of an HDF5 file. A scan whose header cannot be read is among the others."""
    keys: dict[str, tuple[Key | None, Key | None]] = {}
    scans = list(scans)
    for scan in scans:
        with suppress(InputError), open_recording(scan.path, group) as recording:
            header = read_header(recording.header).header
            keys[scan.name] = own(header), dependency(header)
    needed = {other for _, other in keys.values() if other is not None}
    first = {name for name, (mine, _) in keys.items() if mine in needed}
    return [scan for scan in scans if scan.name in first], [scan for scan in scans if scan.name not in first]
