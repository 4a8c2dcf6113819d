"""Splits by subject, slices that are not finite, batches, and options of readers."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import re
import sys
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mrnets.contract import Raw
from mrnets.errors import InputError
from training import data
from training.data import Place, Sample, Slices, bind, stacked
from training.split import PARTS, Split, part_of

RNG = np.random.default_rng(0)


def parts(subjects, split):
    return [part_of(subjects, part, split) for part in PARTS]


# Splits


def test_counts_are_taken_in_the_order_of_names():
    subjects = [f"s{i:02d}" for i in range(12)]
    shuffled = [subjects[i] for i in np.random.default_rng(1).permutation(12)]
    train, validation, test = parts(shuffled + shuffled, Split(counts=(7, 2, 1)))
    assert (train, validation, test) == (subjects[:7], subjects[7:9], subjects[9:10])


def test_fewer_subjects_than_counts_are_shared_out():
    train, validation, test = parts([f"s{i:02d}" for i in range(20)], Split(counts=(47, 20, 50)))  # of CC359
    assert [len(p) for p in (train, validation, test)] == [8, 3, 9]
    assert [len(p) for p in parts(["a", "b"], Split(counts=(47, 20, 50)))] == [1, 1, 0]
    assert [len(p) for p in parts([f"s{i}" for i in range(10)], Split())] == [8, 1, 1]


def test_a_single_subject_serves_for_everything():
    assert parts(["only"], Split(counts=(5, 1, 1))) == [["only"]] * 3


def test_names_win_over_counts():
    split = Split(counts=(1, 1, 1), validation=("anna", "bert"), test=("carl",))
    subjects = ["site/anna_1", "site/anna_2", "site/bert", "site/carl", "site/dora", "site/emil"]
    assert parts(subjects, split) == [["site/dora", "site/emil"], subjects[:3], ["site/carl"]]
    assert parts(subjects, Split(test=("anna",)))[1] == []


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("multicoil_train", "multicoil_val", "multicoil_test"), ("Training", "validation", "t")],
)
def test_folders_of_the_data_set_say_the_part(train, validation, test):
    subjects = [f"{train}/a", f"{train}/b", f"{validation}/c", f"{test}/d"]
    found = parts(subjects, Split())
    assert found[:2] == [[f"{train}/a", f"{train}/b"], [f"{validation}/c"]]
    assert found[2] == ([f"{test}/d"] if test != "t" else [])
    assert sum(map(len, parts(subjects, Split(counts=(2, 1, 1))))) == 4
    assert parts(subjects, Split(counts=(2, 1, 1)))[0] == sorted(subjects)[:2]  # counts, where given, win over folders


def test_names_of_files_are_not_folders():
    assert [len(p) for p in parts(["train_1", "val_1", "test_1", "train_2"], Split())] == [2, 1, 1]


@pytest.mark.parametrize("counts", [(1,), (1, 2), (0, 1, 1), (3, -1, 1), (1, 1, 1, 1)])
def test_counts_that_make_no_sense(counts):
    with pytest.raises(InputError, match=r"split\.counts must be three numbers"):
        part_of(["a", "b"], "train", Split(counts=counts))


@example(subjects={"0", "1"}, counts=(1, 3, 0))
@settings(deadline=None, max_examples=100)
@given(
    subjects=st.sets(st.text("abcxyz0123/_", min_size=1, max_size=8), min_size=2, max_size=40),
    counts=st.tuples(st.integers(1, 60), st.integers(1, 20), st.integers(0, 60)),
)
def test_no_subject_is_in_two_parts(subjects, counts):
    split = Split(counts=counts)
    found = parts(list(subjects), split)
    assert sum(map(len, found)) == len(set().union(*found))
    assert set().union(*found) <= subjects
    assert found[0]
    assert found[1]
    assert found == parts(sorted(subjects, reverse=True), split)
    if len(subjects) >= sum(counts):
        assert tuple(map(len, found)) == counts
    else:
        assert set().union(*found) == subjects


# Slices


def raw(shape=(4, 6), value=1.0, coils=2):
    kspace = torch.full((1, 1, coils, *shape), value, dtype=torch.complex64)
    return Raw(kspace=kspace, mask=torch.ones((1, 1, 1, *shape), dtype=torch.bool))


def load(place, bad=(), shapes=None):
    """A slice whose k-space tells which it is; those in `bad` have a NaN somewhere."""
    scan = raw((shapes or {}).get(place.index, (4, 6)), place.index)
    if place.index in bad:
        scan.kspace[0, 0, 1, 3, 2] = complex(0, float("nan"))
    return Sample(names=(f"{place.path}, slice {place.index}",), raw=scan, labels=torch.ones(1, 2, 4, 6).bool())


def slices(count, **more):
    places = tuple(Place(f"{'ab'[i % 2]}.h5", i, "ab"[i % 2]) for i in range(count))
    return Slices(places, partial(load, **more), labels=("background", "tissue"))


def numbers(sample):
    return sample.raw.kspace[:, 0, 0, 0, 0].real.int().tolist()


def test_a_batch_is_the_slices_asked_for_in_their_order():
    source = slices(5)
    sample = source.take([3, 0, 3], RNG)
    assert numbers(sample) == [3, 0, 3]
    assert sample.names == ("b.h5, slice 3", "a.h5, slice 0", "b.h5, slice 3")
    assert sample.volumes == ("b.h5", "a.h5", "b.h5")
    assert sample.raw.mask.shape == (3, 1, 1, 4, 6)
    assert sample.labels.shape == (3, 2, 4, 6)
    assert (len(source), source.subjects) == (5, ("a", "b"))


def test_sources_travel_to_other_processes():
    again = pickle.loads(pickle.dumps(slices(3)))
    assert numbers(again.take([2], RNG)) == [2]


def test_slices_that_are_not_finite_are_reported_and_left_out(caplog):
    source = slices(5, bad=(2, 3, 4))
    with caplog.at_level(logging.WARNING):
        sample = source.take([1, 2, 0], RNG)
    assert numbers(sample) == [1, 0, 0]  # after the last slice comes the first
    assert [r.getMessage() for r in caplog.records] == [
        f"{name}.h5, slice {i}: values that are not finite; left out" for i, name in ((2, "a"), (3, "b"), (4, "a"))
    ]
    with pytest.raises(InputError, match=r"a\.h5 and all other files: no slice has only finite values"):
        slices(3, bad=(0, 1, 2)).take([1], RNG)


@pytest.mark.parametrize("name", ["kspace", "sens", "image", "coil_images"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_every_field_with_measured_values_is_looked_at(name, value):
    bad = torch.full((1, 1, 2, 4, 6), value, dtype=torch.complex64)
    sample = Sample(names=("a",), raw=raw())
    if name in ("kspace", "sens"):
        sample = dataclasses.replace(sample, raw=dataclasses.replace(sample.raw, **{name: bad}))
    else:
        sample = dataclasses.replace(sample, **{name: bad})
    with pytest.raises(InputError, match="no slice has only finite values"):
        Slices((Place("a", 0, "a"),), lambda place: sample).take([0], RNG)


# Batches


def test_slices_of_different_shapes_make_no_batch():
    source = slices(3, shapes={1: (4, 8)})
    with pytest.raises(InputError, match=r"kspace differs \(a\.h5, slice 0: \(1, 1, 2, 4, 6\), b\.h5, slice 1: "):
        stacked([source.load(place) for place in source.places[:2]])


def test_a_batch_has_all_fields_of_its_samples():
    def one(n):
        scan = dataclasses.replace(raw(value=n), sens=torch.full((1, 1, 2, 4, 6), n + 0j), sens_method="given")
        fields = {
            "coil_images": torch.full((1, 1, 2, 4, 6), n + 0j),
            "mask": torch.full((1, 1, 1, 4, 6), bool(n)),
            "image": torch.full((1, 3, 4, 6), float(n)),
            "labels": torch.full((1, 1, 4, 6), bool(n)),
            "region": torch.full((1, 4, 6), bool(n)),
        }
        return Sample(
            names=(str(n),), volumes=(f"v{n}",), raw=scan, maps={"B0": torch.full((1, 4, 6), float(n))}, **fields
        )

    batch = stacked([one(0), one(1)])
    assert batch.names == ("0", "1")
    assert batch.volumes == ("v0", "v1")
    assert batch.raw.sens_method == "given"
    arrays = [batch.raw.kspace, batch.raw.sens, batch.maps["B0"]]
    arrays += [getattr(batch, name) for name in ("coil_images", "mask", "image", "labels", "region")]
    for array in arrays:
        assert len(array) == 2
        assert not array[0].any()
        assert array[1].all()
    alone = one(1)
    assert stacked([alone]) is alone


# Readers


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A reader `toy` among the readers."""
    (tmp_path / "toy.py").write_text("")

    @dataclass(frozen=True, kw_only=True)
    class Reader:
        trim: tuple[int, int] = (1, 2)
        scale: float = 1.0
        name: str = "x"

    monkeypatch.setattr(data, "_READERS", tmp_path)
    monkeypatch.setitem(sys.modules, "training.readers.toy", SimpleNamespace(Reader=Reader))
    return Reader


def test_options_of_a_reader_are_bound_and_fitted(toy):
    assert bind("toy", {"trim": [3, 4], "scale": 2}) == toy(trim=(3, 4), scale=2.0)
    assert bind("toy", {}) == toy()


def test_what_the_caller_has_goes_to_readers_that_know_it_unless_the_recipe_says_otherwise(toy):
    assert bind("toy", {}, name="y", settings=object()) == toy(name="y")
    assert bind("toy", {"name": "z"}, name="y") == toy(name="z")


@pytest.mark.usefixtures("toy")
def test_mistakes_in_options_of_a_reader():
    with pytest.raises(InputError, match=r"unknown reader: 'toi'; did you mean 'toy'"):
        bind("toi", {})
    with pytest.raises(InputError, match=r"unknown option of reader toy: 'trimm'; did you mean 'trim'"):
        bind("toy", {"trimm": [1, 2]})
    with pytest.raises(InputError, match=r"unknown option of reader toy: 'folder'"):
        bind("toy", {"folder": "there"})
    with pytest.raises(InputError, match=r"trim of reader toy must be \[an integer, an integer\], got \[1\]"):
        bind("toy", {"trim": [1]})


@pytest.mark.parametrize("name", data.names())
def test_every_reader_reads_and_checks(name, tmp_path):
    """By its defaults alone, from any process, and with a sentence for a folder in which there is nothing."""
    reader = bind(name, {})
    assert pickle.loads(pickle.dumps(reader)) == reader
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        reader.read(tmp_path, "train", Split())
    assert str(tmp_path) in next(iter(reader.check(tmp_path, Split())))


def test_files_on_which_readers_stand_are_no_readers():
    assert "simulated" in data.names()
    assert not set(data.names()) & {"anatomy", "files", "__init__"}


def test_a_part_that_is_not_wanted_stays_empty():
    subjects = [f"s{n}" for n in range(5)]
    assert [len(p) for p in parts(subjects, Split(counts=(5, 5, 0)))] == [3, 2, 0]
    assert [len(p) for p in parts(subjects, Split(counts=(8, 0, 0)))] == [5, 0, 0]


def test_slices_of_scans_with_other_noise_are_not_one_batch():
    kspace = torch.zeros((1, 1, 2, 4, 4), dtype=torch.complex64)
    mask = torch.ones((1, 1, 1, 4, 4), dtype=torch.bool)
    one, other = (
        Sample(names=(name,), raw=Raw(kspace=kspace, mask=mask, noise=power * torch.eye(2, dtype=torch.complex64)))
        for name, power in (("a", 1.0), ("b", 2.0))
    )
    assert stacked([one, one]).raw.kspace.shape[0] == 2
    with pytest.raises(InputError, match=r"noise differs \(a: one, b: another\); use batch=1 and accumulate"):
        stacked([one, other])
    with pytest.raises(InputError, match="what they hold differs"):
        stacked([one, Sample(names=("c",))])
