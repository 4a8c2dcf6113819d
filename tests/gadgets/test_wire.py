"""Golden values: ismrmrd's and gadgetron-python's own readers and writers, where they are right."""

import io
import struct

import gadgetron.external.readers
import gadgetron.types.image_array
import gadgetron.types.recon_data
import ismrmrd
import numpy as np
import pytest

from gadgets.messages import (
    IMAGE_TYPES,
    Close,
    ConfigFile,
    ConfigText,
    Error,
    Header,
    ImageArray,
    Query,
    ReconBit,
    ReconData,
    Response,
)
from gadgets.wire import read_message
from mrnets.errors import InputError
from mrnets.mrd.lines import Lines
from tests.gadgets import toys
from tests.gadgets.wires import CLOSE, buffer, image, read_all


def image_array() -> ImageArray:
    headers = np.empty((2, 1, 1), object)
    for n in range(2):
        headers[n, 0, 0] = ismrmrd.ImageHeader()
        headers[n, 0, 0].image_index = n
    data = np.arange(24, dtype=np.complex64).reshape(4, 3, 1, 1, 2, 1, 1)
    return ImageArray(data, headers, [toys_meta("a"), ""], [toys.waveform()], None)


def toys_meta(value: str) -> str:
    return ismrmrd.Meta({"Name": value}).serialize()


MESSAGES = [
    ConfigFile("default.xml"),
    ConfigText(b"<configuration/>"),
    Header(toys.HEADER),
    Query(7, "gadgetron::version"),
    Response(7, "4.7.2"),
    Error("a coil fell off"),
    "text with ümläuts",
    Close(),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_messages_round_trip(message):
    assert read_message(io.BytesIO(toys.blob([message]))) == message


def test_the_layout_of_control_messages():
    assert toys.blob([ConfigText(b"<c/>")]) == b"\2\0\4\0\0\0<c/>"
    assert toys.blob([Header(b"<h/>")]) == b"\3\0\4\0\0\0<h/>"
    assert toys.blob([Error("no")]) == b"\10\0" + struct.pack("<Q", 2) + b"no"
    assert toys.blob([Query(9, "k")]) == b"\6\0" + struct.pack("<QQQ", 0, 9, 1) + b"k"
    assert toys.blob([Response(9, "v")]) == b"\7\0" + struct.pack("<QQ", 9, 1) + b"v"
    assert toys.blob([ConfigFile("a.xml")]) == b"\1\0a.xml" + bytes(1019)


@pytest.mark.parametrize("dimensions", [0, 2])
def test_lines_are_ismrmrds_acquisitions_one_message_a_line(dimensions):
    run = toys.lines(3, dimensions=dimensions)
    data = toys.blob([run])
    stream = io.BytesIO(data)
    for n in range(3):
        assert stream.read(2) == struct.pack("<H", 1008)
        acquisition = ismrmrd.Acquisition.deserialize_from(stream.read)
        np.testing.assert_array_equal(acquisition.data, run.data[n])
        assert acquisition.scan_counter == n
    (back,) = read_all(data + CLOSE)
    np.testing.assert_array_equal(back.data, run.data)
    np.testing.assert_array_equal(back.headers, run.headers)
    if dimensions:
        np.testing.assert_array_equal(back.trajectory, run.trajectory)
    assert toys.blob([back]) == data


def test_lines_come_back_whatever_library_holds_them():
    torch = pytest.importorskip("torch")
    run = toys.lines(2)
    assert toys.blob([Lines(run.headers, torch.from_numpy(run.data))]) == toys.blob([run])


def test_waveforms_round_trip():
    data = toys.blob([toys.waveform()])
    assert data[2:] == toys.waveform().to_bytes()
    assert read_all(data + CLOSE) == [toys.waveform()]


@pytest.mark.parametrize("dtype", [d.str for d in IMAGE_TYPES.values()])
def test_images_of_every_type_round_trip(dtype):
    data = toys.blob([image(dtype, {"Size": "größer"})])
    head = ismrmrd.ImageHeader.from_buffer_copy(data[2:200])
    length = struct.unpack_from("<Q", data, 200)[0]
    assert head.attribute_string_len == length
    np.testing.assert_array_equal(np.frombuffer(data[208 + length :], dtype), np.arange(24))
    (back,) = read_all(data + CLOSE)
    np.testing.assert_array_equal(back.data.ravel(), np.arange(24))
    assert back.meta == {"Size": "größer"}
    assert toys.blob([back]) == data


def test_writing_an_image_leaves_it_as_it_is():
    item = image(meta={"a": "b"})
    toys.blob([item])
    assert item.getHead().attribute_string_len == 0


def test_the_nul_behind_image_meta_from_cpp_is_no_part_of_it():
    meta = toys_meta("x").encode() + b"\0"
    plain = toys.blob([image()])
    (back,) = read_all(plain[:200] + struct.pack("<Q", len(meta)) + meta + plain[208:] + CLOSE)
    assert back.meta == {"Name": "x"}


def test_empty_values_in_image_meta_stay_empty():
    values = "<meta><name>A</name><value></value></meta><meta><name>B</name><value>b</value><value/></meta>"
    meta = f"<ismrmrdMeta>{values}</ismrmrdMeta>".encode()
    plain = toys.blob([image()])
    (back,) = read_all(plain[:200] + struct.pack("<Q", len(meta)) + meta + plain[208:] + CLOSE)
    assert back.meta == {"A": "", "B": ["b", ""]}
    assert "None" not in back.attribute_string


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        (b'<!DOCTYPE x [<!ENTITY a "b">]><ismrmrdMeta/>', "document type"),
        (b"<ismrmrdMeta>", "well-formed"),
        (b"<other/>", "ismrmrdMeta"),
        (b"<ismrmrdMeta><meta><value>x</value></meta></ismrmrdMeta>", "a value without a name"),
        (b"\xff\xfe", "meta of an image"),
    ],
)
def test_bad_image_meta_is_an_error(meta, words):
    plain = toys.blob([image()])
    with pytest.raises(InputError, match=words):
        read_all(plain[:200] + struct.pack("<Q", len(meta)) + meta + plain[208:] + CLOSE)


def test_an_unknown_image_type_is_an_error():
    data = bytearray(toys.blob([image()]))
    data[4] = 9
    with pytest.raises(InputError, match="data type 9"):
        read_all(bytes(data) + CLOSE)


@pytest.mark.filterwarnings("ignore:A builtin ctypes object:RuntimeWarning")  # of gadgetron-python
def test_recon_data_are_what_gadgetron_python_reads():
    item = ReconData([ReconBit(buffer(trajectory=True), None), ReconBit(buffer(), buffer((4, 2, 1, 2, 1, 1, 1)))])
    data = toys.blob([item])
    theirs = gadgetron.types.recon_data.read_recon_data(io.BytesIO(data[2:]))
    (ours,) = read_all(data + CLOSE)
    for read in (theirs, ours):
        assert len(read.bits) == 2
        assert read.bits[0].ref is None
        for mine, its in ((item.bits[0].data, read.bits[0].data), (item.bits[1].ref, read.bits[1].ref)):
            np.testing.assert_array_equal(its.data, mine.data)
            assert its.headers.shape == mine.headers.shape
            assert [h.scan_counter for h in its.headers.ravel()] == [h.scan_counter for h in mine.headers.ravel()]
            assert bytes(its.sampling) == bytes(mine.sampling)
        np.testing.assert_array_equal(read.bits[0].data.trajectory, item.bits[0].data.trajectory)
    assert toys.blob([ours]) == data
    assert toys.blob([theirs]) == data, "gadgetron-python's own objects are written too, which it cannot with NumPy 2"


def test_an_array_without_dimensions_has_no_elements():
    nothing = struct.pack("<Q", 0)
    body = struct.pack("<Q", 1) + nothing + b"\0\0" + nothing + bytes(56) + b"\0"
    (item,) = read_all(struct.pack("<H", 1023) + body + CLOSE)
    assert item.bits[0].data.data.shape == (0,)
    assert item.bits[0].data.headers.size == 0
    assert toys.blob([item]) == struct.pack("<H", 1023) + body


@pytest.mark.filterwarnings("ignore:A builtin ctypes object:RuntimeWarning")
def test_image_arrays_are_what_gadgetron_python_reads():
    data = toys.blob([image_array()])
    theirs = gadgetron.types.image_array.read_image_array(io.BytesIO(data[2:]))
    (ours,) = read_all(data + CLOSE)
    for read in (theirs, ours):
        np.testing.assert_array_equal(read.data, image_array().data)
        assert [h.image_index for h in read.headers.ravel()] == [0, 1]
        assert read.meta == [toys_meta("a"), ""]
        assert read.waveform == [toys.waveform()]
        assert read.acq_headers is None
    assert toys.blob([ours]) == data


def bucket_bytes(data, calibration, waveforms) -> bytes:
    """As Gadgetron's writer makes them: headers, trajectories, samples, statistics; then the same for calibration."""

    def part(run: list[ismrmrd.Acquisition]) -> bytes:
        stats = struct.pack("<Q", 1) + b"".join(struct.pack("<QHH", 2, 0, n) for n in range(9))
        arrays = b"".join(a.traj.tobytes() for a in run) + b"".join(a.data.tobytes() for a in run)
        return b"".join(bytes(a.getHead()) for a in run) + arrays + stats

    def counts(run):
        return [len(run), 340 * len(run), sum(a.data.nbytes for a in run), sum(a.traj.nbytes for a in run)]

    sizes = [*counts(data), *counts(calibration), 44, 44, len(waveforms), 40 * len(waveforms), 0]
    waves = b"".join(bytes(w.getHead()) for w in waveforms) + b"".join(w.data.tobytes() for w in waveforms)
    return struct.pack("<H13Q", 1050, *sizes) + part(data) + part(calibration) + waves


def test_a_bucket_comes_as_its_lines_each_of_them_once():
    data = list(toys.acquisitions(4, seed=1, measurement_uid=1))
    calibration = list(toys.acquisitions(2, seed=2, measurement_uid=2))
    both = data[1]
    stream = bucket_bytes(data, [calibration[0], both, calibration[1]], [toys.waveform()])
    wave, *runs = read_all(stream + CLOSE)
    assert wave == toys.waveform()
    found = [(int(h["measurement_uid"]), int(h["scan_counter"])) for run in runs for h in run.headers]
    assert found == [(2, 0), (2, 1), (1, 0), (1, 1), (1, 2), (1, 3)]
    np.testing.assert_array_equal(runs[-1].data[-1], data[-1].data)
