"""Metrics by hand, against scikit-image, and against brute force."""

import math

import numpy as np
import pytest
import torch

from mrnets.classes import classes_of, decided
from mrnets.contract import Estimate, Scan
from training.data import Example
from training.metrics import ald, avd, dice, f1, hd95, iou, lesion_f1, nmse, psnr, scores, ssim

metrics = pytest.importorskip("skimage.metrics")


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two slices of different brightness, and noisy versions."""
    y, x = np.mgrid[:40, :33] / 40
    target = np.stack([np.sin(7 * x) ** 2 + y, 1e-3 * (np.cos(9 * y) + 1)]).astype(np.float32)
    noise = rng.standard_normal(target.shape) * np.array([0.1, 2e-4])[:, None, None]
    return (target + noise).astype(np.float32), target


def test_ssim_and_psnr_are_scikit_images(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Also of the slice whose maximum is far below 1: the data range is not floored."""
    image, target = pair
    tensors = torch.from_numpy(image), torch.from_numpy(target)
    for n in range(2):
        top = float(target[n].max())
        wanted = metrics.structural_similarity(target[n], image[n], data_range=top)
        assert float(ssim(*tensors)[n]) == pytest.approx(wanted, abs=2e-5)
        wanted = metrics.peak_signal_noise_ratio(target[n], image[n], data_range=top)
        assert float(psnr(*tensors)[n]) == pytest.approx(wanted, abs=1e-3)
        wanted = metrics.normalized_root_mse(target[n], image[n]) ** 2
        assert float(nmse(*tensors)[n]) == pytest.approx(wanted, rel=1e-4)
    wanted = metrics.structural_similarity(target[0], image[0], data_range=5)
    assert float(ssim(*tensors, data_range=5.0)[0]) == pytest.approx(wanted, abs=2e-5)


def test_metrics_of_images_by_hand() -> None:
    target = torch.ones(1, 8, 8)
    assert float(ssim(target, target)) == pytest.approx(1)
    assert float(psnr(target * 0.9, target)) == pytest.approx(20, abs=1e-4)
    assert float(nmse(target * 0.9, target)) == pytest.approx(0.01, rel=1e-4)
    assert ssim(torch.ones(2, 3, 9, 9), torch.ones(2, 3, 9, 9)).shape == (2, 3)


def test_scores_do_not_depend_on_the_scanners_units(pair: tuple[np.ndarray, np.ndarray]) -> None:
    image, target = (torch.from_numpy(x) for x in pair)
    for metric in (ssim, psnr, nmse):
        torch.testing.assert_close(metric(1e-6 * image, 1e-6 * target), metric(image, target), rtol=1e-3, atol=1e-4)


def mask(*points: tuple[int, ...], shape: tuple[int, ...] = (32, 40)) -> np.ndarray:
    made = np.zeros(shape, bool)
    for point in points:
        made[point] = True
    return made


def square(y: int, x: int, size: int = 5, width: int = 5) -> np.ndarray:
    made = np.zeros((32, 40), bool)
    made[y : y + size, x : x + width] = True
    return made


EMPTY = np.zeros((32, 40), bool)


def test_overlaps_by_hand() -> None:
    whole, half = square(4, 4, 4, 8), square(4, 4, 4, 4)
    assert (dice(half, whole), f1(half, whole), iou(half, whole)) == pytest.approx((2 / 3, 2 / 3, 0.5))
    for metric in (dice, f1, iou):
        assert metric(whole, whole) == 1
        assert metric(EMPTY, EMPTY) == 1
        assert metric(whole, EMPTY) == metric(EMPTY, whole) == 0


@pytest.mark.parametrize("far", [10, 20])
def test_hausdorff_distance_of_objects_that_far_apart(far: int) -> None:
    assert hd95(square(3, 3), square(3, 3 + far)) == far
    assert hd95(mask((1, 2)), mask((1 + far, 2))) == far


def test_hausdorff_distance_at_its_ends() -> None:
    assert hd95(square(3, 3), square(3, 3)) == 0
    assert hd95(EMPTY, EMPTY) == 0
    assert hd95(square(3, 3), EMPTY) == hd95(EMPTY, square(3, 3)) == pytest.approx(math.hypot(31, 39))
    assert hd95(np.stack([square(3, 3)] * 3), np.stack([square(3, 8)] * 3)) == 5


@pytest.mark.parametrize("shape", [(9, 11), (5, 6, 7)])
def test_hausdorff_distance_is_brute_forces(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    """All pairs of surface pixels; a surface pixel has a neighbour outside, or lies on the rim."""

    def surface(made: np.ndarray) -> np.ndarray:
        points = np.argwhere(made)
        steps = np.concatenate([np.eye(made.ndim, dtype=int), -np.eye(made.ndim, dtype=int)])
        inside = {tuple(p) for p in points}
        return np.array([p for p in points if any(tuple(p + s) not in inside for s in steps)])

    for share in (0.02, 0.1, 0.5, 0.9):
        a, b = (rng.random(shape) < share for _ in range(2))
        a.flat[0] = b.flat[-1] = True
        gaps = np.linalg.norm(surface(a)[:, None] - surface(b)[None], axis=-1)
        wanted = max(np.percentile(gaps.min(axis=1), 95), np.percentile(gaps.min(axis=0), 95))
        assert hd95(a, b) == pytest.approx(wanted)


def test_lesions_by_hand() -> None:
    """Three true lesions, one of which is touched by a corner; two estimated ones hit one and miss one."""
    true = square(2, 2, 3, 3) | mask((5, 5)) | square(12, 2) | square(22, 20)
    estimated = square(4, 4, 2, 2) | square(12, 30)
    assert ald(estimated, true) == 1
    assert avd(estimated, true) == 9 + 1 + 25 + 25 - 4 - 25
    # found 1, missed 2, false 1
    assert lesion_f1(estimated, true) == pytest.approx(1 / (1 + 3 / 2))
    bridge = square(2, 2, 20, 2)  # one estimate over two lesions finds both
    assert lesion_f1(bridge, true) == pytest.approx(2 / (2 + 1 / 2))
    assert (lesion_f1(EMPTY, EMPTY), lesion_f1(EMPTY, true), lesion_f1(true, EMPTY)) == (1, 0, 0)
    assert (ald(EMPTY, true), avd(EMPTY, EMPTY)) == (3, 0)


def example(**fields: object) -> Example:
    return Example(scan=Scan(), names=("a", "b"), weight=torch.ones(2), **fields)  # type: ignore[arg-type]


def test_scores_of_images(pair: tuple[np.ndarray, np.ndarray]) -> None:
    image, target = (torch.from_numpy(x)[:, None].to(torch.complex64) for x in pair)
    target[1] = 0
    got = scores(Estimate(image=image * 1j), example(target=target))
    assert set(got) == {"ssim", "psnr", "nmse"}
    assert got["ssim"][0] == ssim(image[0].abs(), target[0].abs())[0]
    assert all(torch.isnan(value[1]) for value in got.values())


def test_scores_of_maps() -> None:
    region = torch.zeros(2, 8, 8, dtype=torch.bool)
    region[0, :4] = True
    truth = {"R2*": torch.full((2, 8, 8), 30.0), "S0": torch.full((2, 8, 8), 4.0), "phase": torch.full((2, 8, 8), 3.1)}
    guess = {"R2*": truth["R2*"] + 3, "S0": truth["S0"] * 0.8, "phase": truth["phase"] + 0.1 - 2 * math.pi}
    guess = {name: m + 1e3 * ~region for name, m in guess.items()}
    got = scores(Estimate(maps=guess), example(maps=truth, region=region))
    wanted = {"nmse R2*": 0.01, "mae R2*": 3, "nmse S0": 0.04, "mae S0": 0.2}
    wanted |= {"nmse phase": 4 * math.sin(0.05) ** 2, "mae phase": 0.1}
    assert {name: float(value[0]) for name, value in got.items()} == pytest.approx(wanted, rel=1e-3)
    assert all(torch.isnan(value[1]) for value in got.values())


def test_scores_of_segmentations() -> None:
    labels = torch.zeros(2, 3, 8, 8, dtype=torch.bool)
    labels[:, 1, :4], labels[:, 2, 4:6] = True, True
    labels[:, 0] = ~labels.any(dim=1)
    logits = labels.float()
    logits[1] = torch.eye(3)[0][:, None, None]  # all background
    got = scores(Estimate(logits=logits), example(labels=labels), ("background", "GM", "WM"))
    assert set(got) == {"dice GM", "dice WM", "dice", "f1", "iou", "hd95"}
    assert all(value.tolist() == [1, 0] for name, value in got.items() if name != "hd95")
    assert got["hd95"].tolist() == pytest.approx([0, math.hypot(7, 7)])

    lesion = labels[:, 1:2]
    got = scores(Estimate(logits=lesion.float() - 0.5), example(labels=lesion), ("lesion",))
    assert set(got) == {"dice", "f1", "iou", "hd95", "ald", "avd", "lesion_f1"}
    assert got["lesion_f1"].tolist() == [1, 1]


def test_f1_counts_the_pixels_of_all_classes_together() -> None:
    labels = torch.zeros(2, 2, 8, 8, dtype=torch.bool)
    labels[:, 0, :6], labels[:, 1, 7:, :4] = True, True
    guess = labels.clone()
    guess[:, 1] = False
    got = scores(Estimate(logits=guess.float() - 0.5), example(labels=labels), ("tumour", "core"))
    assert float(got["dice"][0]) == 0.5
    assert float(got["f1"][0]) == pytest.approx(2 * 48 / (48 + 52))


def test_logits_become_masks() -> None:
    logits = torch.tensor([[0.5, -1.0], [2.0, -2.0], [1.0, -3.0]])[None, :, :, None]
    one = decided(logits, classes_of(("background", "GM", "WM")))[0, :, :, 0].T.tolist()
    assert one == [[False, True, False], [True, False, False]]
    many = decided(logits, classes_of(("GM", "WM", "CSF")))[0, :, :, 0].T.tolist()
    assert many == [[True] * 3, [False] * 3]
