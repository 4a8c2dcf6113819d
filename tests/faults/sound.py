"""The scan without faults, as encoded messages, and its chain.

The scan has two slices of 24 x 24, four coils, a noise measurement, and twofold undersampling with calibration lines.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from gadgets.messages import Close, Header, Id
from gadgets.simulate import Settings, make_scan
from mrnets.mrd.lines import ACQUISITION_HEADER
from tests.gadgets.toys import blob, stage

MEMORY = 0.125
"""GiB that a scan may take."""
STAGES = (
    stage("noise"),
    stage("sort", memory=MEMORY),
    stage("compress"),
    stage("coils", method="espirit"),
    stage("network", name="cgsense", options="iterations=6, regularisation=0.01"),
    stage("images"),
)
TRAINED = "varnet_brain"
"""Weights that ship."""
NAMES = ("noise", "sort", "compress", "coils", "network", "images")

ACQUISITION = Id.ACQUISITION.to_bytes(2, "little")
HEAD = 2 + ACQUISITION_HEADER.itemsize
"""Bytes of an acquisition message before its samples."""
XML = 6
"""Bytes of a header message before its text."""


@cache
def parts() -> tuple[bytes, ...]:
    """The messages of the scan: header, one for each acquisition, CLOSE."""
    settings = Settings(
        coils=4,
        matrix=24,
        slices=2,
        noise_lines=16,
        calibration=10,
        acceleration=2,
        oversampling=1,
        snr=100,
        mask="regular1d",
    )
    header, blocks, _ = make_scan(settings)
    lines = []
    for block in blocks:
        record = HEAD + 8 * block.data.shape[1] * block.data.shape[2]
        whole = blob([block])
        lines += [whole[start : start + record] for start in range(0, len(whole), record)]
    return (blob([Header(header)]), *lines, blob([Close()]))


def xml_of(part: bytes) -> bytes:
    """The text of a header message."""
    return part[XML:]


def places(scan: list[bytes]) -> list[int]:
    """Where acquisitions are in `scan`."""
    return [n for n, part in enumerate(scan) if part.startswith(ACQUISITION)]


def head_of(part: bytes) -> np.ndarray:
    """The header of an acquisition message, to be changed; see `with_head`."""
    return np.frombuffer(part[2:HEAD], ACQUISITION_HEADER)[0].copy()


def with_head(part: bytes, head: np.ndarray) -> bytes:
    """The acquisition message with another header."""
    return part[:2] + head.tobytes() + part[HEAD:]


def samples_of(part: bytes) -> np.ndarray:
    """The samples of an acquisition message, to be changed."""
    return np.frombuffer(part[HEAD:], np.complex64).copy()


def with_samples(part: bytes, samples: np.ndarray) -> bytes:
    """The acquisition message with other samples."""
    return part[:HEAD] + samples.astype(np.complex64).tobytes()
