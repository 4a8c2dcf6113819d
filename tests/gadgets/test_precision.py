"""Reduced precision of the networks that ship: as near to the object as float32, within 0.1 dB."""

import numpy as np
import pytest

from gadgets.chain import Chain, Stage
from gadgets.simulate import Settings, make_scan
from mrnets.mrd.header import read_header

SCAN = Settings(matrix=128, coils=8, acceleration=3, calibration=20, seed=3)
WITHIN = 0.1
"""dB."""


def image(weights, precision):
    """The image of the chain, and that of the object."""
    stages = (
        Stage("noise", {}),
        Stage("sort", {}),
        Stage("network", {"weights": weights, "precision": precision, "check": "off"}),
        Stage("images", {}),
    )
    header, lines, reference = make_scan(SCAN)
    (made,) = Chain.of(stages).run(lines, read_header(header).header)
    assert "FALLBACK" not in str(made.meta)
    return np.asarray(made.data[0, 0], np.float64), reference[0][0].astype(np.float64)


def psnr(made, truth):
    """dB, at the best scale: the scale of images is free."""
    scale = (made * truth).sum() / (made**2).sum()
    return 20 * np.log10(truth.max() / np.sqrt(np.mean((scale * made - truth) ** 2)))


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["varnet_brain", "l1varnet_general"])
def test_reduced_precision_is_as_near_to_the_object(weights):
    exact = psnr(*image(weights, "float32"))
    for precision in ("bfloat16", "float16"):
        assert psnr(*image(weights, precision)) > exact - WITHIN
