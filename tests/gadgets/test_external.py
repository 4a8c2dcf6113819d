"""The program that a Gadgetron server starts, `python -m gadgetron`: whatever comes, ERROR and CLOSE are sent."""

import os
import socket
import subprocess
import sys

import pytest

from gadgets.chain import Chain
from gadgets.hosts import takeover
from gadgets.messages import Close, ConfigFile, ConfigText, Error, Header
from mrnets.mrd.header import read_header
from tests.gadgets import toys
from tests.gadgets.clients import ROOT, started
from tests.gadgets.toys import blob, configuration, stage

NOISE = ConfigText(configuration(stage("noise")).encode())
UNKNOWN_ELEMENT = toys.HEADER.replace(b"<encoding>", b"<vendor>x</vendor><encoding>")
"""gadgetron-python ends with a traceback on this one."""


@pytest.fixture
def installed(tmp_path):
    """An environment in which Python, when it starts, runs the line that is installed beside the packages."""
    (tmp_path / "sitecustomize.py").write_text((ROOT / "gadgets" / "hosts" / "gadgetron-networks.pth").read_text())
    return {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}


@pytest.mark.parametrize("header", [toys.HEADER, UNKNOWN_ELEMENT, toys.HEADER + b"\0"], ids=["plain", "unknown", "NUL"])
def test_headers_that_gadgetron_python_cannot_read_are_read(installed, header):
    with started("-m", "gadgetron", **installed) as (process, server):
        server.send(NOISE, Header(header), *toys.scan(), Close())
        whitened = Chain.parse(NOISE.text).run(iter(toys.scan()), read_header(toys.HEADER).header)
        assert blob(server.receive()) == blob(whitened)
        assert process.wait(60) == 0
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ((NOISE, Header(b"")), "not well-formed"),
        ((NOISE, Header(b"<ismrmrdHeader/>")), "no <encoding>"),
        ((NOISE, Header(toys.HEADER), Header(toys.HEADER)), "A second Header message"),
        ((ConfigText(b""), Header(toys.HEADER)), "not well-formed"),
        ((ConfigText(b"<configuration/>"), Header(toys.HEADER)), "names no gadget"),
        ((ConfigFile("varnet.xml"), Header(toys.HEADER)), "did not send the configuration"),
        ((Header(toys.HEADER),), "A Header message came where a configuration must come"),
        ((*toys.scan()[:1],), "came where a configuration must come"),
    ],
)
def test_whatever_comes_the_server_is_told_and_the_stream_closed(installed, messages, sentence):
    with started("-m", "gadgetron", **installed) as (process, server):
        server.send(*messages, *toys.scan(), Close())
        (error,) = server.receive()
        assert isinstance(error, Error)
        assert sentence in error.text
        assert process.wait(60) == 1
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("module", "target"),
    [("gadgets", "pipelin"), ("gadgetz", "pipeline"), ("gadgets.nois", "nois"), ("gadgets.noise", "nois"), ("", "")],
)
def test_a_misspelt_module_or_target_is_told(installed, module, target):
    with started("-m", "gadgetron", target=(module, target), **installed) as (process, server):
        server.send(NOISE, Header(toys.HEADER), *toys.scan(), Close())
        (error,) = server.receive()
        assert f"runs {module}.{target}" in error.text or f'no gadget "{target}"' in error.text
        assert process.wait(60) == 1


def test_a_misspelt_target_is_told_by_gadgetron_pythons_own_program_too():
    with started("-m", "gadgetron", target=("gadgets", "pipelin")) as (process, server):
        server.send(NOISE, Header(toys.HEADER), *toys.scan(), Close())
        (error,) = server.receive()
        assert "runs gadgets.pipelin" in error.text
        assert process.wait(60) == 1


@pytest.mark.parametrize("messages", [(), (NOISE,), (NOISE, Header(toys.HEADER))], ids=["nothing", "half", "no items"])
def test_a_server_that_goes_too_soon_leaves_no_process(installed, messages):
    with started("-m", "gadgetron", **installed) as (process, server):
        server.send(*messages)
        server.socket.shutdown(socket.SHUT_WR)
        assert process.wait(60) == 1
        assert b"Traceback" not in process.stderr.read()


def test_a_stream_without_a_header_is_closed(installed):
    """Gadgetron runs a chain without input so."""
    with started("-m", "gadgetron", **installed) as (process, server):
        server.send(NOISE, Close())
        assert server.receive() == []
        assert process.wait(60) == 0


def test_no_server_is_one_sentence(installed):
    command = [sys.executable, "-m", "gadgetron", "no-port", "gadgets", "pipeline"]
    done = subprocess.run(command, env={**os.environ, **installed}, capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert b"Cannot connect to the Gadgetron server" in done.stderr
    assert b"Traceback" not in done.stderr


def test_the_program_loads_nothing_that_only_gadgetron_python_needs(installed):
    """FFTW and SciPy take 0.3 s of the time to the first image, and torch is for chains with a network."""
    command = [sys.executable, "-X", "importtime", "-m", "gadgetron", "no-port", "gadgets", "pipeline"]
    done = subprocess.run(command, env={**os.environ, **installed}, capture_output=True, timeout=120, check=False)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.decode().splitlines()}
    assert "numpy" in loaded
    assert not loaded & {"torch", "scipy", "pyfftw"}


def test_modules_of_others_stay_with_gadgetron_python(installed):
    with started("-m", "gadgetron", target=("gadgetron.examples", "pass_through"), **installed) as (_, server):
        server.send(NOISE, Header(toys.HEADER), *toys.scan()[:1], Close())
        assert blob(server.receive()) == blob(toys.scan()[:1])


def test_no_other_module_is_found_elsewhere():
    assert takeover.find_spec("gadgetron.__main__") is None  # this process is pytest's
    assert takeover.find_spec("json") is None


def test_the_process_ends_at_once_with_all_that_was_said():
    """The server's client waits for the process to end. What libraries would do at its end takes too long."""
    code = "import atexit; from gadgets.hosts.takeover import end; atexit.register(print, 'late'); print('said')"
    command = [sys.executable, "-c", f"{code}; end(3)"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split()) == (3, [b"said"])
