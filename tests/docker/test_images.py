"""The commands of the images, run here: no image can be built in a test."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from gadgets.hosts.optionfile import tomllib
from gadgets.hosts.ping import ping
from tests.docker.dockerfile import arguments, read

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "docker"
FILES = sorted(FOLDER.glob("*Dockerfile"))
HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextmanager
def ready(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a server; the block ends when the server has said, as to systemd, that it is ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(folder / "ready"))
        systemd.settimeout(120)
        yield {**ENVIRONMENT, "NOTIFY_SOCKET": str(folder / "ready")}
        assert systemd.recv(100) == b"READY=1"
    (folder / "ready").unlink()


def here(command: list[str], folder: Path, port: int) -> list[str]:
    """A command of the container with this Python, and with folders and port of the test."""
    options = tomllib.loads((FOLDER / "server.toml").read_text())
    lines = {**options, "host": "127.0.0.1", "port": port, "spool": str(folder / "spool")}
    (folder / "server.toml").write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items()))
    places = {
        "/etc/gadgetron-networks.toml": folder / "server.toml",
        "/noise": folder / "noise",
        "python": sys.executable,
    }
    return [str(places.get(word, word)) for word in command]


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[None]:
    """A server that is ready. At the end it is asked to stop, as `docker stop` does, and it must end well."""
    with ready(folder) as environment:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait(20)


def served(command: list[str], folder: Path) -> None:
    """Run a server's command, and the image's check of its health."""
    port = free_port()
    (health,) = [one for one in read(FOLDER / "Dockerfile") if one.name == "HEALTHCHECK"]
    check = [*here(health.command, folder, port), "--port", str(port)]
    assert subprocess.run(check, env=ENVIRONMENT, capture_output=True, timeout=60).returncode == 1
    with running(here(command, folder, port), folder):
        assert subprocess.run(check, env=ENVIRONMENT, capture_output=True, timeout=60).returncode == 0
    assert (folder / "spool").stat().st_mode & 0o777 == 0o700


def test_the_server_of_the_image_starts_answers_and_ends(tmp_path):
    (command,) = [one.command for one in read(FOLDER / "Dockerfile") if one.name == "CMD"]
    served(command, tmp_path)


def test_the_server_of_compose_starts_answers_and_ends(tmp_path):
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    assert set(services) == {"storage", "server", "gadgetron"}
    served(services["server"]["command"], tmp_path)


def test_compose_names_files_ports_and_volumes_that_exist():
    read_in = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    options = tomllib.loads((FOLDER / "server.toml").read_text())
    for name, service in read_in["services"].items():
        if "build" in service:
            file = FOLDER / service["build"]["context"] / service["build"]["dockerfile"]
            assert file.is_file()
            assert set(service["build"]["args"]) <= set(arguments(read(file)))
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in read_in["volumes"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
            assert int(port.rpartition(":")[2]) == options["port"]
        assert set(service.get("depends_on", {})) <= set(read_in["services"]) - {name}


@each
def test_the_file_copies_what_exists_and_runs_as_a_user(path):
    instructions = read(path)
    for copied in (one.words.split() for one in instructions if one.name == "COPY"):
        assert all((ROOT / source).exists() for source in copied[:-1] if not source.startswith("--"))
    users = [one.words for one in instructions if one.name == "USER"]
    assert int(users[-1]) > 0
    assert {one.name for one in instructions} >= {"LABEL", "HEALTHCHECK", "EXPOSE"}
    assert {"BASE", "DIGEST", "TORCH", "TORCH_INDEX"} <= set(arguments(instructions))
    (base,) = [one.words for one in instructions if one.name == "FROM"]
    assert base == "${BASE}${DIGEST:+@${DIGEST}}"


@each
def test_the_file_installs_extras_that_exist_and_pins_torch(path, tmp_path):
    given = arguments(read(path))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(given["EXTRAS"].split(",")) <= set(project["optional-dependencies"])
    (command,) = re.findall(r"(sed .*?) > /tmp", path.read_text())
    pinned = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env={**os.environ, **given}, capture_output=True, text=True, timeout=60
    ).stdout.splitlines()
    assert f"torch=={given['TORCH']}" in pinned
    assert len(pinned) == len((ROOT / "constraints.txt").read_text().splitlines())


def test_the_image_of_the_server_has_the_torch_of_the_tests():
    assert f"torch=={arguments(read(FOLDER / 'Dockerfile'))['TORCH']}" in (ROOT / "constraints.txt").read_text().split()


@each
@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing(path):
    done = subprocess.run([str(HADOLINT), str(path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("page", ["docker/README.md", "docs/deployment.md"])
def test_a_chain_connects_to_the_server_by_the_command_of_the_manual(page):
    (command,) = re.findall(r"^(sed 's\|<execute.*?) >", (ROOT / page).read_text(), re.MULTILINE)
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    chain = ElementTree.fromstring(done.stdout)
    (connect,) = chain.iter("connect")
    assert connect.attrib in ({"address": "server", "port": "9002"}, {"address": "127.0.0.1", "port": "9003"})
    assert not list(chain.iter("execute"))
    assert list(chain.iter("gadget"))


# FIRE


def test_the_start_script_of_fire_starts_a_server(tmp_path):
    port, log = free_port(), tmp_path / "log" / "server.log"
    command = [str(FOLDER / "fire" / "start-fire.sh"), str(log)]
    with ready(tmp_path) as environment:
        given = {**environment, "PYTHON": sys.executable, "FIRE_PORT": str(port)}
        done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=True)
    process = int(done.stdout.rsplit(None, 1)[1])
    try:
        assert ping("127.0.0.1", port, 60)
        assert f"listening on 0.0.0.0 port {port}" in log.read_text()
    finally:
        os.kill(process, signal.SIGTERM)


def test_the_settings_of_fire_name_the_script_and_its_port():
    text = (FOLDER / "fire" / "fire.ini").read_text()
    script = re.findall(r"^chroot_command=/opt/gadgetron-networks/(\S+)", text, re.MULTILINE)
    assert [(ROOT / name).is_file() and os.access(ROOT / name, os.X_OK) for name in script] == [True]
    assert "port=9002" in text.splitlines()
    copied = [one.words.split()[0] for one in read(FOLDER / "Dockerfile") if one.name == "COPY"]
    assert "docker/fire" in copied


def test_no_chain_connects_to_a_name_with_several_addresses():
    """Gadgetron 4.7.2 tries the first address of a name alone. For localhost that is often ::1, where none listens."""
    (host,) = re.findall(r'"--host", default="([^"]*)"', (ROOT / "gadgets" / "hosts" / "serve.py").read_text())
    for path in sorted((ROOT / "chains").glob("*.xml")):
        assert re.findall(r'<connect address="([^"]*)"', path.read_text()) == [host], path.name


# systemd


def test_systemd_starts_a_command_that_exists(tmp_path):
    (line,) = re.findall(
        r"^ExecStart=(.*)$", (ROOT / "systemd" / "gadgetron-networks.service").read_text(), re.MULTILINE
    )
    port = free_port()
    words = [sys.executable, *line.split()[1:]]
    places = {"/etc/gadgetron-networks.toml": str(tmp_path / "options.toml")}
    (tmp_path / "options.toml").write_text(f"port = {port}\n")
    with running([places.get(word, word) for word in words], tmp_path):
        assert ping("127.0.0.1", port, 60)
