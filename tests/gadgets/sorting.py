"""Lines as a client sends them, and the frames that `sort` makes of them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from gadgets.frame import Frame
from gadgets.sort import sort
from mrnets.mrd.flags import Flag
from mrnets.mrd.lines import Lines
from mrnets.physics.fourier import ifftc
from tests.gadgets import synthetic

COILS, NX, NY, NZ = 3, 16, 12, 6
BOTH = Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING
ONLY = Flag.IS_PARALLEL_CALIBRATION
STEP_1, STEP_2 = "kspace_encoding_step_1", "kspace_encoding_step_2"


def plain(**options):
    return synthetic.header(synthetic.encoding((NX, NY, 1), **options))


def oversampled(**options):
    fov, recon_fov = (4 * NX, 2 * NY, 1), (2 * NX, 2 * NY, 1)
    return synthetic.header(
        synthetic.encoding((2 * NX, NY, 1), fov=fov, recon=(NX, NY, 1), recon_fov=recon_fov, **options)
    )


def counted(**maxima):
    return plain(limits={name: (0, last, 0) for name, last in maxima.items()})


def images(rng, y=NY, x=NX, z=1):
    return synthetic.coil_images(rng, COILS, y, x, z)


def frames(stream, header, **options):
    out = list(sort(stream, header, **options))
    assert all(isinstance(frame, Frame) for frame in out)
    return out


def assert_is(frame, coil_image, echo=0):
    """The frame's k-space is that of `coil_image` (coil, 1, y, x), by the direct inverse Fourier transform."""
    np.testing.assert_allclose(ifftc(frame.raw.kspace)[0, echo], coil_image[:, 0], atol=1e-5)


def in_blocks(lines, *sizes):
    at = np.cumsum([0, *sizes, len(lines) - sum(sizes)])
    return [
        replace(lines, headers=lines.headers[a:b], data=lines.data[a:b]) for a, b in itertools.pairwise(at) if b > a
    ]


def kspace(rng: np.random.Generator, x: int = NX, y: int = NY, z: int = 1) -> Any:
    """(coil, z, y, x) of random images."""
    return synthetic.to_kspace(synthetic.coil_images(rng, COILS, y, x, z))


def header(matrix: tuple[int, int, int] = (NX, NY, 1), vendor: str | None = "SIEMENS", **options: Any) -> Any:
    made = synthetic.header(synthetic.encoding(matrix, **options), bandwidth=0.79)
    made.acquisitionSystemInformation.systemVendor = vendor
    return made


def changed(lines: Lines, **counters: int) -> Lines:
    headers = lines.headers.copy()
    for name, value in counters.items():
        headers["idx"][name] = value
    return replace(lines, headers=headers)


def flagged(lines: Lines, which: slice) -> Lines:
    headers = lines.headers.copy()
    headers["flags"][which] |= np.uint64(1 << (Flag.IS_SURFACECOILCORRECTIONSCAN_DATA - 1))
    return replace(lines, headers=headers)


def sampled(space: Any, ys: Any, zs: Any = (0,)) -> Any:
    """`space` with zeros where nothing was sampled."""
    there = np.zeros_like(space)
    at = np.ix_(range(len(space)), list(zs), list(ys), range(space.shape[-1]))
    there[at] = space[at]
    return there


def assert_kspace(frame: Frame, expected: Any, echo: int = 0) -> None:
    np.testing.assert_allclose(frame.raw.kspace[0, echo], expected[:, 0], atol=1e-5)
