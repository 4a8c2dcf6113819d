"""The one place where XML from files and networks is parsed: bounded, and without document types, hence entities."""

from __future__ import annotations

import logging
from dataclasses import MISSING, fields
from typing import Any, TypeVar
from xml.etree.ElementTree import Element, TreeBuilder, tostring
from xml.parsers import expat

from ismrmrd.xsd import ismrmrdHeader
from xsdata.exceptions import ConverterError, ParserError
from xsdata.formats.dataclass.parsers import XmlParser
from xsdata.formats.dataclass.parsers.config import ParserConfig

from mrnets.errors import InputError

__all__ = ["parse_header", "parse_xml"]

MOST_BYTES = 64 << 20
MOST_DEPTH = 64

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")


def parse_xml(text: str | bytes, what: str) -> Element:
    """The root element of `text`; `what` names it in errors, e.g. "chain varnet.xml".

    Raises InputError if it is malformed, too large or too deep, or has a document type, where entities are declared.
    """
    if len(text) > MOST_BYTES:
        raise InputError(f"The {what} has {len(text)} bytes; at most {MOST_BYTES} are taken.")
    builder = TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MOST_DEPTH:
            raise InputError(f"The {what} nests elements more than {MOST_DEPTH} deep.")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: Any) -> None:
        raise InputError(f"The {what} declares a document type (<!DOCTYPE>); document types and entities are refused.")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, UnicodeError, ValueError, LookupError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"The {what} is not well-formed XML: {error}.") from error
    return builder.close()


_ESSENTIAL = {"encoding", "encodedSpace", "reconSpace", "matrixSize", "fieldOfView_mm", "x", "y", "z"}
"""Elements without which nothing can be reconstructed. All others may be missing: better an image without a patient
position than no image."""


def parse_header(text: str | bytes) -> ismrmrdHeader:
    """The ISMRMRD header of a scan. Elements that are missing though ISMRMRD wants them are None, with a warning in the
    log, unless nothing can be done without them; so are empty ones (anonymised headers have empty dates). Elements that
    ISMRMRD does not know are skipped. Raises InputError."""
    root = parse_xml(text, "ISMRMRD header")
    if root.tag.rpartition(":")[2] != "ismrmrdHeader":
        raise InputError(f"The ISMRMRD header has the root element <{root.tag}>; <ismrmrdHeader> was expected.")
    _prune(root)

    def build(kind: type[_T], values: dict[str, Any]) -> _T:
        for field in fields(kind):  # type: ignore[arg-type]
            if field.name in values or field.default is not MISSING or field.default_factory is not MISSING:
                continue
            name = f"{kind.__name__.removesuffix('Type')}.{field.name}"
            if field.name in _ESSENTIAL:
                raise InputError(f"The ISMRMRD header lacks {name}, without which nothing can be reconstructed.")
            _logger.warning("The ISMRMRD header lacks %s; going on without it.", name)
            values[field.name] = None
        return kind(**values)

    config = ParserConfig(fail_on_unknown_properties=False, fail_on_converter_warnings=True, class_factory=build)
    try:
        header = XmlParser(config=config).from_bytes(tostring(root), ismrmrdHeader)
    except (ParserError, ConverterError, TypeError) as error:
        raise InputError(f"The ISMRMRD header cannot be read: {' '.join(str(error).split())}.") from error
    if not header.encoding:
        raise InputError("The ISMRMRD header has no <encoding>, without which nothing can be reconstructed.")
    return header


def _prune(element: Element) -> None:
    """Remove children that have neither text nor children."""
    for child in list(element):
        _prune(child)
        if not len(child) and not (child.text or "").strip():
            element.remove(child)
