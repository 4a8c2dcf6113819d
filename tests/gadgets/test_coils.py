from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gadgets.coils import coils
from gadgets.network import network
from mrnets import prepare
from mrnets.errors import InputError
from mrnets.physics.espirit import Espirit
from mrnets.physics.fourier import resize
from mrnets.stages import sense_raw
from tests.gadgets.frames import COILS, SIZE, coil_maps, disc, frames, header, kspace, volume


@pytest.mark.parametrize("method", ["espirit", "rss", "unitary"])
def test_maps_fit_the_coils(method):
    (out,) = coils(frames(), header(), method=method)
    sens = out.raw.sens
    assert sens.shape == (1, 1, 6, 32, 32)
    assert out.raw.sens_method == method
    assert out.history == (f"{method} sensitivities",)
    np.testing.assert_allclose(np.sum(np.abs(sens[0, 0, :, 12:20, 12:20]) ** 2, axis=0), 1, rtol=1e-4)
    if method == "unitary":
        return
    images = coil_maps() * disc()
    projected = sens[0, 0] * np.sum(np.conj(sens[0, 0]) * images, axis=0)
    assert np.linalg.norm(projected - images) < 0.1 * np.linalg.norm(images)


@pytest.mark.parametrize("method", ["espirit", "rss", "unitary"])
def test_maps_of_a_volume_are_made_part_by_part_with_its_image(monkeypatch, method):
    sizes = []

    def counted(raw, *how):
        sizes.append(len(raw.kspace))
        return sense_raw(raw, *how)

    monkeypatch.setattr(prepare, "sense_raw", counted)
    options = Espirit(kernel=5, calibration=16)
    (later,) = coils([volume()], header(), method=method, kernel=5, calibration=16)
    assert later.raw.sens is None
    assert later.raw.sens_method == method
    assert later.history == (f"{method} sensitivities",)
    (found,) = network([later], header(), name="cgsense")
    assert sum(sizes) == len(volume().raw.kspace)
    assert max(sizes) == 1
    now = replace(volume(), raw=sense_raw(volume().raw, method, options))
    (expected,) = network([now], header(), name="cgsense")
    error = np.linalg.norm(found.estimate.image - expected.estimate.image)
    assert error < 1e-5 * np.linalg.norm(expected.estimate.image)


def test_a_volume_without_calibration_lines():
    bare = replace(volume(), raw=replace(volume().raw, calibration=None))
    with pytest.raises(InputError, match="no calibration lines"):
        list(coils([bare], header()))


def test_other_items_pass():
    assert list(coils(["text"], header())) == ["text"]


def test_no_calibration_lines():
    with pytest.raises(InputError, match="no calibration lines"):
        list(coils(frames(calibration=0), header()))


def test_a_scan_that_was_cut_says_so_first():
    """Its calibration lines may be in the part that is missing."""
    whole = frames(calibration=0)[0]
    short = replace(whole, notes=("cut short? lines 2 to 10 came where 0 to 31 were announced",))
    for gadget in (coils([short], header()), network([short], header(), name="cgsense")):
        with pytest.raises(InputError, match=r"^cut short\? lines 2 to 10 came .* announced; .*coil sensitivities"):
            list(gadget)


def test_a_calibration_matrix_of_gigabytes_is_refused():
    with pytest.raises(InputError, match="calibration must be at most 96, got 97"):
        list(coils([], header(), calibration=97))


@pytest.mark.parametrize("batch", [1, 2])
def test_maps_and_network_take_the_noise_that_the_calibration_lines_bear_out(batch):
    """The noise measurement says 100 times too little. Maps are those of a right measurement, and one note tells it."""
    rng = np.random.default_rng(4)
    white = rng.standard_normal((2, COILS, SIZE, SIZE))
    noisy = (kspace()[:, 0] / 0.02 + (white[0] + 1j * white[1]) / 2**0.5).astype(np.complex64)
    given = []
    for scale in (1.0, 100.0):
        frame = frames()[0]
        raw = replace(
            frame.raw,
            kspace=(scale * noisy * frame.raw.mask[0, 0])[None, None].astype(np.complex64),
            calibration=resize(scale * noisy, (12, SIZE))[None, None].astype(np.complex64),
            whitened=True,
            variance=1.0,
            averages=1.0,
        )
        given.append(replace(frame, raw=raw))
    right, wrong = (next(iter(coils([frame], header()))) for frame in given)
    assert 50 < wrong.raw.averages**-0.5 < 200
    np.testing.assert_allclose(np.abs(wrong.raw.sens), np.abs(right.raw.sens), atol=0.02)
    *_, last = network(coils([given[0], given[1]], header(), batch=batch), header(), name="cgsense")
    assert sum("noise measurement" in note for note in last.notes) == 1
    np.testing.assert_array_equal(last.raw.sens, wrong.raw.sens)


def test_slices_whose_calibration_does_not_fit_the_memory_together_are_taken_one_by_one(monkeypatch):
    def full(*arrays):
        raise MemoryError("out of memory")

    first, second = frames(2)
    expected = list(coils([first, second], header()))
    monkeypatch.setattr("gadgets.coils.array_namespace", full)
    made = list(coils([replace(first, behind=1), second], header(), batch=2))
    for one, other in zip(made, expected, strict=True):
        assert not one.failed
        np.testing.assert_array_equal(one.raw.sens, other.raw.sens)
