"""The simulated reader and the loop, on a volume of a few pixels."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mrnets import store
from mrnets.errors import InputError
from mrnets.prepare import Preparation
from training import loop
from training.__main__ import main
from training.evaluate import evaluate
from training.options import Network, Options, Simulated, Validation
from training.readers.anatomy import Volume, blurred, draw_image, load_folder
from training.readers.simulated import example

SETTINGS = Simulated(matrix=(32, 40), coils=(4, 6), acceleration=(2, 3), calibration=(10, 12), masks=("equispaced1d",))


def ball(size: int = 40) -> np.ndarray:
    """A volume with something in it: nested balls."""
    z, y, x = np.mgrid[:size, :size, :size] * 2 / size - 1
    radius = np.sqrt(z**2 + (y / 0.9) ** 2 + (x / 0.7) ** 2)
    return ((radius < 0.9) * (0.5 + 0.4 * (radius < 0.5) * (x > 0) + 0.1 * np.sin(5 * y + z))).astype(np.float32)


VOLUMES = [Volume("ball", ball(), (1.0, 1.0, 1.0))]


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """A run of seconds."""
    np.stack([ball()[20], ball()[15]]).T.astype(np.complex64).ravel(order="F").tofile(tmp_path / "ball.cfl")
    (tmp_path / "ball.hdr").write_text("# Dimensions\n40 40 2\n", encoding="ascii")
    return Options(
        network=Network(name="varnet", options={"num_cascades": 1, "channels": 2, "pooling_layers": 1}),
        weights=str(tmp_path / "weights.safetensors"),
        folder=str(tmp_path / "run"),
        data=str(tmp_path),
        simulated=SETTINGS,
        validation=Validation(every=2, examples=2),
        steps=4,
        save_every=2,
        workers=0,
    )


def test_an_example_depends_on_its_number_only(options: Options) -> None:
    volumes = load_folder(options.data)
    one, again = (loop.Examples(volumes, options, stream=0, batch=2)[3] for _ in range(2))
    other = loop.Examples(volumes, options, stream=1, batch=2)[3]
    assert torch.equal(one.target, again.target)
    assert torch.equal(one.scan.kspace, again.scan.kspace)
    assert one.target.shape != other.target.shape or not torch.equal(one.target, other.target)


def test_random_slices_show_the_object(rng: np.random.Generator) -> None:
    for _ in range(10):
        image = draw_image(VOLUMES[0], rng, (33, 48))
        assert image.shape == (33, 48)
        assert 0.1 < float((image > 0.1).float().mean()) < 0.9
        assert float(image.min()) >= 0


def test_blur_is_a_gaussian_of_the_width_asked_for() -> None:
    point = torch.zeros(1, 41, 31)
    point[0, 20, 15] = 1
    image = blurred(point, 1.7)[0]
    y, x = torch.arange(41) - 20, torch.arange(31) - 15
    assert float(image.sum()) == pytest.approx(1, abs=1e-5)
    assert float(image.sum(dim=1) @ (y * y).float()) ** 0.5 == pytest.approx(1.7, rel=0.02)
    assert float(image.sum(dim=0) @ (x * x).float()) ** 0.5 == pytest.approx(1.7, rel=0.02)
    torch.testing.assert_close(blurred(point, 0.0), point)


def test_anatomy_from_files(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = np.arange(2 * 3 * 40, dtype=np.float32).reshape(2, 3, 40)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1.0, 2.0, 3.0, 1.0])), tmp_path / "a.nii.gz")
    nibabel.save(nibabel.Nifti1Image((volume > 9).astype(np.float32), np.eye(4)), tmp_path / "labels.nii")
    (one,) = load_folder(str(tmp_path))
    assert one.name == "a.nii.gz"
    assert one.data.shape == (40, 3, 2)
    assert one.spacing == (3.0, 2.0, 1.0)
    volume[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "b.nii.gz")
    with pytest.raises(InputError, match=r"b\.nii\.gz: expected three axes and finite values"):
        load_folder(str(tmp_path))
    with pytest.raises(InputError, match="no anatomy"):
        load_folder(str(tmp_path / "nowhere"))


def weights(path: str) -> dict[str, Any]:
    return dict(store.load(path).network.state_dict())


def test_a_run_that_was_killed_ends_as_an_unbroken_one(options: Options, tmp_path: Path) -> None:
    loop.fit(options)
    broken = dataclasses.replace(options, folder=str(tmp_path / "broken"), weights=str(tmp_path / "b.safetensors"))
    loop.fit(broken, stop_at=3)
    assert not Path(broken.weights).exists()
    loop.fit(broken)
    one, other = weights(options.weights), weights(broken.weights)
    assert all(torch.equal(one[name], other[name]) for name in one)
    with open(Path(options.folder) / "log.csv", newline="", encoding="utf-8") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4"]


def test_the_weights_file_says_where_it_comes_from(options: Options) -> None:
    loop.fit(dataclasses.replace(options, licence="CC0"))
    header = store.header(options.weights)
    assert header["network"] == "varnet"
    assert header["preparation"] == Preparation().to_json()
    assert header["provenance"]["licence"] == "CC0"
    assert header["provenance"]["data"] == ["ball.cfl"]
    assert set(header["provenance"]["scores"]) >= {"ssim", "psnr", "nmse"}
    assert str(Path(options.folder).parent) not in str(header)  # no place of the machine it was trained on


def test_scores_of_weights_beside_classical_ones(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    loop.fit(options)
    clean = dataclasses.replace(options.simulated, snr=(1e3, 1e4), acceleration=(2.0, 2.0), partial_fourier=0.0)
    scores = evaluate(options.weights, dataclasses.replace(options, simulated=clean))
    assert set(scores) == {"zerofilled", "cgsense", "varnet"}
    assert scores["cgsense"]["psnr"] > scores["zerofilled"]["psnr"]
    assert "cgsense" in capsys.readouterr().out


def test_parameters_that_start_at_zero(options: Options) -> None:
    network = dataclasses.replace(options.network, zero=("head.weight", "head.bias"))
    rate = dataclasses.replace(options.optimiser, learning_rate=0.0)
    loop.fit(dataclasses.replace(options, network=network, optimiser=rate))
    heads = [value for name, value in weights(options.weights).items() if ".head." in name]
    assert heads
    assert all(float(value.abs().max()) == 0 for value in heads)


def test_a_run_may_start_from_weights(options: Options, tmp_path: Path) -> None:
    loop.fit(options)
    network = dataclasses.replace(options.network, start=options.weights)
    rate = dataclasses.replace(options.optimiser, learning_rate=0.0)
    places = {"folder": str(tmp_path / "second"), "weights": str(tmp_path / "second.safetensors")}
    second = dataclasses.replace(options, network=network, optimiser=rate, **places)
    loop.fit(second)
    one, other = weights(options.weights), weights(second.weights)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert store.header(second.weights)["provenance"]["options"]["network"]["start"] == "weights.safetensors"
    wider = dataclasses.replace(network, options={**network.options, "channels": 3})
    with pytest.raises(InputError, match=r"cannot start from .*weights\.safetensors: it holds varnet"):
        loop.fit(dataclasses.replace(second, network=wider, folder=str(tmp_path / "third")))


def test_a_loss_that_is_not_a_number_stops_the_run(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(volumes: Any, settings: Any, preparation: Any, batch: int, rng: Any) -> Any:
        calls.append(1)
        one = example(volumes, settings, preparation, batch, rng)
        return dataclasses.replace(one, target=one.target * float("nan")) if len(calls) == 6 else one

    calls: list[int] = []
    monkeypatch.setattr(loop, "example", poisoned)
    with pytest.raises(InputError, match="the loss of step 3 is nan: batch 3 of seed 0"):
        loop.fit(options)
    state = torch.load(Path(options.folder) / "checkpoint.pt", weights_only=True)
    assert state["step"] == 2
    assert all(bool(torch.isfinite(value).all()) for value in state["network"].values())
    assert not Path(options.weights).exists()


def test_a_full_disk_keeps_the_last_checkpoint(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.fit(options, stop_at=3)
    save = torch.save

    def full(state: Any, path: Path) -> None:
        save({}, path)
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        loop.fit(options)
    assert torch.load(Path(options.folder) / "checkpoint.pt", weights_only=True)["step"] == 2


def test_a_checkpoint_of_another_network_is_refused(options: Options) -> None:
    loop.fit(options, stop_at=3)
    other = dataclasses.replace(options.network, options={"num_cascades": 2, "channels": 2, "pooling_layers": 1})
    with pytest.raises(InputError, match=r"checkpoint\.pt was made with other options"):
        loop.fit(dataclasses.replace(options, network=other))


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("network: {name: varnet}\nweights: w.safetensors\nfolder: f\n", encoding="utf-8")
    assert main(["fit", str(path), "network.options.chanels=3"]) == 1
    assert capsys.readouterr().err.startswith("training fit: unknown option of network varnet: 'chanels'; did you mean")
    assert main(["fit", str(path), f"data={tmp_path / 'none'}", f"folder={tmp_path / 'f'}"]) == 1
    assert "no anatomy" in capsys.readouterr().err
