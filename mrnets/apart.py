"""Files of one run that must not be one file: whatever it reads and writes, before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mrnets.errors import InputError

__all__ = ["Output", "require_apart"]


@dataclass(frozen=True)
class Output:
    """A file or folder that is to be written."""

    option: str
    """The option that asks for it: -o."""
    path: Path
    alone: bool = False
    """Whether it is a folder that takes no files of other options."""

    @property
    def place(self) -> Path:
        """The path without links above it. A link in its place is refused by `mrnets.files`."""
        return self.path.parent.resolve() / self.path.name


def require_apart(outputs: Sequence[Output], inputs: Sequence[tuple[str, Path]] = ()) -> None:
    """Raise InputError where two outputs would be one file, or an output would replace an input.

    inputs: each input's name in a sentence ("the scan"), and its path."""
    for n, output in enumerate(outputs):
        for what, path in inputs:
            if path.resolve() == output.place:
                raise InputError(f"{output.path} is {what} itself; name another file for {output.option}.")
        for other in outputs[:n]:
            _require_two(other, output)


def _require_two(first: Output, second: Output) -> None:
    """Raise InputError where one of two outputs would replace the other, or lie in a folder of the other."""
    if first.place == second.place:
        raise InputError(f"{second.path} would be written for {first.option} and for {second.option}; name two places.")
    for folder, inside in ((first, second), (second, first)):
        if folder.alone and folder.place in inside.place.parents:
            told = f"{inside.path} would lie in {folder.path}, which is for the files of {folder.option} alone"
            raise InputError(f"{told}; name another place for {inside.option}.")
