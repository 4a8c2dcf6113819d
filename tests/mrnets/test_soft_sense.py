"""Soft SENSE (Uecker 2014): maps with a weight instead of a hard crop, and two sets where the object is folded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from mrnets import store
from mrnets.contract import Raw, Scan
from mrnets.ending import ended
from mrnets.errors import InputError
from mrnets.physics.coils import norm
from mrnets.physics.espirit import AT_CROP, Espirit, espirit
from mrnets.physics.fourier import fftc, resize
from mrnets.preparation import Preparation
from mrnets.prepare import prepare
from mrnets.restore import restore
from mrnets.stages import sense_raw
from mrnets.trust import classical, doubt, examined
from tests.physics.test_espirit import birdcage, grid, head

SIZE = 96
PLAIN = Preparation(normalisation="none", consistency=None)


def scan_of(images: np.ndarray, *, noise: float, lines: int, step: int, width: int = SIZE) -> Raw:
    """Every `step`-th line and `lines` central ones of coil images (coil, y, x), with noise of variance 1."""
    rng = np.random.default_rng(0)
    white = rng.standard_normal((2, *images.shape))
    kspace = (fftc(images) / noise + (white[0] + 1j * white[1]) / 2**0.5).astype(np.complex64)
    y = np.arange(images.shape[-2]) - images.shape[-2] // 2
    mask = np.broadcast_to(((y % step == 0) | (abs(y + 0.5) < lines / 2))[:, None], images.shape[-2:])
    block = resize(kspace, (lines, width))
    return Raw(
        kspace=(kspace * mask)[None, None],
        mask=mask[None, None, None].copy(),
        calibration=block[None, None],
        whitened=True,
    )


def error(image: Tensor, truth: np.ndarray, where: np.ndarray) -> float:
    """Relative to the truth, in magnitude."""
    difference = np.abs(image[0, 0].numpy()) - np.abs(truth)
    return float(np.linalg.norm(difference[where]) / np.linalg.norm(truth[where]))


def test_a_small_object_beside_a_large_one_stays() -> None:
    y, x = grid((SIZE, SIZE))
    small = (x - 0.9) ** 2 + (y - 0.1) ** 2 < 0.06**2
    objects = ((x**2 + y**2 < 0.55**2) + 0.1 * small) * np.exp(1j * (1.5 * x + 2 * y**2))
    raw = scan_of(birdcage(8, (SIZE, SIZE)) * objects, noise=0.01, lines=10, step=2, width=10)
    scan = prepare(raw, PLAIN).scan
    size = norm(scan.sens)
    hard = dataclasses.replace(scan, sens=scan.sens * ((size >= AT_CROP) / size.clamp_min(1e-6))[:, :, None])
    network = ended(store.create("cgsense"), PLAIN, "each")

    def lost(of: Scan) -> float:
        return error(network(of).image * 0.01, objects, small)

    with torch.inference_mode():
        assert lost(hard) > 0.4
        assert lost(scan) < 0.12


def folded_scan(*, echoes: int = 1, step: int = 2) -> tuple[Raw, np.ndarray]:
    """A head of 160 lines in a field of view of 120, and the root sum of squares (y, x) of its coil images."""
    images = birdcage(8, (160, SIZE)) * head((160, SIZE))
    whole = np.zeros((8, 360, SIZE), np.complex128)
    whole[:, 100:260] = images
    seen = whole.reshape(8, 3, 120, SIZE).sum(axis=1)
    raw = scan_of(seen, noise=0.01, lines=20, step=step)
    turned = np.exp(0.5j * np.arange(echoes, dtype=np.float32))[:, None, None, None]
    return dataclasses.replace(raw, kspace=raw.kspace * turned), np.linalg.norm(seen, axis=0)


def small_l1varnet() -> torch.nn.Module:
    torch.manual_seed(0)
    return store.create("l1varnet", cascades=2, channels=8, blocks=1).eval()


NETWORKS = {name: lambda name=name: store.create(name) for name in ("cgsense", "l1wavelet")} | {
    "l1varnet": small_l1varnet
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_head_larger_than_the_field_of_view_needs_two_sets(name: str) -> None:
    raw, truth = folded_scan()
    everywhere = np.ones_like(truth, dtype=bool)
    lost = []
    for sets in (1, 2):
        preparation = Preparation(sets=sets, consistency=PLAIN.consistency if name != "l1varnet" else 0.035)
        prepared = prepare(raw, preparation)
        assert prepared.scan.sens.shape[1] == sets
        with torch.inference_mode():
            image = restore(ended(NETWORKS[name](), preparation, "each")(prepared.scan), prepared).image
        assert image.shape == (1, 1, 120, SIZE)
        lost.append(error(image * 0.01, truth, everywhere))
    assert lost[1] < {"cgsense": 0.1, "l1wavelet": 0.05, "l1varnet": 0.06}[name]
    assert lost[0] > 0.18


@pytest.mark.parametrize("name", NETWORKS)
def test_a_second_set_of_zeros_changes_nothing(name: str) -> None:
    """A slice that fits into the field of view gets one, where its neighbours do not."""
    scan = prepare(
        scan_of(birdcage(6, (40, 32)) * head((40, 32)), noise=0.02, lines=12, step=2, width=32), Preparation()
    ).scan
    both = dataclasses.replace(scan, sens=torch.cat((scan.sens, torch.zeros_like(scan.sens)), dim=1))
    network = ended(NETWORKS[name](), Preparation(), "each")
    with torch.inference_mode():
        torch.testing.assert_close(network(both).image, network(scan).image, atol=1e-4, rtol=0)


def test_echoes_of_a_folded_scan() -> None:
    """The maps have the phase of the first echo; each further echo is turned by half a radian."""
    prepared = prepare(folded_scan(echoes=3)[0], dataclasses.replace(PLAIN, sets=2))
    with torch.inference_mode():
        estimate = ended(store.create("cgsense"), PLAIN, "each")(prepared.scan)
    assert estimate.image.shape == (1, 3, 120, SIZE)
    assert estimate.unweighted.shape == (1, 3, 2, 120, SIZE)
    first, *others = estimate.image[0]
    strong = first.abs() > 0.3 * first.abs().max()
    for n, other in enumerate(others, start=1):
        torch.testing.assert_close(
            other[strong], first[strong] * np.exp(0.5j * n), atol=0.03 * float(first.abs().max()), rtol=0
        )


def test_the_self_check_sees_both_sets() -> None:
    """The image agrees with the data as well as the noise allows, which the first set alone does not explain."""
    raw, _ = folded_scan()
    trusts = []
    for sets in (1, 2):
        preparation = Preparation(sets=sets, consistency=None)
        scan = prepare(raw, preparation).scan
        network = ended(store.create("l1wavelet"), preparation, "each")
        with torch.inference_mode():
            trusts += examined(network, scan, network(scan), classical(scan))
    one, two = trusts
    assert one.residual > 1.5
    assert 0.8 < two.residual < 1.1
    assert two.prediction < 0.2 * one.prediction
    assert two.prediction == pytest.approx(two.reference, rel=0.1)
    assert doubt(two) == ""


def test_networks_of_one_set_say_so_and_their_preparation_takes_the_first() -> None:
    raw, _ = folded_scan()
    sensed = sense_raw(raw)
    assert sensed.sens.shape[1] == 2
    scan = prepare(sensed, Preparation()).scan
    torch.testing.assert_close(scan.sens, torch.from_numpy(sensed.sens[:, :1]))
    with pytest.raises(InputError, match="varnet takes one set of coil maps, and the scan has 2 for 1 echo"):
        store.create("varnet", cascades=1, channels=4, pooling_layers=1)(prepare(sensed, Preparation(sets=2)).scan)


def test_training_goes_through_both_sets() -> None:
    scan = prepare(folded_scan()[0], Preparation(sets=2)).scan
    network = small_l1varnet().train()
    estimate = ended(network, Preparation(sets=2), "each")(scan)
    assert all(step.image.shape == estimate.image.shape for step in estimate.steps)
    estimate.image.abs().sum().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_sets_are_added_slice_by_slice_and_only_where_needed() -> None:
    folded, _ = folded_scan()
    fits = scan_of(
        birdcage(8, (120, SIZE)) * head((120, SIZE))[::-1] * (grid((120, SIZE))[0] ** 2 < 0.5),
        noise=0.01,
        lines=20,
        step=2,
    )
    assert sense_raw(fits).sens.shape[1] == 1
    both = dataclasses.replace(
        folded,
        kspace=np.concatenate((fits.kspace, folded.kspace)),
        calibration=np.concatenate((fits.calibration, folded.calibration)),
    )
    sens = sense_raw(both).sens
    np.testing.assert_allclose(sens[:1, :1], sense_raw(fits).sens, atol=1e-4)
    assert not sens[0, 1].any()
    np.testing.assert_allclose(sens[1:], sense_raw(folded).sens, atol=1e-4)
    assert sense_raw(both, options=Espirit(sets=1)).sens.shape[1] == 1
    empty = dataclasses.replace(fits, calibration=0 * fits.calibration)
    assert not sense_raw(empty).sens.any()


def test_a_mean_over_images_is_not_as_exact_as_its_noise() -> None:
    """Every other calibration line is 10 % brighter: its ghost must not pass for a part of the object."""
    images = birdcage(8, (SIZE, SIZE)) * head((SIZE, SIZE))
    raw = scan_of(images, noise=0.0005, lines=24, step=2)
    drift = np.where(np.arange(24) % 2, 1.1, 1.0)[:, None]
    mean = dataclasses.replace(raw, calibration=(raw.calibration * drift).astype(np.complex64), calibration_images=2)
    inside = np.abs(head((SIZE, SIZE))) > 0.1

    def of(scan: Raw) -> float:
        network = ended(store.create("cgsense"), PLAIN, "each")
        made = prepare(scan, PLAIN)
        image = restore(network(made.scan), made).image
        return error(image, np.abs(head((SIZE, SIZE))) / 0.0005, inside)

    assert of(mean) < 0.02
    assert of(mean) < 0.7 * of(dataclasses.replace(mean, calibration_images=1))


def test_one_coil_has_one_set() -> None:
    """Whatever its image: a second map of one coil would count the signal twice."""
    rng = np.random.default_rng(1)
    raw = scan_of(rng.standard_normal((1, 40, 32)) + 0j, noise=0.01, lines=40, step=1, width=32)
    assert sense_raw(raw).sens.shape[1] == 1
    assert prepare(raw, Preparation(sets=2)).scan.sens.shape[1] == 1
    with pytest.raises(InputError, match="2 sets of maps need as many coils, and the data have one"):
        espirit(raw.calibration[:, 0], (40, 32), maps=2)


@pytest.mark.parametrize("coils", [2, 4, 8])
@pytest.mark.parametrize("noise", [0.01, 0.1, 1.0])
def test_noise_is_not_taken_for_a_fold(coils: int, noise: float) -> None:
    small = np.zeros((SIZE, SIZE), complex)
    small[12:84, 12:84] = head((72, 72))
    raw = scan_of(birdcage(coils, (SIZE, SIZE)) * small, noise=noise, lines=24, step=2)
    assert sense_raw(raw).sens.shape[1] == 1
