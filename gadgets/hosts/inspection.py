"""`python -m gadgets inspect`: what a scan holds, in ten lines. Nothing is reconstructed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import h5py
import numpy as np
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

from gadgets.hosts.fitting import Needs, fitting
from gadgets.hosts.recording import open_recording
from mrnets.errors import InputError, counted, naming
from mrnets.mrd.centre import doubtful_centres
from mrnets.mrd.dimensions import dimensions_of_header, dimensions_of_lines
from mrnets.mrd.encoding import NOTHING_BY_HAND, Encoding, Space, encoding_of
from mrnets.mrd.extent import is_silent
from mrnets.mrd.files import open_scan
from mrnets.mrd.flags import Flag, Roles, has_flag, roles
from mrnets.mrd.header import Reading, read_header
from mrnets.mrd.images import echo_times
from mrnets.mrd.lines import ACQUISITION_HEADER, Lines
from mrnets.physics.masks import calibration_region

__all__ = ["Found", "add_arguments", "look", "run", "told"]

FIELDS = ("flags", "idx", "active_channels", "number_of_samples", "encoding_space_ref")
MAX_LINES = 1 << 24
_COUNTERS = {
    "slice": ("slice", "slices"),
    "repetition": ("repetition", "repetitions"),
    "contrast": ("echo", "echoes"),
    "average": ("average", "averages"),
}
_RARER = {"phase": ("phase", "phases"), "set": ("set", "sets")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m gadgets inspect`."""
    parser.add_argument("scan", help="ISMRMRD file: HDF5, or a stream")
    parser.add_argument("-g", "--in-group", default="dataset", help="group of the scan (default dataset)")


def run(args: argparse.Namespace) -> int:
    """Print what the scan holds. Raises InputError."""
    with naming(args.scan):
        print("\n".join(told(look(args.scan, args.in_group.strip("/")))))
    return 0


@dataclass(frozen=True)
class Found:
    """Contents of a scan."""

    path: str
    reading: Reading
    lines: NDArray[np.void]
    """(line,) the fields FIELDS of the headers of all acquisitions."""
    roles: Roles
    encoding: Encoding | None
    """The encoding space of most lines of the image; None: it cannot be sorted."""
    refused: str
    """Why not."""

    @property
    def image(self) -> NDArray[np.void]:
        """(line,) of the image, of its encoding space."""
        lines = self.lines[self.roles.image]
        return lines if self.encoding is None else lines[lines["encoding_space_ref"] == self.encoding.index]


def look(path: str, group: str = "dataset") -> Found:
    """Return what the scan in a file holds. Raises InputError for a file that is no scan, and for its header."""
    header, lines = _read(path, group)
    reading = read_header(header)
    encoding, refused = None, ""
    used = lines[roles(lines, embedded=False).image]
    used = used if len(used) else lines[roles(lines, embedded=True).image]
    if len(used):
        spaces, counts = np.unique(used["encoding_space_ref"], return_counts=True)
        try:
            encoding = _encoding(reading.header, int(spaces[counts.argmax()]), used)
        except InputError as error:
            refused = str(error)
    purposes = roles(lines, embedded=encoding is not None and encoding.embedded)
    if not refused and not purposes.image.any():
        encoding, refused = None, "it has no lines of an image"
    return Found(path, reading, lines, purposes, encoding, refused)


def _read(path: str, group: str) -> tuple[object, NDArray[np.void]]:
    """Return the header, and the fields of the headers of all acquisitions. HDF5 files give them without samples."""
    kind = np.dtype([(name, ACQUISITION_HEADER[name]) for name in FIELDS])
    with open_recording(path, group) as recording:
        if h5py.is_hdf5(path):
            with open_scan(path, group) as scan:
                return recording.header, scan.headers(FIELDS)
        found = [np.empty(0, kind)]
        count = 0
        for item in recording.items:
            if isinstance(item, Lines):
                count += len(item)
                if count > MAX_LINES:
                    raise InputError(f"more than {MAX_LINES} acquisitions; that many are not taken")
                found.append(item.headers[list(FIELDS)].astype(kind))
        return recording.header, np.concatenate(found)


def _encoding(header: ismrmrdHeader, index: int, lines: NDArray[np.void]) -> Encoding:
    mine = lines[lines["encoding_space_ref"] == index]
    dimensions = dimensions_of_header(header, index) or dimensions_of_lines(header, index, mine, whole=True)
    return encoding_of(header, index, mine[0], dimensions=dimensions)


def told(found: Found, *, related: bool = True) -> Iterator[str]:
    """Yield the lines of text: ten, and one for each warning and for each chain that does not fit.

    related: name the measurements that the scan depends on. Their IDs may have the patient's in them."""
    header = found.reading.header
    yield f"scan          {found.path}: {_protocol(header)}"
    yield from _grid(found)
    coils = sorted({int(n) for n in found.image["active_channels"]})
    yield f"coils         {' and '.join(map(str, coils)) or 'none'}"
    yield f"images        {', '.join(_counts(found))}"
    yield f"lines         {_lines(found)}"
    yield f"sampling      {_sampling(found)}"
    yield f"noise         {_noise(found, related=related)}"
    yield f"flags         {', '.join(_flags(found.lines)) or 'none'}"
    notes = [*found.reading.warnings, *(_doubts(found, found.encoding) if found.encoding else ())]
    yield f"warnings      {len(notes) or 'none'}"
    yield from (f"              {note}" for note in notes)
    if found.refused:
        yield "chains        none fits: the scan cannot be reconstructed here"
        return
    fits, others = fitting(_needs(found))
    yield f"chains        {', '.join(fits) or 'none fits'}"
    yield from (f"              not {name}: {why}" for name, why in others.items())


def _doubts(found: Found, encoding: Encoding) -> Iterator[str]:
    """Yield what is guessed, and what the data are to decide."""
    header = found.reading.header
    yield from encoding.guesses
    last, lines = int(found.image["idx"]["kspace_encode_step_1"].max()), encoding.encoded.matrix[1]
    if is_silent(header, encoding.index) and last >= lines:
        yield f"line {last} came, and the header has a matrix of {lines} lines; the data decide whether it is larger"
    for doubt in doubtful_centres(encoding, header, NOTHING_BY_HAND):
        if doubt is not None:
            others = " or ".join(map(str, doubt.others))
            yield f"the header's centre {doubt.centre} of step {doubt.step} may be {others}; the data decide it"


def _protocol(header: ismrmrdHeader) -> str:
    system, information = header.acquisitionSystemInformation, header.measurementInformation
    field = getattr(system, "systemFieldStrength_T", None)
    parts = [
        getattr(information, "protocolName", None) or "unnamed protocol",
        getattr(system, "systemVendor", None),
        getattr(system, "systemModel", None),
        f"{field:.3g} T" if field else None,
    ]
    return ", ".join(str(part)[:80] for part in parts if part)


def _grid(found: Found) -> Iterator[str]:
    """Yield the line on the matrix. One that cannot be sorted is told by its reason."""
    encoding = found.encoding
    if encoding is None:
        yield f"matrix        cannot be reconstructed here: {found.refused}"
        return
    kind = "3-D" if encoding.volume else "2-D"
    trajectory = "echo-planar" if encoding.epi else "Cartesian"
    trajectory += " with samples on ramps" if encoding.ramps else ""
    spaces = f"{_space(encoding.recon)}, encoded {_space(encoding.encoded)}"
    several = len(found.reading.header.encoding)
    yield f"matrix        {kind} {trajectory}: {spaces}" + (f"; {several} encoding spaces" if several > 1 else "")


def _space(space: Space) -> str:
    sizes = " x ".join(str(size) for size in space.matrix)
    return f"{sizes} over {' x '.join(f'{mm:.4g}' for mm in space.fov)} mm"


def _counts(found: Found) -> Iterator[str]:
    counters = found.image["idx"]
    for name, (one, many) in {**_COUNTERS, **_RARER}.items():
        count = len(np.unique(counters[name]))
        if name in _COUNTERS or count > 1:
            yield f"{count} {one if count == 1 else many}"


def _lines(found: Found) -> str:
    parts = {"image": found.roles.image, "separate calibration": found.roles.calibration, "noise": found.roles.noise}
    left = ~(found.roles.image | found.roles.calibration | found.roles.noise)
    counts = {name: int(which.sum()) for name, which in {**parts, "others (left out)": left}.items()}
    return f"{len(found.lines)}: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _sampling(found: Found) -> str:
    """Return the acceleration that the header announces and the one measured, and the calibration."""
    encoding = found.encoding
    if encoding is None:
        return "unknown"
    parallel = found.reading.header.encoding[encoding.index].parallelImaging
    factor = getattr(parallel, "accelerationFactor", None)
    announced = f"{factor.kspace_encoding_step_1} x {factor.kspace_encoding_step_2} announced, " if factor else ""
    mask = _mask(found.image, encoding)
    separate = found.lines[found.roles.calibration & (found.lines["encoding_space_ref"] == encoding.index)]
    height, width = calibration_region(_mask(separate, encoding) if len(separate) else mask)
    middle = f"{width} x {height} lines" if encoding.volume else f"{width} line{'s' * (width != 1)}"
    parts = [f"{announced}{mask.size / max(int(mask.sum()), 1):.2f}-fold measured"]
    parts.append(f"calibration {encoding.calibration or 'mode unknown'}")
    parts.append(f"{middle} at the centre of k-space" + (", measured separately" if len(separate) else ""))
    return ", ".join(parts)


def _mask(lines: NDArray[np.void], encoding: Encoding) -> NDArray[np.bool_]:
    """Return which phase encodings (z, y) of the first image were sampled; lines beyond the grid do not count."""
    counters = lines["idx"]
    same = np.ones(len(lines), bool)
    for name in ("slice", "repetition", "contrast", "phase", "set"):
        same &= counters[name] == counters[name][0]
    y = counters["kspace_encode_step_1"][same].astype(int) + encoding.offsets[0]
    z = counters["kspace_encode_step_2"][same].astype(int) + encoding.offsets[1] if encoding.volume else 0 * y
    sizes = (encoding.reduced.matrix[2], encoding.reduced.matrix[1])
    inside = (y >= 0) & (y < sizes[1]) & (z >= 0) & (z < sizes[0])
    mask = np.zeros(sizes, bool)
    mask[z[inside], y[inside]] = True
    return mask


def _noise(found: Found, *, related: bool) -> str:
    count = int(found.roles.noise.sum())
    information = found.reading.header.measurementInformation
    named = getattr(information, "measurementDependency", None) if related else None
    others = [one.measurementID for one in named or []]
    told = f"{counted(count, 'line')} of a noise measurement" if count else "no noise measurement"
    return told + (f"; depends on the measurements {', '.join(str(one)[:80] for one in others)}" if others else "")


def _flags(lines: NDArray[np.void]) -> Iterator[str]:
    for flag in Flag:
        if count := int(has_flag(lines, flag).sum()):
            yield f"{flag.name} {count}"


def _needs(found: Found) -> Needs:
    contrasts = [int(n) for n in np.unique(found.image["idx"]["contrast"])]
    times = echo_times(found.reading.header, contrasts) if contrasts else None
    coils = found.image["active_channels"]
    return Needs(len(contrasts), times is not None, int(coils.min()) if len(coils) else 0)
