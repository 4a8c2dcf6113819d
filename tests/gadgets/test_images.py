from __future__ import annotations

import math
from dataclasses import replace

import ismrmrd
import numpy as np
import pytest

from gadgets.coils import coils
from gadgets.compress import compress
from gadgets.frame import Frame
from gadgets.images import images
from gadgets.network import network
from gadgets.noise import noise
from gadgets.sort import sort
from mrnets.contract import Estimate
from mrnets.errors import InputError
from mrnets.mrd.encoding import Space
from mrnets.physics.fourier import fftc, ifftc, resize
from tests.gadgets import frames as scans
from tests.gadgets import synthetic
from tests.gadgets.estimates import NX, NY, estimated, one, plain, sorted_frames


class TestOnePicture:
    def test_pixels_are_neither_flipped_nor_turned(self, rng):
        """As Gadgetron's own chain has it: rows are encode step 1, the readout runs fastest, both from low to high."""
        truth = synthetic.coil_images(rng, 1, NY, NX)
        frames = sort([synthetic.lines(synthetic.to_kspace(truth))], plain())
        (image,) = images(network(frames, plain(), name="zerofilled"), plain())
        assert image.data.shape == (1, 1, NY, NX)
        assert image.data.dtype == np.float32
        np.testing.assert_allclose(image.data[0], np.abs(truth[0]), rtol=1e-4, atol=1e-5)

    def test_geometry_counters_and_times_are_those_of_the_central_line(self, rng):
        (frame,) = sorted_frames(rng, plain())
        (image,) = images([estimated(frame)], plain())
        head = image.getHead()
        assert list(head.position) == [1, 2, 3]
        assert list(head.read_dir) == [1, 0, 0]
        assert list(head.phase_dir) == [0, 1, 0]
        assert list(head.slice_dir) == [0, 0, 1]
        assert list(head.patient_table_position) == [0, 0, -5]
        assert list(head.field_of_view) == [32, 24, 2]
        assert list(head.matrix_size) == [NX, NY, 1]
        assert (head.set, head.phase, head.slice, head.repetition) == (3, 2, 0, 0)
        assert head.acquisition_time_stamp == 1000 + NY // 2
        assert list(head.physiology_time_stamp) == [7, 7, 7]
        assert (head.version, head.image_type, head.image_index, head.image_series_index) == (1, 1, 1, 1)

    @pytest.mark.parametrize(
        ("output", "part", "image_type", "dtype"),
        [
            ("magnitude", np.abs, ismrmrd.IMTYPE_MAGNITUDE, np.float32),
            ("phase", np.angle, ismrmrd.IMTYPE_PHASE, np.float32),
            ("real", np.real, ismrmrd.IMTYPE_REAL, np.float32),
            ("imaginary", np.imag, ismrmrd.IMTYPE_IMAG, np.float32),
            ("complex", np.asarray, ismrmrd.IMTYPE_COMPLEX, np.complex64),
        ],
    )
    def test_outputs(self, rng, output, part, image_type, dtype):
        (frame,) = sorted_frames(rng, plain())
        (image,) = images([estimated(frame)], plain(), output=output)
        assert image.data.dtype == dtype
        assert image.image_type == image_type
        np.testing.assert_allclose(image.data[0, 0], part(frame.raw.kspace[0, 0, 0]), rtol=1e-6)

    def test_serialises(self, rng):
        (image,) = one(rng)
        again = ismrmrd.Image.from_bytes(image.to_bytes())
        np.testing.assert_array_equal(again.data, image.data)
        assert again.meta.serialize() == image.meta.serialize()

    def test_no_estimate(self, rng):
        with pytest.raises(InputError, match="without an estimate"):
            list(images(sorted_frames(rng, plain()), plain()))

    def test_other_items_pass(self):
        assert list(images(["text"], plain())) == ["text"]


class TestGrid:
    """Encoded and wanted grid differ: the true object is known, band-limited, at any resolution."""

    def smooth(self, rng, shape):
        """A random object whose k-space is non-zero within 6 lines of the centre only."""
        return resize(synthetic.coil_images(rng, 1, 6, 6)[0, 0], shape)

    def made(self, pixels, encoded, recon):
        header = plain()
        (frame,) = sorted_frames(np.random.default_rng(1), header)
        frame = replace(frame, encoded=encoded, recon=recon)
        (image,) = images([estimated(frame, image=pixels[None, None])], header, output="complex")
        return image

    def test_phase_oversampling_is_cropped(self, rng):
        pixels = synthetic.coil_images(rng, 1, 20, 16)[0, 0]
        image = self.made(pixels, Space((16, 20, 1), (32, 40, 5)), Space((16, 12, 1), (32, 24, 5)))
        np.testing.assert_allclose(image.data[0, 0], pixels[4:16], atol=1e-6)
        assert list(image.field_of_view) == [32, 24, 5]

    def test_interpolation_is_zero_filling_with_intensities_kept(self, rng):
        kspace = self.smooth(rng, (12, 16))
        image = self.made(ifftc(kspace), Space((16, 12, 1), (32, 24, 5)), Space((32, 24, 1), (32, 24, 5)))
        expected = ifftc(resize(kspace, (24, 32))) * 2
        np.testing.assert_allclose(image.data[0, 0], expected, atol=1e-5)
        np.testing.assert_allclose(image.data[0, 0, ::2, ::2], ifftc(kspace), atol=1e-5)

    def test_both_at_once_and_odd(self, rng):
        kspace = self.smooth(rng, (15, 16))
        image = self.made(ifftc(kspace), Space((16, 15, 1), (32, 30, 5)), Space((16, 22, 1), (32, 22, 5)))
        expected = ifftc(resize(kspace, (30, 16)))[4:26] * math.sqrt(2)
        np.testing.assert_allclose(image.data[0, 0], expected, atol=1e-5)

    def test_fewer_pixels(self, rng):
        kspace = self.smooth(rng, (12, 16))
        image = self.made(ifftc(kspace), Space((16, 12, 1), (32, 24, 5)), Space((8, 12, 1), (32, 24, 5)))
        np.testing.assert_allclose(image.data[0, 0], ifftc(kspace)[:, ::2], atol=1e-5)

    def test_field_of_view_unknown(self, rng):
        pixels = synthetic.coil_images(rng, 1, 12, 16)[0, 0]
        image = self.made(pixels, Space((16, 12, 1), (0, 0, 0)), Space((16, 12, 1), (0, 0, 0)))
        np.testing.assert_allclose(image.data[0, 0], pixels, atol=1e-6)

    def test_maps_and_labels_are_not_smoothed(self, rng):
        header = plain(recon=(2 * NX, 2 * NY, 1))
        (frame,) = sorted_frames(rng, header)
        r2 = rng.random((1, NY, NX)).astype(np.float32)
        logits = rng.random((1, 3, NY, NX)).astype(np.float32)
        out = list(images([estimated(frame, maps={"R2*": r2}, logits=logits)], header))
        assert [image.data.shape[-2:] for image in out] == [(2 * NY, 2 * NX)] * 2
        np.testing.assert_array_equal(out[0].data[0, 0, ::2, ::2], r2[0])
        assert set(np.unique(out[0].data)) <= set(np.unique(r2))
        np.testing.assert_array_equal(out[1].data[0, 0, ::2, ::2], logits[0].argmax(axis=0))


class TestVolume:
    def test_one_image_with_axes_in_order(self, rng):
        truth = synthetic.coil_images(rng, 1, 12, 16, 6)
        header = plain((16, 12, 6))
        (frame,) = sort([synthetic.lines(synthetic.to_kspace(truth))], header)
        estimate = Estimate(image=ifftc(frame.raw.kspace)[:, :, 0])
        (image,) = images([replace(frame, estimate=estimate)], header)
        assert list(image.getHead().matrix_size) == [16, 12, 6]
        np.testing.assert_allclose(image.data[0], np.abs(truth[0]), atol=1e-5)

    def test_slice_oversampling_and_interpolation(self, rng):
        kspace = resize(synthetic.coil_images(rng, 1, 6, 8, 4), (8, 12, 16), axes=(-3, -2, -1))
        header = plain((16, 12, 8), fov=(32, 24, 16), recon=(16, 24, 6), recon_fov=(32, 24, 12))
        (frame,) = sort([synthetic.lines(kspace)], header)
        estimate = Estimate(image=ifftc(frame.raw.kspace)[:, :, 0])
        (image,) = images([replace(frame, estimate=estimate)], header, output="complex")
        zero_filled = resize(kspace, (24,), axes=(-2,))
        expected = ifftc(zero_filled, axes=(-3, -2, -1))[0, 1:7] * math.sqrt(2)
        np.testing.assert_allclose(image.data[0], expected, atol=1e-5)

    def test_labels_of_a_volume_by_slices_and_by_a_3d_network(self, rng):
        header = plain((16, 12, 6))
        (frame,) = sorted_frames(rng, header, matrix=(16, 12, 6))
        labels = rng.integers(0, 4, (6, 12, 16))
        logits = np.eye(4, dtype=np.float32)[labels]  # (z, y, x, class)
        by_slices = logits.transpose(2, 3, 0, 1)  # (x, class, z, y)
        whole = logits.transpose(3, 0, 1, 2)[None]
        for given in (by_slices, whole):
            (image,) = images([estimated(frame, logits=given)], header)
            assert image.data.dtype == np.uint16
            np.testing.assert_array_equal(image.data[0], labels)


class TestSeries:
    def test_that_of_a_map_must_be_a_16_bit_number_too(self, rng):
        header = plain(te=[3.0])
        (frame,) = sorted_frames(rng, header, slices=1)
        given = estimated(frame, image=frame.raw.kspace[:, :, 0], maps={"B0": np.zeros((1, NY, NX))})
        assert len(list(images([given], header, series=65534))) == 2
        with pytest.raises(InputError, match="B0 would be series 65536; series must be from 0 to 65535"):
            list(images([given], header, series=65535))

    def test_one_for_each_field_with_numbers_of_their_own(self, rng):
        header = plain(te=[3.0])
        frames = sorted_frames(rng, header, slices=2)
        maps = {"R2*": np.full((1, NY, NX), 20.0), "B0": np.full((1, NY, NX), -30.0)}
        logits = np.zeros((1, 3, NY, NX), np.float32)
        logits[:, 1] = 1
        full = [
            replace(
                estimated(frame, image=frame.raw.kspace[:, :, 0], maps=maps, logits=logits),
                units={"R2*": "1/s"},
                labels=("background", "lesion", "oedema"),
            )
            for frame in frames
        ]
        out = list(images(full, header, series=10))
        assert len(out) == 8
        roles = {image.meta["GADGETRON_DataRole"]: image.image_series_index for image in out}
        assert roles == {"Image": 10, "B0": 11, "R2*": 12, "Segmentation": 13}
        numbers = [(image.image_series_index, image.image_index) for image in out]
        assert sorted(numbers) == [(series, index) for series in (10, 11, 12, 13) for index in (1, 2)]
        types = {image.meta["GADGETRON_DataRole"]: image.image_type for image in out}
        assert types["B0"] == ismrmrd.IMTYPE_REAL
        assert types["R2*"] == ismrmrd.IMTYPE_MAGNITUDE
        assert {image.meta.get("Unit") for image in out if image.image_series_index == 12} == {"1/s"}
        segmentation = next(image for image in out if image.image_series_index == 13)
        assert segmentation.meta["Labels"] == ["0 background", "1 lesion", "2 oedema"]
        assert segmentation.data.dtype == np.uint16
        assert (segmentation.data == 1).all()

    def test_slices_repetitions_and_echoes(self, rng):
        header = plain(te=[3.0, 7.5], limits={"contrast": (0, 1, 0)})
        frames = sorted_frames(rng, header, slices=3, repetitions=2, contrasts=2)
        out = list(images([estimated(frame) for frame in frames], header))
        found = [(image.repetition, image.slice, image.contrast, image.image_index) for image in out]
        expected = [(r, s, c) for r in range(2) for s in range(3) for c in range(2)]
        assert found == [(*counters, n + 1) for n, counters in enumerate(expected)]
        assert [image.meta["GADGETRON_ImageNumber"] for image in out] == [str(n + 1) for n in range(12)]
        assert [image.meta["GADGETRON_TE"] for image in out[:2]] == ["3", "7.5"]
        assert [image.position[2] for image in out[:6:2]] == [3, 4, 5]


def test_phase_oversampling_from_lines_to_image(rng):
    truth = synthetic.coil_images(rng, 1, 20, 32)
    header = plain((32, 20, 1), fov=(64, 40, 5), recon=(16, 16, 1), recon_fov=(32, 32, 5))
    frames = list(sort([synthetic.lines(fftc(truth))], header))
    assert isinstance(frames[0], Frame)
    (image,) = images(network(frames, header, name="zerofilled"), header)
    np.testing.assert_allclose(image.data[0, 0], np.abs(truth[0, 0, 2:18, 8:24]), atol=1e-5)


class TestAllGadgets:
    """From lines with correlated noise to images of the object: unfolded, and of even brightness."""

    def chain(self, stream, header, **options):
        lines = noise(stream, header)
        maps = coils(compress(sort(lines, header), header, coils=5), header)
        return list(images(network(maps, header, name="cgsense", **options), header))

    def compare(self, image, truth):
        """Up to the brightness, which whitening and combination change: smoothly, for smooth coils."""
        inside = np.abs(truth) > 0.5
        ratio = image[inside] / np.abs(truth)[inside]
        assert np.std(ratio) < 0.12 * np.mean(ratio)
        assert np.mean(np.abs(image[~inside])) < 0.1 * np.mean(image[inside])

    def test_slices(self):
        rng = np.random.default_rng(0)
        mixing = np.eye(scans.COILS) + 0.2 * rng.standard_normal((scans.COILS, scans.COILS))
        sigma = 0.02
        samples = sigma * mixing @ synthetic.coil_images(rng, scans.COILS, 40, 200)[:, 0].swapaxes(0, 1)
        header = scans.header()
        stream = [synthetic.noise_lines(samples, dwell=5.0)]
        ys = sorted({*range(0, scans.SIZE, 2), *range(9, 23)})
        for n in range(2):
            line = synthetic.lines(scans.kspace((n + 1) * scans.disc()), ys, slice=n)
            scatter = synthetic.coil_images(rng, scans.COILS, len(ys), scans.SIZE)[:, 0].swapaxes(0, 1)
            stream.append(replace(line, data=(line.data + sigma * mixing @ scatter).astype(np.complex64)))
        out = self.chain(stream, header)
        assert [image.slice for image in out] == [0, 1]
        for image in out:
            self.compare(image.data[0, 0], scans.disc())
        ratio = out[1].data.mean() / out[0].data.mean()
        assert ratio == pytest.approx(2, rel=0.05)
        history = out[0].meta["GADGETRON_ImageProcessingHistory"]
        assert history == ["prewhitened", "5 virtual coils (gdcc)", "espirit sensitivities", "cgsense"]

    def test_volume(self):
        frame = scans.volume()
        header = scans.header()
        maps = coils(compress([frame], header, coils=5), header)
        (image,) = images(network(maps, header, name="cgsense", batch=4), header)
        assert image.data.shape == (1, scans.SIZE, scans.SIZE, 16)
        for x in (0, 7, 15):
            self.compare(image.data[0, :, :, x], scans.disc())
        profile = image.data[0].sum(axis=(0, 1))
        np.testing.assert_allclose(profile / profile[0], 1 + np.arange(16) / 16, rtol=0.05)
