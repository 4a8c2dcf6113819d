"""A scan through the chains that ship, from the quick series to the images of the network: nothing is a toy here."""

import socket
from pathlib import Path

import pytest

from gadgets.chain import Chain
from gadgets.hosts.library import folder, shipped
from gadgets.hosts.queue import told
from gadgets.hosts.recording import open_recording
from gadgets.hosts.scan import reconstructed
from gadgets.hosts.spool import Spool, entries
from gadgets.messages import Close, ConfigFile, ConfigText, Header
from gadgets.simulate import Settings, make_scan
from tests.gadgets.clients import Client, started
from tests.gadgets.deferring import comments
from tests.gadgets.spools import eventually, only, server
from tests.gadgets.toys import blob

SCAN = Settings(matrix=48, coils=4, slices=2, acceleration=3.0, calibration=12)
pytestmark = pytest.mark.slow


def scan(*head) -> tuple[bytes, list]:
    """The header of a scan, and its messages after `head`."""
    header, lines, _ = make_scan(SCAN)
    return header, [*head, Header(header), *lines, Close()]


def talked(port: int, messages: list) -> list:
    with socket.create_connection(("127.0.0.1", port)) as connected:
        client = Client(connected)
        client.send(*messages)
        received = client.receive()
        client.peer.close()
        return received


def replayed(spool: Path) -> bytes:
    """The images that the kept scan and its chain give by themselves."""
    entry = only(Spool(spool))
    with open_recording(entry.stream) as source:
        chain = Chain.parse(entry.chain.read_bytes())
        return blob(reconstructed(chain, source.items, source.header, source.notes))


def test_serve_defers_is_killed_and_hands_the_images_over(tmp_path):
    spool = tmp_path / "spool"
    header, messages = scan(ConfigFile("reconstruct.xml"))
    with server(folder(), spool, "--defer") as (process, port):
        assert "quick series by chain cgsense.xml" in comments(talked(port, messages))[0]
        assert eventually(lambda: only(Spool(spool)).record().attempts == 1)
        process.kill()
        process.wait(60)
    assert "number 1 of 1 in the queue" in next(told(spool))
    with server(folder(), spool, "--defer") as (process, port):
        assert eventually(lambda: "its images are there" in next(told(spool)))
        images = talked(port, [ConfigFile("retrieve.xml"), Header(header), Close()])
        assert blob(images) == replayed(spool)
        assert "l1varnet_general" in comments(images)[0]
        assert blob(talked(port, messages)) == blob(images)
    assert len(entries(spool)) == 1


def pipeline(spool: Path, defer: str) -> ConfigText:
    """The <configuration> of the pipeline in reconstruct.xml, with properties of its own."""
    text, _ = shipped("reconstruct")
    inner = text.decode().split("<configuration>")[2].split("</configuration>")[0]
    own = f'<property name="spool" value="{spool}"/><property name="defer" value="{defer}"/>'
    return ConfigText(f"<configuration>{own}{inner}</configuration>".encode())


def test_gadgetrons_external_process_defers_and_a_server_works_it_off(tmp_path):
    spool = tmp_path / "spool"
    header, messages = scan(pipeline(spool, "cgsense"))
    with started("-m", "gadgets.hosts.takeover") as (process, client):
        client.send(*messages)
        assert "quick series by chain cgsense.xml" in comments(client.receive())[0]
        assert process.wait(60) == 0
    with server(folder(), spool) as (_, port):
        assert eventually(lambda: "its images are there" in next(told(spool)))
        images = talked(port, [ConfigFile("retrieve.xml"), Header(header), Close()])
    assert blob(images) == replayed(spool)
    with started("-m", "gadgets.hosts.takeover") as (process, client):
        client.send(*messages)
        assert blob(client.receive()) == blob(images)
        assert process.wait(60) == 0
