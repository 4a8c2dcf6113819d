"""Images whose pixels change: every pixel keeps its place in the patient, and the history says what was done."""

from __future__ import annotations

from typing import Any

import ismrmrd
import numpy as np
import pytest

from gadgets.export.places import affine_of
from gadgets.geometry import AXES_REVERSED, axes_reversed, changed, flipped, swapped
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
    data = image.data[0]
    affine = affine_of(image.getHead(), data.shape, "it", reversed_axes=axes_reversed(image.meta))
    index = np.indices(data.shape).reshape(3, -1)[::-1]
    where = affine[:3, :3] @ index + affine[:3, 3:]
    return dict(zip(data.ravel().tolist(), where.T, strict=True))


def test_places_follow_the_header() -> None:
    """The pixel n // 2 lies at the position, and pixels after it along the directions, or against them."""
    image = picture((1, 8, 10))
    head, value = image.getHead(), float(image.data[0, 0, 4, 6])
    step = np.array(head.read_dir) * 220 / 10
    for word, sign in (("", 1), ("true", -1)):
        image.meta[AXES_REVERSED] = word
        np.testing.assert_allclose(places(image)[value], np.array(head.position) + sign * step, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 12, 16), (5, 7, 9), (4, 6, 1)])
@pytest.mark.parametrize("change", ["x", "y", "z", "swap"])
@pytest.mark.parametrize("backwards", [False, True])
def test_every_pixel_keeps_its_place(shape: tuple[int, int, int], change: Any, backwards: bool) -> None:
    before = picture(shape)
    before.meta[AXES_REVERSED] = "true" if backwards else ""
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
