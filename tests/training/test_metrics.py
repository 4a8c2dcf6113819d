"""Metrics against scikit-image, and by hand; losses from their definition."""

import numpy as np
import pytest
import torch

from training.losses import loss
from training.metrics import nmse, psnr, ssim
from training.options import Loss

metrics = pytest.importorskip("skimage.metrics")


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two slices of different brightness, and noisy versions."""
    y, x = np.mgrid[:40, :33] / 40
    target = np.stack([np.sin(7 * x) ** 2 + y, 1e-3 * (np.cos(9 * y) + 1)]).astype(np.float32)
    noise = rng.standard_normal(target.shape) * np.array([0.1, 2e-4])[:, None, None]
    return (target + noise).astype(np.float32), target


def test_ssim_and_psnr_are_scikit_images(pair: tuple[np.ndarray, np.ndarray]) -> None:
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


def test_metrics_by_hand() -> None:
    target = torch.ones(1, 8, 8)
    assert float(ssim(target, target)) == pytest.approx(1)
    assert float(psnr(target * 0.9, target)) == pytest.approx(20, abs=1e-4)
    assert float(nmse(target * 0.9, target)) == pytest.approx(0.01, rel=1e-4)
    assert ssim(torch.ones(2, 3, 9, 9), torch.ones(2, 3, 9, 9)).shape == (2, 3)


def test_scores_do_not_depend_on_the_scanners_units(pair: tuple[np.ndarray, np.ndarray]) -> None:
    image, target = (torch.from_numpy(x) for x in pair)
    for metric in (ssim, psnr, nmse):
        torch.testing.assert_close(metric(1e-6 * image, 1e-6 * target), metric(image, target), rtol=1e-3, atol=1e-4)


def test_the_loss_is_the_weighted_mean_of_its_terms() -> None:
    generator = torch.Generator().manual_seed(0)
    image, target = (torch.randn(2, 1, 16, 16, dtype=torch.complex64, generator=generator) for _ in range(2))
    parts = [Loss(ssim=1, l1=0), Loss(ssim=0, l1=1), Loss(ssim=0, l1=0, complex_l1=1)]
    each = [float(loss(image, target, part)) for part in parts]
    assert float(loss(image, target, Loss(ssim=2, l1=1, complex_l1=1))) == pytest.approx(
        (2 * each[0] + sum(each[1:])) / 4
    )
    peak = target.abs().amax(dim=(-2, -1), keepdim=True)
    assert each[1] == pytest.approx(float(((image.abs() - target.abs()).abs() / peak).mean()), rel=1e-4)
    assert each[2] == pytest.approx(float(((image - target).abs() / peak).mean()), rel=1e-4)
    assert float(loss(target, target, Loss(complex_l1=1.0))) == pytest.approx(0, abs=1e-5)


def test_the_loss_has_a_gradient_where_the_image_vanishes() -> None:
    image = torch.zeros(1, 1, 16, 16, dtype=torch.complex64, requires_grad=True)
    target = torch.zeros(1, 1, 16, 16, dtype=torch.complex64)
    target[..., 4:8, 4:8] = 1
    loss(image, target, Loss(complex_l1=1.0)).backward()
    assert image.grad is not None
    assert torch.isfinite(torch.view_as_real(image.grad)).all()
