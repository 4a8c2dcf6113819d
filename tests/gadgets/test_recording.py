import io
import struct

import pytest

from gadgets.hosts.recording import open_recording
from gadgets.messages import Close, ConfigFile, Header
from gadgets.wire import read_message
from mrnets.errors import InputError
from mrnets.mrd.files import write_scan
from mrnets.mrd.header import read_header
from tests.gadgets import toys
from tests.gadgets.toys import blob

STREAM = blob([Header(toys.HEADER), *toys.scan(), Close()])


def read(path):
    with open_recording(path) as scan:
        return read_header(scan.header), list(scan.items)


@pytest.mark.parametrize("before", [b"", blob([ConfigFile("default.xml")])], ids=["header", "configuration"])
def test_a_stream_is_read_as_the_hdf5_file_is(tmp_path, before):
    write_scan(tmp_path / "scan.h5", toys.HEADER, toys.scan())
    (tmp_path / "scan.mrd").write_bytes(before + STREAM)
    header, items = read(tmp_path / "scan.mrd")
    assert header == read_header(toys.HEADER)
    assert blob(items) == blob(read(tmp_path / "scan.h5")[1])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("cut.mrd", STREAM[:-9], "in the middle of an acquisition's samples"),
        ("open.mrd", STREAM[:-2], "without a CLOSE message"),
        ("twice.mrd", blob([Header(toys.HEADER)]) + STREAM, "A second Header message"),
        ("none.mrd", blob([ConfigFile("a")]), "The file starts with nothing"),
        ("meas.dat", struct.pack("<II", 68288, 4) + bytes(100), "siemens_to_ismrmrd -f meas.dat -o meas.h5"),
        ("meas", struct.pack("<II", 0, 2) + bytes(100), "raw data of a Siemens scanner"),
        ("text.h5", b"no HDF5 at all", "not HDF5"),
        ("empty.dat", b"", "not HDF5"),
        ("nowhere.h5", None, "there is no such file"),
    ],
)
def test_what_is_no_scan_is_one_sentence_that_names_the_file(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_an_hdf5_file_of_any_name_is_one(tmp_path):
    write_scan(tmp_path / "scan.dat", toys.HEADER, toys.scan())
    assert blob(read(tmp_path / "scan.dat")[1]) == blob(toys.scan())


@pytest.mark.parametrize(
    ("start", "words"), [(b"\x89HDF\r\n\x1a\n", "is an HDF5 file; .*replay"), (b"yardl", "MRD version 2")]
)
def test_a_stream_of_another_kind_is_named(start, words):
    with pytest.raises(InputError, match=words):
        read_message(io.BytesIO(start + bytes(100)))
