"""Any folder of Cartesian ISMRMRD scans (HDF5 or streams), so that a site trains on what its own scanner measured.

Each repetition, set, phase and slice of a file is an image, contrasts are its echoes, averages are averaged. Readout
oversampling goes, noise lines make the covariance: it is all as the gadgets' sort does it. 3-D scans are converted
once, see `_volume`. Scans that were not fully sampled cannot be a target, and are errors unless `prospective`.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mrnets.contract import Raw
from mrnets.errors import InputError
from mrnets.mrd.calibration import Mean, centre_block, for_later
from mrnets.mrd.encoding import NOTHING_BY_HAND, ByHand
from mrnets.mrd.files import ENDINGS
from mrnets.mrd.images import echo_times
from mrnets.mrd.kspace import averages, line_counts
from mrnets.mrd.noise import whitened_variance
from mrnets.mrd.readout import noise_gain
from mrnets.noise import agreed_noise
from mrnets.stages import whiten_raw
from training.data import Place, Sample, Slices
from training.readers._calibration import calibration
from training.readers._kspace import doubt, gridded, noise
from training.readers._scan import Origin, Scan, gap, scan, scan_of
from training.readers._volume import position, same_mask
from training.readers.files import examined, in_sentences, listed, one_sentence, split_problems
from training.split import Part, Split, part_of

__all__ = ["Reader", "load", "places"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Slices of 2-D scans and readout positions of 3-D scans.

    Files of one patient are one subject, under the name of the first: patients' names and numbers go nowhere.
    """

    trim: tuple[int, int] = (0, 0)
    """Readout positions that are left out at the beginning and at the end of 3-D scans."""
    prospective: bool = False
    """Read undersampled scans as they were sampled. They cannot be a target."""
    cache: str = ""
    """The folder for 3-D scans as slices; empty: .slices beside each."""
    dimensions: Literal["auto", "2d", "3d"] = "auto"
    """This and the following options are those of the gadget sort, for scans whose headers are wrong."""
    centre_line: int | None = None
    centre_partition: int | None = None
    centre_sample: int | None = None
    reversed_centre: Literal["auto", "kept", "mirrored"] = "auto"
    reversed_contrasts: Literal["flagged", "odd"] = "flagged"

    @property
    def by_hand(self) -> ByHand:
        """The facts that the options give of all scans."""
        return ByHand(
            self.centre_line,
            self.centre_partition,
            self.centre_sample,
            self.reversed_centre,
            self.dimensions,
            self.reversed_contrasts,
        )

    def read(self, folder: Path, part: Part, split: Split) -> Slices:
        """Return the slices of the subjects of `part`. Raises InputError."""
        files = listed(folder, *ENDINGS)
        subjects = _subjects(files, self.by_hand)
        mine = part_of(list(subjects.values()), part, split)
        own = {name: subject for name, subject in subjects.items() if subject in mine}
        found = [
            place for name, subject in own.items() for place in places(files[name], subject, self.trim, self.by_hand)
        ]
        if not self.prospective:
            for path in {p.path: None for p in found}:
                _require_complete(scan(path, self.by_hand))
        return Slices(tuple(found), partial(load, cache=self.cache, by_hand=self.by_hand))

    @in_sentences
    def check(self, folder: Path, split: Split) -> Iterator[str]:
        """Give a sentence for everything that is missing or malformed. Samples of 3-D scans are not read."""
        files = listed(folder, *ENDINGS)
        good, flat = {}, []
        for name, path in files.items():
            try:
                with one_sentence(path):
                    found = places(path, name, self.trim, self.by_hand)
                    if not self.prospective:
                        _require_complete(scan(path, self.by_hand))
            except InputError as error:
                yield str(error)
                continue
            good[name] = path
            if not scan(path, self.by_hand).encoding.volume:
                flat.append(found[len(found) // 2])
        yield from split_problems(set(_subjects(good, self.by_hand).values()), split)
        yield from examined(Slices(tuple(flat), partial(load, cache=self.cache, by_hand=self.by_hand)))


def places(path: Path, subject: str, trim: tuple[int, int] = (0, 0), by_hand: ByHand = NOTHING_BY_HAND) -> list[Place]:
    """A place for each slice of a scan, or for each readout position of each volume. Raises InputError."""
    found = scan(path, by_hand)
    if not found.encoding.volume:
        return [Place(str(path), n, subject) for n in range(len(found.images))]
    width = found.width
    kept = range(trim[0], width - trim[1])
    if min(trim) < 0 or not kept:
        raise InputError(
            f"{path}: has {width} readout positions, of which reader.options.trim {list(trim)} leaves none"
        )
    return [Place(str(path), n * width + x, subject) for n in range(len(found.images)) for x in kept]


def load(place: Place, cache: str = "", by_hand: ByHand = NOTHING_BY_HAND) -> Sample:
    """A slice or readout position of a scan, as it was sampled. Raises InputError."""
    found = scan(place.path, by_hand)
    number, x = divmod(place.index, found.width) if found.encoding.volume else (place.index, 0)
    raw = _raw(found, number, x, cache)
    raw = dataclasses.replace(raw, averages=raw.averages / _excess(found.origin, cache))
    return Sample(names=(f"{place.subject}, slice {place.index}",), raw=raw)


def _raw(found: Scan, number: int, x: int, cache: str) -> Raw:
    """A slice, or readout position x of a volume. Raises InputError."""
    image = found.images[number]
    kspace, mask, mean = position(found, number, x, cache) if found.encoding.volume else _slice(found, number)
    dwell = float(found.heads["sample_time_us"][image.echoes[0][0]])
    return Raw(
        kspace=_tensor(kspace[None]),
        mask=_tensor(mask[None, None, None]),
        calibration=_tensor(mean.block),
        calibration_images=mean.images,
        noise=_tensor(noise(found, image)),
        echo_times=_tensor(echo_times(found.header, image.contrasts)),
        readout="batch" if found.encoding.volume else "x",
        variance=whitened_variance(dwell) * noise_gain(found.encoding),
        averages=averages([line_counts(found.heads[rows], found.encoding) for rows in image.echoes]),
    )


@lru_cache(maxsize=512)
def _excess(origin: Origin, cache: str) -> float:
    """The noise variance in the middle of a scan, over that of its noise measurement; 1 where both agree.

    Chains decide it likewise (`mrnets.noise.agreed_noise`), so a network is told the noise level that it gets there."""
    found = scan_of(origin)
    raw = _raw(found, len(found.images) // 2, found.width // 2, cache)
    block = centre_block(raw.kspace, raw.mask) if raw.calibration is None else raw.calibration
    if raw.noise is None or block is None:
        return 1.0
    raw = dataclasses.replace(raw, calibration=for_later(block, volume=found.encoding.volume))
    agreed, notes = agreed_noise(whiten_raw(raw, raw.noise))
    for note in notes:
        _logger.warning("%s: %s", origin.path, note)
    return raw.averages / agreed.averages


def _tensor(values: Any) -> torch.Tensor | None:
    return None if values is None else torch.from_numpy(np.ascontiguousarray(values))


def _slice(found: Scan, number: int) -> tuple[Any, Any, Mean]:
    """k-space (echo, coil, y, x), mask (y, x), calibration (1, 1, coil, y', x')."""
    image = found.images[number]
    pairs = [gridded(found, rows, found.encoding, image.key) for rows in image.echoes]
    mask = same_mask(found.path, [sampled for _, sampled in pairs])
    mean = calibration(found, number, mask)
    doubt(found, pairs[0][0], mask)
    return np.concatenate([kspace[0] for kspace, _ in pairs]), mask, mean


def _require_complete(found: Scan) -> None:
    for image in found.images:
        what = gap(found, image)
        if what:
            raise InputError(
                f"{found.path}: {what}, so it cannot be a target of training; take it out, set "
                f"reader.options.prospective=true to read it as it was sampled, or train by the recipe self_supervised"
            )


def _subjects(files: dict[str, Path], by_hand: ByHand) -> dict[str, str]:
    """Names of files to names of subjects. Where all files have one patient, it is a placeholder of anonymised data."""
    first: dict[str, str] = {}
    found = {name: first.setdefault(scan(path, by_hand).patient or name, name) for name, path in files.items()}
    return {name: name for name in files} if len(set(found.values())) == 1 else found
