"""The one reader of ISMRMRD headers. An element that nobody needs never stops a scan: it is read leniently.

A warning is one sentence. It names the element, the value that was found, and what was taken instead.
"""

from __future__ import annotations

import copy
import functools
import logging
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints
from xml.etree.ElementTree import Element

from ismrmrd import xsd

from mrnets.errors import InputError
from mrnets.mrd import values
from mrnets.mrd.xml import mended, parse_xml, text_of

__all__ = ["Reading", "read_header"]

MAX_WARNINGS = 32
MAX_SHOWN = 40
"""Characters of a value from outside that a message repeats."""
_WHAT = "ISMRMRD header"
_NEEDED = {
    *(("encodingType", "encodedSpace"), ("encodingSpaceType", "matrixSize")),
    *(("matrixSizeType", "x"), ("matrixSizeType", "y")),
}
"""Elements without which nothing can be reconstructed: (type, field)."""
_PRIVATE = ("subjectInformation", "studyInformation")
"""Their values stand in no log and no image comment."""
_AXES = ("x", "y", "z")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """A header as it was read."""

    header: xsd.ismrmrdHeader
    """Elements that are missing or cannot be read are None."""
    warnings: tuple[str, ...]
    """Sentences on what was not as ISMRMRD demands, for the log and for the comment of each image."""

    def logged(self, where: object = "") -> Reading:
        """Log the warnings, and return this. A header is read often, and is logged once.

        where: the file, to stand in front of each."""
        for warning in self.warnings:
            _logger.warning("%s%s", f"{where}: " if where else "", warning)
        return self


def read_header(raw: object) -> Reading:
    """Return the ISMRMRD header of a scan, with a warning for each thing that is not as it should be.

    raw: XML as text or bytes, or as an array of either or of 8-bit integers, in any order, namespace and encoding.
    Raises InputError if it is no XML, too large, or lacks what a reconstruction needs (encoding, matrix).
    """
    notes = _Notes()
    text, warnings = text_of(raw, _WHAT)
    text, more = mended(text, _WHAT)
    root = parse_xml(text, _WHAT)
    if _local(root.tag) != "ismrmrdHeader":
        raise InputError(f"The {_WHAT} has the root element <{root.tag[:80]}>; <ismrmrdHeader> was expected.")
    header = _record(xsd.ismrmrdHeader, root, "", notes)
    if not header.encoding:
        raise InputError(f"The {_WHAT} has no <encoding>, without which nothing can be reconstructed.")
    for encoding in header.encoding:
        _complete(encoding, notes)
    return Reading(header, (*warnings, *more, *notes.sentences()))


@dataclass
class _Notes:
    """Warnings, each once for each element and reason."""

    found: dict[tuple[str, str], int] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    def add(self, path: str, reason: str, sentence: str) -> None:
        """Add a sentence, unless one was added for the same element and reason."""
        key = (path, reason)
        self.found[key] = self.found.get(key, 0) + 1
        if self.found[key] == 1:
            self.texts.append(sentence)

    def replaced(self, path: str, found: object, taken: str) -> None:
        """Add that something was taken instead of what was found; None: nothing was."""
        told = f"lacks {path}" if found is None else f"has {path} = {found}"
        self.add(path, "replaced", f"The {_WHAT} {told}; {taken} was taken")

    def sentences(self) -> list[str]:
        """Return the sentences, with how often each was meant; at most MAX_WARNINGS."""
        counted = zip(self.texts, self.found.values(), strict=True)
        told = [text if n == 1 else f"{text} (and {n - 1} more of that kind)" for text, n in counted]
        rest = len(told) - MAX_WARNINGS
        return told if rest <= 0 else [*told[:MAX_WARNINGS], f"The {_WHAT} has {rest} more faults of that sort"]


# The walk


@dataclass(frozen=True)
class _Field:
    """One field of a type of the schema."""

    name: str
    kind: type
    many: bool
    required: bool


@functools.cache
def _schema(kind: type) -> Mapping[str, _Field]:
    """The fields of a dataclass of ismrmrd.xsd (1.14 and 1.15 differ in how they declare what is required)."""
    hints = get_type_hints(kind)
    found = {}
    for one in fields(kind):
        hint = hints[one.name]
        many = get_origin(hint) is list
        inner = get_args(hint)[0] if many else next((k for k in get_args(hint) if k is not NoneType), hint)
        bare = one.default is MISSING and one.default_factory is MISSING
        found[one.name] = _Field(one.name, inner, many, bare or bool(one.metadata.get("required")))
    return found


def _record(kind: type, element: Element, path: str, notes: _Notes) -> Any:
    """The dataclass `kind` from an element. `path` is the element's, with a dot at its end."""
    given: dict[str, list[Element]] = {}
    for child in element:
        given.setdefault(_local(child.tag), []).append(child)
    schema = _schema(kind)
    for name in given:
        if name in schema:
            continue
        known = f"{path}{_short(name)}"
        notes.add(known, "unknown", f"The {_WHAT} has the unknown element {known}; it was skipped")
    return kind(**{name: _value(kind, one, given.get(name, ()), path, notes) for name, one in schema.items()})


def _value(owner: type, one: _Field, given: Any, path: str, notes: _Notes) -> Any:
    """The value of a field from the elements of its name. None, or an empty list, where there is none."""
    name = f"{path}{one.name}"
    # Data refer to encodings by their number, so that an empty one keeps its place, and is refused.
    filled = [element for element in given if one.name == "encoding" or not _is_empty(element)]
    if not filled:
        if (owner.__name__, one.name) in _NEEDED:
            raise InputError(f"The {_WHAT} lacks {name}, without which nothing can be reconstructed.")
        if one.required and not one.many and owner.__name__ not in _COMPLETED and one.name != "reconSpace":
            notes.add(name, "missing", f"The {_WHAT} lacks {name}; going on without it")
        return [] if one.many else None
    if not one.many and len(filled) > 1:
        notes.add(name, "repeated", f"The {_WHAT} has {name} {len(filled)} times; the first was taken")
    if is_dataclass(one.kind):
        records = [_record(one.kind, element, f"{name}.", notes) for element in filled[: None if one.many else 1]]
        return records if one.many else records[0]
    needed = (owner.__name__, one.name) in _NEEDED
    if one.many:
        return _scalars(one.kind, filled, name, notes)
    return _scalar(one.kind, filled[0], name, notes, single=owner is not xsd.userParameterDoubleType, needed=needed)


_COMPLETED = ("matrixSizeType", "fieldOfViewMm", "limitType", "encodingSpaceType")
"""Types whose missing fields are told of by `_complete`, as is a missing reconSpace."""


def _scalar(kind: type, element: Element, name: str, notes: _Notes, *, single: bool, needed: bool) -> Any:
    text = (element.text or "").strip()
    try:
        if len(element):
            raise ValueError(text)
        value, exact = values.parse(kind, text)
        value = values.single(value) if kind is float and single else value
        if kind is float and not math.isfinite(value) and "fieldOfView_mm" not in name:
            raise ValueError(text)
    except ValueError:
        wanted = values.WANTED.get(kind, "a word of ISMRMRD's")
        if needed:
            raise InputError(f'The {_WHAT} has {name} = "{_short(text)}"; {wanted} was expected.') from None
        notes.add(name, "unreadable", f"The {_WHAT} has {name} = {_shown(name, text)}, not {wanted}; it was left out")
        return None
    if not exact:
        taken = getattr(value, "value", value)
        told = f"The {_WHAT} has {name} = {_shown(name, text)}; {_shown(name, str(taken))} was taken"
        notes.add(name, "inexact", told)
    return value


def _scalars(kind: type, elements: list[Element], name: str, notes: _Notes) -> list[Any]:
    """The values of a list. It is left out whole if one cannot be read: the others would change their places."""
    if kind is not float:
        read = [_scalar(kind, element, name, notes, single=True, needed=False) for element in elements]
        return [] if None in read else read
    found: list[float] = []
    for element in elements:
        text = (element.text or "").strip()
        try:
            numbers, exact = values.numbers(text)
            numbers = [values.single(number) for number in numbers]
            if len(element) or not all(math.isfinite(number) for number in numbers):
                raise ValueError(text)
        except ValueError:
            told = f'The {_WHAT} has {name} = "{_short(text)}", not a number; the whole list was left out'
            notes.add(name, "unreadable", told)
            return []
        if not exact:
            taken = ", ".join(format(number, "g") for number in numbers)
            notes.add(name, "inexact", f'The {_WHAT} has {name} = "{_short(text)}"; {_short(taken)} was taken')
        found += numbers
    return found


# Elements that are completed


def _complete(encoding: Any, notes: _Notes) -> None:
    """Fill in what an encoding needs and lacks, and what only makes sense as a whole."""
    if encoding.reconSpace is None:
        notes.add("encoding.reconSpace", "replaced", f"The {_WHAT} lacks encoding.reconSpace; encodedSpace was taken")
        encoding.reconSpace = copy.deepcopy(encoding.encodedSpace)
    for name in ("encodedSpace", "reconSpace"):
        space = getattr(encoding, name)
        matrix = space.matrixSize
        if min(matrix.x, matrix.y) < 1:
            raise InputError(f"The {_WHAT} has encoding.{name}.matrixSize {matrix.x} x {matrix.y}; 1 is the least.")
        if matrix.z is None or matrix.z < 1:
            notes.replaced(f"encoding.{name}.matrixSize.z", matrix.z, "1")
            matrix.z = 1
        if space.fieldOfView_mm is None:
            space.fieldOfView_mm = xsd.fieldOfViewMm(**dict.fromkeys(_AXES))
    _complete_fields_of_view(encoding, notes)
    if encoding.encodingLimits is not None:
        for name in _schema(xsd.encodingLimitsType):
            _complete_limit(encoding.encodingLimits, name, notes)


def _complete_fields_of_view(encoding: Any, notes: _Notes) -> None:
    """Replace fields of view that are no lengths.

    The readout is oversampled: along it, pixels of both spaces are assumed equally long. Along the other axes both
    fields of view are assumed equal. Without any length, in-plane pixels are square, or else 1 mm long.
    """
    spaces = {"encodedSpace": encoding.encodedSpace, "reconSpace": encoding.reconSpace}
    known = ((_mm(space, axis), getattr(space.matrixSize, axis)) for space in spaces.values() for axis in ("y", "x"))
    pixel = next((mm / size for mm, size in known if mm), 1.0)
    for axis in _AXES:
        for (name, space), other in zip(spaces.items(), reversed(spaces.values()), strict=True):
            if _mm(space, axis):
                continue
            size, of_other = getattr(space.matrixSize, axis), _mm(other, axis)
            if of_other:
                taken = of_other * size / other.matrixSize.x if axis == "x" else of_other
            else:
                taken = 0.0 if axis == "z" else pixel * size
            told = f"{taken:.6g} mm" if taken else "an unknown length"
            notes.replaced(f"encoding.{name}.fieldOfView_mm.{axis}", getattr(space.fieldOfView_mm, axis), told)
            setattr(space.fieldOfView_mm, axis, taken)


def _mm(space: Any, axis: str) -> float:
    """The field of view along an axis; 0 if it is no length."""
    mm = getattr(space.fieldOfView_mm, axis)
    return mm if mm is not None and math.isfinite(mm) and mm > 0 else 0.0


def _complete_limit(limits: Any, name: str, notes: _Notes) -> None:
    """Fill in a limit, or leave it out. The centre of an encoding step is never guessed here."""
    limit, path = getattr(limits, name), f"encoding.encodingLimits.{name}"
    if limit is None:
        return
    lacking = [part for part in ("minimum", "maximum", "center") if getattr(limit, part) is None]
    if "maximum" in lacking or (lacking and name.startswith("kspace")):
        notes.add(path, "limit", f"The {_WHAT} lacks {path}.{lacking[0]}; the whole limit was left out")
        setattr(limits, name, None)
        return
    for part in lacking:
        notes.replaced(f"{path}.{part}", None, "0")
        setattr(limit, part, 0)


# Words


def _is_empty(element: Element) -> bool:
    """Whether an element has neither text nor children with text: anonymised headers have empty dates."""
    return not (element.text or "").strip() and all(_is_empty(child) for child in element)


def _local(tag: str) -> str:
    return tag.rpartition(":")[2]


def _short(text: str) -> str:
    """Text from outside, short and on one line."""
    line = "".join(c if c.isprintable() else " " for c in text[: MAX_SHOWN + 1])
    return line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}…"


def _shown(path: str, text: str) -> str:
    return "a value of its own" if path.startswith(_PRIVATE) else f'"{_short(text)}"'
