from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gadgets.coils import coils
from gadgets.network import network
from mrnets import prepare
from mrnets.errors import InputError
from mrnets.physics.espirit import Espirit
from mrnets.stages import sense_raw
from tests.gadgets.frames import coil_maps, disc, frames, header, volume


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
