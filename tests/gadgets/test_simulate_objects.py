"""Simulated objects are band-limited: what the scanner sees of them is what the formulas of continuous objects say."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gadgets.simulate import Settings
from gadgets.simulate.objects import planes
from mrnets.physics import simulate
from mrnets.physics.fourier import fftc, resize

FOV = 256.0
SIGMA, CENTRE = 14.0, (9.3, -21.7, 12.4)  # mm; of a Gaussian, and its place along z, y, x


def ellipses_in_kspace(shape: tuple[int, int]) -> NDArray[np.complex128]:
    """The Fourier transform of the Shepp-Logan phantom: a Bessel function for each ellipse (Van de Walle et al.,
    IEEE TMI 19:1160-1167, 2000)."""
    special = pytest.importorskip("scipy.special")
    ky, kx = ((np.arange(n) - n // 2) / 2 for n in shape)  # cycles per half field of view
    up, total = -ky[:, None], np.zeros(shape, complex)
    for intensity, a, b, x, y, degrees in simulate.SHEPP_LOGAN:
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        radius = 2 * np.pi * np.hypot(a * (c * kx + s * up), b * (c * up - s * kx))
        disc = np.where(radius > 0, 2 * special.j1(radius) / np.where(radius > 0, radius, 1), 1)
        total += intensity * np.pi * a * b / 4 * disc * np.exp(-2j * np.pi * (kx * x + up * y))
    return total * np.sqrt(shape[0] * shape[1])


def gaussian(z: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(z, y, x) at places in mm."""
    along = [np.exp(-((w - c) ** 2) / (2 * SIGMA**2)) for w, c in zip((z, y, x), CENTRE, strict=True)]
    return along[0][:, None, None] * along[1][:, None] * along[2]


@pytest.fixture
def blob(tmp_path: Path) -> str:
    """A Gaussian in voxels of 2.5, 1 and 1.5 mm (z, y, x)."""
    nibabel = pytest.importorskip("nibabel")
    places = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in ((61, 2.5), (160, 1.0), (105, 1.5))]
    affine = np.diag([-1.5, -1.0, 2.5, 1.0])  # left, posterior, superior
    nibabel.save(nibabel.Nifti1Image(gaussian(*places).T.astype(np.float32), affine), tmp_path / "blob.nii")
    return str(tmp_path / "blob.nii")


@pytest.mark.parametrize("shape", [(80, 100), (101, 95)])
def test_the_phantom_is_the_analytic_one(shape: tuple[int, int]) -> None:
    (plane,) = planes(Settings(fov=FOV), np.zeros(1), shape)
    inner = (79, 95)  # the highest frequency of an even grid has no phase in a real image
    found, expected = (
        resize(kspace, inner) for kspace in (fftc(plane.astype(np.complex64)), ellipses_in_kspace(shape))
    )
    assert np.linalg.norm(found - expected) < 0.015 * np.linalg.norm(expected)


@pytest.mark.parametrize("matrix", [100, 128, 160, 161, 256])
def test_no_grid_lies_over_anatomy(blob: str, matrix: int) -> None:
    """At 128 and 160 the spacing of the pixels and that of the voxels have a beat, which must not be seen."""
    settings = Settings(volume=blob, fov=FOV, thickness=1e-3)
    height = CENTRE[0] - 10
    (plane,) = planes(settings, np.array([height]), (matrix, matrix))
    pixels = (np.arange(matrix) - matrix // 2) * FOV / matrix
    expected = gaussian(np.array([height]), pixels, pixels)[0]
    plane *= expected.max() / plane.max()  # bright tissue is 1
    np.testing.assert_allclose(plane, expected, atol=2e-3 * expected.max())


@pytest.mark.parametrize("thickness", [2.0, 4.0, 7.3])
def test_slices_have_the_mean_over_their_thickness(blob: str, thickness: float) -> None:
    settings = Settings(volume=blob, fov=FOV, thickness=thickness)
    where = np.arange(-20, 21, 0.7)
    found = np.array([plane.sum() for plane in planes(settings, where, (64, 64))])
    inside = (np.arange(101) - 50) / 100 * thickness
    expected = np.exp(-((where[:, None] + inside - CENTRE[0]) ** 2) / (2 * SIGMA**2)).mean(axis=1)
    np.testing.assert_allclose(found / found.max(), expected / expected.max(), atol=6e-3)


@pytest.mark.parametrize("partitions", [32, 45])
def test_a_volume_is_band_limited_along_its_partitions_too(blob: str, partitions: int) -> None:
    settings = Settings(volume=blob, fov=FOV, thickness=4.0, slices=partitions, offset=5.0, three_d=True)
    where = (np.arange(partitions) - partitions // 2) * 4.0 + 5.0
    found = np.stack(list(planes(settings, where, (64, 64))))
    pixels = (np.arange(64) - 32) * FOV / 64
    expected = gaussian(where, pixels, pixels)
    assert np.linalg.norm(found * expected.max() / found.max() - expected) < 0.01 * np.linalg.norm(expected)
