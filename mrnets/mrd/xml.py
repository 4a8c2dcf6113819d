"""The one place where XML from files and networks is parsed: bounded, and without document types and entities."""

from __future__ import annotations

import codecs
import re
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from mrnets.errors import InputError

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_ELEMENTS", "mended", "parse_xml", "text_of"]

MAX_BYTES = 16 << 20
MAX_ELEMENTS = 100_000
"""Elements and attributes. A header with 256 coils and 1,000 diffusion directions has some 8,000."""
MAX_DEPTH = 64

_CODECS = ("utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252")
_DECLARED = re.compile(rb"""<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_MARKS = {
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
    b"<\0": "utf-16-le",
    b"\0<": "utf-16-be",
}
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BARE_AMPERSAND = re.compile("&(?!(?:amp|lt|gt|quot|apos|#[0-9]+|#x[0-9A-Fa-f]+);)")


def parse_xml(text: str | bytes, what: str) -> Element:
    """Return the root element of `text`; `what` names it in errors, e.g. "chain varnet.xml".

    Raises InputError if it is malformed, too large or too deep, has too many elements, or has a document type, where
    entities are declared.
    """
    _require_size(len(text), what)
    builder = TreeBuilder()
    depth = count = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1 + len(attributes)
        if depth > MAX_DEPTH:
            raise InputError(f"The {what} nests elements more than {MAX_DEPTH} deep.")
        if count > MAX_ELEMENTS:
            raise InputError(f"The {what} has more than {MAX_ELEMENTS} elements and attributes.")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: Any) -> None:
        raise InputError(f"The {what} declares a document type (<!DOCTYPE>); document types and entities are refused.")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except InputError:
        raise
    except (expat.ExpatError, UnicodeError, ValueError, LookupError) as error:
        raise InputError(f"The {what} is not well-formed XML: {error}.") from error
    return builder.close()


def text_of(raw: object, what: str) -> tuple[str, list[str]]:
    """Return XML as text, from any form in which files and networks hold it, and warnings.

    raw: text, bytes, or an array of them or of 8-bit integers. Bytes may end with NUL and begin with a byte order mark.
    They are taken as the encoding that they declare, or as UTF-8, UTF-16 or else Latin-1.
    Raises InputError for anything else, and if it is too large.
    """
    data = _plain(raw, what)
    _require_size(len(data), what)
    if isinstance(data, str):
        return _clean(data), []
    wide = next((codec for mark, codec in _MARKS.items() if data.startswith(mark)), None)
    data = data[: len(data) // 2 * 2] if wide else data.partition(b"\0")[0]
    for codec in (wide, _declared(data), "utf-8"):
        if codec is not None:
            try:
                return _clean(data.decode(codec)), []
            except UnicodeDecodeError as error:
                strange = error.object[error.start]
    warning = f"The {what} has the byte 0x{strange:02x}, which is no text in the encoding that it declares"
    return _clean(data.decode("iso8859-1")), [f"{warning}; Latin-1 was taken"]


def mended(text: str, what: str) -> tuple[str, list[str]]:
    """Return XML without characters that XML forbids and with each bare "&" as "&amp;", and warnings."""
    warnings = []
    text, count = _FORBIDDEN.subn("", text)
    if count:
        warnings.append(f"The {what} has {count} control characters, which XML forbids; they were left out")
    text, count = _BARE_AMPERSAND.subn("&amp;", text)
    if count:
        warnings.append(f'The {what} has {count} times "&" where XML demands "&amp;"; it was read as "&"')
    return text, warnings


def _plain(raw: object, what: str) -> str | bytes:
    """The text or bytes in `raw`. Raises InputError."""
    if isinstance(raw, np.ndarray) and raw.size:
        if raw.dtype.kind in "iuS" and raw.dtype.itemsize == 1:
            _require_size(raw.size, what)
            return raw.tobytes()
        raw = raw.flat[0] if raw.dtype.kind in "OSU" else raw
    if isinstance(raw, str | bytes):
        return raw
    kind = f"an array of {raw.dtype}" if isinstance(raw, np.ndarray) else type(raw).__name__
    raise InputError(f"The {what} is stored as {kind}; text or bytes were expected.")


def _require_size(size: int, what: str) -> None:
    if size > MAX_BYTES:
        raise InputError(f"The {what} has {size} bytes; at most {MAX_BYTES} are taken.")


def _declared(data: bytes) -> str | None:
    """The codec that an XML declaration names, if it is one of the few that are taken."""
    found = _DECLARED.match(data.lstrip())
    try:
        name = codecs.lookup(found[1].decode("ascii")).name if found else None
    except LookupError:
        return None
    return name if name in _CODECS else None


def _clean(text: str) -> str:
    """The text before the first NUL, without byte order mark and without space around it."""
    return text.lstrip("\ufeff").partition("\0")[0].strip()
