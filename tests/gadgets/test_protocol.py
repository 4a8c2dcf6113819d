"""Every message in every state of a stream."""

import io
import struct

import pytest

from gadgets.messages import Close, ConfigFile, ConfigText, Error, Header, Query
from gadgets.protocol import Audience, Incoming, State
from mrnets.errors import InputError
from tests.gadgets import toys

MESSAGES = {
    "name": ConfigFile("a.xml"),
    "text": ConfigText(b"<a/>"),
    "header": Header(b"<a/>"),
    "close": Close(),
    "query": Query(1, "a"),
    "words": "words",
    "waveform": toys.waveform(),
    "acquisition": toys.lines(1),
}
FOLLOWING = {
    State.START: {"name": State.CONFIGURED, "text": State.CONFIGURED, "close": State.CLOSED},
    State.CONFIGURED: {"header": State.ITEMS, "close": State.CLOSED},
    State.PIPE: {"name": State.PIPE, "text": State.PIPE, "header": State.ITEMS, "close": State.CLOSED},
    State.ITEMS: {"close": State.CLOSED, "waveform": State.ITEMS, "acquisition": State.ITEMS},
}


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("state", FOLLOWING)
def test_every_message_leads_to_a_state_or_is_refused(state, name):
    """After a refusal the stream is in step, so that its CLOSE is found at once."""
    source = io.BytesIO(toys.blob([MESSAGES[name], Close()]) + b"more")
    incoming = Incoming(source, state)
    expected = {"query": state, "words": state, **FOLLOWING[state]}.get(name)
    if expected:
        incoming.read()
        assert incoming.state is expected
    else:
        with pytest.raises(InputError, match=f"message came where {state.value} must come"):
            incoming.read()
        assert incoming.state is state
    incoming.drain()
    assert incoming.state is State.CLOSED
    assert source.read() == (b"\4\0more" if name == "close" else b"more")


@pytest.mark.parametrize("state", FOLLOWING)
def test_the_end_of_a_stream_is_an_error_only_among_items(state):
    incoming = Incoming(io.BytesIO(), state)
    if state is State.ITEMS:
        with pytest.raises(InputError, match="without a CLOSE"):
            incoming.read()
    else:
        assert incoming.read() is None
    assert incoming.state is State.CLOSED


@pytest.mark.parametrize("data", [b"\xff\xff", b"\4", struct.pack("<HI", 5, 2**32 - 1)], ids=["id", "cut", "size"])
def test_a_stream_that_cannot_be_understood_is_lost(data):
    incoming = Incoming(io.BytesIO(data), State.ITEMS)
    with pytest.raises(InputError):
        incoming.read()
    assert incoming.state is State.LOST
    incoming.drain()
    assert incoming.state is State.LOST


def test_gadgetron_is_told_by_an_error_and_a_client_by_a_text():
    assert Audience.GADGETRON.failure("no.") == Error("no.")
    assert Audience.CLIENT.failure("no.") == "[gadgets] ERROR: no."
