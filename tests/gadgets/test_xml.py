import logging

import pytest

from gadgets.xml import parse_header, parse_xml
from mrnets.errors import InputError
from tests.gadgets.toys import HEADER


def test_a_header_is_read():
    header = parse_header(HEADER)
    assert header.encoding[0].encodedSpace.matrixSize.x == 16
    assert header.encoding[0].encodingLimits.kspace_encoding_step_1.center == 4
    assert header.acquisitionSystemInformation is None
    assert parse_header(HEADER.decode()) == header


def test_a_header_may_have_a_namespace_prefix():
    prefixed = HEADER.replace(b"<", b"<mr:").replace(b"<mr:/", b"</mr:").replace(b"<mr:?", b"<?")
    assert parse_header(prefixed.replace(b"xmlns=", b"xmlns:mr=")) == parse_header(HEADER)


def test_what_a_header_lacks_is_none_and_is_logged(caplog):
    start, rest = HEADER.split(b"<encodingLimits>")
    without = start + rest.split(b"</encodingLimits>")[1]
    with caplog.at_level(logging.WARNING):
        header = parse_header(without.replace(b"</ismrmrdHeader>", b"<measurementInformation/></ismrmrdHeader>"))
    assert header.encoding[0].encodingLimits is None
    assert header.measurementInformation is None
    assert "lacks encoding.encodingLimits" in caplog.text


def test_a_header_without_patient_position_is_read(caplog):
    information = b"<measurementInformation><measurementID>x</measurementID></measurementInformation><encoding>"
    header = parse_header(HEADER.replace(b"<encoding>", information))
    assert header.measurementInformation.patientPosition is None
    assert "lacks measurementInformation.patientPosition" in caplog.text


def test_empty_elements_of_an_anonymised_header_are_as_if_missing():
    study = b"<studyInformation><studyDate></studyDate><studyID>7</studyID></studyInformation><encoding>"
    header = parse_header(HEADER.replace(b"<encoding>", study))
    assert header.studyInformation.studyDate is None
    assert header.studyInformation.studyID == "7"


def test_elements_that_ismrmrd_does_not_know_are_skipped():
    assert parse_header(HEADER.replace(b"<encoding>", b"<vendor><x>1</x></vendor><encoding>")) == parse_header(HEADER)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (HEADER.replace(b"matrixSize", b"matricSize"), "lacks encodingSpace.matrixSize"),
        (HEADER.replace(b"<x>16</x>", b"<x>sixteen</x>"), "sixteen"),
        (HEADER[:-9], "well-formed"),
        (b"", "well-formed"),
        (b"<ismrmrdHeader/>", "encoding"),
        (b"<html/>", "<html>"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]>' + HEADER.partition(b"?>")[2].strip(), "document type"),
        ("\ufeff<!DOCTYPE x><x/>".encode("utf-16-le"), "document type"),
        (b"\x89HDF", "well-formed"),
    ],
)
def test_a_bad_header_is_one_sentence(header, words):
    with pytest.raises(InputError, match=words) as caught:
        parse_header(header)
    assert "\n" not in str(caught.value)


def test_entities_are_refused_before_they_are_expanded():
    bomb = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    with pytest.raises(InputError, match="The chain declares a document type"):
        parse_xml(f'<!DOCTYPE x [<!ENTITY e0 "ha">{bomb}]><x>&e9;</x>', "chain")


def test_depth_is_bounded():
    with pytest.raises(InputError, match="deep"):
        parse_xml("<a>" * 100 + "</a>" * 100, "chain")
