"""Calgary-Campinas brains, multi-channel: 3-D T1-weighted scans, inverse-transformed along the readout by the scanner.

HDF5 files in the folders Train and Val have `kspace` (slice, y, x, 2 coils), real. Even channels are the real part and
odd channels the imaginary part. There are 256 slices (the readout) of 218 x 170 to 180, both phase-encoded, and 12
coils. The zero frequency is in the middle, and |ifft2| without any shift shows the object where it is. The last 15 % of
k-space along x were not sampled and are zero.

The option `masks` names a folder of masks, as the challenge has them. They are HDF5 files of the same names with keys
`mask_5x` (slice, y, x), or `R5_218x170.npy` (mask, y, x). Source: Souza et al. 2018 and the challenge's own code
(MC-MRI-Rec).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mrnets.errors import InputError
from training.data import Place, Sample, Slices
from training.readers.files import array, examined, full, hdf5, in_sentences, listed, read_mask, slices, split_problems
from training.split import Part, Split, part_of

__all__ = ["Reader"]

AXES = ("slice", "y", "x", "2 coils")
Centre = Literal["middle", "corner"]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Slices of the files below a folder, one subject each."""

    trim: tuple[int, int] = (51, 50)
    """Slices left out at the beginning and at the end, beyond the anatomy."""
    masks: str = ""
    """The folder of the masks that come with the data; for `masks.source: data`."""
    accelerations: tuple[float, ...] = (5.0,)
    """Which of these masks; slices take several in turn."""
    centre: Centre = "middle"
    """Where files have the zero frequency."""
    prospective: bool = False
    """Read undersampled files, as those for the challenge's test, as they were sampled. They cannot be a target."""

    def read(self, folder: Path, part: Part, split: Split) -> Slices:
        """Return the slices of the subjects of `part`. Raises InputError."""
        return slices(listed(folder, ".h5", ".hdf5"), part, split, self._kept, self._load)

    @in_sentences
    def check(self, folder: Path, split: Split) -> Iterator[str]:
        """Give a sentence for everything that is missing or malformed."""
        files = listed(folder, ".h5", ".hdf5")
        good = {}
        for subject, path in files.items():
            try:
                self._kept(path)
            except InputError as error:
                yield str(error)
            else:
                good[subject] = path
        yield from split_problems(good, split)
        if not good:
            return
        used = {*part_of(list(good), "train", split), *part_of(list(good), "validation", split)}
        places = tuple(Place(str(path), _middle(self._kept(path)), s) for s, path in good.items() if s in used)
        yield from examined(Slices(places, self._load))
        yield from _misplaced_centre(places[0], self.centre)

    def _kept(self, path: Path) -> range:
        with hdf5(path) as file:
            data = array(file, "kspace", AXES, "real")
            count, channels = data.shape[0], data.shape[-1]
        if channels % 2:
            raise InputError(f"{path}: kspace must have an even number of channels (real, imaginary), got {channels}")
        kept = range(self.trim[0], count - self.trim[1])
        if min(self.trim) < 0 or not kept:
            trim = list(self.trim)
            raise InputError(f"{path}: kspace has {count} slices, of which reader.options.trim {trim} leaves none")
        return kept

    def _load(self, place: Place) -> Sample:
        with hdf5(place.path) as file:
            data = array(file, "kspace", AXES, "real")[place.index].astype(np.float32)
        kspace = np.moveaxis(data[..., ::2] + 1j * data[..., 1::2], -1, 0)
        name = f"{place.subject}, slice {place.index}"
        mask = _mask(place, self.masks, self.accelerations, kspace.shape[-2:]) if self.masks else None
        raw = full(_centred(kspace, self.centre)[None], "batch")
        sampled = (data != 0).any(-1)
        if _has_gaps(sampled):
            if not self.prospective:
                raise InputError(
                    f"{place.path}: slice {place.index} is undersampled, so it cannot be a target; leave the file out, "
                    f"or set reader.options.prospective=true to read it as it was sampled"
                )
            raw = replace(raw, mask=torch.from_numpy(sampled)[None, None, None])
        return Sample(names=(name,), raw=raw, mask=mask)


def _middle(numbers: range) -> int:
    return numbers[len(numbers) // 2]


def _has_gaps(sampled: NDArray[np.bool_]) -> bool:
    """Whether more than a few samples (y, x) are missing within the rows and columns that have any."""
    inside = sampled[np.ix_(sampled.any(1), sampled.any(0))]
    return inside.size > 0 and float(inside.mean()) < 0.9


def _centred(kspace: NDArray[Any], centre: Centre) -> NDArray[np.complex64]:
    """Return k-space (coil, y, x) of images ifft2 (no shifts) in the centred, orthonormal convention.

    The object stays where it is and its phase becomes smooth. No sample moves relative to the zero frequency. With c =
    n // 2, (m - c)(j - c) = (m - c) j - (m - c) c. So k-space needs a phase linear in m, which is a sign for even n.
    The phase of the images linear in j is dropped.
    """
    for axis in (-2, -1):
        n = kspace.shape[axis]
        if centre == "corner":
            kspace = np.fft.fftshift(kspace, axes=axis)
        phase = np.exp(2j * np.pi * ((np.arange(n) - n // 2) * (n // 2) % n) / n)
        kspace = kspace * (phase[:, None] if axis == -2 else phase)
    return (kspace / np.sqrt(kspace.shape[-2] * kspace.shape[-1])).astype(np.complex64)


def _mask(place: Place, masks: str, accelerations: tuple[float, ...], shape: tuple[int, ...]) -> torch.Tensor:
    """(1, 1, 1, y, x): of this slice."""
    if not accelerations:
        raise InputError("option reader.options.accelerations must say which masks to take")
    wanted, folder = accelerations[place.index % len(accelerations)], Path(masks)
    own = folder / Path(place.path).name
    names = [f"R{wanted:g}_{shape[0]}x{shape[1]}.npy", f"R{wanted:g}.npy"]
    path = next((p for p in (own, *(folder / name for name in names)) if p.is_file()), None)
    if path is None:
        raise InputError(f"{masks}: no masks for {place.path}; looked for {', '.join([own.name, *names])}")
    mask = read_mask(path, place.index, f"mask_{wanted:g}x")
    if mask.shape != tuple(shape):
        raise InputError(f"{path}: masks of {mask.shape} do not fit the slices of {place.path}, which are {shape}")
    return torch.from_numpy(mask)[None, None, None]


def _misplaced_centre(place: Place, centre: Centre) -> Iterator[str]:
    """A sentence where the largest samples of a slice are not where the zero frequency should be."""
    try:
        with hdf5(place.path) as file:
            data = np.square(array(file, "kspace", AXES, "real")[place.index].astype(np.float64)).sum(-1)
    except InputError:
        return  # said already
    quarters = {"middle": np.fft.ifftshift(data), "corner": data}
    h, w = (n // 4 for n in data.shape)
    energy = {k: v[:h, :w].sum() + v[-h:, :w].sum() + v[:h, -w:].sum() + v[-h:, -w:].sum() for k, v in quarters.items()}
    found = max(energy, key=lambda k: energy[k])
    if energy[found] > 2 * energy[centre]:
        yield f"{place.path}: kspace has its zero frequency in the {found}: set reader.options.centre={found}"
