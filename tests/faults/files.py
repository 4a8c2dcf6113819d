"""Faults of files: scans in HDF5, and weights."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

from gadgets.protocol import Incoming, State
from mrnets import store
from mrnets.mrd.files import write_scan
from mrnets.preparation import Preparation
from tests.faults.sound import parts, xml_of

Damage = Callable[[np.random.Generator, bytes], bytes]
Edit = Callable[[h5py.File], None]

SMALL = {"cascades": 1, "channels": 2, "pooling_layers": 1}


def scan_file(path: Path) -> bytes:
    """The scan in HDF5."""
    incoming = Incoming(io.BytesIO(b"".join(parts())), State.PIPE)
    incoming.read()
    write_scan(path, xml_of(parts()[0]), incoming.items())
    return path.read_bytes()


def weights_file(path: Path) -> bytes:
    """A small network."""
    torch.manual_seed(0)
    network = store.create("varnet", **SMALL)
    store.save(path, network, name="varnet", options=SMALL, preparation=Preparation().to_json())
    return path.read_bytes()


def cut(rng: np.random.Generator, whole: bytes) -> bytes:
    """The file ends somewhere."""
    return whole[: rng.integers(len(whole))]


def flipped(rng: np.random.Generator, whole: bytes) -> bytes:
    """Some bits anywhere, most of them at the start, where the structure is."""
    damaged = bytearray(whole)
    reach = len(damaged) if rng.random() < 0.5 else min(4096, len(damaged))
    for place in rng.integers(reach, size=int(rng.integers(1, 16))):
        damaged[place] ^= 1 << rng.integers(8)
    return bytes(damaged)


def overwritten(rng: np.random.Generator, whole: bytes) -> bytes:
    """A block of zeros or noise."""
    place, size = int(rng.integers(len(whole))), int(rng.integers(1, 4096))
    block = bytes(size) if rng.random() < 0.5 else rng.bytes(size)
    return (whole[:place] + block + whole[place + size :])[: len(whole)]


def renamed(rng: np.random.Generator, whole: bytes) -> bytes:
    """A value of the metadata of weights that is another, of a type that may be wrong."""
    size = struct.unpack("<Q", whole[:8])[0]
    head = json.loads(whole[8 : 8 + size])
    metadata = head["__metadata__"]
    name = str(rng.choice(sorted(metadata)))
    metadata[name] = str(rng.choice(["", "{}", "[]", "null", "7", "nan", "x", '{"a": 1}', "[" * 5000]))
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + whole[8 + size :]


def _delete(name: str) -> Edit:
    def edit(file: h5py.File) -> None:
        del file[name]

    return edit


def _put(name: str, value: object) -> Edit:
    def edit(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return edit


EDITS: tuple[Edit, ...] = (
    _delete("dataset"),
    _delete("dataset/xml"),
    _delete("dataset/data"),
    _put("dataset/xml", 3.0),
    _put("dataset/xml", np.zeros(0)),
    _put("dataset/xml", np.arange(7)),
    _put("dataset/data", np.zeros((3, 3))),
    _put("dataset/data", np.zeros(3, [("head", "i4"), ("data", "f4")])),
    _put("dataset/data", np.zeros(0, [("head", "i4"), ("data", "f4")])),
    _put("dataset", 3),
    lambda file: file.create_dataset("dataset/waveforms", data=np.zeros(3)),
    lambda file: file.create_dataset("dataset/waveforms", data=np.zeros((2, 2), "i4")),
    lambda file: file["dataset/data"].resize(len(file["dataset/data"]) + 5, axis=0),
)


def edited(rng: np.random.Generator, whole: bytes) -> bytes:
    """A data set left out, or of another kind."""
    memory = io.BytesIO(whole)
    with h5py.File(memory, "r+") as file:
        EDITS[rng.integers(len(EDITS))](file)
    return memory.getvalue()


SCAN_FILES: dict[str, Damage] = {"cut": cut, "flipped": flipped, "overwritten": overwritten, "edited": edited}
WEIGHTS: dict[str, Damage] = {"cut": cut, "flipped": flipped, "overwritten": overwritten, "renamed": renamed}
