"""Images with label maps: a folder of small NIfTI files for each subject."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from mrnets import store
from mrnets.errors import InputError
from mrnets.physics.coils import rss
from mrnets.preparation import Preparation
from training import loop
from training.data import Place, Sample, Slices, bind
from training.options import Loss, Network, Options, Reader, Validation
from training.readers import labelled
from training.readers.anatomy import seen
from training.settings import Simulated
from training.split import Split

SHAPE = (10, 12, 14)  # x, y, z
SIMULATED = Simulated(matrix=(32, 40), coils=(4, 4), acceleration=(2, 2), calibration=(10, 12), masks=("equispaced1d",))
SPLIT = Split(validation=("b",))


def subject(folder: Path, values: np.ndarray, **images: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(values.astype(np.uint8), affine), folder / "seg_of_FLAIR.nii.gz")
    for name, image in images.items():
        nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), affine), folder / f"{name}_to_FLAIR.nii")


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    for name in ("a", "b"):
        image = 50 + rng.random(SHAPE)
        image[..., :3] = 0  # three slices without anatomy
        values = np.zeros(SHAPE)
        values[4, 5, 6:10], values[2, 3, 6] = 1, 2  # labels in four slices across z
        subject(tmp_path / name, values, FLAIR=image, T1=image[::-1])
    return tmp_path


def test_slices_with_labels(folder: Path) -> None:
    options: dict[str, Any] = {"contrasts": ["FLAIR*", "T1*"], "label_map": "seg*"}
    reader = bind("labelled", {**options, "classes": {"lesion": [1, 2], "core": 2}})
    source = reader.read(folder, "train", SPLIT)
    assert source.labels == ("lesion", "core")
    assert source.subjects == ("a",)
    assert len(source) == SHAPE[2] - 3
    sample = source.take([6 - 3], np.random.default_rng(0))
    assert sample.names == ("a z 6",)
    image, labels = sample.image, sample.labels
    assert image is not None
    assert labels is not None
    assert image.shape == (1, 2, 12, 10)
    torch.testing.assert_close(image[0, 1], image[0, 0].flip(-1))
    assert labels.dtype == torch.bool
    assert [tuple(where) for where in labels[0].nonzero().tolist()] == [(0, 3, 2), (0, 5, 4), (1, 3, 2)]


def test_neighbouring_slices(folder: Path) -> None:
    source = labelled.Reader(label_map="seg*", classes={"lesion": [1, 2]}, slices=3).read(folder, "train", SPLIT)
    last = source.take([len(source) - 1], np.random.default_rng(0))
    assert last.image is not None
    assert last.image.shape == (1, 1, 3, 12, 10)
    torch.testing.assert_close(last.image[:, :, 1], last.image[:, :, 2])  # beyond the edge comes the edge
    assert not torch.equal(last.image[:, :, 0], last.image[:, :, 1])


@pytest.mark.parametrize(("empty", "count"), [(1.0, 11), (0.5, 4 + 3), (0.0, 4)])
def test_slices_without_labels_are_left_out_in_training_only(folder: Path, empty: float, count: int) -> None:
    options: dict[str, Any] = {"label_map": "seg*", "classes": {"background": [0], "lesion": [1, 2]}, "empty": empty}
    assert len(labelled.Reader(**options).read(folder, "train", SPLIT)) == count
    assert len(labelled.Reader(**options).read(folder, "validation", SPLIT)) == 11


def test_slices_across_all_axes(folder: Path) -> None:
    source = labelled.Reader(label_map="seg*", classes={"x": [1, 2]}, axes=("x", "z")).read(folder, "train", SPLIT)
    assert len(source) == SHAPE[0] + SHAPE[2] - 3
    first, last = (source.take([n], np.random.default_rng(0)) for n in (0, len(source) - 1))
    assert (first.names, last.names) == (("a x 0",), ("a z 13",))
    assert first.image is not None
    assert first.image.shape == (1, 1, 14, 12)


def test_what_is_wrong_is_said(folder: Path) -> None:
    grid = nibabel.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4))
    for name in ("c", "d"):
        subject(folder / name, np.zeros(SHAPE), FLAIR=np.ones(SHAPE))
    nibabel.save(grid, folder / "c" / "FLAIR_to_FLAIR.nii")
    nibabel.save(grid, folder / "d" / "FLAIR_again.nii")
    found = list(labelled.Reader(label_map="seg*").check(folder, SPLIT))
    assert "grid of seg_of_FLAIR.nii.gz" in found[0]
    assert "expected one NIfTI file FLAIR*, found 2" in found[1]
    assert "values of no class (2)" in found[2]
    with pytest.raises(InputError, match=r"values of no class \(2\)"):
        labelled.Reader(label_map="seg*").read(folder, "train", Split(validation=("b", "c", "d")))
    with pytest.raises(InputError, match="each value belongs to one class"):
        labelled.Reader(classes={"background": [0], "lesion": [0, 1]}).read(folder, "train", SPLIT)
    with pytest.raises(InputError, match="one contrast"):
        labelled.Reader(contrasts=("FLAIR*", "T1*"), scans=True).read(folder, "train", SPLIT)


def square() -> tuple[np.ndarray, labelled.Layout]:
    """An off-centre rectangle that is bright and labelled, (z, y, x)."""
    values = np.zeros((3, 40, 40))
    values[:, 10:30, 8:20] = 1
    return values, labelled.Layout(("FLAIR*",), "seg*", {"background": (0,), "box": (1,)}, ("z",), 1)


def drawn(folder: Path, *, scans: bool) -> labelled.Drawn:
    values, layout = square()
    subject(folder, values.T, FLAIR=values.T)

    def load(place: Place) -> Sample:
        planes = torch.from_numpy(values[place.index])
        return Sample(
            names=("box",), image=planes[None, None].float(), labels=torch.stack([planes < 1, planes > 0])[None]
        )

    slices = Slices((Place(str(folder), 1, "box"),), load, ("background", "box"))
    return labelled.Drawn(slices, layout, labelled.Reader(settings=SIMULATED, scans=scans), vary=False)


def test_labels_move_with_the_image(tmp_path: Path, rng: np.random.Generator) -> None:
    source = drawn(tmp_path, scans=False)
    for _ in range(4):
        sample = source.take([0], rng)
        assert sample.image is not None
        assert sample.labels is not None
        assert torch.equal(sample.labels.sum(1), torch.ones_like(sample.labels[:, 0], dtype=torch.int64))
        assert 20 < sample.labels[0, 1].sum() < sample.labels[0, 1].numel() - 20
        assert torch.equal(sample.labels[0, 1], sample.image[0, 0] > 0.5)


def test_labels_lie_on_the_grid_of_the_scan(tmp_path: Path, rng: np.random.Generator) -> None:
    source = drawn(tmp_path, scans=True)
    for _ in range(4):
        sample = source.take([0], rng)
        assert sample.raw is not None
        assert sample.labels is not None
        assert sample.labels.shape[-2:] == sample.raw.kspace.shape[-2:]
        image = rss(sample.coil_images[0, 0])
        box = sample.labels[0, 1]
        inside = image[box].median()
        overlap = ((image > 0.5 * inside) & box).sum() / ((image > 0.5 * inside) | box).sum()
        assert overlap > 0.85


def test_the_grid_of_cropped_kspace() -> None:
    """Pixel n // 2 of the fine and of the coarse grid is the same point, and distances grow as the pixels do."""
    ramp = torch.arange(24.0).expand(24, 24)[None]
    view = np.array([[0.5, 0.0, 0.1], [0.0, 0.5, -0.05]])
    fine, coarse = seen(ramp, view, (27, 30)), seen(ramp, view, (20, 20), (27, 30))
    torch.testing.assert_close(coarse[0, 10, 10], fine[0, 13, 15])
    torch.testing.assert_close(coarse[0, 10, 12] - coarse[0, 10, 10], 1.5 * (fine[0, 13, 17] - fine[0, 13, 15]))


def test_training_slices_vary_and_validation_does_not(folder: Path) -> None:
    options: dict[str, Any] = {"label_map": "seg*", "classes": {"lesion": [1, 2]}, "drawn": True, "scalp": 1.0}
    train = labelled.Reader(settings=SIMULATED, **options).read(folder, "train", SPLIT)
    one, same, other = (train.take([5], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.image is not None
    assert one.image.shape[-1] in SIMULATED.matrix
    assert torch.equal(one.image, torch.as_tensor(same.image))
    assert torch.isfinite(one.image).all()
    assert one.image.shape != torch.as_tensor(other.image).shape or not torch.equal(
        one.image, torch.as_tensor(other.image)
    )
    validation = labelled.Reader(settings=SIMULATED, **options).read(folder, "validation", SPLIT)
    assert isinstance(validation, Slices)


def test_the_companion_weights_and_is_not_given(folder: Path) -> None:
    options: dict[str, Any] = {"label_map": "seg*", "classes": {"lesion": [1, 2]}, "drawn": True}
    plain, weighted = (
        labelled.Reader(settings=SIMULATED, companion=companion, **options)
        .read(folder, "train", SPLIT)
        .take([4], seeded())
        for companion in ("", "T1*")
    )
    assert plain.image is not None
    assert weighted.image is not None
    assert plain.image.shape == weighted.image.shape
    assert not torch.allclose(plain.image, weighted.image)
    held = labelled.Reader(companion="T1*", **options).read(folder, "validation", SPLIT).take([4], seeded())
    assert held.image is not None
    assert held.image.shape[1] == 1


@pytest.mark.parametrize(("network", "scans"), [("segunet", False), ("idslr", True)])
def test_networks_train_on_it(folder: Path, network: str, *, scans: bool) -> None:
    options = Options(
        network=Network(name=network, options={"channels": 2, "pooling_layers": 1}),
        weights=str(folder / "weights.safetensors"),
        folder=str(folder / "run"),
        data=str(folder),
        reader=Reader(
            name="labelled",
            options={
                "label_map": "seg*",
                "classes": {"background": [0], "lesion": [1, 2]},
                "drawn": True,
                "scans": scans,
            },
            split=SPLIT,
        ),
        preparation=Preparation(coils=4 if scans else None),
        simulated=SIMULATED,
        loss=Loss(l1=0.5 if scans else 0.0, dice=0.5),
        validation=Validation(every=2, examples=2),
        steps=2,
        workers=0,
    )
    trained = store.load(loop.fit(options))
    assert trained.name == network


def seeded() -> np.random.Generator:
    return np.random.default_rng(7)
