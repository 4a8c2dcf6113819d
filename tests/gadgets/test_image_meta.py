"""Meta fields of images."""

from __future__ import annotations

from dataclasses import replace

import ismrmrd
import numpy as np
import pytest
from ismrmrd import xsd

from gadgets.images import images
from gadgets.sort import sort
from mrnets.errors import InputError
from tests.gadgets import synthetic
from tests.gadgets.estimates import NX, NY, estimated, one, plain, sorted_frames


class TestMeta:
    def test_what_gadgetron_chains_need(self, rng):
        header = plain(recon=(NX, 2 * NY, 1))
        header.measurementInformation = xsd.measurementInformationType(
            measurementID="a_1", patientPosition=xsd.patientPositionType.HFS, protocolName="t2"
        )
        (image,) = one(rng, header)
        meta = image.meta
        assert meta["encoding"] == "0"
        assert meta["encoding_FOV"] == meta["recon_FOV"] == ["32", "24", "2"]
        assert meta["encoded_matrix"] == meta["recon_matrix"] == ["16", "24", "1"]
        assert meta["sampling_limits_E1"] == ["0", "6", "11"]
        assert meta["PatientPosition"] == ["1", "2", "3"]
        assert meta["read_dir"] == ["1", "0", "0"]
        assert meta["GADGETRON_DataRole"] == "Image"
        assert meta["GADGETRON_ImageProcessingHistory"] == ["prewhitened", "varnet"]
        assert meta["SequenceDescription"] == "t2_varnet"
        assert meta["measurementID"] == "a_1"
        assert "FALLBACK" not in str(meta)

    def test_what_images_of_gadgetrons_own_chains_carry(self, rng):
        header = plain()
        header.measurementInformation = xsd.measurementInformationType(
            measurementID="dev_pat_stu_7_8", patientPosition=xsd.patientPositionType.HFS, protocolName="t2"
        )
        lines = synthetic.lines(synthetic.to_kspace(synthetic.coil_images(rng, 2, NY, NX)))
        lines.headers["acquisition_time_stamp"][0] = 0  # no time
        lines.headers["physiology_time_stamp"][:, 1] = 50 - np.arange(NY)
        lines.headers["user_int"][:, 3], lines.headers["user_float"][:, 4] = -5, 0.5
        (image,) = images([estimated(frame) for frame in sort([lines], header)], header)
        meta = image.meta
        assert meta["acquisition_time_range"] == ["1001", str(1000 + NY - 1)]
        assert meta["physiology_time_range"] == ["7", "7", str(50 - NY + 1), "49", "7", "7"]
        assert (meta["user_int_3"], meta["user_float_4"], meta["user_float_0"]) == ("-5", "0.5", "0")
        assert (meta["GADGETRON_ImageNumber"], meta["GADGETRON_ScaleRatio"]) == ("1", "1")
        assert (meta["patient_position"], meta["protocolName"]) == ("HFS", "t2")
        identity = [meta[name] for name in ("deviceID", "patientID", "studyID", "measurementNumber")]
        assert identity == ["dev", "pat", "stu", "7_8"]
        header.subjectInformation = xsd.subjectInformationType(patientID="P")
        header.studyInformation = xsd.studyInformationType(studyID="S")
        header.acquisitionSystemInformation = xsd.acquisitionSystemInformationType(deviceID="D")
        meta = one(rng, header)[0].meta
        assert [meta[name] for name in ("deviceID", "patientID", "studyID")] == ["D", "P", "S"]

    def test_a_volume_has_the_time_of_its_central_line(self, rng):
        header = plain((NX, NY, 6))
        (image,) = images([estimated(frame) for frame in sorted_frames(rng, header, matrix=(NX, NY, 6))], header)
        assert image.acquisition_time_stamp == 1000 + 3 * NY + NY // 2
        assert image.meta["acquisition_time_range"] == ["1000", str(1000 + 6 * NY - 1)]

    def test_notes_and_fallback_reach_every_image(self, rng):
        header = plain()
        frames = [
            replace(estimated(frame), fallback=True, notes=("FALLBACK to cgsense: it failed",), history=("cgsense",))
            for frame in sorted_frames(rng, header, slices=2)
        ]
        for image in images(frames, header):
            assert "FALLBACK to cgsense: it failed" in image.meta["GADGETRON_ImageComment"]
            assert image.meta["SequenceDescription"] == "cgsense_FALLBACK"

    def test_notes_hold_nothing_that_xml_forbids(self, rng):
        """A client's words, such as the name of a chain, stand in notes. Its XML parser would refuse the image."""
        frames = [
            replace(estimated(frame), notes=("no chain a\0b\x1b\ud800",)) for frame in sorted_frames(rng, plain())
        ]
        (image,) = images(frames, plain())
        found = ismrmrd.Meta.deserialize(ismrmrd.Image.from_bytes(image.to_bytes()).attribute_string)
        assert found["ImageComments"].endswith("; no chain a\ufffdb\ufffd\ufffd")

    @pytest.mark.parametrize("series", [-1, 65536])
    def test_a_series_is_a_number_of_16_bits(self, series):
        with pytest.raises(InputError, match=f"series must be from 0 to 65535, got {series}"):
            list(images(iter(()), plain(), series=series))

    def test_header_without_measurement_information(self, rng):
        header = plain()
        header.measurementInformation = None
        assert one(rng, header)[0].meta["SequenceDescription"] == "varnet"
