"""Samples that go from the heaps of a file straight to their place: the same bytes as h5py reads, or h5py's error."""

import os
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from ismrmrd.hdf5 import acquisition_dtype

from mrnets import hdf5_reading
from mrnets.errors import InputError
from mrnets.hdf5_heap import REFERENCE, Heaps
from mrnets.mrd import records
from mrnets.mrd.files import open_scan, write_scan
from mrnets.mrd.flags import Flag
from mrnets.mrd.lines import ACQUISITION_HEADER
from tests.gadgets import toys

SIZES = {
    "many lines in a heap": (1, 16),
    "a line or two in a heap": (4, 900),
    "each line in a heap of its own": (8, 1024),
    "lines without samples": (2, 0),
}


def write(path: Path, coils: int, samples: int, *, trajectory: int = 0, chunk: int | None = 1, lines: int = 37) -> None:
    """A scan of lines of random samples, as ismrmrd's own library writes them."""
    rng = np.random.default_rng(5)
    rows = np.zeros(lines, acquisition_dtype)
    rows["head"]["active_channels"], rows["head"]["number_of_samples"] = coils, samples
    rows["head"]["trajectory_dimensions"], rows["head"]["scan_counter"] = trajectory, np.arange(lines)
    with h5py.File(path, "w") as file:
        folder = file.create_group("dataset")
        folder.create_dataset("xml", (1,), h5py.special_dtype(vlen=bytes))[0] = toys.HEADER
        options = {} if chunk is None else {"chunks": (chunk,), "maxshape": (None,)}
        data = folder.create_dataset("data", (lines,), acquisition_dtype, **options)
        for n, row in enumerate(rows):
            row["data"] = rng.standard_normal(2 * coils * samples, np.float32)
            row["traj"] = rng.standard_normal(trajectory * samples, np.float32)
            data[n] = row


def contents(path: Path, rows: list[int] | None = None) -> list[tuple[bytes, bytes, bytes]]:
    """Headers, samples and trajectories of runs of lines."""
    with open_scan(path) as scan:
        items = scan.items() if rows is None else scan.lines(np.array(rows))
        return [(i.headers.tobytes(), i.data.tobytes(), np.asarray(i.trajectory).tobytes()) for i in items]


@pytest.fixture
def library(monkeypatch):
    """The numbers of the records that h5py reads."""
    read, by_library = [], records._by_library

    def counted(path, dataset, which):
        read.extend(which.tolist())
        return by_library(path, dataset, which)

    monkeypatch.setattr(records, "_by_library", counted)
    return read


@pytest.mark.parametrize("trajectory", [0, 3])
@pytest.mark.parametrize("chunk", [1, 5, None])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_heaps_give_what_the_library_gives(tmp_path, monkeypatch, library, size, chunk, trajectory):
    write(tmp_path / "scan.h5", *size, trajectory=trajectory, chunk=chunk)
    for rows in (None, [3, 4, 20, 36]):
        found = contents(tmp_path / "scan.h5", rows)
        assert not library
        with monkeypatch.context() as patch:
            patch.setattr(records, "_layout", lambda *_: None)
            assert contents(tmp_path / "scan.h5", rows) == found
        library.clear()


@pytest.mark.parametrize("create", [{"userblock_size": 512}, {"fs_strategy": "page"}], ids=["user block", "pages"])
def test_a_file_of_another_make_is_read_by_either(tmp_path, create):
    """Addresses count from the end of a user block."""
    write(tmp_path / "plain.h5", 4, 900)
    with h5py.File(tmp_path / "plain.h5") as source, h5py.File(tmp_path / "other.h5", "w", **create) as file:
        source.copy("dataset", file)
    assert contents(tmp_path / "other.h5") == contents(tmp_path / "plain.h5")


def test_compressed_records_are_the_librarys(tmp_path, library):
    write(tmp_path / "plain.h5", 4, 900)
    with h5py.File(tmp_path / "plain.h5") as source, h5py.File(tmp_path / "packed.h5", "w") as file:
        file.create_dataset("dataset/xml", data=source["dataset/xml"][()])
        rows = source["dataset/data"]
        file.create_dataset("dataset/data", data=rows[()], dtype=rows.dtype, chunks=(4,), compression="gzip")
    assert contents(tmp_path / "packed.h5") == contents(tmp_path / "plain.h5")
    assert sorted(library) == list(range(37))


@pytest.mark.parametrize("size", [SIZES["many lines in a heap"], SIZES["each line in a heap of its own"]])
@pytest.mark.parametrize("damage", ["heap", "number", "length"])
def test_a_reference_that_leads_nowhere_is_the_librarys_error(tmp_path, size, damage):
    write(tmp_path / "scan.h5", *size)
    with h5py.File(tmp_path / "scan.h5") as file:
        data = file["dataset/data"]
        at = data.id.get_chunk_info(20).byte_offset + data.id.get_type().get_member_offset(2)
    content = bytearray((tmp_path / "scan.h5").read_bytes())
    place = at + REFERENCE.fields[damage][1]
    kind = "<Q" if damage == "heap" else "<I"
    (value,) = struct.unpack_from(kind, content, place)
    struct.pack_into(kind, content, place, value + (2 if damage == "length" else 1000))
    (tmp_path / "scan.h5").write_bytes(content)
    with pytest.raises(InputError, match=r"scan\.h5: (cannot be read|acquisition 20 has)"):
        contents(tmp_path / "scan.h5")


@pytest.mark.parametrize("chunk", [1, 5])
def test_places_of_chunks_are_asked_once_and_may_be_unknown(tmp_path, monkeypatch, library, chunk):
    write(tmp_path / "scan.h5", 2, 64, chunk=chunk, lines=200)
    asked, ask = [], hdf5_reading._chunk
    monkeypatch.setattr(hdf5_reading, "_chunk", lambda dataset, start: asked.append(start) or ask(dataset, start))
    found = contents(tmp_path / "scan.h5")
    with h5py.File(tmp_path / "scan.h5") as file:
        assert bool(asked) != hasattr(file["dataset/data"].id, "chunk_iter")
    none = np.empty(0, np.int64)
    monkeypatch.setattr(hdf5_reading, "_chunks", lambda *_: (none, none))
    assert contents(tmp_path / "scan.h5") == found
    assert asked
    assert not library


@pytest.mark.parametrize("damage", ["signature", "entries"])
def test_lines_before_a_damaged_index_are_read(tmp_path, damage):
    write(tmp_path / "scan.h5", 2, 64, lines=200)
    content = bytearray((tmp_path / "scan.h5").read_bytes())
    leaves = [at for at in range(0, len(content), 8) if content[at : at + 6] == b"TREE\1\0"]
    first = [struct.unpack_from("<Q", content, at + 32)[0] for at in leaves]  # the key of the first entry
    at = leaves[int(np.argmax(first))]
    content[at : at + 8] = bytes(8) if damage == "signature" else b"TREE\1\0\0\0"
    (tmp_path / "scan.h5").write_bytes(content)
    with open_scan(tmp_path / "scan.h5") as scan:
        taken = records.acquisitions(scan.path, scan.folder["data"], np.arange(64))
        count = sum(len(batch.headers) for batch in taken)
        with pytest.raises(InputError, match=r"scan\.h5: cannot be read") as error:
            list(scan.items())
    assert count == 64
    assert damage == "signature" or "is empty" in str(error.value)


def heap(*objects: tuple[int, bytes], size: int = 4096) -> bytes:
    parts = [struct.pack("<4sB3xQ", b"GCOL", 1, size)]
    parts += [struct.pack("<HH4xQ", n, 1, len(some)) + some.ljust(-(-len(some) // 8) * 8, b"\0") for n, some in objects]
    free = max(size - sum(map(len, parts)), 0)
    return b"".join([*parts, struct.pack("<HH4xQ", 0, 0, free)]).ljust(size, b"\0")[:size]


@pytest.mark.parametrize(
    ("content", "number"),
    [
        (heap((1, b"x" * 12)), 2),
        (heap((1, b"x" * 16)), 1),
        (heap((1, b"x" * 12)).replace(b"GCOL", b"GCOX"), 1),
        (heap((1, b"x" * 12))[:40], 1),
        (heap((1, b"x" * 12), size=40), 1),
        (b"", 1),
    ],
    ids=["no such object", "of another size", "no heap", "cut short", "larger than its heap", "no file"],
)
def test_what_does_not_fit_exactly_is_refused(tmp_path, content, number):
    (tmp_path / "heap").write_bytes(content)
    with open(tmp_path / "heap", "rb") as file, pytest.raises(OSError, match=r"object|heap"):
        Heaps(file.fileno()).read(0, number, np.empty(3, np.float32))


@pytest.mark.parametrize("numbers", [(1,), (1, 2), (2, 1), (7, 3, 5)])
def test_objects_are_found_by_their_number(tmp_path, numbers):
    values = {n: np.arange(n, n + 3 + n % 2, dtype=np.float32) for n in numbers}
    (tmp_path / "heap").write_bytes(b"-" * 8 + heap(*((n, v.tobytes()) for n, v in values.items())))
    with open(tmp_path / "heap", "rb") as file:
        heaps = Heaps(file.fileno())
        for n, value in values.items():
            found = np.empty_like(value)
            heaps.read(8, n, found)
            assert np.array_equal(found, value)


@pytest.mark.parametrize("damaged", [False, True])
def test_runs_of_several_shapes_are_as_by_the_library(tmp_path, monkeypatch, damaged):
    """Shapes and flags change within what is read at once. One line in the middle of a run may be damaged."""
    shapes = [(20, 8, 256, 0), (3, 4, 256, 0), (9, 2, 16, 0), (9, 8, 256, 2)]
    parts = [toys.lines(*shape) for shape in shapes]
    for part in parts:
        part.headers["flags"][len(part) // 2] = 1 << (Flag.LAST_IN_SLICE - 1)
    path = tmp_path / "scan.h5"
    write_scan(path, toys.HEADER, [*parts, *parts])
    if damaged:
        content = bytearray(path.read_bytes())
        at = [at for at in range(0, len(content), 8) if content[at : at + 4] == b"GCOL"][15]
        content[at : at + 4] = b"GCOX"
        path.write_bytes(content)

    def read() -> tuple[list[bytes], str]:
        found, error = [], ""
        with open_scan(path) as scan:
            try:
                for item in scan.items():
                    found.append(item.headers.tobytes() + item.data.tobytes() + np.asarray(item.trajectory).tobytes())
            except InputError as caught:
                error = str(caught)
        return found, error

    quickly = read()
    assert (len(quickly[0]) == 16) != damaged
    assert ("cannot be read" in quickly[1]) == damaged
    if not damaged:
        monkeypatch.setattr(records, "_layout", lambda *_: None)
        assert read() == quickly


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path):
    write(tmp_path / "scan.h5", 8, 1024)
    with open_scan(tmp_path / "scan.h5") as scan:
        os.truncate(tmp_path / "scan.h5", 100_000)
        with pytest.raises(InputError, match=r"scan\.h5: cannot be read"):
            list(scan.items())


def test_the_header_of_the_wire_is_the_files():
    assert acquisition_dtype["head"] == ACQUISITION_HEADER
