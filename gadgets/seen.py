"""A scan compared with what a network was trained on: by the header, and by the data of each frame."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from ismrmrd.xsd import ismrmrdHeader

from gadgets.frame import Frame
from gadgets.models import Model
from mrnets.contract import Raw
from mrnets.errors import InputError
from mrnets.physics.arrays import to_numpy
from mrnets.physics.coils import rss
from mrnets.physics.fourier import ifftc
from mrnets.physics.masks import kind
from mrnets.seen import Range, Seen

__all__ = ["Comparison"]

HZ_PER_TESLA = 42.577478e6
"""Gyromagnetic ratio of hydrogen over 2 pi (CODATA 2018)."""
FIELD, ACCELERATION, SNR = 1.1, 1.25, 2.0
"""Factors by which a scan may lie beyond a range. A 3 T scanner may have 2.89 T; calibration lines and partial Fourier
change the acceleration that was asked for; the SNR is an estimate."""
BRIGHT = 0.98
"""Quantile of the magnitude that stands for bright tissue."""

_ANATOMY = {
    "phantom": r"phantom|acr|bottle|qa|qc",
    "brain": r"brain|head.*|skull|neuro.*|cereb.*|cranium|kopf|schaedel|hirn|tete|cerveau",
    "knee": r"knees?|knie|genou",
    "spine": r"[ctl]?spine|wirbel.*|[ctl]ws|lumbar|thoracic|cervical",
    "heart": r"heart|cardiac|cardio.*|myocard.*|herz",
    "abdomen": r"abdomen|liver|kidneys?|pancreas|leber|bauch",
    "pelvis": r"pelvis|prostate|uterus|bladder|becken",
    "breast": r"breasts?|mamma",
    "neck": r"neck|carotids?|hals",
    "shoulder": r"shoulders?|schulter",
    "hip": r"hips?|huefte",
    "ankle": r"ankles?|foot|feet|fuss",
    "hand": r"hands?|wrists?|fingers?|elbows?",
}
_CONTRASTS = {
    "t1": r"(ax|sag|cor|tra)?t1w?|mp2?rage|bravo|spgr",
    "t2": r"(ax|sag|cor|tra)?t2w?",
    "flair": r"(ax|sag|cor|tra)?flair",
    "pd": r"(ax|sag|cor|tra)?pdw?|proton",
}
"""Words of headers, whole ones in lower case, as regular expressions."""
_NOWHERE = ("", "unknown", "unspecified", "other", "none", "n/a")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """The comparison of one scan with what a network was trained on."""

    model: Model
    of_header: tuple[str, ...]
    """Differences that the header shows."""
    strict: bool
    told: set[str] = field(default_factory=set)
    """Sentences that are in the log already."""

    @classmethod
    def of(cls, model: Model, header: ismrmrdHeader, *, strict: bool) -> Comparison:
        """Return the comparison; its header is compared at once. Raises InputError for a difference where `strict`."""
        made = cls(model, tuple(_of_header(model.seen, header)), strict)
        if strict and made.of_header:
            raise InputError(made._sentence(made.of_header))
        return made

    def noted(self, frame: Frame) -> Frame:
        """Return the frame with a note of all differences, which is logged once. Raises InputError where `strict`."""
        more = () if self.model.takes == "image" else tuple(_of_data(self.model, frame.raw))
        if not (self.of_header or more):
            return frame
        sentence = self._sentence((*self.of_header, *more))
        if self.strict:
            raise InputError(sentence)
        if sentence not in self.told:
            self.told.add(sentence)
            _logger.warning("%s", sentence)
        return replace(frame, notes=(*frame.notes, sentence))

    def _sentence(self, differences: tuple[str, ...]) -> str:
        return f"{self.model.name} was not trained on such a scan: {'; '.join(differences)}"


def _of_header(seen: Seen, header: ismrmrdHeader) -> Iterator[str]:
    study, measurement = header.studyInformation, header.measurementInformation
    part = _text(study, "bodyPartExamined")
    texts = (_text(study, "studyDescription"), *(_text(measurement, n) for n in ("protocolName", "sequenceName")))
    yield from _of_words("anatomy", _anatomy(header, part, texts), seen.anatomy)
    yield from _of_words("contrast", [n for text in texts for n in _named(text, _CONTRASTS)], seen.contrasts)
    tesla = _field_strength(header)
    if tesla is not None:
        yield from _of_number("field strength", tesla, seen.field_strength, " T", FIELD)


def _anatomy(header: ismrmrdHeader, part: str, texts: tuple[str, ...]) -> list[str]:
    """Return the parts of the body that the header names. A header that names a phantom gives only the phantom."""
    found = [name for text in (part, *texts) for name in _named(text, _ANATOMY)]
    if "phantom" in (*found, *_named(_text(header.subjectInformation, "patientName"), _ANATOMY)):
        return ["phantom"]
    return found or ([] if part.lower() in _NOWHERE else [part.lower()])


def _of_data(model: Model, raw: Raw) -> Iterator[str]:
    """Give the differences of k-space, as the network sees it, from its training."""
    seen, preparation = model.seen, model.preparation
    size = list(raw.kspace.shape[-2:])
    for crop in () if preparation is None else (preparation.image_crop, preparation.kspace_crop):
        size = [min(n, m) for n, m in zip(size, crop or size, strict=True)]
    outside = [n for n in size if not _inside(n, seen.matrix)]
    if outside and seen.matrix is not None:
        yield f"its matrix is {size[0]} x {size[1]}, and was {_span(seen.matrix)} in training"
    coils = raw.kspace.shape[2]
    if preparation is not None and preparation.coils is not None:
        coils = min(coils, preparation.coils)
    yield from _of_number("number of coils", coils, seen.coils)
    if not (seen.acceleration or seen.masks or seen.snr):
        return  # a device need not be asked for the mask
    mask = to_numpy(raw.mask)
    if not mask.any():
        return
    yield from _of_number("acceleration", 1 / float(mask.mean()), seen.acceleration, slack=ACCELERATION)
    axes = 1 if (mask == mask.any(-1, keepdims=True)).all() or (mask == mask.any(-2, keepdims=True)).all() else 2
    if seen.masks and axes not in (known := {kind(name).axes for name in seen.masks}):
        yield f"it is undersampled along {_axes(axes)}, and was along {_axes(*known)} in training"
    if seen.snr is not None and (snr := _snr(raw)) is not None:
        yield from _of_number("SNR", snr, seen.snr, slack=SNR)


def _of_words(what: str, found: list[str], known: tuple[str, ...]) -> Iterator[str]:
    if found and known and not {*found} & {*known}:
        yield f"its {what} is {found[0][:40]}, and was {' or '.join(known)} in training"


def _of_number(what: str, value: float, known: Range | None, unit: str = "", slack: float = 1.0) -> Iterator[str]:
    if known is not None and not _inside(value, known, slack):
        yield f"its {what} is {value:.3g}{unit}, and was {_span(known)}{unit} in training"


def _inside(value: float, known: Range | None, slack: float = 1.0) -> bool:
    return known is None or known[0] / slack <= value <= known[1] * slack


def _span(known: Range) -> str:
    return f"{known[0]:g}" if known[0] == known[1] else f"{known[0]:g} to {known[1]:g}"


def _axes(*numbers: int) -> str:
    return " or ".join("one axis" if n == 1 else "two axes" for n in numbers)


def _named(text: str, words: Mapping[str, str]) -> list[str]:
    """Return the names in `words` whose pattern is one of the words of a text."""
    parts = re.split(r"[^a-z0-9]+", text[:1000].lower())
    return [name for name, pattern in words.items() if any(re.fullmatch(pattern, part) for part in parts)]


def _text(record: object, name: str) -> str:
    return str(getattr(record, name, None) or "").strip()


def _field_strength(header: ismrmrdHeader) -> float | None:
    """T; None where the header does not say."""
    system, conditions = header.acquisitionSystemInformation, header.experimentalConditions
    tesla = getattr(system, "systemFieldStrength_T", None)
    tesla = tesla or (getattr(conditions, "H1resonanceFrequency_Hz", None) or 0) / HZ_PER_TESLA
    return float(tesla) if math.isfinite(tesla) and tesla > 0 else None


def _snr(raw: Raw) -> float | None:
    """Bright tissue over the noise in the combined, fully sampled image, from calibration lines of whitened data.

    None: data are not whitened, or have no calibration lines."""
    block = raw.calibration
    if block is None or not raw.whitened:
        return None
    smaller = math.sqrt(math.prod(block.shape[-2:]) / math.prod(raw.kspace.shape[-2:]))
    bright = smaller * float(np.quantile(to_numpy(rss(ifftc(block[:, 0]))), BRIGHT))
    return bright / math.sqrt(raw.variance / raw.averages)
