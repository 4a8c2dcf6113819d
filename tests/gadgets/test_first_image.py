"""An image comes out as soon as its scan can tell that it is complete: by the order of messages, not by the clock."""

import ismrmrd
import numpy as np
import pytest
from ismrmrd import xsd

from gadgets.hosts.rules import Rules
from gadgets.messages import Close, ConfigText, Header
from mrnets.mrd.flags import Flag
from mrnets.mrd.lines import take
from tests.gadgets import synthetic
from tests.gadgets.clients import served
from tests.gadgets.toys import chain, stage

SIZE, SLICES, REPETITIONS = 16, 2, 3
CHAIN = ConfigText(chain(stage("sort"), stage("network", name="zerofilled"), stage("images")).encode())


def header() -> Header:
    limits = {"slice": (0, SLICES - 1, 0), "repetition": (0, REPETITIONS - 1, 0)}
    encoding = synthetic.encoding((SIZE, SIZE, 1), limits=limits)
    return Header(xsd.ToXML(synthetic.header(encoding)).encode())


def repetition(number: int, flags=()):
    """Lines of each slice, as a list."""
    rng = np.random.default_rng(number)
    kspace = (synthetic.to_kspace(synthetic.coil_images(rng, 2, SIZE, SIZE)) for _ in range(SLICES))
    return [
        synthetic.lines(one, last=flags, slice=n, repetition=number, first_counter=100 * number + SIZE * n)
        for n, one in enumerate(kspace)
    ]


def first_and_rest(lines):
    return take(lines, np.arange(1)), take(lines, np.arange(1, len(lines)))


def image_of(items) -> tuple[int, int]:
    image = next(items)
    assert isinstance(image, ismrmrd.Image)
    return int(image.slice), int(image.repetition)


@pytest.fixture
def client(tmp_path):
    with served(Rules(tmp_path)) as client:
        client.send(CHAIN, header())
        yield client


def test_a_repetition_comes_out_with_the_first_lines_of_the_next_one(client):
    """Without flags. The rest of the next repetition is sent only when the images of this one are here."""
    items = client.peer.items()
    rest = repetition(0)
    for number in range(REPETITIONS):
        client.send(*rest)
        if number + 1 < REPETITIONS:
            both = [first_and_rest(lines) for lines in repetition(number + 1)]
            client.send(*(first for first, _ in both))
            rest = [others for _, others in both]
        else:
            client.send(Close())
        assert [image_of(items) for _ in range(SLICES)] == [(n, number) for n in range(SLICES)]
    assert list(items) == []


def test_a_slice_comes_out_with_its_last_line(client):
    items = client.peer.items()
    for number in range(REPETITIONS):
        for n, lines in enumerate(repetition(number, flags=(Flag.LAST_IN_SLICE,))):
            client.send(lines)
            assert image_of(items) == (n, number)
    client.send(Close())
    assert list(items) == []
