"""Classes of outcomes.

refused: the host said why in one sentence.
right: the images are those of the scan without the fault, up to 5 % and one factor for all that carry no note. Noise
that is measured otherwise changes that factor.
marked: images differ, and each that differs says so in its comment.
silent: an image is wrong or missing and nothing says so. payload: the same, where no format can show the fault.
unforeseen: an error without a sentence of ours. hang and crash are found by the parent process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from tests.faults.hosts import Outcome, Seen

TOLERANCE = 0.05
LONGEST = 2000
"""Characters of a sentence."""
BAD = ("silent", "unforeseen", "hang", "crash")


def judged(outcome: Outcome, expected: Iterable[Seen], *, visible: bool) -> tuple[str, str]:
    """The class of an outcome, and why. visible: whether the format can show the fault."""
    said = "; ".join(outcome.sentences)
    if outcome.unforeseen or "\n" in said or len(said) > LONGEST:
        return "unforeseen", said[:LONGEST]
    if outcome.sentences:
        return "refused", said
    if not outcome.whole:
        return "unforeseen", "neither CLOSE nor a sentence"
    doubts = _doubts({image.key: image for image in expected}, outcome.images)
    unmarked = [text for text, marked in doubts if not marked]
    if unmarked:
        return ("silent" if visible else "payload"), "; ".join(unmarked)
    return ("marked", "; ".join(text for text, _ in doubts)) if doubts else ("right", "")


def _doubts(expected: dict[tuple[int, ...], Seen], images: list[Seen]) -> list[tuple[str, bool]]:
    """Return the faults of images, and whether they say that something is wrong.

    An image under another counter says it of the one in whose place it came."""
    images = _same_counters(expected, images)
    usual = frozenset().union(*(image.notes for image in expected.values()))
    marked = [bool(image.notes - usual) for image in images]
    unmarked = [image for image, said in zip(images, marked, strict=True) if not said]
    both = [(image, expected[image.key]) for image in unmarked or images if image.key in expected]
    scale = _scale(both)
    strange = {image.key[:2] for image, said in zip(images, marked, strict=True) if said and image.key not in expected}
    missing = expected.keys() - {image.key for image in images}
    found = [(f"image {key} is missing", key[:2] in strange) for key in missing]
    for image, said in zip(images, marked, strict=True):
        if image.key not in expected:
            found.append((f"image {image.key} is one too many", said))
        elif reason := _differs(image, expected[image.key], scale):
            found.append((f"image {image.key} {reason}", said))
    return found


def _same_counters(expected: dict[tuple[int, ...], Seen], images: list[Seen]) -> list[Seen]:
    """Images with the usual counters other than series and slice, where all share others: such a scan is sound."""
    usual = next(iter(expected))[2:]
    return [replace(i, key=i.key[:2] + usual) for i in images] if len({i.key[2:] for i in images}) == 1 else images


def _scale(both: list[tuple[Seen, Seen]]) -> float:
    """The factor from images to what is expected, by least squares."""
    alike = [(i, e) for i, e in both if i.pixels.shape == e.pixels.shape and np.isfinite(i.pixels).all()]
    power = sum(float(np.sum(np.square(i.pixels, dtype=np.float64))) for i, _ in alike)
    common = sum(float(np.sum(np.multiply(i.pixels, e.pixels, dtype=np.float64))) for i, e in alike)
    return common / power if power else 1.0


def _differs(image: Seen, expected: Seen, scale: float) -> str:
    if image.pixels.shape != expected.pixels.shape:
        return f"has the shape {image.pixels.shape}"
    if not np.allclose(image.geometry, expected.geometry, rtol=1e-3, atol=1e-3):
        return f"has the geometry {image.geometry.tolist()}"
    error = np.linalg.norm(scale * image.pixels.astype(np.float64) - expected.pixels)
    relative = float(error / np.linalg.norm(expected.pixels))
    return "" if relative <= TOLERANCE else f"differs by {relative:.2g}"
