"""Streams of MRD version 2: the same images as from the ISMRMRD file, and images back in the same format."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest

from gadgets.chain import Chain
from gadgets.hosts import pipe
from gadgets.hosts.recording import open_recording
from gadgets.hosts.replay import replay
from gadgets.simulate import Settings, make_scan
from gadgets.version2.items import from_version_2, to_version_2
from mrnets.errors import InputError
from mrnets.mrd.files import write_scan
from mrnets.mrd.header import read_header
from mrnets.mrd.lines import Lines

SETTINGS = Settings(coils=3, matrix=32, slices=2, calibration=12, acceleration=2.0, noise_lines=8, seed=3)


def lines() -> tuple[bytes, list[Lines]]:
    header, items, _ = make_scan(SETTINGS)
    return header, list(items)


class TestWithoutThePackage:
    @pytest.fixture(autouse=True)
    def _absent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "mrd", None)

    def test_a_file_is_one_sentence(self, tmp_path: Path) -> None:
        path = tmp_path / "scan.mrd"
        path.write_bytes(b"yardl" + bytes(20))
        with (
            pytest.raises(InputError, match=r"scan\.mrd: .*needs mrd-python, .*gadgetron-networks\[mrd2\]"),
            open_recording(path),
        ):
            pass

    def test_a_pipe_is_one_sentence(self) -> None:
        with pytest.raises(InputError, match="needs mrd-python"):
            pipe.convey_any(io.BytesIO(b"yardl" + bytes(20)), io.BytesIO(), CHAIN)


def chain(text: str) -> Chain:
    gadgets = "".join(f'<gadget name="{name}"/>' for name in text.split())
    return Chain.parse(f"<configuration>{gadgets}</configuration>".encode(), "test")


CHAIN = chain("noise sort coils network images").set("network.name", "zerofilled")


@pytest.fixture
def mrd() -> Any:
    return pytest.importorskip("mrd")


def acquisition(mrd: Any, block: Lines, n: int) -> Any:
    """One line of a block as an acquisition of version 2."""
    row, samples = block.headers[n], np.asarray(block.data[n])
    made = mrd.Acquisition(data=samples)
    head = made.head
    head.flags = mrd.AcquisitionFlags(int(row["flags"]))
    for name in ("measurement_uid", "scan_counter", "discard_pre", "discard_post", "center_sample"):
        setattr(head, name, int(row[name]))
    for name in ("kspace_encode_step_1", "kspace_encode_step_2", "slice", "contrast", "repetition", "average"):
        setattr(head.idx, name, int(row["idx"][name]))
    head.idx.user = [int(value) for value in row["idx"]["user"]]
    for name in ("position", "read_dir", "phase_dir", "slice_dir", "patient_table_position"):
        setattr(head, name, np.asarray(row[name], np.float32))
    stamp, dwell = int(row["acquisition_time_stamp"]), float(row["sample_time_us"])
    if hasattr(head, "sample_time_ns"):  # mrd-python 2.2
        head.acquisition_time_stamp_ns, head.sample_time_ns = stamp * 1_000_000, round(dwell * 1000)
    else:
        head.acquisition_time_stamp, head.sample_time_us = stamp, dwell
    return mrd.StreamItem.Acquisition(made)


def header(mrd: Any) -> Any:
    """The header of `SETTINGS` as version 2 has it, with a value of each kind."""
    text, _ = lines()
    own = read_header(text).header
    (encoding,) = own.encoding
    limits = encoding.encodingLimits

    def space(one: Any) -> Any:
        size, fov = one.matrixSize, one.fieldOfView_mm
        return mrd.EncodingSpaceType(
            matrix_size=mrd.MatrixSizeType(x=size.x, y=size.y, z=size.z),
            field_of_view_mm=mrd.FieldOfViewMm(x=fov.x, y=fov.y, z=fov.z),
        )

    def limit(name: str) -> Any:
        one = getattr(limits, name)
        return mrd.LimitType(minimum=one.minimum, maximum=one.maximum, center=one.center)

    names = ("kspace_encoding_step_1", "kspace_encoding_step_2", "slice", "contrast", "average", "segment")
    made = mrd.EncodingType(
        encoded_space=space(encoding.encodedSpace),
        recon_space=space(encoding.reconSpace),
        encoding_limits=mrd.EncodingLimitsType(**{name: limit(name) for name in names}),
        trajectory=mrd.Trajectory.CARTESIAN,
        parallel_imaging=mrd.ParallelImagingType(
            acceleration_factor=mrd.AccelerationFactorType(kspace_encoding_step_1=2),
            calibration_mode=mrd.CalibrationMode.EMBEDDED,
        ),
    )
    return mrd.Header(
        encoding=[made],
        measurement_information=mrd.MeasurementInformationType(
            patient_position=mrd.PatientPosition.F_FS,
            protocol_name="knee",
            series_time=mrd.Time.from_components(9, 30, 5),
        ),
        acquisition_system_information=mrd.AcquisitionSystemInformationType(
            system_vendor="SIEMENS",
            system_field_strength_t=3.0,
            relative_receiver_noise_bandwidth=own.acquisitionSystemInformation.relativeReceiverNoiseBandwidth,
            coil_label=[mrd.CoilLabelType(coil_number=0, coil_name="H1")],
        ),
        sequence_parameters=mrd.SequenceParametersType(t_e=[4.0], flip_angle_deg=[15.0]),
        user_parameters=mrd.UserParametersType(
            user_parameter_long=[mrd.UserParameterLongType(name="a", value=3)],
        ),
        experimental_conditions=mrd.ExperimentalConditionsType(h1resonance_frequency_hz=123_000_000),
    )


def stream(mrd: Any, own: Any = None, more: Any = ()) -> bytes:
    out = io.BytesIO()
    writer = mrd.BinaryMrdWriter(out)
    writer.write_header(own or header(mrd))
    writer.write_data(acquisition(mrd, block, n) for block in lines()[1] for n in range(len(block)))
    writer.write_data(list(more))
    writer.close()
    return out.getvalue()


def read(mrd: Any, blob: bytes) -> list[Any]:
    with mrd.BinaryMrdReader(io.BytesIO(blob)) as reader:
        assert reader.read_header() is not None
        return list(reader.read_data())


def test_the_header_says_the_same(mrd: Any, tmp_path: Path) -> None:
    path = tmp_path / "scan.mrd"
    path.write_bytes(stream(mrd))
    with open_recording(path) as scan:
        found, expected = read_header(scan.header), read_header(lines()[0]).header
        items = list(scan.items)
    assert not found.warnings
    for name in ("encodedSpace", "reconSpace", "trajectory"):
        assert getattr(found.header.encoding[0], name) == getattr(expected.encoding[0], name)
    assert found.header.encoding[0].encodingLimits.kspace_encoding_step_1.center == 16
    assert found.header.encoding[0].parallelImaging.calibrationMode.value == "embedded"
    information, system = found.header.measurementInformation, found.header.acquisitionSystemInformation
    assert (information.patientPosition.value, information.protocolName) == ("FFS", "knee")
    assert str(information.seriesTime) == "09:30:05"
    assert (system.systemFieldStrength_T, system.coilLabel[0].coilName) == (3.0, "H1")
    assert found.header.sequenceParameters.TE == [4.0]
    assert found.header.userParameters.userParameterLong[0].value == 3
    assert found.header.experimentalConditions.H1resonanceFrequency_Hz == 123_000_000
    for one, other in zip(items, lines()[1], strict=True):
        np.testing.assert_array_equal(one.data, other.data)
        for name in ("flags", "idx", "scan_counter", "sample_time_us", "acquisition_time_stamp", "position"):
            np.testing.assert_array_equal(one.headers[name], other.headers[name])


def images_of(path: Path) -> list[Any]:
    with ismrmrd.Dataset(str(path), create_if_needed=False) as images:
        return [images.read_image("image_1", n).data for n in range(images.number_of_images("image_1"))]


def test_replay_and_pipe_give_the_images_of_the_ismrmrd_file(mrd: Any, tmp_path: Path) -> None:
    write_scan(tmp_path / "scan.h5", *lines())
    (tmp_path / "scan.mrd").write_bytes(stream(mrd))
    for name in ("scan.h5", "scan.mrd"):
        replay(tmp_path / name, tmp_path / f"{name}.images.h5", "zerofilled")
    expected = images_of(tmp_path / "scan.h5.images.h5")
    out = io.BytesIO()
    pipe.convey_any(io.BytesIO(stream(mrd)), out, CHAIN)
    came = read(mrd, out.getvalue())
    assert [type(item).__name__.rpartition(".")[2] for item in came] == ["ImageFloat"] * 2
    for one, other, item in zip(expected, images_of(tmp_path / "scan.mrd.images.h5"), came, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, item.value.data)
        assert "Image by zerofilled" in [value.value for value in item.value.meta["GADGETRON_ImageComment"]]
    assert [item.value.head.slice for item in came] == [0, 1]
    np.testing.assert_allclose(came[0].value.head.col_dir, lines()[1][-1].headers["read_dir"][0])


def test_images_and_waveforms_come_back_as_they_went(mrd: Any) -> None:
    rng = np.random.default_rng(0)
    for kind in (np.uint16, np.int16, np.uint32, np.float32, np.float64, np.complex64, np.complex128):
        image = ismrmrd.Image.from_array(rng.integers(0, 9, (2, 1, 4, 3)).astype(kind), transpose=False)
        image.slice, image.image_series_index, image.acquisition_time_stamp = 3, 7, 1234
        image.meta = {"a": ["1", "x"], "b": "2"}
        back = from_version_2(to_version_2(image, mrd))
        np.testing.assert_array_equal(back.data, image.data)
        assert (back.slice, back.image_series_index, back.acquisition_time_stamp) == (3, 7, 1234)
        assert dict(back.meta) == {"a": ["1", "x"], "b": "2"}
    pixels = rng.integers(0, 9, (2, 1, 4, 3)).astype(np.int32)
    whole = mrd.StreamItem.ImageInt32(mrd.Image(head=mrd.ImageHeader(image_type=mrd.ImageType.REAL), data=pixels))
    back = to_version_2(from_version_2(whole), mrd)
    assert type(back) is mrd.StreamItem.ImageInt32
    np.testing.assert_array_equal(back.value.data, pixels)
    waveform = ismrmrd.Waveform.from_array(np.arange(6, dtype=np.uint32).reshape(2, 3))
    back = from_version_2(to_version_2(waveform, mrd))
    np.testing.assert_array_equal(back.data, waveform.data)


@pytest.mark.parametrize("count", [6, 500, 30_000])
def test_a_stream_that_is_cut_short_is_one_sentence(mrd: Any, count: int) -> None:
    with pytest.raises(InputError, match="stream of MRD version 2 cannot be read; it is cut short or damaged"):
        pipe.convey_any(io.BytesIO(stream(mrd)[:count]), io.BytesIO(), CHAIN)


def test_what_ismrmrd_has_no_room_for_is_said(mrd: Any) -> None:
    item = acquisition(mrd, lines()[1][1], 0)
    item.value.head.idx.slice = 70_000
    with pytest.raises(InputError, match="An acquisition has slice 70000; ISMRMRD's field takes 65535 at most"):
        from_version_2(item)


def test_a_trajectory_of_other_samples_is_said(mrd: Any) -> None:
    item = acquisition(mrd, lines()[1][1], 0)
    item.value.trajectory = np.zeros((2, 5), np.float32)
    with pytest.raises(InputError, match=r"An acquisition has 64 samples, and a trajectory of the shape \(2, 5\)"):
        from_version_2(item)


def test_a_stream_of_another_schema_is_said(mrd: Any) -> None:
    blob = stream(mrd).replace(b'"measurementUid"', b'"measurementUiD"', 1)
    with pytest.raises(InputError, match="its schema is that of another version of mrd-python"):
        pipe.convey_any(io.BytesIO(blob), io.BytesIO(), CHAIN)
