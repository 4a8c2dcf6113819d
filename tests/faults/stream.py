"""Faults of a stream: each takes a generator and the messages of a scan, and gives other messages."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

import numpy as np

from gadgets.messages import Close, ConfigText, Header, Id, Query
from tests.faults.sound import (
    HEAD,
    STAGES,
    head_of,
    places,
    samples_of,
    with_head,
    with_samples,
    xml_of,
)
from tests.gadgets.toys import blob, configuration, waveform

Fault = Callable[[np.random.Generator, list[bytes]], list[bytes]]

NUMBERS = ("0", "-1", "1", "3", "65535", "65536", "4294967296", "1e30", "-1e30", "nan", "inf", "", "x", "7 7", "0.5")
INTEGERS = (0, 1, 2, 3, 5, 23, 24, 25, 47, 127, 255, 256, 4096, 32767, 32768, 65534, 65535)
REALS = (0.0, -1.0, 1e-30, 1e-3, 1.0, 1e3, 1e30, np.inf, -np.inf, np.nan)
STRONG = (0.0, 1e-30, 1e-3, 30.0, 1e3, 1e6, 1e20, np.inf, np.nan)
BOMB = b'<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]>'


def _joined(scan: list[bytes]) -> tuple[bytes, int]:
    whole = b"".join(scan)
    return whole, len(whole)


def _one(rng: np.random.Generator, scan: list[bytes]) -> int:
    return int(rng.choice(places(scan)))


def _some(rng: np.random.Generator, scan: list[bytes]) -> list[int]:
    """One acquisition, some that follow each other, or all."""
    there = places(scan)
    how = rng.integers(3)
    if how == 2:
        return there
    start = int(rng.integers(len(there)))
    return there[start : start + (1 if how == 0 else int(rng.integers(1, 24)))]


def cut(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """The stream ends somewhere."""
    whole, size = _joined(scan)
    return [whole[: rng.integers(size)]]


def flipped_bit(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """A bit anywhere but in samples."""
    scan = list(scan)
    which = int(rng.integers(len(scan)))
    part = bytearray(scan[which])
    reach = HEAD if which in places(scan) else len(part)
    part[rng.integers(reach)] ^= 1 << rng.integers(8)
    scan[which] = bytes(part)
    return scan


def flipped_sample(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """A bit of a sample, which the format cannot show."""
    which = _one(rng, scan)
    part = bytearray(scan[which])
    part[rng.integers(HEAD, len(part))] ^= 1 << rng.integers(8)
    return [*scan[:which], bytes(part), *scan[which + 1 :]]


def identifier(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """Another message id, known or not."""
    which = int(rng.integers(len(scan)))
    known = [int(i) for i in Id if which > 0 or i is not Id.CLOSE]  # CLOSE in front: a chain without input
    number = int(rng.choice([*known, *rng.integers(0, 65536, 4).tolist()]))
    return [*scan[:which], struct.pack("<H", number) + scan[which][2:], *scan[which + 1 :]]


def size(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """A length or a number of samples, coils or dimensions that is not what comes."""
    if rng.random() < 0.25:
        length = int(rng.choice([0, 1, 100, 1 << 20, (1 << 32) - 1]))
        return [scan[0][:2] + struct.pack("<I", length) + scan[0][6:], *scan[1:]]
    which = _one(rng, scan)
    head = head_of(scan[which])
    name = rng.choice(["number_of_samples", "active_channels", "trajectory_dimensions"])
    head[name] = rng.choice(INTEGERS)
    return [*scan[:which], with_head(scan[which], head), *scan[which + 1 :]]


def bytes_too_many(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """Bytes between others."""
    whole, length = _joined(scan)
    place = int(rng.integers(length))
    return [whole[:place], rng.bytes(int(rng.integers(1, 400))), whole[place:]]


def bytes_too_few(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """Bytes left out."""
    whole, length = _joined(scan)
    place = int(rng.integers(length))
    return [whole[:place], whole[place + int(rng.integers(1, 400)) :]]


def changed(rng: np.random.Generator, text: bytes) -> bytes:
    """XML with one element emptied, left out, doubled or filled otherwise, or with what no XML may hold."""
    elements = list(re.finditer(rb"<(\w+)[^<>/]*>([^<>]*)</\1>", text))
    how = rng.integers(7)
    found = elements[rng.integers(len(elements))] if elements else None
    if how == 0 or found is None:
        place = int(rng.integers(len(text)))
        return text[:place] + rng.bytes(int(rng.integers(1, 8))) + text[place:]
    start, end = found.span()
    if how == 1:
        return text[:start] + text[end:]
    if how == 2:
        return text[:end] + found[0] + text[end:]
    if how == 3:
        return BOMB + text[:start] + b"&c;" + text[end:]
    if how == 4:
        return text[:end] + b"<a>" * 3000 + text[end:]
    return text[: found.start(2)] + rng.choice(NUMBERS).encode() + text[found.end(2) :]


def header(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """The ISMRMRD header with a fault."""
    return [blob([Header(changed(rng, xml_of(scan[0])))]), *scan[1:]]


def field(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """A field of the headers of acquisitions that is not a counter."""
    scan, which = list(scan), _some(rng, scan)
    names = [name for name in head_of(scan[which[0]]).dtype.names if name != "idx"]
    name = rng.choice(names)
    for n in which:
        head = head_of(scan[n])
        real = head.dtype[name].base.kind == "f"
        head[name] = rng.choice(REALS if real else INTEGERS)
        scan[n] = with_head(scan[n], head)
    return scan


def flag(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """A flag set or cleared."""
    scan = list(scan)
    bit = np.uint64(1) << np.uint64(rng.integers(64))
    for n in _some(rng, scan):
        head = head_of(scan[n])
        head["flags"] ^= bit
        scan[n] = with_head(scan[n], head)
    return scan


def counter(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """A counter of acquisitions."""
    scan, which = list(scan), _some(rng, scan)
    name = rng.choice([n for n in head_of(scan[which[0]])["idx"].dtype.names if n != "user"])
    value = rng.choice(INTEGERS)
    for n in which:
        head = head_of(scan[n])
        head["idx"][name] = value
        scan[n] = with_head(scan[n], head)
    return scan


def missing(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """Acquisitions that did not come."""
    gone = set(_some(rng, scan))
    return [part for n, part in enumerate(scan) if n not in gone]


def double(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """An acquisition that comes twice, maybe with other samples the second time."""
    which = _one(rng, scan)
    again = scan[which]
    if rng.random() < 0.5:
        again = with_samples(again, rng.permutation(samples_of(again)))
    place = int(rng.choice(places(scan)))
    return [*scan[:place], again, *scan[place:]]


def order(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """Two messages in each other's place, or all acquisitions in any order."""
    scan = list(scan)
    if rng.random() < 0.3:
        there = places(scan)
        for place, part in zip(there, [scan[n] for n in rng.permutation(there)], strict=True):
            scan[place] = part
        return scan
    one, other = rng.integers(len(scan), size=2)
    scan[one], scan[other] = scan[other], scan[one]
    return scan


def _scaled(scan: list[bytes], which: list[int], factor: float, count: int | None = None) -> list[bytes]:
    scan = list(scan)
    for n in which:
        samples = samples_of(scan[n])
        with np.errstate(all="ignore"):
            samples[:count] *= np.float32(factor)
        scan[n] = with_samples(scan[n], samples)
    return scan


def extreme(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """All samples of an acquisition that are absurd."""
    return _scaled(scan, [_one(rng, scan)], rng.choice(STRONG))


def spike(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """Two samples of an acquisition that are absurd. The format cannot show it of all of them."""
    return _scaled(scan, [_one(rng, scan)], rng.choice(STRONG), 2)


def gain(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """Acquisitions that follow each other, or all, at another gain. The format cannot show it of a whole slice."""
    return _scaled(scan, _some(rng, scan), rng.choice(STRONG))


def shorter(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """Acquisitions with fewer samples or coils than the others, which their headers say."""
    scan = list(scan)
    coils, samples = int(rng.integers(1, 5)), int(rng.integers(1, 25))
    which = _some(rng, scan)
    if len(which) == len(places(scan)):  # a scan of its own
        which = which[::2]
    for n in which:
        head = head_of(scan[n])
        shape = int(head["active_channels"]), int(head["number_of_samples"])
        head["active_channels"], head["number_of_samples"] = coils, samples
        scan[n] = with_samples(with_head(scan[n], head), samples_of(scan[n]).reshape(shape)[:coils, :samples])
    return scan


def messages(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """A message of another kind somewhere behind the header."""
    others = [
        "a text",
        "text of 100 kB" * 7000,
        Query(1, "gadgetron::info"),
        Close(),
        Header(b"<ismrmrdHeader/>"),
        ConfigText(configuration(*STAGES).encode()),
        waveform(),
    ]
    place = int(rng.integers(1, len(scan)))  # Gadgetron runs a chain without input by a CLOSE in front
    return [*scan[:place], blob([others[rng.integers(len(others))]]), *scan[place:]]


def length_of_header(rng: np.random.Generator, scan: list[bytes]) -> list[bytes]:
    """A header whose end is missing, with a length that is right."""
    text = xml_of(scan[0])
    return [blob([Header(text[: rng.integers(len(text))])]), *scan[1:]]


FAULTS: dict[str, Fault] = {
    f.__name__: f
    for f in (
        cut,
        flipped_bit,
        flipped_sample,
        identifier,
        size,
        bytes_too_many,
        bytes_too_few,
        header,
        length_of_header,
        field,
        flag,
        counter,
        missing,
        double,
        order,
        extreme,
        spike,
        gain,
        shorter,
        messages,
    )
}


def changed_configuration(rng: np.random.Generator, text: bytes) -> bytes:
    """A configuration with an attribute filled otherwise, an element left out or doubled, or bytes that are wrong."""
    how = rng.integers(4)
    pattern = (rb'="([^"]*)"', rb"<gadget[^>]*>.*?</gadget>|<property[^>]*/>", rb"<\w+[^<>/]*/?>")[how % 3]
    found = list(re.finditer(pattern, text))
    one = found[rng.integers(len(found))]
    if how == 0:
        return (
            text[: one.start(1)] + rng.choice([*NUMBERS, "espirit", "sort", "/dev/null"]).encode() + text[one.end(1) :]
        )
    if how == 1:
        return text[: one.start()] + text[one.end() :]
    if how == 2:
        return text[: one.end()] + one[0] + text[one.end() :]
    return changed(rng, text)
