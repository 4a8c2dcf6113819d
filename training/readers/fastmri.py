"""fastMRI, brains and knees: 2-D multi-slice scans (Zbontar et al. 2018, Knoll et al. 2020).

HDF5 files in the folders multicoil_train, multicoil_val and multicoil_test (or singlecoil_train and so on) have:

- `kspace` (slice, coil, readout, phase encoding) complex64, centred and orthonormal; the readout is oversampled
  twofold. Single-coil files have no axis of coils;
- `reconstruction_rss` or `reconstruction_esc` (slice, 320, at most 320), not in test files;
- `mask` (phase encoding,), in test files only, whose other lines are zero;
- `ismrmrd_header`, and the attributes acquisition and patient_id.

Brains have 4 to 20 coils. Their outermost lines are zeros that were not sampled. These count as measured here, so that
the field of view can be cropped. A few files have values that are not finite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mrnets.contract import Raw
from mrnets.errors import InputError, naming
from mrnets.mrd.header import read_header
from training.data import Place, Sample, Slices
from training.readers.files import (
    array,
    examined,
    full,
    hdf5,
    in_sentences,
    listed,
    one_sentence,
    split_problems,
)
from training.split import Part, Split, part_of

__all__ = ["Reader"]

AXES = ("slice", "coil", "readout", "phase encoding")
SINGLE = ("slice", "readout", "phase encoding")


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Slices of the files below a folder, one subject each.

    Files of one patient, by their attribute patient_id, are for the same part where counts make the split: the brain of
    an examination is in several files, one for each contrast. Folders, names and lists decide as they stand."""

    acquisitions: tuple[str, ...] = ()
    """Only those, as the files' attribute says (AXT1, AXT1POST, AXT2, AXFLAIR; CORPD_FBK, CORPDFS_FBK); empty: all."""

    def read(self, folder: Path, part: Part, split: Split) -> Slices:
        """Return the slices of the subjects of `part`. Raises InputError."""
        files = listed(folder, ".h5")
        patients = _patients(files, split)
        mine = set(part_of(list(patients.values()), part, split))
        own = [(name, path) for name, path in files.items() if patients[name] in mine]
        return Slices(tuple(Place(str(path), n, name, True) for name, path in own for n in self._slices(path)), _load)

    @in_sentences
    def check(self, folder: Path, split: Split) -> Iterator[str]:
        """Give a sentence for everything that is missing or malformed."""
        files = listed(folder, ".h5")
        places = []
        for subject, path in files.items():
            try:
                with one_sentence(path):
                    found = self._slices(path)
                    exchanged = _exchanged(path)
            except InputError as error:
                yield str(error)
                continue
            if not found:
                continue
            if exchanged:
                yield exchanged
            places.append(Place(str(path), found[len(found) // 2], subject))
        if not places:
            wanted = (
                f"has one of the acquisitions {', '.join(self.acquisitions)}" if self.acquisitions else "can be used"
            )
            yield f"{folder}: no file {wanted}"
            return
        patients = _patients({place.subject: Path(place.path) for place in places}, split)
        subjects = list(patients.values())
        yield from split_problems(subjects, split)
        tests = {*subjects} - {*part_of(subjects, "train", split)} - {*part_of(subjects, "validation", split)}
        for place in places:
            if patients[place.subject] not in tests and _is_undersampled(place.path):
                yield f"{place.path}: undersampled (it has the data set mask), and so nothing to train or validate on"
        yield from examined(Slices(tuple(places), _load))

    def _slices(self, path: Path) -> range:
        with hdf5(path) as file:
            data = _kspace(file)
            if self.acquisitions and _text(file.attrs.get("acquisition", "")) not in self.acquisitions:
                return range(0)
            _mask(file)
            return range(data.shape[0])


def _patients(files: Mapping[str, Path], split: Split) -> dict[str, str]:
    """Names of files to the name of the first file of the same patient; to themselves where no counts are asked.

    Where all files have one patient, it is a placeholder of anonymised data."""
    if split.lists or split.validation or split.test:
        return {name: name for name in files}
    first: dict[str, str] = {}
    found = {name: first.setdefault(_patient(path) or name, name) for name, path in files.items()}
    return {name: name for name in files} if len(set(found.values())) == 1 else found


def _patient(path: Path) -> str:
    """For comparing only: it goes nowhere else."""
    with hdf5(path) as file:
        return _text(file.attrs.get("patient_id", ""))


def _is_undersampled(path: str) -> bool:
    with hdf5(path) as file:
        return "mask" in file


def _exchanged(path: Path) -> str:
    """Return a sentence where k-space has its readout along the axis of phase encoding, by the file's own header.

    Empty: it has not, or the file has no header. Raises InputError for a header that cannot be read.
    """
    with hdf5(path) as file:
        if "ismrmrd_header" not in file:
            return ""
        readout, lines = _kspace(file).shape[-2:]
        with naming(path):
            header = read_header(file["ismrmrd_header"][()]).logged(path).header
        samples = header.encoding[0].encodedSpace.matrixSize.x
    if lines != samples or readout == samples:
        return ""
    return (
        f"{path}: its header announces {samples} samples of readout, and kspace has {readout} along the readout and "
        f"{lines} along the phase encoding; both axes are exchanged"
    )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _load(place: Place) -> Sample:
    with hdf5(place.path) as file:
        kspace = np.swapaxes(_kspace(file)[place.index], -1, -2)
        mask = _mask(file)
    if kspace.ndim == 2:
        kspace = kspace[None]
    raw = full(kspace[None], "x")
    if mask is not None:
        sampled = mask[:, None].expand(raw.mask.shape)
        raw = Raw(kspace=raw.kspace * sampled, mask=sampled.clone(), readout="x")
    return Sample(names=(f"{place.subject}, slice {place.index}",), raw=raw)


def _kspace(file: Any) -> Any:
    """The data set, of one coil without an axis for it. Raises InputError."""
    single = getattr(file.get("kspace"), "ndim", len(AXES)) == len(SINGLE)
    return array(file, "kspace", SINGLE if single else AXES)


def _mask(file: Any) -> torch.Tensor | None:
    """(phase encoding,) of a prospectively undersampled file. Raises InputError where it does not fit."""
    if "mask" not in file:
        return None
    mask, lines = array(file, "mask", ("phase encoding",), "integer"), file["kspace"].shape[-1]
    if mask.shape != (lines,):
        raise InputError(f"{file.filename}: mask has {mask.shape[0]} lines, kspace has {lines}")
    return torch.from_numpy(np.asarray(mask[:]) != 0)
