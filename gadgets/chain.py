"""Chains: gadgets in order, as a Gadgetron configuration names them, and how they run one in another."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from xml.etree.ElementTree import Element, SubElement, tostring

from ismrmrd.xsd import ismrmrdHeader

from gadgets.gadget import Kind, lookup
from gadgets.sides import Ahead, together
from gadgets.speaker import Speech
from mrnets.errors import Faults, InputError, nearest
from mrnets.mrd.lines import Item
from mrnets.mrd.xml import parse_xml
from mrnets.plugins import is_reference

__all__ = ["SCAN", "Chain", "Stage", "Watch", "is_whole", "require_registered", "unwatched"]

Watch: TypeAlias = Callable[[str, Iterator[Item]], Iterator[Item]]
"""Takes a gadget's name and the items that it makes, and gives the items on."""
SCAN = "reading"
"""The name by which a `Watch` knows the items that come into the chain."""


def unwatched(name: str, items: Iterator[Item]) -> Iterator[Item]:
    """Return `items`, where nothing looks on."""
    return items


MAX_GADGETS = 64
"""In a chain."""
OPTIONS = ("spool", "spool_size", "spool_age", "defer", "notes")
"""Properties of a pipeline: see `gadgets.hosts.keeping`, `gadgets.hosts.deferred`, and `Chain.noted`."""


@dataclass(frozen=True)
class Stage:
    """A gadget's name in a chain, and its properties as the chain gives them."""

    name: str
    properties: Mapping[str, str]


@dataclass(frozen=True)
class Chain:
    """Gadgets in order. Made by `Chain.parse`; every gadget and property in it exists, and the order can work."""

    stages: tuple[Stage, ...]
    source: str = "chain"
    options: Mapping[str, str] = field(default_factory=dict)
    """Properties of the pipeline itself, for the host; see `OPTIONS`."""

    @classmethod
    def parse(cls, text: str | bytes, source: str = "chain", *, registered: bool = False) -> Chain:
        """Read a Gadgetron configuration (version 2 or 1) or the <configuration> of one external node.

        registered: the chain may come from a client, and names what other packages have registered, and no modules.
        Raises InputError, naming `source`, for a malformed configuration, an unknown gadget or property, gadgets that
        cannot work in that order, and Gadgetron's own gadgets.
        """
        return cls._read(text, _stages, source, registered=registered)

    @classmethod
    def external(cls, module: str, target: str, text: str | bytes, source: str = "chain") -> Chain:
        """Return the chain of an external node that executes `target` in `module`, from its <configuration>.

        A client may have sent it. Raises InputError, naming `source`, as `parse` does, and for a target that is not one
        of this project."""
        return cls._read(text, lambda root: _executed(module, target, root), source, registered=True)

    @classmethod
    def _read(
        cls, text: str | bytes, stages: Callable[[Element], Iterator[Stage]], source: str, *, registered: bool
    ) -> Chain:
        try:
            made = tuple(stages(parse_xml(text, source)))
            for stage in made if registered else ():
                require_registered(stage)
            options = {name: value for stage in made if not stage.name for name, value in stage.properties.items()}
            return cls.of(tuple(stage for stage in made if stage.name), source, options)
        except InputError as error:
            raise error if source in str(error) else InputError(f"{source}: {error}") from error

    @classmethod
    def of(cls, stages: tuple[Stage, ...], source: str = "chain", options: Mapping[str, str] | None = None) -> Chain:
        """Return a chain of `stages`, after a check of each of them and of their order. Raises InputError."""
        if not stages:
            raise InputError("it names no gadget.")
        if len(stages) > MAX_GADGETS:
            raise InputError(f"it names {len(stages)} gadgets; at most {MAX_GADGETS} are taken.")
        faults = Faults()
        for name in options or ():
            with faults.gathered():
                _require_option(name)
        for stage in stages:
            with faults.gathered():
                lookup(stage.name).bind(stage.properties)
        faults.tell()
        _require_order([stage.name for stage in stages])
        return cls(stages, source, options or {})

    def has(self, name: str) -> bool:
        """Return whether the gadget `name` is in the chain."""
        return any(stage.name == name for stage in self.stages)

    def set(self, name: str, value: str) -> Chain:
        """Return the chain with the property `name`, as "gadget.property", set to `value` in every gadget of that name.

        "gadget.2.property" sets it in the second of them only. Raises InputError."""
        owner, key = self._owner(name)
        places = [n for n, stage in enumerate(self.stages) if stage.name == owner]
        number, dot, rest = key.partition(".")
        if dot and number.isdecimal():
            places, key = places[int(number) - 1 : int(number)] if int(number) else [], rest
        if not places:
            there = ", ".join(stage.name for stage in self.stages)
            asked = f"{owner}.{number}" if dot else owner
            hint = nearest(owner, {stage.name for stage in self.stages} - {owner})
            raise InputError(f'Cannot set {name}: {self.source} has no gadget "{asked}"; it has: {there}.{hint}')
        stages = list(self.stages)
        for n in places:
            stages[n] = replace(stages[n], properties={**stages[n].properties, key: value})
        return Chain.of(tuple(stages), self.source, self.options)

    def _owner(self, name: str) -> tuple[str, str]:
        """Return the gadget and the rest of "gadget.property". References have points, too."""
        owner = max((stage.name for stage in self.stages if name.startswith(f"{stage.name}.")), key=len, default="")
        return (owner, name[len(owner) + 1 :]) if owner else (name.partition(".")[0], name.partition(".")[2])

    def noted(self, notes: tuple[str, ...]) -> Chain:
        """Return the chain with sentences that a host puts into the comment of each image."""
        return replace(self, options={**self.options, "notes": "; ".join(notes)}) if notes else self

    def xml(self) -> bytes:
        """Return the chain as a configuration that `parse` reads."""
        root = Element("configuration")
        for name, value in self.options.items():
            SubElement(root, "property", name=name, value=value)
        for stage in self.stages:
            node = SubElement(root, "gadget", name=stage.name)
            for name, value in stage.properties.items():
                SubElement(node, "property", name=name, value=value)
        return tostring(root, "utf-8", xml_declaration=True)

    def run(
        self,
        stream: Iterable[Item],
        header: ismrmrdHeader,
        speech: Speech | None = None,
        watch: Watch = unwatched,
    ) -> Iterator[Item]:
        """Yield what comes out of the last gadget, item by item as `stream` is read.

        speech: what was said of the scan before, such as the warnings on its header.
        watch: looks on at what comes in (`SCAN`) and at what each gadget makes. A second network is "network.2". All
        gadgets run in one thread then; else see `gadgets.sides`.
        Raises InputError for faults of the input, and GadgetError for any other exception in a gadget. Both name the
        gadget; errors of `stream` itself pass as they are. IncompleteError comes after all images."""
        speech = speech or Speech()
        sides = self._sides() if watch is unwatched else [range(len(self.stages))]
        speeches = [*(speech.side() for _ in sides[1:]), speech]
        ahead: list[Ahead] = []
        items = watch(SCAN, speeches[0].unnamed(iter(stream)))
        for number, (side, says) in enumerate(zip(sides, speeches, strict=True)):
            if number:
                items = Ahead(items, speeches[number - 1], says)
                ahead.append(items)
            for n in side:
                stage = self.stages[n]
                items = says.named(stage.name, lookup(stage.name).bind(stage.properties)(items, header))
                items = watch(self._unique(n), items)
        return speech.concluded(together(ahead, items))

    def _sides(self) -> list[range]:
        """Return the stages, by number, that run in one thread: those on lines, those on frames, those on images.

        Frames in the host's memory get their coil maps in a thread, and their estimates in another one."""
        gadgets = [lookup(stage.name) for stage in self.stages]
        ends = [n + 1 for n, gadget in enumerate(gadgets) if "lines" in gadget.takes and gadget.gives == "kspace"]
        ends += [n for n, gadget in enumerate(gadgets) if gadget.gives == "images"]
        if self._on_host():
            ends += [n for n, gadget in enumerate(gadgets) if gadget.gives == "estimates"][:1]
        cuts = sorted({0, *ends, len(gadgets)})
        return [range(start, stop) for start, stop in itertools.pairwise(cuts)]

    def _on_host(self) -> bool:
        """Return whether frames lie in the host's memory: where no gadget brings lines to a device."""
        from gadgets.noise import on_host

        return all(on_host(stage.properties.get("device", "auto")) for stage in self.stages if stage.name == "noise")

    def _unique(self, n: int) -> str:
        """Return the name of a stage as `set` takes it: "network", and "network.2" for the second of that name."""
        name = self.stages[n].name
        number = sum(stage.name == name for stage in self.stages[: n + 1])
        return name if number == 1 else f"{name}.{number}"


_NEEDED: dict[Kind, str] = {
    "kspace": "sort",
    "coil maps": "coils",
    "estimates": "network",
}
"""The gadget that makes each kind."""


def require_registered(stage: Stage) -> None:
    """Raise InputError for a gadget or a network that is named as a module's. To import a module is to run it."""
    for name in (stage.name, stage.properties.get("name", "")):
        if is_reference(name):
            raise InputError(f'here, a gadget or network of another package has its registered name, not "{name[:80]}"')


def _require_option(name: str) -> None:
    if name not in OPTIONS:
        known, hint = ", ".join(OPTIONS), nearest(name, OPTIONS)
        raise InputError(f'a pipeline has no property "{name}"; its properties are: {known}.{hint}')


def _require_order(names: list[str]) -> None:
    """Raise InputError if a gadget cannot take what the gadget before it gives, or if frames would leave the chain."""
    before, kind = "the scan", "lines"
    for name in names:
        gadget = lookup(name)
        if gadget.takes and kind and kind not in gadget.takes:
            missing = " or ".join(dict.fromkeys(_NEEDED[k] for k in gadget.takes if k in _NEEDED))
            hint = f"; {missing} must come before it" if missing else ""
            raise InputError(
                f"gadget {name} takes {' or '.join(gadget.takes)}, and {before} gives {kind}{hint}; its gadgets cannot "
                f"work in the order {', '.join(names)}."
            )
        before, kind = name, gadget.gives or ""
    if kind in _NEEDED:
        raise InputError(f"its last gadget, {before}, gives {kind}, which cannot leave a chain; add images at its end.")


def is_whole(text: str | bytes) -> bool:
    """Whether a configuration describes a whole chain, as an ordinary client sends it.

    Gadgetron sends the <configuration> of one external node. Text that is no XML does not come from Gadgetron."""
    try:
        root = parse_xml(text, "configuration")
    except InputError:
        return True
    return root.tag != "configuration" or root.find("stream") is not None


def _stages(root: Element) -> Iterator[Stage]:
    """Yield the stages of a configuration of version 2 or 1, or of an external node's own <configuration>."""
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
    yield from _executed(module, target, configuration)


def _executed(module: str, target: str, configuration: Element) -> Iterator[Stage]:
    if (module, target) == ("gadgets", "pipeline"):
        yield from _configured(configuration)
    elif module == f"gadgets.{target}":
        yield Stage(target, _properties(configuration))
    else:
        raise InputError(
            f"an external node runs {module}.{target}; gadgets.pipeline was expected, or one gadget, such as "
            "gadgets.noise.noise."
        )


def _configured(configuration: Element) -> Iterator[Stage]:
    """Yield the gadgets of a pipeline, after its own properties as a stage without a name."""
    yield Stage("", _properties(configuration))
    for node in configuration:
        if node.tag == "property":
            continue
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
    """Return the properties of a node, <property name= value=/> or <property><name/><value/></property>.

    Those by which a configuration of version 1 names its target are left out. Raises InputError for a property that has
    no name or is given twice."""
    properties: dict[str, str] = {}
    for child in node.findall("property"):
        name = child.get("name") or child.findtext("name", "").strip()
        value = child.get("value")
        if not name or name in properties:
            raise InputError(f"a <property> {'is given twice: ' + name if name else 'has no name'}.")
        properties[name] = child.findtext("value", "") if value is None else value
    return {name: value for name, value in properties.items() if name not in _LEGACY}


_LEGACY = ("python_module", "python_class", "python_path")
