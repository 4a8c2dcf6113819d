import numpy as np
import pytest

from mrnets.errors import InputError
from mrnets.mrd.xml import MAX_ELEMENTS, mended, parse_xml, text_of

TEXT = '<?xml version="1.0"?>\n<a>Schädel</a>'


def test_entities_are_refused_before_they_are_expanded():
    bomb = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    with pytest.raises(InputError, match="The chain declares a document type"):
        parse_xml(f'<!DOCTYPE x [<!ENTITY e0 "ha">{bomb}]><x>&e9;</x>', "chain")


def test_depth_is_bounded():
    with pytest.raises(InputError, match="deep"):
        parse_xml("<a>" * 100 + "</a>" * 100, "chain")


def test_elements_attributes_and_bytes_are_bounded(monkeypatch):
    with pytest.raises(InputError, match="more than 100000 elements"):
        parse_xml("<r>" + "<a/>" * MAX_ELEMENTS + "</r>", "chain")
    with pytest.raises(InputError, match="more than 100000 elements and attributes"):
        parse_xml("<r " + " ".join(f'a{n}=""' for n in range(MAX_ELEMENTS)) + "/>", "chain")
    monkeypatch.setattr("mrnets.mrd.xml.MAX_BYTES", 10)
    with pytest.raises(InputError, match="The chain has 11 bytes; at most 10 are taken"):
        parse_xml("<a>" + 4 * "b" + "</a>", "chain")
    with pytest.raises(InputError, match="at most 10"):
        text_of(np.zeros(11, np.uint8), "header")


@pytest.mark.parametrize(
    "raw",
    [
        TEXT,
        TEXT.encode(),
        TEXT.encode() + b"\0",
        TEXT.encode() + b"\0\xff rubbish behind the end of a C string",
        TEXT.encode("utf-8-sig"),
        b"\n " + TEXT.encode(),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le") + b"\0\0",
        TEXT.encode("utf-16-be") + b"\0",
        np.array([TEXT.encode()], object),
        np.array([TEXT], object),
        np.array(TEXT.encode()),
        np.frombuffer(TEXT.encode(), np.uint8),
        np.frombuffer(TEXT.encode(), np.int8)[None],
        np.frombuffer(TEXT.encode() + b"\0", "S1"),
    ],
    ids=str,
)
def test_text_is_found_however_it_is_stored(raw):
    assert text_of(raw, "header") == (TEXT, [])


@pytest.mark.parametrize(
    ("codec", "warned"),
    [("iso-8859-1", False), ("cp1252", False), ("utf-8", True), ("klingon", True), ("utf-16", True)],
)
def test_a_declared_encoding_is_taken_and_latin_1_stands_for_a_wrong_one(codec, warned):
    text = TEXT.replace("?>", f' encoding="{codec}"?>')
    found, warnings = text_of(text.encode("iso8859-1"), "header")
    assert found == text
    assert len(warnings) == warned
    assert not warned or "0xe4" in warnings[0]
    assert parse_xml(found, "header").text == "Schädel"


@pytest.mark.parametrize("raw", [None, 3, np.zeros(3), np.zeros(0, np.uint8), np.array([3], object), {}])
def test_what_is_no_text_is_one_sentence(raw):
    with pytest.raises(InputError, match=r"The header is stored as .*; text or bytes were expected\."):
        text_of(raw, "header")


def test_control_characters_and_bare_ampersands_are_mended():
    text, warnings = mended("<a>T1 & T2 &lt;\x01&#228;&nbsp;</a>", "header")
    assert parse_xml(text, "header").text == "T1 & T2 <ä&nbsp;"
    assert len(warnings) == 2
    assert mended(TEXT, "header") == (TEXT, [])
