"""Heads of random contrasts, drawn from FreeSurfer's label maps: for segmentation, and as scans for joint networks.

    folder/SUBJECT.mgz, .nii or .nii.gz; also in folders below it

No image is read. Each label gets a random intensity. The slice is blurred, shaded and made noisy as a scanner would do
it (Billot et al., SynthSeg, Medical Image Analysis 86:102789, 2023). A network that learnt from them works for
images of any contrast. Label maps of whole heads (skull, scalp) teach it also what is not brain. Training slices are
drawn in batches on the device of the network.

Axes: see `mrnets.contract`. Distances in mm.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mrnets.errors import InputError
from mrnets.preparation import Preparation
from mrnets.prepare_image import prepare_image
from training.data import Example, Sample, Source
from training.readers._heads import CLASSES, Heads, class_of, head_of, heads_of
from training.readers._painted import OVERSAMPLED, Look, check, measured, painted
from training.readers.files import in_sentences, listed, split_problems
from training.readers.simulated import draw_layout, scanned
from training.settings import Simulated
from training.split import Part, Split, part_of

__all__ = ["CLASSES", "Drawn", "Reader", "Scanned", "class_of"]

MAX_HEADS = 128
"""Label maps that a part holds in memory, at most; a whole head takes some 10 MB."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Random slices of the label maps below a folder."""

    look: Look = field(default_factory=Look)
    """The distributions."""
    scans: bool = False
    """Make simulated scans, as `simulated` says, whose noise is theirs."""
    settings: Simulated = field(default_factory=Simulated)
    """The matrices, and the number of slices of an epoch."""

    def read(self, folder: Path, part: Part, split: Split) -> Source:
        """Return slices of the label maps of `part`; of very many only some. Raises InputError where there are none.

        Raises it also for a `look` that cannot be.
        """
        check(self.look)
        files = listed(folder, ".mgz", ".nii", ".nii.gz")
        names = part_of(list(files), part, split)
        if len(names) > MAX_HEADS:
            _logger.warning("%s: %d label maps for %s, of which %d are used", folder, len(names), part, MAX_HEADS)
            names = [names[n * len(names) // MAX_HEADS] for n in range(MAX_HEADS)]
        drawn = Drawn({name: files[name] for name in names}, self.look, self.settings)
        return Scanned(drawn) if self.scans else drawn

    @in_sentences
    def check(self, folder: Path, split: Split) -> Iterator[str]:
        """Give a sentence for each file that cannot be read or is no label map of a head. All are read."""
        check(self.look)
        files = listed(folder, ".mgz", ".nii", ".nii.gz")
        yield from split_problems(files, split)
        for path in files.values():
            try:
                head_of(path)
            except InputError as error:
                yield str(error)


@dataclass(frozen=True)
class Drawn:
    """Random slices of some label maps. A slice depends on the generator only, not on its number."""

    files: dict[str, Path]
    look: Look
    settings: Simulated
    labels: tuple[str, ...] = CLASSES

    @property
    def subjects(self) -> tuple[str, ...]:
        return tuple(self.files)

    def __len__(self) -> int:
        return self.settings.examples if self.files else 0

    def take(self, numbers: Sequence[int], rng: np.random.Generator) -> Sample:
        return self._drawn(len(numbers), rng, torch.device("cpu"))

    def prepared(self, number: int, size: int, seed: int, device: torch.device) -> Example:
        """Batch `number` of a run with this seed, made and prepared on the device, of `size` slices."""
        sample = self._drawn(size, np.random.default_rng([seed, 3, number]), device)
        assert sample.image is not None
        scan = prepare_image(sample.image, Preparation()).scan
        return Example(scan=scan, names=sample.names, labels=sample.labels, weight=torch.ones(size, device=device))

    def heads(self, device: torch.device) -> Heads:
        """The label maps on a device. Raises InputError."""
        return heads_of(tuple(self.files.values()), device)

    def _drawn(self, count: int, rng: np.random.Generator, device: torch.device) -> Sample:
        shape = draw_layout(self.settings, rng).shape
        made = painted(self.heads(device), shape, self.look, count, rng)
        image = measured(made.image, shape, self.look, rng)[:, None]
        return Sample(names=tuple(self.subjects[n] for n in made.chosen), image=image, labels=made.labels)


@dataclass(frozen=True)
class Scanned:
    """Simulated scans of random slices of some label maps."""

    drawn: Drawn
    labels: tuple[str, ...] = CLASSES

    @property
    def subjects(self) -> tuple[str, ...]:
        return self.drawn.subjects

    def __len__(self) -> int:
        return len(self.drawn)

    def take(self, numbers: Sequence[int], rng: np.random.Generator) -> Sample:
        settings = self.drawn.settings
        layout = dataclasses.replace(draw_layout(settings, rng), detail=float(OVERSAMPLED))
        heads = self.drawn.heads(torch.device("cpu"))
        made = painted(heads, layout.shape, self.drawn.look, len(numbers), rng)
        scan = scanned(made.image, layout, settings, rng)
        names = tuple(self.subjects[n] for n in made.chosen)
        return dataclasses.replace(scan, names=names, labels=made.labels)
