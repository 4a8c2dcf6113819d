"""Whether lines are of slices or of a volume, where the header does not tell."""

from __future__ import annotations

import numpy as np
import pytest

from mrnets.mrd.dimensions import dimensions_of_header, dimensions_of_lines
from mrnets.mrd.lines import ACQUISITION_HEADER
from tests.gadgets import synthetic

LINES = 6
HEADER = synthetic.header(
    synthetic.encoding((8, LINES, 4), limits={"kspace_encoding_step_1": (0, 5, 3), "kspace_encoding_step_2": (0, 0, 0)})
)
"""One partition is announced, and the matrix has four."""


def lines(partition=0, **counters):
    headers = np.zeros(LINES, ACQUISITION_HEADER)
    headers["idx"]["kspace_encode_step_1"], headers["idx"]["kspace_encode_step_2"] = np.arange(LINES), partition
    for name, value in counters.items():
        headers["idx"][name] = value
    return headers


@pytest.mark.parametrize(
    ("blocks", "known", "at_the_end"),
    [
        ([lines()], None, 2),
        ([lines(), lines(1)], 3, 3),
        ([lines(), lines(contrast=1)], None, 2),
        ([lines(), lines(slice=1)], 2, 2),
        ([lines(), lines(repetition=1)], 2, 2),
    ],
)
def test_images_begin_before_another_partition_comes(blocks, known, at_the_end):
    """So a second slice or repetition without one shows slices, and nobody waits for the end of the scan."""
    came = np.concatenate(blocks)
    assert dimensions_of_header(HEADER, 0) is None
    assert dimensions_of_lines(HEADER, 0, came, whole=False) == known
    assert dimensions_of_lines(HEADER, 0, came, whole=True) == at_the_end
