from __future__ import annotations

import numpy as np
import pytest

from gadgets.coils import coils
from mrnets.errors import InputError
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


def test_volume():
    (out,) = coils([volume()], header(), method="rss")
    assert out.raw.sens.shape == (16, 1, 6, 32, 32)


def test_other_items_pass():
    assert list(coils(["text"], header())) == ["text"]


def test_no_calibration_lines():
    with pytest.raises(InputError, match="no calibration lines"):
        list(coils(frames(calibration=0), header()))
