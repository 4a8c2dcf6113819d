"""Label maps of tissue: the mixture and the atlas on heads whose classes are known, and the command on small files."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from mrnets.errors import InputError
from training import tissue
from training.__main__ import main
from training.data import bind
from training.split import Split

FILES = {
    "contrasts": ["T1*"],
    "label_map": "tissue*",
    "classes": {"background": [0], "csf": [1], "grey": [2], "white": [3]},
    "axes": ["z", "y", "x"],
}
"""Options of the reader `labelled` for the data set that the command makes."""
MEANS = np.array([[0.3, 1.0, 0.1], [0.7, 0.6, 0.9], [1.0, 0.5, 0.7]])  # (class, contrast)
AFFINE = np.diag([-1.0, 1.0, 1.0, 1.0]) + np.array([[0, 0, 0, 9.0], [0, 0, 0, -9.0], [0, 0, 0, -9.0], [0, 0, 0, 0]])
SHAPE = (18, 19, 20)  # z, y, x
RADII = (8.0, 7.5, 6.5)  # x, y, z; mm


def head(radii: tuple[float, ...], centre: tuple[float, ...] = (0, 0, 0), folds: float = 0.0) -> NDArray[np.uint8]:
    """Labels (z, y, x) of shells around white matter; `folds`: how far their borders move in and out."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)[..., ::-1]
    mm = index @ AFFINE[:3, :3].T + AFFINE[:3, 3] - centre
    away = np.linalg.norm(mm / radii, axis=-1)
    moved = away + folds * np.sin(mm).prod(axis=-1) * (away < 1)
    return np.select([moved < 0.6, moved < 0.85, away < 1], [3, 2, 1], 0).astype(np.uint8)


def scanned(labels: NDArray[np.uint8], rng: np.random.Generator, noise: float = 0.06) -> NDArray[np.float32]:
    """T1, T2 and FLAIR (contrast, z, y, x) of a head without its scalp."""
    clean = np.concatenate([np.zeros((1, 3)), MEANS])[labels]
    return np.moveaxis((clean + noise * rng.standard_normal(clean.shape)) * (labels > 0)[..., None], -1, 0)


def planes(labels: NDArray[np.uint8], sigma: float) -> NDArray[np.float64]:
    """Probabilities (class, z, y, x)."""
    return np.stack([ndimage.gaussian_filter((labels == k).astype(float), sigma) for k in (1, 2, 3)])


def dice(found: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    both = [(2 * np.sum((found == k) & (truth == k)), np.sum(found == k) + np.sum(truth == k)) for k in (1, 2, 3)]
    return np.array([twice / max(total, 1) for twice, total in both])


def atlas() -> tissue.Atlas:
    """Upright, a third larger than the heads, elsewhere, and without their folds."""
    labels = head((9.2, 9.0, 8.3), (0.5, -0.5, 0.5))
    _, grey, white = planes(labels, 0.7).astype(np.float32)
    return tissue.Atlas(scanned(labels, np.random.default_rng(1), 0)[0].astype(np.float32), grey, white, AFFINE)


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two subjects, p1 and p2, with a dark lesion in white matter."""
    for name in ("p1", "p2"):
        labels = head(RADII, folds=0.4)
        images, lesions = scanned(labels, rng), np.zeros(SHAPE, np.uint8)
        lesions[8:10, 9, 9:11] = 1
        images[:, lesions > 0] = MEANS[0][:, None]
        save(tmp_path / "in" / name, T1_x=images[0], T2_x=images[1], FLAIR_x=images[2], GOLD_STANDARD_x=lesions)
    monkeypatch.setattr(tissue, "icbm152", atlas)
    monkeypatch.setattr(tissue, "BLUR", 0.7)
    monkeypatch.setattr(tissue, "ROUNDS", 1)
    return tmp_path / "in"


def save(folder: Path, affine: NDArray[np.float64] = AFFINE, **volumes: NDArray[np.float64]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, volume in volumes.items():
        kept = volume if volume.dtype == np.uint8 else volume.astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(kept.T, affine), folder / f"{name}.nii.gz")


def loaded(path: Path) -> NDArray[np.float32]:
    return np.asarray(nibabel.load(path).dataobj).T


def test_the_mixture_corrects_what_the_priors_get_wrong(rng: np.random.Generator) -> None:
    truth = head(RADII, folds=0.4)
    priors = 0.97 * planes(head(RADII, (1, -1, 0.5)), 1.5) + 0.01
    before = np.where(truth > 0, 1 + priors.argmax(axis=0), 0)
    found = tissue.segment(scanned(truth, rng), priors, truth > 0)
    assert found.dtype == np.uint8
    assert dice(before, truth).max() < 0.9
    assert dice(found, truth).min() > 0.95
    np.testing.assert_array_equal(found == 0, truth == 0)


def test_scale_and_correlated_noise_change_nothing(rng: np.random.Generator) -> None:
    """Full covariances: noise that two contrasts share is told from tissue, whatever their units."""
    truth = head(RADII, folds=0.4)
    images = scanned(truth, rng, 0.03) + 0.5 * rng.standard_normal(SHAPE) * np.array([1, 1, 0])[:, None, None, None]
    priors = 0.97 * planes(head(RADII), 1.5) + 0.01
    found = tissue.segment(images, priors, truth > 0)
    assert dice(found, truth).min() > 0.95
    scales = np.array([1e3, 1e-3, 50])[:, None, None, None]
    np.testing.assert_array_equal(found, tissue.segment(scales * images, 7 * priors, truth > 0))


@pytest.mark.parametrize("prior", [0.0, 1e-12, 0.01])
def test_a_class_without_voxels(rng: np.random.Generator, prior: float) -> None:
    truth = head(RADII, folds=0.4)
    truth[truth == 1] = 2
    priors = 0.97 * planes(head(RADII), 1.5) + 0.01
    priors[1] += priors[0]
    priors[0] = prior
    found = tissue.segment(scanned(truth, rng), priors, truth > 0)
    assert np.mean(found == 1) < 0.01
    assert dice(found, truth)[1:].min() > 0.95


@pytest.mark.parametrize("level", [0.0, 0.5, 1 / 3, 1e4])
@pytest.mark.parametrize("bits", [0.0, 1e-8])
def test_images_without_noise_or_without_contrast(rng: np.random.Generator, level: float, bits: float) -> None:
    """The last bits of an image without contrast decide nothing, so that every processor finds the same."""
    truth = head(RADII, folds=0.4)
    images = scanned(truth, rng, 0)
    images[1] = level * (1 + bits * (np.arange(SHAPE[2]) > 9))  # left and right differ
    priors = 0.97 * planes(head(RADII), 0.8) + 0.01
    assert dice(tissue.segment(images, priors, truth > 0), truth).min() > 0.95
    assert set(np.unique(tissue.segment(0 * images, priors, truth > 0))) == {0, 1, 2, 3}  # as the priors say


def test_neighbours_decide_where_a_voxel_cannot() -> None:
    logarithms, mask = np.log(np.full((2, 125), 0.5)), np.ones((5, 5, 5), bool)
    logarithms[0] += 2
    logarithms[1, 62] += 2.5  # barely of the other class
    assert logarithms[:, 62].argmax() == 1
    assert tissue._coupled(logarithms, mask).argmax(axis=0).max() == 0
    logarithms[1, 62] += 4
    assert tissue._coupled(logarithms, mask).argmax(axis=0)[62] == 1


def test_the_atlas_at_places(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tissue, "BLUR", 0.0)
    grey, white = rng.random((2, 4, 5, 6)) / 2
    known = tissue.Atlas(grey, grey, white, AFFINE)
    places = np.array([[9 - 5, -9 + 2, -9 + 1], [9 - 0, -9 + 4, -9 + 3], [50, 50, 50]])  # mm of x, y, z; x is flipped
    found = known.priors(places)
    np.testing.assert_allclose(found.sum(axis=0), 1)
    np.testing.assert_allclose(found[1, :2], 0.01 + 0.97 * np.array([grey[1, 2, 5], grey[3, 4, 0]]))
    np.testing.assert_allclose(found[:, 2], [0.98, 0.01, 0.01])  # beyond the atlas


def test_the_atlas_is_aligned(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tissue, "BLUR", 0.7)
    truth = head(RADII, (-1, 0.5, 1))
    truth[:7] = 0  # the scan ends below: moments of the brain mislead
    found = tissue.aligned(atlas(), scanned(truth, rng).astype(np.float32), truth > 0, AFFINE)
    np.testing.assert_allclose(found.sum(axis=0), truth > 0, atol=1e-5)
    places = np.argwhere(truth > 0)[:, ::-1] @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    before = np.zeros_like(truth)
    before[truth > 0] = 1 + atlas().priors(places).argmax(axis=0)
    assert dice(before, truth).mean() < 0.75
    assert dice(np.where(truth > 0, 1 + found.argmax(axis=0), 0), truth).mean() > 0.9


def test_the_command_makes_a_data_set(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "data"
    assert main(["tissue", str(folder), "-o", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["p1", "p2", "icbm152"]
    assert all(word in lines[0] for word in ("csf ", "grey ", "white ", " mL"))
    assert sorted(path.name for path in output.glob("*.png")) == ["icbm152.png", "p1.png", "p2.png"]
    labels, truth = loaded(output / "p1" / "tissue.nii.gz"), head(RADII, folds=0.4)
    assert dice(labels, truth).min() > 0.93
    assert (labels[8:10, 9, 9:11] == 3).all()  # the lesion, as dark as CSF
    np.testing.assert_array_equal(loaded(output / "p1" / "T1.nii.gz"), loaded(folder / "p1" / "T1_x.nii.gz"))
    split = Split(validation=("p2",))
    for part, subjects in (("train", ("icbm152", "p1")), ("validation", ("p2",))):
        source = bind("labelled", FILES).read(output, part, split)
        assert source.subjects == subjects
        assert source.labels == ("background", *tissue.CLASSES)
    assert list(bind("labelled", FILES).check(output, split)) == []


def test_a_voxel_that_one_image_lacks_is_background(folder: Path, tmp_path: Path) -> None:
    images = loaded(folder / "p2" / "T2_x.nii.gz").copy()
    images[9, 9, 4:7] = 0
    save(folder / "p2", T2_x=images)
    tissue.prepare(folder, tmp_path / "data")
    labels = loaded(tmp_path / "data" / "p2" / "tissue.nii.gz")
    assert (labels[9, 9, 4:7] == 0).all()
    assert labels[9, 9, 9] > 0


def _without(folder: Path) -> None:
    (folder / "FLAIR_x.nii.gz").unlink()


def _twice(folder: Path) -> None:
    save(folder, T1_again=np.ones(SHAPE))


def _other_shape(folder: Path) -> None:
    save(folder, T2_x=np.ones((3, 4, 5)))


def _other_affine(folder: Path) -> None:
    save(folder, np.eye(4), GOLD_STANDARD_x=np.zeros(SHAPE))


def _no_nifti(folder: Path) -> None:
    (folder / "T1_x.nii.gz").write_text("not a volume", encoding="utf-8")


def _nan(folder: Path) -> None:
    save(folder, FLAIR_x=np.full(SHAPE, np.nan))


def _empty(folder: Path) -> None:
    save(folder, T1_x=np.zeros(SHAPE))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_without, "p2: expected one NIfTI file FLAIR*, found 0 (none)"),
        (_twice, "p2: expected one NIfTI file T1*, found 2 (T1_again.nii.gz, T1_x.nii.gz)"),
        (_other_shape, "T2_x.nii.gz: expected the grid of T1_x.nii.gz, (20, 19, 18), got (5, 4, 3)"),
        (_other_affine, "GOLD_STANDARD_x.nii.gz: expected the affine of T1_x.nii.gz, got another"),
        (_no_nifti, "T1_x.nii.gz: cannot be read; it is cut short, corrupt or not NIfTI"),
        (_nan, "FLAIR_x.nii.gz: has values that are not finite"),
        (_empty, "p2: no voxel has all of T1, T2, FLAIR and is not a lesion"),
    ],
)
def test_faults_are_one_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: object, sentence: str
) -> None:
    assert callable(spoil)
    (folder / "p1").rename(tmp_path / "aside")
    spoil(folder / "p2")
    assert main(["tissue", str(folder), "-o", str(tmp_path / "data")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


def test_folders_without_subjects(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder"):
        tissue.prepare(tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no folder in it holds NIfTI files"):
        tissue.prepare(tmp_path, tmp_path)


def test_arrays_that_do_not_fit() -> None:
    images, mask = np.ones((3, *SHAPE), np.float32), np.ones(SHAPE, bool)
    with pytest.raises(InputError, match="must have one grid"):
        tissue.segment(images, images[:, 1:], mask)
    with pytest.raises(InputError, match="mask of the brain is empty"):
        tissue.segment(images, images, ~mask)
    with pytest.raises(InputError, match="not finite"):
        tissue.segment(np.nan * images, images, mask)


@pytest.mark.slow
def test_icbm152() -> None:
    pytest.importorskip("nilearn")
    head = tissue.icbm152()
    assert head.t1.shape == head.grey.shape == head.white.shape == (189, 233, 197)
    for volume in (head.grey, head.white):
        assert volume.min() == 0
        assert 0.95 < volume.max() <= 1
    corpus_callosum, caudate = np.array([[0.0, -37.0, 12.0], [12.0, 15.0, 8.0]])  # splenium; mm
    priors = head.priors(np.stack([corpus_callosum, caudate]))
    assert list(priors.argmax(axis=0)) == [2, 1]
