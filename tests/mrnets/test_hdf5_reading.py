"""HDF5 files that are damaged where the library would loop, take all memory, or read another file instead."""

import fcntl
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from mrnets.errors import InputError
from mrnets.hdf5_reading import opened, require_lengths, require_own, require_sound
from mrnets.mrd.files import open_scan, write_scan
from tests.gadgets import toys

OBJECT = struct.Struct("<HHIQ")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.h5"
    write_scan(path, toys.HEADER, toys.scan())
    return path


def read(path: Path) -> int:
    with open_scan(path) as opened_scan:
        return len(list(opened_scan.items()))


def heaps(content: bytes) -> list[int]:
    """Where heaps start."""
    found = [content.find(b"GCOL")]
    while found[-1] >= 0:
        found.append(content.find(b"GCOL", found[-1] + 1))
    return found[:-1]


def test_a_sound_file_is_read(scan):
    with open_scan(scan) as found:
        assert toys.blob(found.items()) == toys.blob(toys.scan())


@pytest.mark.parametrize(
    ("number", "size"), [(0, 0), (0, 2**40), (1, 2**64 - 16), (1, 2**64 - 1), (0, 2**64 - 1), (1, 2**40)]
)
def test_an_object_of_a_heap_with_an_impossible_size_is_refused(scan, number, size):
    """Number 0 is the free rest of a heap. The library would loop for ever, or read beyond the heap."""
    content = bytearray(scan.read_bytes())
    for place in heaps(bytes(content)):
        OBJECT.pack_into(content, place + 16, number, 1, 0, size)
    scan.write_bytes(content)
    with pytest.raises(
        InputError, match=rf"{scan.name}: cannot be read; .*an object in a heap at \d+ has the size {size}"
    ):
        read(scan)


@pytest.mark.parametrize("name", ["xml", "data", "waveforms"])
def test_a_length_beyond_the_file_is_refused_before_memory_is_taken(scan, name):
    with h5py.File(scan, "r+") as file:
        dataset = file["dataset"][name]
        if dataset.chunks is None:
            place = dataset.id.get_offset()
        else:
            kind = dataset.id.get_type()
            place = dataset.id.get_chunk_info(0).byte_offset + kind.get_member_offset(kind.get_nmembers() - 1)
    content = bytearray(scan.read_bytes())
    content[place : place + 4] = b"\xf0\xff\xff\xff"
    scan.write_bytes(content)
    with pytest.raises(
        InputError, match=f"{scan.name}: .*{name} has an array of 4294967280 values, more than the file"
    ):
        read(scan)


def test_lengths_of_compressed_records_are_the_filters_matter(tmp_path):
    path = tmp_path / "packed.h5"
    with h5py.File(path, "w") as file:
        packed = file.create_dataset("x", (4,), h5py.vlen_dtype("f4"), chunks=(2,), compression="gzip")
        packed[1] = [1.0, 2.0]
    with opened(path) as file:
        require_lengths(path, file["x"], 0, 4)
        assert file["x"][1].tolist() == [1.0, 2.0]


def test_what_lies_in_another_file_is_refused(tmp_path, scan):
    """The library would read the same names of the same file instead."""
    path = tmp_path / "links.h5"
    layout = h5py.VirtualLayout(shape=(3,), dtype="i8")
    layout[:] = h5py.VirtualSource(str(scan), "dataset/xml", shape=(3,))
    with h5py.File(path, "w") as file:
        file["outer"] = h5py.ExternalLink(str(scan), "/dataset")
        file["soft"] = h5py.SoftLink("/outer")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("outside", (3,), "S1", external=[(str(scan), 0, 3)])
        file["own/x"] = [1]
    with opened(path) as file:
        require_own(file, "own/x")
        for name, words in (
            ("outer/xml", "a link to /dataset"),
            ("soft/xml", "a link to /outer"),
            ("virtual", "other"),
            ("outside", f"outside lies in another file, {scan}"),
        ):
            with pytest.raises(OSError, match=words):
                require_own(file, name)


def test_a_file_that_is_written_is_not_read(scan):
    with open(scan, "rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="is open in another program that writes it"):
            read(scan)


def _header(file: h5py.File, shape: tuple[int, ...], kind: str, **options: object) -> None:
    del file["dataset/xml"]
    file.create_dataset("dataset/xml", shape, kind, **options)


FULL = {"chunks": (1,), "compression": "gzip", "data": np.zeros(1, "S33554432")}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda file: _header(file, (1 << 40,), "S1", chunks=(1000,)), "xml announces 1099511627776 bytes"),
        (lambda file: _header(file, (1,), "S33554432", **FULL), "the ISMRMRD header has 33554432 bytes; at most"),
        (lambda file: (file.pop("dataset/xml"), file.create_group("dataset/xml")), "xml, the ISMRMRD header, is no"),
        (lambda file: _header(file, (1,), h5py.vlen_dtype("u1")), "the ISMRMRD header is neither text nor bytes"),
        (lambda file: file["dataset/data"].resize((1 << 30,)), "data announces .* bytes, and the file has"),
        (lambda file: file["dataset/waveforms"].resize((1 << 40,)), "waveforms announces .* bytes, and the file has"),
    ],
)
def test_a_small_file_takes_no_large_memory(scan, change, sentence):
    with h5py.File(scan, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=f"{scan.name}: .*{sentence}"):
        read(scan)


def _records(path: Path, part: h5py.h5t.TypeID) -> None:
    """A data set of records with a part of this type."""
    record = h5py.h5t.create(h5py.h5t.COMPOUND, 4 + part.get_size())
    record.insert(b"number", 0, h5py.h5t.STD_I32LE)
    record.insert(b"part", 4, part)
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"x", record, h5py.h5s.create_simple((2,)))


def _refused(path: Path) -> str:
    with opened(path) as file, pytest.raises(OSError, match="/x has ") as found:
        require_sound(file["x"])
    return str(found.value)


@pytest.mark.parametrize(
    ("kind", "damage", "sentence"),
    [
        (h5py.h5t.IEEE_F32LE, lambda number: number.set_ebias(1000), "numbers of 8 bytes in places of 4"),
        (h5py.h5t.STD_I32LE, lambda number: number.set_size(3), "numbers of 3 bytes, which NumPy does not have"),
    ],
)
def test_a_number_that_numpy_does_not_have_or_makes_larger_is_refused(tmp_path, kind, damage, sentence):
    """In a record, NumPy's larger numbers would lie one over the other."""
    number = kind.copy()
    damage(number)
    path = tmp_path / "number.h5"
    _records(path, number)
    assert sentence in _refused(path)


def test_an_array_of_changing_length_that_is_no_sequence_is_refused(tmp_path):
    """The library would crash as it reads records of it, or other parts of them."""
    path = tmp_path / "kind.h5"
    _records(path, h5py.h5t.vlen_create(h5py.h5t.IEEE_F32LE))
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<BBBBI", 0x19, 0, 0, 0, 16)) + 1] = 0x0C
    path.write_bytes(content)
    assert "arrays of changing length of an unknown kind" in _refused(path)


@pytest.mark.parametrize(
    "number", ["f2", "f8", "i1", "u8", "c8", "?", "S5", h5py.vlen_dtype("f4"), h5py.string_dtype()]
)
def test_types_of_all_kinds_are_taken(tmp_path, number):
    with h5py.File(tmp_path / "kinds.h5", "w") as file:
        for name, kind in (("alone", number), ("part", [("a", number), ("b", "f4", (2, 3))])):
            require_sound(file.create_dataset(name, (2,), kind))


def test_well_compressed_data_sets_are_taken(tmp_path):
    with h5py.File(tmp_path / "zeros.h5", "w") as file:
        packed = file.create_dataset("x", data=np.zeros(1 << 22), chunks=(1 << 20,), compression="gzip")
        assert packed.nbytes > 900 * packed.id.get_storage_size()
        require_sound(packed)


def test_names_of_groups_that_are_no_text_are_told(scan):
    with h5py.File(scan, "r+") as file:
        file.move("dataset", b"\xff")
    with pytest.raises(InputError, match=r"groups with scans: b'\\xff'"):
        read(scan)
