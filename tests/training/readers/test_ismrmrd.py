"""Scans of a site's own scanner: the same k-space as the gadgets' sort makes of them, and what is no target."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import pytest
import torch

from gadgets.frame import Frame
from gadgets.messages import Close, ConfigFile, Header
from gadgets.noise import noise
from gadgets.serialise import encode
from gadgets.simulate import Settings, make_scan
from gadgets.sort import sort
from mrnets.contract import Raw
from mrnets.errors import InputError
from mrnets.mrd.files import open_scan, write_scan
from mrnets.mrd.header import read_header
from mrnets.mrd.streams import open_stream
from mrnets.noise import agreed_noise
from tests.training import layouts
from training.__main__ import main
from training.readers import _calibration
from training.readers.ismrmrd import Reader
from training.split import Split

SMALL = Settings(coils=3, matrix=24, slices=2, acceleration=1.0, calibration=0, noise_lines=8, fov=240.0)
FLAT = {
    "slices": SMALL,
    "echoes, odd matrix": replace(SMALL, matrix=25, echoes=3),
    "no oversampling, no noise": replace(SMALL, oversampling=1, noise_lines=0),
    "separate calibration": replace(SMALL, separate=True, calibration=8, acceleration=2.0),
    "embedded calibration": replace(SMALL, calibration=8, acceleration=2.0),
}
VOLUMES = {
    "volume": replace(SMALL, slices=8, three_d=True, echoes=2),
    "undersampled": replace(SMALL, slices=8, three_d=True, mask="poisson2d", acceleration=2.0, calibration=6),
    "separate": replace(
        SMALL, slices=8, three_d=True, mask="poisson2d", acceleration=2.0, calibration=6, separate=True
    ),
}


def simulate(path: Path, settings: Settings) -> list[Raw]:
    """A file at `path`, and what the gadgets' sort makes of it, slice by slice."""
    header, items, _ = make_scan(settings)
    write_scan(path, header, items)
    with open_scan(path) as scan:
        frames = [item for item in sort(scan.items(), read_header(scan.header).header) if isinstance(item, Frame)]
    return [f.raw for f in frames]


def equal(found: Raw, expected: Raw, x: int | None = None) -> None:
    """`expected` is of one slice, or of a volume of which `found` is position x."""
    part = slice(None) if x is None else slice(x, x + 1)
    np.testing.assert_allclose(found.kspace, expected.kspace[part], atol=2e-6 * np.abs(expected.kspace).max())
    np.testing.assert_array_equal(found.mask, expected.mask)
    assert found.kspace.dtype == torch.complex64
    assert found.readout == expected.readout
    for name in ("noise", "echo_times"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("name", FLAT)
def test_slices_are_sorted_as_the_gadgets_sort_them(tmp_path: Path, name: str, rng: np.random.Generator) -> None:
    expected = simulate(tmp_path / "a.h5", FLAT[name])
    source = Reader(prospective=True).read(tmp_path, "train", Split())
    assert len(source) == len(expected) == 2
    for number, raw in enumerate(expected):
        found = source.take([number], rng).raw
        equal(found, raw)
        if "separate" in name:
            block = raw.calibration
            np.testing.assert_allclose(found.calibration, block, atol=2e-6 * np.abs(block).max())


@pytest.mark.parametrize("name", VOLUMES)
def test_volumes_are_sorted_as_the_gadgets_sort_them(
    tmp_path: Path, name: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = simulate(tmp_path / "a.h5", VOLUMES[name])
    five_positions = 5 * 8 * 24 * expected.kspace.shape[-2] * 3
    monkeypatch.setattr(_calibration, "MAX_BYTES", five_positions)
    source = Reader(prospective=True).read(tmp_path, "train", Split())
    assert len(source) == 24
    for x in (0, 11, 23):
        found = source.take([x], rng).raw
        equal(found, expected, x)
        if name == "separate":
            block = expected.calibration[x : x + 1]
            np.testing.assert_allclose(found.calibration, block, atol=2e-6 * np.abs(expected.calibration).max())
    assert not list((tmp_path / ".slices").glob("*.partial"))


def as_stream(path: Path, settings: Settings, *, text: bool = True) -> None:
    """The simulated scan as the stream that a converter writes, with other messages among its acquisitions."""
    header, items, _ = make_scan(settings)
    waveform = ismrmrd.Waveform.from_array(np.arange(6, dtype=np.uint32).reshape(2, 3))
    messages = [ConfigFile("default.xml"), Header(header), *(["a text", waveform] if text else []), *items, Close()]
    path.write_bytes(b"".join(part for message in messages for part in encode(message)))


@pytest.mark.parametrize("settings", [*FLAT.values(), *VOLUMES.values()])
def test_a_stream_is_read_as_the_same_file(tmp_path: Path, settings: Settings, rng: np.random.Generator) -> None:
    (tmp_path / "stream").mkdir()
    (tmp_path / "file").mkdir()
    as_stream(tmp_path / "stream" / "scan.mrd", settings)
    simulate(tmp_path / "file" / "scan.h5", settings)
    reader = Reader(prospective=True)
    (found, expected) = (reader.read(tmp_path / name, "train", Split(validation=0)) for name in ("stream", "file"))
    assert len(found.places) == len(expected.places)
    for n in (0, len(found.places) - 1):
        one, other = found.take([n], rng).raw, expected.take([n], rng).raw
        for name in ("kspace", "mask", "calibration", "noise", "echo_times"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0)


def test_check_of_streams(tmp_path: Path) -> None:
    as_stream(tmp_path / "a.stream", SMALL, text=False)
    as_stream(tmp_path / "b.mrd", SMALL)
    assert list(Reader().check(tmp_path, Split())) == []
    whole = (tmp_path / "b.mrd").read_bytes()
    for place, damaged, words in (
        ("cut", whole[:-500], "is cut short: it ends within a message"),
        ("empty", whole[:1500], "is cut short"),
        ("image", whole[:-2] + b"\xfe\x03", "message 1022 at byte"),
        ("no_header", whole[:1026], "is a stream without an ISMRMRD header"),
    ):
        folder = tmp_path / place
        folder.mkdir()
        (folder / "scan.mrd").write_bytes(damaged)
        (problem,) = list(Reader().check(folder, Split(validation=0)))
        assert problem.startswith(f"{folder / 'scan.mrd'}: ")
        assert words in problem


def test_compressed_samples_in_a_stream_are_refused(tmp_path: Path) -> None:
    acquisition = ismrmrd.Acquisition.from_array(np.ones((2, 8), np.complex64))
    acquisition.setFlag(ismrmrd.ACQ_COMPRESSION1)
    header = b"".join(encode(Header(b"<ismrmrdHeader/>")))
    path = tmp_path / "scan.mrd"
    path.write_bytes(header + b"\xf0\x03" + bytes(acquisition.getHead()) + b"\x04\0\0\0zips\x04\0")
    with pytest.raises(InputError, match=r"scan\.mrd: the samples of an acquisition are compressed"):
        open_stream(path)


def test_a_stream_that_becomes_shorter_is_said(tmp_path: Path) -> None:
    path = tmp_path / "scan.mrd"
    as_stream(path, SMALL)
    stream = open_stream(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"scan\.mrd: is cut short in acquisition"):
        list(stream.lines(np.arange(stream.acquisitions)))


def test_a_volume_is_converted_once_and_again_when_it_changed(tmp_path: Path, rng: np.random.Generator) -> None:
    simulate(tmp_path / "a.h5", replace(SMALL, slices=8, three_d=True))
    cache = tmp_path / "cache"
    source = pickle.loads(pickle.dumps(Reader(cache=str(cache), trim=(10, 12)).read(tmp_path, "train", Split())))
    assert len(source) == 2
    before = source.take([0], rng).raw
    (converted,) = cache.glob("*.h5")
    written = converted.stat().st_mtime_ns
    source.take([1], rng)
    assert converted.stat().st_mtime_ns == written
    simulate(tmp_path / "a.h5", replace(SMALL, slices=8, three_d=True, seed=1))
    after = source.take([0], rng).raw
    assert converted.stat().st_mtime_ns > written
    assert not torch.equal(before.kspace, after.kspace)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    simulate(tmp_path / "a.h5", replace(SMALL, slices=8, three_d=True))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"set reader\.options\.cache to a folder"):
        Reader(cache=str(tmp_path / "file")).read(tmp_path, "train", Split()).take([0], rng)


def test_oversampling_goes_and_the_object_stays(tmp_path: Path, rng: np.random.Generator) -> None:
    layouts.write_ismrmrd(tmp_path, np.random.default_rng(5), subjects=1)
    raw = Reader().read(tmp_path, "train", Split()).take([1], rng).raw
    images = layouts.coil_images(np.random.default_rng(5), 4, (2, 20, 24))
    np.testing.assert_allclose(raw.kspace[0, 0], layouts.centred_kspace(images[:, 1]), atol=1e-5)
    assert bool(raw.mask.all())
    assert raw.noise.shape == (4, 4)


def rows(images: Any, **fields: Any) -> list[Any]:
    kspace = layouts.centred_kspace(images)
    return [(kspace[:, y], {"kspace_encode_step_1": y, **fields}) for y in range(kspace.shape[1])]


def test_averages_are_averaged_and_repetitions_are_not(tmp_path: Path, rng: np.random.Generator) -> None:
    one, two, three = (layouts.coil_images(rng, 2, (8, 10)) for _ in range(3))
    lines = rows(one) + rows(two, average=1) + rows(three, repetition=1)
    layouts.write_scan(tmp_path / "a.h5", layouts.header((10, 8, 1), (10, 8, 1), 2), lines)
    source = Reader().read(tmp_path, "train", Split())
    assert len(source) == 2
    for number, images in enumerate(((one + two) / 2, three)):
        np.testing.assert_allclose(
            source.take([number], rng).raw.kspace[0, 0], layouts.centred_kspace(images), atol=1e-6
        )


def test_reversed_and_partial_echoes(tmp_path: Path, rng: np.random.Generator) -> None:
    images = layouts.coil_images(rng, 2, (8, 10))
    lines = rows(images)
    data, fields = lines[3]
    lines[3] = (data[:, ::-1], {**fields, "flags": 1 << 21, "center_sample": 4})
    layouts.write_scan(tmp_path / "a.h5", layouts.header((10, 8, 1), (10, 8, 1), 2), lines)
    raw = Reader().read(tmp_path, "train", Split()).take([0], rng).raw
    np.testing.assert_allclose(raw.kspace[0, 0], layouts.centred_kspace(images), atol=1e-6)
    short = [(data[:, 4:], {**fields, "center_sample": 1}) for data, fields in rows(images)]
    layouts.write_scan(tmp_path / "a.h5", layouts.header((10, 8, 1), (10, 8, 1), 2), short)
    with pytest.raises(InputError, match="partial echo, so it cannot be a target"):
        Reader().read(tmp_path, "train", Split())
    raw = Reader(prospective=True).read(tmp_path, "train", Split()).take([0], rng).raw
    assert raw.mask[0, 0, 0, 0].tolist() == [False] * 4 + [True] * 6
    np.testing.assert_allclose(raw.kspace[0, 0, ..., 4:], layouts.centred_kspace(images)[..., 4:], atol=1e-6)


@pytest.mark.parametrize(
    ("kept", "what"),
    [
        (slice(None, None, 2), "6 of 12 lines were sampled, with gaps"),
        (slice(4, None), "covers 4 to 11 of 12, one-sided"),
        (slice(1, -1), ""),
    ],
)
def test_what_cannot_be_a_target(tmp_path: Path, kept: slice, what: str, rng: np.random.Generator) -> None:
    lines = rows(layouts.coil_images(rng, 2, (12, 10)))
    layouts.write_scan(tmp_path / "a.h5", layouts.header((10, 12, 1), (10, 12, 1), 2), lines[kept])
    found = list(Reader().check(tmp_path, Split()))
    assert [what in line for line in found] == ([True] if what else [])
    assert not list(Reader(prospective=True).check(tmp_path, Split()))
    if what:
        with pytest.raises(InputError, match=r"reader\.options\.prospective=true"):
            Reader().read(tmp_path, "train", Split())
    else:
        raw = Reader().read(tmp_path, "train", Split()).take([0], rng).raw
        assert np.flatnonzero(raw.mask[0, 0, 0, :, 0]).tolist() == list(range(1, 11))


def test_scans_of_one_patient_are_one_subject_without_a_name(tmp_path: Path, rng: np.random.Generator) -> None:
    layouts.write_ismrmrd(tmp_path, rng, subjects=3)
    (tmp_path / "scan0.h5").rename(tmp_path / "z.h5")
    layouts.write_ismrmrd(tmp_path, rng, subjects=1)  # P0 again
    parts = [Reader().read(tmp_path, part, Split(counts=(1, 1, 1))) for part in ("train", "validation", "test")]
    assert [p.subjects for p in parts] == [("scan0",), ("scan1",), ("scan2",)]
    assert {Path(p.path).name for p in parts[0].places} == {"scan0.h5", "z.h5"}


def test_one_placeholder_for_all_patients_is_no_patient(tmp_path: Path, rng: np.random.Generator) -> None:
    for number in range(3):
        header = layouts.header((10, 8, 1), (10, 8, 1), 2, patient="anonymous")
        layouts.write_scan(tmp_path / f"{number}.h5", header, rows(layouts.coil_images(rng, 2, (8, 10))))
    assert Reader().read(tmp_path, "train", Split(counts=(1, 1, 1))).subjects == ("0",)


def test_check_names_what_is_malformed(tmp_path: Path, rng: np.random.Generator) -> None:
    layouts.write_ismrmrd(tmp_path, rng)
    assert list(Reader().check(tmp_path, Split())) == []
    images = layouts.coil_images(rng, 2, (8, 10))
    head = layouts.header((10, 8, 1), (10, 8, 1), 2)
    beyond = [
        (data, {**fields, "kspace_encode_step_1": fields["kspace_encode_step_1"] + 3}) for data, fields in rows(images)
    ]
    layouts.write_scan(tmp_path / "outside.h5", head, beyond)
    layouts.write_scan(tmp_path / "coils.h5", head, [*rows(images), (images[:1, 0], {})])
    layouts.write_scan(tmp_path / "noise.h5", head, rows(images, flags=1 << 18))
    layouts.write_scan(tmp_path / "empty.h5", head, [(images[:, 0, :0], {})])
    head.encoding[0].trajectory = type(head.encoding[0].trajectory).RADIAL
    layouts.write_scan(tmp_path / "radial.h5", head, rows(images))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["kspace"] = np.zeros(3)
    layouts.write_scan(tmp_path / "xml.h5", head, rows(images))
    with h5py.File(tmp_path / "xml.h5", "a") as file:
        file["dataset/xml"][0] = b'<!DOCTYPE x [<!ENTITY a "b">]><ismrmrdHeader/>'
    found = list(Reader().check(tmp_path, Split()))
    for name, text in (
        ("coils", "the number of coils changes"),
        ("empty", "has acquisitions without coils or samples"),
        ("noise", "has no lines of an image"),
        ("other", "is a file of arrays (kspace), no ISMRMRD scan"),
        ("outside", "3 of 8 lines (acquisition 5 is the first) are outside of the matrix of encoding space 0"),
        ("radial", "trajectory of encoding space 0 is radial"),
        ("xml", "declares a document type"),
    ):
        assert any(f"{name}.h5: " in line and text in line for line in found), name
    assert len(found) == 7


def test_samples_that_are_not_finite_are_found(tmp_path: Path, rng: np.random.Generator) -> None:
    lines = rows(layouts.coil_images(rng, 2, (8, 10)))
    lines[4] = (np.full_like(lines[4][0], np.inf), lines[4][1])
    layouts.write_scan(tmp_path / "a.h5", layouts.header((10, 8, 1), (10, 8, 1), 2), lines)
    assert list(Reader().check(tmp_path, Split())) == [
        f"{tmp_path / 'a.h5'}, slice 0: k-space with values that are not finite"
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"<y>20</y>", b"<y>20.0</y>"),
        (b"<z>1</z>", b"<z>0.9996</z>"),
        (b"cartesian", b"Cartesian"),
        (b"P0", b"Sch\xe4del"),
    ],
)
def test_badly_written_headers_are_read(
    tmp_path: Path, rng: np.random.Generator, old: bytes, new: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    layouts.write_ismrmrd(tmp_path, rng, subjects=1)
    expected = Reader().read(tmp_path, "train", Split()).take([1], rng).raw
    with h5py.File(tmp_path / "scan0.h5", "a") as file:
        text = file["dataset/xml"][0]
        assert old in text
        del file["dataset/xml"]
        file["dataset/xml"] = np.frombuffer(text.replace(old, new), np.int8)[None]
    assert list(Reader().check(tmp_path, Split())) == []
    assert f"{tmp_path / 'scan0.h5'}: The ISMRMRD header has" in caplog.text
    torch.testing.assert_close(Reader().read(tmp_path, "train", Split()).take([1], rng).raw.kspace, expected.kspace)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"\x03\x00\x10\x00\x00\x00<ismrmrdHeader/>", "message 0 at byte"),
        (b"\x01\x00default.xml\x00", "is cut short"),
        (b"yardl\x01\x00", "is a stream of MRD version 2, not HDF5; mrd_to_ismrmrd and ismrmrd_stream_to_hdf5"),
    ],
)
def test_a_damaged_stream_is_named_and_the_rest_is_checked(
    tmp_path: Path, rng: np.random.Generator, start: bytes, words: str
) -> None:
    layouts.write_ismrmrd(tmp_path, rng)
    (tmp_path / "a.mrd").write_bytes(start + bytes(100))
    (tmp_path / "z.h5").write_bytes(b"nothing of the sort")
    first, second = Reader().check(tmp_path, Split())
    assert first.startswith(f"{tmp_path / 'a.mrd'}: ")
    assert words in first
    assert second.startswith(f"{tmp_path / 'z.h5'}: cannot be read")


def test_names_in_a_file_that_are_no_text_are_one_sentence(tmp_path: Path, rng: np.random.Generator) -> None:
    layouts.write_ismrmrd(tmp_path, rng, subjects=1)
    path = tmp_path / "scan0.h5"
    content = path.read_bytes()
    assert b"center_sample\x00" in content
    path.write_bytes(content.replace(b"center_sample\x00", b"center_sampl\xe7\x00"))
    with pytest.raises(InputError, match=r"scan0\.h5: cannot be read"), open_scan(path):
        pass


def test_check_gives_sentences_whatever_is_damaged(tmp_path: Path, rng: np.random.Generator) -> None:
    layouts.write_ismrmrd(tmp_path, rng, subjects=1)
    path = tmp_path / "scan0.h5"
    whole = path.read_bytes()
    found = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 8000), 12):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        lines = list(Reader().check(tmp_path, Split()))
        found += bool(lines)
        assert all("\n" not in line and line.startswith((str(path), "validation", "train")) for line in lines), lines
    assert found > 10


def test_check_ends_with_a_sentence_where_a_reader_fails(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts.write_ismrmrd(tmp_path, rng)

    def broken(path: Path, by_hand: object) -> None:
        if path.name == "scan1.h5":
            raise ZeroDivisionError("by zero")
        raise PermissionError(13, "no access")

    monkeypatch.setattr("training.readers.ismrmrd.scan", broken)
    assert main(["check", str(tmp_path), "--recipe", "ismrmrd"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert f"{tmp_path / 'scan1.h5'}: cannot be read (ZeroDivisionError: by zero)" in said
    assert any(line.startswith(f"{tmp_path / 'scan0.h5'}: cannot be read (PermissionError") for line in said)


@pytest.mark.parametrize("settings", [replace(SMALL, matrix=48), replace(SMALL, matrix=32, slices=24, three_d=True)])
@pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
def test_noise_that_contradicts_the_lines_is_as_a_chain_takes_it(
    settings: Settings, factor: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The noise measurement is of another scan, or scaled otherwise: the network is told what the lines show."""
    header, items, _ = make_scan(replace(settings, coils=4, noise_lines=64, snr=30))
    write_scan(tmp_path / "scan.h5", header, items)
    with h5py.File(tmp_path / "scan.h5", "r+") as file:
        for n, flags in enumerate(file["dataset/data"]["head"]["flags"]):
            if int(flags) & 1 << 18:  # NumPy 1 mixes no uint64 with int
                line = file["dataset/data"][n]
                line["data"] = line["data"] * factor
                file["dataset/data"][n] = line
    with open_scan(tmp_path / "scan.h5") as scan:
        known = read_header(scan.header).header
        frame = next(item for item in sort(noise(scan.items(), known), known) if isinstance(item, Frame))
    raw, notes = agreed_noise(frame.raw)
    found = Reader().read(tmp_path, "train", Split()).take([0], np.random.default_rng(0)).raw
    assert 1 / found.averages == pytest.approx(1 / raw.averages, rel=0.1)
    assert bool(notes) == (factor != 1) == ("of the noise measurement, which is of another scan" in caplog.text)
