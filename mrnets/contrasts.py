"""Contrasts of images by their names, as files, series and weights files give them. Readable without torch."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mrnets.errors import InputError

__all__ = ["KEY", "NAMES", "in_order", "named"]

KEY = "contrasts"
"""Where a weights file's provenance names the contrasts of its images, in their order."""
NAMES = ("t1", "t1c", "t2", "flair", "adc", "dwi")

_WORDS = {
    "t1": r"t1[nw]?",
    "t1c": r"t1w?(c|ce|gd|km|post|contrast)",
    "t2": r"t2w?",
    "flair": r"t2f|.*flair.*",
    "adc": r"adc",
    "dwi": r"dwi|tracew?",
}
"""Words that tell a contrast, in lower case, as regular expressions. BraTS calls T1 t1n, T2 t2w and FLAIR t2f."""
_AGENT = r"ce|gd|gad|gadolinium|km|post|postcontrast|contrast|enhanced"
"""Words beside t1 that tell a contrast agent."""
_DOUBTFUL = r"c|map|maps|mapping|t2star|star|t2s|pre|without|no|non"
"""Words beside t1 or t2 by which the image may be another one."""
_NO_IMAGE = r"mask|brainmask|msk|seg|segmentation|labels?|lesions?"


def named(text: str) -> str | None:
    """Return the contrast that a name tells: "BraTS-GLI-00005-000-t2f", "AX T1 POST". None: none, or not surely."""
    words = re.findall(r"[a-z0-9]+", text.lower().replace("t2*", "t2star").replace("+c", " contrast "))
    found = {name for word in words for name, form in _WORDS.items() if re.fullmatch(form, word)}

    def has(form: str) -> bool:
        return any(re.fullmatch(form, word) for word in words)

    if has(_NO_IMAGE) or (has(_DOUBTFUL) and found & {"t1", "t1c", "t2"}):
        return None
    if found in ({"t2", "flair"}, {"dwi", "adc"}):  # T2 FLAIR; the ADC map of a DWI
        return "flair" if "flair" in found else "adc"
    if found and found <= {"t1", "t1c"} and has(_AGENT):
        return "t1c"
    return found.pop() if len(found) == 1 else None


def in_order(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return contrasts by their names here: "t1c, t1n, t2f, t2w" is (t1c, t1, flair, t2).

    Raises InputError for a name that is none of a contrast, and for one that is given twice."""
    given = [word.strip() for word in names.split(",") if word.strip()] if isinstance(names, str) else list(names)
    found = tuple(named(word) for word in given)
    for word, name in zip(given, found, strict=True):
        if name is None:
            raise InputError(f"{word!r} is no contrast that is known; known are {', '.join(NAMES)}")
        if found.count(name) > 1:
            raise InputError(f"the contrast {name} is given twice")
    return tuple(name for name in found if name is not None)
