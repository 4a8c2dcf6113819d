"""Networks for arrays: `mrnets.load` and `mrnets.reconstruct`."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

import mrnets
from gadgets.network import network
from gadgets.trust import USUAL_CAUTION
from mrnets import store
from mrnets.contract import Estimate
from mrnets.errors import InputError
from mrnets.physics.arrays import to_numpy
from mrnets.physics.coils import mix
from mrnets.physics.fourier import fftc
from mrnets.physics.whiten import covariance
from mrnets.preparation import Preparation
from mrnets.stages import whiten_raw
from tests.gadgets import frames
from tests.physics.adjoint import assert_close, random_complex

COILS, SIZE = frames.COILS, frames.SIZE


def noisy_scan(rng, slices=1, coupling=0.3):
    """k-space (slice, coil, y, x) with coloured noise, every second line, and a noise measurement (coil, sample)."""
    mixing = np.eye(COILS) + coupling * random_complex(np, rng, (COILS, COILS))
    mask = np.zeros((SIZE, SIZE), bool)
    mask[::2] = mask[10:22] = True
    images = np.stack([(n + 1) * frames.disc() for n in range(slices)])[:, None]
    noise = 0.005 * mix(mixing.astype(np.complex64), random_complex(np, rng, (slices, COILS, SIZE, SIZE)))
    kspace = (fftc(frames.coil_maps() * images) + noise) * mask
    return kspace.astype(np.complex64), (0.005 * mixing @ random_complex(np, rng, (COILS, 4000))).astype(np.complex64)


def error(image):
    """The relative error of the magnitude (y, x), its scale apart."""
    truth, found = np.abs(frames.disc()), np.abs(image)
    found = found * (found * truth).sum() / (found**2).sum()
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


@pytest.fixture
def small(tmp_path):
    """A small network without training, in a weights file."""
    options = {"cascades": 1, "channels": 2, "pooling_layers": 1}
    network = store.create("varnet", **options)
    store.save(tmp_path / "s.safetensors", network, name="varnet", options=options, preparation=Preparation().to_json())
    return tmp_path / "s.safetensors"


def by_gadget(frame, **options):
    """The frame that the network gadget makes."""
    (made,) = network([frame], frames.header(), **options)
    return made


def test_the_image_is_that_of_the_chain(small, rng):
    kspace, noise = noisy_scan(rng)
    (frame,) = frames.frames()
    block = kspace[:, None, :, 10:23]
    raw = replace(frame.raw, kspace=kspace[:, None], calibration=block, noise=covariance(noise), variance=1.0)
    expected = by_gadget(replace(frame, raw=whiten_raw(raw, raw.noise)), weights=str(small), check="warn")
    made = mrnets.reconstruct(kspace[0], small, noise=noise, check="warn")
    assert made.image.dtype == np.complex64
    assert_close(made.image, expected.estimate.image[0, 0])
    assert made.trust[0].prediction == pytest.approx(expected.trust.prediction, rel=1e-3)
    assert made.notes[0].startswith("WARNING: the network s is not to be trusted")
    assert made.notes[0] in expected.notes


def test_the_default_network_is_near_the_truth(rng):
    kspace, noise = noisy_scan(rng, coupling=0)  # whitening of coupled coils shades an image
    made = mrnets.reconstruct(kspace[0], noise=noise, check="off")
    zerofilled = mrnets.reconstruct(kspace[0], "zerofilled", noise=covariance(noise))
    assert error(made.image) < 0.5 * error(zerofilled.image)


def test_slices_are_reconstructed_one_by_one(small, rng):
    kspace, noise = noisy_scan(rng, slices=2)
    both = mrnets.reconstruct(kspace, small, noise=noise, check="warn")
    assert both.image.shape == (2, SIZE, SIZE)
    assert len(both.trust) == 2
    for n in range(2):
        assert_close(both.image[n], mrnets.reconstruct(kspace[n], small, noise=noise, check="off").image)


def test_a_volume_is_that_of_the_chain():
    frame = frames.volume()
    kspace = fftc(np.moveaxis(frame.raw.kspace, 0, -1), axes=(-1,))  # (echo, coil, z, y, x)
    expected = by_gadget(frame, name="cgsense")
    made = mrnets.reconstruct(kspace[0], "cgsense", volume=True)
    assert made.image.shape == (SIZE, SIZE, 16)
    assert_close(made.image, np.moveaxis(to_numpy(expected.estimate.image)[:, 0], 0, -1), 1e-4)
    assert mrnets.reconstruct(kspace, "zerofilled", volume=True).image.shape == (1, SIZE, SIZE, 16)


def test_a_volume_is_checked_as_a_whole(small):
    frame = frames.volume()
    kspace = fftc(np.moveaxis(frame.raw.kspace, 0, -1)[0], axes=(-1,))
    made = mrnets.reconstruct(kspace, small, volume=True, check="warn")
    assert len(made.trust) == 1


def test_images_are_of_the_library_of_kspace(xp, rng):
    kspace, noise = noisy_scan(rng)
    expected = mrnets.reconstruct(kspace[0], "cgsense", noise=noise)
    given = [xp.asarray(x) for x in (kspace[0], noise, kspace[0, 0] != 0, kspace[0, :, 10:23])]
    made = mrnets.reconstruct(given[0], "cgsense", noise=given[1], mask=given[2], calibration=given[3])
    assert type(made.image) is type(given[0])
    assert_close(made.image, expected.image, 1e-4)


def test_the_mask_decides_what_counts(rng):
    kspace, noise = noisy_scan(rng)
    mask = kspace[0, 0] != 0
    dirty = kspace[0] + 1000 * ~mask
    assert_close(
        mrnets.reconstruct(dirty, "cgsense", mask=mask, noise=noise).image,
        mrnets.reconstruct(kspace[0], "cgsense", noise=noise).image,
    )


def test_calibration_lines_may_be_separate(rng):
    kspace, noise = noisy_scan(rng)
    block = kspace[0, :, 10:23].copy()
    regular = kspace[0].copy()
    regular[:, 1::2] = 0
    with pytest.raises(InputError, match="no calibration lines"):
        mrnets.reconstruct(regular, "varnet_brain", noise=noise)
    made = mrnets.reconstruct(regular, "cgsense", calibration=block, noise=noise)
    assert error(made.image) < 0.2


def test_maps_have_names_and_units():
    times = np.array([0.005, 0.01, 0.02, 0.03], np.float32)
    echoes = frames.disc() * np.exp(-30 * times)[:, None, None]
    kspace = fftc(frames.coil_maps() * echoes[:, None]).astype(np.complex64)
    made = mrnets.reconstruct(kspace[None], "qvarnet_brain", echo_times=times)
    assert made.image is None
    assert made.maps["R2*"].shape == (1, SIZE, SIZE)
    assert made.units["R2*"] == "1/s"
    inside = np.abs(frames.disc()) > 0
    assert np.median(made.maps["R2*"][0][inside]) == pytest.approx(30, rel=0.2)
    with pytest.raises(InputError, match="echo"):
        mrnets.reconstruct(kspace[None], "qvarnet_brain", echo_times=times[:2])


def test_a_joint_network_names_its_classes(rng):
    kspace, noise = noisy_scan(rng)
    made = mrnets.reconstruct(kspace[0], "mtlrs_brain", noise=noise)
    assert made.image.shape == (SIZE, SIZE)
    assert {"background", "white"} <= made.labels.keys()
    assert sum(mask.sum() for mask in made.labels.values()) == SIZE**2


def test_trained_weights_are_loaded_once_for_many_scans(small, rng):
    kspace, noise = noisy_scan(rng)
    trained, how = mrnets.load(small), {"noise": noise, "check": "off"}
    again = mrnets.reconstruct(kspace[0], trained, **how)
    assert_close(again.image, mrnets.reconstruct(kspace[0], small, **how).image)


def wrong():
    """A trained network whose images are wrong."""

    class Wrong(torch.nn.Module):
        def forward(self, scan):
            return Estimate(image=3 * store.create("zerofilled")(scan).image)

    return replace(mrnets.load("varnet_brain"), network=Wrong(), preparation=Preparation(consistency=None).to_json())


def test_an_image_that_the_data_speak_against_is_replaced(rng, caplog):
    kspace, noise = noisy_scan(rng)
    with caplog.at_level(logging.WARNING, "mrnets"):
        made = mrnets.reconstruct(kspace[0], wrong(), noise=noise)
    assert "FALLBACK to l1wavelet: the network varnet is not to be trusted" in made.notes[0]
    assert made.notes[0] in caplog.text
    assert_close(made.image, mrnets.reconstruct(kspace[0], "l1wavelet", noise=noise).image)
    assert USUAL_CAUTION.check == "fallback"  # as in a chain


def test_a_warning_or_nothing_is_taken_on_request(rng):
    kspace, noise = noisy_scan(rng)
    warned = mrnets.reconstruct(kspace[0], wrong(), noise=noise, check="warn")
    off = mrnets.reconstruct(kspace[0], wrong(), noise=noise, check="off")
    assert warned.notes[0].startswith("WARNING: the network varnet is not to be trusted")
    assert off.notes == ()
    assert off.trust == ()
    assert_close(warned.image, off.image)


def test_scans_without_noise_say_so(small, rng):
    kspace, _ = noisy_scan(rng)
    made = mrnets.reconstruct(kspace[0], small, check="off")
    assert made.notes[0] == "s was trained on prewhitened data, and no noise is given"
    assert any("noise level" in note for note in made.notes)


FAULTS = {
    "list": (lambda k: k.tolist(), {}, "must be an array"),
    "real": (lambda k: k.real, {}, "must be complex"),
    "no coils": (lambda k: k[0], {}, "must have the axes"),
    "zeros": (lambda k: 0 * k, {}, "zero"),
    "empty": (lambda k: k[:, :0], {}, "must have the axes"),
    "nan": (lambda k: k * np.nan, {}, "NaN"),
    "volume": (lambda k: k, {"volume": True}, r"\(coil, z, y, x\)"),
    "mask of another plane": (lambda k: k, {"mask": np.ones((4, 4), bool)}, "mask must be"),
    "calibration of other coils": (lambda k: k, {"calibration": np.ones((2, 8, 8), np.complex64)}, "calibration must"),
    "real calibration": (lambda k: k, {"calibration": np.ones((COILS, 8, 8))}, "calibration must be complex"),
    "noise of other coils": (lambda k: k, {"noise": np.ones((2, 100), np.complex64)}, "noise must be"),
    "dead coil": (lambda k: k, {"noise": np.zeros((COILS, 100), np.complex64)}, "disconnected"),
    "echo times": (lambda k: k, {"echo_times": [0.1, 0.2]}, "echo_times"),
    "check": (lambda k: k, {"check": "of"}, "check"),
    "weights": (lambda k: k, {"weights": "varnet_brian"}, "varnet_brain"),
    "untrained": (lambda k: k, {"weights": "varnet"}, "varnet"),
    "images": (lambda k: k, {"weights": "segunet_tissue"}, "takes images"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_arguments_that_cannot_be_used_get_one_sentence(fault, rng):
    change, options, told = FAULTS[fault]
    kspace, _ = noisy_scan(rng)
    with pytest.raises(InputError, match=told) as caught:
        mrnets.reconstruct(change(kspace[0]), **{"weights": "varnet_brain", **options})
    assert "\n" not in str(caught.value)


def test_echoes_with_masks_of_their_own_are_refused(rng):
    kspace, _ = noisy_scan(rng, slices=2)
    kspace[1, :, 0] = 0
    with pytest.raises(InputError, match="echoes were sampled differently"):
        mrnets.reconstruct(kspace[None], "cgsense")


def test_values_that_are_not_finite_are_refused(rng):
    class Bad(torch.nn.Module):
        def forward(self, scan):
            return Estimate(image=store.create("zerofilled")(scan).image * torch.nan)

    kspace, noise = noisy_scan(rng)
    trained = replace(mrnets.load("varnet_brain"), network=Bad())
    with pytest.raises(InputError, match="not finite"):
        mrnets.reconstruct(kspace[0], trained, noise=noise, check="off")
