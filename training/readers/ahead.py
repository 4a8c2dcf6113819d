"""AHEAD (doi:10.34894/IHZGQM): brains at 7 T, MP2RAGE-ME, four echoes at the second inversion, 32 coils, 0.7 mm.

As published:

- mp2rageme_001_inv2_te1.h5 to _te4.h5: ISMRMRD, 3-D, one echo each. (inv1 is not used.)
- coilsens_001.h5: the sensitivities `0real` and `1imag` (coil, z, y, x) of the image.

Slices lie across the readout: y is encode step 2 and x encode step 1, as the sort gadget has them. Each file is
converted to slices once, which takes its size on disk.

As ATOMMIC converts it, mp2rageme_001_axial.h5:

- kspace (slice, echo, coil, y, x), which is fftshift(fft2(image)) without a shift of the image, not scaled;
- sensitivity_map (slice, coil, y, x) and target (slice, echo, y, x);
- anatomy_mask (slice, y, x), in a file of the same name in a folder beside.

Axial slices have the readout along x.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.physics.coils import reduce
from mrnets.physics.fourier import ifftc
from training.data import Place, Sample, Slices
from training.readers._anatomy_mask import anatomy_mask
from training.readers._maps import unit_maps
from training.readers._scan import gap, scan
from training.readers._volume import position
from training.readers.files import array, examined, full, hdf5, in_sentences, listed, split_problems
from training.split import Part, Split, part_of

__all__ = ["Reader"]

ECHO_TIMES = (3.0e-3, 11.5e-3, 20.0e-3, 28.5e-3)
KSPACE = ("slice", "echo", "coil", "y", "x")
MAPS = ("slice", "coil", "y", "x")
MASK = ("slice", "y", "x")
COILSENS = ("coil", "z", "y", "x")

_ECHO = re.compile(r"(?:.*_)?([0-9a-zA-Z]+)_inv2_te(\d+)")
_SENS = re.compile(r"coilsens_([0-9a-zA-Z]+)")


@dataclass(frozen=True)
class Subject:
    """The files of one subject."""

    path: str
    """The file of k-space: of the first echo, or converted."""
    echoes: tuple[Path, ...] = ()
    """The files of the echoes, ISMRMRD; empty: `path` is a converted file."""
    maps: Path | None = None
    mask: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Slices: fully sampled raw data of all echoes, with given sensitivities."""

    positions: tuple[int, int] | None = None
    """The first slice, and one past the last; None: all of a converted file, the middle half of a readout."""
    echo_times: tuple[float, ...] = ECHO_TIMES
    """s."""
    scale: float = 1e-4
    """Factor of k-space, as in the ATOMMIC paper."""
    region: bool = True
    """Only the brain counts: of the file anatomy_mask or, where there is none, made from the first echo
    (`training.readers._anatomy_mask`). False: all pixels count."""
    cache: str = ""
    """The folder for ISMRMRD files as slices; empty: .slices beside them."""

    def read(self, folder: Path, part: Part, split: Split) -> Slices:
        """Return the slices of the subjects of `part`. Raises InputError."""
        subjects = _subjects(folder, len(self.echo_times))
        load = partial(self._load, subjects={s.path: s for s in subjects.values()})
        mine = part_of(list(subjects), part, split)
        places = [Place(subjects[s].path, n, s) for s in mine for n in self._positions(subjects[s])]
        return Slices(tuple(places), load)

    @in_sentences
    def check(self, folder: Path, split: Split) -> Iterator[str]:
        """Give a sentence for everything that is missing or malformed, from headers and, of converted files, a few
        slices."""
        subjects = _subjects(folder, len(self.echo_times))
        problems = list(split_problems(subjects, split))
        for subject in subjects.values():
            try:
                if not self._positions(subject):
                    problems.append(f"{subject.path}: option positions {self.positions} leaves no slice of it")
            except InputError as error:
                problems.append(str(error))
        for path in (path for subject in subjects.values() for path in subject.echoes if not problems):
            if why := gap(scan(path), scan(path).images[-1]):
                problems.append(f"{path}: not fully sampled ({why})")
        yield from problems
        converted = {name: s for name, s in subjects.items() if not s.echoes}
        if not problems and converted:
            source = self.read(folder, "train", split)
            yield from examined(Slices(tuple(p for p in source.places if p.subject in converted), source.load))

    def _positions(self, subject: Subject) -> range:
        """The slices, from the headers. Raises InputError where these do not fit each other."""
        if subject.echoes:
            total = _readout(subject)
            first, end = self.positions or (total // 4, total - total // 4)
        else:
            total = _fitting(subject, len(self.echo_times))
            first, end = self.positions or (0, total)
        return range(max(first, 0), min(end, total))

    def _load(self, place: Place, subjects: Mapping[str, Subject]) -> Sample:
        subject, number, times = subjects[place.path], place.index, self.echo_times
        kspace, maps = _across(subject, number, self.cache) if subject.echoes else _converted(subject, number, times)
        kspace, maps = kspace * np.float32(self.scale), unit_maps(maps)
        mask = None
        if self.region:
            mask = _stored(subject.mask, number) if subject.mask else anatomy_mask(_combined(kspace[0], maps))
        given = {"sens": torch.from_numpy(maps)[None, None], "sens_method": "given"}
        return Sample(
            names=(f"{place.path}, slice {number}",),
            raw=full(kspace, "batch" if subject.echoes else "x", echo_times=torch.tensor(times), **given),
            region=None if mask is None else torch.from_numpy(mask)[None],
        )


def _subjects(folder: Path, echoes: int) -> dict[str, Subject]:
    """By name, of the file and not of its folders. InputError where one lacks an echo or its sensitivities, or there
    is none."""
    found = listed(folder, ".h5")
    scans: dict[str, dict[int, Path]] = {}
    maps: dict[str, Path] = {}
    rest: dict[str, Path] = {}
    for name, path in found.items():
        if echo := _ECHO.fullmatch(path.stem):
            scans.setdefault(echo[1], {})[int(echo[2])] = path
        elif sens := _SENS.fullmatch(path.stem):
            maps[sens[1]] = path
        elif "_inv1" not in path.stem:
            rest[name] = path
    subjects = {name: _published(name, scans[name], maps.get(name), echoes, folder) for name in scans}
    keys = {name: _keys(path) for name, path in rest.items()}
    masks = {rest[name].name: rest[name] for name, own in keys.items() if "anatomy_mask" in own}
    for name, path in rest.items():
        if "kspace" in keys[name]:
            mask = path if "anatomy_mask" in keys[name] else masks.get(path.name)
            subjects[path.stem if path.stem not in subjects else name] = Subject(str(path), mask=mask)
    if not subjects:
        raise InputError(f"{folder}: neither *_inv2_te1.h5 (ISMRMRD) nor files with kspace in it or below")
    return dict(sorted(subjects.items()))


def _published(name: str, scans: Mapping[int, Path], maps: Path | None, echoes: int, folder: Path) -> Subject:
    missing = [n for n in range(1, echoes + 1) if n not in scans]
    if missing:
        raise InputError(f"{folder}: subject {name} has no file *_{name}_inv2_te{missing[0]}.h5")
    if maps is None:
        raise InputError(f"{folder}: subject {name} has no sensitivities, coilsens_{name}.h5")
    files = tuple(scans[n] for n in range(1, echoes + 1))
    return Subject(str(files[0]), files, maps)


def _keys(path: Path) -> set[str]:
    """None of the files that ISMRMRD files were converted to, which can lie in the same folder."""
    with hdf5(path) as file:
        return set() if "source" in file.attrs else set(file)


def _readout(subject: Subject) -> int:
    """Positions along the readout of ISMRMRD files, without oversampling."""
    assert subject.maps is not None
    with hdf5(subject.maps) as file:
        real, imaginary = (array(file, key, COILSENS, "real").shape for key in ("0real", "1imag"))
    if real != imaginary:
        raise InputError(f"{subject.maps}: 0real has the shape {real}, but 1imag {imaginary}")
    for path in subject.echoes:
        found = scan(path)
        x, y, z = found.encoding.encoded.matrix
        if not found.encoding.volume:
            raise InputError(f"{path}: must be a 3-D scan, got the matrix {x} x {y} x {z}")
        if (found.coils, z, y) != real[:3] or real[3] not in (x, found.width):
            raise InputError(f"{subject.maps}: has the shape {real}, but {path.name} wants {(found.coils, z, y, x)}")
    return scan(subject.echoes[0]).width


def _fitting(subject: Subject, echoes: int) -> int:
    """Slices of a converted file."""
    with hdf5(subject.path) as file:
        kspace = array(file, "kspace", KSPACE)
        maps = array(file, "sensitivity_map", MAPS).shape
    if kspace.shape[1] != echoes:
        raise InputError(f"{subject.path}: kspace has {kspace.shape[1]} echoes, option echo_times {echoes}")
    if maps != (kspace.shape[0], *kspace.shape[2:]):
        raise InputError(f"{subject.path}: sensitivity_map has the shape {maps}, but kspace {kspace.shape}")
    if subject.mask is not None:
        with hdf5(subject.mask) as file:
            mask = array(file, "anatomy_mask", MASK, "real").shape
        if mask != (kspace.shape[0], *kspace.shape[3:]):
            raise InputError(f"{subject.mask}: anatomy_mask has the shape {mask}, but kspace {kspace.shape}")
    return int(kspace.shape[0])


def _across(subject: Subject, number: int, cache: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """k-space (echo, coil, z, y) and maps (coil, z, y) of ISMRMRD files."""
    assert subject.maps is not None
    width = _readout(subject)
    kspace = np.stack([_echo(path, number, cache) for path in subject.echoes])
    return kspace, _coilsens(subject.maps, number, width)


def _converted(subject: Subject, number: int, times: tuple[float, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """k-space (echo, coil, y, x) and maps (coil, y, x) of ATOMMIC's files."""
    _fitting(subject, len(times))
    with hdf5(subject.path) as file:
        return _centred(file["kspace"][number]), np.asarray(file["sensitivity_map"][number], np.complex64)


def _combined(kspace: NDArray[Any], maps: NDArray[Any]) -> NDArray[Any]:
    return np.abs(reduce(ifftc(kspace), maps))


def _stored(path: Path, number: int) -> NDArray[np.bool_]:
    with hdf5(path) as file:
        return np.ascontiguousarray(file["anatomy_mask"][number] > 0.5)


def _centred(kspace: NDArray[Any]) -> NDArray[np.complex64]:
    """fftshift(fft2(image)) as the centred, orthonormal transform of the same image."""
    for axis, n in ((-2, kspace.shape[-2]), (-1, kspace.shape[-1])):
        turn = np.exp(2j * np.pi * (np.arange(n) - n // 2) * (n // 2) / n) / np.sqrt(n)
        kspace = kspace * (turn[:, None] if axis == -2 else turn)
    return kspace.astype(np.complex64)


def _echo(path: Path, number: int, cache: str) -> NDArray[np.complex64]:
    """(coil, z, y) of a position along the readout: the last contrast of the last image."""
    found = scan(path)
    return np.asarray(position(found, len(found.images) - 1, number, cache)[0][-1], np.complex64)


def _coilsens(path: Path, number: int, width: int) -> NDArray[np.complex64]:
    """(coil, z, y) of a position of the middle `width` of the readout."""
    with hdf5(path) as file:
        at = number + file["0real"].shape[-1] // 2 - width // 2
        real, imaginary = (np.asarray(file[key][..., at], np.float32) for key in ("0real", "1imag"))
    return np.asarray(real + 1j * imaginary, np.complex64)
