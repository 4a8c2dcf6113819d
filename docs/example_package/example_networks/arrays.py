"""Fully sampled k-space in NumPy files: one slice a file, (coil, y, x) complex64, its centre at n // 2."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mrnets.contract import Raw
from mrnets.errors import InputError
from training.data import Place, Sample, Slices
from training.split import Part, Split, part_of

__all__ = ["Reader"]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Files of a folder. Each is a subject of its own."""

    pattern: str = "*.npy"

    def read(self, folder: Path | None, part: Part, split: Split) -> Slices:
        """Return a part of the data set. Slices are read one by one, when they are asked for."""
        names = part_of([path.name for path in self._files(folder)], part, split)
        return Slices(tuple(Place(str(path), 0, path.name) for path in self._files(folder) if path.name in names), load)

    def check(self, folder: Path | None, split: Split) -> Iterator[str]:
        """Give a sentence for everything that is missing or malformed."""
        if not self._files(folder):
            yield f"{folder}: there are no files {self.pattern}"
        for path in self._files(folder):
            try:
                load(Place(str(path), 0, path.name))
            except InputError as error:
                yield str(error)

    def _files(self, folder: Path | None) -> list[Path]:
        return [] if folder is None else sorted(folder.glob(self.pattern))


def load(place: Place) -> Sample:
    """Return the slice of a file. Raises InputError for one that holds no k-space."""
    try:
        kspace = np.load(place.path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{place.path} cannot be read: {error}") from None
    if kspace.ndim != 3 or not np.iscomplexobj(kspace):
        raise InputError(
            f"{place.path} must hold complex k-space (coil, y, x), and holds {kspace.dtype} {kspace.shape}"
        )
    mask = torch.ones((1, 1, 1, *kspace.shape[-2:]), dtype=torch.bool)
    raw = Raw(kspace=torch.from_numpy(kspace.astype(np.complex64))[None, None], mask=mask)
    return Sample(names=(place.subject,), raw=raw)
