"""Simulated scans: as gadgets sort them, prepared as on the scanner, with truths that the data bear out."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from mrnets.errors import InputError
from mrnets.physics import masks
from mrnets.physics.coils import forward, rss
from mrnets.physics.relaxation import fit
from mrnets.preparation import Preparation
from mrnets.prepare import prepare
from training.readers import simulated
from training.readers._tissue import random_b0, random_r2
from training.readers.anatomy import Volume
from training.readers.simulated import Reader, draw, draw_layout, scanned
from training.settings import Simulated
from training.split import Split
from training.targets import prepared

SETTINGS = Simulated(matrix=(32, 40), coils=(4, 6), acceleration=(2, 3), calibration=(10, 12), masks=("equispaced1d",))
TIMES = (0.003, 0.0115, 0.0200, 0.0285)
RELAXING = dataclasses.replace(SETTINGS, echo_times=(TIMES,), phantoms=0.0, blur=0.0)


def ball(size: int = 40) -> np.ndarray:
    """A volume with something in it: nested balls."""
    z, y, x = np.mgrid[:size, :size, :size] * 2 / size - 1
    radius = np.sqrt(z**2 + (y / 0.9) ** 2 + (x / 0.7) ** 2)
    return ((radius < 0.9) * (0.5 + 0.4 * (radius < 0.5) * (x > 0) + 0.1 * np.sin(5 * y + z))).astype(np.float32)


VOLUMES = [Volume("ball", ball(), (1.0, 1.0, 1.0))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Anatomy of two subjects."""
    for name in ("one", "two"):
        np.stack([ball()[20], ball()[15]]).T.astype(np.complex64).ravel(order="F").tofile(tmp_path / f"{name}.cfl")
        (tmp_path / f"{name}.hdr").write_text("# Dimensions\n40 40 2\n", encoding="ascii")
    return tmp_path


@pytest.mark.parametrize("mask", masks.names())
@pytest.mark.parametrize("settings", [SETTINGS, RELAXING], ids=["plain", "relaxing"])
def test_simulated_scans_are_as_gadgets_sort_them(mask: str, settings: Simulated, rng: np.random.Generator) -> None:
    sample = draw(VOLUMES, dataclasses.replace(settings, masks=(mask,), partial_fourier=0.5), 2, rng)
    raw, coil_images = sample.raw, sample.coil_images
    assert raw is not None
    assert coil_images is not None
    batch, echoes, _, ny, nx = raw.kspace.shape
    assert (batch, echoes) == (2, len(settings.echo_times and TIMES) or 1)
    assert raw.mask.shape == (2, 1, 1, ny, nx)
    assert raw.mask.dtype == torch.bool
    assert raw.kspace.dtype == coil_images.dtype == torch.complex64
    assert coil_images.shape == raw.kspace.shape
    assert float(raw.kspace.abs()[~raw.mask.expand(raw.kspace.shape)].sum()) == 0
    assert raw.calibration is not None
    assert raw.calibration.shape[1] == 1
    assert min(raw.calibration.shape[-2:]) >= 6
    assert raw.readout == (None if masks.kind(mask).axes == 2 else "x")
    assert sample.names == ("ball", "ball")


def test_a_folder_in_parts(folder: Path) -> None:
    settings = dataclasses.replace(SETTINGS, validation_volumes=("two",), examples=7)
    training, validation = (Reader(settings=settings).read(folder, part, Split()) for part in ("train", "validation"))
    assert training.subjects == ("one.cfl",)
    assert validation.subjects == ("two.cfl",)
    assert Reader(settings=SETTINGS).read(folder, "train", Split()).subjects == ("one.cfl", "two.cfl")
    assert len(training) == 7
    assert len(pickle.dumps(training)) < 10_000  # what goes to another process
    one, again = (training.take([n, n + 1], np.random.default_rng(3)) for n in (0, 4))
    assert one.raw is not None
    assert again.raw is not None
    assert torch.equal(one.raw.kspace, again.raw.kspace)
    assert len(one.raw.kspace) == 2


def test_what_is_wrong_with_a_folder_or_with_echo_times(folder: Path, tmp_path: Path) -> None:
    assert list(Reader(settings=SETTINGS).check(folder, Split())) == []
    (problem,) = Reader(settings=SETTINGS).check(tmp_path / "nowhere", Split())
    assert "no anatomy" in problem
    descending = dataclasses.replace(SETTINGS, echo_times=((0.02, 0.01),))
    with pytest.raises(InputError, match=r"option simulated\.echo_times needs ascending echo times"):
        Reader(settings=descending).read(folder, "train", Split())


def test_the_target_explains_the_samples_that_the_network_gets(rng: np.random.Generator) -> None:
    sample = draw(VOLUMES, dataclasses.replace(SETTINGS, snr=(1e6, 1e7), without_noise_scan=0.0), 1, rng)
    ready, target, explained, _ = prepared(sample.raw, sample.coil_images, Preparation())
    scan = ready.scan
    assert float(explained.min()) > 0.95
    assert scan.mask is not None
    error = forward(target, scan.sens, scan.mask) - scan.kspace
    assert float(error.abs().norm() / scan.kspace.abs().norm()) < 0.1


@pytest.mark.parametrize("settings", [SETTINGS, RELAXING], ids=["plain", "relaxing"])
def test_preparing_is_the_scanners(settings: Simulated, rng: np.random.Generator) -> None:
    """The scan of an example is what `prepare` gives of the raw data alone."""
    sample = draw(VOLUMES, settings, 2, rng)
    assert sample.raw is not None
    one, *_ = prepared(sample.raw, sample.coil_images, Preparation())
    alone = prepare(sample.raw, Preparation())
    torch.testing.assert_close(one.scan.kspace, alone.scan.kspace, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.scan.sens, alone.scan.sens, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(one.scale, alone.scale, rtol=1e-4, atol=0)
    assert float(rss(one.scan.sens).max()) == pytest.approx(1, abs=1e-4)


def test_compressed_coils_give_the_same_target(rng: np.random.Generator) -> None:
    sample = draw(VOLUMES, dataclasses.replace(SETTINGS, coils=(6, 6), snr=(1e4, 1e5)), 1, rng)
    magnitudes = []
    for preparation in (Preparation(), Preparation(coils=5, compression="svd")):
        ready, target, *_ = prepared(sample.raw, sample.coil_images, preparation)
        assert ready.scan.kspace is not None
        assert ready.scan.kspace.shape[-3] == (preparation.coils or 6)
        magnitudes.append(target.abs() * ready.scale[:, None, None, None])
    assert float((magnitudes[0] - magnitudes[1]).norm() / magnitudes[0].norm()) < 0.1


def test_echoes_decay_and_turn_as_the_maps_say(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slice has uniform relaxation and field, on the grid of the object itself."""
    monkeypatch.setattr(simulated, "random_r2", lambda image, *_: torch.full_like(image, 30.0))
    monkeypatch.setattr(simulated, "random_b0", lambda image, *_: torch.full_like(image, -12.0))
    layout = dataclasses.replace(draw_layout(RELAXING, rng), detail=1.0)
    image = torch.from_numpy(ball(layout.fine[0])[layout.fine[0] // 2])
    image = torch.nn.functional.interpolate(image[None, None], layout.fine)[0]
    sample = scanned(image, layout, RELAXING, rng)
    assert sample.coil_images is not None
    assert sample.region is not None
    assert 0.2 < float(sample.region.float().mean()) < 0.7
    r2, s0, b0, _ = fit(sample.coil_images[:, :, 0], TIMES)[0][:, sample.region[0]]
    assert float((r2 - 30).abs().max()) < 0.1
    assert float((b0 + 12).abs().max()) < 0.1
    assert float(s0.min()) > 0


def test_protocols_are_stretched(rng: np.random.Generator) -> None:
    settings = dataclasses.replace(RELAXING, echo_times=(TIMES, (0.004, 0.01)), echo_stretch=(0.8, 1.25))
    found = []
    for _ in range(12):
        raw = draw(VOLUMES, settings, 1, rng).raw
        assert raw is not None
        assert raw.echo_times is not None
        assert raw.kspace.shape[1] == len(raw.echo_times)
        found.append(tuple(raw.echo_times.tolist()))
    assert {len(times) for times in found} == {2, 4}
    assert len(set(found)) == 12
    for times in found:
        like = TIMES if len(times) == 4 else (0.004, 0.01)
        ratio = np.array(times) / like
        assert np.ptp(ratio) < 1e-5
        assert 0.8 <= ratio[0] <= 1.2501


def test_maps_of_tissue(rng: np.random.Generator) -> None:
    image = torch.from_numpy(ball()[20])
    inside = image > 0.1
    signs = []
    for _ in range(20):
        b0 = random_b0(image, 100.0, 0.0085, rng)
        r2 = random_r2(image, b0, Simulated(), rng)
        assert b0.dtype == r2.dtype == torch.float32
        assert 60 < float(b0[inside].abs().max()) < 100 + 1 / (3 * 0.0085) + 60
        assert abs(float((b0 * image).sum() / image.sum())) <= 1 / (3 * 0.0085)
        assert float(r2.min()) >= 8 * 0.2
        assert float(r2.max()) <= 150
        assert float(r2[inside].std()) > 0
        signs.append(float(b0[inside].min()) < 0 < float(b0[inside].max()))
    assert all(signs)
