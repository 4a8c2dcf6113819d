"""The format of weights files: one safetensors file, with a JSON header in its metadata, and no pickle.

Nothing in a file is trusted: sizes are bounded and every field is checked. A header is read without torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrnets.errors import InputError, nearest
from mrnets.files import write_bytes

if TYPE_CHECKING:
    import torch

__all__ = ["VERSION", "check_tensors", "located", "read_header", "shipped", "write"]

VERSION = 2
"""Version of the header. Version 1 has other names of some options."""
_WEIGHTS = Path(__file__).parent / "weights"
_LONGEST_HEADER = 16 * 1024**2
"""Bytes. The largest network has some thousand tensors of about 150 bytes of header each."""
_BLOCK = 1 << 20
"""Bytes that are read at once."""
_FIELDS: dict[str, type] = {
    "version": int,
    "network": str,
    "options": dict,
    "preparation": dict,
    "units": dict,
    "labels": list,
    "provenance": dict,
}


def shipped() -> list[str]:
    """The names of the weights that come with the package."""
    return sorted(path.stem for path in _WEIGHTS.glob("*.safetensors"))


def located(path: str | os.PathLike[str]) -> Path:
    """Return the path of a weights file. A bare name without folder and suffix means the weights that ship under it.

    Raises InputError for a bare name under which no weights ship."""
    given = Path(path)
    if given.suffix == ".safetensors" or given.name != str(given):
        return given
    if given.name not in shipped():
        raise InputError(
            f"no weights {str(given)!r}: give the path of a .safetensors file, or one of those that ship: "
            + (", ".join(shipped()) or "none")
            + (f".{hint}" if (hint := nearest(given.name, shipped())) else "")
        )
    return _WEIGHTS / f"{given.name}.safetensors"


def read_header(path: Path) -> dict[str, Any]:
    """The header of a weights file, as it was written, and "tensors": name to shape.

    Raises InputError where the file is absent, truncated, pickled, of another program or of another version.
    """
    table = _table(path)
    entry = table.pop("__metadata__", None)
    if not isinstance(entry, dict) or not isinstance(entry.get("mrnets"), str):
        raise InputError(f"{path} is a safetensors file, but not a weights file of this program (no header of ours)")
    metadata = _parsed(entry["mrnets"], path)
    version = metadata.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise InputError(f"{path} has version {version!r}, and this program reads versions 1 to {VERSION}")
    for field, kind in _FIELDS.items():
        if not isinstance(metadata.get(field), kind):
            raise InputError(f"the header of {path} is damaged: {field} is not {kind.__name__}")
    match metadata.get("package"):
        case None | {"name": str(), "version": str()}:
            pass
        case _:
            raise InputError(f"the header of {path} is damaged: package is not a name and a version")
    return {**metadata, "tensors": {name: tuple(tensor["shape"]) for name, tensor in table.items()}}


def check_tensors(path: Path) -> None:
    """Raise InputError where the tensors of a weights file are not those that its checksum belongs to.

    A file without a checksum passes. The checksum, which `write` puts into the header, is the SHA-256 of all bytes
    behind the header.
    """
    expected = read_header(path).get("checksum")
    if expected is None:
        return
    found = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(8 + struct.unpack("<Q", file.read(8))[0])
        while block := file.read(_BLOCK):
            found.update(block)
    if found.hexdigest() != expected:
        raise InputError(f"{path} is damaged: its tensors do not have the checksum that its header gives")


def write(path: Path, tensors: dict[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a weights file, whole or not at all. Raises InputError for values that are not JSON."""
    from safetensors.torch import save

    data = save(tensors)
    checksum = hashlib.sha256(memoryview(data)[8 + struct.unpack("<Q", data[:8])[0] :]).hexdigest()
    try:
        text = json.dumps({"version": VERSION, "checksum": checksum, **metadata}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"cannot save {path}: its header is not JSON ({error})") from None
    write_bytes(path, save(tensors, metadata={"mrnets": text}))


def _table(path: Path) -> dict[str, Any]:
    """The JSON table of a safetensors file, its tensors checked against the file's size."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start, text = file.read(8), file.read(1)  # a length, of any bytes, and the first of the header: "{"
            if text != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80"):
                raise InputError(f"{path} is a pickled file; weights are read from .safetensors files only")
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                raise InputError(f"{path} is not a weights file, or is truncated")
            text += file.read(length - 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    table = _parsed(text, path)
    ends = [_end(tensor, key, path) for key, tensor in table.items() if key != "__metadata__"]
    if max(ends, default=0) != size - 8 - length:
        raise InputError(f"{path} is truncated or damaged: its tensors do not fill it exactly")
    return table


def _parsed(text: str | bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise InputError(f"the header of {path} is damaged: it is not JSON") from None
    if not isinstance(value, dict):
        raise InputError(f"the header of {path} is damaged: it is not a JSON object")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _end(tensor: object, key: str, path: Path) -> int:
    match tensor:
        case {"dtype": str(), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if 0 <= begin <= end and all(
            isinstance(n, int) and n >= 0 for n in shape
        ):
            return end
    raise InputError(f"the header of {path} is damaged: the entry of tensor {key!r}")
