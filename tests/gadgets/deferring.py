"""Scans whose images come later."""

import io
import threading

import ismrmrd

from gadgets.chain import Chain
from gadgets.hosts.rules import Rules
from gadgets.hosts.scan import reconstructed
from gadgets.hosts.spool import entries
from gadgets.hosts.worker import work_on
from gadgets.messages import Close, ConfigText, Header
from gadgets.protocol import Incoming, State
from tests.gadgets import toys
from tests.gadgets.clients import served
from tests.gadgets.toys import blob, chain, configuration, for_clients, stage

NEVER = threading.Event()
SLOW = '<property name="defer" value="quick"/>'
RETRIEVE = ConfigText(chain(stage("retrieve")).encode())


def header(measurement: str = "M1") -> bytes:
    information = (
        f"<measurementInformation><measurementID>{measurement}</measurementID>"
        "<patientPosition>HFS</patientPosition></measurementInformation>"
    )
    return toys.HEADER.replace(b"<experimentalConditions>", information.encode() + b"<experimentalConditions>", 1)


def scan(gadget: str = stage("noted", scale=5), measurement: str = "M1", *more) -> list:
    """The messages of a scan whose chain is deferred."""
    text = chain(gadget).replace("<configuration><gadget", f"<configuration>{SLOW}<gadget")
    return [ConfigText(text.encode()), Header(header(measurement)), *toys.scan(), *more, Close()]


def sent(rules: Rules, messages: list) -> list:
    with served(rules) as client:
        client.send(*messages)
        return client.receive()


def comments(items: list) -> list[str]:
    return [item.meta["ImageComments"] for item in items if isinstance(item, ismrmrd.Image)]


def expected(scale: float) -> bytes:
    """Return the images of the slow chain by itself."""
    items = Incoming(io.BytesIO(blob([*toys.scan(), Close()])), State.ITEMS).items()
    return blob(for_clients(reconstructed(Chain.parse(configuration(stage("noted", scale=scale))), items, header())))


def done(rules: Rules) -> None:
    """Work off the queue, as the server's threads do."""
    for entry in entries(rules.spool.folder):
        if entry.state == "queued":
            work_on(entry, rules, NEVER)
