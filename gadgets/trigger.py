"""When an image is complete: by flags that the header's limits bear out, by a later repetition, or at the end."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

from mrnets.mrd.encoding import Encoding
from mrnets.mrd.flags import LEFT_OUT, Flag, has_flag
from mrnets.mrd.images import Key
from mrnets.mrd.lines import Lines

__all__ = ["Trigger", "complete"]

Trigger = Literal["auto", "repetition", "measurement"]


def complete(
    trigger: Trigger,
    open_: Collection[Key],
    lines: Lines,
    seen: Collection[Key],
    encoding: Callable[[int], Encoding],
    awaited: Callable[[Key, Encoding], bool],
) -> list[Key]:
    """Images to which nothing can come any more after `lines`, which went to `seen`.

    open_: images that are not complete. awaited: whether calibration lines of an image are still to come."""
    if trigger == "measurement" or not seen:
        return []
    newest = {key[1:]: key.repetition for key in sorted(set(seen))}
    over = {key for key in open_ if key.repetition < newest.get(key[1:], 0)}
    if trigger == "auto":
        space = encoding(int(lines.headers["encoding_space_ref"][0]))
        over |= {key for key in _flagged(open_, lines, space) if not awaited(key, space)}
    return sorted(over)


def _flagged(open_: Collection[Key], lines: Lines, encoding: Encoding) -> set[Key]:
    """Images that a flag finishes, and that nothing in the header's limits keeps open."""
    headers = lines.headers
    final = has_flag(headers, Flag.LAST_IN_SLICE, Flag.LAST_IN_REPETITION) & ~has_flag(headers, *LEFT_OUT)
    if not final.any():
        return set()
    if not encoding.embedded:
        final &= ~has_flag(headers, Flag.IS_PARALLEL_CALIBRATION)
    for name, last in encoding.last.items():
        final &= last is not None and headers["idx"][name] >= (last or 0)
    found: set[Key] = set()
    for line in headers[final]:  # a line or two of a whole slice
        repetition, set_, phase, slice_ = (int(line["idx"][name]) for name in Key._fields[:4])
        key = Key(repetition, set_, phase, slice_, encoding.index)
        if has_flag(line, Flag.LAST_IN_REPETITION):
            found |= {k for k in open_ if (k.repetition, k.encoding) == (repetition, encoding.index)}
        elif not encoding.volume:  # of a volume it may mean the last of one partition
            found.add(key)
    return found & set(open_)
