"""Tables, CSV and figures of weights beside classical methods, for every task."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mrnets import store
from mrnets.contract import Estimate, Scan
from mrnets.errors import InputError
from mrnets.physics.fourier import fftc
from mrnets.preparation import Preparation
from training import classical, evaluate, panel, validation
from training.data import Example, Place, Sample, Slices
from training.options import Network, Options, Validation
from training.settings import Simulated

VARNET = {"cascades": 1, "channels": 2, "pooling_layers": 1}
UNET = {"channels": 2, "pooling_layers": 1}
TISSUES = ("background", "GM", "WM")
TIMES = (0.003, 0.0115, 0.0200, 0.0285)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Anatomy: two slices of nested ellipses."""
    y, x = np.mgrid[:40, :40] / 20 - 1
    radius = np.hypot(y / 0.9, x / 0.7)
    slices = [(radius < 0.9) * (0.5 + 0.4 * (radius < 0.5) * (x > 0) + 0.1 * np.sin(k * y)) for k in (5, 7)]
    np.stack(slices).T.astype(np.complex64).ravel(order="F").tofile(tmp_path / "ball.cfl")
    (tmp_path / "ball.hdr").write_text("# Dimensions\n40 40 2\n", encoding="ascii")
    return tmp_path


def options(folder: Path, network: str, examples: int = 2, **simulated: object) -> Options:
    plain = {"matrix": (32, 40), "coils": (6, 6), "acceleration": (2.0, 2.0), "calibration": (12, 12)}
    drawn = {"masks": ("equispaced1d",), "snr": (1e3, 1e4), "partial_fourier": 0.0, "phantoms": 0.0}
    return Options(
        network=Network(name=network),
        weights="",
        folder="",
        data=str(folder),
        simulated=Simulated(**{**plain, **drawn, **simulated}),  # type: ignore[arg-type]
        validation=Validation(examples=examples),
    )


def saved(path: Path, name: str, *, labels: tuple[str, ...] = (), seed: int = 0, **own: object) -> str:
    """Weights as they start."""
    torch.manual_seed(seed)
    network, preparation = store.create(name, **own), Preparation().to_json()
    store.save(path, network, name=name, options=own, preparation=preparation, labels=labels)
    return str(path)


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_reconstruction_weights_side_by_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = [saved(folder / f"{name}.safetensors", "varnet", seed=n, **VARNET) for n, name in enumerate(("one", "two"))]
    got = evaluate.evaluate(two, options(folder, "varnet"), folder=folder / "out")
    assert list(got) == ["zerofilled", "cgsense", "l1wavelet", "one", "two"]
    assert got["cgsense"]["psnr"] > got["zerofilled"]["psnr"] + 3
    text = (folder / "out" / "evaluation.md").read_text(encoding="utf-8")
    assert text == capsys.readouterr().out
    assert text.splitlines()[0].split() == ["|", "2", "slices", "|", "ssim", "|", "psnr", "|", "nmse", "|"]
    rows = table(folder / "out" / "evaluation.csv")
    assert [row["method"] for row in rows] == 2 * list(got)
    mean = np.mean([float(row["psnr"]) for row in rows if row["method"] == "two"])
    assert mean == pytest.approx(got["two"]["psnr"], rel=1e-4)
    assert (folder / "out" / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    alone = evaluate.evaluate(two[0], options(folder, "varnet"))
    assert alone["varnet"] == pytest.approx(got["one"])


def test_quantitative_weights_beside_the_fit(folder: Path) -> None:
    path = saved(folder / "maps.safetensors", "qvarnet", **VARNET)
    got = evaluate.evaluate(path, options(folder, "qvarnet", 1, echo_times=(TIMES,)))
    assert list(got) == ["fit", "qvarnet"]
    assert set(got["fit"]) == {f"{m} {name}" for m in ("nmse", "mae") for name in ("R2*", "S0", "B0", "phase")}
    assert got["fit"]["nmse S0"] < 0.05


def labelled(place: Place) -> Sample:
    """A slice whose classes are its levels of grey; the second volume's first slice is empty."""
    levels = np.zeros((1, 1, 16, 18), np.float32)
    if place.path != "b" or place.index:
        levels[..., 2:10, 3:9], levels[..., 4:7, 4:7] = 0.5, 1.0
    labels = np.concatenate([levels == 0, levels == 0.5, levels == 1.0], axis=1)
    image = torch.from_numpy(levels + 0.01)
    return Sample(names=(f"{place.path}, {place.index}",), image=image, labels=torch.from_numpy(labels))


@pytest.fixture
def segmented(monkeypatch: pytest.MonkeyPatch) -> None:
    places = tuple(Place(path, n, path) for path in ("a", "b") for n in range(2))
    monkeypatch.setattr(evaluate, "opened", lambda options, part: Slices(places, labelled, TISSUES))


@pytest.mark.usefixtures("segmented")
def test_segmentation_weights_by_slice_and_volume(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(folder / "s.safetensors", "segunet", labels=TISSUES, contrasts=1, classes=3, **UNET)
    got = evaluate.evaluate(path, options(folder, "segunet", examples=0), folder=folder)
    assert list(got) == ["kmeans", "segunet"]
    assert len(table(folder / "evaluation.csv")) == 2 * 4
    assert "| volumes" in capsys.readouterr().out


@pytest.mark.usefixtures("segmented")
def test_no_slice_is_scored_twice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(folder / "s.safetensors", "segunet", labels=TISSUES, contrasts=1, classes=3, **UNET)
    evaluate.evaluate(path, options(folder, "segunet", examples=64), folder=folder)
    names = [row["slice"] for row in table(folder / "evaluation.csv") if row["method"] == "segunet"]
    assert len(names) == len(set(names)) == 4
    assert "| 4 slices" in capsys.readouterr().out


def partly_broken(place: Place) -> Sample:
    """The first slice of the first volume and the last one of the second have values that are not finite."""
    sample = labelled(place)
    if (place.path, place.index) in (("a", 0), ("b", 1)):
        sample.image[:] = float("nan")
    return sample


def test_a_slice_taken_for_a_broken_one_counts_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In an evaluation, in its figure, and in the validation of a run."""
    source, drawn = Slices(tuple(Place(p, n, p) for p in ("a", "b") for n in range(2)), partly_broken, TISSUES), []
    for module in (evaluate, validation):
        monkeypatch.setattr(module, "opened", lambda options, part: source)
    monkeypatch.setattr(evaluate, "_draw", lambda path, columns, labels: drawn.append(columns[0][2].names))
    path = saved(folder / "s.safetensors", "segunet", labels=TISSUES, contrasts=1, classes=3, **UNET)
    run = options(folder, "segunet", examples=0)
    evaluate.evaluate(path, run, folder=folder, shown="b, 0")
    assert [row["slice"] for row in table(folder / "evaluation.csv") if row["method"] == "segunet"] == ["a, 1", "b, 0"]
    assert "| 2 slices" in capsys.readouterr().out
    assert drawn == [("b, 0",)]
    assert [one.names for one in validation.checked(run, torch.device("cpu"), None)] == [("a, 1",), ("b, 0",)]


@pytest.mark.usefixtures("segmented")
def test_weights_of_other_classes_are_refused(folder: Path) -> None:
    path = saved(folder / "s.safetensors", "segunet", labels=("lesion",), contrasts=1, classes=1, **UNET)
    with pytest.raises(InputError, match="knows the classes lesion; the data have background, GM, WM"):
        evaluate.evaluate(path, options(folder, "segunet"))
    (folder / "t").mkdir()
    same = [saved(folder / f / "s.safetensors", "segunet", contrasts=1, classes=3, **UNET) for f in ("", "t")]
    with pytest.raises(InputError, match="names of their own"):
        evaluate.evaluate(same, options(folder, "segunet"))


def test_scores_of_volumes_are_not_means_of_slices() -> None:
    """Half of a large slice and all of a small one: 2 (20 + 4) / (24 + 44) and so on."""
    volumes = evaluate.Volumes(("lesion",))
    for size in (40, 4):
        target = torch.arange(64).reshape(1, 1, 8, 8) < size
        logits = (torch.arange(64).reshape(1, 1, 8, 8) < min(size, 20)).float() - 0.5
        example = Example(scan=Scan(), names=("",), labels=target, weight=torch.ones(1))
        volumes.add("a", "net", Estimate(logits=logits), example)
    volumes.add("b", "net", Estimate(logits=logits), example)
    volumes.close()
    assert volumes.rows["net"]["dice"] == pytest.approx([48 / 68, 1])
    assert volumes.rows["net"]["avd"] == [20, 0]
    assert volumes.rows["net"]["lesion_f1"] == [1, 1]


def test_slices_across_another_axis_are_a_volume_of_their_own() -> None:
    volumes = evaluate.Volumes(("lesion",))
    for shape in ((8, 8), (8, 8), (8, 6)):
        target = torch.ones(1, 1, *shape, dtype=torch.bool)
        example = Example(scan=Scan(), names=("",), labels=target, weight=torch.ones(1))
        volumes.add("a", "net", Estimate(logits=target.float() - 0.5), example)
    volumes.close()
    assert volumes.rows["net"]["dice"] == [1, 1]


def joint(rng: np.random.Generator) -> tuple[Estimate, Example]:
    """Everything that there can be, of one slice."""
    sens = torch.ones(1, 1, 2, 20, 18, dtype=torch.complex64) / 2**0.5
    image = torch.from_numpy(rng.random((1, 4, 20, 18))).to(torch.complex64)
    labels = torch.zeros(1, 3, 20, 18, dtype=torch.bool)
    labels[:, 1, 3:9], labels[:, 2, 12:15] = True, True
    labels[:, 0] = ~labels.any(dim=1)
    maps = {name: torch.from_numpy(rng.random((1, 20, 18))).float() for name in ("R2*", "S0", "B0", "phase")}
    everywhere = torch.ones(1, 1, 1, 20, 18, dtype=torch.bool)
    scan = Scan(kspace=fftc(image[:, :, None] * sens), mask=everywhere, sens=sens)
    example = Example(scan=scan, names=("a",), target=image, maps=maps, labels=labels, weight=torch.ones(1))
    return Estimate(image=image, maps=maps, logits=labels.float()), example


def test_pictures_have_a_row_for_each_field(tmp_path: Path, rng: np.random.Generator) -> None:
    estimate, example = joint(rng)
    whole = panel.picture(estimate, example, TISSUES)
    assert (whole.shape, whole.dtype) == ((6 * 20, 4 * 18, 3), np.uint8)
    assert panel.picture(Estimate(image=estimate.image), example).shape == (20, 4 * 18, 3)
    assert panel.picture(Estimate(maps=estimate.maps), example).shape == (4 * 20, 3 * 18, 3)
    overlay = panel.picture(Estimate(logits=estimate.logits), example, TISSUES)
    red, cyan = overlay[:, 18:36] == (255, 0, 0), overlay[:, 18:36] == (0, 255, 255)
    assert red.all(axis=2).sum() == 2 * 18 + 2 * 4  # the border of 6 x 18 pixels
    assert cyan.all(axis=2).sum() == 2 * 18 + 2
    panel.write(tmp_path / "p.png", [whole, overlay])
    with pytest.importorskip("PIL.Image").open(tmp_path / "p.png") as image:
        assert image.size == (4 * 18, 7 * 20)


def test_a_figure_of_everything(tmp_path: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("matplotlib")
    from training.figure import draw

    estimate, example = joint(rng)
    draw(
        tmp_path / "f.png",
        [("zerofilled", Estimate(image=estimate.image), example), ("net", estimate, example)],
        TISSUES,
    )
    assert (tmp_path / "f.png").stat().st_size > 10_000


def test_tuned_wavelets_find_the_threshold(rng: np.random.Generator) -> None:
    """Fully sampled without noise, the smallest threshold gives the image back. With noise, a larger one is best."""
    _, example = joint(rng)
    made = classical.images(example, wavelet=True)
    assert list(made) == ["zerofilled", "cgsense", "l1wavelet", "l1wavelet tuned"]
    torch.testing.assert_close(made["l1wavelet tuned"].image, example.target, rtol=0, atol=1e-3)
    assert example.scan.kspace is not None
    smooth = torch.full_like(example.target, 0.5)
    noise = torch.from_numpy(rng.standard_normal((*example.scan.kspace.shape, 2)).astype(np.float32))
    kspace = fftc(smooth[:, :, None] * example.scan.sens) + 0.01 * torch.view_as_complex(noise)
    scan = dataclasses.replace(example.scan, kspace=kspace)
    noisy = classical.images(dataclasses.replace(example, scan=scan, target=smooth), wavelet=True)
    errors = {name: float((estimate.image.abs() - 0.5).norm()) for name, estimate in noisy.items()}
    assert errors["l1wavelet tuned"] < errors["l1wavelet"] < 0.9 * errors["cgsense"]


def test_without_sensitivities_there_is_the_zero_filled_image_alone(rng: np.random.Generator) -> None:
    _, example = joint(rng)
    bare = dataclasses.replace(example, scan=dataclasses.replace(example.scan, sens=None))
    assert list(classical.images(bare, wavelet=True)) == ["zerofilled"]
