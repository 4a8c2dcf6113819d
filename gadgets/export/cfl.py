"""BART's files: NAME.hdr with the sizes of 16 axes, NAME.cfl with complex numbers, the first axis fastest.

Axes that are used: 0 to 2 x, y and z, 5 echo, 10 the rest (repetitions and others), 13 slice.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gadgets.export.contents import Contents
from gadgets.export.stacks import Stack, stacks_of
from mrnets.files import make_folder, write_bytes, write_text

__all__ = ["write_cfl"]

AXES = 16
ECHO, TIME, SLICE = 5, 10, 13


def write_cfl(contents: Contents, name: Path) -> list[Path]:
    """Write the images of a file for BART: NAME.hdr and .cfl, or NAME_ROLE for each of several stacks.

    Returns the names without endings. Raises InputError."""
    make_folder(name.parent)
    stacks, written = stacks_of(contents), []
    for stack in stacks:
        pixels = _arranged(stack)
        base = name if len(stacks) == 1 else name.with_name(f"{name.name}_{stack.name}")
        sizes = " ".join(str(size) for size in pixels.shape)
        write_text(base.with_name(base.name + ".hdr"), f"# Dimensions\n{sizes}\n")
        write_bytes(base.with_name(base.name + ".cfl"), pixels.tobytes(order="F"))
        written.append(base)
    return written


def _arranged(stack: Stack) -> NDArray[np.complex64]:
    """Return the pixels on BART's axes."""
    pixels = stack.pixels.astype("<c8")  # (frame, z, y, x)
    echoes = len({int(frame[0].head.contrast) for frame in stack.frames})
    frames = len(stack.frames)
    echoes = echoes if frames % echoes == 0 and _regular(stack, echoes) else 1
    apart = pixels.reshape(frames // echoes, echoes, *pixels.shape[1:]).transpose(4, 3, 2, 1, 0)
    x, y, z, _, times = apart.shape
    sizes = [1] * AXES
    sizes[0], sizes[1], sizes[ECHO], sizes[TIME] = x, y, echoes, times
    sizes[2 if stack.is_volume else SLICE] = z
    in_order = apart if stack.is_volume else np.moveaxis(apart, 2, -1)
    return in_order.reshape(sizes)


def _regular(stack: Stack, echoes: int) -> bool:
    """Whether every repetition has the same echoes, in order."""
    contrasts = [int(frame[0].head.contrast) for frame in stack.frames]
    return contrasts == contrasts[:echoes] * (len(contrasts) // echoes)
