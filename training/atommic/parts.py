"""The parts of one of ATOMMIC's training configurations, and which of its settings have found a counterpart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrnets.errors import InputError
from mrnets.texts import read_yaml

__all__ = ["Configuration", "Part", "read"]


@dataclass(frozen=True)
class Part:
    """The settings of one part, such as model.train_ds."""

    name: str
    values: Mapping[str, Any]
    met: set[str] = field(default_factory=set)
    """Settings that have found a counterpart."""

    def take(self, key: str, default: Any = None) -> Any:
        """Return a setting, and remember that it has a counterpart; `default` where it is absent or None."""
        self.met.add(key)
        value = _plain(self.values.get(key))
        return default if value is None else value

    def number(self, key: str, default: float = 0) -> float:
        """Return a setting as `take` does. Raises InputError for what is no number."""
        return self._number(key, self.take(key, default))

    def numbers(self, key: str) -> list[float]:
        """Return a setting that is a list of numbers, empty where it is absent. Raises InputError for what is none."""
        values = self.take(key, [])
        if not isinstance(values, list):
            raise InputError(f"{self.path(key)} must be a list of numbers, not {values!r}")
        return [self._number(key, value) for value in values]

    def _number(self, key: str, value: object) -> float:
        if not isinstance(value, int | float):
            raise InputError(f"{self.path(key)} must be a number, not {value!r}")
        return value

    def inner(self, key: str) -> Part:
        """Return the part below `key`, which is empty where the configuration has none."""
        self.met.add(key)
        return _part(self.path(key), self.values.get(key))

    def path(self, key: str) -> str:
        """Return the name of a setting, such as model.train_ds.batch_size."""
        return f"{self.name}.{key}" if self.name else key


@dataclass(frozen=True)
class Configuration:
    """A training configuration."""

    text: str
    """Its paths and names in small letters, which tell the anatomy."""
    top: Part
    model: Part
    data: Part
    """model.train_ds."""
    masks: Part
    validation: Part
    optimiser: Part
    schedule: Part
    trainer: Part
    manager: Part
    """exp_manager."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts, in the order of their lines."""
        rest = (self.data, self.masks, self.optimiser, self.schedule, self.trainer, self.manager)
        return (self.top, self.model, *rest)


def read(path: str | Path) -> Configuration:
    """Return the configuration in a YAML file. Raises InputError where there is none."""
    values = read_yaml(path)
    if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
        raise InputError(f"{path} is not a training configuration of ATOMMIC: it has no part model")
    top = _part("", values)
    top.met.update(("mode", "name"))
    model, trainer, manager = (top.inner(key) for key in ("model", "trainer", "exp_manager"))
    data, optimiser = model.inner("train_ds"), model.inner("optim")
    if not data.values:
        raise InputError(f"{path} is no training configuration: model has no part train_ds")
    names = (data.values.get("data_path"), manager.values.get("exp_dir"), Path(path).parent)
    return Configuration(
        text=" ".join(map(str, names)).lower(),
        top=top,
        model=model,
        data=data,
        masks=data.inner("mask_args"),
        validation=model.inner("validation_ds"),
        optimiser=optimiser,
        schedule=optimiser.inner("sched"),
        trainer=trainer,
        manager=manager,
    )


def _part(name: str, values: object) -> Part:
    return Part(name, {str(k): v for k, v in values.items()} if isinstance(values, Mapping) else {})


def _plain(value: Any) -> Any:
    """None for the words that stand for it, and numbers such as 1e-4, which YAML takes for words."""
    if isinstance(value, list):
        return [_plain(element) for element in value]
    if not isinstance(value, str):
        return value
    if value.lower() in ("none", "null"):
        return None
    try:
        return float(value) if value[:1].isdigit() else value
    except ValueError:
        return value
