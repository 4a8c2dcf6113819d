import subprocess
import sys

import h5py
import ismrmrd
import ismrmrd.hdf5
import numpy as np
import pytest

from gadgets.imagefiles import read_images, write_images
from gadgets.messages import IMAGE_TYPES
from mrnets.errors import InputError
from mrnets.mrd import records
from mrnets.mrd.files import open_scan, write_scan
from mrnets.mrd.header import read_header
from mrnets.mrd.lines import ACQUISITION_HEADER
from tests.gadgets import toys
from tests.gadgets.toys import from_acquisitions, to_acquisitions


@pytest.fixture
def path(tmp_path):
    write_scan(tmp_path / "scan.h5", toys.HEADER, toys.scan())
    return tmp_path / "scan.h5"


def read(path, group="dataset"):
    with open_scan(path, group) as scan:
        return list(scan.items())


def test_a_scan_round_trips(path):
    with open_scan(path) as scan:
        assert read_header(scan.header) == read_header(toys.HEADER)
        assert scan.acquisitions == 17
        assert toys.blob(scan.items()) == toys.blob(toys.scan())
    assert not path.with_name("scan.h5.partial").exists()


def test_ismrmrd_reads_what_is_written(path):
    lines = [a for item in toys.scan() if not isinstance(item, ismrmrd.Waveform) for a in to_acquisitions(item)]
    with ismrmrd.Dataset(path, mode="r") as dataset:
        assert dataset.read_xml_header() == toys.HEADER
        assert dataset.number_of_acquisitions() == 17
        assert dataset.read_acquisition(5) == lines[5]
        assert dataset.read_waveform(0) == toys.waveform()


def test_what_ismrmrd_writes_is_read(tmp_path):
    lines = list(from_acquisitions(toys.acquisitions(5)))
    with ismrmrd.Dataset(tmp_path / "scan.h5") as dataset:
        dataset.write_xml_header(toys.HEADER)
        for acquisition in toys.acquisitions(5):
            dataset.append_acquisition(acquisition)
        dataset.append_waveform(toys.waveform(time=1000))
    assert toys.blob(read(tmp_path / "scan.h5")) == toys.blob([*lines, toys.waveform(time=1000)])


def test_trajectories_round_trip(tmp_path):
    run = toys.lines(3, dimensions=2)
    write_scan(tmp_path / "scan.h5", toys.HEADER, [run])
    (back,) = read(tmp_path / "scan.h5")
    np.testing.assert_array_equal(back.trajectory, run.trajectory)


def test_blocks_of_the_file_are_not_blocks_of_the_stream(tmp_path):
    """Runs do not depend on how the file is read: more lines than a block, and a line larger than one."""
    stream = [*toys.acquisitions(300, coils=1, samples=2), *toys.acquisitions(2, coils=32, samples=8192)]
    write_scan(tmp_path / "scan.h5", toys.HEADER, from_acquisitions(stream))
    assert [len(run) for run in read(tmp_path / "scan.h5")] == [256, 44, 2]


@pytest.mark.parametrize(("number", "dimensions"), [("<f8", 0), ("<c16", 0), ("<f4", 20), ("<f8", 20)])
def test_a_block_of_the_file_has_so_many_bytes_whatever_they_are(tmp_path, monkeypatch, number, dimensions):
    """Double precision and trajectories count."""
    kinds = {"data": number, "traj": number.replace("c16", "f8")}
    stored = [(name, h5py.vlen_dtype(np.dtype(kind))) for name, kind in kinds.items()]
    rows = np.zeros(400, [("head", ACQUISITION_HEADER), *stored])
    rows["head"] = toys.lines(400, coils=2, samples=16, dimensions=dimensions).headers
    for row in rows:
        row["data"] = np.zeros(32 if number == "<c16" else 64, number)
        row["traj"] = np.zeros(16 * dimensions, kinds["traj"])
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["dataset/xml"], file["dataset/data"] = toys.HEADER, rows
    sizes, whole = [], records._records

    def kept(*args):
        block = whole(*args)
        sizes.append(sum(part.nbytes for name in ("data", "traj") for part in block[name]))
        return block

    monkeypatch.setattr(records, "_records", kept)
    monkeypatch.setattr(records, "_layout", lambda *_: None)
    monkeypatch.setattr(records, "BLOCK_BYTES", 1 << 16)
    assert sum(map(len, read(tmp_path / "scan.h5"))) == 400
    assert len(sizes) > 4
    assert max(sizes) <= records.BLOCK_BYTES


@pytest.mark.parametrize("seed", range(4))
def test_waveforms_come_before_the_first_acquisition_with_a_later_time_stamp(tmp_path, seed):
    rng = np.random.default_rng(seed)
    times, stamps = rng.integers(0, 12, 40), rng.integers(0, 14, 9)
    lines = toys.lines(len(times), coils=1, samples=2)
    lines.headers["acquisition_time_stamp"] = times
    waveforms = [toys.waveform(time=int(time)) for time in stamps]
    write_scan(tmp_path / "scan.h5", toys.HEADER, [lines, *waveforms])
    expected, rest = [], list(waveforms)
    for n, time in enumerate(times):
        while rest and rest[0].time_stamp < time:
            expected.append(("waveform", rest.pop(0).time_stamp))
        expected.append(("line", n))
    expected += [("waveform", waveform.time_stamp) for waveform in rest]
    found = []
    for item in read(tmp_path / "scan.h5"):
        waveform = isinstance(item, ismrmrd.Waveform)
        found += [("waveform", item.time_stamp)] if waveform else [("line", n) for n in item.headers["scan_counter"]]
    assert found == expected


def test_several_scans_are_told_apart_by_their_group(path):
    with h5py.File(path, "a") as file:
        file.copy("dataset", "patient/second")
        del file["dataset"]
    assert len(read(path, "patient/second")) == 5
    with pytest.raises(InputError, match='no scan in the group "dataset"; groups with scans: patient/second'):
        read(path)


def test_every_fault_of_a_file_is_one_sentence(path, tmp_path):
    def fails(words, *args):
        with pytest.raises(InputError, match=words) as caught:
            read(*args)
        assert "\n" not in str(caught.value)

    fails("there is no such file", tmp_path / "nowhere.h5")
    fails("there is no such file", tmp_path)
    (tmp_path / "text.h5").write_text("not HDF5")
    fails("text.h5: cannot be read; it is cut short, corrupt or not HDF5", tmp_path / "text.h5")
    (tmp_path / "short.h5").write_bytes(path.read_bytes()[:-3000])
    fails("short.h5: cannot be read", tmp_path / "short.h5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    fails("groups with scans: none", tmp_path / "empty.h5")
    write_scan(tmp_path / "none.h5", toys.HEADER, [])
    fails("has no acquisitions", tmp_path / "none.h5")
    with h5py.File(path, "a") as file:
        del file["dataset/xml"]
    fails("has no ISMRMRD header", path)


def test_samples_that_are_not_as_many_as_announced_name_the_acquisition(path):
    with h5py.File(path, "a") as file:
        record = file["dataset/data"][4]
        record["head"]["number_of_samples"] = 99
        file["dataset/data"][4] = record
    with pytest.raises(
        InputError, match="acquisition 4 has 32 samples and 0 trajectory values; its header announces 198"
    ):
        read(path)


@pytest.mark.parametrize(
    "number", ["<f8", "<c8", "<c16", [("real", "<f4"), ("imag", "<f4")], [("real", "<f8"), ("imag", "<f8")]], ids=str
)
def test_samples_may_be_stored_as_any_floating_point_numbers(path, number):
    expected = toys.blob(read(path))
    _store_samples_as(path, number)
    assert toys.blob(read(path)) == expected


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (">f4", "stored in big-endian order; little-endian numbers were expected"),
        ([("r", ">f4"), ("i", ">f4")], "big-endian"),
        ("<i2", "stored as int16; floating-point numbers were expected"),
    ],
    ids=str,
)
def test_samples_that_cannot_be_read_are_one_sentence(path, number, words):
    _store_samples_as(path, number)
    with pytest.raises(InputError, match=f"scan.h5: its samples are .*{words}"):
        read(path)


def _store_samples_as(path, number):
    with h5py.File(path, "a") as file:
        records = file["dataset/data"][()]
        kinds = {
            "head": records.dtype["head"],
            "traj": records.dtype["traj"],
            "data": h5py.vlen_dtype(np.dtype(number)),
        }
        changed = np.empty(len(records), list(kinds.items()))
        for name in ("head", "traj"):
            changed[name] = records[name]
        pair = np.dtype(number).names or np.dtype(number).kind == "c"
        for n, samples in enumerate(records["data"]):
            values = samples.view(np.complex64) if pair else samples
            part = np.empty(len(values), number)
            for name, of in zip(np.dtype(number).names or [...], (values.real, values.imag), strict=False):
                part[name] = of if np.dtype(number).names else values
            changed["data"][n] = part
        del file["dataset/data"]
        file["dataset"].create_dataset("data", data=changed)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_a_header_may_be_an_array_of_bytes(path, kind):
    with h5py.File(path, "a") as file:
        del file["dataset/xml"]
        file["dataset/xml"] = np.frombuffer(toys.HEADER, kind)[None]
    with open_scan(path) as scan:
        assert read_header(scan.header) == read_header(toys.HEADER)


def test_a_file_that_another_program_writes_is_not_called_corrupt(path):
    hold = "import h5py, sys; file = h5py.File(sys.argv[1], 'a'); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(InputError, match=r"scan\.h5: is open in another program that writes it"):
            read(path)
        other.stdin.close()
    assert len(read(path)) == 5


def test_a_file_cut_anywhere_is_refused(path, tmp_path):
    whole = path.read_bytes()
    for end in range(0, len(whole), 997):
        (tmp_path / "cut.h5").write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"cut\.h5: cannot be read"):
            read(tmp_path / "cut.h5")


def test_a_header_of_another_layout_is_refused(path):
    with h5py.File(path, "a") as file:
        old = np.dtype(
            [("head", [("version", "<u2"), ("flags", "<u8")]), ("data", h5py.special_dtype(vlen=np.float32))]
        )
        file.create_dataset("old/data", (1,), old)
        file["old/xml"] = [b"<x/>"]
    with pytest.raises(InputError, match="do not have the fields of ISMRMRD"):
        read(path, "old")


def test_nothing_is_left_of_a_scan_that_could_not_be_written(tmp_path):
    with pytest.raises(TypeError, match="no place for a str"):
        write_scan(tmp_path / "scan.h5", toys.HEADER, [*toys.scan(), "text"])
    assert list(tmp_path.iterdir()) == []


# Images


def image(dtype="<f4", series=0, shape=(2, 1, 3, 4), value=1.0):
    head = ismrmrd.ImageHeader()
    head.data_type = next(code for code, known in IMAGE_TYPES.items() if known == np.dtype(dtype))
    head.channels, head.matrix_size[:] = shape[0], shape[:0:-1]
    head.image_series_index = series
    made = ismrmrd.Image(bytes(head))
    made.data[...] = np.arange(np.prod(shape)).reshape(shape) * value
    made.meta = {"Name": "größer"}
    return made


@pytest.mark.parametrize("dtype", [d.str for d in IMAGE_TYPES.values()])
def test_images_of_every_type_are_read_by_ismrmrd(tmp_path, dtype):
    with write_images(tmp_path / "images.h5", "results") as images:
        for n in range(3):
            images.append(image(dtype, value=n))
        images.append(image(dtype, series=7))
        images.append(toys.waveform())
        assert images.count == 4
    with ismrmrd.Dataset(tmp_path / "images.h5", "results", mode="r") as dataset:
        assert sorted(dataset.list()) == ["image_0", "image_7", "waveforms"]
        assert dataset.number_of_images("image_0") == 3
        assert dataset.read_waveform(0) == toys.waveform()
        if dtype != "<i4":  # which ismrmrd takes for 64 bits, and then finds no room for
            back = dataset.read_image("image_0", 2)
            np.testing.assert_array_equal(back.data, image(dtype, value=2).data)
            assert back.meta["Name"] == "größer"
    pixels = dict(read_images(tmp_path / "images.h5", "results"))
    assert pixels["image_0"].dtype == dtype
    np.testing.assert_array_equal(pixels["image_0"][2], image(dtype, value=2).data)


def test_images_are_read_by_ismrmrds_file_too(tmp_path):
    with write_images(tmp_path / "images.h5") as images:
        images.append(image())
    with ismrmrd.File(tmp_path / "images.h5", "r") as file:
        (back,) = list(file["dataset/image_0"].images)
    np.testing.assert_array_equal(back.data, image().data)
    assert back.meta["Name"] == "größer"


def test_images_of_another_shape_or_type_get_a_series_of_their_own(tmp_path):
    with write_images(tmp_path / "images.h5") as images:
        for made in (image(), image(shape=(2, 1, 5, 4)), image(), image("<u2"), image(shape=(2, 1, 5, 4))):
            images.append(made)
    shapes = {name: (pixels.shape, pixels.dtype.str) for name, pixels in read_images(tmp_path / "images.h5")}
    assert shapes == {
        "image_0": ((2, 2, 1, 3, 4), "<f4"),
        "image_0_1": ((2, 2, 1, 5, 4), "<f4"),
        "image_0_2": ((1, 2, 1, 3, 4), "<u2"),
    }


def test_a_failure_leaves_the_earlier_file_and_only_a_partial_one(tmp_path):
    path, partial = tmp_path / "images.h5", tmp_path / "images.h5.partial"
    path.write_text("earlier")

    def fail(after):
        with write_images(path) as images:
            for _ in range(after):
                images.append(image())
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        fail(after=0)
    assert not partial.exists()
    with pytest.raises(RuntimeError):
        fail(after=1)
    assert path.read_text() == "earlier"
    assert partial.exists()
    with pytest.raises(InputError, match="there is no folder"), write_images(tmp_path / "no" / "images.h5"):
        pass


def test_what_is_no_image_is_refused(tmp_path):
    with pytest.raises(TypeError, match="no place for a Lines"), write_images(tmp_path / "images.h5") as images:
        images.append(toys.lines())


def test_groups_without_images_are_named(tmp_path, path):
    with pytest.raises(InputError, match='no group "pictures"'):
        list(read_images(path, "pictures"))


def test_images_need_a_group_with_a_name(tmp_path):
    with pytest.raises(InputError, match="the group of the images has no name"), write_images(tmp_path / "i.h5", ""):
        pass
    assert list(tmp_path.iterdir()) == []
