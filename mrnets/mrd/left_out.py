"""Sentences on lines of an image that were left out, or whose k-space centre is not that of the others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from mrnets.errors import InputError
from mrnets.mrd.encoding import Encoding
from mrnets.mrd.kspace import Echo
from mrnets.mrd.refused import MAX_OUTSIDE, Refused

__all__ = ["left_out_notes", "outside_note"]


def outside_note(lines: int, outside: int, first: int, encoding: Encoding, *, refuse: bool = True) -> str:
    """A sentence on lines that have no place on the grid; empty if there are none.

    lines, outside: how many came, and how many of them have no place. first: the scan counter of the first of these.
    Raises InputError where they are so many that the header's matrix or centre must be wrong, unless `refuse` is
    False."""
    if not outside:
        return ""
    steps = [
        f"kspace_encode_step_{n + 1} from {-offset} to {encoding.encoded.matrix[n + 1] - 1 - offset}"
        for n, offset in enumerate(encoding.offsets if encoding.volume else encoding.offsets[:1])
    ]
    what = (
        f"{outside} of {lines} lines (acquisition {first} is the first) are outside of the matrix of {encoding.name}, "
        f"{' and '.join(steps)}"
    )
    if refuse and outside * MAX_OUTSIDE > lines:
        raise InputError(f"{what}; sort.centre_line and sort.centre_partition set the centre by hand")
    return f"{what}; they were left out"


def left_out_notes(echoes: Sequence[Echo], encoding: Encoding, *, calibration: bool = False) -> list[str]:
    """Return sentences on lines of an image that were left out, or whose k-space centre is not that of the others.

    calibration: the lines are separate calibration lines, which may reach beyond the matrix of the images.
    Raises InputError where those left out are so many that the scan's header must be wrong."""
    lines = sum(echo.lines for echo in echoes)
    outside = Refused.together(echo.outside for echo in echoes)
    refused = Refused.together(echo.refused for echo in echoes)
    notes = [
        outside_note(lines, outside.count, outside.first, encoding, refuse=not calibration),
        refused.note(lines, 0 if calibration else outside.count),
        *(_centre_note(echo.centres) for echo in echoes),
    ]
    return [note for note in notes if note]


def _centre_note(centres: Counter[tuple[bool, int, int]]) -> str:
    """A sentence on a few lines whose k-space centre is at another sample than that of all others like them.

    Many of them are another way to sample."""
    alike: defaultdict[tuple[bool, int], Counter[int]] = defaultdict(Counter)
    for (backwards, samples, centre), count in centres.items():
        alike[backwards, samples][centre] += count
    for found in alike.values():
        (usual, most), *others = found.most_common()
        lines = found.total()
        few = lines - most
        if 0 < few * MAX_OUTSIDE <= lines:
            return (
                f"{few} of {lines} lines have their k-space centre at sample {others[0][0]}, the others at {usual}; "
                f"they may be damaged"
            )
    return ""
