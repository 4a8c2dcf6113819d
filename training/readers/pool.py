"""Scans simulated on the training device, without end, of slices of anatomy and of photographs.

The images come from a file of `python -m training pool`. Or they come from volumes (.nii, .nii.gz, .cfl), photographs
(.png, .jpg) and such files below the folder. Training batches are made on the device of the network, prepared already
(`training.simulation`). Outside training, and for a network that needs another preparation, scans come as a scanner
measures them. `mrnets.prepare` then prepares them. Axes: see `mrnets.contract`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from mrnets.contract import Raw
from mrnets.errors import InputError
from mrnets.physics.fourier import resize
from training.data import Example, Sample
from training.readers.files import in_sentences
from training.simulation import Images, Pool, Simulation, draw, pooled, settings
from training.simulation.draws import Draws
from training.simulation.fields import checkerboard
from training.simulation.gather import gathered
from training.simulation.pool import objects
from training.simulation.sampling import draw_masks
from training.simulation.scans import measured
from training.split import Part, Split, part_of

__all__ = ["Reader", "Scans"]


@dataclass(frozen=True)
class Scans:
    """Random scans of some images; what one is depends on the generator only, not on its number."""

    folder: Path | None
    subjects: tuple[str, ...]
    """The sources of its images."""
    settings: Simulation
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.settings.examples

    def take(self, numbers: Sequence[int], rng: np.random.Generator) -> Sample:
        """As measured by whitened coils with noise of standard deviation 1, sampled, with the noise-free images."""
        pool = _pool(self, torch.device("cpu"), masks=False)
        layout = pool.layouts[int(rng.integers(len(pool.layouts)))]
        draws = Draws(torch.Generator().manual_seed(int(rng.integers(2**62))), len(numbers))
        masks = draw_masks(layout.shape, rng, replace(self.settings, masks_each=len(numbers)), draws.device)
        scan = measured(objects(pool, layout, draws, self.settings), layout, draws, self.settings)
        signs = 1 / scan.sigma[:, None, None, None, None]
        board = checkerboard(layout.shape, draws.device)
        kspace = scan.kspace[:, None] * board * signs
        sampled = masks.sampled[:, None, None]
        raw = Raw(
            kspace=kspace * sampled,
            mask=sampled,
            calibration=resize(kspace, masks.calibration.amin(0).tolist()),
            readout="x" if bool((sampled == sampled[..., :1]).all()) else None,
            whitened=True,
        )
        return Sample(
            names=("simulated",) * len(numbers), raw=raw, coil_images=scan.coil_images[:, None] * board * signs
        )

    def prepared(self, number: int, size: int, seed: int, device: torch.device) -> Example:
        """Batch `number` of a run with this seed, made and prepared on the device; of `size` slices, or fewer."""
        made = draw(_pool(self, device, masks=True), self.settings, seed=seed, number=number, size=size)
        return Example(
            scan=made.scan,
            names=("simulated",) * len(made.target),
            target=made.target,
            weight=torch.ones_like(made.unexplained),
        )


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Scans of the images below a folder; without a folder, of ICBM152. Images of one source are of one part."""

    simulation: Simulation = field(default_factory=Simulation)
    """The distributions."""

    def read(self, folder: Path | None, part: Part, split: Split) -> Scans:
        """Return the scans of a part. The images are read. Raises InputError."""
        settings.check(self.simulation)
        sources = tuple(part_of(_images(folder).names, part, split))
        if not sources:
            raise InputError(f"{folder}: no images for {part}; check reader.split")
        return Scans(folder, sources, self.simulation)

    @in_sentences
    def check(self, folder: Path | None, split: Split) -> Iterator[str]:
        """Give a sentence where the images cannot be read."""
        self.read(folder, "train", split)
        return iter(())


@lru_cache(maxsize=1)
def _images(folder: Path | None) -> Images:
    return gathered(folder)


@lru_cache(maxsize=4)
def _pool(scans: Scans, device: torch.device, *, masks: bool) -> Pool:
    """Once in each process: a source itself is light to send to another one."""
    return pooled(_images(scans.folder).of(frozenset(scans.subjects)), device, scans.settings, masks=masks)
