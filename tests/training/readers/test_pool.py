"""Scans simulated on the training device, as the loop gets them."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from mrnets import store
from mrnets.errors import InputError
from mrnets.physics import simulate
from mrnets.preparation import Preparation
from training import loop
from training.__main__ import main
from training.batches import Batches, examples
from training.options import Network, Options, Validation
from training.options import Reader as Chosen
from training.readers.pool import Reader, Scans
from training.simulation import Simulation, load_images
from training.simulation.gather import gathered
from training.split import Split

SETTINGS = Simulation(
    matrix=(40, 56), coils=(4, 6), shapes=2, layouts=3, masks_each=4, grid=(64, 80), phantoms=0.0, calibration=(12, 16)
)
SPLIT = Split(validation=("held",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two volumes of one thick axis."""
    folder = tmp_path_factory.mktemp("images")
    for name, size in (("one", 64), ("held", 72)):
        planes = np.stack([simulate.phantom((size, size)) + 0.1 * n for n in range(3)])
        planes[:, :8] = 0
        planes.T.astype(np.complex64).ravel(order="F").tofile(folder / f"{name}.cfl")
        (folder / f"{name}.hdr").write_text(f"# Dimensions\n{size} {size} 3\n", encoding="ascii")
    return folder


def source(folder: Path) -> Scans:
    return pickle.loads(pickle.dumps(Reader(simulation=SETTINGS).read(folder, "train", SPLIT)))


def options(folder: Path, run: Path, **more: object) -> Options:
    return Options(
        network=Network(name="varnet", options={"cascades": 1, "channels": 2, "pooling_layers": 1}),
        weights=str(run / "weights.safetensors"),
        folder=str(run),
        data=str(folder),
        reader=Chosen(name="pool", options={"simulation": dataclasses.asdict(SETTINGS)}, split=SPLIT),
        validation=Validation(every=2, examples=2),
        steps=4,
        save_every=1,
        batch=2,
        workers=0,
        **more,
    )


def test_each_source_is_of_one_part(folder: Path) -> None:
    assert source(folder).subjects == ("one.cfl",)
    assert Reader(simulation=SETTINGS).read(folder, "validation", SPLIT).subjects == ("held.cfl",)
    assert list(Reader().check(folder, SPLIT)) == []


def test_samples_are_whitened_scans_of_noise_1(folder: Path) -> None:
    quiet = dataclasses.replace(SETTINGS, snr=(20.0, 40.0))
    sample = Reader(simulation=quiet).read(folder, "train", SPLIT).take([0, 1], np.random.default_rng(3))
    raw = sample.raw
    assert raw is not None
    assert raw.whitened
    full = torch.fft.fftshift(
        torch.fft.fft2(torch.fft.ifftshift(sample.coil_images, dim=(-2, -1)), norm="ortho"), dim=(-2, -1)
    )
    noise = (raw.kspace - full)[raw.mask.expand(raw.kspace.shape)]
    assert noise.abs().square().mean().item() == pytest.approx(1, rel=0.1)
    height, width = raw.calibration.shape[-2:]
    y, x = (n // 2 - m // 2 for n, m in zip(raw.kspace.shape[-2:], (height, width), strict=True))
    assert torch.equal(raw.calibration, raw.kspace[..., y : y + height, x : x + width])
    assert min(height, width) >= 12


def test_ready_made_batches_are_like_those_that_are_prepared(folder: Path, tmp_path: Path) -> None:
    """The quick way and `mrnets.prepare` on the same settings: scale, noise, phase and what maps explain agree."""
    settings = dataclasses.replace(SETTINGS, snr=(100.0, 100.0), whole_maps=1.0, folded=0.0)
    run = options(folder, tmp_path)
    train = Batches(Reader(simulation=settings).read(folder, "train", SPLIT), run, "train", 2)
    assert train.ready_made
    made = [train.example(n, "cpu") for n in range(12)]
    slow = [train.finish(train[n], n, "cpu") for n in range(12)]
    for quick, prepared in ((a, b) for a, b in zip(made, slow, strict=True)):
        assert quick.target.dtype == prepared.target.dtype
        assert quick.scan.sens.ndim == prepared.scan.sens.ndim
    for measure in (
        lambda e: e.target.abs().amax((1, 2, 3)),
        lambda e: e.scan.noise / e.target.abs().square().mean((1, 2, 3)).sqrt(),
        lambda e: 0.1 + e.target.imag.square().sum((1, 2, 3)) / e.target.abs().square().sum((1, 2, 3)),
    ):
        one, other = (torch.cat([measure(e) for e in each]).median().item() for each in (made, slow))
        assert one == pytest.approx(other, rel=0.4)


def test_another_preparation_is_made_from_the_samples(folder: Path, tmp_path: Path) -> None:
    run = dataclasses.replace(options(folder, tmp_path), preparation=Preparation(sens="none", combination="rss"))
    batches = Batches(source(folder), run, "train", 2)
    assert not batches.ready_made
    assert next(examples(batches, range(1), 0, "cpu")).scan.sens is None


def test_a_run_that_was_killed_ends_with_the_same_weights(folder: Path, tmp_path: Path) -> None:
    whole, parts = (options(folder, tmp_path / name) for name in ("whole", "parts"))
    loop.fit(whole)
    for step in (1, 3):
        loop.fit(parts, stop_at=step)
    loop.fit(parts)
    one, other = (store.load(run.weights).network.state_dict() for run in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert store.header(whole.weights)["provenance"]["data"] == ["one.cfl"]


def test_workers_see_the_same_batches(folder: Path, tmp_path: Path) -> None:
    batches = Batches(source(folder), options(folder, tmp_path), "train", 2)
    alone, beside = (list(examples(batches, range(2), workers, "cpu")) for workers in (0, 1))
    assert all(torch.equal(a.scan.kspace, b.scan.kspace) for a, b in zip(alone, beside, strict=True))


def test_the_command_gathers_images_of_volumes_and_photographs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pil = pytest.importorskip("PIL.Image")
    both = tmp_path / "both"
    both.mkdir()
    for file in folder.iterdir():
        (both / file.name).write_bytes(file.read_bytes())
    noise = np.random.default_rng(0).integers(0, 255, (400, 500, 3), dtype=np.uint8)
    pil.fromarray(noise).save(both / "photograph.png")
    assert main(["pool", str(both), "-o", str(tmp_path / "pool.npz")]) == 0
    assert "of 3 sources" in capsys.readouterr().out
    images, again = load_images(tmp_path / "pool.npz"), gathered(both)
    assert images.names == again.names
    assert all(np.array_equal(a, b) for a, b in zip(images.pixels, again.pixels, strict=True))
    assert images.names.count("photograph.png") == 3
    assert images.names.count("one.cfl") == 3


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images"):
        Reader(simulation=SETTINGS).read(tmp_path, "train", SPLIT)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert "not an image that can be read" in next(Reader().check(tmp_path, SPLIT))
