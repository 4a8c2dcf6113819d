"""The decision whether images are slices or volumes: by the header, or else by the lines."""

from __future__ import annotations

import numpy as np
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.mrd.encoding import Dimensions, found, limit_of
from mrnets.mrd.images import by_image

__all__ = ["dimensions_of_header", "dimensions_of_lines"]


def dimensions_of_header(header: ismrmrdHeader, index: int) -> Dimensions | None:
    """The dimensions of the images of encoding space `index`; None where the lines must tell.

    Converters write more partitions than one into 2-D scans (slice oversampling), and limits that mean nothing.
    GE's converter, and Siemens' interpreter of Pulseq, announce one partition of volumes, too. Raises InputError if
    there is no such space."""
    encoding = found(header, index)
    one = min(encoding.encodedSpace.matrixSize.z, encoding.reconSpace.matrixSize.z) <= 1
    return 2 if one else None


def dimensions_of_lines(
    header: ismrmrdHeader, index: int, lines: NDArray[np.void], *, whole: bool
) -> Dimensions | None:
    """The dimensions of the images of encoding space `index`, of which the header does not tell them.

    lines: (line,) headers of lines of images. whole: no more lines come. None: more lines must tell.
    Raises InputError if all lines are of one partition and the scan seems to have been cut short."""
    counters = lines["idx"]["kspace_encode_step_2"]
    if any((counters[which] != counters[which[0]]).any() for _, _, which in by_image(lines, index)):
        return 3
    limit = limit_of(found(header, index), 2)
    if not whole:
        one = limit is not None and limit.minimum == limit.maximum
        several = any(len(np.unique(lines["idx"][name])) > 1 for name in ("slice", "repetition"))
        return 2 if one and several else None  # images begin before a partition other than the first has come
    believed = limit is not None and limit.minimum < limit.maximum and limit.minimum <= limit.center <= limit.maximum
    if believed and limit.center != counters[0] and len(np.unique(lines["idx"]["slice"])) == 1:
        raise InputError(
            f"encoding space {index}: only partition {counters[0]} of {limit.minimum} to {limit.maximum} came, without "
            f"the centre {limit.center}; the scan was cut short, or is 2-D: then set sort.dimensions to 2d"
        )
    return 2
