"""Arrays of changing length, read from the heaps of an HDF5 file straight to their place.

The HDF5 library copies each array twice on its way. This module reads an array by one call of the system. It reads only
what is exactly as the standard says, and refuses everything else. The caller then leaves that to the library.

Source: HDF5 File Format Specification 3.0, III.E (global heap) and IV.A.2.d (data types of variable length).
"""

from __future__ import annotations

import os
import struct

import numpy as np

from mrnets.hdf5_reading import HEAP, OBJECT, objects
from mrnets.physics.arrays import Array

__all__ = ["REFERENCE", "Heaps"]

REFERENCE = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])
"""An array of changing length in a record: its values, the place of its heap, and its number there."""

START = struct.Struct(HEAP.format + OBJECT.format[1:])
"""The start of a heap, and that of its first object."""
_SIGNATURE, _VERSION = b"GCOL", 1


class Heaps:
    """The heaps of an open HDF5 file that starts at its first byte."""

    def __init__(self, number: int) -> None:
        """number: the descriptor of the file."""
        self._number = number
        self._start, self._end = bytearray(START.size), bytearray(OBJECT.size)
        self._known: dict[int, dict[int, tuple[int, int]]] = {}
        """By the place of a heap: the place and the bytes of each of its objects."""

    def read(self, heap: int, number: int, into: Array) -> None:
        """Fill `into`, an array without gaps in memory, with an object. Raises OSError where it does not fit exactly,
        and for a damaged heap."""
        if heap not in self._known:
            if self._alone(heap, number, into):
                return
            self._known[heap] = self._walked(heap)
        place, size = self._known[heap].get(number, (0, -1))
        if size != into.nbytes or os.preadv(self._number, [into], place) != size:
            raise OSError(f"object {number} of the heap at {heap} does not have {into.nbytes} bytes")

    def _alone(self, heap: int, number: int, into: Array) -> bool:
        """Read the only object of a heap: head, object and the free rest at once. False where the heap is not so."""
        wanted = into.nbytes
        fill = -wanted % 8
        parts = [self._start, into, bytearray(fill), self._end] if fill else [self._start, into, self._end]
        count = os.preadv(self._number, parts, heap) - START.size - wanted - fill
        signature, version, size, found, _, content = START.unpack(self._start)
        sound = (signature, version, found, content) == (_SIGNATURE, _VERSION, number, wanted)
        free = size - START.size - wanted - fill
        if not sound or count < 0 or free < 0:
            return False
        last, _, left = OBJECT.unpack(self._end)
        return free < OBJECT.size or (count == OBJECT.size and last == 0 and left == free)

    def _walked(self, heap: int) -> dict[int, tuple[int, int]]:
        found = os.pread(self._number, HEAP.size, heap)
        signature, version, size = HEAP.unpack(found.ljust(HEAP.size, b"\0"))
        if (signature, version) != (_SIGNATURE, _VERSION):
            raise OSError(f"there is no heap at {heap}")
        return {n: (at, content) for n, at, content in objects(self._number, heap + HEAP.size, heap + size)}
