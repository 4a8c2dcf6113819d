"""Images whose pixels change: every pixel keeps its place in the patient, and the history says what was done."""

from __future__ import annotations

from typing import Any

import ismrmrd
import numpy as np
import pytest

from gadgets.geometry import changed, flipped, swapped
from gadgets.images import images
from gadgets.network import network
from tests.gadgets.frames import frames, header


def picture(shape: tuple[int, int, int], seed: int = 0) -> ismrmrd.Image:
    """An oblique image (z, y, x) of random pixels."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    head = ismrmrd.ImageHeader()
    head.field_of_view = (220.0, 180.0, 12.0)
    head.position = (3.0, -20.0, 44.0)
    head.read_dir, head.phase_dir, head.slice_dir = (tuple(axis) for axis in axes)
    meta = {
        "read_dir": [str(v) for v in axes[0]],
        "PatientPosition": ["3", "-20", "44"],
        "recon_matrix": [str(n) for n in shape[::-1]],
        "sampling_limits_RO": ["0", "8", "15"],
        "sampling_limits_E1": ["1", "6", "11"],
        "GADGETRON_ImageProcessingHistory": ["espirit", "varnet"],
    }
    return ismrmrd.Image(head=head, data=rng.normal(size=(1, *shape)).astype(np.float32), meta=meta)


def places(image: ismrmrd.Image) -> dict[float, Any]:
    """The place of each pixel in the patient, mm, by its value."""
    head, data = image.getHead(), image.data[0]
    directions = np.array([head.slice_dir, head.phase_dir, head.read_dir])
    pixel = np.array(head.field_of_view)[::-1] / data.shape
    index = np.indices(data.shape).reshape(3, -1).T - np.array(data.shape) // 2
    where = np.array(head.position) + (index * pixel) @ directions
    return dict(zip(data.ravel().tolist(), where, strict=True))


@pytest.mark.parametrize("shape", [(1, 12, 16), (5, 7, 9), (4, 6, 1)])
@pytest.mark.parametrize("change", ["x", "y", "z", "swap"])
def test_every_pixel_keeps_its_place(shape: tuple[int, int, int], change: Any) -> None:
    before = picture(shape)
    after = swapped(before) if change == "swap" else flipped(before, change)
    want, got = places(before), places(after)
    assert want.keys() == got.keys()
    for value, where in want.items():
        np.testing.assert_allclose(got[value], where, atol=1e-3)
    assert after.data.flags.c_contiguous
    for key, field in (("read_dir", "read_dir"), ("PatientPosition", "position")):
        np.testing.assert_allclose([float(v) for v in after.meta[key]], getattr(after.getHead(), field), rtol=1e-6)
    assert len(after.meta["GADGETRON_ImageProcessingHistory"]) == 3
    assert before.meta["GADGETRON_ImageProcessingHistory"] == ["espirit", "varnet"]


@pytest.mark.parametrize("change", [lambda i: flipped(i, "x"), lambda i: flipped(i, "y"), swapped])
def test_twice_is_as_before(change: Any) -> None:
    before = picture((3, 8, 5))
    after = change(change(before))
    np.testing.assert_array_equal(after.data, before.data)
    np.testing.assert_allclose(after.position, before.position, atol=1e-4)
    np.testing.assert_allclose(after.read_dir, before.read_dir)
    assert after.meta["sampling_limits_RO"] == before.meta["sampling_limits_RO"]
    assert after.meta["recon_matrix"] == before.meta["recon_matrix"]


def test_exchanged_axes_exchange_their_sizes_and_limits() -> None:
    after = swapped(picture((1, 12, 16)))
    assert after.matrix_size == (12, 16, 1)
    assert tuple(after.field_of_view) == (180.0, 220.0, 12.0)
    assert after.meta["recon_matrix"] == ["12", "16", "1"]
    assert after.meta["sampling_limits_RO"] == ["1", "6", "11"]


def test_other_pixels_at_the_same_places_only_join_the_history() -> None:
    before = picture((1, 12, 16))
    after = changed(before, 2 * before.data, "doubled")
    np.testing.assert_array_equal(after.data, 2 * before.data)
    assert after.meta["GADGETRON_ImageProcessingHistory"] == ["espirit", "varnet", "doubled"]
    with pytest.raises(ValueError, match="not at the places"):
        changed(before, before.data[..., ::2], "halved")


def test_images_of_a_chain_can_be_flipped() -> None:
    (image,) = images(network(frames(), header(), name="zerofilled"), header())
    turned = flipped(image, "x")
    np.testing.assert_allclose([float(v) for v in turned.meta["read_dir"]], -np.array(image.read_dir))
    assert turned.meta["GADGETRON_ImageProcessingHistory"][-1] == "flipped along x"
    assert ismrmrd.Image.from_bytes(turned.to_bytes()).meta["read_dir"] == turned.meta["read_dir"]
