"""What an ISMRMRD header says of an encoding space, made complete: grids, where the k-space centre lies, oversampling.

Axes: x = readout, y = encode step 1, z = encode step 2. On every grid the k-space centre is at n // 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ismrmrd.xsd import ismrmrdHeader

from mrnets.errors import InputError

__all__ = ["MAX_SIDE", "Encoding", "Limit", "Space", "encoding_of"]

MAX_SIDE = 16384
MAX_PIXELS = 1 << 30


@dataclass(frozen=True)
class Space:
    """A grid, and the field of view that it covers."""

    matrix: tuple[int, int, int]
    fov: tuple[float, float, float]
    """mm; 0 where the header does not say."""


@dataclass(frozen=True)
class Limit:
    """The first and last position along one axis of the encoded grid that was to be sampled, and the centre's."""

    minimum: int
    centre: int
    maximum: int


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
    """What is added to the counters kspace_encode_step_1 and _2 to get positions on the grid."""
    limits: tuple[Limit, Limit]
    """Of y and z, on the grid."""
    announced: bool
    """The limits of y are the header's; else they are those of the grid."""
    volume: bool
    """3-D: encode step 2 is in use."""
    last: dict[str, int | None]
    """The last value of the counters contrast, average and segment; None where the header does not say."""
    calibration: str | None
    """Calibration mode: embedded, interleaved, separate, external, other."""
    name: str
    """For errors."""
    guesses: tuple[str, ...] = ()
    """What the header left open or said wrongly, and what was taken instead: for the log and the images' comment."""

    @property
    def pixels(self) -> float:
        """Pixels over the whole encoded field of view, of the size that images have."""
        return _pixels(self.encoded, self.recon)[1]

    @property
    def embedded(self) -> bool:
        """Calibration lines are lines of the image, too."""
        return self.calibration in ("embedded", "interleaved")


def encoding_of(header: ismrmrdHeader, index: int, *, gridded: bool = False, flat: bool | None = None) -> Encoding:
    """Encoding space `index`; what the header leaves out is derived.

    gridded: the data were put on a grid before, whatever their trajectory was.
    flat: one partition was measured, so that images are 2-D whatever the encoded matrix is. None: as the header says.

    Raises InputError if there is no such space, if it is not Cartesian (unless gridded), or if its matrix is absurd.
    """
    name = f"encoding space {index}"
    if not 0 <= index < len(header.encoding):
        raise InputError(f"the header has {len(header.encoding)} encoding spaces, but the data refer to {name}")
    encoding = header.encoding[index]
    trajectory = _text(encoding.trajectory)
    if trajectory not in (None, "cartesian") and not gridded:
        raise InputError(f"{name} has a {trajectory} trajectory; only cartesian k-space can be sorted")
    encoded, recon = _space(encoding.encodedSpace, name), _space(encoding.reconSpace, name)
    _require_sane_images(encoded, recon, name)
    limits = encoding.encodingLimits
    step_1, step_2 = (getattr(limits, f"kspace_encoding_step_{n}", None) for n in (1, 2))
    if flat is None:
        flat = step_2 is not None and step_2.maximum <= step_2.minimum and step_2.maximum == 0
    if flat and encoded.matrix[2] > 1:
        encoded = Space((*encoded.matrix[:2], 1), (*encoded.fov[:2], recon.fov[2]))
        recon = Space((*recon.matrix[:2], 1), recon.fov)
    placed = [
        _centred(limit, size, f"{name}, kspace_encoding_step_{step}")
        for limit, size, step in ((step_1, encoded.matrix[1], 1), (step_2, encoded.matrix[2], 2))
    ]
    parallel = encoding.parallelImaging
    return Encoding(
        index=index,
        encoded=encoded,
        recon=recon,
        reduced=_without_oversampling(encoded, recon),
        offsets=(placed[0].offset, placed[1].offset),
        limits=(placed[0].limit, placed[1].limit),
        announced=step_1 is not None,
        volume=encoded.matrix[2] > 1,
        last={counter: _last(limits, counter) for counter in ("contrast", "average", "segment")},
        calibration=None if parallel is None else _text(parallel.calibrationMode),
        name=name,
        guesses=tuple(axis.guess for axis in placed if axis.guess),
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(getattr(value, "value", value))


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


@dataclass(frozen=True)
class _Axis:
    """Where the counters of one axis lie on its grid."""

    offset: int
    limit: Limit
    guess: str = ""


def _centred(limit: Any, size: int, name: str) -> _Axis:
    """The offset from counter to position, and the limits in positions. Without limits counters are positions."""
    centre = size // 2
    if limit is None:
        return _Axis(0, Limit(0, centre, size - 1))
    offset, guess = centre - int(limit.center), ""
    if limit.center == 0 and limit.maximum + offset >= size:
        offset, guess = 0, f"{name}: centre 0 does not fit a matrix of {size}; taking {centre}"
    return _Axis(
        offset, Limit(max(int(limit.minimum) + offset, 0), centre, min(limit.maximum + offset, size - 1)), guess
    )


def _last(limits: Any, counter: str) -> int | None:
    limit = getattr(limits, counter, None)
    return None if limit is None else int(limit.maximum)


def _without_oversampling(encoded: Space, recon: Space) -> Space:
    """The middle of the field of view that is wanted, in whole samples; as `encoded` where no less is wanted."""
    size, fov, wanted = encoded.matrix[0], encoded.fov[0], recon.fov[0]
    if not (fov and wanted and wanted < fov):
        return encoded
    reduced = max(round(size * wanted / fov), 1)
    return Space((reduced, *encoded.matrix[1:]), (fov * reduced / size, *encoded.fov[1:]))
