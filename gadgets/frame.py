"""Frame: sorted k-space of one slice or volume on its way to images, with all facts that the images need.

Axes: slice (2-D: the batch axis of `raw`; a volume is one "slice"), echo. Triples are in the order x = readout,
y = encode step 1, z = encode step 2, as in ISMRMRD headers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import ismrmrd

from mrnets.classes import Classes
from mrnets.contract import Estimate, Raw, Trust
from mrnets.errors import InputError
from mrnets.mrd.encoding import Limit, Space
from mrnets.physics.arrays import Array

__all__ = ["CUT_SHORT", "Frame", "naming_shortfalls"]

CUT_SHORT = "cut short?"
"""How a note starts on what an image seems to lack."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Frozen: a gadget makes a new one with `dataclasses.replace`."""

    raw: Raw
    headers: Array
    """(slice, echo) of `ACQUISITION_HEADER`, NumPy: the acquisition nearest to the k-space centre of each."""
    times: Array
    """(slice, echo, stamp, 2): the earliest and latest acquisition time stamp, and those of the three of physiology."""
    encoding: int
    """The encoding space."""
    volume: bool
    """A 3-D scan: the batch axis of `raw` is the readout."""
    encoded: Space
    """The grid of `raw` (readout oversampling removed)."""
    recon: Space
    """The grid of the images, as the header asks for it."""
    limits: tuple[Limit, Limit, Limit]
    """Limits of readout, encode step 1 and encode step 2, on the grid `encoded`."""
    estimate: Estimate | None = None
    """Output of the network for `raw`, in the units of `raw`."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Units of the estimate's maps, by their names."""
    labels: tuple[str, ...] = ()
    """The names of the estimate's classes, in order."""
    classes: Classes = "exclusive"
    """Whether the estimate's classes exclude each other."""
    made: Mapping[str, str] = field(default_factory=dict)
    """The network or method that made each part of the estimate: Image, a map by its name, Segmentation."""
    history: tuple[str, ...] = ()
    """The processing steps in order, in a word or two each."""
    fallback: bool = False
    """A network failed: `estimate` is by a simpler method, or lacks what that network would have added."""
    trust: Trust | None = None
    """How far the last network's image agrees with the data, also where `estimate` has another; None: not checked."""
    sent: tuple[ismrmrd.Image, ...] = ()
    """The images that were sent in as the estimate's image. They leave the chain unchanged. Empty: a network made the
    image."""
    failed: str = ""
    """Why coil sensitivities could not be had. The image is then the root of the sum of squares."""
    notes: tuple[str, ...] = ()
    """Facts that every reader of the images must know. They go into the comment of each image."""
    behind: int = 0
    """How many frames have come behind this one already: they can be had without waiting."""

    @property
    def nbytes(self) -> int:
        """Bytes of k-space, coil maps and image, which a frame that waits keeps in memory."""
        image = None if self.estimate is None else self.estimate.image
        arrays = (self.raw.kspace, self.raw.sens, image)
        return sum(int(array.nbytes) for array in arrays if array is not None)


@contextmanager
def naming_shortfalls(frame: Frame) -> Iterator[None]:
    """Raises InputErrors with what the frame lacks in front: that may be why it has no calibration lines."""
    try:
        yield
    except InputError as error:
        lacking = [note for note in frame.notes if note.startswith(CUT_SHORT)]
        raise type(error)("; ".join([*lacking, str(error)])) from error
