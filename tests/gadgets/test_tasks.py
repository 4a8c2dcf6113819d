"""Segmentation, quantitative and joint networks in chains: what goes into them, what is kept, what comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ismrmrd
import numpy as np
import pytest
import torch

import gadgets.estimate as gadget_module
import gadgets.models as module
from gadgets.coils import coils
from gadgets.hosts.replay import replay
from gadgets.images import images
from gadgets.network import network
from gadgets.simulate import Settings, make_scan
from mrnets.contract import Estimate
from mrnets.errors import InputError
from mrnets.mrd.files import write_scan
from mrnets.physics.fourier import ifftc
from tests.gadgets.frames import SIZE, disc, frames, header, volume
from tests.gadgets.networks import LABELS, reconstructed, save

pytestmark = pytest.mark.usefixtures("no_networks_of_other_tests")


@pytest.fixture
def segmenter(tmp_path):
    options = {"contrasts": 1, "classes": 3}
    return save(tmp_path / "segmenter.safetensors", "segunet", LABELS, options=options)


def echoes(count: int = 4) -> Any:
    """A frame of the disc with R2* = 30 1/s and 20 Hz off resonance."""
    (frame,) = coils(frames(acceleration=1), header())
    times = 0.004 * np.arange(1, count + 1, dtype=np.float32)
    decay = np.exp(times * (2j * np.pi * 20 - 30)).astype(np.complex64)[None, :, None, None, None]
    return replace(frame, raw=replace(frame.raw, kspace=frame.raw.kspace * decay, echo_times=times))


class TestSegmentation:
    def test_the_image_is_taken_and_kept(self, segmenter):
        before = reconstructed()
        (frame,) = network(before, header(), weights=segmenter)
        assert frame.estimate.logits.shape == (1, 3, SIZE, SIZE)
        assert torch.equal(frame.estimate.image, before[0].estimate.image)
        picture, segmentation = images([frame], header())
        assert picture.meta["GADGETRON_ImageComment"][0] == "Image by cgsense"
        assert segmentation.meta["GADGETRON_ImageComment"][0] == "Segmentation by segmenter"
        assert segmentation.meta["Labels"] == ["0 background", "1 lesion", "2 oedema"]
        there = (frame.estimate.image[0, 0] != 0).numpy()
        assert 0 < there.sum() < there.size
        expected = frame.estimate.logits[0].argmax(dim=0).numpy()
        np.testing.assert_array_equal(segmentation.data[0, 0], np.where(there, expected, 0))

    @pytest.mark.parametrize("precision", ["bfloat16", "float16"])
    def test_half_precision(self, segmenter, precision):
        exact, (frame,) = (
            list(network(reconstructed(), header(), weights=segmenter, **given))
            for given in ({}, {"precision": precision})
        )
        assert not frame.fallback
        _, segmentation = images([frame], header())
        _, expected = images(exact, header())
        assert (segmentation.data == expected.data).mean() > 0.9

    def test_it_sees_normalised_magnitudes(self, segmenter, instead):
        seen = []

        def forward(scan):
            seen.append(scan.image)
            return Estimate(logits=torch.zeros(1, 3, SIZE, SIZE))

        (before,) = reconstructed()
        list(network([before], header(), weights=instead(segmenter, forward)))
        expected = before.estimate.image.abs()
        torch.testing.assert_close(seen[0], expected / expected.max())

    def test_without_an_image(self, segmenter):
        with pytest.raises(InputError, match="segmenter segments images, and none came"):
            list(network(frames(), header(), weights=segmenter))

    def test_other_contrasts(self, tmp_path):
        path = save(tmp_path / "brats.safetensors", "segunet", options={"contrasts": 4})
        with pytest.raises(InputError, match=r"brats takes images of 4 contrasts .*, and the scan has 1"):
            list(network(reconstructed(), header(), weights=path))

    def test_names_for_other_classes(self, tmp_path):
        path = save(tmp_path / "two.safetensors", "segunet", LABELS, options={"contrasts": 1, "classes": 2})
        with pytest.raises(InputError, match="names 3 classes, and its network has 2"):
            list(network(reconstructed(), header(), weights=path))

    def test_echoes_are_contrasts(self, tmp_path):
        path = save(tmp_path / "brats.safetensors", "segunet", LABELS, options={"contrasts": 4, "classes": 3})
        (frame,) = network(network([echoes()], header(), name="cgsense"), header(), weights=path)
        assert len(list(images([frame], header()))) == 5

    @pytest.mark.parametrize("how", ["raises", "not finite"])
    def test_a_failure_loses_no_image(self, segmenter, instead, how):
        def forward(scan):
            if how == "raises":
                raise RuntimeError("broke")
            return Estimate(logits=torch.full((1, 3, SIZE, SIZE), torch.nan))

        before = reconstructed(2)
        path = instead(segmenter, forward)
        after = list(network(before, header(), weights=path))
        for one, other in zip(before, after, strict=True):
            assert torch.equal(one.estimate.image, other.estimate.image)
            assert other.estimate.logits is None
            assert other.fallback
        out = list(images(after, header()))
        assert [image.meta["GADGETRON_DataRole"] for image in out] == ["Image", "Image"]
        assert "the network segmenter failed" in out[0].meta["ImageComments"]
        assert "FALLBACK" in out[0].meta["ImageComments"]
        assert out[0].meta["GADGETRON_ImageComment"][0] == "Image by cgsense"
        module._models = module.Cache(8)
        with pytest.raises((RuntimeError, ArithmeticError)):
            list(network(before, header(), weights=path, fallback="none"))

    @pytest.mark.parametrize(("labels", "options"), [((), {"classes": 1}), (("tumour", "core"), {"classes": 2})])
    def test_classes_that_overlap_have_a_picture_each(self, tmp_path, instead, labels, options):
        path = save(
            tmp_path / "brats.safetensors",
            "segunet",
            labels,
            options={"contrasts": 1, **options},
            classes="overlapping",
        )
        half = torch.arange(SIZE) < SIZE // 2
        wanted = [half.expand(SIZE, SIZE), torch.ones(SIZE, SIZE, dtype=torch.bool)][: options["classes"]]
        logits = torch.stack([2.0 * mask - 1 for mask in wanted])[None]
        (frame,) = network(reconstructed(), header(), weights=instead(path, lambda _: Estimate(logits=logits)))
        out = list(images([frame], header()))[1:]
        names = labels or ("class 1",)
        assert [image.meta["Labels"] for image in out] == [["0 background", f"1 {name}"] for name in names]
        assert [image.image_series_index for image in out] == [2, 3][: len(names)]
        assert names[0] in out[0].meta["SequenceDescription"]
        there = frame.estimate.image[0, 0] != 0
        for image, mask in zip(out, wanted, strict=True):
            assert image.data.dtype == np.uint16
            np.testing.assert_array_equal(image.data[0, 0], (mask & there).numpy())


class TestQuantitative:
    def test_maps_beside_the_image_they_start_from(self, tmp_path):
        path = save(tmp_path / "q.safetensors", "qvarnet", units={"R2*": "1/s"}, options={"start": "image"})
        (before,) = network([echoes()], header(), name="cgsense")
        (frame,) = network([before], header(), weights=path)
        assert torch.equal(frame.estimate.image, before.estimate.image)
        assert set(frame.estimate.maps) == {"R2*", "S0", "B0", "phase"}
        out = list(images([frame], header()))
        assert [image.meta["GADGETRON_DataRole"] for image in out] == ["Image"] * 4 + ["B0", "R2*", "S0", "phase"]
        assert out[0].meta["GADGETRON_ImageComment"][0] == "Image by cgsense"
        assert out[5].meta["GADGETRON_ImageComment"][0] == "R2* by q"

    def test_the_image_comes_in_the_scale_and_phase_of_the_scan(self, tmp_path, instead):
        path = save(tmp_path / "q.safetensors", "qvarnet", options={"start": "image"})
        seen = []

        def forward(scan):
            seen.append(scan)
            return Estimate(maps={"S0": torch.ones(1, SIZE, SIZE)})

        (before,) = network([echoes()], header(), name="zerofilled")
        list(network([before], header(), weights=instead(path, forward)))
        (scan,) = seen
        own = (scan.sens.conj() * ifftc(scan.kspace)).sum(-3)
        torch.testing.assert_close(scan.image, own, atol=1e-4, rtol=0)
        assert abs(float(scan.image.abs().max()) - 1) < 1e-4

    def test_without_the_image(self, tmp_path):
        path = save(tmp_path / "q.safetensors", "qvarnet", options={"start": "image"})
        with pytest.raises(InputError, match="q starts from images, and none came"):
            list(network([echoes()], header(), weights=path))

    def test_a_failure_gives_images(self, tmp_path, instead):
        """Those of the fallback; or those that were there."""

        def broken(scan):
            raise RuntimeError("broke")

        path = instead(save(tmp_path / "q.safetensors", "qvarnet"), broken)
        (frame,) = network([echoes()], header(), weights=path)
        (plain,) = network([echoes()], header(), name="l1wavelet")
        assert torch.equal(frame.estimate.image, plain.estimate.image)
        assert not frame.estimate.maps
        assert frame.fallback
        assert frame.history[-1] == "l1wavelet"
        (before,) = network([echoes()], header(), name="zerofilled")
        (frame,) = network([before], header(), weights=path)
        assert torch.equal(frame.estimate.image, before.estimate.image)
        assert "what came before it stays" in frame.notes[-1]


class TestJoint:
    @pytest.mark.parametrize("name", ["idslr", "idslrunet", "segnet", "mtlrs"])
    def test_images_and_labels(self, tmp_path, name):
        preparation = {} if name == "mtlrs" else {"coils": 3}
        path = save(tmp_path / "j.safetensors", name, LABELS, options={"classes": 3}, **preparation)
        (frame,) = network(frames(), header(), weights=path)
        assert not frame.fallback
        out = list(images([frame], header()))
        assert [image.meta["GADGETRON_DataRole"] for image in out] == ["Image", "Segmentation"]
        assert {image.meta["GADGETRON_ImageComment"][0] for image in out} == {"Image by j", "Segmentation by j"}

    def test_a_failure_gives_the_image_of_a_method_without_weights(self, tmp_path, instead):
        half = Estimate(image=torch.ones(1, 1, SIZE, SIZE) + 0j, logits=torch.full((1, 3, SIZE, SIZE), torch.nan))
        path = instead(save(tmp_path / "j.safetensors", "mtlrs", LABELS, options={"classes": 3}), lambda _: half)
        (frame,) = network(frames(), header(), weights=path)
        (plain,) = network(frames(), header(), name="l1wavelet")
        assert torch.equal(frame.estimate.image, plain.estimate.image)
        assert frame.estimate.logits is None
        (image,) = images([frame], header())
        assert "FALLBACK" in image.meta["SequenceDescription"]


def test_a_volume_is_prepared_in_blocks(tmp_path, monkeypatch):
    path = save(tmp_path / "v.safetensors", "varnet", coils=4)
    (whole,) = network([volume()], header(), weights=path, batch=4)
    monkeypatch.setattr(gadget_module, "PREPARED_AT_ONCE", 5)  # blocks of 8
    (blocks,) = network([volume()], header(), weights=path, batch=4)
    torch.testing.assert_close(blocks.estimate.image, whole.estimate.image, rtol=1e-3, atol=1e-4)


def test_what_was_cropped_comes_back_on_the_grid_of_the_scan_and_says_so(tmp_path, instead):
    path = save(tmp_path / "v.safetensors", "varnet", image_crop=(20, 24), kspace_crop=(28, 28))
    path = instead(path, lambda scan: Estimate(image=(scan.sens.conj() * ifftc(scan.kspace)).sum(-3)))
    (frame,) = network(frames(acceleration=1), header(), weights=path)
    assert any("middle 20 x 24 of 32 x 32" in note for note in frame.notes)
    (image,) = images([frame], header())
    assert image.data.shape[-2:] == (SIZE, SIZE)
    inside = image.data[0, 0, 8:24, 8:24]
    assert np.linalg.norm(inside - np.abs(disc())[8:24, 8:24]) < 0.2 * np.linalg.norm(inside)
    assert (image.data[0, 0, :6] == 0).all()


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Two slices, four echoes."""
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    settings = Settings(coils=6, matrix=32, slices=2, echoes=4, acceleration=2, calibration=12, seed=3)
    header, lines, _ = make_scan(settings)
    write_scan(path, header, lines)
    return path


class TestChains:
    """The chains that ship, with small weights, on simulated scans."""

    def series(self, scan: Any, out: Any, chain: str, *settings: str) -> dict[tuple[int, str], int]:
        replay(scan, out, chain, settings=settings)
        counts: dict[tuple[int, str], int] = {}
        with ismrmrd.Dataset(str(out), mode="r") as data:
            for group in data.list():
                for n in range(data.number_of_images(group)) if group.startswith("image") else ():
                    image = data.read_image(group, n)
                    assert tuple(image.matrix_size) == (32, 32, 1)
                    assert "FALLBACK" not in image.meta["ImageComments"]
                    key = (image.image_series_index, image.meta["GADGETRON_DataRole"])
                    counts[key] = counts.get(key, 0) + 1
        return counts

    def test_segment(self, scan, tmp_path):
        first = save(tmp_path / "v.safetensors", "varnet")
        second = save(tmp_path / "s.safetensors", "unet3d", LABELS, options={"classes": 3}, slices=3)
        settings = ("network.1.check=off", f"network.1.weights={first}", f"network.2.weights={second}")
        assert self.series(scan, tmp_path / "out.h5", "segment", *settings) == {(1, "Image"): 8, (2, "Segmentation"): 2}

    def test_quantitative(self, scan, tmp_path):
        weights = save(tmp_path / "q.safetensors", "qvarnet", units={"R2*": "1/s"})
        series = self.series(scan, tmp_path / "out.h5", "quantitative", f"network.weights={weights}")
        assert series == {(2, "B0"): 2, (3, "R2*"): 2, (4, "S0"): 2, (5, "phase"): 2}

    def test_joint(self, tmp_path):
        path = tmp_path / "scan.h5"
        header, lines, _ = make_scan(Settings(coils=6, matrix=32, acceleration=2, calibration=12))
        write_scan(path, header, lines)
        weights = save(tmp_path / "j.safetensors", "segnet", LABELS, options={"classes": 3}, coils=3)
        series = self.series(path, tmp_path / "out.h5", "joint", f"network.weights={weights}")
        assert series == {(1, "Image"): 1, (2, "Segmentation"): 1}
