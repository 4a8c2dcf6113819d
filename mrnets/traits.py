"""The traits that each network declares at the top of its file, as literals: they are read without importing torch."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["Echoes", "Takes", "Task", "Traits", "declared"]

Task = Literal["reconstruction", "quantitative", "segmentation", "joint"]
Takes = Literal["kspace", "image", "both"]
Echoes = Literal["each", "together", "one"]


@dataclass(frozen=True, kw_only=True)
class Traits:
    """A network's task and needs. Every value is a literal."""

    task: Task
    title: str
    paper: str
    """Authors, journal or conference, year."""
    learns: bool = True
    """False: it has no weights, and runs without a weights file."""
    differs: str = ""
    """How it differs from the paper; of ATOMMIC's networks, whose images must say so."""
    takes: Takes = "kspace"
    """The part of the scan that it takes."""
    both_with: tuple[str, str] | None = None
    """(option, value) with which it takes images beside k-space."""
    slices: int = 1
    """Neighbouring slices that it takes together, as published."""
    echoes: Echoes = "each"
    """"each": any number of echoes, each by itself. "together": several echoes share maps or sensitivities."""
    sens: Literal["needed", "optional", "unused"] = "needed"
    """Whether it uses the coil sensitivities."""
    steps: int = 0
    """Earlier estimates that it gives in training with the options `small`."""
    breaks_graph: str | None = None
    """Why `torch.compile` cannot make one graph of it; None: it can."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of options, as in weights files of version 1 and in ATOMMIC's paper, to ours."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Options of ATOMMIC's paper that are no choice here, to the values that the network has."""
    small: Mapping[str, Any] = field(default_factory=dict)
    """Options that make it quick, for tests."""
    narrow: Mapping[str, Any] = field(default_factory=dict)
    """Options with which it learns four slices by heart, for tests."""
    learning_rate: float = 2e-3
    """Learning rate at which it does."""

    @property
    def can_estimate_maps(self) -> bool:
        """Whether it can have a sensitivity network of its own, by the option `sens_net`."""
        return self.learns and self.sens != "unused"

    @property
    def names_of_options(self) -> dict[str, str]:
        """The aliases, and ATOMMIC's name for a sensitivity network."""
        maps = {"estimate_coil_sensitivity_maps_with_nn": "sens_net"} if self.can_estimate_maps else {}
        return {**self.aliases, **maps}

    def takes_with(self, options: Mapping[str, Any]) -> Takes:
        """The part of the scan that the network takes with these `options`."""
        if self.both_with is not None and options.get(self.both_with[0]) == self.both_with[1]:
            return "both"
        return self.takes


def declared(path: Path) -> Traits:
    """The `TRAITS = Traits(...)` of a network's file, read from its syntax tree.

    Raises ValueError where there is none, or where a value is not a literal.
    """
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="TRAITS")], value=ast.Call(keywords=keywords)):
                return Traits(**{str(keyword.arg): ast.literal_eval(keyword.value) for keyword in keywords})
    raise ValueError(f"{path} declares no TRAITS")
