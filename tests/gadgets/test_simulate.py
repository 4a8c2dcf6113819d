"""Simulated scans: what the file says, and that it is a scan of what was asked for."""

import argparse
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest

from gadgets.simulate import Settings, add_arguments, make_scan, run
from mrnets.errors import InputError
from mrnets.mrd.flags import Flag, has_flag
from mrnets.mrd.lines import Lines
from mrnets.physics import masks
from mrnets.physics.coils import mix, rss
from mrnets.physics.fourier import ifftc, resize
from mrnets.physics.whiten import RELATIVE_BANDWIDTH, covariance, whitener

SMALL = {"coils": 3, "matrix": 32, "calibration": 8, "acceleration": 2.0}


def scan(**options: Any) -> tuple[Any, list[Lines], Any]:
    header, items, reference = make_scan(Settings(**{**SMALL, **options}))
    lines = list(items)
    return ismrmrd.xsd.CreateFromDocument(header), lines, np.stack(reference)


def joined(lines: list[Lines], *, noise: bool = False) -> tuple[Any, Any]:
    """Headers and data of the imaging lines, or of the noise measurement."""
    kept = [one for one in lines if has_flag(one.headers, Flag.IS_NOISE_MEASUREMENT).all() == noise]
    return np.concatenate([one.headers for one in kept]), np.concatenate([one.data for one in kept])


def test_the_header_says_what_a_scanner_says() -> None:
    header, lines, _ = scan(slices=2)
    (encoding,) = header.encoding
    assert (encoding.encodedSpace.matrixSize.x, encoding.reconSpace.matrixSize.x) == (64, 32)
    assert (encoding.encodedSpace.fieldOfView_mm.x, encoding.reconSpace.fieldOfView_mm.x) == (512, 256)
    limits = encoding.encodingLimits.kspace_encoding_step_1
    assert (limits.minimum, limits.maximum, limits.center) == (0, 31, 16)
    assert encoding.encodingLimits.slice.maximum == 1
    assert encoding.parallelImaging.calibrationMode.value == "embedded"
    assert encoding.parallelImaging.accelerationFactor.kspace_encoding_step_1 == 2
    assert header.measurementInformation.patientPosition.value == "HFS"
    assert header.acquisitionSystemInformation.relativeReceiverNoiseBandwidth == RELATIVE_BANDWIDTH
    assert header.sequenceParameters.TE == [4.0]
    headers, data = joined(lines)
    assert data.shape == (2 * 16, 3, 64)
    assert data.dtype == np.complex64
    np.testing.assert_array_equal(headers["center_sample"], 32)
    np.testing.assert_array_equal(headers["scan_counter"], 32 + np.arange(32))  # after the noise lines
    np.testing.assert_array_equal(headers["channel_mask"][:, 0], 0b111)
    np.testing.assert_allclose(headers["position"][[0, -1], 2], [-2, 2])


def test_lines_carry_the_flags_that_sorting_needs() -> None:
    _, lines, _ = scan(slices=2, echoes=2)
    headers, _ = joined(lines)
    y = headers["idx"]["kspace_encode_step_1"]
    np.testing.assert_array_equal(has_flag(headers, Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING), (y >= 12) & (y < 20))
    last = headers[has_flag(headers, Flag.LAST_IN_SLICE)]["idx"]
    assert sorted(zip(last["slice"].tolist(), last["contrast"].tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    np.testing.assert_array_equal(np.flatnonzero(has_flag(headers, Flag.LAST_IN_MEASUREMENT)), [len(headers) - 1])
    np.testing.assert_array_equal(headers["idx"]["contrast"][:4], [0, 1, 0, 1])


@pytest.mark.parametrize("oversampling", [1, 2])
def test_a_fully_sampled_scan_without_noise_is_its_reference(oversampling: int) -> None:
    _, lines, reference = scan(acceleration=1.0, snr=1e5, oversampling=oversampling, noise_lines=512)
    headers, data = joined(lines)
    kspace = np.zeros((3, 32, 32 * oversampling), np.complex64)
    kspace[:, headers["idx"]["kspace_encode_step_1"]] = data.transpose(1, 0, 2)
    whiten = whitener(covariance(joined(lines, noise=True)[1]))
    image = rss(mix(whiten, resize(ifftc(kspace), (32, 32))))
    scaled = image * (image * reference[0, 0]).sum() / (image**2).sum()
    assert np.linalg.norm(scaled - reference[0, 0]) < 0.01 * np.linalg.norm(reference)


def test_the_noise_measurement_is_of_the_noise_in_the_image() -> None:
    """At half the bandwidth, seen through the receiver's filter: Gadgetron's whitener gives variance 1 + 1."""
    _, lines, _ = scan(noise_lines=64, snr=0.01, acceleration=1.0)
    (noise_headers, noise), (headers, data) = joined(lines, noise=True), joined(lines)
    ratio = float(headers["sample_time_us"][0] / noise_headers["sample_time_us"][0])
    assert ratio == pytest.approx(0.5)
    matrix = whitener(covariance(noise), np.sqrt(2 * ratio * RELATIVE_BANDWIDTH))
    whitened = matrix @ data.transpose(1, 0, 2).reshape(3, -1)
    np.testing.assert_allclose(whitened @ whitened.conj().T / whitened.shape[1], 2 * np.eye(3), atol=0.15)


def test_separate_calibration_lines_come_first_and_are_complete() -> None:
    header, lines, _ = scan(separate=True, slices=2)
    headers, _ = joined(lines)
    calibration = has_flag(headers, Flag.IS_PARALLEL_CALIBRATION)
    np.testing.assert_array_equal(np.flatnonzero(calibration), np.arange(16))
    np.testing.assert_array_equal(headers["idx"]["kspace_encode_step_1"][:8], np.arange(12, 20))
    assert header.encoding[0].parallelImaging.calibrationMode.value == "separate"
    assert not has_flag(headers, Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING).any()


@pytest.mark.parametrize("mask", masks.names())
def test_a_volume_has_two_phase_encodings(mask: str) -> None:
    header, lines, reference = scan(three_d=True, slices=16, mask=mask)
    headers, _ = joined(lines)
    assert header.encoding[0].encodedSpace.matrixSize.z == 16
    assert header.encoding[0].encodingLimits.kspace_encoding_step_2.center == 8
    assert reference.shape == (16, 1, 32, 32)
    assert set(headers["idx"]["slice"]) == {0}
    sampled = np.zeros((16, 32), bool)
    sampled[headers["idx"]["kspace_encode_step_2"], headers["idx"]["kspace_encode_step_1"]] = True
    if not masks.kind(mask).by_distance:
        assert sampled.mean() == pytest.approx(0.5, rel=0.1)
    assert sampled[4:12, 16].all()
    assert sampled[8, 12:20].all()
    assert has_flag(headers, Flag.LAST_IN_SLICE).sum() == 1


def test_later_echoes_have_decayed() -> None:
    _, _, reference = scan(echoes=3)
    energy = (reference**2).sum(axis=(0, 2, 3))
    assert reference.shape[1] == 3
    assert energy[0] > 1.1 * energy[1] > 1.2 * energy[2]


def test_the_seed_decides_everything() -> None:
    one, again, other = (scan(seed=seed)[1] for seed in (1, 1, 2))
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a.headers, b.headers)
        np.testing.assert_array_equal(a.data, b.data)
    assert not np.array_equal(one[0].data, other[0].data)


@pytest.mark.parametrize(("orientation", "where"), [("axial", (8, 24)), ("coronal", (4, 24)), ("sagittal", (4, 8))])
def test_anatomy_lies_as_radiologists_see_it(tmp_path: Path, orientation: str, where: tuple[int, int]) -> None:
    """A bright spot to the left (+64 mm), in front (-64 mm) and above (96 mm): its row and column of 32."""
    nibabel = pytest.importorskip("nibabel")
    right, front, up = -64, 64, 96
    data = np.zeros((64, 64, 64), np.float32)  # voxels of 4 mm, their axes pointing left, posterior, superior
    data[32 - right // 4 - 1 : 32 - right // 4 + 2, 32 - front // 4 - 1 : 32 - front // 4 + 2, 55:58] = 1
    affine = np.diag([-4.0, -4.0, 4.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(data, affine), tmp_path / "spot.nii")
    offset = {"axial": up, "coronal": -front, "sagittal": right}[orientation]
    _, _, reference = scan(volume=str(tmp_path / "spot.nii"), orientation=orientation, offset=float(offset))
    found = np.unravel_index(np.argmax(reference[0, 0]), (32, 32))
    assert np.abs(np.subtract(found, where)).max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coils": 0}, "coils must be from 1"),
        ({"snr": 0.0}, "snr must be positive"),
        ({"mask": "poisson2d"}, "needs a 3-D scan"),
        ({"mask": "equispaced"}, "did you mean"),
        ({"three_d": True}, "at least 8 partitions"),
        ({"acceleration": 8.0}, "leaves 4 to sample"),
        ({"volume": "absent.nii"}, "absent.nii cannot be read"),
        ({"calibration": 33}, "calibration must be"),
    ],
)
def test_settings_that_make_no_scan(options: dict[str, Any], message: str) -> None:
    if "volume" in options:
        pytest.importorskip("nibabel")
    with pytest.raises(InputError, match=message):
        scan(**options)


def test_the_command_writes_a_scan_that_ismrmrd_reads(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = ["-o", f"{tmp_path}/scan.h5", "--reference", f"{tmp_path}/images.npy", "--matrix", "32"]
    assert run(parser.parse_args([*arguments, "--coils", "2", "--calibration", "6", "--noise-lines", "4"])) == 0
    dataset = ismrmrd.Dataset(f"{tmp_path}/scan.h5", create_if_needed=False)
    assert dataset.number_of_acquisitions() == 4 + 8
    assert dataset.read_acquisition(0).isFlagSet(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    assert dataset.read_acquisition(11).isFlagSet(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
    dataset.close()
    assert np.load(tmp_path / "images.npy").shape == (1, 1, 32, 32)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(InputError, match="there is no folder"):
        run(parser.parse_args(["-o", str(tmp_path / "no" / "scan.h5")]))


@pytest.mark.parametrize(
    "words",
    [
        ["--calibration", "8"],
        ["--acceleration", "32", "--separate"],
        ["--slices", "8", "--three-d", "--mask", "poisson2d", "--calibration", "8"],
    ],
)
def test_a_scan_of_nothing_but_its_centre_is_refused(words: list[str], tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = ["-o", f"{tmp_path}/scan.h5", "--noise", f"{tmp_path}/noise.h5", "--matrix", "32", "--coils", "2"]
    with pytest.raises(InputError, match="to sample, and the fully sampled centre has all of them"):
        run(parser.parse_args([*arguments, *words]))
    assert not list(tmp_path.iterdir())
