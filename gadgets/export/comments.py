"""Sentences on images, and which of several images they are on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gadgets.export.contents import Picture
from gadgets.meta import COMMENTS, COUNTED

__all__ = ["sentences", "told"]

_COUNTERS = re.compile(re.escape(COUNTED) + r"[^)]*\)")


def sentences(picture: Picture) -> list[str]:
    """Return the comment of an image, sentence by sentence where it has them so, without the counters of the image."""
    text = _COUNTERS.sub("", picture.first("ImageComments"), count=1)
    listed = [sentence for sentence in picture.meta.get(COMMENTS, []) if sentence]
    together = "; ".join(listed)
    if not text.startswith(together):
        return [text]
    return [*listed, *filter(None, [text[len(together) :].removeprefix("; ")])]


def told(frames: Sequence[Sequence[Picture]]) -> list[str]:
    """Return the sentences on images (frame, slice), each once. One that is not on all says on which, from 0."""
    said: dict[str, list[tuple[int, int]]] = {}
    for n, frame in enumerate(frames):
        for z, picture in enumerate(frame):
            for sentence in dict.fromkeys(sentences(picture)):
                said.setdefault(sentence, []).append((n, z))
    return [f"{''.join(_where(places, frames))}{sentence}" for sentence, places in said.items()]


def _where(places: Sequence[tuple[int, int]], frames: Sequence[Sequence[Picture]]) -> Iterator[str]:
    """Yield the frames of `places`, and their slices where these are not all of them; nothing where all are meant."""
    of_frames: dict[int, list[int]] = {}
    for n, z in places:
        of_frames.setdefault(n, []).append(z)
    alike: dict[tuple[int, ...], list[int]] = {}
    for n, found in of_frames.items():
        alike.setdefault(tuple(found), []).append(n)
    whole = tuple(range(len(frames[0])))
    if list(alike) == [whole] and len(of_frames) == len(frames):
        return
    parts = []
    for slices, which in alike.items():
        named = [] if len(which) == len(frames) else [f"frame {_numbers(which)}"]
        parts.append(", ".join([*named, *([] if slices == whole else [f"slice {_numbers(slices)}"])]))
    yield f"{'; '.join(parts)}: "


def _numbers(values: Sequence[int]) -> str:
    """Return ascending numbers in short: 0, 2-4."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
