"""Simulated scans in the style of vendors' converters: headers, counters, flags, and what is left out."""

import argparse
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest

from gadgets.chain import Chain
from gadgets.simulate import Settings, add_arguments, make_noise_scan, make_scan, run
from gadgets.simulate.vendors import VENDORS
from mrnets.errors import InputError
from mrnets.mrd.flags import Flag, has_flag
from mrnets.mrd.header import read_header
from mrnets.mrd.lines import Lines
from tests.gadgets.toys import configuration, stage

SMALL = {"coils": 3, "matrix": 32, "calibration": 8, "acceleration": 2.0}


def scan(**options: Any) -> tuple[Any, list[Lines]]:
    """Header and blocks of lines."""
    header, lines, _ = make_scan(Settings(**{**SMALL, **options}))
    return ismrmrd.xsd.CreateFromDocument(header), list(lines)


def headers(lines: list[Lines]) -> Any:
    """The headers of the imaging lines."""
    kept = [one for one in lines if not has_flag(one.headers, Flag.IS_NOISE_MEASUREMENT).any()]
    return np.concatenate([one.headers for one in kept])


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_header_passes_gadgetron(vendor: str) -> None:
    """A header with a version hangs its client; one of whom neither patient nor study is known aborts with noise."""
    text, _, _ = make_scan(Settings(**SMALL, vendor=vendor))
    assert b"<version>" not in text
    header = ismrmrd.xsd.CreateFromDocument(text)
    number = header.measurementInformation.measurementID
    named = header.subjectInformation is not None and header.subjectInformation.patientID
    assert named or len(number.split("_")) == (4 if vendor == "siemens" else 3)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("three_d", [False, True])
def test_all_vendors_measure_the_same_samples(vendor: str, three_d: bool) -> None:
    options = {"three_d": three_d, "slices": 8, "oversampling": 1, "partial_fourier": 0.25}
    ours, theirs = (scan(vendor=name, **options)[1] for name in ("plain", vendor))
    if not VENDORS[vendor].noise:
        ours = ours[1:]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.data, other.data)
        for field in ("kspace_encode_step_1", "kspace_encode_step_2", "slice"):
            np.testing.assert_array_equal(one.headers["idx"][field], other.headers["idx"][field])


@pytest.mark.parametrize(("vendor", "centre", "lines"), [("plain", 8, 32), ("siemens", 16, 32), ("ge", 12, 24)])
def test_the_centre_of_a_partial_fourier_scan(vendor: str, centre: int, lines: int) -> None:
    header, blocks = scan(vendor=vendor, partial_fourier=0.25)
    (encoding,) = header.encoding
    limit = encoding.encodingLimits.kspace_encoding_step_1
    assert (limit.minimum, limit.maximum, limit.center) == (0, 23, centre)
    assert encoding.encodedSpace.matrixSize.y == lines
    head = headers(blocks)
    power = np.concatenate([np.linalg.norm(block.data, axis=(1, 2)) for block in blocks])[-len(head) :]
    true = int(head["idx"]["kspace_encode_step_1"][np.argmax(power)])
    assert true == 8
    counters = head["idx"]["user"][:, 5:7]
    assert {tuple(pair) for pair in counters.tolist()} == {(8, 0) if vendor == "siemens" else (0, 0)}


def test_siemens_counters_of_a_volume() -> None:
    header, blocks = scan(vendor="siemens", three_d=True, slices=10)
    assert {tuple(pair) for pair in headers(blocks)["idx"]["user"][:, 5:7].tolist()} == {(16, 5)}
    assert header.encoding[0].encodingLimits.kspace_encoding_step_0 is None
    assert header.acquisitionSystemInformation.coilLabel[2].coilName == "HeadNeck_20:1:H3"


def test_ge_leaves_out_noise_calibration_and_partitions() -> None:
    header, blocks = scan(vendor="ge", three_d=True, slices=10, echoes=3)
    (encoding,) = header.encoding
    assert encoding.parallelImaging is None
    assert encoding.encodingLimits.kspace_encoding_step_2.maximum == 0
    assert encoding.encodingLimits.contrast.center == 1
    assert encoding.encodedSpace.matrixSize.x == 32  # no oversampling
    assert header.acquisitionSystemInformation.relativeReceiverNoiseBandwidth == 1
    assert not has_flag(np.concatenate([b.headers for b in blocks]), Flag.IS_NOISE_MEASUREMENT).any()
    ends = np.uint64(1 << (Flag.FIRST_IN_SLICE - 1) | 1 << (Flag.LAST_IN_SLICE - 1))
    assert not (headers(blocks)["flags"] & ~ends).any()


def test_philips_leaves_out_geometry_times_and_flags() -> None:
    header, blocks = scan(vendor="philips", slices=2)
    head = headers(blocks)
    for field in ("position", "read_dir", "phase_dir", "slice_dir", "sample_time_us", "flags"):
        assert not head[field].any()
    assert has_flag(blocks[0].headers, Flag.IS_NOISE_MEASUREMENT).all()
    assert header.experimentalConditions.H1resonanceFrequency_Hz == 0
    assert header.acquisitionSystemInformation.systemFieldStrength_T is None


@pytest.mark.parametrize("vendor", ["plain", "siemens"])
def test_noise_may_be_a_scan_of_its_own(tmp_path: Path, vendor: str) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = ["--matrix", "32", "--coils", "3", "--calibration", "6", "--noise-lines", "5", "--vendor", vendor]
    files = ["-o", f"{tmp_path}/scan.h5", "--noise", f"{tmp_path}/noise.h5"]
    assert run(parser.parse_args([*files, *options])) == 0
    scan, noise = (ismrmrd.Dataset(f"{tmp_path}/{name}.h5", create_if_needed=False) for name in ("scan", "noise"))
    (dependency,) = ismrmrd.xsd.CreateFromDocument(scan.read_xml_header()).measurementInformation.measurementDependency
    there = ismrmrd.xsd.CreateFromDocument(noise.read_xml_header()).measurementInformation
    assert (dependency.dependencyType, dependency.measurementID) == ("Noise", there.measurementID)
    assert not there.measurementDependency
    assert noise.number_of_acquisitions() == 5
    for dataset, expected in ((noise, True), (scan, False)):
        flags = [dataset.read_acquisition(n).isFlagSet(ismrmrd.ACQ_IS_NOISE_MEASUREMENT) for n in (0, 4)]
        assert flags == [expected, expected]
        dataset.close()


def test_the_noise_scan_is_not_the_noise_of_the_image() -> None:
    """The same noise would be subtracted, or at least correlated."""
    settings = Settings(**{**SMALL, "acceleration": 1.0}, noise_lines=16, snr=0.01, oversampling=1, noise_from="other")
    (noise,) = make_noise_scan(settings)[1]
    image = np.concatenate([one.data for one in make_scan(settings)[1]])[:16]
    correlation = np.vdot(noise.data, image) / np.linalg.norm(noise.data) / np.linalg.norm(image)
    assert abs(correlation) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vendor": "simens"}, "did you mean 'siemens'"),
        ({"vendor": "ge", "separate": True}, "the converter of ge marks no calibration lines"),
        ({"partial_fourier": 0.5}, "partial_fourier must be from 0 to below 0.5"),
        ({"partial_fourier": 0.45}, "at most 12 of 32 lines"),
    ],
)
def test_settings_that_make_no_scan(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        scan(**options)


CHAIN = Chain.parse(configuration(*(stage(name) for name in ("noise", "sort", "coils", "network", "images"))))


def reconstructed(vendor: str, by_hand: dict[str, str] | None = None, **options: Any) -> Any:
    """Image (slice, y, x) of a vendor's scan; by_hand: properties of gadgets."""
    header, lines, _ = make_scan(Settings(**{**SMALL, "coils": 6, "calibration": 16, **options}, vendor=vendor))
    # A fixed number, since a scan of unknown dwell times has another noise level, and so another regularisation.
    chain = CHAIN.set("network.name", "cgsense").set("network.options", "regularisation=0.01")
    for name, value in (by_hand or {}).items():
        chain = chain.set(name, value)
    images = [item for item in chain.run(lines, read_header(header).header) if isinstance(item, ismrmrd.Image)]
    return np.concatenate([np.abs(image.data[0]) for image in images])


def plain(vendor: str, **options: Any) -> Any:
    """The image of a scan with a complete and right header, of what the vendor's converter converts."""
    kept = VENDORS[vendor]
    options |= {} if kept.noise else {"noise_lines": 0}
    return reconstructed("plain", **options, **({} if kept.oversampling else {"oversampling": 1}))


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("three_d", [False, True])
def test_chains_reconstruct_what_each_vendor_sends(vendor: str, three_d: bool) -> None:
    """GE's header says that a volume has one partition, the first."""
    options = {"slices": 8, "three_d": three_d}
    made, wanted = reconstructed(vendor, **options), plain(vendor, **options)
    assert np.linalg.norm(made / made.max() - wanted / wanted.max()) < 0.02 * np.linalg.norm(wanted / wanted.max())


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("three_d", [False, True])
def test_the_centre_of_partial_fourier_is_found(vendor: str, three_d: bool) -> None:
    """Siemens' lines carry it; GE's and Philips' converters write half of the lines, which the data contradict."""
    options = {"slices": 8, "three_d": three_d, "partial_fourier": 0.25}
    made, wanted = reconstructed(vendor, **options), plain(vendor, **options)
    assert np.linalg.norm(made / made.max() - wanted / wanted.max()) < 1e-4 * np.linalg.norm(wanted / wanted.max())


def test_lines_that_need_a_longer_grid_by_hand() -> None:
    """GE's encoded matrix has the lines that were measured, of which a fifth would fall off around the true centre."""
    made = reconstructed("ge", {"sort.centre_line": "8"}, partial_fourier=0.25)
    wanted = plain("ge", partial_fourier=0.25)
    assert np.linalg.norm(made / made.max() - wanted / wanted.max()) < 1e-4 * np.linalg.norm(wanted / wanted.max())
