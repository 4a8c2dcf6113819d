"""Every recipe, for every network of its task: two epochs on a tiny data set of its layout, and images of a chain."""

from __future__ import annotations

import math
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
import torch

from gadgets.hosts.replay import replay
from gadgets.simulate import Settings, make_scan
from mrnets import store
from mrnets.contrasts import in_order
from mrnets.errors import InputError
from mrnets.mrd.files import write_scan
from tests.training.cases import cases
from training import loop
from training.batches import Batches
from training.options import read
from training.survey import problems
from training.tasks import opened

RECIPES = Path(loop.__file__).parent / "recipes"


CASES = cases()
OURS = ("simulated", "labelled", "pool", "freesurfer")
"""Readers of simulated scans."""
SIMULATED = sorted(path.stem for path in RECIPES.glob("*.yaml") if read(path).reader.name in OURS)
"""Recipes of our own, which need no data set in a published layout."""
NETWORKS = {
    task: [n for n in store.names() if store.describe(n).task == task and store.describe(n).learns]
    for task in ("reconstruction", "quantitative", "segmentation", "joint")
}
QUICK = {"reconstruction": "varnet", "quantitative": "qvarnet", "segmentation": "segunet", "joint": "segnet"}
"""One network of each task is tried with every recipe in the quick suite, the others in the slow one."""

CONTRASTS = {"brats": ("t1c", "t1", "flair", "t2"), "isles": ("adc", "dwi", "flair")}

CHAIN = """<configuration><version>2</version><readers/><writers/><stream><external>
<execute name="gadgets" target="pipeline" type="python"/><configuration><gadget name="noise"/><gadget name="sort"/>
{first}<gadget name="network"><property name="weights" value="{weights}"/><property name="fallback" value="none"/>
</gadget><gadget name="images"/></configuration></external></stream></configuration>"""


def test_every_recipe_is_tried() -> None:
    assert sorted(path.stem for path in RECIPES.glob("*.yaml")) == sorted([*CASES, *SIMULATED])


def pairs() -> list[Any]:
    return [
        pytest.param(recipe, name, marks=() if name == QUICK[case.task] else pytest.mark.slow)
        for recipe, case in CASES.items()
        for name in NETWORKS[case.task]
    ]


@pytest.mark.parametrize(("recipe", "name"), pairs())
def test_a_recipe_ends_in_images_of_a_chain(recipe: str, name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    case = CASES[recipe]
    case.write(tmp_path / "data", rng)
    options = {k: v for k, v in store.describe(name).small.items() if k != "coils"}
    if read(RECIPES / f"{recipe}.yaml").network.options.get("sens_net"):
        options |= {"sens_net": True, "sens_channels": 2, "sens_pooling_layers": 2}
    run = read(
        RECIPES / f"{recipe}.yaml",
        [
            *case.overrides,
            f"network.name={name}",
            f"network.options={plain(options)}",
            f"data={tmp_path / 'data'}",
            f"folder={tmp_path / 'run'}",
            f"weights={tmp_path / 'weights.safetensors'}",
            *("device=cpu", "precision=float32", "workers=0", "epochs=2", "validation.examples=2"),
        ],
    )
    loop.fit(run)
    header = store.header(tmp_path / "weights.safetensors")
    assert header["network"] == name
    assert all(math.isfinite(score) for score in header["provenance"]["scores"].values())
    assert in_order(header["provenance"]["contrasts"]) == CONTRASTS.get(recipe, ())
    for image in replayed(tmp_path, header, case.task):
        assert bool(np.isfinite(image.data).all())


def test_maps_in_two_stages(tmp_path: Path, rng: np.random.Generator) -> None:
    """A reconstruction network first; the quantitative one starts from its images, in training and in a chain."""
    CASES["ahead"].write(tmp_path / "data", rng)
    common = [f"data={tmp_path / 'data'}", "device=cpu", "precision=float32", "workers=0", "validation.examples=1"]
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    one = [
        "network.name=varnet",
        f"network.options={plain(store.describe('varnet').small)}",
        f"weights={first}",
        f"folder={tmp_path / '1'}",
        "epochs=1",
    ]
    loop.fit(read(RECIPES / "ahead.yaml", [*common, *one]))
    options = {**store.describe("qvarnet").small, "start": "image"}
    two = ["network.name=qvarnet", f"network.options={plain(options)}", f"weights={second}", f"folder={tmp_path / '2'}"]
    with pytest.raises(InputError, match="start='image' needs complex images"):
        loop.fit(read(RECIPES / "ahead_maps.yaml", [*common, *two, "epochs=1"]))
    loop.fit(read(RECIPES / "ahead_maps.yaml", [*common, *two, f"network.first={first}", "epochs=1"]))
    assert store.header(second)["provenance"]["options"]["network"]["first"] == "first.safetensors"
    with pytest.raises(InputError, match=r"second\.safetensors holds qvarnet, which makes no images"):
        loop.fit(read(RECIPES / "ahead_maps.yaml", [*common, *two, f"network.first={second}", f"folder={tmp_path}"]))
    scan = Settings(coils=4, matrix=32, echoes=4, acceleration=2, calibration=14, seed=3)
    write_scan(tmp_path / "scan.h5", *make_scan(scan)[:2])
    before = f'<gadget name="network"><property name="weights" value="{first}"/></gadget>'
    chain = CHAIN.format(first=before, weights=second)
    roles = {image.meta["GADGETRON_DataRole"] for image in images_of(tmp_path, chain)}
    assert roles == {"Image", "R2*", "S0", "B0", "phase"}


def test_the_masks_of_a_validation_are_the_same_wherever_the_data_lie(tmp_path: Path, rng: np.random.Generator) -> None:
    CASES["fastmri_brains"].write(tmp_path / "here", rng, 6)
    shutil.copytree(tmp_path / "here", tmp_path / "another disk" / "there")
    settings = ["device=cpu", "masks.names=[random1d]", "masks.accelerations=[3]", "masks.centres=[0.2]"]
    settings.append("reader.split={counts: [1, 5, 0]}")
    masks = []
    for folder in ("here", "another disk/there"):
        run = read(RECIPES / "fastmri_brains.yaml", [*settings, f"data={tmp_path / folder}"])
        batches = Batches(opened(run, "validation"), run, "validation", 1)
        masks.append(torch.cat([batches.example(n, "cpu").scan.mask for n in range(0, len(batches.source), 2)]))
    assert torch.equal(*masks)
    assert len(torch.unique(masks[0], dim=0)) > 1  # each volume has its own


@pytest.mark.parametrize("recipe", sorted(CASES))
def test_a_sound_data_set_has_no_problems_and_an_empty_one_has(
    recipe: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    case = CASES[recipe]
    (tmp_path / "empty").mkdir()
    case.write(tmp_path / "data", rng)
    tiny = [*case.overrides, "device=cpu", f"network.name={QUICK[case.task]}"]
    assert list(problems(read(RECIPES / f"{recipe}.yaml", [*tiny, f"data={tmp_path / 'data'}"]))) == []
    found = list(problems(read(RECIPES / f"{recipe}.yaml", [*tiny, f"data={tmp_path / 'empty'}"])))
    assert found
    assert str(tmp_path / "empty") in found[0]


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("ismrmrd", ["masks.accelerations=[3]", "masks.centres=[0.1]"]),  # ESPIRiT
        ("fastmri_brains", ["masks.accelerations=[4]", "masks.centres=[3]"]),  # the network's own sensitivities
    ],
)
def test_a_calibration_that_is_too_narrow_is_told_with_its_size(
    recipe: str, settings: list[str], tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    CASES[recipe].write(tmp_path / "data", rng)
    found = list(problems(read(RECIPES / f"{recipe}.yaml", [f"data={tmp_path / 'data'}", "device=cpu", *settings])))
    assert 1 <= len(found) <= 2  # a line of the pattern beside the centre can make that of one mask wide enough
    for sentence in found:
        assert re.search(
            r"(train|validation): .*slice \d: the fully sampled centre of k-space is [23] x \d+ samples", sentence
        )
        assert sentence.endswith("sensitivities need 4 along each axis; masks.centres must be wider")
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "looking at the files and a few slices",
        "looking at a slice for train, masked and prepared",
        "looking at a slice for validation, masked and prepared",
    ]


def plain(options: dict[str, Any]) -> str:
    """As YAML in one line."""
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    return str(values).replace("True", "true").replace("False", "false")


def replayed(folder: Path, header: dict[str, Any], task: str) -> list[ismrmrd.Image]:
    """The images that a chain with the trained weights makes of a simulated scan: a series for each thing asked for."""
    preparation, bound = header["preparation"], header["options"]
    echoes = 4 if task == "quantitative" else bound.get("contrasts", 1)
    coils = max(preparation["coils"] or 4, 4)
    scan = Settings(coils=coils, matrix=32, slices=2, echoes=echoes, acceleration=2, calibration=14, seed=3)
    write_scan(folder / "scan.h5", *make_scan(scan)[:2])
    first = '<gadget name="network"><property name="name" value="cgsense"/></gadget>' if task == "segmentation" else ""
    images = images_of(folder, CHAIN.format(first=first, weights=folder / "weights.safetensors"))
    roles = {image.meta["GADGETRON_DataRole"] for image in images}
    expected = {"quantitative": {"R2*", "S0", "B0", "phase"}, "reconstruction": {"Image"}}
    assert roles == expected.get(task, {"Image", "Segmentation"})
    return images


def images_of(folder: Path, chain: str) -> list[ismrmrd.Image]:
    """Images that a chain makes of `scan.h5`."""
    (folder / "chain.xml").write_text(chain, encoding="utf-8")
    replay(folder / "scan.h5", folder / "images.h5", str(folder / "chain.xml"))
    images = []
    with ismrmrd.Dataset(str(folder / "images.h5"), mode="r") as data:
        for group in data.list():
            if group.startswith("image"):
                images += [data.read_image(group, n) for n in range(data.number_of_images(group))]
    return images


def printed() -> list[Any]:
    """Lines of settings in the comments of recipes: what else the paper, its repository or a user may want."""
    found = []
    for path in sorted(RECIPES.glob("*.yaml")):
        for line in path.read_text(encoding="utf-8").splitlines():
            words = shlex.split(line[4:], comments=True) if line.startswith("#   ") else []
            if words and "=" in words[0]:
                found.append(pytest.param(path, words, id=f"{path.stem}: {' '.join(words)}"))
    return found


@pytest.mark.parametrize(("path", "settings"), printed())
def test_settings_that_a_recipe_s_comment_prints_are_options(path: Path, settings: list[str]) -> None:
    assert read(path, settings) != read(path)
