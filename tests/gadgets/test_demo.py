"""The demo, small: its picture, its pages, and the default chain's image file."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("skimage")
image = pytest.importorskip("PIL.Image")

from gadgets import demo  # noqa: E402
from gadgets.__main__ import main  # noqa: E402
from gadgets.imagefiles import read_images  # noqa: E402


def test_the_demo_leaves_a_picture_pages_and_images(tmp_path, monkeypatch, capsys):
    small = replace(demo._SCAN, volume=None, coils=4, matrix=48, calibration=10, slices=1)
    monkeypatch.setattr(demo, "SCANS", {"": small, "low_noise_": replace(small, snr=600.0)})
    monkeypatch.setattr(demo, "CHAINS", {"zerofilled": "Zero-filled", "reconstruct": "The default"})
    assert main(["demo", "--folder", str(tmp_path / "demo")]) == 0
    picture = np.asarray(image.open(tmp_path / "demo" / "comparison.png").convert("RGB")).astype(int)
    assert picture.std() > 10
    assert (np.ptp(picture, axis=-1) > 60).any()  # errors are in colours
    for name in ("report.html", "low_noise_report.html"):
        page = (tmp_path / "demo" / name).read_text(encoding="utf-8")
        assert all(word in page for word in (demo.REFERENCE, "Zero-filled", "The default", "SSIM", "difference from"))
    ((_, pixels),) = read_images(tmp_path / "demo" / "images.h5")
    assert pixels.shape[0] == 1
    assert "report.html" in capsys.readouterr().out
