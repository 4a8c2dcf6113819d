"""Training on accelerated scans: what is held out never reaches the network, and what it predicts is compared there."""

from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gadgets.simulate import Settings, make_scan
from mrnets import store
from mrnets.contract import Estimate, Scan
from mrnets.ending import ended
from mrnets.errors import InputError
from mrnets.mrd.files import write_scan
from mrnets.physics.coils import forward
from mrnets.physics.fourier import fftc, ifftc
from mrnets.prepare import combine
from training import loop
from training.batches import Batches
from training.data import Example
from training.evaluate import evaluate
from training.losses import loss
from training.metrics import scores
from training.noise2recon import noisier, with_noise
from training.options import Loss, Options, read
from training.run import built
from training.selfsupervised import drawn, predicted
from training.settings import NoiseToRecon, SelfSupervised
from training.step import Feed, Learning, learn
from training.survey import problems
from training.tasks import opened

RECIPES = Path(loop.__file__).parent / "recipes"
SMALL = "network.options={cascades: 1, channels: 2, pooling_layers: 1}"


def write(folder: Path, seeds: range, **settings: Any) -> Path:
    """Accelerated scans of a phantom."""
    folder.mkdir()
    given = {"coils": 4, "matrix": 32, "slices": 2, "acceleration": 2, "calibration": 10, **settings}
    for seed in seeds:
        write_scan(folder / f"scan{seed:02}.h5", *make_scan(Settings(**given, seed=seed))[:2])
    return folder


def recipe(folder: Path, data: Path, *more: str) -> Options:
    return read(
        RECIPES / "self_supervised.yaml",
        [
            *(f"data={data}", f"folder={folder / 'run'}", f"weights={folder / 'w.safetensors'}"),
            *("device=cpu", "workers=0", "steps=2", "epochs=null", "validation.examples=2", SMALL, *more),
        ],
    )


def example(options: Options, n: int = 0, part: Any = "train") -> Example:
    return Batches(opened(options, part), options, part, 1).example(n, "cpu")


def accelerated(shape: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Every third line, and ten lines in the middle."""
    mask = np.zeros(shape, bool)
    mask[::3], mask[shape[0] // 2 - 5 : shape[0] // 2 + 5] = True, True
    return mask


@pytest.mark.parametrize("shape", [(32, 24), (33, 17)])
def test_samples_are_split_in_two_sets(shape: tuple[int, int]) -> None:
    settings = SelfSupervised(share=0.4)
    mask = accelerated(shape)
    seen = np.zeros(shape, bool)
    free = mask.copy()
    y, x = (n // 2 for n in shape)
    free[y - 2 : y + 2, x - 2 : x + 2] = False
    for seed in range(200):
        held = drawn(mask, settings, np.random.default_rng(seed))
        assert not (held & ~free).any()
        assert int(held.sum()) == round(0.4 * int(free.sum()))
        seen |= held
    assert (seen == free).all()  # every sample's turn comes
    assert (held == drawn(mask, settings, np.random.default_rng(199))).all()


def test_one_sample_at_least_is_held_out() -> None:
    mask = np.zeros((32, 16), bool)
    mask[14:18, 6:10] = mask[2, 3] = True
    held = drawn(mask, SelfSupervised(share=0.1), np.random.default_rng(0))
    assert np.argwhere(held).tolist() == [[2, 3]]


def test_samples_near_the_middle_come_more_often() -> None:
    mask, settings = np.ones((41, 41), bool), SelfSupervised(share=0.1)
    many = sum(drawn(mask, settings, np.random.default_rng(seed)).astype(int) for seed in range(400))
    assert many[20, 24:28].mean() > 1.5 * many[20, 36:].mean()
    wide = dataclasses.replace(settings, width=10.0)
    even = sum(drawn(mask, wide, np.random.default_rng(seed)).astype(int) for seed in range(400))
    assert even[20, 24:28].mean() < 1.4 * even[20, 36:].mean()


def test_a_share_of_an_accelerated_scan_is_held_out(tmp_path: Path) -> None:
    options = recipe(tmp_path, write(tmp_path / "data", range(2)))
    whole = dataclasses.replace(options, self_supervised=SelfSupervised(), masks=options.masks)
    measured = example(dataclasses.replace(whole, masks=dataclasses.replace(options.masks, source="data"))).scan
    one, other = example(options, 0), example(options, 4)  # the same slice, an epoch later
    assert one.target is None
    assert one.held is not None
    assert not (one.held & one.scan.mask).any()
    assert torch.equal(one.held | one.scan.mask, measured.mask)
    assert not one.scan.kspace[~one.scan.mask.expand_as(one.scan.kspace)].any()
    torch.testing.assert_close(one.kspace * one.held, measured.kspace * one.held)
    torch.testing.assert_close(one.scan.sens, measured.sens)
    assert one.held.sum() == round(options.self_supervised.share * (int(measured.mask.sum()) - 4 * 4))
    assert one.names != other.names or not torch.equal(one.held, other.held)
    again = example(options, 0, "validation"), example(options, 0, "validation")
    assert torch.equal(again[0].held, again[1].held)


def test_the_recipe_turns_scans_and_holds_out_single_samples() -> None:
    settings = read(RECIPES / "self_supervised.yaml").self_supervised
    assert settings == SelfSupervised(share=0.4, turned=1.0)


@pytest.mark.parametrize("acceleration", [2, 1])
def test_turned_scans_are_a_term_of_the_loss(acceleration: int, tmp_path: Path) -> None:
    """Of accelerated scans and of those that a mask undersamples."""
    data = write(tmp_path / "data", range(2), acceleration=acceleration)
    masks = ["masks.accelerations=[2]", "masks.centres=[10]", "optimiser.warm_up=0"]
    losses, weights = [], []
    for weight in (0.0, 0.5, 1.0):
        options = recipe(tmp_path, data, *masks, f"self_supervised.turned={weight}", f"folder={tmp_path / str(weight)}")
        run = built(options, torch.device("cpu"))
        how = Learning(options, 2, (), 0, run.network, ended(run.network, options.preparation, "each"))
        learn(run, Feed(iter([example(options)]), torch.device("cpu")), how)
        losses += run.losses
        weights.append(torch.cat([p.detach().flatten() for p in run.network.parameters()]))
    assert losses[1] > losses[0] + 0.1
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-4)
    assert not torch.equal(weights[0], weights[1])


def test_a_fully_sampled_scan_is_compared_where_its_mask_left_out(tmp_path: Path) -> None:
    options = recipe(
        tmp_path, write(tmp_path / "data", range(1), acceleration=1), "masks.accelerations=[2]", "masks.centres=[10]"
    )
    one = example(options)
    assert one.target is not None
    assert torch.equal(one.held, ~one.scan.mask)
    torch.testing.assert_close(one.target, combine(ifftc(one.kspace), one.scan.sens))


def test_the_right_image_has_no_loss_and_another_one_has_a_gradient(rng: np.random.Generator) -> None:
    shape = (2, 1, 3, 12, 10)

    def numbers(*size: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal((*size, 2)).astype(np.float32).view(np.complex64)[..., 0])

    sens, image = numbers(2, 1, 3, 12, 10), numbers(2, 1, 12, 10)
    kspace = forward(image[:, :, :], sens, torch.ones(1, dtype=torch.bool))
    assert kspace.shape == shape
    held = torch.from_numpy(rng.random((2, 1, 1, 12, 10)) < 0.3)
    scan = Scan(kspace=kspace * ~held, mask=~held, sens=sens)
    one = Example(scan=scan, names=("a", "b"), kspace=kspace, held=held, weight=torch.ones(2))
    right = Estimate(image=image)
    assert float(loss(right, one, Loss(kspace=1.0))) < 1e-4
    assert float(scores(right, one)["nmse held"].max()) < 1e-8
    wrong = (image + numbers(2, 1, 12, 10)).requires_grad_()
    value = loss(Estimate(image=wrong), one, Loss(kspace=1.0))
    error = ((predicted(Estimate(image=wrong), scan) - kspace) * held).detach().flatten(1)
    target = (kspace * held).flatten(1)
    expected = error.norm(dim=1) / target.norm(dim=1) + error.abs().sum(1) / target.abs().sum(1)
    torch.testing.assert_close(value, expected.mean(), rtol=1e-4, atol=0)
    value.backward()
    assert torch.isfinite(torch.view_as_real(wrong.grad)).all()
    elsewhere = dataclasses.replace(one, kspace=torch.where(held, kspace, 7.0))
    assert float(loss(right, elsewhere, Loss(kspace=1.0))) < 1e-4  # only what is held out counts


@pytest.mark.parametrize(("name", "sets"), [("varnet", 1), ("l1varnet", 2)])
def test_predictions_are_those_of_the_image_before_its_weighting(name: str, sets: int, tmp_path: Path) -> None:
    options = recipe(tmp_path, write(tmp_path / "data", range(1)), f"network.name={name}", f"preparation.sets={sets}")
    one = example(options)
    network = ended(store.create(name, **store.describe(name).small), options.preparation, "each")
    with torch.no_grad():
        estimate = network(one.scan)
    images = estimate.unweighted
    made = fftc(torch.sum(images[:, 0, :, None] * one.scan.sens, dim=1))
    torch.testing.assert_close(predicted(estimate, one.scan)[:, 0], made)


def test_a_run_ends_in_weights_and_scores_of_held_samples(tmp_path: Path) -> None:
    options = recipe(tmp_path, write(tmp_path / "data", range(2)), "batch=2", "noise_to_recon.weight=0.5")
    assert list(problems(options)) == []
    loop.fit(options)
    found = store.header(options.weights)["provenance"]["scores"]
    assert set(found) == {"loss", "nmse held"}
    assert all(math.isfinite(value) for value in found.values())
    assert list((tmp_path / "run").glob("step*.png"))
    table = evaluate(options.weights, options, folder=tmp_path / "evaluation")
    assert set(table) == {"zerofilled", "cgsense", "l1wavelet", "varnet"}
    assert table["cgsense"]["nmse held"] < table["zerofilled"]["nmse held"]
    assert (tmp_path / "evaluation" / "evaluation.png").exists()


def test_scores_of_accelerated_and_fully_sampled_scans_stand_side_by_side(tmp_path: Path) -> None:
    """Images have targets only where the scan is fully sampled; samples are held out in all."""
    data = write(tmp_path / "data", range(2))
    full = write(tmp_path / "full", range(2, 3), acceleration=1)
    (full / "scan02.h5").rename(data / "again.h5")  # before the others, by its name
    own = ["masks.accelerations=[2]", "masks.centres=[10]", "validation.examples=0", "reader.split={validation: [a]}"]
    options = recipe(tmp_path, data, *own)
    path, small = str(tmp_path / "varnet.safetensors"), {"cascades": 1, "channels": 2, "pooling_layers": 1}
    network, preparation = store.create("varnet", **small), options.preparation.to_json()
    store.save(path, network, name="varnet", options=small, preparation=preparation)
    table = evaluate(path, options, folder=tmp_path / "out")
    assert all(math.isfinite(value) for row in table.values() for value in row.values())
    with open(tmp_path / "out" / "evaluation.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "varnet"]
    assert len(rows) == 6
    for row in rows:
        assert math.isfinite(float(row["nmse held"]))
        assert math.isfinite(float(row["ssim"])) == ("again" in row["slice"])
    assert (tmp_path / "out" / "evaluation.png").exists()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["preparation.sens=none"], "self_supervised.share needs sensitivities: preparation.sens=espirit"),
        (["network.first=a.safetensors"], "would see the samples that are held out"),
        (["self_supervised.share=0"], "option loss.kspace needs self_supervised.share, such as 0.4"),
        (["self_supervised.turned=-1"], "must be at least 0, got -1"),
        (["self_supervised.share=0", "loss={kspace: 0, l1: 1}"], "self_supervised.turned needs self_supervised.share"),
        (["self_supervised.share=1"], "must be at least 0 and below 1, got 1"),
    ],
)
def test_what_cannot_be(overrides: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        recipe(tmp_path, tmp_path, *overrides)


def test_a_scan_with_too_few_samples_says_so(tmp_path: Path) -> None:
    options = recipe(tmp_path, write(tmp_path / "data", range(1)), "self_supervised.centre=64")
    with pytest.raises(InputError, match=r"scan00, slice \d: too few samples to hold out a share of 0\.\d"):
        example(options)


def test_more_noise_of_the_level_asked_for(tmp_path: Path) -> None:
    scan = example(recipe(tmp_path, write(tmp_path / "data", range(1)))).scan
    noisy = noisier(scan, (0.2, 0.2))
    added = (noisy.kspace - scan.kspace)[scan.mask.expand_as(scan.kspace)]
    peak = torch.sum(ifftc(scan.kspace)[:, 0] * scan.sens[:, 0].conj(), dim=1).abs().max()
    level = float(added.abs().square().mean().sqrt())
    assert level == pytest.approx(0.2 * float(peak), rel=0.1)
    assert float(noisy.noise) == pytest.approx(math.hypot(float(scan.noise), 0.2 * float(peak)), rel=1e-3)
    assert not noisy.kspace[~scan.mask.expand_as(scan.kspace)].any()


def test_noise_to_recon_has_the_image_as_its_target(tmp_path: Path) -> None:
    one = example(recipe(tmp_path, write(tmp_path / "data", range(1))))
    image = torch.randn((1, 1, 32, 32), dtype=torch.complex64, requires_grad=True)
    noisy = with_noise(one, Estimate(image=image), NoiseToRecon(weight=1.0))
    assert torch.equal(noisy.target, image)
    assert not noisy.target.requires_grad
    assert noisy.held is None
    assert not torch.equal(noisy.scan.kspace, one.scan.kspace)
    with pytest.raises(InputError, match="option noise_to_recon needs a network that makes images"):
        with_noise(one, Estimate(), NoiseToRecon(weight=1.0))


def trained(folder: Path, name: str, recipe: str, data: Path, *settings: str) -> str:
    """Weights after 300 steps on the scans of a folder."""
    network = "network.options={cascades: 4, channels: 8, pooling_layers: 2, consistency: proximal}"
    common = ["masks.accelerations=[4]", "masks.centres=[12]", "device=cpu", "workers=0", "epochs=null", "steps=300"]
    common += ["augmentation={flips: false, coils: 1.0}", "validation.every=300", "validation.examples=8"]
    common += ["optimiser={learning_rate: 1.0e-3, warm_up: 50, ema: 0.98}", "network.zero=[head.weight,head.bias]"]
    own = [network, f"data={data}", f"folder={folder / name}", f"weights={folder / name}.safetensors"]
    return str(loop.fit(read(RECIPES / f"{recipe}.yaml", [*common, *own, *settings])))


def heads(folder: Path, seeds: range, acceleration: float) -> Path:
    """Scans of the ICBM152 head, with noise."""
    folder.mkdir()
    for n in seeds:
        place = {"offset": n * 13 % 60 - 20, "orientation": ("axial", "coronal", "sagittal")[n % 3], "snr": 40}
        settings = Settings(
            volume="icbm152", coils=6, matrix=64, slices=4, thickness=8, calibration=12, seed=n,
            acceleration=acceleration, **place,
        )  # fmt: skip
        write_scan(folder / f"scan{n:02}.h5", *make_scan(settings)[:2])
    return folder


@pytest.mark.slow
def test_accelerated_scans_teach_nearly_as_much_as_the_same_scans_fully_sampled(tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    ours = trained(tmp_path, "self", "self_supervised", heads(tmp_path / "fast", range(12), 4))
    full = trained(tmp_path, "supervised", "ismrmrd", heads(tmp_path / "full", range(12), 1))
    test = heads(tmp_path / "test", range(20, 24), 1)
    settings = ["masks.accelerations=[4]", "masks.centres=[12]", "reader.split={validation: [scan]}", "device=cpu"]
    found = evaluate([ours, full], read(RECIPES / "ismrmrd.yaml", [f"data={test}", *settings]))
    assert found["self"]["psnr"] > found["l1wavelet"]["psnr"] + 1
    assert found["self"]["psnr"] > found["supervised"]["psnr"] - 1
