"""Gadgets: `@gadget`, typed properties, and gadgets by their names.

A gadget is a generator `name(stream, header, *, option: float = 1.0)` in the module `gadgets/name.py`. Its keyword-only
parameters are its properties. Related ones may come as one dataclass, whose fields are properties then. There is no
registry: a chain names gadgets of this package, or those of other packages that are allowed (`mrnets.plugins`).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, TypeAlias, get_type_hints, overload

from ismrmrd.xsd import ismrmrdHeader

import gadgets
from mrnets import plugins
from mrnets.errors import Faults, InputError, nearest
from mrnets.mrd.lines import Item
from mrnets.values import described, parsed

__all__ = ["Gadget", "Kind", "Property", "gadget", "lookup", "names"]

Kind = Literal["lines", "kspace", "coil maps", "estimates", "images"]
"""The stages of a scan on its way through a chain.
"lines" are acquisitions, or Gadgetron's ReconData.
"kspace", "coil maps" and "estimates" are frames. Each stage keeps the data of the stage before it."""

MAX_INTEGER = (1 << 31) - 1
"""No array, header or device counts further."""


@dataclass(frozen=True)
class Property:
    """One property of a gadget. Types: int, float, bool, str, Literal, and each of them or None."""

    name: str
    hint: Any
    default: Any = inspect.Parameter.empty

    def parse(self, text: str) -> Any:
        """Return the value of `text`, which comes from XML or a command line. Raises ValueError."""
        return parsed(text, self.hint)

    def __str__(self) -> str:
        return described(self.hint)


@dataclass(frozen=True)
class Gadget:
    """A generator function with named, typed properties."""

    name: str
    function: Callable[..., Iterator[Item]]
    properties: dict[str, Property]
    takes: tuple[Kind, ...] = ()
    """The stages of a scan that the gadget works on. Empty: it may stand anywhere in a chain."""
    gives: Kind | None = None
    """The stage of a scan that it makes. None: the chain cannot check what follows."""

    def __call__(self, stream: Any, *header: ismrmrdHeader | None, **options: Any) -> Any:
        """Return the items of the gadget. With a gadgetron-python connection alone, run as its external process.

        The second form is for `<execute name="gadgets.noise" target="noise"/>` in a Gadgetron chain."""
        return self.function(stream, *header, **options) if header else gadgets.run(stream, self.name)

    def bind(self, properties: Mapping[str, str]) -> Callable[[Iterable[Item], ismrmrdHeader], Iterator[Item]]:
        """Return the gadget with `properties`, which are texts, set. Raises InputError, naming gadget and property."""
        options: dict[str, Any] = {}
        faults = Faults()
        for name, text in properties.items():
            with faults.gathered():
                options[name] = self._value(name, text)
        for name, wanted in self.properties.items():
            with faults.gathered():
                if name not in properties and wanted.default is inspect.Parameter.empty:
                    raise InputError(f"Gadget {self.name} needs the property {name} ({wanted}).")
        faults.tell()
        return lambda stream, header: self.function(stream, header, **options)

    def _value(self, name: str, text: str) -> Any:
        """Return the value of a property. Raises InputError for a name or a value that cannot be."""
        if name not in self.properties:
            accepted = ", ".join(self.properties) or "none"
            hint = nearest(name, self.properties)
            raise InputError(f'Gadget {self.name} has no property "{name}"; its properties are: {accepted}.{hint}')
        wanted = self.properties[name]
        try:
            value = wanted.parse(text.strip())
        except ValueError:
            raise InputError(f'Gadget {self.name}: property {name} must be {wanted}; got "{text[:80]}".') from None
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            most = f"must be from -{MAX_INTEGER} to {MAX_INTEGER}"
            raise InputError(f'Gadget {self.name}: property {name} {most}; got "{text[:80]}".')
        return value


Generator: TypeAlias = Callable[..., Iterator[Item]]


@overload
def gadget(function: Generator, /) -> Gadget: ...


@overload
def gadget(*, takes: tuple[Kind, ...], gives: Kind) -> Callable[[Generator], Gadget]: ...


def gadget(
    function: Generator | None = None, /, *, takes: tuple[Kind, ...] = (), gives: Kind | None = None
) -> Gadget | Callable[[Generator], Gadget]:
    """Make a gadget of a generator function. Its properties are its keyword-only parameters, typed as annotated.

    The fields of a parameter that is a dataclass are properties, and the function gets them as one object.
    takes, gives: the stages of a scan that the gadget works on, and the stage that it makes of them. A chain checks its
    order by them. `@gadget` alone makes a gadget that may stand anywhere."""
    if function is None:
        return lambda function: _made(function, takes, gives)
    return _made(function, takes, gives)


def _made(function: Generator, takes: tuple[Kind, ...], gives: Kind | None) -> Gadget:
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    annotations = SimpleNamespace(__annotations__={p.name: p.annotation for p in parameters})
    hints = get_type_hints(annotations, globalns=function.__globals__)
    groups = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    properties: dict[str, Property] = {}
    for p in parameters:
        own = [Property(p.name, hints[p.name], p.default)] if p.name not in groups else _fields(hints[p.name])
        properties |= {wanted.name: wanted for wanted in own}
    made = Gadget(function.__name__, _grouping(function, groups), properties, takes, gives)
    object.__setattr__(made, "__doc__", function.__doc__)
    return made


def _fields(kind: Any) -> list[Property]:
    """Return the fields of a dataclass as properties."""
    hints = get_type_hints(kind)
    return [Property(field.name, hints[field.name], field.default) for field in dataclasses.fields(kind)]


def _grouping(function: Generator, groups: Mapping[str, Any]) -> Generator:
    """Return `function` with the fields of the dataclasses `groups` as parameters in their place."""
    if not groups:
        return function

    @functools.wraps(function)
    def grouped(*args: Any, **options: Any) -> Iterator[Item]:
        objects = {}
        for name, kind in groups.items():
            there = [field.name for field in dataclasses.fields(kind) if field.name in options]
            objects[name] = kind(**{key: options.pop(key) for key in there})
        return function(*args, **objects, **options)

    return grouped


def lookup(name: str) -> Gadget:
    """Return the gadget of that name in this package, `gadgets.name.name`, or else in another one.

    Raises InputError that lists all gadgets, and as `plugins.load` does."""
    found = None
    if name.isidentifier() and not name.startswith("_"):
        try:
            found = getattr(importlib.import_module(f"gadgets.{name}"), name, None)
        except ModuleNotFoundError as error:
            if error.name != f"gadgets.{name}":
                raise InputError(f"Gadget {name} needs the module {error.name}, which is not installed.") from error
    if not isinstance(found, Gadget) and plugins.find("gadget", name):
        found = plugins.load("gadget", name)
        if not isinstance(found, Gadget):
            raise InputError(f"the gadget {name} is not made by @gadget of gadgets.gadget")
    if not isinstance(found, Gadget):
        there = [*names(), *plugins.registered("gadget")]
        raise InputError(f'There is no gadget "{name}"; there are: {", ".join(there)}.{nearest(name, there)}')
    return found


def names() -> list[str]:
    """Return the names of this package's gadgets."""
    modules = [m.name for m in pkgutil.iter_modules(gadgets.__path__) if not (m.ispkg or m.name.startswith("_"))]
    return [name for name in modules if isinstance(_attribute(name), Gadget)]


def _attribute(name: str) -> Any:
    try:
        return getattr(importlib.import_module(f"gadgets.{name}"), name, None)
    except ImportError:  # of an optional dependency
        return None
