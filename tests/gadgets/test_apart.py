"""Outputs of one run that would be one file, or one of its inputs, are refused before any work."""

from pathlib import Path

import pytest

from gadgets.__main__ import main
from mrnets.__main__ import main as mrnets
from mrnets.errors import counted
from mrnets.mrd.files import write_scan
from tests.gadgets import toys
from tests.gadgets.toys import chain, stage

CLASHES = {
    "-o x.nii --nifti x.nii": "x.nii would be written for -o and for --nifti; name two places",
    "-o x.json --nifti x.nii.gz": "x.json would be written for -o and for --nifti",
    "-o sub/../x.nii --nifti x.nii": "x.nii would be written for -o and for --nifti",
    "-o x.cfl --cfl x": "x.cfl would be written for -o and for --cfl",
    "-o x.hdr --cfl x": "x.hdr would be written for -o and for --cfl",
    "-o x.html --report x.html": "x.html would be written for -o and for --report",
    "-o x --png x": "x would be written for -o and for --png",
    "-o x --dicom x": "x would be written for -o and for --dicom",
    "--dicom x --png x": "x would be written for --dicom and for --png",
    "--dicom x --png x/png": "x/png would lie in x, which is for the files of --dicom alone; name another place",
    "--dicom x --nifti x/a.nii": "x/a.nii would lie in x, which is for the files of --dicom alone",
    "-o scan.h5": "scan.h5 is the scan itself; name another file for -o",
    "-o link.h5": "link.h5 is the scan itself",
    "-o toy.xml": "toy.xml is the chain itself",
    "-o noise.h5 --noise noise.h5": "noise.h5 is the scan of --noise itself",
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with scans and a chain, and we are in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("scan.h5", "noise.h5"):
        write_scan(name, toys.HEADER, toys.scan())
    Path("link.h5").symlink_to("scan.h5")
    Path("sub").mkdir()
    Path("toy.xml").write_text(chain(stage("noise"), stage("toy")))
    return tmp_path


def there(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("options", CLASHES)
def test_replay_refuses_before_it_begins(place, capsys, options):
    before = there(place)
    assert main(["replay", "scan.h5", "-c", "toy.xml", *options.split()]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert CLASHES[options] in line
    assert there(place) == before


def test_a_folder_of_scans_is_asked_for_each_scan(place, capsys):
    given = ["scan.h5", "noise.h5", "-c", "toy.xml", "-o", "out", "--dicom", "x", "--png", "x"]
    assert main(["replay", *given]) == 1
    assert "would be written for --dicom and for --png; name two places" in capsys.readouterr().err
    assert not Path("out/scan.h5").exists()


def test_the_weights_of_a_chain_are_not_replaced(place, capsys):
    Path("mine.safetensors").write_bytes(b"mine")
    given = ["scan.h5", "-c", "network", "--set", "network.weights=mine.safetensors", "-o", "mine.safetensors"]
    assert main(["replay", *given]) == 1
    assert "mine.safetensors is the weights file itself" in capsys.readouterr().err
    assert Path("mine.safetensors").read_bytes() == b"mine"


def test_places_that_are_near_each_other_are_taken(place):
    given = ["scan.h5", "-c", "toy.xml", "-q", "-o", "x.h5", "--png", "x"]
    assert main(["replay", *given]) == 0
    assert {path.name for path in place.glob("x*")} == {"x", "x.h5"}


def test_export_refuses(place, capsys):
    assert main(["replay", "scan.h5", "-c", "toy.xml", "-q", "-o", "images.nii"]) == 0
    before = there(place)
    assert main(["export", "images.nii", "--nifti", "images.nii"]) == 1
    assert "images.nii is the image file itself; name another file for --nifti" in capsys.readouterr().err
    assert there(place) == before


def test_pipe_simulate_and_an_import_refuse(place, capsys):
    before = there(place)
    assert main(["pipe", "-c", "toy.xml", "-i", "scan.h5", "-o", "scan.h5"]) == 1
    assert "scan.h5 is the stream that is read itself" in capsys.readouterr().err
    assert main(["simulate", "-o", "a.h5", "--noise", "a.h5"]) == 1
    assert "a.h5 would be written for -o and for --noise; name two places" in capsys.readouterr().err
    assert mrnets(["import-atommic", "scan.h5", "-o", "scan.h5"]) == 1
    assert "scan.h5 is the checkpoint itself" in capsys.readouterr().err
    assert there(place) == before


def test_of_several_chains_each_has_places_of_its_own(place, capsys):
    Path("other.xml").write_text(Path("toy.xml").read_text())
    given = ["scan.h5", "-c", "toy.xml", "-c", "other.xml", "-q", "--png", "x"]
    assert main(["replay", *given, "-o", "x.h5"]) == 0
    assert main(["replay", *given, "--cfl", "x", "-o", "x.cfl"]) == 1
    assert "x_toy.cfl would be written for -o and for --cfl" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["-o", "x.h5"], ["noise.h5", "-o", "out"]])
def test_anonymous_without_a_format_is_refused_since_the_image_file_has_names(place, capsys, more):
    assert main(["replay", "scan.h5", *more, "-c", "toy.xml", "--anonymous"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "--anonymous is for the files of --dicom and other formats, and none is asked for" in line
    assert not Path("x.h5").exists()


def test_anonymous_says_that_the_image_file_keeps_the_names(place, capsys):
    given = ["replay", "scan.h5", "-c", "toy.xml", "--anonymous", "--png", "x"]
    assert main(given) == 0
    assert "out.h5: keeps patient, study and device; --anonymous is for the other formats" in capsys.readouterr().err
    assert main([*given, "-q"]) == 0
    assert capsys.readouterr().err == ""


def test_export_asks_for_a_format_first(place, capsys):
    assert main(["export", "scan.h5", "--anonymous"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "gadgets export: Nothing was asked for; give one or more of: --dicom, --nifti, --png, --cfl."
    ]


@pytest.mark.parametrize(
    ("count", "thing", "text"),
    [(1, "echo", "1 echo"), (2, "echo", "2 echoes"), (0, "line", "0 lines"), (2, "class", "2 classes")],
)
def test_things_are_counted_in_words(count, thing, text):
    assert counted(count, thing) == text
