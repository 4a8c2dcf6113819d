"""Values of an ISMRMRD header, read from text as it should be written and as it is often written.

Each parser returns the value, and whether the text was written as ISMRMRD demands. Each raises ValueError for text that
stands for no value.
"""

from __future__ import annotations

import base64
import re
import struct
from datetime import date, time
from enum import Enum
from typing import Any

from xsdata.models.datatype import XmlDate, XmlTime

__all__ = ["WANTED", "choice", "folded", "numbers", "parse", "single"]

WANTED = {
    str: "a short text",
    int: "a whole number",
    float: "a number",
    bytes: "base64",
    XmlDate: "a date",
    XmlTime: "a time",
}
"""Each type in words, for messages."""

_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d{1,4})?", re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_DATE = re.compile(r"(\d{4})[-/.]?(\d\d)[-/.]?(\d\d)", re.ASCII)
_TIME = re.compile(r"(\d\d):?(\d\d):?(\d\d)([.,]\d+)?", re.ASCII)
_SPECIAL = {"nan": float("nan"), "inf": float("inf"), "+inf": float("inf"), "-inf": float("-inf")}
_SINGLE = struct.Struct("f")
MAX_TEXT = 1 << 20
"""Characters of a text. Some headers hold a whole protocol in one."""
MAX_VALUE = 1024
"""Characters of any other value but base64."""


def parse(kind: type, text: str) -> tuple[Any, bool]:
    """Return the value of the type `kind`: str, int, float, bytes, XmlDate, XmlTime or an enumeration."""
    if kind is not bytes and len(text) > (MAX_TEXT if kind is str else MAX_VALUE):
        raise ValueError(text[:MAX_VALUE])
    if kind is str:
        return text, True
    if issubclass(kind, Enum):
        return choice(kind, text)
    return _PARSERS[kind](text)


def choice(kind: type[Enum], text: str) -> tuple[Enum, bool]:
    """Return a member of an enumeration. Case, spaces, "-" and "_" may differ; OTHER, if there is one, is the rest."""
    exact = next((member for member in kind if member.value == text), None)
    if exact is not None:
        return exact, True
    by_name = {folded(member.value): member for member in kind}
    found = by_name.get(folded(text), by_name.get("other"))
    if found is None:
        raise ValueError(text)
    return found, False


def numbers(text: str) -> tuple[list[float], bool]:
    """Return the numbers that one element holds. It should hold one; some hold a list."""
    if len(text) > MAX_VALUE:
        raise ValueError(text[:MAX_VALUE])
    tokens = re.split(r"[\s;]+|,\s+", text.strip())
    if any("." in token and "," in token for token in tokens):
        tokens = [part for token in tokens for part in token.split(",")]
    values = [_number(token) for token in tokens if token]
    if not values:
        raise ValueError(text)
    return [value for value, _ in values], len(values) == 1 and values[0][1]


def single(value: float) -> float:
    """Return the number in single precision, as ISMRMRD's schema has it and a Gadgetron server hands it on.
    Raises ValueError where it is too large for that."""
    try:
        return float(_SINGLE.unpack(_SINGLE.pack(value))[0])
    except OverflowError:
        raise ValueError(value) from None


def _number(text: str) -> tuple[float, bool]:
    if text.lower() in _SPECIAL:
        return _SPECIAL[text.lower()], True
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(text.replace(",", ".")), "," not in text


def _whole(text: str) -> tuple[int, bool]:
    """A whole number. One that was computed may be off by a hundredth, or by a millionth of a large one (Hz)."""
    if _WHOLE.fullmatch(text) and abs(int(text)) < 1 << 63:
        return int(text), True
    value, _ = _number(text)
    if not abs(value) < 1 << 53 or abs(value - round(value)) > max(0.01, 1e-6 * abs(value)):
        raise ValueError(text)
    return round(value), False


def _date(text: str) -> tuple[XmlDate, bool]:
    try:
        return XmlDate.from_string(text), True
    except ValueError:
        year, month, day = (int(part) for part in _matched(_DATE, text).groups())
        date(year, month, day)
        return XmlDate(year, month, day), False


def _time(text: str) -> tuple[XmlTime, bool]:
    try:
        return XmlTime.from_string(text), True
    except ValueError:
        hour, minute, second, fraction = _matched(_TIME, text).groups(default=".0")
        time(int(hour), int(minute), int(second))
        return XmlTime(int(hour), int(minute), int(second), int(f"{fraction[1:]:0<9.9}")), False


def _base64(text: str) -> tuple[bytes, bool]:
    return base64.b64decode("".join(text.split()), validate=True), True


_PARSERS = {int: _whole, float: _number, bytes: _base64, XmlDate: _date, XmlTime: _time}


def _matched(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    found = pattern.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return found


def folded(name: str) -> str:
    """Return a name without case, spaces, hyphens and underscores, so that spellings of one name compare equal."""
    return re.sub(r"[\s_-]", "", name).lower()
