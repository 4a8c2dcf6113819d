"""Gadgets and chains: `@gadget`, typed properties, reading a chain's XML, and running its generators one in another.

A gadget is a generator `name(stream, header, *, option: float = 1.0)` in the module `gadgets/name.py`; its keyword-only
parameters are its properties. There is no registry: a chain names gadgets, and only those of this package can be named.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints
from xml.etree.ElementTree import Element

from ismrmrd.xsd import ismrmrdHeader

import gadgets
from gadgets.lines import Item
from gadgets.xml import parse_xml
from mrnets.errors import InputError

__all__ = ["Chain", "Gadget", "GadgetError", "Property", "Stage", "gadget", "is_whole", "lookup", "names"]


class GadgetError(RuntimeError):
    """A gadget failed for a reason that is not the input's: one sentence that names the gadget and the failure."""


@dataclass(frozen=True)
class Property:
    """One property of a gadget. Types: int, float, bool, str, Literal, and each of them or None."""

    name: str
    kinds: tuple[Any, ...]
    default: Any = inspect.Parameter.empty

    def parse(self, text: str) -> Any:
        """The value that `text`, from XML or a command line, stands for. Raises ValueError."""
        for kind in self.kinds:
            try:
                return _value(kind, text)
            except ValueError:
                continue
        raise ValueError(text)

    def __str__(self) -> str:
        return " or ".join(
            _KINDS.get(kind) or " or ".join(f'"{choice}"' for choice in get_args(kind)) for kind in self.kinds
        )


_KINDS = {int: "an integer", float: "a number", bool: '"true" or "false"', str: "text", NoneType: '"none"'}


def _value(kind: Any, text: str) -> Any:
    if kind is str:
        return text
    if kind is int:
        return int(text)
    if kind is float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(text)
        return value
    named: dict[Any, dict[str, Any]] = {bool: {"true": True, "false": False}, NoneType: {"none": None, "": None}}
    choices = named.get(kind) or {str(choice): choice for choice in get_args(kind)}
    if text not in choices:
        raise ValueError(text)
    return choices[text]


@dataclass(frozen=True)
class Gadget:
    """A generator function with named, typed properties. Call it as a function, or with only Gadgetron's connection."""

    name: str
    function: Callable[..., Iterator[Item]]
    properties: dict[str, Property]

    def __call__(self, stream: Any, header: ismrmrdHeader | None = None, **options: Any) -> Any:
        if header is None and hasattr(stream, "raw_bytes"):  # Gadgetron: <execute name="gadgets.noise" target="noise"/>
            from gadgets.hosts.external import run

            return run(stream, self.name)
        return self.function(stream, header, **options)

    def bind(self, properties: Mapping[str, str]) -> Callable[[Iterable[Item], ismrmrdHeader], Iterator[Item]]:
        """The gadget with `properties` set, as texts. Raises InputError naming gadget, property and what it accepts."""
        options: dict[str, Any] = {}
        for name, text in properties.items():
            if name not in self.properties:
                accepted = ", ".join(self.properties) or "none"
                raise InputError(f'Gadget {self.name} has no property "{name}"; its properties are: {accepted}.')
            try:
                options[name] = self.properties[name].parse(text.strip())
            except ValueError:
                wanted = self.properties[name]
                raise InputError(f'Gadget {self.name}: property {name} must be {wanted}; got "{text}".') from None
        for name, wanted in self.properties.items():
            if name not in options and wanted.default is inspect.Parameter.empty:
                raise InputError(f"Gadget {self.name} needs the property {name} ({wanted}).")
        return lambda stream, header: self.function(stream, header, **options)


def gadget(function: Callable[..., Iterator[Item]]) -> Gadget:
    """Make a gadget of a generator function; properties are its keyword-only parameters, typed as annotated."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    annotations = SimpleNamespace(__annotations__={p.name: p.annotation for p in parameters})
    kinds = get_type_hints(annotations, globalns=function.__globals__)

    def alternatives(kind: Any) -> tuple[Any, ...]:
        return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)

    properties = {p.name: Property(p.name, alternatives(kinds[p.name]), p.default) for p in parameters}
    made = Gadget(function.__name__, function, properties)
    object.__setattr__(made, "__doc__", function.__doc__)
    return made


def lookup(name: str) -> Gadget:
    """The gadget of that name in this package: `gadgets.name.name`. Raises InputError, listing those there are."""
    found = None
    if name.isidentifier() and not name.startswith("_"):
        try:
            found = getattr(importlib.import_module(f"gadgets.{name}"), name, None)
        except ModuleNotFoundError as error:
            if error.name != f"gadgets.{name}":
                raise InputError(f"Gadget {name} needs the module {error.name}, which is not installed.") from error
    if not isinstance(found, Gadget):
        raise InputError(f'There is no gadget "{name}"; there are: {", ".join(names())}.')
    return found


def names() -> list[str]:
    """The names of this package's gadgets."""
    modules = [m.name for m in pkgutil.iter_modules(gadgets.__path__) if not (m.ispkg or m.name.startswith("_"))]
    return [name for name in modules if isinstance(_attribute(name), Gadget)]


def _attribute(name: str) -> Any:
    try:
        return getattr(importlib.import_module(f"gadgets.{name}"), name, None)
    except ImportError:  # of an optional dependency
        return None


@dataclass(frozen=True)
class Stage:
    """A gadget's name in a chain, and its properties as the chain gives them."""

    name: str
    properties: Mapping[str, str]


@dataclass(frozen=True)
class Chain:
    """Gadgets in order. Made by `Chain.parse`; every gadget and property in it exists."""

    stages: tuple[Stage, ...]
    source: str = "chain"

    @classmethod
    def parse(cls, text: str | bytes, source: str = "chain") -> Chain:
        """Read a Gadgetron configuration (version 2 or 1) or the <configuration> of one external node.

        Raises InputError, naming `source`, if it is malformed, names an unknown gadget or property, or holds one of
        Gadgetron's own gadgets, which only a Gadgetron server can run.
        """
        try:
            return cls.of(tuple(_stages(parse_xml(text, source))), source)
        except InputError as error:
            raise error if source in str(error) else InputError(f"{source}: {error}") from error

    @classmethod
    def single(cls, name: str, text: str | bytes, source: str = "chain") -> Chain:
        """A chain of one gadget, with the properties of an external node's <configuration>. Raises InputError."""
        return cls.of((Stage(name, _properties(parse_xml(text, source))),), source)

    @classmethod
    def of(cls, stages: tuple[Stage, ...], source: str = "chain") -> Chain:
        """A chain of `stages`, each of them checked. Raises InputError."""
        if not stages:
            raise InputError("it names no gadget.")
        for stage in stages:
            lookup(stage.name).bind(stage.properties)
        return cls(stages, source)

    def set(self, name: str, value: str) -> Chain:
        """The chain with the property `name`, as "gadget.property", set to `value` in every gadget of that name; as
        "gadget.2.property" in the second of them. Raises InputError."""
        owner, _, key = name.partition(".")
        places = [n for n, stage in enumerate(self.stages) if stage.name == owner]
        number, dot, rest = key.partition(".")
        if dot and number.isdecimal():
            places, key = places[int(number) - 1 : int(number)] if int(number) else [], rest
        if not places:
            there = ", ".join(stage.name for stage in self.stages)
            asked = f"{owner}.{number}" if dot else owner
            raise InputError(f'Cannot set {name}: {self.source} has no gadget "{asked}"; it has: {there}.')
        stages = list(self.stages)
        for n in places:
            stages[n] = replace(stages[n], properties={**stages[n].properties, key: value})
        return Chain.of(tuple(stages), self.source)

    def run(self, stream: Iterable[Item], header: ismrmrdHeader) -> Iterator[Item]:
        """What comes out of the last gadget, item by item as `stream` is read.

        Raises InputError for faults of the input, and GadgetError for any other exception in a gadget."""
        items = iter(stream)
        for stage in self.stages:
            items = _named(stage.name, lookup(stage.name).bind(stage.properties)(items, header))
        return items


def _named(name: str, items: Iterator[Item]) -> Iterator[Item]:
    """`items`, with the gadget's name in its exceptions. Errors of gadgets and sources before it come named already."""
    try:
        yield from items
    except (InputError, GadgetError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or "no message"
        raise GadgetError(f"Gadget {name} failed: {type(error).__name__}: {reason}") from error


def is_whole(text: str | bytes) -> bool:
    """Whether a configuration is that of a whole chain, as an ordinary client sends it, rather than the <configuration>
    of one external node, as Gadgetron does. (What is not XML does not come from Gadgetron.)"""
    try:
        root = parse_xml(text, "configuration")
    except InputError:
        return True
    return root.tag != "configuration" or root.find("stream") is not None


def _stages(root: Element) -> Iterator[Stage]:
    """The stages of a configuration of version 2 or 1, or of an external node's own <configuration>."""
    if root.tag == "gadgetronStreamConfiguration":
        for node in root.findall("gadget"):
            yield _legacy(node)
    elif root.tag != "configuration":
        raise InputError(f"the root element is <{root.tag}>; <configuration> was expected.")
    elif (stream := root.find("stream")) is not None:
        for node in stream:
            yield from _node(node)
    else:
        yield from _configured(root)


def _node(node: Element) -> Iterator[Stage]:
    if node.tag != "external":
        raise _foreign(node)
    configuration = node.find("configuration")
    configuration = Element("configuration") if configuration is None else configuration
    execute = node.find("execute")
    if execute is None:
        if node.find("connect") is None:
            raise InputError("an <external> node has neither <execute> nor <connect>.")
        yield from _configured(configuration)
        return
    module, target = execute.get("name", ""), execute.get("target", "")
    if execute.get("type", "python") != "python":
        raise InputError(f'an external node is of type "{execute.get("type")}"; only "python" can run here.')
    if (module, target) == ("gadgets", "pipeline"):
        yield from _configured(configuration)
    elif module == f"gadgets.{target}":
        yield Stage(target, _properties(configuration))
    else:
        raise InputError(f"an external node runs {module}.{target}; only this project's gadgets can be named here.")


def _configured(configuration: Element) -> Iterator[Stage]:
    for node in configuration:
        name = node.get("name")
        if node.tag != "gadget" or not name:
            raise InputError(f'the configuration of a pipeline holds <{node.tag}>; <gadget name="..."> was expected.')
        yield Stage(name, _properties(node))


def _legacy(node: Element) -> Stage:
    given = {p.findtext("name", "").strip(): p.findtext("value", "").strip() for p in node.findall("property")}
    target = given.get("python_class", "")
    if node.findtext("classname", "").strip() != "PythonGadget" or given.get("python_module") != f"gadgets.{target}":
        raise _foreign(node)
    return Stage(target, _properties(node))


def _foreign(node: Element) -> InputError:
    inner = node if node.tag == "gadget" else next(node.iter("gadget"), node)
    name = inner.findtext("classname", "").strip() or f"<{node.tag}>"
    library = inner.findtext("dll", "").strip()
    of = f" of {library}" if library else ""
    return InputError(f"it uses Gadgetron's own {name}{of}; such a chain runs only on a Gadgetron server.")


def _properties(node: Element) -> dict[str, str]:
    """<property name= value=/> or <property><name/><value/></property>, but for those by which a configuration of
    version 1 names the target. Raises InputError for one without a name."""
    properties: dict[str, str] = {}
    for child in node.findall("property"):
        name = child.get("name") or child.findtext("name", "").strip()
        value = child.get("value")
        if not name or name in properties:
            raise InputError(f"a <property> {'is given twice: ' + name if name else 'has no name'}.")
        properties[name] = child.findtext("value", "") if value is None else value
    return {name: value for name, value in properties.items() if name not in _LEGACY}


_LEGACY = ("python_module", "python_class", "python_path")
