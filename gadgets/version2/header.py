"""The header of MRD version 2 as that of ISMRMRD. Both have the same fields, in other cases of letters."""

from __future__ import annotations

import base64
import dataclasses
import datetime
from enum import Enum
from typing import Any, get_args, get_type_hints

import numpy as np
from ismrmrd import xsd
from xsdata.models.datatype import XmlDate, XmlTime

from mrnets.mrd.values import choice, folded

__all__ = ["document"]

_DAY = datetime.datetime.min


def document(header: Any) -> bytes:
    """Return the XML of an ISMRMRD header with all that a header of version 2 says. Raises ValueError."""
    return bytes(_converted(xsd.ismrmrdHeader, header).toXML().encode())


def _converted(kind: Any, value: Any) -> Any:
    """`value` as the type `kind` of ISMRMRD's schema, which may be optional or a list."""
    kinds = [part for part in get_args(kind) if part is not type(None)]
    if isinstance(value, list):
        return [_converted(kinds[0], one) for one in value]
    if value is None:
        return None
    kind = kinds[0] if kinds else kind
    if dataclasses.is_dataclass(kind):
        return _object(kind, value)
    if issubclass(kind, Enum):
        return choice(kind, str(getattr(value, "name", value)))[0]
    if kind is XmlDate:
        return XmlDate.from_date(value)
    if kind is XmlTime:
        return XmlTime.from_time((_DAY + datetime.timedelta(microseconds=_microseconds(value))).time())
    return base64.b64decode(value) if kind is bytes else kind(value)


def _object(kind: Any, value: Any) -> Any:
    """A dataclass of ISMRMRD's schema from the fields of `value` whose names differ only in case and underscores."""
    hints = get_type_hints(kind)
    there = {folded(name): name for name in vars(value)}
    names = [(field.name, there.get(folded(field.name))) for field in dataclasses.fields(kind)]
    values = {name: _converted(hints[name], getattr(value, own)) for name, own in names if own is not None}
    return kind(**{name: one for name, one in values.items() if one is not None})


def _microseconds(time: Any) -> int:
    return int(time.numpy_value // np.timedelta64(1, "us"))
