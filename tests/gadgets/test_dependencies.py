"""Noise of another scan: kept where it is measured, found by the scan that depends on it, on every host."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace as changed
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import ismrmrd
import numpy as np
import pytest

from gadgets.__main__ import main
from gadgets.chain import Chain
from gadgets.connection import Peer
from gadgets.hosts import conversation
from gadgets.hosts.dependencies import Dependencies, asked_noise, noise_in, noise_summary
from gadgets.hosts.rules import Rules
from gadgets.hosts.scan import reconstructed
from gadgets.hosts.storage import Server, default_store, store_of
from gadgets.hosts.totals import TOTALS
from gadgets.imagefiles import read_images
from gadgets.messages import Close, ConfigFile, ConfigText, DependencyQuery, Header
from gadgets.protocol import State
from gadgets.simulate import Settings, make_noise_scan, make_scan
from mrnets.errors import InputError
from mrnets.mrd.files import write_scan
from mrnets.mrd.noise_store import Folder, Key, encoded
from tests.gadgets.toys import blob, configuration, stage

CHAIN = Chain.parse(configuration(*(stage(name) for name in ("noise", "sort", "coils", "network", "images"))))
SCAN = Settings(coils=4, matrix=32, calibration=12, acceleration=2.0, noise_lines=16, seed=3, vendor="siemens")
NOISE_ID, SCAN_ID = "45387_66015401_66015410_1", "45387_66015401_66015410_2"
DEPENDENT = changed(SCAN, noise_from=NOISE_ID)


def chain() -> Chain:
    return CHAIN.set("network.name", "cgsense").set("coils.method", "unitary")


def images(settings: Settings, noise: Dependencies | None = None) -> list[Any]:
    header, lines, _ = make_scan(settings)
    return list(reconstructed(chain(), lines, header, noise=noise))


def measure_noise(store: Any, settings: Settings = SCAN) -> Dependencies:
    header, lines = make_noise_scan(settings)
    noise = Dependencies(store)
    assert list(reconstructed(chain(), lines, header, noise=noise)) == []
    return noise


def comment(image: Any) -> str:
    found = image.meta["ImageComments"]
    return found if isinstance(found, str) else "; ".join(found)


class Storage(BaseHTTPRequestHandler):
    """The two requests of an MRD storage server that matter here."""

    def do_POST(self) -> None:
        self.server.blobs.append((self._tags(), self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(201, b"{}")

    def do_GET(self) -> None:
        wanted = self._tags()
        if wanted.get("measurement") == "broken":
            self._answer(500, b"")
        found = [data for tags, data in self.server.blobs if wanted.items() <= tags.items()]
        self._answer(200, found[-1]) if found else self._answer(404, b"")

    def _tags(self) -> dict[str, str]:
        url = urlsplit(self.path)
        assert url.path == ("/v1/blobs/data" if self.command == "POST" else "/v1/blobs/data/latest")
        tags = {name: values[0] for name, values in parse_qs(url.query, strict_parsing=True).items()}
        assert tags["subject"]
        assert tags["name"] == "noise_covariance"
        return tags

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Storage) as listening:
        listening.blobs = []
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        listening.store = Server(f"http://127.0.0.1:{listening.server_port}/")
        yield listening
        listening.shutdown()
        thread.join()


@pytest.fixture(params=["folder", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return Folder(tmp_path / "noise") if request.param == "folder" else request.getfixturevalue("server").store


def test_the_noise_of_another_scan_is_as_good_as_its_own(store: Any) -> None:
    assert measure_noise(store).kept == NOISE_ID
    (ours,), (theirs,) = images(SCAN), images(DEPENDENT, Dependencies(store))
    np.testing.assert_array_equal(ours.data, theirs.data)
    assert "noise" not in comment(theirs)


@pytest.mark.parametrize("vendor", ["plain", "siemens"])
def test_the_tags_are_gadgetrons(server: Any, vendor: str) -> None:
    measure_noise(server.store, changed(SCAN, vendor=vendor))
    ((tags, _),) = server.blobs
    device, subject, session, _ = tags["measurement"].split("_")
    assert (tags["device"], tags["subject"], tags["session"]) == (device, subject, session)
    assert tags["_ttl"] == "172800s"


def test_what_is_not_found_stands_in_the_comment(store: Any) -> None:
    (image,) = images(DEPENDENT, Dependencies(store))
    assert f"the noise of the scan {NOISE_ID} is not known here" in comment(image)
    assert "data are not prewhitened" in comment(image)


def test_a_scan_has_its_own_noise_where_the_other_is_not_known(store: Any) -> None:
    """Its header depends on another scan, and it has noise lines, as scans of Siemens scanners often have both."""
    header, lines, _ = make_scan(SCAN)
    header = header.replace(b"</protocolName>", b"</protocolName>" + DEPENDS)
    (image,) = reconstructed(chain(), lines, header, noise=Dependencies(store))
    assert "noise" not in comment(image)


DEPENDS = (
    b"<measurementDependency><dependencyType>Noise</dependencyType><measurementID>"
    + NOISE_ID.encode()
    + b"</measurementID></measurementDependency>"
)


def test_noise_of_other_coils_is_not_used(store: Any) -> None:
    measure_noise(store, changed(SCAN, coils=3))
    (image,) = images(DEPENDENT, Dependencies(store))
    assert "is not used: it was measured without the coils HeadNeck_20:1:H4" in comment(image)
    with pytest.raises(InputError, match="that was given does not fit: it was measured without the coils"):
        images(DEPENDENT, Dependencies(given=noise_in_settings(changed(SCAN, coils=3))))
    unnamed = changed(noise_in_settings(changed(SCAN, coils=3)), labels=())
    (image,) = images(DEPENDENT, Dependencies(given=unnamed))
    assert "is not used: it is of 3 coils, and this scan has 4" in comment(image)
    assert "not prewhitened" in comment(image)


def noise_in_settings(settings: Settings) -> Any:
    noise = Dependencies()
    header, lines = make_noise_scan(settings)
    with pytest.raises(InputError, match="measures noise only, which is not kept: there is no place for it"):
        list(reconstructed(chain(), lines, header, noise=noise))
    return noise._known


def test_a_server_that_fails_costs_no_scan(server: Any) -> None:
    (image,) = images(changed(SCAN, noise_from="broken"), Dependencies(server.store))
    assert "is not used: the storage server" in comment(image)
    server.blobs.append(({"subject": "66015401", "measurement": NOISE_ID, "name": "noise_covariance"}, b"nonsense"))
    server.blobs[-1][0].update(device="45387", session="66015410")
    (image,) = images(DEPENDENT, Dependencies(server.store))
    assert "a noise covariance of 8 bytes is none" in comment(image)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "localhost:9112", "http://127.0.0.1:1"])
def test_addresses_that_are_no_server(address: str) -> None:
    for ask in (lambda store: store.get(Key("n")), lambda store: store.put(Key("n"), b"")):
        with pytest.raises(InputError, match="the storage server"):
            ask(Server(address))


@pytest.mark.parametrize("store", [Server("http://127.0.0.1:1"), None])
def test_noise_that_cannot_be_kept_is_a_failure(store: Any) -> None:
    header, lines = make_noise_scan(SCAN)
    with pytest.raises(InputError, match="measures noise only, which is not kept"):
        list(reconstructed(chain(), lines, header, noise=Dependencies(store)))


def test_a_noise_scan_that_is_kept_counts_as_a_scan_that_ended_well(store: Any) -> None:
    """Many scanners send one before each scan: counted as failures, they would hide those that are."""
    before = TOTALS.begun, TOTALS.ended, TOTALS.failed
    measure_noise(store)
    assert (TOTALS.begun, TOTALS.ended, TOTALS.failed) == (before[0] + 1, before[1] + 1, before[2])


def test_a_scan_with_images_keeps_nothing(server: Any) -> None:
    noise = Dependencies(server.store)
    assert len(images(SCAN, noise)) == 1
    assert not noise.kept
    assert not server.blobs


def test_where_hosts_keep_noise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GADGETRON_STORAGE_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_store() == Folder(tmp_path / "gadgetron-networks" / "noise")
    assert store_of(None) is None
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # a user without a home
    assert default_store() is None
    monkeypatch.setenv("GADGETRON_STORAGE_ADDRESS", "http://localhost:9112")
    assert default_store() == store_of(None) == Server("http://localhost:9112")
    assert store_of(tmp_path) == Folder(tmp_path)


def test_replay_keeps_and_finds_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scan(tmp_path / "noise.h5", *make_noise_scan(SCAN))
    for name, settings in (("own", SCAN), ("other", DEPENDENT), ("given", changed(SCAN, noise_from="elsewhere"))):
        write_scan(tmp_path / f"{name}.h5", *make_scan(settings)[:2])
    common = ["-c", "cgsense", "-q", "--set", "coils.method=unitary", "--noise-folder", str(tmp_path / "noise")]
    assert main(["replay", str(tmp_path / "noise.h5"), "-o", str(tmp_path / "none.h5"), *common]) == 0
    assert NOISE_ID in capsys.readouterr().err
    assert not (tmp_path / "none.h5").exists()
    more = {"given": ["--noise", str(tmp_path / "noise.h5")]}
    pixels = []
    for name in ("own", "other", "given"):
        out = tmp_path / f"{name}_images.h5"
        assert main(["replay", str(tmp_path / f"{name}.h5"), "-o", str(out), *common, *more.get(name, [])]) == 0
        ((_, series),) = read_images(out)
        pixels.append(series)
    np.testing.assert_array_equal(pixels[0], pixels[1])
    np.testing.assert_array_equal(pixels[0], pixels[2])


def test_noise_from_files(tmp_path: Path) -> None:
    kept = noise_in_settings(SCAN)
    (tmp_path / "blob").write_bytes(encoded(kept))
    write_scan(tmp_path / "scan.h5", *make_scan(SCAN)[:2])
    for name in ("blob", "scan.h5"):
        found = noise_in(tmp_path / name)
        np.testing.assert_array_equal(found.noise.covariance, kept.noise.covariance)
    write_scan(tmp_path / "without.h5", *make_scan(DEPENDENT)[:2])
    with pytest.raises(InputError, match=r"without\.h5: has no noise measurement"):
        noise_in(tmp_path / "without.h5")
    with pytest.raises(InputError, match=r"absent\.h5"):
        noise_in(tmp_path / "absent.h5")


def test_the_resident_server_keeps_noise_and_answers_dependency_queries(tmp_path: Path) -> None:
    rules = Rules(noise=Folder(tmp_path))
    assert served(rules, *make_noise_scan(SCAN)) == []
    question = DependencyQuery(ismrmrd.Meta().serialize().encode())
    header, lines, _ = make_scan(DEPENDENT)
    answer, image = served(rules, header, [question, *lines])
    meta = ismrmrd.Meta.deserialize(answer.meta)
    assert (meta["status"], meta["channels"], meta["noise_dwell_time_us"]) == ("success", "4", "5")
    assert 0 < float(meta["min_sigma"]) <= float(meta["mean_sigma"]) <= float(meta["max_sigma"])
    assert "not prewhitened" not in comment(image)
    header, lines, _ = make_scan(changed(DEPENDENT, noise_from="1_2_3_4"))
    answer, image = served(rules, header, [question, *lines])
    assert ismrmrd.Meta.deserialize(answer.meta)["status"] == "failed"
    assert "not prewhitened" in comment(image)


NOISE_SUMMARY = """<?xml version="1.0" encoding="UTF-8"?>
<gadgetronStreamConfiguration xmlns="http://gadgetron.sf.net/gadgetron">
    <writer><slot>1019</slot><dll>gadgetron_mricore</dll><classname>DependencyQueryWriter</classname></writer>
    <gadget>
        <name>NoiseSummary</name><dll>gadgetron_mricore</dll><classname>NoiseSummaryGadget</classname>
        <property><name>noise_file</name><value>GadgetronNoiseCovarianceMatrix_{}</value></property>
    </gadget>
</gadgetronStreamConfiguration>"""


@pytest.mark.parametrize(("measurement", "status"), [(NOISE_ID, "success"), ("1_2_3_4", "failed"), ("", "failed")])
def test_a_client_asks_for_noise_before_its_scan(tmp_path: Path, measurement: str, status: str) -> None:
    """gadgetron_ismrmrd_client 4.7.2 knows no text here: it would abort, and the scan would be lost."""
    rules = Rules(noise=Folder(tmp_path))
    assert served(rules, *make_noise_scan(SCAN)) == []
    (answer,) = told(rules, [ConfigText(NOISE_SUMMARY.format(measurement).encode()), Close()])
    meta = ismrmrd.Meta.deserialize(answer.meta)
    assert (meta["status"], meta.get("channels")) == (status, "4" if status == "success" else None)


def test_a_store_that_fails_has_no_noise_to_tell(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"a file, not a folder")
    answer = noise_summary(Folder(tmp_path / "noise"), NOISE_ID)
    assert ismrmrd.Meta.deserialize(answer.meta)["status"] == "failed"


@pytest.mark.parametrize("text", [b"<configuration>", b"<configuration><gadget/></configuration>", b"\xff"])
def test_other_configurations_ask_for_no_noise(text: bytes) -> None:
    assert asked_noise(text) is None


def served(rules: Rules, header: bytes, items: Any) -> list[Any]:
    """The items that a client gets for a scan."""
    return told(rules, [ConfigFile("cgsense.xml"), Header(header), *items, Close()])


def told(rules: Rules, messages: list[Any]) -> list[Any]:
    """The items that a client gets for these messages."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=conversation.handle, args=(theirs, rules))
    thread.start()
    with ours:
        ours.settimeout(60)
        peer = Peer.on(ours, State.ITEMS)
        ours.sendall(blob(messages))
        received = list(peer.items())
        peer.close()
    thread.join(60)
    assert not thread.is_alive()
    return received
