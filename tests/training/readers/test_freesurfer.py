"""Slices of random contrast from FreeSurfer's label maps: a head of spheres, whose labels are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from mrnets.errors import InputError
from training.data import Preparing, Sample, bind
from training.options import read
from training.readers import freesurfer
from training.readers._heads import head_of as head_of_file
from training.readers._heads import heads_of
from training.readers.freesurfer import CLASSES, class_of
from training.settings import Simulated
from training.split import Split

SIZE = 40
SIMULATED = Simulated(
    matrix=(32, 40), examples=7, coils=(4, 4), acceleration=(2, 2), calibration=(10, 12), masks=("equispaced1d",)
)
SPLIT = Split(validation=("b",))
RECIPES = Path(freesurfer.__file__).parents[1] / "recipes"
STEADY = {"bend": 0.0, "shading": [0.0, 0.0], "noise": [0.0, 0.0], "blur": [0.0, 0.0], "view": [160.0, 160.0]}


def head_of(labels: tuple[int, ...] = (515, 24, 3, 2)) -> np.ndarray:
    """Spheres in each other, from the outermost one."""
    grid = np.indices((SIZE,) * 3) - SIZE // 2
    distance = np.sqrt((grid**2).sum(axis=0))
    volume = np.zeros((SIZE,) * 3, np.int32)
    for label, radius in zip(labels, (18, 16, 13, 9), strict=True):
        volume[distance < radius] = label
    return volume


def write(path: Path, volume: np.ndarray, spacing: float = 4.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-spacing, spacing, spacing, 1.0])
    kind = nibabel.MGHImage if path.suffix == ".mgz" else nibabel.Nifti1Image
    nibabel.save(kind(volume.astype(np.float32 if volume.dtype.kind == "f" else np.int32), affine), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "a.nii.gz", head_of())
    write(tmp_path / "more" / "b.mgz", head_of())
    return tmp_path


def source(folder: Path, part: Any = "train", **options: Any) -> Any:
    scans = options.pop("scans", False)
    return bind("freesurfer", {"look": options, "scans": scans}, settings=SIMULATED).read(folder, part, SPLIT)


def taken(folder: Path, seed: int = 0, **options: Any) -> Sample:
    sample: Sample = source(folder, **options).take([0, 1, 2], np.random.default_rng(seed))
    return sample


@pytest.mark.parametrize(
    ("value", "name"),
    [
        *((v, "csf") for v in (4, 24, 43, 63)),
        *((v, "grey") for v in (3, 10, 13, 49, 17, 1007, 2035)),
        *((v, "white") for v in (2, 41, 16, 77, 251, 3014, 5001)),
        *((v, "background") for v in (0, 515, 165, 999, 14175)),
    ],
)
def test_classes_are_those_of_freesurfer_s_table(value: int, name: str) -> None:
    assert CLASSES[class_of(value)] == name


def test_parts_and_subjects(folder: Path) -> None:
    assert source(folder).subjects == ("a",)
    assert source(folder, "validation").subjects == ("more/b",)
    assert len(source(folder)) == SIMULATED.examples
    assert source(folder).labels == ("background", "csf", "grey", "white")


def test_a_slice_has_an_image_and_one_class_for_each_pixel(folder: Path) -> None:
    sample = taken(folder)
    image, labels = sample.image, sample.labels
    assert image is not None
    assert labels is not None
    assert image.shape[:2] == (3, 1)
    assert image.shape[-1] in SIMULATED.matrix
    assert image.shape[-2] in SIMULATED.matrix
    assert image.dtype == torch.float32
    assert bool(torch.isfinite(image).all())
    assert bool((labels.sum(dim=1) == 1).all())
    assert bool(labels.any(dim=(0, 2, 3)).all())  # each class is somewhere


def test_what_a_slice_shows_follows_from_the_generator(folder: Path) -> None:
    first, again, other = (taken(folder, seed).image for seed in (5, 5, 6))
    assert first is not None
    assert again is not None
    assert torch.equal(first, again)
    assert other is not None
    assert other.shape != first.shape or not torch.equal(other, first)


@pytest.mark.parametrize("seed", range(4))
def test_t1_weighting_has_white_above_grey_above_csf(folder: Path, seed: int) -> None:
    sample = taken(folder, seed, t1=1.0, stripped=1.0, thickness=[1.0, 1.0], **STEADY)
    assert sample.image is not None
    assert sample.labels is not None
    image, labels = sample.image[0, 0], sample.labels[0]
    means = [float(image[plane].median()) for plane in labels if bool(plane.any())]
    assert means == sorted(means)


def test_contrasts_are_of_any_order(folder: Path) -> None:
    whiter = set()
    for seed in range(12):
        sample = taken(folder, seed, t1=0.0, **STEADY)
        assert sample.image is not None
        assert sample.labels is not None
        image, labels = sample.image[0, 0], sample.labels[0]
        if bool(labels[2].any()) and bool(labels[3].any()):
            whiter.add(bool(image[labels[3]].median() > image[labels[2]].median()))
    assert whiter == {True, False}


def test_a_stripped_brain_has_no_scalp(folder: Path) -> None:
    for stripped, bright in ((1.0, 0.15), (0.0, 0.3)):
        found = []
        for seed in range(8):
            sample = taken(folder, seed, stripped=stripped, **STEADY)
            assert sample.image is not None
            assert sample.labels is not None
            near = torch.nn.functional.max_pool2d((~sample.labels[:, 0]).float()[:, None], 5, 1, 2) > 0
            found.append(float(sample.image[~near].max()) / float(sample.image.max()))
        assert max(found) < bright if stripped else max(found) > bright


@pytest.mark.parametrize("seed", range(4))
def test_labels_lie_where_the_image_shows_them(folder: Path, seed: int) -> None:
    """The image is most like the picture that labels and mean intensities make where both are not shifted."""
    sample = taken(folder, seed, t1=1.0, stripped=1.0, **STEADY)
    assert sample.image is not None
    assert sample.labels is not None
    image, labels = sample.image[0, 0], sample.labels[0].float()
    means = (labels * image).sum((1, 2)) / labels.sum((1, 2)).clamp(min=1)
    drawn = (labels * means[:, None, None]).sum(0)

    def unlike(down: int, right: int) -> float:
        return float((drawn.roll((down, right), (0, 1)) - image).square().sum())

    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    assert min(shifts, key=lambda shift: unlike(*shift)) == (0, 0)
    for pair in (((-1, 0), (1, 0)), ((0, -1), (0, 1))):
        less, more = sorted(unlike(*shift) for shift in pair)
        assert more < 1.5 * less  # no half of a pixel either


def test_scans_for_joint_networks(folder: Path) -> None:
    sample = taken(folder, scans=True)
    assert sample.raw is not None
    assert sample.labels is not None
    assert sample.coil_images is not None
    assert sample.raw.kspace.shape[:3] == (3, 1, 4)
    assert sample.raw.kspace.shape[-2:] == sample.labels.shape[-2:]
    anatomy = sample.coil_images[0, 0].abs().square().sum(0).sqrt()
    white = anatomy[sample.labels[0, 3]]
    assert white.numel() == 0 or float(white.mean()) > 0


@pytest.mark.parametrize(
    ("volume", "sentence"),
    [
        (head_of() + 0.5, "whole numbers"),
        (np.full((SIZE,) * 3, np.nan), "whole numbers"),
        (head_of() - 1, "from 0 to"),
        (head_of((515, 515, 515, 515)), "of the brain"),
        (np.arange(SIZE**3).reshape((SIZE,) * 3) % 300, "256 labels"),
    ],
)
def test_files_that_are_no_label_maps_are_named(folder: Path, volume: np.ndarray, sentence: str) -> None:
    write(folder / "c.nii", volume)
    with pytest.raises(InputError, match=r"c\.nii.*" + sentence):
        bind("freesurfer", {}, settings=SIMULATED).read(folder, "train", Split(test=("a", "b"))).take(
            [0], np.random.default_rng(0)
        )
    assert [text for text in bind("freesurfer", {}).check(folder, Split()) if sentence in text]


@pytest.mark.parametrize(
    ("look", "sentence"),
    [
        ({"view": [0.0, 200.0]}, r"look\.view must be \(least, largest\) from 1 on"),
        ({"noise": [0.1, 0.0]}, r"look\.noise must be"),
        ({"margin": [5.0, 4.0]}, r"look\.margin must be"),
        ({"t1": 1.1}, r"look\.t1 must be from 0 to 1, got 1\.1"),
        ({"tilt": -1.0}, r"look\.tilt must be from 0 to 90"),
    ],
)
def test_a_look_that_cannot_be_is_refused(folder: Path, look: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        source(folder, **look)
    assert len(list(bind("freesurfer", {"look": look}).check(folder, Split()))) == 1


def test_a_folder_without_label_maps(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no files"):
        source(tmp_path)
    assert any("no files" in text for text in bind("freesurfer", {}).check(tmp_path, Split()))


def test_the_recipe_of_tissue_reads_label_maps(folder: Path) -> None:
    recipe = read(RECIPES / "tissue.yaml")
    assert recipe.reader.name == "freesurfer"
    reader = bind(recipe.reader.name, recipe.reader.options, settings=SIMULATED)
    assert len(reader.read(folder, "train", SPLIT)) == SIMULATED.examples


def test_training_batches_are_drawn_and_prepared_on_the_device(folder: Path) -> None:
    drawn = source(folder, stripped=0.0)
    first, again, other = (drawn.prepared(n, 3, 7, torch.device("cpu")) for n in (4, 4, 5))
    assert first.scan.image is not None
    assert torch.equal(first.scan.image, again.scan.image)
    assert first.scan.image.shape != other.scan.image.shape or not torch.equal(first.scan.image, other.scan.image)
    assert first.scan.image.shape[:2] == (3, 1)
    assert first.labels.shape == (3, 4, *first.scan.image.shape[-2:])
    assert torch.allclose(first.scan.image.amax((1, 2, 3)), torch.ones(3))
    assert first.names == ("a", "a", "a")


def test_scans_are_not_prepared_on_the_device(folder: Path) -> None:
    assert isinstance(source(folder), Preparing)
    assert not isinstance(source(folder, scans=True), Preparing)


def test_parcels_are_cortex_and_white_matter(folder: Path) -> None:
    write(folder / "c.nii", head_of((515, 24, 1007, 4021)))
    assert set(np.unique(head_of_file(folder / "c.nii").labels)) == {0, 515, 24, 3, 41}


def test_white_matter_branches_in_cerebellar_cortex(folder: Path) -> None:
    """Both labels are grey matter; in T1-weighting, one has bright lines."""

    def varies(cortex: int) -> float:
        write(folder / "a.nii.gz", head_of((515, 24, cortex, 2)))
        heads_of.cache_clear()
        found = []
        for seed in range(6):
            sample = taken(folder, seed, t1=1.0, stripped=1.0, thickness=[1.0, 1.0], **STEADY)
            assert sample.image is not None
            assert sample.labels is not None
            inside = 1 - torch.nn.functional.max_pool2d((~sample.labels[:, 2]).float()[:, None], 3, 1, 1)[:, 0]
            pixels = [image[where > 0] for image, where in zip(sample.image[:, 0], inside, strict=True)]
            found += [float(one.std() / one.mean()) for one in pixels if len(one) > 20]
        return float(np.median(found))

    assert varies(8) > 1.2 * varies(3)


def test_heads_of_several_sizes_and_spacings_keep_their_places(folder: Path) -> None:
    """Slices of a brain that is sampled twice as finely are as large as those of the other."""
    fine = head_of().repeat(2, 0).repeat(2, 1).repeat(2, 2)
    write(folder / "z.nii", fine, spacing=2.0)
    sizes: dict[str, list[float]] = {"a": [], "z": []}
    for seed in range(12):
        sample = taken(folder, seed, thickness=[1.0, 1.0], tilt=0.0, **STEADY)
        assert sample.labels is not None
        for name, labels in zip(sample.names, sample.labels, strict=True):
            sizes[name].append(float((~labels[0]).float().mean()))
    assert max(sizes["a"]) == pytest.approx(max(sizes["z"]), rel=0.15)


def test_of_very_many_label_maps_some_are_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "cdef":
        write(folder / f"{name}.nii", head_of())
    monkeypatch.setattr(freesurfer, "MAX_HEADS", 2)
    assert source(folder).subjects == ("a", "d")
    assert "5 label maps for train, of which 2 are used" in caplog.text
