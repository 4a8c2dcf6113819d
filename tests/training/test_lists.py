"""Splits by lists of files in JSON, as ATOMMIC makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrnets.errors import InputError
from tests.training.layouts import write_fastmri
from tests.training.layouts_maps import write_brats
from training import loop
from training.options import read
from training.split import PARTS, Split, part_of
from training.tasks import opened

RECIPES = Path(loop.__file__).parent / "recipes"


def split(folder: Path, **lists: Any) -> Split:
    for part, paths in lists.items():
        (folder / f"{part}.json").write_text(json.dumps(paths), encoding="utf-8")
    return Split(counts=(1, 1, 1), lists={part: str(folder / f"{part}.json") for part in lists})


@pytest.mark.parametrize(
    ("subjects", "paths"),
    [
        (["file1", "file10", "file2"], ["/a/multicoil_train/file1.h5", "/a/file10.h5", "C:\\a\\file2.h5"]),
        (["t/file1", "v/file1", "t/b"], ["/data/t/file1.h5", "/data/v/file1.h5", "/data/t/b.h5"]),
        (
            ["BraTS-GLI-00000", "BraTS-GLI-00005", "BraTS-GLI-00006"],
            [
                "/x/BraTS-GLI-00000-000",
                "/x/BraTS-GLI-00005-100/BraTS-GLI-00005-100-t1c.nii.gz",
                "/x/BraTS-GLI-00006-000-t1n",
            ],
        ),
        (
            ["sub-strokecase0001", "sub-strokecase0010", "sub-strokecase0002"],
            ["/x/sub-strokecase0001_ses-0001.nii.gz", "/x/sub-strokecase0010/a.nii.gz", "/x/sub-strokecase0002.nii.gz"],
        ),
    ],
)
def test_a_path_names_its_subject(subjects: list[str], paths: list[str], tmp_path: Path) -> None:
    lists = split(tmp_path, train=paths[:1], validation=paths[1:2], test=paths[2:])
    assert [part_of(subjects, part, lists) for part in PARTS] == [[name] for name in subjects]


def test_who_is_in_no_list_is_in_no_part(tmp_path: Path) -> None:
    lists = split(tmp_path, train=["a.h5", "other/c.h5"], validation=["b.h5"])
    assert [part_of(["a", "b", "c", "d"], part, lists) for part in PARTS] == [["a", "c"], ["b"], []]


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        (
            {"train": ["a.h5"], "validation": ["b.h5", "x/a.h5"]},
            "a is in two lists of reader.split.lists: train, valida",
        ),
        ({"train": ["c.h5"]}, r"train\.json: none of its 1 paths is of the data set, such as 'a'"),
        ({"train": {"a": 1}}, r"train\.json: must be a JSON array of paths"),
        ({"train": []}, r"train\.json: must be a JSON array of paths"),
        ({"train": [1]}, r"train\.json: must be a JSON array of paths"),
        ({"val": ["a.h5"]}, r"unknown part of reader\.split\.lists: 'val'; known: test, train, validation"),
    ],
)
def test_lists_that_cannot_be_used(lists: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        part_of(["a", "b"], "train", split(tmp_path, **lists))


@pytest.mark.parametrize("content", [b"", b"[", b"\xff", b"[" * 100_000])
def test_files_that_are_no_lists(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_bytes(content)
    with pytest.raises(InputError, match=r"train\.json: cannot be read as a list of files"):
        part_of(["a"], "train", Split(lists={"train": str(tmp_path / "train.json")}))


@pytest.mark.parametrize(("recipe", "write"), [("fastmri_brains", write_fastmri), ("brats", write_brats)])
def test_readers_follow_lists(recipe: str, write: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    data = tmp_path / "data"
    write(data, rng)
    files = sorted(p for p in data.rglob("*") if p.name.endswith((".h5", "-seg.nii.gz")))
    parts = {"train": files[1:2], "validation": files[2:3], "test": files[:1]}
    for part, paths in parts.items():
        (tmp_path / f"{part}.json").write_text(json.dumps([str(path) for path in paths]), encoding="utf-8")
    lists = [f"reader.split.lists.{part}={tmp_path / part}.json" for part in parts]
    options = read(RECIPES / f"{recipe}.yaml", [f"data={data}", *lists])
    for part, (path,) in parts.items():
        (subject,) = opened(options, part).subjects
        assert Path(subject).name in str(path)
