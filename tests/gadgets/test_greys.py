"""Images of 16 bits: one scale for a series, signs, and what is clipped."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from gadgets.images import images
from mrnets.errors import InputError
from tests.gadgets.estimates import NX, NY, estimated, plain, sorted_frames


class TestShort:
    def frames(self, brightness):
        header = plain()
        found = sorted_frames(np.random.default_rng(1), header, slices=len(brightness))
        ramp = np.linspace(0, 1, NX * NY, dtype=np.float32).reshape(NY, NX)
        return [
            estimated(f, image=(b * ramp)[None, None].astype(np.complex64))
            for f, b in zip(found, brightness, strict=True)
        ]

    def maxima(self, brightness, **options):
        out = list(images(self.frames(brightness), plain(), format="short", **options))
        assert all(image.data.dtype == np.uint16 for image in out)
        ratios = {image.meta["GADGETRON_ScaleRatio"] for image in out}
        assert len(ratios) == 1
        return [int(image.data.max()) for image in out]

    def test_one_scale_for_the_series(self):
        assert self.maxima([1, 4, 2]) == [1024, 4095, 2048]

    def test_from_the_first_image(self, caplog):
        with caplog.at_level(logging.WARNING):
            assert self.maxima([1, 4, 20], scaling="first") == [4095, 16380, 65535]
        assert "clipped" in caplog.text

    def test_an_image_says_that_its_pixels_were_clipped(self):
        out = list(images(self.frames([1, 4, 20]), plain(), format="short", scaling="first"))
        said = [image.meta["ImageComments"].rpartition("; ")[2] for image in out]
        assert ["clipped" in words for words in said] == [False, False, True]
        count = int((self.frames([20])[0].estimate.image.real * 4095 > 65535.5).sum())
        assert said[2] == f"{count} pixels too bright for 16 bits, clipped"

    def test_given(self):
        assert self.maxima([1, 4], scale=100.0) == [100, 400]

    def test_empty_images(self):
        assert self.maxima([0, 0]) == [0, 0]
        assert list(images([], plain(), format="short")) == []

    def test_images_that_can_come_at_once_do(self):
        for options, early in (({"scaling": "first"}, True), ({"scale": 2.0}, True), ({}, False)):

            def stream():
                yield self.frames([1])[0]
                yield "end"

            out = list(images(stream(), plain(), format="short", **options))
            assert isinstance(out[0], str) is not early

    def test_phase(self):
        (frame,) = self.frames([1])
        angles = np.linspace(-np.pi, np.pi, NX * NY, dtype=np.float32).reshape(1, 1, NY, NX)
        frame = estimated(frame, image=np.exp(1j * angles).astype(np.complex64))
        (image,) = images([frame], plain(), format="short", output="phase")
        expected = np.rint((angles[0, 0] + np.pi) * 4095 / (2 * np.pi))
        inner = np.s_[1:-1]
        np.testing.assert_allclose(image.data[0, 0].astype(int)[inner], expected[inner], atol=1)

    def test_maps_stay_in_their_units(self):
        (frame,) = self.frames([1])
        frame = estimated(frame, maps={"T2": np.full((1, NY, NX), 0.05)})
        (image,) = images([frame], plain(), format="short")
        assert image.data.dtype == np.float32
        assert image.data[0, 0, 0, 0] == np.float32(0.05)

    def test_what_waits_for_the_scale_of_its_series_is_bounded(self, monkeypatch):
        monkeypatch.setattr("gadgets.greys.MAX_HELD", 100)
        with pytest.raises(InputError, match="of images wait for the scale of their series; set scaling to first"):
            list(images(self.frames([1.0]), plain(), format="short"))

    @pytest.mark.parametrize("output", ["real", "imaginary", "complex"])
    def test_signs(self, output):
        with pytest.raises(InputError, match="format short is for magnitude and phase"):
            list(images([], plain(), format="short", output=output))

    @pytest.mark.parametrize("form", ["short", "float"])
    @pytest.mark.parametrize("scale", [0.0, -1.0])
    def test_absurd_scale(self, scale, form):
        with pytest.raises(InputError, match="scale must be positive"):
            list(images([], plain(), format=form, scale=scale))
