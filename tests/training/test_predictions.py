"""Predictions in files: on the grid of the data set's own files, and with the same scores when they are read again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import torch

from mrnets import store
from mrnets.contract import Estimate
from mrnets.errors import InputError
from mrnets.preparation import Preparation
from tests.training.cases import cases
from tests.training.readers.test_orientation import turned
from training import loop
from training.__main__ import main
from training.batches import Batches
from training.data import Place
from training.evaluate import evaluate
from training.options import Options, read
from training.predictions import Names, Saved, Writer, restored
from training.split import Split
from training.tasks import fitted

CASES = cases()
RECIPES = Path(loop.__file__).parent / "recipes"
NETWORKS = {"reconstruction": "varnet", "quantitative": "qvarnet", "segmentation": "segunet", "joint": "segnet"}
TRIED = ("cc359", "fastmri_knees", "fastmri_knees_singlecoil", "stanford_knees", "ismrmrd", "ahead", "ahead_maps")
TRIED += ("brats", "isles", "skmtea_segmentation", "skmtea_joint")


def prepared(recipe: str, folder: Path, rng: np.random.Generator) -> tuple[Options, str]:
    """The options of a recipe on its tiny data set, and weights as they start."""
    case = CASES[recipe]
    case.write(folder / "data", rng)
    name = NETWORKS[case.task]
    small = {k: list(v) if isinstance(v, tuple) else v for k, v in store.describe(name).small.items() if k != "coils"}
    options, source = fitted(
        read(
            RECIPES / f"{recipe}.yaml",
            [
                *case.overrides,
                *(f"data={folder / 'data'}", f"network.name={name}", f"network.options={json.dumps(small)}"),
                *("device=cpu", "precision=float32", "validation.examples=0"),
            ],
        ),
        "validation",
    )
    path = str(folder / f"{name}.safetensors")
    store.save(
        path,
        store.create(name, **options.network.options),
        name=name,
        options=options.network.options,
        preparation=options.preparation.to_json(),
        labels=source.labels if CASES[recipe].task in ("segmentation", "joint") else (),
    )
    return options, path


@pytest.mark.parametrize("recipe", TRIED)
def test_saved_predictions_have_the_scores_of_their_network(
    recipe: str, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    options, weights = prepared(recipe, tmp_path, rng)
    first = evaluate(weights, options, save=tmp_path / "saved")
    again = evaluate("none", options, predictions=tmp_path / "saved", folder=tmp_path / "out")
    assert set(again) == set(first)
    for method, row in first.items():
        assert again[method] == pytest.approx(row, rel=2e-3, abs=2e-5, nan_ok=True), method
    both = evaluate(weights, options, predictions=tmp_path / "saved")
    assert set(both) == {*first, *(f"saved {method}" for method in first)}
    assert (tmp_path / "out" / "evaluation.png").exists()
    assert "slices" in capsys.readouterr().err  # how far it is


def file_of(folder: Path, method: str, ending: str) -> Path:
    (path,) = (p for p in (folder / "saved" / method).iterdir() if p.name.endswith(ending))
    return path


def test_each_volume_has_a_file_of_its_own(tmp_path: Path, rng: np.random.Generator) -> None:
    """Also where files are named alike, and where some of them are read alone. A slice that comes after its volume was
    written does not take its place."""
    options, _ = prepared("fastmri_knees_singlecoil", tmp_path, rng)
    one = Batches(fitted(options, "validation")[1], options, "validation", 1).example(0, "cpu")
    examples = [
        dataclasses.replace(one, places=(Place(f"/data/{subject}/raw/scan.h5", index, subject),))
        for subject, index in (("a", 0), ("a", 1), ("b", 0), ("c", 0), ("c", 1), ("a", 0))
    ]
    names = Names.of([e.places[0].path for e in examples], "/data")
    writer = Writer(tmp_path / "saved", names, ())
    for n, example in enumerate(examples):
        writer.add("truth", Estimate(image=example.target * (n + 1)), example)
    writer.close()
    assert sorted(p.name for p in (tmp_path / "saved" / "truth").glob("*.h5")) == [f"{s}_raw_scan.h5" for s in "abc"]
    saved = Saved(tmp_path / "saved", names)
    for n, example in reversed(list(enumerate(examples[:-1]))):
        ((method, estimate),) = saved.estimates(example, ())
        assert method == "truth"
        torch.testing.assert_close(estimate.image, restored(Estimate(image=one.target * (n + 1)), one).image)


def test_volumes_have_names_that_differ() -> None:
    def names(*paths: str) -> list[str]:
        return list(Names.of([f"/data/{path}" for path in paths], "/data").names.values())

    assert names("a/t1.nii.gz", "b/t2.nii.gz", "c/P1.7.h5") == ["t1", "t2", "P1.7"]
    assert names("a/x/scan.h5", "b/x/scan.h5", "b/y/scan.h5", "y_scan.h5") == [
        "a_x_scan",
        "b_x_scan",
        "b_y_scan",
        "y_scan",
    ]
    with pytest.raises(InputError, match=r"a/scan\.h5: predictions of .*/a/scan\.mrd would have the same name, a_scan"):
        names("a/scan.h5", "a/scan.mrd")


def test_predictions_of_another_volume_are_neither_scored_nor_lost(tmp_path: Path, rng: np.random.Generator) -> None:
    """Training and validation of a data set may have files of one name; both were written into one folder."""
    options, weights = prepared("fastmri_knees_singlecoil", tmp_path, rng)
    evaluate(weights, options, save=tmp_path / "saved")
    here = evaluate("none", options, predictions=tmp_path / "saved")
    below = dataclasses.replace(options, data=str(tmp_path / "data" / "singlecoil_val"))
    below = dataclasses.replace(below, reader=dataclasses.replace(below.reader, split=Split()))
    assert evaluate("none", below, predictions=tmp_path / "saved").keys() == here.keys()
    (path,) = (tmp_path / "data" / "singlecoil_val").iterdir()
    path.parent.rename(tmp_path / "data" / "val2")
    before = file_of(tmp_path, "varnet", ".h5").read_bytes()
    sentence = rf"{path.stem}\.h5: has predictions of singlecoil_val/{path.name}, and not of val2/{path.name}"
    for more in ({"predictions": tmp_path / "saved"}, {"save": tmp_path / "saved"}):
        with pytest.raises(InputError, match=sentence):
            evaluate(weights, options, **more)
    assert file_of(tmp_path, "varnet", ".h5").read_bytes() == before


def test_files_of_fastmri_have_its_axes_and_units(tmp_path: Path, rng: np.random.Generator) -> None:
    options, weights = prepared("fastmri_knees_singlecoil", tmp_path, rng)
    evaluate(weights, options, save=tmp_path / "saved")
    (original,) = (tmp_path / "data" / "singlecoil_val").iterdir()
    with h5py.File(file_of(tmp_path, "zerofilled", ".h5")) as file, h5py.File(original) as measured:
        assert file["reconstruction"].shape == (2, 40, 24)
        assert list(file["slices"]) == [0, 1]
        kspace = measured["kspace"][1]
        image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace), norm="ortho"))
        found = np.abs(file["reconstruction"][1])
        assert np.corrcoef(found.ravel(), np.abs(image).ravel())[0, 1] > 0.8  # neither turned nor flipped
        assert found.max() == pytest.approx(np.abs(image).max(), rel=0.5)  # in the units of k-space
    volume = nibabel.load(file_of(tmp_path, "zerofilled", ".nii.gz"))
    np.testing.assert_allclose(volume.get_fdata()[:, :, 1], found, rtol=1e-5)


@pytest.mark.parametrize(
    ("order", "seen"),
    [("LPS", lambda p: p.T), ("RAS", lambda p: p.T[::-1, ::-1]), ("ALS", lambda p: p[::-1])],
)
@pytest.mark.parametrize("recipe", ["brats", "isles"])
def test_segmentations_lie_on_the_grid_of_the_images(
    recipe: str, order: str, seen: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    options, weights = prepared(recipe, tmp_path, rng)
    options = dataclasses.replace(options, data=str(turned(tmp_path / "data", order)))
    evaluate(weights, options, save=tmp_path / "saved")
    batches = Batches(fitted(options, "validation")[1], options, "validation", 1)
    example = batches.example(0, "cpu")
    (place,) = example.places
    like, made = nibabel.load(place.grid), nibabel.load(file_of(tmp_path, "segunet", "_seg.nii.gz"))
    assert made.shape[:3] == like.shape
    np.testing.assert_array_equal(made.affine, like.affine)
    trained = store.load(weights)
    with torch.no_grad():
        masks = trained.network(example.scan).logits[0] > 0
    np.testing.assert_array_equal(seen(made.get_fdata()[:, :, place.index, 0]), masks[0].numpy())
    scored = evaluate("none", options, predictions=tmp_path / "saved", folder=tmp_path / "again")
    assert scored["segunet"]["dice"] == pytest.approx(evaluate(weights, options)[Path(weights).stem]["dice"])


def test_labels_that_a_method_saves_are_those_of_the_file(tmp_path: Path, rng: np.random.Generator) -> None:
    """The truth, written as a prediction, scores 1 and equals the label map."""
    options, _ = prepared("brats", tmp_path, rng)
    source = fitted(options, "validation")[1]
    batches, saved = Batches(source, options, "validation", 1), {}
    for n in range(batches.examined):
        example = batches.example(n, "cpu")
        saved.setdefault(example.places[0].path, {})[example.places[0].index] = example.labels[0].numpy()
    for path, slices in saved.items():
        folder = tmp_path / "truth" / "truth"
        folder.mkdir(parents=True, exist_ok=True)
        with h5py.File(folder / f"{Path(path).name}.h5", "w") as file:
            file["slices"] = sorted(slices)
            file["segmentation"] = np.stack([slices[n].swapaxes(-1, -2) for n in sorted(slices)]).astype(np.uint8)
    assert evaluate("none", options, predictions=tmp_path / "truth")["truth"]["dice"] == 1.0


def test_files_of_others_have_all_slices(tmp_path: Path, rng: np.random.Generator) -> None:
    """Without `slices`, and magnitudes in the units of the data: as fastMRI's submissions."""
    options, weights = prepared("fastmri_knees_singlecoil", tmp_path, rng)
    first = evaluate(weights, options, save=tmp_path / "saved")
    path = file_of(tmp_path, "cgsense" if "cgsense" in first else "zerofilled", ".h5")
    with h5py.File(path) as file:
        images = np.abs(file["reconstruction"][:])
    (tmp_path / "others" / "mine").mkdir(parents=True)
    with h5py.File(tmp_path / "others" / "mine" / path.name, "w") as file:
        file["reconstruction"] = images
    again = evaluate("none", options, predictions=tmp_path / "others")
    assert again["mine"] == pytest.approx(first[path.parent.name], rel=2e-3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f.__delitem__("reconstruction"), r"\.h5: no reconstruction, maps or segmentation in it"),
        (lambda f: f["slices"].__setitem__(0, 77), r"\.h5: there is no prediction of slice 0 in it"),
        (
            lambda f: f.__delitem__("slices") or f.__setitem__("slices", [[0, 1]]),
            r"slices must have the axes \(slice\)",
        ),
    ],
)
def test_files_that_cannot_be_scored(change: Any, sentence: str, tmp_path: Path, rng: np.random.Generator) -> None:
    options, weights = prepared("fastmri_knees_singlecoil", tmp_path, rng)
    evaluate(weights, options, save=tmp_path / "saved")
    with h5py.File(file_of(tmp_path, "varnet", ".h5"), "a") as file:
        change(file)
    with pytest.raises(InputError, match=sentence):
        evaluate("none", options, predictions=tmp_path / "saved")


def test_another_grid_is_told(tmp_path: Path, rng: np.random.Generator) -> None:
    options, weights = prepared("fastmri_knees_singlecoil", tmp_path, rng)
    evaluate(weights, options, save=tmp_path / "saved")
    with h5py.File(file_of(tmp_path, "varnet", ".h5"), "a") as file:
        images = file["reconstruction"][:, 2:-2]
        del file["reconstruction"]
        file["reconstruction"] = images
    with pytest.raises(InputError, match=r"reconstruction is 24 x 36 \(y, x\), the data 24 x 40"):
        evaluate("none", options, predictions=tmp_path / "saved")


def test_the_command_and_the_slice_of_the_figure(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    options, weights = prepared("fastmri_knees_singlecoil", tmp_path, rng)
    words = ["evaluate", weights, "fastmri_knees_singlecoil", f"data={options.data}", "device=cpu", "-o"]
    words += [str(tmp_path / "out"), *CASES["fastmri_knees_singlecoil"].overrides]
    assert main([*words, "--save", str(tmp_path / "saved"), "--slice", "slice 1"]) == 0
    one = (tmp_path / "out" / "evaluation.png").read_bytes()
    assert main([*words, "--slice", "0"]) == 0
    assert (tmp_path / "out" / "evaluation.png").read_bytes() != one
    assert main([*words, "--slice", "slice 7"]) == 1
    assert "no slice of the evaluation has 'slice 7' in its name; there is 'singlecoil_val/" in capsys.readouterr().err
    none = ["evaluate", "none", *words[2:]]
    assert main([*none, "--predictions", str(tmp_path / "saved")]) == 0
    assert main(none) == 1
    assert "there is nothing to evaluate: give weights, or saved predictions" in capsys.readouterr().err
    assert main([*none, "--predictions", str(tmp_path / "nothing")]) == 1
    assert "no folder of predictions, with a folder for each method in it" in capsys.readouterr().err


def test_simulated_slices_are_saved_by_their_number(tmp_path: Path) -> None:
    options = read(
        RECIPES / "demo.yaml",
        ["simulated.matrix=[48]", "simulated.coils=[4,4]", "simulated.phantoms=1", "validation.examples=2"],
    )
    options = dataclasses.replace(options, network=dataclasses.replace(options.network, options={}))
    small = store.describe("varnet").small
    path = tmp_path / "varnet.safetensors"
    network = store.create("varnet", **small)
    store.save(path, network, name="varnet", options=small, preparation=Preparation().to_json())
    first = evaluate(str(path), options, save=tmp_path / "saved")
    assert [p.name for p in sorted((tmp_path / "saved" / "varnet").iterdir())] == ["simulated.h5", "simulated.nii.gz"]
    again = evaluate("none", options, predictions=tmp_path / "saved")
    assert again["varnet"] == pytest.approx(first["varnet"], rel=2e-3)
