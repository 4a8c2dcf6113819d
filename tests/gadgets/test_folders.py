"""Folders of scans: what is found, what is skipped, what is told, and processes that die."""

import json
import os
import shutil
from dataclasses import replace as changed
from pathlib import Path

import numpy as np
import pytest

from gadgets.__main__ import main
from gadgets.hosts.folders import processes
from gadgets.hosts.folders.scans import find, noise_first
from gadgets.hosts.folders.task import Outcome
from gadgets.hosts.folders.told import duration, progress, summary
from gadgets.imagefiles import read_images
from gadgets.simulate import make_noise_scan, make_scan
from mrnets.errors import InputError
from mrnets.mrd.files import write_scan
from tests.gadgets import toys
from tests.gadgets.folder_work import SMALL
from tests.gadgets.toys import chain, stage

NOISE_ID = "45387_66015401_66015410_1"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with three scans in folders, chains, and we are in it. Scans are replayed in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "performed", lambda tasks, work, count: map(work, tasks))
    for path in ("scans/a.h5", "scans/b.h5", "scans/more/a.h5"):
        Path(path).parent.mkdir(exist_ok=True, parents=True)
        write_scan(path, toys.HEADER, toys.scan())
    Path("toy.xml").write_text(chain(stage("noise"), stage("toy")))
    Path("lacking.xml").write_text(chain(stage("noise"), stage("lacking")))
    return tmp_path


def replayed(*words: str, chain: str = "toy.xml", status: int = 0) -> None:
    assert main(["replay", "scans", "-o", "images", "-c", chain, "--noise-folder", "noise", *words]) == status


def numbers() -> dict[str, tuple[int, int]]:
    """The number and time of each image file: another one where it was written again."""
    paths = sorted(Path("images").glob("*.h5"))
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def last_lines(capsys, count: int) -> list[str]:
    return capsys.readouterr().err.splitlines()[-count:]


def test_a_report_may_lie_in_the_folder_that_is_made_for_the_images(place, capsys):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    replayed("--report", "images/page.html")
    assert [path.name for path in sorted(Path("images").glob("*.html"))] == [
        "page_a.html",
        "page_b.html",
        "page_more_a.html",
    ]
    replayed("--report", "nowhere/page.html", status=1)
    assert "there is no folder" in capsys.readouterr().err


class TestFinding:
    def test_names_are_paths_below_the_folder(self, place):
        Path("scans/.hidden.h5").touch()
        Path("scans/.hidden").mkdir()
        Path("scans/.hidden/c.h5").touch()
        Path("scans/notes.txt").touch()
        Path("single.mrd").touch()
        found = find(["scans", "single.mrd", "scans/b.h5"], Path("images"))
        assert [(one.name, str(one.path)) for one in found] == [
            ("a", "scans/a.h5"),
            ("b", "scans/b.h5"),
            ("more_a", "scans/more/a.h5"),
            ("single", "single.mrd"),
        ]

    def test_images_in_the_folder_of_the_scans_are_no_scans(self, place):
        assert main(["replay", "scans", "-o", "scans/images", "-c", "toy.xml", "-q"]) == 0
        assert [one.name for one in find(["scans"], Path("scans/images"))] == ["a", "b", "more_a"]

    def test_all_that_is_wrong_is_told(self, place):
        Path("empty").mkdir()
        Path("more_a.h5").touch()
        with pytest.raises(InputError) as error:
            find(["none.h5", "empty", "scans", "more_a.h5"], Path("images"))
        for part in ("none.h5: there is no such", "empty: there are no scans", "would both become more_a"):
            assert part in str(error.value)

    def test_scans_whose_noise_others_need_come_first(self, tmp_path):
        header, lines = make_noise_scan(SMALL)
        write_scan(tmp_path / "z.h5", header, lines)
        header, lines, _ = make_scan(changed(SMALL, noise_from=NOISE_ID))
        write_scan(tmp_path / "a.h5", header, lines)
        (tmp_path / "b.h5").touch()
        first, rest = noise_first(find([str(tmp_path)], tmp_path / "images"), "dataset")
        assert [one.name for one in first] == ["z"]
        assert [one.name for one in rest] == ["a", "b"]


class TestSkipping:
    def test_images_are_those_of_single_runs(self, place):
        replayed("-q")
        for name, scan in (("a", "scans/a.h5"), ("more_a", "scans/more/a.h5")):
            assert main(["replay", scan, "-c", "toy.xml", "-q", "-o", "one.h5"]) == 0
            assert Path("one.h5").read_bytes() == Path(f"images/{name}.h5").read_bytes()

    def test_what_is_done_is_skipped(self, place, capsys):
        replayed()
        before = numbers()
        assert last_lines(capsys, 1) == ["3 scans: 3 done"]
        os.utime("scans/a.h5")  # another time, the same content
        replayed()
        assert last_lines(capsys, 1) == ["3 scans: 3 done before"]
        assert numbers() == before

    def test_other_settings_are_replayed_again(self, place):
        replayed("-q")
        (_, once), *_ = read_images("images/a.h5")
        replayed("-q", "--set", "toy.scale=3")
        (_, thrice), *_ = read_images("images/a.h5")
        np.testing.assert_array_equal(3 * once, thrice)

    @pytest.mark.parametrize("damage", ["cut", "gone", "another scan", "unfinished", "record damaged"])
    def test_only_what_is_not_whole_or_of_another_scan_is_replayed_again(self, place, capsys, damage):
        replayed("-q")
        before, sound = numbers(), Path("images/b.h5").read_bytes()
        record = Path("images/.replay/b.json")
        if damage == "cut":
            Path("images/b.h5").write_bytes(sound[:-100])
        elif damage == "gone":
            Path("images/b.h5").unlink()
        elif damage == "another scan":
            write_scan("scans/b.h5", toys.HEADER, toys.scan()[:-1])
        elif damage == "unfinished":
            record.write_text(json.dumps({**json.loads(record.read_text()), "images": {}}))
        else:
            record.write_text('{"scan": 3')
        capsys.readouterr()
        replayed()
        assert last_lines(capsys, 1) == ["3 scans: 1 done, 2 done before"]
        assert [name for name, number in numbers().items() if before[name] != number] == ["b.h5"]
        assert (Path("images/b.h5").read_bytes() == sound) == (damage != "another scan")

    def test_noise_that_has_become_known_counts(self, place):
        dependent = changed(SMALL, noise_from=NOISE_ID)
        header, lines, _ = make_scan(dependent)
        for path in Path("scans").rglob("*.h5"):
            path.unlink()
        write_scan("scans/a.h5", header, lines)
        Path("plain.xml").write_text(chain(stage("noise"), stage("toy")))
        replayed("-q", chain="plain.xml")
        before = numbers()
        replayed("-q", chain="plain.xml")
        assert numbers() == before
        header, lines = make_noise_scan(SMALL)
        write_scan("scans/noise.h5", header, lines)
        replayed("-q", chain="plain.xml")
        assert numbers().keys() == before.keys()
        assert numbers() != before

    def test_a_file_of_somebody_else_stays(self, place, capsys):
        Path("images").mkdir()
        Path("images/a.h5").write_text("precious")
        replayed(status=1)
        assert Path("images/a.h5").read_text() == "precious"
        assert "no replay of a folder has made it" in last_lines(capsys, 1)[0]

    def test_formats_that_are_asked_for_later_leave_the_images(self, place):
        pytest.importorskip("PIL")
        replayed("-q")
        before = numbers()
        replayed("-q", "--png", "pictures")
        assert numbers() == before
        written = {path: path.stat().st_mtime_ns for path in Path("pictures").rglob("*.png")}
        assert {path.parent.name for path in written} == {"a", "b", "more_a"}
        replayed("-q", "--png", "pictures")
        assert {path: path.stat().st_mtime_ns for path in Path("pictures").rglob("*.png")} == written

    @pytest.mark.parametrize(
        ("form", "of_b"),
        [("--png=out", "out/b"), ("--nifti=out/x.nii.gz", "out/x_b.nii.gz"), ("--cfl=out/x", "out/x_b.cfl")],
    )
    def test_a_format_that_was_removed_is_written_again(self, place, form, of_b):
        """Names of scans begin alike, and have what is a pattern elsewhere."""
        for module in ("PIL", "nibabel"):
            pytest.importorskip(module)
        shutil.rmtree("scans/more")
        header, lines, _ = make_scan(SMALL)
        write_scan("scans/a.h5", header, lines)
        for name in ("b", "b2", "[b]", "b.1"):
            shutil.copy("scans/a.h5", f"scans/{name}.h5")
        replayed("-q", form, chain="zerofilled")
        written = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*") if path.is_file()}
        replayed("-q", form, chain="zerofilled")
        assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*") if path.is_file()} == written
        removed = {path for path in written if path.is_relative_to(of_b)}
        for path in removed:
            path.unlink()
        replayed("-q", form, chain="zerofilled")
        assert removed
        assert all(path.is_file() for path in written)

    def test_several_chains_have_an_image_file_each(self, place):
        Path("other.xml").write_text(chain(stage("toy")))
        replayed("-q", "-c", "other.xml")
        names = {f"{scan}_{one}.h5" for scan in ("a", "b", "more_a") for one in ("toy", "other")}
        assert numbers().keys() == names


class TestTelling:
    def test_failures_are_a_table_and_status_1(self, place, capsys):
        whole = Path("scans/b.h5").read_bytes()
        Path("scans/b.h5").write_bytes(whole[:-2000])
        replayed(status=1)
        counts, title, row = last_lines(capsys, 3)
        assert counts == "3 scans: 2 done, 1 failed"
        assert title == "failures:"
        assert row.startswith("  scans/b.h5  cannot be read; it is cut short")
        Path("scans/b.h5").write_bytes(whole)
        replayed("-q")
        assert capsys.readouterr().err == ""

    def test_images_of_an_earlier_run_are_told_beside_a_failure(self, place, capsys):
        replayed("-q")
        Path("scans/b.h5").write_bytes(Path("scans/b.h5").read_bytes()[:-2000])
        replayed(status=1)
        (row,) = last_lines(capsys, 1)
        assert row.endswith("(images/b.h5: of an earlier run)")
        assert Path("images/b.h5").exists()

    def test_a_scan_that_lacks_something_fails_each_time_and_is_replayed_once(self, place, capsys):
        replayed(chain="lacking.xml", status=1)
        before = numbers()
        assert len(before) == 3
        capsys.readouterr()
        replayed(chain="lacking.xml", status=1)
        assert numbers() == before
        assert last_lines(capsys, 1) == ["  scans/more/a.h5  lacking: a slice is missing"]

    def test_warnings_are_told_once(self, place, capsys):
        Path("scans/b.h5").unlink()
        for name in ("c", "d"):
            write_scan(f"scans/{name}.h5", toys.HEADER.replace(b"<z>5</z>", b"<z>five</z>"), toys.scan())
        replayed()
        lines = capsys.readouterr().err.splitlines()
        at = lines.index("warnings:")
        assert all(line.startswith("  2 scans  ") for line in lines[at + 1 :])
        assert "five" in lines[at + 1]

    def test_the_time_that_is_left(self):
        outcomes = [Outcome("a", "before", seconds=0.1), Outcome("b", "failed", "why", seconds=59)]
        assert progress(outcomes, 4, 60.0) == "2 of 4, 1 failed, about 2 min 0 s left: b failed, 59.0 s"
        assert progress(outcomes[:1], 1, 60.0) == "1 of 1: a done before, 0.1 s"
        assert [duration(t) for t in (3.6, 61, 3600 * 5 + 120)] == ["4 s", "1 min 1 s", "5 h 2 min"]

    def test_too_many_warnings_are_counted(self):
        outcomes = [Outcome(f"s{n}", "done", warnings=(f"w{n}",)) for n in range(25)]
        lines = list(summary(outcomes, {}))
        assert len(lines) == 2 + 20 + 1
        assert "and 5 others" in lines[-1]

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["scans"], "Name a folder for the images of several scans"),
            (["scans", "-o", "toy.xml"], "toy.xml is a file"),
            (["scans", "-o", "images", "--profile"], "--profile is for one scan"),
            (["scans", "-o", "images", "--jobs", "0"], "--jobs must be at least 1"),
            (["scans", "-o", "images", "--jobs", "2", "--scheduler", "x"], "give one of them"),
            (["scans", "-o", "images", "-c", "toy.xml", "--set", "toy.size=2"], 'no property "size"'),
            (["scans", "-o", "images", "--set", "network.weights=none.safetensors"], "none.safetensors"),
            (["scans", "-o", "scans", "-c", "toy.xml"], "it is the scan scans/a.h5"),
        ],
    )
    def test_options_that_cannot_be_are_one_sentence_before_anything_is_done(self, place, capsys, words, sentence):
        assert main(["replay", *words]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert sentence in line
        assert not list(place.rglob("images/*"))

    def test_an_existing_folder_takes_one_scan_as_several(self, place):
        Path("images").mkdir()
        assert main(["replay", "scans/a.h5", "-o", "images", "-c", "toy.xml", "-q"]) == 0
        assert list(numbers()) == ["a.h5"]
