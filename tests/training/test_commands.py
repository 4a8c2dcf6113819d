"""The command that `fit` prints at its end: weights of every recipe make images of a simulated scan by it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from gadgets.__main__ import main
from gadgets.imagefiles import read_images
from gadgets.simulate import Settings, make_scan
from mrnets import store
from mrnets.classes import classes_of
from mrnets.mrd.files import write_scan
from tests.training.cases import cases
from training import loop
from training.__main__ import main as train
from training.options import Network, Options, read
from training.weights import command

RECIPES = Path(loop.__file__).parent / "recipes"
COILS, CONTRASTS = 6, 4
SERIES = {
    "reconstruction": 1,
    "quantitative": 4,
    "segmentation": CONTRASTS + 1,
    "joint": 2,
}
"""Images of one slice: of each echo, of each map, and of the segmentation."""


def untrained(options: Options, path: Path, contrasts: int = CONTRASTS) -> Options:
    """Save small weights with the preparation of a recipe, and return its options with the network that they hold."""
    network = options.network
    sizes = {"contrasts": contrasts, "coils": COILS, "sens_channels": 2, "sens_pooling_layers": 2}
    own = {**store.describe(network.name).small, **network.options}
    own |= {key: value for key, value in sizes.items() if key in store.bind(network.name)}
    torch.manual_seed(0)
    preparation = options.preparation.to_json()
    bound = store.bind(network.name, **own)
    made = store.create(network.name, **bound)
    labels = [f"class {n}" for n in range(bound.get("classes", 0))]
    store.save(path, made, name=network.name, options=own, preparation=preparation, labels=labels)
    network = Network(name=network.name, options=own, first=network.first)
    return dataclasses.replace(options, network=network, weights=str(path))


def images(line: str, folder: Path, echoes: int, coils: int = COILS) -> list[np.ndarray]:
    """The series that a printed command makes of a scan of two slices."""
    scan = Settings(coils=coils, matrix=32, slices=2, echoes=echoes, acceleration=2, calibration=16, seed=3)
    write_scan(folder / "SCAN.h5", *make_scan(scan)[:2])
    python, _, program, *words = shlex.split(line)
    assert (python, program) == ("python", "gadgets")
    words = [str(folder / word) if word == "SCAN.h5" else word for word in words]
    assert main([*words, "--set", "network.fallback=none", "-q", "-o", str(folder / "images.h5")]) == 0
    return [series for _, series in read_images(folder / "images.h5")]


IMAGES = {"brats": ("t1c", "t1n", "t2f", "t2w"), "isles": ("adc", "dwi", "flair")}


@pytest.mark.parametrize("recipe", IMAGES)
def test_weights_for_images_run_by_the_command_that_is_printed(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    pytest.importorskip("highdicom")
    monkeypatch.chdir(tmp_path)
    options = untrained(read(RECIPES / f"{recipe}.yaml"), tmp_path / "my weights.safetensors", len(IMAGES[recipe]))
    segments(command(options), IMAGES[recipe], rng)


def segments(line: str, names: Sequence[str], rng: np.random.Generator) -> None:
    """Run a printed command on images of these names in the working directory; there are labels afterwards."""
    for name in names:
        pixels = rng.random((32, 32, 2), np.float32)
        nibabel.save(nibabel.Nifti1Image(pixels, np.diag([-1.0, -1.0, 3.0, 1.0])), f"{name}.nii.gz")
    python, _, program, *words = shlex.split(line)
    assert (python, program) == ("python", "gadgets")
    assert main([*words, "-q"]) == 0
    assert {nibabel.load(path).shape for path in Path("labels").glob("*.nii.gz")} == {(32, 32, 2)}


@pytest.mark.parametrize("recipe", sorted(cases().keys() - IMAGES.keys()))
def test_weights_of_a_recipe_run_by_the_command_that_is_printed(recipe: str, tmp_path: Path) -> None:
    options = untrained(read(RECIPES / f"{recipe}.yaml"), tmp_path / "my weights.safetensors")
    task = store.describe(options.network.name).task
    found = images(command(options), tmp_path, {"reconstruction": 1, "joint": 1}.get(task, CONTRASTS))
    assert sum(len(series) for series in found) == 2 * SERIES[task]
    assert all(np.isfinite(series).all() for series in found)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted(cases()))
def test_a_recipe_from_its_data_to_images_by_its_commands(
    recipe: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rng: np.random.Generator,
) -> None:
    """Check, two steps of the recipe's own network in its published size, and the command that this prints."""
    monkeypatch.chdir(tmp_path)
    case = cases()[recipe]
    case.write(tmp_path / "data", rng)
    tiny = [*case.overrides, "device=cpu", "precision=float32"]
    assert train(["check", "data", "--recipe", recipe, *tiny]) == 0
    assert "nothing is missing or malformed" in capsys.readouterr().out
    assert train(["fit", recipe, "data=data", *tiny, "steps=2", "workers=0", "batch=1", "validation.examples=1"]) == 0
    *_, wrote, line = capsys.readouterr().out.splitlines()
    assert wrote.startswith("wrote ")
    if recipe in IMAGES:
        segments(line, IMAGES[recipe], rng)
        return
    header = store.header(read(RECIPES / f"{recipe}.yaml").weights)
    echoes = CONTRASTS if case.task == "quantitative" else header["options"].get("contrasts", 1)
    found = images(line, tmp_path, echoes, max(header["preparation"]["coils"] or COILS, COILS))
    labels = header["labels"]
    segmentations = 1 if classes_of(labels) == "exclusive" else len(labels)
    expected = echoes + segmentations if labels else SERIES[case.task]
    assert sum(len(series) for series in found) == 2 * expected
    assert all(np.isfinite(series).all() for series in found)


@pytest.mark.parametrize("whiten", ["covariance", "periphery", "none"])
@pytest.mark.parametrize("sens", ["espirit", "rss", "unitary", "none"])
@pytest.mark.parametrize("coils", [None, 3])
def test_every_preparation_runs(whiten: str, sens: str, coils: int | None, tmp_path: Path) -> None:
    change = {"whiten": whiten, "sens": sens, "coils": coils}
    own = f"{{cascades: 1, channels: 2, pooling_layers: 1, sens_net: {sens == 'none'}}}"
    overrides = [f"preparation.{key}={'null' if value is None else value}" for key, value in change.items()]
    options = read(RECIPES / "ismrmrd.yaml", [*overrides, f"network.options={own}"])
    (series,) = images(command(untrained(options, tmp_path / "w.safetensors")), tmp_path, 1)
    assert series.any()


def test_two_stages_run(tmp_path: Path) -> None:
    first = untrained(read(RECIPES / "ahead.yaml"), tmp_path / "first.safetensors").weights
    second = read(RECIPES / "ahead_maps.yaml", [f"network.first={first}", "network.options={start: image}"])
    found = images(command(untrained(second, tmp_path / "second.safetensors")), tmp_path, CONTRASTS)
    assert sum(len(series) for series in found) == 2 * (CONTRASTS + SERIES["quantitative"])
