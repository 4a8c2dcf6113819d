"""The page of `replay --report`: what it shows, that nothing hostile comes to life in it, and that it costs no scan."""

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from gadgets.__main__ import main
from gadgets.export.contents import read_contents
from gadgets.imagefiles import read_images
from gadgets.report import looks, page, pictures
from gadgets.report.compared import MAX_PICTURES, MAX_TABLES, tables
from gadgets.report.page import Scan, write_report
from gadgets.report.runs import Run
from gadgets.simulate import Settings, make_scan
from mrnets.mrd.files import write_scan
from tests.gadgets.export.images import image, written

HOSTILE = '<script>document.title = "owned"</script><img src=x onerror="document.title = 1">'
SMALL = Settings(coils=4, matrix=32, fov=200.0, acceleration=2.0, calibration=8, seed=5, slices=2)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Elements(HTMLParser):
    """All elements of a page, and its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def scan(path: Path) -> None:
    """Write a scan whose header names a patient and is hostile."""
    header, items, _ = make_scan(SMALL)
    text = header.decode() if isinstance(header, bytes) else header
    escaped = HOSTILE.replace("&", "&amp;").replace("<", "&lt;")
    text, count = re.subn(r"(<protocolName>)[^<]*", rf"\g<1>{escaped}", text)
    assert count == 1
    patient = "<subjectInformation><patientName>Ada^Lovelace</patientName></subjectInformation>"
    text = re.sub(r"(<ismrmrdHeader[^>]*>)", rf"\1{patient}", text)
    write_scan(path, text, items)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a scan and the report on two chains."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        scan(folder / "scan.h5")
        asked = ["replay", "scan.h5", "-c", "zerofilled", "-c", "cgsense", "--report", "report.html", "-q"]
        assert main(asked) == 0
    return folder


@pytest.fixture(scope="module")
def text(place):
    return (place / "report.html").read_text()


def test_the_page_needs_nothing_from_outside(text):
    elements = Elements(text)
    for name in ("src", "href"):
        values = [attributes[name] for _, attributes in elements.found if name in attributes]
        assert values
        assert all(value.startswith(("data:image/png;base64,", "#")) for value in values)
    assert not elements.named("link")
    assert not re.search(r"@import|url\((?!#window-)", text)
    (policy,) = [one["content"] for one in elements.named("meta") if one.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_what_a_header_says_is_text_and_nothing_else(text):
    elements = Elements(text)
    assert HOSTILE[:50] in elements.text
    assert len(elements.named("script")) == 1
    assert not [attributes for _, attributes in elements.found if any(name.startswith("on") for name in attributes)]


def test_the_page_shows_images_sampling_coils_noise_time_and_versions(text):
    elements = Elements(text)
    alternatives = [one["alt"] for one in elements.named("img")]
    for chain in ("zerofilled", "cgsense"):
        assert [f"{chain}, slice {n} of 2" in alternatives for n in (1, 2)] == [True, True]
    assert "difference of cgsense, slice 1 of 2" in alternatives
    assert "difference of zerofilled, slice 1 of 2" not in alternatives
    for title in (
        *("Sampling mask", "Noise covariance", "Coils", "Coil sensitivities, magnitude", "Coil sensitivities, phase"),
        "Noise amplification (g-factor)",
    ):
        assert title in alternatives
    for word in (
        *("NOT FOR CLINICAL USE", "reading", "network", "Image by cgsense", "noise, sort, coils", "numpy", "matrix"),
        "python -m gadgets replay scan.h5 -c zerofilled -c cgsense --report report.html -q",
    ):
        assert word in elements.text


def test_the_patient_is_named_only_if_that_is_asked_for(place, text, monkeypatch):
    assert "Lovelace" not in text
    monkeypatch.chdir(place)
    asked = ["--report", "named.html", "--report-patient", "-q"]
    assert main(["replay", "scan.h5", "-c", "zerofilled", "-o", "other.h5", *asked]) == 0
    assert "Ada^Lovelace" in (place / "named.html").read_text()


def test_each_of_several_chains_has_an_image_file(place):
    for chain in ("zerofilled", "cgsense"):
        ((_, pixels),) = read_images(place / f"out_{chain}.h5")
        assert len(pixels) == 2


def test_formats_of_several_chains_are_apart(place, monkeypatch):
    monkeypatch.chdir(place)
    asked = ["--nifti", "n.nii.gz", "--png", "p", "--cfl", "bart"]
    assert main(["replay", "scan.h5", "-c", "zerofilled", "-c", "cgsense", "-q", *asked]) == 0
    for chain in ("zerofilled", "cgsense"):
        assert Path(f"n_{chain}.nii.gz").exists()
        assert Path(f"p/{chain}/image_1_montage.png").exists()
        assert Path(f"bart_{chain}.hdr").exists()


def test_a_chain_that_is_given_twice_is_refused(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert main(["replay", "scan.h5", "-c", "zerofilled", "-c", "zerofilled.xml"]) == 1
    assert "is given twice" in capsys.readouterr().err


def test_without_a_report_nothing_looks_on(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(looks.Recorder, "watch", lambda self, name, items: pytest.fail("it was watched"))
    assert main(["replay", "scan.h5", "-c", "zerofilled", "-o", "plain.h5", "-q"]) == 0
    assert (place / "plain.h5").exists()


def test_a_look_that_fails_costs_no_image(place, monkeypatch, caplog):
    def failing(*_):
        raise RuntimeError("no memory left")

    monkeypatch.chdir(place)
    monkeypatch.setattr(looks, "ifftc", failing)
    assert main(["replay", "scan.h5", "-c", "zerofilled", "-o", "poor.h5", "--report", "poor.html", "-q"]) == 0
    assert "the report lacks what sort made: no memory left" in caplog.text
    ((_, pixels),) = read_images("poor.h5")
    assert len(pixels) == 2
    assert "Sampling mask" not in Path("poor.html").read_text()


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_done(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert main(["replay", "scan.h5", "-o", "never.h5", "--report", "nowhere/report.html"]) == 1
    assert "there is no folder" in capsys.readouterr().err
    before = Path("scan.h5").read_bytes()
    assert main(["replay", "scan.h5", "-o", "never.h5", "--report", "scan.h5"]) == 1
    assert "one that ends with .html was expected" in capsys.readouterr().err
    assert Path("scan.h5").read_bytes() == before
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    assert main(["replay", "scan.h5", "-o", "never.h5", "--report", "report2.html"]) == 1
    assert "pip install 'gadgetron-networks[report]'" in capsys.readouterr().err
    assert not Path("never.h5").exists()


def test_a_large_series_is_shown_in_part_and_the_page_says_so(tmp_path, rng):
    pixels = rng.random((400, 400)).astype(np.float32)
    images = [image(pixels * (n + 1), z=5.0 * n) for n in range(MAX_PICTURES + 40)]
    contents = read_contents(written(tmp_path / "i.h5", images))
    write_report(tmp_path / "large.html", [Run("one", contents)], Scan("large"))
    text = (tmp_path / "large.html").read_text()
    assert f"{MAX_PICTURES} planes of {MAX_PICTURES + 40} are shown" in text
    assert text.count("<img data-zoom") == MAX_PICTURES
    assert len(text) < MAX_PICTURES * pictures.MAX_SIDE**2 * 4 / 3


def test_a_file_of_many_series_is_shown_in_part_and_the_page_says_so(tmp_path, rng):
    pixels = rng.random((6, 8)).astype(np.float32)
    images = [image(pixels, series=n) for n in range(1, MAX_TABLES + 9)]
    contents = read_contents(written(tmp_path / "i.h5", images))
    write_report(tmp_path / "many.html", [Run("one", contents)], Scan("many"))
    text = (tmp_path / "many.html").read_text()
    assert text.count("<img data-zoom") == MAX_TABLES
    assert f"At most {MAX_TABLES} series are shown" in text


def pixels_of(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_pictures_have_the_values_of_the_images(tmp_path):
    ramp = np.arange(48, dtype=np.float32).reshape(6, 8)
    contents = read_contents(written(tmp_path / "i.h5", [image(ramp), image(2 * ramp, z=5.0)]))
    (table,) = tables([Run("one", contents)])
    white = table.grey[1]
    for n, (_, (cell,)) in enumerate(table.rows):
        expected = np.round(np.clip(ramp * (n + 1) / white, 0, 1) * 255)
        np.testing.assert_array_equal(pixels_of(cell.picture)[..., 0], expected)


def test_differences_do_not_depend_on_the_unit_of_a_chain(tmp_path):
    ramp = 1 + np.arange(48, dtype=np.float32).reshape(6, 8)
    spot = ramp.copy()
    spot[2, 3] += 20
    runs = [
        Run(name, read_contents(written(tmp_path / f"{name}.h5", [image(pixels)])))
        for name, pixels in (("first", ramp), ("same", 7 * ramp), ("spot", spot))
    ]
    (table,) = tables(runs)
    ((_, (first, same, other)),) = table.rows
    assert first.difference == ""
    dark = pixels_of(same.difference)
    assert (dark == dark[0, 0]).all()
    brightness = pixels_of(other.difference).sum(axis=-1)
    assert np.unravel_index(brightness.argmax(), brightness.shape) == (2, 3)


def test_labels_and_fallbacks_are_marked(tmp_path):
    labels = np.arange(48, dtype=np.uint16).reshape(6, 8) % 3
    meta = {
        "GADGETRON_DataRole": "Segmentation",
        "Labels": ["0 background", "1 <b>grey</b>", "2 white"],
        "ImageComments": "FALLBACK to cgsense",
        "GADGETRON_ImageComment": ["Segmentation by x", "FALLBACK to cgsense"],
    }
    contents = read_contents(written(tmp_path / "i.h5", [image(labels, meta)]))
    write_report(tmp_path / "r.html", [Run("one", contents)], Scan("labels"))
    elements = Elements((tmp_path / "r.html").read_text())
    assert "<b>grey</b>" in elements.text
    assert not elements.named("b")
    assert "FALLBACK to cgsense" in elements.text
    (table,) = tables([Run("one", contents)])
    ((_, (cell,)),) = table.rows
    found = pixels_of(cell.picture)
    assert {f"rgb{tuple(map(int, found[labels == n][0]))}" for n in range(3)} == {colour for colour, _ in table.legend}
    assert cell.fallback


def test_the_covariance_of_the_page_is_that_of_the_noise_lines(place):
    from gadgets.hosts.replay import replay

    recorder = looks.Recorder()
    replay(place / "scan.h5", place / "again.h5", "zerofilled", watch=recorder.watch)
    covariance = recorder.covariance()
    assert covariance.shape == (4, 4)
    np.testing.assert_allclose(covariance, covariance.conj().T, atol=1e-6 * np.abs(covariance).max())
    look = recorder.chosen(lambda look: look.sens is not None)
    assert look.sens.shape == (4, 32, 32)
    assert look.mask.shape == (32, 32)
    assert list(recorder.looks) == ["sort", "coils", "network"]


def test_virtual_coils_are_shown_beside_the_coils(place, monkeypatch):
    monkeypatch.chdir(place)
    asked = ["--set", "compress.coils=2", "--report", "virtual.html", "-q"]
    assert main(["replay", "scan.h5", "-c", "cgsense", "-o", "virtual.h5", *asked]) == 0
    text = Path("virtual.html").read_text(encoding="utf-8")
    assert "slice 1, 4 coils" in text or "slice 2, 4 coils" in text
    assert re.search(r"Virtual coils \(gdcc\)", text)
    assert re.search(r"2 coils; the first holds \d+ % of the energy", text)


@pytest.mark.parametrize("lines", [True, False])
def test_the_noise_map_is_one_where_everything_was_sampled(lines, rng):
    sens = np.full((4, 20, 24), 0.5, np.complex64)
    mask = np.ones((20, 24), bool)
    if not lines:
        mask[0, 0] = False
    found, _ = page._g_factor(sens, mask)
    assert np.abs(np.median(found) - 1) < 0.1


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.slow
def test_a_browser_shows_the_page_and_runs_no_foreign_script(place, tmp_path):
    common = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    address = (place / "report.html").as_uri()
    dump = subprocess.run([*common, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True)
    elements = Elements(dump.stdout)
    assert elements.named("html")[0]["data-ready"] == "yes"
    assert re.search(r"<title>scan\.h5</title>", dump.stdout)
    assert re.search(r"<output>0\.00 to [0-9.e+-]+</output>", dump.stdout)
    assert {one["slope"] for one in elements.named("fefuncr")} == {"1"}
    picture = tmp_path / "page.png"
    asked = [f"--screenshot={picture}", "--window-size=1200,1600", address]
    subprocess.run([*common, *asked], capture_output=True, timeout=120, check=True)
    shown = np.asarray(Image.open(picture).convert("L"))
    assert shown.std() > 10
