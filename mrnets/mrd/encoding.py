"""Encoding spaces of an ISMRMRD header, made complete: grids, where the k-space centre lies, oversampling.

Axes: x = readout, y = encode step 1, z = encode step 2. On every grid the k-space centre is at n // 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.mrd.axis import Limit, Seen, placed
from mrnets.mrd.limits import announced
from mrnets.mrd.ramps import Ramps, ramps_of

__all__ = [
    "MAX_SIDE",
    "NOTHING_BY_HAND",
    "ByHand",
    "Dimensions",
    "Encoding",
    "Limit",
    "Space",
    "encoding_of",
    "found",
    "limit_of",
    "vendor_of",
    "whole_matrix",
]

Dimensions = Literal[2, 3]

MAX_SIDE = 16384
MAX_PIXELS = 1 << 30
USER_CENTRES = (5, 6)
"""siemens_to_ismrmrd writes the centre's counters of encode steps 1 and 2 into these user counters of every line."""


@dataclass(frozen=True)
class Space:
    """A grid, and the field of view that it covers."""

    matrix: tuple[int, int, int]
    fov: tuple[float, float, float]
    """mm; 0 where the header does not say."""


@dataclass(frozen=True)
class ByHand:
    """Facts that a user gives of a scan whose header is wrong. None and "auto": as the header and the lines say."""

    centre_line: int | None = None
    """The counter kspace_encode_step_1 of the k-space centre."""
    centre_partition: int | None = None
    """The counter kspace_encode_step_2 of the k-space centre."""
    centre_sample: int | None = None
    """The sample of every line at which the k-space centre lies, in the direction of lines that are not reversed."""
    reversed_centre: Literal["auto", "kept", "mirrored"] = "auto"
    """Meaning of center_sample in a reversed line. "kept" (Siemens): it counts from the start of k-space. "mirrored"
    (ISMRMRD): it counts from the first sample of the line."""
    dimensions: Literal["auto", "2d", "3d"] = "auto"
    """The dimensions of images."""
    reversed_contrasts: Literal["flagged", "odd"] = "flagged"
    """Contrasts whose lines run backwards: those whose lines have the flag 22, or also contrasts 1, 3, 5 and so on."""

    @property
    def known_dimensions(self) -> Dimensions | None:
        """The dimensions of images; None for "auto"."""
        known: dict[str, Dimensions | None] = {"auto": None, "2d": 2, "3d": 3}
        return known[self.dimensions]


NOTHING_BY_HAND = ByHand()


@dataclass(frozen=True)
class Encoding:
    """One encoding space."""

    index: int
    encoded: Space
    """As in the header, readout oversampling included."""
    recon: Space
    reduced: Space
    """`encoded` without readout oversampling: the grid of sorted k-space."""
    offsets: tuple[int, int]
    """Added to the counters kspace_encode_step_1 and _2 they give positions on the grid. Images that are not
    volumes have one partition, whatever its counter."""
    limits: tuple[Limit, Limit]
    """The limits of y and z, on the grid."""
    announced: bool
    """The limits of y are the header's; else they are those of the grid."""
    volume: bool
    """3-D: encode step 2 is in use."""
    last: dict[str, int | None]
    """The last value of the counters contrast, average and segment; None where the header does not say."""
    calibration: str | None
    """Calibration mode: embedded, interleaved, separate, external, other."""
    series: Literal["repetition", "phase"] | None
    """The counter that the header announces several values of: its images may sample different lines. With several
    repetitions it is the repetition."""
    name: str
    """For errors."""
    sample: int | None
    """`ByHand.centre_sample`."""
    reversed_centre: Literal["auto", "kept", "mirrored"]
    """`ByHand.reversed_centre`."""
    siemens: bool
    """The scanner is a Siemens."""
    epi: bool = False
    """The trajectory is echo-planar."""
    ramps: Ramps | None = None
    """The times of readouts with samples on the gradient's ramps; None where there are none."""
    guesses: tuple[str, ...] = ()
    """Sentences on what the header left open or said wrongly, with what was taken instead; for the images' comment."""

    @property
    def pixels(self) -> float:
        """Pixels over the whole encoded field of view, of the size that images have."""
        return _pixels(self.encoded, self.recon)[1]

    @property
    def embedded(self) -> bool:
        """Calibration lines are lines of the image, too."""
        return self.calibration in ("embedded", "interleaved")


def encoding_of(
    header: ismrmrdHeader,
    index: int,
    first: NDArray[np.void] | None = None,
    *,
    dimensions: Dimensions | None = None,
    by_hand: ByHand = NOTHING_BY_HAND,
    seen: tuple[Seen | None, Seen | None] = (None, None),
    gridded: bool = False,
) -> Encoding:
    """Return encoding space `index`. Values that are missing or wrong in the header are derived.

    first: () header of the first line to be placed. Its centre can be more reliable than that of the scan's header.
    dimensions: of the images. None: as the encoded matrix has them.
    seen: the centres of y and z that the data show, where they contradict the header (`mrnets.mrd.centre`).
    gridded: the data were put on a grid before, whatever their trajectory was.
    Raises InputError for a space that is missing, not Cartesian (unless gridded), or has an absurd matrix. Raises it
    also for several slices excited at once, and for samples on ramps at unknown places.
    """
    encoding, name = found(header, index), f"encoding space {index}"
    _require_supported(encoding, name, gridded)
    encoded, recon = _space(encoding.encodedSpace, name), _space(encoding.reconSpace, name)
    _require_sane_images(encoded, recon, name)
    encoded, recon, flattened = _flattened(encoded, recon, name) if dimensions == 2 else (encoded, recon, "")
    vendor = vendor_of(header)
    users = _user_centres(first) if vendor in ("", "siemens") else (0, 0)
    limits = [limit_of(encoding, 1), _limit_of_partitions(encoding, encoded)]
    wholes = whole_matrix(encoded, recon)
    axes = [
        placed(
            f"{name}, kspace_encoding_step_{n + 1}",
            (encoded.matrix[n + 1], wholes[n + 1]),
            limits[n],
            user=users[n],
            hand=hand,
            seen=seen[n],
        )
        for n, hand in enumerate((by_hand.centre_line, by_hand.centre_partition))
    ]
    encoded = Space((encoded.matrix[0], axes[0].size, axes[1].size), encoded.fov)
    parallel = encoding.parallelImaging
    return Encoding(
        index=index,
        encoded=encoded,
        recon=recon,
        reduced=_without_oversampling(encoded, recon),
        offsets=(axes[0].offset, axes[1].offset),
        limits=(axes[0].limit, axes[1].limit),
        announced=limits[0] is not None,
        volume=encoded.matrix[2] > 1,
        last={counter: _last(encoding.encodingLimits, counter) for counter in ("contrast", "average", "segment")},
        calibration=None if parallel is None else _text(parallel.calibrationMode),
        series=_series(encoding.encodingLimits),
        name=name,
        sample=by_hand.centre_sample,
        reversed_centre=by_hand.reversed_centre,
        siemens=vendor == "siemens",
        epi=_text(encoding.trajectory) == "epi",
        ramps=None if gridded else ramps_of(encoding.trajectoryDescription, name),
        guesses=tuple(filter(None, (flattened, *(axis.guess for axis in axes)))),
    )


def _flattened(encoded: Space, recon: Space, name: str) -> tuple[Space, Space, str]:
    """Return both spaces as those of a slice, and a sentence where a matrix has partitions."""
    if encoded.matrix[2] == 1:
        return encoded, recon, ""
    note = f"{name}: the matrix has {encoded.matrix[2]} partitions and one was measured; images are 2-D"
    flat = Space((*encoded.matrix[:2], 1), (*encoded.fov[:2], recon.fov[2]))
    return flat, Space((*recon.matrix[:2], 1), recon.fov), note


def _user_centres(first: NDArray[np.void] | None) -> tuple[int, int]:
    """Return the centres of y and z in the user counters of a line; 0: none."""
    y, z = (0 if first is None else int(first["idx"]["user"][n]) for n in USER_CENTRES)
    return y, z


def found(header: ismrmrdHeader, index: int) -> Any:
    """Return encoding space `index` as the header has it. Raises InputError if there is none."""
    if not 0 <= index < len(header.encoding):
        raise InputError(
            f"the header has {len(header.encoding)} encoding spaces, but the data refer to encoding space {index}"
        )
    return header.encoding[index]


def _require_supported(encoding: Any, name: str, gridded: bool) -> None:
    trajectory = _text(encoding.trajectory)
    if trajectory not in (None, "cartesian", "epi") and not gridded:
        raise InputError(f"the trajectory of {name} is {trajectory}; only cartesian and epi k-space can be sorted")
    factor = getattr(getattr(encoding.parallelImaging, "multiband", None), "multiband_factor", None) or 1
    if factor > 1:
        raise InputError(
            f"{name}: {factor} slices were excited at once (multiband_factor); such slices cannot be unfolded here"
        )


def _text(value: Any) -> str | None:
    return None if value is None else str(getattr(value, "value", value))


def vendor_of(header: ismrmrdHeader) -> str:
    """The maker of the scanner, one word in small letters; empty where the header does not say."""
    words = str(getattr(header.acquisitionSystemInformation, "systemVendor", None) or "").lower().split()
    return words[0] if words else ""


def limit_of(encoding: Any, step: int) -> Any:
    """The header's limit of an encode step, or None."""
    return getattr(encoding.encodingLimits, f"kspace_encoding_step_{step}", None)


def _limit_of_partitions(encoding: Any, encoded: Space) -> Any:
    """The header's limit of z. A volume has several partitions, so a limit of one says nothing (GE's converter)."""
    limit = limit_of(encoding, 2)
    return None if limit is not None and encoded.matrix[2] > 1 and limit.maximum <= limit.minimum else limit


def whole_matrix(encoded: Space, recon: Space) -> tuple[int, ...]:
    """The lines that images need along each axis, with the distance of `encoded`; 0 where no field of view is known."""
    return tuple(
        round(size * fov / wanted) if fov and wanted else 0
        for size, fov, wanted in zip(recon.matrix, encoded.fov, recon.fov, strict=True)
    )


def _space(space: Any, name: str) -> Space:
    matrix = (int(space.matrixSize.x), int(space.matrixSize.y), int(space.matrixSize.z))
    if not all(1 <= n <= MAX_SIDE for n in matrix):
        raise InputError(
            f"{name} has the matrix {' x '.join(map(str, matrix))}; each side must be from 1 to {MAX_SIDE}"
        )
    fov = (space.fieldOfView_mm.x, space.fieldOfView_mm.y, space.fieldOfView_mm.z)
    x, y, z = (float(mm) if mm is not None and math.isfinite(mm) and mm > 0 else 0.0 for mm in fov)
    return Space(matrix, (x, y, z))


def _pixels(encoded: Space, recon: Space) -> tuple[float, float]:
    """The longest side, and the number, of pixels over the whole encoded field of view."""
    ratios = [a / b if a and b else 1.0 for a, b in zip(encoded.fov, recon.fov, strict=True)]
    sides = [size * max(ratio, 1.0) for size, ratio in zip(recon.matrix, ratios, strict=True)]
    return max(sides), math.prod(sides)


def _require_sane_images(encoded: Space, recon: Space, name: str) -> None:
    """Raises InputError if images, over the whole encoded field of view, would be absurdly large."""
    side, count = _pixels(encoded, recon)
    if side > MAX_SIDE or count > MAX_PIXELS:
        raise InputError(
            f"{name} asks for images of {' x '.join(map(str, recon.matrix))} pixels over {recon.fov} mm out of "
            f"{encoded.fov} mm; that is absurdly large"
        )


def _last(limits: Any, counter: str) -> int | None:
    values = announced(limits, counter)
    return values.stop - 1 if values.stop else None


def _series(limits: Any) -> Literal["repetition", "phase"] | None:
    if _last(limits, "repetition"):
        return "repetition"
    return "phase" if _last(limits, "phase") else None


def _without_oversampling(encoded: Space, recon: Space) -> Space:
    """The middle of the field of view that is wanted, in whole samples; as `encoded` where no less is wanted."""
    size, fov, wanted = encoded.matrix[0], encoded.fov[0], recon.fov[0]
    if not (fov and wanted and wanted < fov):
        return encoded
    reduced = max(round(size * wanted / fov), 1)
    return Space((reduced, *encoded.matrix[1:]), (fov * reduced / size, *encoded.fov[1:]))
