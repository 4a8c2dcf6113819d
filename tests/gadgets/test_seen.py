"""A scan unlike those of the training: said once in the log and in every image's comment, or refused."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ismrmrd import xsd

from gadgets.models import Model
from gadgets.network import network
from gadgets.seen import Comparison, _snr
from mrnets import store
from mrnets.errors import InputError
from mrnets.preparation import Preparation
from mrnets.seen import KEY, Seen
from tests.gadgets.frames import SIZE, disc, frames, header, volume

SMALL = {"cascades": 1, "channels": 2, "pooling_layers": 1}
HEAD = Seen(anatomy=("brain",), contrasts=("t1",), field_strength=(3.0, 3.0))


def weights(path: Any, seen: object) -> str:
    torch.manual_seed(0)
    store.save(
        path,
        store.create("varnet", **SMALL),
        name="varnet",
        options=SMALL,
        preparation=Preparation().to_json(),
        provenance={KEY: seen.to_json() if isinstance(seen, Seen) else seen},
    )
    return str(path)


def model(seen: Seen, **preparation: Any) -> Model:
    return Model("heads", torch.nn.Identity(), Preparation(**preparation), torch.device("cpu"), seen=seen)


def described(part: str = "", protocol: str = "", patient: str = "", hertz: int = 127_700_000) -> Any:
    made = header()
    made.studyInformation = xsd.studyInformationType(bodyPartExamined=part or None)
    made.measurementInformation = xsd.measurementInformationType(
        patientPosition=xsd.patientPositionType.HFS, protocolName=protocol or None
    )
    made.subjectInformation = xsd.subjectInformationType(patientName=patient or None)
    made.experimentalConditions.H1resonanceFrequency_Hz = hertz
    return made


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"part": "KNEE"}, "anatomy is knee, and was brain"),
        ({"protocol": "t1_tse_Knie_links"}, "anatomy is knee"),
        ({"part": "HEAD", "protocol": "ACR phantom t1"}, "anatomy is phantom"),
        ({"patient": "QA^Phantom"}, "anatomy is phantom"),
        ({"part": "ELBOWJOINT"}, "anatomy is elbowjoint"),
        ({"part": "BRAIN", "protocol": "AXT2_FS"}, "contrast is t2, and was t1"),
        ({"part": "BRAIN", "hertz": 63_870_000}, "field strength is 1.5 T, and was 3 T"),
    ],
)
def test_a_header_that_differs_is_told_or_refused(given: dict[str, Any], told: str) -> None:
    (frame,) = frames()
    (note,) = Comparison.of(model(HEAD), described(**given), strict=False).noted(frame).notes
    assert note.startswith("heads was not trained on such a scan: ")
    assert told in note
    with pytest.raises(InputError, match=told):
        Comparison.of(model(HEAD), described(**given), strict=True)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"part": "HEAD", "protocol": "ep_hippocampus_t1"},
        {"part": "UNKNOWN"},
        {"protocol": "MPRAGE", "hertz": 123_200_000},
        {"part": "HEADNECK"},
    ],
)
def test_a_header_that_fits_or_says_nothing_passes(given: dict[str, Any]) -> None:
    (frame,) = frames()
    assert Comparison.of(model(HEAD), described(**given), strict=True).noted(frame) is frame


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (Seen(matrix=(64, 256)), "matrix is 32 x 32, and was 64 to 256"),
        (Seen(coils=(8, 12)), "number of coils is 6, and was 8 to 12"),
        (Seen(acceleration=(4, 8)), "acceleration is 1.45, and was 4 to 8"),
        (Seen(masks=("poisson2d",)), "undersampled along one axis, and was along two axes"),
    ],
)
def test_data_that_differ_are_told(seen: Seen, told: str) -> None:
    for frame in (*frames(), volume()):
        (note,) = Comparison.of(model(seen), header(), strict=False).noted(frame).notes
        assert told in note


def test_data_within_the_ranges_pass_as_the_network_sees_them() -> None:
    (frame,) = frames()
    seen = Seen(matrix=(24, 24), coils=(4, 4), acceleration=(1.2, 4), masks=("equispaced1d", "poisson2d"))
    cropped = model(seen, coils=4, kspace_crop=(24, 24))
    assert Comparison.of(cropped, header(), strict=True).noted(frame) is frame


@pytest.mark.parametrize("snr", [5.0, 50.0])
def test_the_snr_is_that_of_bright_tissue_in_the_combined_image(snr: float) -> None:
    (frame,) = frames(calibration=16)
    bright = float(np.quantile(np.abs(disc()), 0.98))
    raw = replace(frame.raw, whitened=True, variance=4 * (bright / snr) ** 2, averages=4.0)
    assert _snr(raw) == pytest.approx(snr, rel=0.15)
    assert _snr(replace(raw, whitened=False)) is None
    noisy = replace(frame, raw=raw)
    found = Comparison.of(model(Seen(snr=(12, 200))), header(), strict=False).noted(noisy).notes
    assert [("SNR" in note) for note in found] == ([True] if snr < 6 else [])


def test_the_gadget_tells_every_image_and_the_log_once(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = weights(tmp_path / "heads.safetensors", Seen(anatomy=("brain",), matrix=(64, 256)))
    with caplog.at_level(logging.WARNING):
        made = list(network(frames(slices=3), described(part="KNEE"), weights=path))
    assert len(made) == 3
    for frame in made:
        assert frame.estimate.image.shape[-1] == SIZE
        assert any("anatomy is knee" in note and "matrix is 32 x 32" in note for note in frame.notes)
    assert caplog.text.count("was not trained on such a scan") == 1


def test_the_gadget_refuses_where_strict_and_takes_files_that_say_nothing(tmp_path: Any) -> None:
    path = weights(tmp_path / "heads.safetensors", Seen(matrix=(64, 256)))
    with pytest.raises(InputError, match="matrix is 32 x 32"):
        list(network(frames(), header(), weights=path, strict=True))
    silent = weights(tmp_path / "silent.safetensors", {})
    (frame,) = network(frames(), described(part="KNEE"), weights=silent, strict=True)
    assert not any("such a scan" in note for note in frame.notes)


def test_a_damaged_file_is_named(tmp_path: Any) -> None:
    path = weights(tmp_path / "odd.safetensors", {"matrix": "large"})
    with pytest.raises(InputError, match=r"odd\.safetensors: seen: matrix must be"):
        list(network(frames(), header(), weights=path))
