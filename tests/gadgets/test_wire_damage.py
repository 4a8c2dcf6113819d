"""Streams that end early, lie, or are not streams."""

import io
import struct
from contextlib import suppress

import ismrmrd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadgets import wire
from gadgets.messages import (
    Close,
    ConfigFile,
    ConfigText,
    Header,
    ReconBit,
    ReconData,
)
from gadgets.protocol import Incoming, State
from gadgets.serialise import encode
from gadgets.wire import read_message
from mrnets.errors import InputError
from tests.gadgets import toys
from tests.gadgets.wires import CLOSE, buffer, image, read_all


def whole_stream() -> bytes:
    small = toys.lines(2, samples=2)
    recon = ReconData([ReconBit(buffer((2, 1, 1, 1, 1, 1, 1)))])
    return toys.blob([small, toys.waveform(), image("<u2"), recon, "bye", Close()])


def test_a_stream_that_ends_early_is_an_error_wherever_it_ends():
    stream = whole_stream()
    assert len(read_all(stream)) == 5
    for end in range(len(stream)):
        with pytest.raises(InputError, match="ended"):
            read_all(stream[:end])


def test_the_end_between_two_messages_is_told_from_an_end_within_one():
    assert read_message(io.BytesIO(b"")) is None
    with pytest.raises(InputError, match="message id: 0 of 1 bytes"):
        read_message(io.BytesIO(b"\4"))
    with pytest.raises(InputError, match="without a CLOSE"):
        read_all(b"")


def test_an_unknown_id_is_an_error_not_the_end():
    with pytest.raises(InputError, match="unknown id 1051"):
        read_all(toys.blob([toys.lines()]) + struct.pack("<H", 1051) + CLOSE)


@pytest.mark.parametrize("flag", range(1, 5))
def test_compressed_samples_are_refused_before_they_are_misread(flag):
    """gadgetron_ismrmrd_client 4.7.2 sends them with -P and -T: a length and fewer bytes than the header says."""
    acquisition = ismrmrd.Acquisition.from_array(np.ones((2, 8), np.complex64))
    acquisition.setFlag(getattr(ismrmrd, f"ACQ_COMPRESSION{flag}"))
    sent = struct.pack("<H", 1008) + bytes(acquisition.getHead()) + struct.pack("<I", 4) + b"zips" + CLOSE
    with pytest.raises(InputError, match="are compressed"):
        read_all(sent)


@pytest.mark.parametrize("message", [ConfigFile("a"), ConfigText(b"a"), Header(b"a")], ids=lambda m: type(m).__name__)
def test_a_second_configuration_or_header_is_an_error(message):
    with pytest.raises(InputError, match=f"second {type(message).__name__}"):
        read_all(toys.blob([message, Close()]))


def test_what_follows_close_is_not_read():
    source = io.BytesIO(CLOSE + b"more")
    assert list(Incoming(source, State.ITEMS).items()) == []
    assert source.read() == b"more"


@pytest.mark.parametrize(
    "stream",
    [
        struct.pack("<HI", 3, 0xFFFFFFFF),
        struct.pack("<HQ", 8, 2**63),
        struct.pack("<HQQQ", 6, 0, 0, 2**62),
        struct.pack("<HQQ7Q", 1023, 1, 7, *[2**40] * 7),
        struct.pack("<HQQ4Q", 1023, 1, 4, 0, 2**31, 2**31, 2**31),
        struct.pack("<HQQ", 1023, 1, 2**60),
        struct.pack("<H13Q", 1050, 2**61, *[0] * 12),
        struct.pack("<H", 1022) + struct.pack("<HHQI3H", 1, 8, 0, 0, 65535, 65535, 65535).ljust(198, b"\1") + bytes(8),
    ],
    ids=["header", "error", "query", "recon data", "empty data", "dimensions", "bucket", "image"],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(stream):
    with pytest.raises(InputError, match="at most"):
        read_message(io.BytesIO(stream))


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([int(i) for i in wire._READERS]), st.binary(max_size=700))
def test_any_bytes_are_read_or_refused(identifier, body):
    with suppress(InputError):
        read_all(struct.pack("<H", identifier) + body)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_damaged_stream_is_read_or_refused(data):
    stream = bytearray(whole_stream())
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    with suppress(InputError):
        read_all(bytes(stream))


def test_what_no_message_carries_is_a_type_error():
    with pytest.raises(TypeError, match="no message carries a dict"):
        list(encode({}))


def test_a_configuration_name_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="1024"):
        list(encode(ConfigFile("x" * 1024)))
