"""Scans as converters write them, of every kind of the field: each with the plain scan whose images it must give.

All are of one smooth object; nothing here is a file of a scanner. Axes: k-space (coil, z, y, x).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from ismrmrd import xsd

from mrnets.mrd.flags import Flag
from mrnets.mrd.lines import Lines
from mrnets.physics.fourier import fftc, ifftc
from tests.gadgets import frames as discs
from tests.gadgets import synthetic
from tests.gadgets.test_epi import OnRamps, images

N, NZ, COILS = 32, 12, 4
STEP_1, STEP_2 = "kspace_encoding_step_1", "kspace_encoding_step_2"


@dataclass(frozen=True)
class Scan:
    """A header, and the lines in their order."""

    header: bytes
    blocks: tuple[Lines, ...]


@dataclass(frozen=True)
class Odd:
    """A scan that is not as it should be."""

    scan: Scan
    plain: Scan | None
    """The scan that is as it should be, with the same images; None: images are only to be the same everywhere."""
    note: str = ""
    """Words that the comment of each image holds."""


def space(nz: int = 1, nx: int = N, brightness: float = 1.0) -> Any:
    """k-space of a disc, or of a body that is a disc in every plane."""
    images = discs.coil_maps(COILS, N, nx) * discs.disc(N, nx) * brightness
    return synthetic.to_kspace((images[:, None] * np.hanning(nz + 2)[1:-1, None, None]).astype(np.complex64))


def document(made: Any, vendor: str | None = None) -> bytes:
    made.acquisitionSystemInformation = xsd.acquisitionSystemInformationType(systemVendor=vendor)
    return bytes(xsd.ToXML(made).encode())


def header(nz: int = 1, *, vendor: str | None = None, te: Any = (), **options: Any) -> bytes:
    mode = options.pop("mode", "embedded")
    matrix = options.pop("matrix", (N, N, nz))
    return document(synthetic.header(synthetic.encoding(matrix, mode=mode, **options), te=te), vendor)


def moved(block: Lines, by: tuple[int, int] = (0, 0), user: tuple[int, int] = (0, 0)) -> Lines:
    """Other counters for the same lines."""
    headers = block.headers.copy()
    for n in (0, 1):
        counters = headers["idx"][f"kspace_encode_step_{n + 1}"]
        counters[:] = counters.astype(int) + by[n]
    headers["idx"]["user"][:, 5:7] = user
    return replace(block, headers=headers)


def flagged(block: Lines, flag: Flag, which: slice = slice(None)) -> Lines:
    headers = block.headers.copy()
    headers["flags"][which] |= np.uint64(1 << (flag - 1))
    return replace(block, headers=headers)


def lines(of: Any, ys: Any = None, zs: Any = None, **options: Any) -> Lines:
    return synthetic.lines(of, ys, zs, last=[Flag.LAST_IN_MEASUREMENT], **options)


def wrong_centre(*, nz: int = 1, user: bool = True, step: int = 1, vendor: str = "SIEMENS", short: bool = False) -> Odd:
    """Partial Fourier with half of the lines as the centre; the true one in user counters, or nowhere."""
    left_out, zs = N // 4, range(NZ // 4, nz) if nz > 1 else [0]
    ys = sorted({*range(left_out, N, step), *range(N // 2 - 6, N // 2 + 6)})
    count, depth = N - left_out, nz - zs[0]
    limits = {STEP_1: (0, count - 1, count // 2), STEP_2: (0, depth - 1, depth // 2 if nz > 1 else 0)}
    matrix = (N, count if short else N, nz)
    fov = (2.0 * N, 2.0 * N, 2.0 * nz)
    made = header(nz, vendor=vendor, matrix=matrix, recon=(N, N, nz), fov=fov, limits=limits)
    block = lines(space(nz), ys, zs)
    centre = (N // 2 - left_out, nz // 2 - zs[0])
    odd = moved(block, (-left_out, -zs[0]), centre if user else (0, 0))
    words = "which the lines carry" if user else "contradicts the data"
    return Odd(Scan(made, (odd,)), Scan(header(nz, vendor=vendor), (block,)), words)


def one_partition(limit: tuple[int, int, int] | None, z: int = 2, recon: int = 1) -> Odd:
    made = synthetic.header(synthetic.encoding((N, N, z), recon=(N, N, recon), mode="embedded"))
    made.encoding[0].encodingLimits.kspace_encoding_step_2 = None if limit is None else synthetic.limit(*_end(limit))
    made.encoding[0].encodingLimits.slice = synthetic.limit(0, 1, 0)
    plain = synthetic.header(synthetic.encoding((N, N, 1), mode="embedded", limits={"slice": (0, 1, 0)}))
    spaces = [space(brightness=n + 1) for n in range(2)]
    blocks = tuple(lines(one, slice=n, first_counter=N * n) for n, one in enumerate(spaces))
    return Odd(Scan(document(made), blocks), Scan(document(plain), blocks), "partitions and one was measured")


def _end(limit: tuple[int, int, int]) -> tuple[int, int, int]:
    """(minimum, maximum, centre), from (minimum, centre, maximum)."""
    return limit[0], limit[2], limit[1]


def beyond_the_matrix(nz: int = 1) -> Odd:
    wide = np.full((COILS, nz, N + 4, N), 1e-3, np.complex64)  # lines of zeros alone would be left out before
    wide[:, :, 2:-2] = space(nz)
    limits = {STEP_1: (0, N + 3, N // 2 + 2)}
    odd = Scan(header(nz, limits=limits), (lines(wide),))
    return Odd(odd, Scan(header(nz), (lines(space(nz)),)), f"{4 * nz} of {(N + 4) * nz} lines")


def centre_beyond_limits(centre: int) -> Odd:
    odd = Scan(header(limits={STEP_1: (0, N - 1, centre)}), (lines(space()),))
    return Odd(odd, Scan(header(), (lines(space()),)), f"centre {centre} does not fit")


def surface_correction(which: slice, nz: int = 1) -> Odd:
    block = lines(space(nz))
    odd = flagged(block, Flag.IS_SURFACECOILCORRECTIONSCAN_DATA, which)
    return Odd(Scan(header(nz), (odd,)), Scan(header(nz), (block,)), "no other lines have their places")


def reversed_echoes(oversampling: int = 1) -> Odd:
    """Three echoes of which the second runs backwards; Siemens leaves its centre at N/2."""
    wide = oversampling * N
    fov = (2.0 * wide, 2.0 * N, 2.0)
    options = {"matrix": (wide, N, 1), "recon": (N, N, 1), "fov": fov, "recon_fov": (2.0 * N, *fov[1:])}
    made = header(vendor="SIEMENS", te=(3.0, 6.0, 9.0), limits={"contrast": (0, 2, 0)}, **options)
    runs = [
        synthetic.lines(space(nx=wide, brightness=3 - n), contrast=n, reverse=n == 1, first_counter=N * n)
        for n in range(3)
    ]
    odd = runs[1].headers.copy()
    odd["center_sample"] = wide // 2
    changed = (runs[0], replace(runs[1], headers=odd), runs[2])
    return Odd(Scan(made, changed), Scan(made, tuple(runs)), "center_sample of reversed lines")


def header_text(old: str, new: bytes, note: str, *, nz: int = 1) -> Odd:
    plain = Scan(header(nz, te=(3.0,)), (lines(space(nz)),))
    text, count = re.subn(old.encode(), lambda _: new, plain.header, count=1)
    assert count == 1, old
    return Odd(Scan(text, plain.blocks), plain, note)


def time_interleaved(nz: int = 1) -> Odd:
    """TGRAPPA: every other line in every other repetition, and no calibration lines."""
    blocks = tuple(
        synthetic.lines(space(nz, brightness=n + 1), range(n % 2, N, 2), repetition=n, first_counter=n * N * nz)
        for n in range(4)
    )
    made = header(nz, mode="interleaved", limits={"repetition": (0, 3, 0)})
    return Odd(Scan(made, blocks), None, "mean over 2 repetitions")


def heart_in_real_time(mode: str | None = None) -> Odd:
    """As OCMR's scans: images are phases of the heart, sample other lines in turn, and have no calibration lines."""
    blocks = tuple(
        synthetic.lines(space(brightness=n + 1), range(n % 2, N, 2), phase=n, first_counter=n * N) for n in range(4)
    )
    return Odd(Scan(header(mode=mode, limits={"phase": (0, 3, 0)}), blocks), None, "mean over 2 phases")


def last_in_slice_too_early() -> Odd:
    """The flag stands at the end of each of four segments, which the header does not announce."""
    block = lines(space())
    segments = [
        flagged(replace(block, headers=block.headers[n::4], data=block.data[n::4]), Flag.LAST_IN_SLICE, slice(-1, None))
        for n in range(4)
    ]
    return Odd(Scan(header(mode=None), tuple(segments)), Scan(header(mode=None), (block,)))


def volume_of_pulseq() -> Odd:
    """The header announces one partition, and all came."""
    block = lines(space(NZ))
    return Odd(Scan(header(NZ, limits={STEP_2: (0, 0, 0)}), (block,)), Scan(header(NZ), (block,)))


def opposite_signs() -> Odd:
    """The averages of a phase-cycled scan, from a converter that does not know of their signs."""
    made = header(limits={"average": (0, 1, 0)})
    blocks = tuple(synthetic.lines(space() * (-1) ** n, average=n, first_counter=n * N) for n in range(2))
    wrong = replace(blocks[1], data=blocks[1].data * np.float32(0.9))
    return Odd(Scan(made, (blocks[0], wrong)), None, "they seem to have opposite signs")


def delayed(of: Any, sign: int) -> Any:
    """Lines of one direction, with half of the phase between the directions."""
    size = of.shape[-1]
    turn = np.exp(0.5j * sign * (0.7 + 0.3 * (np.arange(size) - size // 2)))
    return fftc(ifftc(of, axes=(-1,)) * turn, axes=(-1,)).astype(np.complex64)


def echo_planar(trajectory: str, nz: int = 1) -> Odd:
    """Lines of both directions, with phase-correction lines of both."""
    of = space(nz)
    navigators = tuple(
        synthetic.lines(
            delayed(of, sign),
            [N // 2],
            [nz // 2],
            flags=[Flag.IS_PHASECORR_DATA],
            reverse=sign > 0,
            first_counter=n,
        )
        for n, sign in enumerate((-1, 1, -1))
    )
    train = tuple(
        synthetic.lines(delayed(of, sign), range(first, N, 2), reverse=sign > 0, first_counter=3 + first * N * nz)
        for first, sign in ((0, -1), (1, 1))
    )
    plain = Scan(header(nz), (lines(of),))
    return Odd(Scan(header(nz, trajectory=trajectory), (*navigators, *train)), plain)


def on_ramps(nz: int = 1) -> Odd:
    """Echo-planar lines with samples on the gradient's ramps."""
    scanner, of = OnRamps(), images(1, nz)
    return Odd(Scan(document(scanner.header(nz)), (scanner.lines(of),)), None)


def not_labelled() -> Odd:
    """Three echoes without the contrast label: they are averaged, which cannot be mended, but said."""
    blocks = tuple(synthetic.lines(space(), first_counter=n * N) for n in range(3))
    return Odd(Scan(header(), blocks), Scan(header(), blocks[:1]), "came twice with the same counters")


ODD: dict[str, Callable[[], Odd]] = {
    "01 centre in user counters": wrong_centre,
    "01 centre in user counters, undersampled": partial(wrong_centre, step=2),
    "01 centre in user counters, 3-D": partial(wrong_centre, nz=NZ),
    "01 centre of Philips": partial(wrong_centre, user=False, vendor="PHILIPS"),
    "01 centre of GE, matrix too short": partial(wrong_centre, user=False, vendor="GE MEDICAL SYSTEMS", short=True),
    "01 centre of GE, matrix too short, 3-D": partial(
        wrong_centre, nz=NZ, user=False, vendor="GE MEDICAL SYSTEMS", short=True
    ),
    "02 limits of two partitions": partial(one_partition, (0, 1, 1)),
    "02 limits of one partition": partial(one_partition, (0, 1, 0)),
    "02 no limits of partitions": partial(one_partition, None),
    "03 flag 29 on all lines": partial(surface_correction, slice(None)),
    "03 flag 29 on half of the lines": partial(surface_correction, slice(0, None, 2)),
    "03 flag 29 on half of the lines, 3-D": partial(surface_correction, slice(0, None, 2), NZ),
    "04 reversed echo": reversed_echoes,
    "04 reversed echo, oversampled": partial(reversed_echoes, 2),
    "05 lines beyond the matrix": beyond_the_matrix,
    "05 lines beyond the matrix, 3-D": partial(beyond_the_matrix, NZ),
    "06 matrix 32.0": partial(header_text, f"<y>{N}</y>", b"<y>32.0</y>", 'matrixSize.y = "32.0"'),
    "06 matrix 31.9996, 3-D": partial(header_text, f"<x>{N}</x>", b"<x>31.9996</x>", '"32" was taken', nz=NZ),
    "06 decimal comma": partial(header_text, "<TE>3.0</TE>", b"<TE>3,0</TE>", 'TE = "3,0"'),
    "06 Latin-1": partial(
        header_text,
        "<encoding>",
        b"<userParameters><userParameterString><name>k</name><value>M\xfcller</value>"
        b"</userParameterString></userParameters><encoding>",
        "Latin-1 was taken",
    ),
    "06 unknown element": partial(header_text, "<encoding>", b"<scanner><a>1</a></scanner><encoding>", ""),
    "06 capital letters": partial(header_text, "cartesian", b"Cartesian", '"cartesian" was taken'),
    "06 field of view NaN": partial(header_text, f"<y>{2.0 * N}</y>", b"<y>NaN</y>", "fieldOfView_mm.y = nan"),
    "09 time-interleaved": time_interleaved,
    "09 time-interleaved, 3-D": partial(time_interleaved, NZ),
    "09 heart in real time": heart_in_real_time,
    "09 heart in real time, time-interleaved": partial(heart_in_real_time, "interleaved"),
    "30 last in slice too early": last_in_slice_too_early,
    "31 volume of Pulseq": volume_of_pulseq,
    "32 averages of opposite signs": opposite_signs,
    "17 negative centre": partial(one_partition, (0, -4, 0), 8),
    "17 centre 65532": partial(one_partition, (0, 65532, 7), 8, 8),
    "17 negative centre of lines": partial(centre_beyond_limits, -4),
    "19 epi": partial(echo_planar, "epi"),
    "19 epi, said to be cartesian": partial(echo_planar, "cartesian"),
    "19 epi, 3-D": partial(echo_planar, "epi", NZ),
    "19 epi with samples on ramps": on_ramps,
    "19 epi with samples on ramps, 3-D": partial(on_ramps, NZ),
    "29 labels not set": not_labelled,
}
"""By the number of the kind in the list of the field."""
