"""The k-space centre of ISMRMRD files whose header is doubtful, as the gadgets' sort finds it: from the data."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

from mrnets.mrd.axis import Seen
from mrnets.mrd.centre import doubtful_centres
from mrnets.mrd.encoding import ByHand, Encoding
from mrnets.mrd.files import open_source

__all__ = ["NOTHING_SEEN", "SeenCentres", "seen_centres"]

SeenCentres: TypeAlias = tuple[Seen | None, Seen | None]
"""The centres of encode steps 1 and 2."""
NOTHING_SEEN: SeenCentres = (None, None)

MAX_LINES = 1024
"""Lines near the possible centres that are read."""


def seen_centres(
    encoding: Encoding,
    header: ismrmrdHeader,
    heads: NDArray[np.void],
    rows: NDArray[np.int64],
    path: str,
    by_hand: ByHand,
) -> SeenCentres:
    """Return the centres that the lines `rows` of a file show, where they contradict the header's.

    heads: (line,) headers of all lines. Samples are read only where the header is doubtful. Raises InputError."""
    found: list[Seen | None] = []
    for evidence in doubtful_centres(encoding, header, by_hand):
        if evidence is None:
            found.append(None)
            continue
        counters = heads["idx"][f"kspace_encode_step_{evidence.step}"][rows].astype(np.int64)
        centres = np.asarray([evidence.centre, *evidence.others])
        near = (np.abs(counters[:, None] - centres) <= evidence.reach).any(axis=1)
        with open_source(path) as opened:
            for lines in opened.lines(rows[near][:MAX_LINES]):
                evidence.energies.add(lines)
        found.append(evidence.seen())
    return found[0], found[1]
