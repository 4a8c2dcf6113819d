"""Comments say which of several images they are on, and which echoes, frames and slices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
from ismrmrd import xsd

from gadgets.assemble import of_contrasts
from gadgets.export.comments import sentences, told
from gadgets.export.contents import Picture
from gadgets.images import images
from gadgets.sort import sort
from tests.gadgets import synthetic
from tests.gadgets.estimates import NX, NY, estimated, plain, sorted_frames


def comments(frames: Any, header: xsd.ismrmrdHeader) -> list[str]:
    return [image.meta["ImageComments"].partition(" by ")[0] for image in images(frames, header)]


def test_one_image_of_a_slice_has_no_counters(rng: np.random.Generator) -> None:
    frames = sorted_frames(rng, plain())
    frames = [replace(frame, headers=frame.headers.copy()) for frame in frames]
    for name in ("set", "phase"):
        frames[0].headers["idx"][name] = 0
    assert comments([estimated(frame) for frame in frames], plain()) == ["Image"]


def test_echoes_sets_and_repetitions_are_named(rng: np.random.Generator) -> None:
    header = plain(te=(5.0, 10.0))
    header.encoding[0].encodingLimits.repetition = xsd.limitType(minimum=0, maximum=1, center=0)
    found = comments(map(estimated, sorted_frames(rng, header, contrasts=2, repetitions=2)), header)
    assert found == [
        f"Image (counters from 0: contrast {echo}, set 3, phase 2, repetition {repetition})"
        for repetition in range(2)
        for echo in range(2)
    ]


def test_a_map_of_all_echoes_is_of_no_contrast(rng: np.random.Generator) -> None:
    header = plain(te=(5.0, 10.0))
    (frame,) = sorted_frames(rng, header, contrasts=2)
    maps = {"R2*": np.ones((1, NY, NX), np.float32)}
    assert comments([estimated(frame, maps=maps)], header) == ["R2* (counters from 0: set 3, phase 2)"]


def test_a_line_that_is_odd_in_one_echo_names_that_echo(rng: np.random.Generator) -> None:
    header = plain(te=(5.0, 10.0, 15.0))
    stream = []
    for contrast in range(3):
        kspace = synthetic.to_kspace(synthetic.coil_images(rng, 2, NY, NX))
        kspace[..., 2, :] *= 1000 if contrast == 1 else 1
        stream.append(synthetic.lines(kspace, contrast=contrast))
    (frame,) = sort(stream, header)
    (note,) = (note for note in frame.notes if "line 2 is much stronger" in note)
    assert note.startswith("contrast 1: line 2 is")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({0: ["a"]}, ["a"]),
        ({0: ["a", "a"], 1: ["a"]}, ["a"]),
        ({2: ["b"], 0: ["a"], 1: ["a"]}, ["contrast 0, contrast 1: a", "contrast 2: b"]),
        ({0: [], 1: []}, []),
    ],
)
def test_sentences_on_echoes(said: dict[int, list[str]], expected: list[str]) -> None:
    assert of_contrasts(said) == expected


def picture(*said: str, counters: str = "", more: str = "") -> Picture:
    text = "; ".join([f"Image{counters} by x", *said, *([more] if more else [])])
    meta = {"GADGETRON_ImageComment": ["Image by x", *said], "ImageComments": [text]}
    return Picture(ismrmrd.ImageHeader(), np.zeros((1, 1, 2, 2)), meta)


def test_sentences_of_an_image_are_had_back_without_its_counters() -> None:
    counters = " (counters from 0: contrast 1, set 3)"
    assert sentences(picture("a; b", counters=counters, more="c")) == ["Image by x", "a; b", "c"]
    theirs = Picture(ismrmrd.ImageHeader(), np.zeros((1, 1, 2, 2)), {"ImageComments": ["theirs; c"]})
    assert sentences(theirs) == ["theirs; c"]


def test_frames_and_slices_of_a_sentence_are_told() -> None:
    frames = [[picture(*said) for said in frame] for frame in (("", "a"), ("ab", "a"), ("ab", "a"), ("", "ad"))]
    assert told([[frame[0], frame[1]] for frame in frames]) == [
        "Image by x",
        "frame 0, 3, slice 1; frame 1-2: a",
        "frame 1-2, slice 0: b",
        "frame 3, slice 1: d",
    ]
    alike = [[picture(), picture("a")] for _ in range(3)]
    assert told(alike) == ["Image by x", "slice 1: a"]


def test_files_of_frames_tell_each_sentence_once(tmp_path: Path) -> None:
    pytest.importorskip("nibabel")
    import json

    from gadgets.export.contents import read_contents
    from gadgets.export.nifti import write_nifti
    from tests.gadgets.export.images import image, written

    pixels = np.ones((6, 8), np.float32)
    made = [image(pixels, {"ImageComments": f"same{'; odd' * (n == 2)}"}, repetition=n) for n in range(4)]
    (path,) = write_nifti(read_contents(written(tmp_path / "i.h5", made)), tmp_path / "x.nii")
    assert json.loads(path.with_suffix(".json").read_text())["Comments"] == [
        "frame 0-1, 3: same",
        "frame 2: same; odd",
    ]
