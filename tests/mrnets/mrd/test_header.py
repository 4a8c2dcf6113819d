import logging
import math
import struct
from contextlib import suppress

import ismrmrd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xsdata.models.datatype import XmlDate, XmlTime

from mrnets.errors import InputError
from mrnets.mrd.encoding import encoding_of
from mrnets.mrd.header import MAX_WARNINGS, read_header

ENCODING = """<encoding>
<encodedSpace><matrixSize><x>16</x><y>8</y><z>1</z></matrixSize>
<fieldOfView_mm><x>320</x><y>160</y><z>5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>8</x><y>8</y><z>1</z></matrixSize>
<fieldOfView_mm><x>160</x><y>160</y><z>5</z></fieldOfView_mm></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>7</maximum><center>4</center>
</kspace_encoding_step_1><slice><minimum>0</minimum><maximum>2</maximum><center>1</center></slice></encodingLimits>
<trajectory>cartesian</trajectory>
<parallelImaging><accelerationFactor><kspace_encoding_step_1>2</kspace_encoding_step_1>
<kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor>
<calibrationMode>embedded</calibrationMode></parallelImaging>
</encoding>"""
HEADER = f"""<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<subjectInformation><patientName>A B</patientName><patientBirthdate>1970-01-31</patientBirthdate></subjectInformation>
<measurementInformation><measurementID>m 1</measurementID><seriesDate>2024-01-31</seriesDate>
<seriesTime>10:11:12.5</seriesTime><patientPosition>HFS</patientPosition></measurementInformation>
<acquisitionSystemInformation><systemFieldStrength_T>2.875</systemFieldStrength_T>
<relativeReceiverNoiseBandwidth>0.75</relativeReceiverNoiseBandwidth>
<coilLabel><coilNumber>0</coilNumber><coilName>A</coilName></coilLabel>
<coilLabel><coilNumber>1</coilNumber><coilName>B</coilName></coilLabel></acquisitionSystemInformation>
<experimentalConditions><H1resonanceFrequency_Hz>123000000</H1resonanceFrequency_Hz></experimentalConditions>
{ENCODING}
<sequenceParameters><TE>2.5</TE><TE>5</TE></sequenceParameters>
<userParameters><userParameterLong><name>n</name><value>3</value></userParameterLong>
<userParameterDouble><name>d</name><value>0.1</value></userParameterDouble>
<userParameterBase64><name>b</name><value>aGE=</value></userParameterBase64></userParameters>
</ismrmrdHeader>
"""


def changed(old: str, new: str, count: int = -1) -> str:
    assert old in HEADER
    return HEADER.replace(old, new, count)


def test_a_header_is_read_as_ismrmrd_reads_it():
    reading = read_header(HEADER)
    assert reading.header == ismrmrd.xsd.CreateFromDocument(HEADER.encode())
    assert reading.warnings == ()


@pytest.mark.parametrize(
    ("old", "new", "warned"),
    [
        ("<x>16</x>", "<x>16.0</x>", ["encodedSpace.matrixSize.x", '"16.0"', '"16"']),
        ("<y>8</y>", "<y>7.9996</y>", ["encodedSpace.matrixSize.y", '"7.9996"', '"8"']),
        ("<y>8</y>", "<y> 8 </y>", []),
        ("<z>1</z>", "<z>0.9996</z>", ["matrixSize.z", '"0.9996"', '"1"']),
        ("<z>1</z>", "<z>0</z>", ["matrixSize.z = 0", "1 was taken"]),
        ("<z>1</z>", "", ["lacks encoding.encodedSpace.matrixSize.z", "1 was taken"]),
        ("<center>4</center>", "<center>4.0</center>", ["kspace_encoding_step_1.center", '"4.0"', '"4"']),
        ("<TE>2.5</TE><TE>5</TE>", "<TE>2,5</TE><TE>5</TE>", ["sequenceParameters.TE", '"2,5"', "2.5"]),
        ("<TE>2.5</TE><TE>5</TE>", "<TE>2.5 5</TE>", ["sequenceParameters.TE", '"2.5 5"', "2.5, 5"]),
        ("<TE>2.5</TE><TE>5</TE>", "<TE>2.5,5.0</TE>", ["sequenceParameters.TE", "2.5, 5"]),
        ("<TE>2.5</TE><TE>5</TE>", "<TE>2,5; 5,0</TE>", ["sequenceParameters.TE", "2.5, 5"]),
        ("2024-01-31", "20240131", ["measurementInformation.seriesDate", '"20240131"', '"2024-01-31"']),
        ("10:11:12.5", "101112.5", ["measurementInformation.seriesTime", '"101112.5"', '"10:11:12.5']),
        ("cartesian", "Cartesian", ["encoding.trajectory", '"Cartesian"', '"cartesian"']),
        ("HFS", " hfs ", ["patientPosition", '"hfs"', '"HFS"']),
        ("123000000", "123000000.4", ["H1resonanceFrequency_Hz", '"123000000"']),
        ("0.75", "0,75", ["relativeReceiverNoiseBandwidth", '"0,75"', '"0.75"']),
        ("<encoding>", "<vendor><x>1</x></vendor><encoding>", ["unknown element vendor", "skipped"]),
        ("<trajectory>", "<trajectory>cartesian</trajectory><trajectory>", ["trajectory 2 times", "first was taken"]),
        ("<fieldOfView_mm><x>320</x><y>160", "<fieldOfView_mm><x>320</x><y>NaN", ["fieldOfView_mm.y = nan", "160 mm"]),
        ("<fieldOfView_mm><x>320</x><y>160", "<fieldOfView_mm><x>0</x><y>160", ["fieldOfView_mm.x = 0", "320 mm"]),
        ("<fieldOfView_mm><x>160</x><y>160", "<fieldOfView_mm><x>-1</x><y>160", ["fieldOfView_mm.x = -1", "160 mm"]),
    ],
)
def test_what_is_badly_written_is_read_with_one_warning(old, new, warned):
    reading = read_header(changed(old, new, count=1))
    assert reading.header == read_header(HEADER).header
    assert len(reading.warnings) == bool(warned)
    for words in warned:
        assert words in reading.warnings[0]


@pytest.mark.parametrize(
    ("old", "new", "path", "left"),
    [
        ("2024-01-31", "2024-02-31", "measurementInformation.seriesDate", None),
        ("10:11:12.5", "25:11:12", "measurementInformation.seriesTime", None),
        ("HFS", "sitting", "measurementInformation.patientPosition", None),
        ("123000000", "fast", "experimentalConditions.H1resonanceFrequency_Hz", None),
        ("<TE>5</TE>", "<TE>NaN</TE>", "sequenceParameters.TE", []),
        ("0.75", "NaN", "acquisitionSystemInformation.relativeReceiverNoiseBandwidth", None),
        ("2.875", "1e99", "acquisitionSystemInformation.systemFieldStrength_T", None),
        ("2.875", "9" * 5000, "acquisitionSystemInformation.systemFieldStrength_T", None),
        ("HFS", "H" * 2000, "measurementInformation.patientPosition", None),
        ("m 1", "m" * (1 << 21), "measurementInformation.measurementID", None),
        ("<TE>5</TE>", f"<TE>{'5 ' * 10_000}</TE>", "sequenceParameters.TE", []),
        ("aGE=", "a", "userParameters.userParameterBase64", [None]),
        ("2.875", "<T>3</T>", "acquisitionSystemInformation.systemFieldStrength_T", None),
    ],
)
def test_what_cannot_be_read_and_is_not_needed_is_left_out(old, new, path, left):
    reading = read_header(changed(old, new))
    found = reading.header
    for name in path.split("."):
        found = getattr(found, name)
    found = [one.value for one in found] if left == [None] else found
    assert found == left
    (warning,) = reading.warnings
    assert path in warning
    assert "left out" in warning


def test_unknown_words_are_other_where_ismrmrd_has_that_word():
    """A trajectory that nobody knows must not pass for a Cartesian one."""
    reading = read_header(changed("cartesian", "rosette"))
    assert reading.header.encoding[0].trajectory is ismrmrd.xsd.trajectoryType.OTHER
    assert '"rosette"; "other" was taken' in reading.warnings[0]


@pytest.mark.parametrize(
    ("element", "words"),
    [
        ("encodingLimits", ["lacks encoding.encodingLimits"]),
        ("trajectory", ["lacks encoding.trajectory"]),
        ("accelerationFactor", ["lacks encoding.parallelImaging.accelerationFactor"]),
        ("patientPosition", ["lacks measurementInformation.patientPosition"]),
        ("experimentalConditions", ["lacks experimentalConditions"]),
        ("parallelImaging", []),
        ("userParameters", []),
    ],
)
def test_elements_that_are_missing_or_empty_are_none(element, words):
    start, rest = HEADER.split(f"<{element}>", 1)
    end = rest.split(f"</{element}>", 1)[1]
    for inside in ("", f"<{element}/>", f"<{element}> </{element}>", f"<{element}><x/></{element}>"):
        warnings = read_header(start + inside + end).warnings
        assert len(warnings) == len(words)
        assert all(word in warning for word, warning in zip(words, warnings, strict=True))


def test_a_missing_recon_space_is_the_encoded_one():
    """MRIReco.jl writes such headers."""
    start, end = HEADER.index("<reconSpace>"), HEADER.index("</reconSpace>") + len("</reconSpace>")
    reading = read_header(HEADER[:start] + HEADER[end:])
    (encoding,) = reading.header.encoding
    assert encoding.reconSpace == encoding.encodedSpace
    assert encoding.reconSpace is not encoding.encodedSpace
    assert reading.warnings == ("The ISMRMRD header lacks encoding.reconSpace; encodedSpace was taken",)


def test_a_step_without_a_centre_has_no_limit_but_other_counters_keep_theirs():
    reading = read_header(changed("<center>4</center>", "").replace("<center>1</center>", ""))
    limits = reading.header.encoding[0].encodingLimits
    assert limits.kspace_encoding_step_1 is None
    assert (limits.slice.maximum, limits.slice.center) == (2, 0)
    assert "lacks encoding.encodingLimits.kspace_encoding_step_1.center" in reading.warnings[0]
    assert "lacks encoding.encodingLimits.slice.center; 0 was taken" in reading.warnings[1]


@pytest.mark.parametrize("lost", ["y", "x", "xy", "xyz"])
def test_fields_of_view_that_no_space_tells_come_from_the_pixel(lost):
    reading = read_header("".join(line for line in _without(HEADER, lost)))
    encoded, recon = (getattr(reading.header.encoding[0], f"{name}Space") for name in ("encoded", "recon"))
    pixel = 1.0 if "xy" in lost else 20.0
    for space in (encoded, recon):
        assert space.fieldOfView_mm.x == pixel * space.matrixSize.x
        assert space.fieldOfView_mm.y == pixel * space.matrixSize.y
        assert space.fieldOfView_mm.z == (0 if "z" in lost else 5)
    assert len(reading.warnings) == 2 * len(lost)


def _without(text, axes):
    for line in text.splitlines(keepends=True):
        if line.startswith("<fieldOfView_mm>"):
            for axis, mm in (("x", "320"), ("x", "160"), ("y", "160"), ("z", "5")):
                line = line.replace(f"<{axis}>{mm}</{axis}>", "") if axis in axes else line
        yield line


def test_elements_may_be_in_any_order_and_namespace():
    read = read_header(HEADER)
    start, _, rest = HEADER.partition(ENCODING)
    assert read_header(start.replace("<subject", f"{ENCODING}<subject") + rest) == read
    prefixed = HEADER.replace("<", "<mr:").replace("<mr:/", "</mr:").replace("<mr:?", "<?")
    assert read_header(prefixed.replace("xmlns=", "xmlns:mr=")) == read
    assert read_header(prefixed.replace("xmlns=", "wrong=")) == read
    assert read_header(changed(' xmlns="http://www.ismrm.org/ISMRMRD"', "")) == read
    assert read_header(changed("www.ismrm.org/ISMRMRD", "example.org/v2")) == read


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (changed("matrixSize", "matricSize"), "lacks encoding.encodedSpace.matrixSize, without which"),
        (changed("<x>16</x>", ""), "lacks encoding.encodedSpace.matrixSize.x, without which"),
        (changed("<x>16</x>", "<x>sixteen</x>"), '"sixteen"; a whole number was expected'),
        (changed("<x>16</x>", "<x>16.5</x>"), '"16.5"; a whole number was expected'),
        (changed("<x>16</x>", "<x>0</x>"), "matrixSize 0 x 8"),
        (changed(ENCODING, ""), "has no <encoding>"),
        (changed(ENCODING, f"<encoding/>{ENCODING}"), "lacks encoding.encodedSpace"),
        (HEADER[:-9], "well-formed"),
        ("", "well-formed"),
        ("<ismrmrdHeader/>", "encoding"),
        ("<html/>", "<html>"),
        ('<!DOCTYPE x [<!ENTITY a "b">]>' + HEADER.partition("?>")[2].strip(), "document type"),
        ("\ufeff<!DOCTYPE x><x/>".encode("utf-16-le"), "document type"),
        (b"\x89HDF", "well-formed"),
        (3.0, "stored as float"),
    ],
)
def test_what_is_needed_and_absent_is_one_sentence(header, words):
    with pytest.raises(InputError, match=words) as caught:
        read_header(header)
    assert "\n" not in str(caught.value)


def test_warnings_are_logged_and_bounded(caplog):
    strange = "".join(f"<a{n}/><a{n}/>" for n in range(200))
    with caplog.at_level(logging.WARNING):
        reading = read_header(changed("<encoding>", f"{strange}<encoding>"))
    assert len(reading.warnings) == MAX_WARNINGS + 1
    assert reading.warnings[-1] == f"The ISMRMRD header has {200 - MAX_WARNINGS} more faults of that sort"
    assert not caplog.records  # a header is read more often than it is logged
    reading.logged("scan.h5")
    assert [record.getMessage() for record in caplog.records] == [f"scan.h5: {text}" for text in reading.warnings]


def test_the_same_fault_of_many_elements_is_one_warning():
    labels = "".join(f"<coilLabel><coilNumber>{n}.0</coilNumber><coilName>c</coilName></coilLabel>" for n in range(64))
    (warning,) = read_header(changed("<coilLabel>", f"{labels}<coilLabel>", count=1)).warnings
    assert warning.endswith('coilNumber = "0.0"; "0" was taken (and 63 more of that kind)')


def test_no_warning_tells_who_the_patient_is():
    (warning,) = read_header(changed("1970-01-31", "19700131")).warnings
    assert "1970" not in warning
    assert "patientBirthdate" in warning


@pytest.mark.parametrize(("text", "value"), [("0.793", 0.793), ("0.79299998", 0.793), ("1.2345678901", 1.2345678901)])
def test_numbers_have_single_precision_as_a_gadgetron_server_hands_them_on(text, value):
    system = read_header(changed("0.75", text)).header.acquisitionSystemInformation
    assert system.relativeReceiverNoiseBandwidth == struct.unpack("f", struct.pack("f", value))[0]


def test_user_parameters_keep_double_precision():
    assert read_header(HEADER).header.userParameters.userParameterDouble[0].value == 0.1


def test_dates_and_times_that_are_right_stay():
    information = read_header(HEADER).header.measurementInformation
    assert information.seriesDate == XmlDate(2024, 1, 31)
    assert information.seriesTime == XmlTime(10, 11, 12, 500_000_000)


# Whatever comes


def is_header_or_sentence(raw):
    """Whether a header is usable, or refused with one line."""
    try:
        header = read_header(raw).header
    except InputError as error:
        return "\n" not in str(error)
    with suppress(InputError):
        encoding_of(header, 0)
    spaces = [space for encoding in header.encoding for space in (encoding.encodedSpace, encoding.reconSpace)]
    sizes = [n for space in spaces for n in vars(space.matrixSize).values()]
    lengths = [mm for space in spaces for mm in vars(space.fieldOfView_mm).values()]
    return all(isinstance(n, int) and n >= 1 for n in sizes) and all(0 <= mm < math.inf for mm in lengths)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=300) | st.text(max_size=300))
def test_no_bytes_and_no_text_raise_anything_else(raw):
    assert is_header_or_sentence(raw)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_no_change_of_a_header_raises_anything_else(data):
    raw = bytearray(HEADER.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw) - 1))
        raw[start : start + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=8))
    assert is_header_or_sentence(bytes(raw))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_no_value_raises_anything_else(data):
    pieces = HEADER.split(">")
    values = [n for n, piece in enumerate(pieces) if piece.partition("<")[0].strip()]
    strange = st.sampled_from(
        ["nan", "-inf", "1e400", "-1", "65536", "1_0", "٤٨", "0x10", "1e5", "-0", "", "²", "9" * 99]
    )
    for n in data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=4)):
        text = data.draw(strange | st.text(st.characters(exclude_characters="<&", exclude_categories=("Cs",))))
        pieces[n] = text + "<" + pieces[n].partition("<")[2]
    assert is_header_or_sentence(">".join(pieces))
