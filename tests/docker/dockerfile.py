"""A Dockerfile as its instructions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction, its lines joined."""

    name: str
    words: str

    @property
    def command(self) -> list[str]:
        """The words of its JSON form: of CMD, VOLUME, and of what HEALTHCHECK runs."""
        return [str(word) for word in json.loads(self.words[self.words.index("[") :])]


def read(path: Path) -> list[Instruction]:
    """Return the instructions of a Dockerfile in their order."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [Instruction(*line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def arguments(instructions: list[Instruction]) -> dict[str, str]:
    """Return the build arguments with their defaults."""
    given = (instruction.words.partition("=") for instruction in instructions if instruction.name == "ARG")
    return {name: value for name, _, value in given}
