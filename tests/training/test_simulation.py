"""Scans simulated on the training device: the same for a seed, consistent with what they claim, and like real ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mrnets.errors import InputError
from mrnets.physics import simulate
from mrnets.physics.fourier import fftc, ifftc
from mrnets.prepare import combine
from training.simulation import (
    Images,
    Pool,
    Simulated,
    Simulation,
    draw,
    load_pool,
    pooled,
    save_images,
    validation,
)
from training.simulation.coils import NODES, Loops, biot_savart
from training.simulation.draws import Draws
from training.simulation.fields import (
    band_limited,
    between,
    chebyshev,
    checkerboard,
    cosines,
    energy,
    keys,
    periodic,
    smooth,
    turns,
    waves,
)
from training.simulation.gather import gathered
from training.simulation.images import greys
from training.simulation.maps import low_resolution
from training.simulation.phantoms import draw_phantom
from training.simulation.pool import objects
from training.simulation.properties import amplification, beyond, imaginary
from training.simulation.scans import _folded

SMALL = Simulation(
    phantoms=0.0,
    matrix=(48, 72),
    shapes=3,
    layouts=6,
    coils=(4, 9),
    masks_each=6,
    grid=(72, 96),
    calibration=(12, 16),
    folded=0.0,
)
ALL = dataclasses.replace(
    SMALL, masks=("equispaced1d",), acceleration=(1.0, 1.0), partial_fourier=0.0, whole_maps=1.0, calibration=(24, 24)
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("pool") / "pool.npz"
    images = [simulate.phantom((60 + 8 * n, 90 - 6 * n)) for n in range(4)]
    images += [np.clip(rng.normal(0.6, 0.2, (70, 60)), 0, 2).astype(np.float32)]
    save_images(path, Images(tuple(map(greys, images)), ("phantom",) * 4 + ("texture",)))
    return path


def pool_of(file: Path, options: Simulation) -> Pool:
    return load_pool(file, "cpu", options)


def batches(file: Path, options: Simulation, count: int, size: int = 4) -> list[Simulated]:
    pool = pool_of(file, options)
    return [draw(pool, options, seed=1, number=n, size=size) for n in range(count)]


def test_batch_is_a_function_of_seed_and_number(file: Path) -> None:
    first, again = (draw(pool_of(file, SMALL), SMALL, seed=5, number=9, size=3) for _ in range(2))
    assert torch.equal(first.scan.kspace, again.scan.kspace)
    assert torch.equal(first.target, again.target)
    other = draw(pool_of(file, SMALL), SMALL, seed=5, number=10, size=3)
    assert first.target.shape != other.target.shape or not torch.equal(first.target, other.target)


def test_scans_have_the_contract_and_the_scale_of_prepared_ones(file: Path) -> None:
    for made in batches(file, SMALL, 6):
        scan = made.scan
        batch, _, coils, y, x = scan.kspace.shape
        assert scan.mask.shape == (batch, 1, 1, y, x)
        assert scan.mask.dtype == torch.bool
        assert scan.sens.shape == (batch, 1, coils, y, x)
        assert made.target.shape == (batch, 1, y, x)
        assert scan.noise.shape == (batch,)
        assert not torch.any(scan.kspace[~scan.mask.expand(scan.kspace.shape)])
        zero_filled = combine(ifftc(scan.kspace), scan.sens)
        assert torch.allclose(zero_filled.abs().amax((1, 2, 3)), torch.ones(batch), atol=1e-4)
        assert scan.sens.abs().square().sum(2).max() < 1 + 1e-4


def test_noise_is_what_the_scan_says(file: Path) -> None:
    for made in batches(file, ALL, 4):
        scan = made.scan
        error = combine(ifftc(scan.kspace), scan.sens) - made.target
        measured = error.abs().square().mean((1, 2, 3)).sqrt()
        assert torch.allclose(measured, made.scan.noise, rtol=0.1)


def test_data_are_those_of_the_target_but_for_noise_and_the_error_of_the_maps(file: Path) -> None:
    for made in batches(file, ALL, 4):
        scan = made.scan
        rest = scan.kspace - fftc(made.target[:, :, None] * scan.sens)
        signal = scan.kspace.abs().square().mean((1, 2, 3, 4))
        expected = made.scan.noise.square() + made.unexplained * (signal - made.scan.noise.square())
        measured = rest.abs().square().mean((1, 2, 3, 4))
        assert torch.allclose(measured, expected, rtol=0.15)


def test_maps_leave_a_few_per_cent_unexplained(file: Path) -> None:
    quiet = dataclasses.replace(SMALL, snr=(1000.0, 3000.0))
    left = torch.cat([made.unexplained for made in batches(file, quiet, 8)])
    assert left.min() > 0
    assert 0.001 < left.median() < 0.04
    assert (left > 0.05).sum() <= 1  # so it is in one of 250 slices, where a phase cancels the low-resolution signal


def test_low_resolution_phase_is_in_the_maps(file: Path) -> None:
    smooth = dataclasses.replace(
        ALL, local_phase=(1e-4, 2e-4), detail_phase=0.0, fat_phase=0.0, dipoles=0, bright=0.0, snr=(1000.0, 1000.0)
    )
    for made in batches(file, smooth, 4):
        energy = made.target.real.square().sum((1, 2, 3)) / made.target.abs().square().sum((1, 2, 3))
        assert energy.min() > 0.9
        assert torch.all(made.target.real.sum((1, 2, 3)) > 0)


def test_local_phase_is_left(file: Path) -> None:
    strong = dataclasses.replace(ALL, local_phase=(0.4, 0.5), cut_off=(30.0, 40.0), snr=(1000.0, 1000.0))
    weak = dataclasses.replace(strong, local_phase=(1e-4, 2e-4))
    imaginary = [
        torch.cat(
            [
                b.target.imag.square().sum((1, 2, 3)) / b.target.abs().square().sum((1, 2, 3))
                for b in batches(file, options, 4)
            ]
        ).median()
        for options in (strong, weak)
    ]
    assert imaginary[0] > 2 * imaginary[1]


def test_coils_follow_biot_and_savart() -> None:
    loops = simulate.random_loops(np.random.default_rng(3), 5)
    batch = Loops(*(torch.from_numpy(v).float()[None] for v in (loops.centre, loops.normal, loops.radius)))
    direction, height = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([0.2])
    shape = (40, 56)
    nodes = biot_savart(batch, direction, height, 1.0)
    drawn = between(nodes, [chebyshev(n, NODES, torch.device("cpu")) for n in shape])[0].numpy()
    wanted = simulate.sensitivities(loops, shape, z=0.2)
    # The two take another pair of transverse axes, which turns the phase of all coils.
    factor = np.vdot(drawn, wanted) / np.vdot(drawn, drawn)
    assert np.linalg.norm(factor * drawn - wanted) < 0.01 * np.linalg.norm(wanted)


def test_low_resolution_images_are_those_of_the_calibration_alone() -> None:
    draws = Draws(torch.Generator().manual_seed(0), 2)
    kspace = draws.complex_normal(3, 40, 48)
    calibration = torch.tensor([[12, 24], [9, 30]])
    low, gain = low_resolution(kspace * checkerboard((40, 48), draws.device), calibration)
    spectrum = fftc(between(low, [turns(n, -12, 11, draws.device) for n in (40, 48)]))
    for n, (height, width) in enumerate([(12, 24), (9, 24)]):
        rows, columns = (np.arange(size) - size // 2 + full // 2 for size, full in ((height, 40), (width, 48)))
        inside = torch.zeros(40, 48, dtype=torch.bool)
        inside[np.ix_(rows, columns)] = True
        assert spectrum[n][:, ~inside].abs().max() < 1e-5
        assert torch.allclose(spectrum[n, :, 20, 24], kspace[n, :, 20, 24], atol=1e-5)
    many = Draws(torch.Generator().manual_seed(1), 1).complex_normal(400, 40, 48)
    coefficients, gain = low_resolution(many, calibration[:1])
    noise = between(coefficients, [turns(n, -12, 11, draws.device) for n in (40, 48)])
    assert noise.abs().square().mean().item() == pytest.approx(gain.item(), rel=0.02)


def test_products_of_complex_fields_with_real_matrices_are_the_complex_ones() -> None:
    draws = Draws(torch.Generator().manual_seed(3), 2)
    field, rows, columns = draws.complex_normal(3, 5, 4), draws.normal(7, 5)[0], draws.normal(6, 4)[0]
    expected = rows.to(field.dtype) @ field @ columns.to(field.dtype).mT
    assert torch.allclose(between(field, (rows, columns)), expected, atol=1e-5)


def test_smooth_fields_have_mean_0_and_variance_1() -> None:
    draws, shape = Draws(torch.Generator().manual_seed(4), 6), (72, 96)
    cycles = draws.log_uniform((4.0, 20.0))
    fields = {
        "waves": between(band_limited(draws, cycles, 20), [waves(n, 20, draws.device) for n in shape]),
        "cosines": between(smooth(draws, 4), [cosines(n, 4, draws.device) for n in shape]),
    }
    for field in fields.values():
        assert field.mean((1, 2)).abs().max() < 0.05
        assert torch.allclose(field.square().mean((1, 2)), torch.ones(6), atol=0.05)
    spectrum = fftc(fields["waves"] + 0j).abs().square()
    y, x = (torch.arange(n) - n // 2 for n in shape)
    beyond_cycles = (y[:, None] ** 2 + x**2).sqrt() >= cycles[:, None, None]
    assert (spectrum * beyond_cycles).sum() < 1e-6 * spectrum.sum()


def test_grids_between_which_maps_are_made_lose_nothing() -> None:
    """The energy of low-resolution images has twice their bandwidth; 47 samples hold that of 24 coefficients."""
    draws = Draws(torch.Generator().manual_seed(5), 1)
    low, device = draws.complex_normal(3, 24, 24), draws.device
    expected = energy(between(low, [turns(n, -12, 11, device) for n in (64, 60)]))
    coarse = energy(between(low, [turns(47, -12, 11, device)] * 2))
    assert torch.allclose(between(coarse, [periodic(n, 47, device) for n in (64, 60)]), expected, rtol=1e-3, atol=0.1)
    assert torch.allclose(keys(40, 11, device).sum(1), torch.ones(40), atol=1e-6)


def test_folding_keeps_the_sum_and_the_middle() -> None:
    images = torch.rand(2, 3, 24, 8)
    folded = _folded(images, 16)
    assert folded.shape == (2, 3, 16, 8)
    assert torch.allclose(folded.sum(-2), images.sum(-2), atol=1e-5)
    assert torch.equal(folded[..., 4:12, :], images[..., 8:16, :])


def test_folded_batches_have_maps_too(file: Path) -> None:
    options = dataclasses.replace(SMALL, folded=1.0)
    for made in batches(file, options, 3):
        assert torch.isfinite(torch.view_as_real(made.target)).all()
        assert made.unexplained.max() < 0.9


def test_a_large_batch_has_fewer_slices(file: Path) -> None:
    options = dataclasses.replace(SMALL, samples=3 * 4 * 48 * 48)
    for made in batches(file, options, 4, size=8):
        assert 1 <= len(made.scan.noise) <= 3


def test_phantoms_are_among_the_objects(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.simulation.pool.PHANTOMS", 3)
    options = dataclasses.replace(SMALL, phantoms=1.0)
    pool = pool_of(file, options)
    assert len(pool.tiles) > pool.anatomy
    draws = Draws(torch.Generator().manual_seed(0), 2)
    assert objects(pool, pool.layouts[0], draws, options).shape == (2, *pool.layouts[0].fine)
    drawn = np.stack([draw_phantom(np.random.default_rng(n), 64) for n in range(12)])
    assert drawn.shape == (12, 64, 64)
    assert 0 <= drawn.min() < drawn.max() <= 2
    assert np.all(drawn.max((1, 2)) > 0.1)


def test_validation_is_the_same_each_time(file: Path) -> None:
    one, again = (list(validation(file, "cpu", slices=1)) for _ in range(2))
    assert [name for name, _ in one] == [
        f"SNR {snr}, {mask}" for snr in (30, 100, 1000) for mask in ("R4", "R8", "Poisson 5")
    ]
    assert all(torch.equal(a.scan.kspace, b.scan.kspace) for (_, a), (_, b) in zip(one, again, strict=True))
    loud, quiet = (one[n][1].scan.noise.item() for n in (2, 8))
    assert loud > 5 * quiet


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("snr", (0.0, 10.0)),
        ("matrix", (128, 64)),
        ("acceleration", (0.5, 2.0)),
        ("map_error", (0.1, float("inf"))),
        ("folded", 1.5),
        ("layouts", 0),
    ],
)
def test_settings_that_cannot_be_are_named(file: Path, name: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"option simulation\.{name} must be"):
        pool_of(file, dataclasses.replace(SMALL, **{name: value}))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pool.npz"
    path.write_bytes(b"no zip file")
    with pytest.raises(InputError, match="not a file of images"):
        load_pool(path, "cpu", SMALL)
    np.savez(path, pixels=np.zeros(10, np.uint8), shapes=np.array([[3, 3]]), names=np.array(["a"]))
    with pytest.raises(InputError, match="do not have the shapes"):
        load_pool(path, "cpu", SMALL)


class Waits(TorchDispatchMode):
    """Records operations for whose result a host would wait for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name.startswith("index") and any(t is not None and t.dtype == torch.bool for t in args[1])
        if masks or name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2"):
            self.waited.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("folded", [0.0, 1.0])
def test_no_operation_asks_for_values(file: Path, folded: float) -> None:
    options = dataclasses.replace(SMALL, folded=folded)
    pool = pool_of(file, options)
    with Waits() as seen:
        draw(pool, options, seed=1, number=0, size=2)
    assert seen.waited == []
    with Waits() as seen:
        bool(torch.ones(2)[torch.tensor([True, False])] > 0)
    assert seen.waited == ["index", "_local_scalar_dense"]


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_nothing_waits_for_the_device(file: Path) -> None:
    pool = load_pool(file, "cuda", SMALL)
    draw(pool, SMALL, seed=1, number=0, size=4)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for n in range(8):
            draw(pool, SMALL, seed=1, number=n, size=4)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.slow
def test_properties_of_a_head_are_in_the_range_of_real_scans() -> None:
    """Eight real slices have 0.8 to 9.3 % imaginary; 1.8 to 16, 0.4 to 5.3, 0.1 to 2.7 % beyond 1/4, 1/2, 3/4."""
    options = dataclasses.replace(SMALL, matrix=(88, 136), grid=(160, 240))
    pool = pooled(gathered(None), "cpu", options)
    images = [draw(pool, options, seed=1, number=n, size=4).target[:, 0] for n in range(24)]
    limits = {0.25: (0.03, 0.2), 0.5: (0.01, 0.07), 0.75: (0.003, 0.03)}
    for radius, (low, high) in limits.items():
        assert low < torch.cat([beyond(one, radius) for one in images]).median() < high
    share = torch.cat([imaginary(one) for one in images])
    assert 0.01 < share.median() < 0.06
    assert share.quantile(0.1) < 0.02
    assert 0.04 < share.quantile(0.9) < 0.2


def test_amplification_is_what_a_simulated_reconstruction_has() -> None:
    """Two coils and 2-fold: sigma of the unfolded pixels over that of full sampling, which is 1 for unit norm."""
    draws = Draws(torch.Generator().manual_seed(2), 1)
    sens = draws.complex_normal(2, 8, 1)
    sens = sens / sens.abs().square().sum(1, keepdim=True).sqrt()
    image = torch.ones(1, 8, 1)
    pairs = sens[0, :, :, 0].unflatten(-1, (2, 4)).permute(2, 0, 1)  # (place, coil, pixel)
    unfold = torch.linalg.pinv(pairs)
    wanted = unfold.abs().square().sum(-1).sqrt().flatten().median().item()
    assert amplification(image, sens, 2).item() == pytest.approx(wanted, rel=1e-3)
    assert amplification(image, sens, 1).item() == pytest.approx(1)


def test_coils_tell_folded_pixels_apart_as_real_ones(file: Path) -> None:
    """At 4-fold two real arrays have 1.1 to 1.2 along most axes, and one of them 7 to 9 along one."""
    options = dataclasses.replace(SMALL, coils=(16, 16), whole_maps=1.0, snr=(1000.0, 1000.0), fill=(0.85, 0.95))
    found = torch.cat([amplification(b.target[:, 0], b.scan.sens[:, 0], 4) for b in batches(file, options, 12)])
    assert found.median() < 1.8
    assert found.quantile(0.25) < 1.25
    assert found.quantile(0.9) > 1.2


def test_imaginary_share_and_energy_beyond_a_radius() -> None:
    real = torch.rand(2, 16, 24) + 0.5
    assert torch.allclose(
        imaginary(real * torch.polar(torch.ones(()), torch.tensor(0.3))), torch.full((2,), np.sin(0.3) ** 2)
    )
    y, x = (np.exp(2j * np.pi * f * np.arange(n) / n) for f, n in ((3, 16), (6, 24)))
    wave = torch.from_numpy(y[:, None] * x)[None]  # at 3/8 and 6/12 of the edges: at a radius of 0.625
    assert beyond(wave, 0.62).item() == pytest.approx(1)
    assert beyond(wave, 0.63).item() == pytest.approx(0, abs=1e-6)
