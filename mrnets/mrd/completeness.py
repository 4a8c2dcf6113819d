"""The rule that decides whether a scan has all data that its header announces. It stands only here.

A scan lacks something where
- a value of slice, contrast, phase, set or repetition did not come that the limits of its encoding space announce;
- the last repetition lacks images that the repetition before it has;
- an image has fewer samples than at least half of the images of its encoding space, which all have the same number.

The exceptions:
- Limits that are missing, or that announce one value, say nothing. Converters fill many of them with 0.
- A counter that never moved says nothing if each line came as often as the counter announces values. The converter did
  not set the label.
- Averages and segments say nothing. Fewer averages make a noisier image, and segments are filled carelessly.
- The lines of one image alone say nothing for certain: partial Fourier and random sampling leave lines out on purpose.
- Encoding spaces without image lines say nothing: they are of navigators or of calibration.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from ismrmrd.xsd import ismrmrdHeader

from mrnets.mrd.images import Key
from mrnets.mrd.limits import announced

__all__ = ["Arrivals"]

_COUNTERS = ("slice", "contrast", "phase", "set", "repetition")
MAX_NAMED = 8
"""Values that a sentence names one by one."""


@dataclass
class Arrivals:
    """The images that came."""

    _values: dict[int, dict[str, set[int]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    """By encoding space and counter."""
    _repeats: dict[int, int] = field(default_factory=dict)
    """By encoding space: how often each line came, at least."""
    _samples: dict[tuple[int, bool], dict[Key, int]] = field(default_factory=lambda: defaultdict(dict))
    """By encoding space, and whether the image has a calibration block."""

    def add(self, key: Key, contrasts: Sequence[int], samples: int, *, calibrated: bool, repeats: int) -> None:
        """Account for an image.

        samples: how many were measured; 0 where the images sample different lines.
        calibrated: whether its centre is fully sampled.
        repeats: how often each of its lines came, at least."""
        values = self._values[key.encoding]
        values["contrast"].update(contrasts)
        for name in ("slice", "phase", "set", "repetition"):
            values[name].add(getattr(key, name))
        self._repeats[key.encoding] = min(self._repeats.get(key.encoding, repeats), repeats)
        self._samples[key.encoding, calibrated][key] = samples

    def lacks(self, header: ismrmrdHeader) -> list[str]:
        """Return what the scan lacks, a few words each."""
        found = [words for index in sorted(self._values) for words in self._missing(index, header)]
        for images in self._samples.values():
            found += _short(images)
        return [*found, *self._unfinished()]

    def _missing(self, index: int, header: ismrmrdHeader) -> list[str]:
        """Return the announced values of counters that did not come."""
        limits = header.encoding[index].encodingLimits
        found = []
        for name in _COUNTERS:
            values = announced(limits, name)
            came = self._values[index][name]
            unset = len(came) == 1 and self._repeats[index] >= len(values)
            absent = [value for value in values if value not in came]
            if len(values) > 1 and absent and not unset:
                whole = f"{values[0]} to {values[-1]}"
                found.append(f"{name} {_named(absent)} did not come, and {whole} are announced")
        return found

    def _unfinished(self) -> list[str]:
        """Return what the last repetition lacks."""
        images: dict[int, dict[int, set[tuple[int, ...]]]] = defaultdict(lambda: defaultdict(set))
        for (index, _), keys in self._samples.items():
            for key in keys:
                images[index][key.repetition].add(key[1:])
        found = []
        for repetitions in images.values():
            if len(repetitions) < 2:
                continue
            before, last = sorted(repetitions)[-2:]
            if repetitions[last] < repetitions[before]:
                count = len(repetitions[before] - repetitions[last])
                found.append(f"repetition {last} lacks {count} images that repetition {before} has")
        return found


def _named(values: Sequence[int]) -> str:
    if len(values) > 1 and list(values) == list(range(values[0], values[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    rest = len(values) - MAX_NAMED
    return ", ".join(map(str, values[:MAX_NAMED])) + (f" and {rest} more" if rest > 0 else "")


def _short(images: dict[Key, int]) -> list[str]:
    """Return the images that have fewer samples than the others, which all have the same number."""
    most = max(images.values())
    short = [key for key, samples in images.items() if samples < most]
    if not short or 2 * Counter(images.values())[most] < len(images):
        return []
    named = "; ".join(str(key) for key in short[:MAX_NAMED])
    return [f"{len(short)} of {len(images)} images have fewer samples than the others ({named})"]
