import os
import stat
import subprocess
import sys
from pathlib import Path

import ismrmrd
import numpy as np
import pytest

from gadgets.__main__ import COMMANDS, main
from gadgets.imagefiles import read_images
from gadgets.messages import Close, Header
from mrnets import __version__
from mrnets.files import reserved
from mrnets.mrd.files import write_scan
from tests.gadgets import toys
from tests.gadgets.toys import chain, stage

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a scan and chains, and we are in it."""
    monkeypatch.chdir(tmp_path)
    write_scan("scan.h5", toys.HEADER, toys.scan())
    Path("toy.xml").write_text(chain(stage("noise"), stage("toy")))
    Path("fails.xml").write_text(chain(stage("noise"), stage("toy", fail="bug", after=2)))
    return tmp_path


def images(path="out.h5", group="dataset") -> int:
    return sum(len(series) for _, series in read_images(path, group))


def test_replay_writes_images_and_says_so(place, capsys):
    assert main(["replay", "scan.h5", "-c", "toy.xml"]) == 0
    assert images() == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("17 lines, 3 images in ")
    assert line.endswith(" s: out.h5")


def test_images_are_counted_on_a_terminal_as_they_come(place, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["replay", "scan.h5", "-c", "toy.xml"]) == 0
    seen = [line for line in capsys.readouterr().err.split("\r") if line]
    counts = [int(line.split(" image")[0].split()[-1]) for line in seen]
    assert counts == sorted(counts)
    assert seen[-2].endswith(f" lines, {counts[-1]} images")


def test_replay_takes_streams(place, capsys):
    Path("scan.mrd").write_bytes(toys.blob([Header(toys.HEADER), *toys.scan(), Close()]))
    assert main(["replay", "scan.mrd", "-c", "toy.xml"]) == 0
    assert images() == 3
    assert capsys.readouterr().err.startswith("17 lines, 3 images in ")


def test_the_flags_of_gadgetrons_client(place, capsys):
    assert (
        main(["replay", "-f", "scan.h5", "-C", "toy.xml", "-g", "/dataset", "-G", "results", "-o", "a.h5", "-q"]) == 0
    )
    assert images("a.h5", "results") == 3
    assert capsys.readouterr().err == ""


def test_properties_are_set_on_the_command_line(place):
    assert main(["replay", "scan.h5", "-c", "toy.xml", "-q"]) == 0
    assert main(["replay", "scan.h5", "-c", "toy.xml", "-q", "-o", "b.h5", "--set", "toy.scale=3"]) == 0
    for (_, once), (_, thrice) in zip(read_images("out.h5"), read_images("b.h5"), strict=True):
        np.testing.assert_array_equal(3 * once, thrice)


def test_replaying_twice_gives_the_same_file_content(place):
    for name in ("a.h5", "b.h5"):
        assert main(["replay", "scan.h5", "-c", "toy.xml", "-q", "-o", name]) == 0
    with ismrmrd.Dataset("a.h5", mode="r") as a, ismrmrd.Dataset("b.h5", mode="r") as b:
        assert a.read_image("image_0", 0) == b.read_image("image_0", 0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Name one scan"),
        (["scan.h5", "-f", "scan.h5"], "Name one scan"),
        (["nowhere.h5"], "nowhere.h5: there is no such file"),
        (["toy.xml", "-c", "toy.xml"], "toy.xml: cannot be read"),
        (["scan.h5", "-c", "nowhere"], 'There is no chain "nowhere"; there are: brats.xml, cgsense.xml, '),
        (["scan.h5", "-C", "varnet"], "There is no chain file varnet"),
        (["scan.h5", "-c", "toy.xml", "-g", "other"], 'no scan in the group "other"; groups with scans: dataset'),
        (["scan.h5", "-c", "toy.xml", "--set", "toy.size=1"], 'Gadget toy has no property "size"'),
        (["scan.h5", "-c", "toy.xml", "--set", "toy.scale"], '"gadget.property=value" was expected'),
        (["scan.h5", "-c", "toy.xml", "-o", "scan.h5"], "scan.h5 is the scan itself"),
        (["scan.h5", "-c", "toy.xml", "-o", "no/out.h5"], "there is no folder no"),
        (["scan.h5", "-c", "varnet_buffered"], "NoiseAdjustGadget"),
        (["scan.h5", "-c", "fails.xml"], "Gadget toy failed: ZeroDivisionError: toys break"),
        (["cut.h5", "-c", "toy.xml"], "cut.h5: cannot be read; it is cut short"),
        (["scan.h5", "-c", "noise.xml"], "The last gadget of chain noise.xml gives what is no image"),
        (["scan.h5", "-c", "none.xml"], "chain none.xml gave no images"),
    ],
)
def test_a_failure_is_status_1_one_sentence_and_no_image_file(place, capsys, arguments, sentence):
    Path("noise.xml").write_text(chain(stage("noise")))
    Path("none.xml").write_text(chain(stage("toy", most=0)))
    Path("cut.h5").write_bytes(Path("scan.h5").read_bytes()[:-2000])
    assert main(["replay", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gadgets replay: ")
    assert sentence in line
    assert not Path("out.h5").exists()
    assert Path("out.h5.partial").exists() == ("fails.xml" in arguments)
    assert Path("scan.h5").stat().st_size > 10_000


def test_a_failure_leaves_the_images_of_an_earlier_run(place):
    assert main(["replay", "scan.h5", "-c", "toy.xml", "-q"]) == 0
    assert main(["replay", "scan.h5", "-c", "fails.xml", "-q"]) == 1
    assert images() == 3
    assert images("out.h5.partial") == 2


def test_an_input_that_looks_like_a_temporary_file_stays(place):
    before = Path("scan.h5").rename("keep.h5.partial").read_bytes()
    assert main(["replay", "keep.h5.partial", "-c", "toy.xml", "-o", "keep.h5", "-q"]) == 0
    assert Path("keep.h5.partial").read_bytes() == before
    assert images("keep.h5") == 3
    assert main(["replay", "keep.h5.partial", "-c", "fails.xml", "-o", "keep.h5", "-q"]) == 1
    assert Path("keep.h5.partial").read_bytes() == before
    assert [images(path) for path in place.glob("keep.h5.?*.partial")] == [2]


def test_a_link_beside_the_output_is_not_written_through(place):
    Path("precious").write_text("precious")
    Path("n.h5.partial").symlink_to("precious")
    for config, status in (("toy.xml", 0), ("fails.xml", 1)):
        assert main(["replay", "scan.h5", "-c", config, "-o", "n.h5", "-q"]) == status
        assert Path("precious").read_text() == "precious"
        assert Path("n.h5.partial").is_symlink()
    assert images("n.h5") == 3


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a link"])
def test_an_output_that_is_no_regular_file_is_refused_and_stays(place, capsys, kind):
    if kind == "a device":
        try:
            os.mknod("out", stat.S_IFCHR | 0o666, os.makedev(1, 3))  # as /dev/null
        except PermissionError:
            pytest.skip("only root makes devices")
    else:
        {"a pipe": os.mkfifo, "a link": lambda out: os.symlink("toy.xml", out)}[kind]("out")
    before = os.lstat("out")
    assert main(["replay", "scan.h5", "-c", "toy.xml", "-o", "out", "-q"]) == 1
    assert f"cannot write out: it is {kind}, not a regular file" in capsys.readouterr().err
    assert (os.lstat("out").st_ino, os.lstat("out").st_mode) == (before.st_ino, before.st_mode)
    assert "<configuration>" in Path("toy.xml").read_text()


def test_the_later_of_two_replays_to_one_output_is_refused_at_its_start(place, capsys):
    with reserved("out.h5"):
        assert main(["replay", "scan.h5", "-c", "fails.xml", "-q"]) == 1
        assert "out.h5 is being written by another run" in capsys.readouterr().err
    assert not list(place.glob("*out.h5*"))
    assert main(["replay", "scan.h5", "-c", "toy.xml", "-q"]) == 0
    assert images() == 3


def test_a_full_disk_is_one_sentence(place):
    """The limit of a file's size stands for the end of a disk."""
    program = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000));"
    program += "import tests.gadgets.toys; from gadgets.__main__ import main; sys.exit(main(sys.argv[1:]))"
    Path("out.h5").write_text("earlier")
    replay = [sys.executable, "-c", program, "replay", "scan.h5", "-c", "toy.xml", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(replay, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (1, "gadgets replay: cannot write out.h5: File too large\n")
    assert Path("out.h5").read_text() == "earlier"
    assert not list(place.glob("*out.h5?*"))


def test_failures_show_where_they_happened_if_asked(place):
    with pytest.raises(Exception, match="toys break"):
        main(["replay", "scan.h5", "-c", "fails.xml", "--debug"])


def test_pngs_have_one_window_for_a_series(place):
    image = pytest.importorskip("PIL.Image")
    assert main(["replay", "scan.h5", "-c", "toy.xml", "-q", "--png", "pictures/toy"]) == 0
    names = {path.name for path in Path("pictures/toy").iterdir()}
    assert names == {
        *(f"image_0_000_{channel:03d}.png" for channel in range(2)),
        *(f"image_0_1_000_{channel:03d}.png" for channel in range(2)),
        *(f"image_0_2_000_{channel:03d}.png" for channel in range(2)),
        *(f"image_{name}_montage.png" for name in ("0", "0_1", "0_2")),
    }
    every = [series for _, series in read_images("out.h5")]  # of one series, in three sizes
    series = every[0]
    greys = np.stack([np.asarray(image.open(f"pictures/toy/image_0_000_{channel:03d}.png")) for channel in range(2)])
    top = np.percentile(np.concatenate([one.ravel() for one in every]), 99.8)
    np.testing.assert_array_equal(greys, np.round(np.clip(series[0, :, 0] / top, 0, 1) * 255))


def test_a_fault_of_the_header_is_logged_once_with_pngs_and_by_an_export(place, caplog):
    write_scan("odd.h5", toys.HEADER.replace(b"<encoding>", b"<odd/><encoding>", 1), toys.scan())
    fault = "The ISMRMRD header has the unknown element odd; it was skipped"
    assert main(["replay", "odd.h5", "-c", "toy.xml", "--png", "pictures"]) == 0
    assert [record.getMessage() for record in caplog.records if "odd" in record.getMessage()] == [fault]
    caplog.clear()
    assert main(["export", "out.h5", "--png", "more"]) == 0
    assert [record.getMessage() for record in caplog.records if "odd" in record.getMessage()] == [f"out.h5: {fault}"]


def test_pngs_without_pillow_are_refused_before_anything_is_done(place, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main(["replay", "scan.h5", "-c", "toy.xml", "--png", "pictures"]) == 1
    assert "PNG needs Pillow" in capsys.readouterr().err
    assert not Path("out.h5").exists()


def test_an_interruption_is_status_130(place, capsys, monkeypatch):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("gadgets.hosts.replay.run", interrupt)
    assert main(["replay", "scan.h5"]) == 130
    assert capsys.readouterr().err == "gadgets replay: interrupted\n"


def test_an_unexpected_failure_is_one_sentence_too(place, capsys, monkeypatch):
    def fail(args):
        raise KeyError("x")

    monkeypatch.setattr("gadgets.hosts.replay.run", fail)
    assert main(["replay", "scan.h5"]) == 1
    assert capsys.readouterr().err == "gadgets replay: KeyError: 'x'\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"python -m gadgets {command}" in capsys.readouterr().out


def test_the_overview_names_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n    {command} " in out


def test_a_chain_without_network_starts_without_torch(place):
    code = "import sys, tests.gadgets.toys; from gadgets.__main__ import main; status = main(sys.argv[1:]); "
    code += "sys.exit(status or 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, "replay", str(place / "scan.h5"), "-c", str(place / "toy.xml"), "-o", "o.h5"]
    done = subprocess.run(
        [*command[:-1], str(place / "o.h5")], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"gadgetron-networks {__version__}\n"


def test_a_log_that_cannot_be_written_is_one_sentence(place, capsys):
    assert main(["serve", "--port", "0", "--log-file", "nowhere/log"]) == 1
    assert capsys.readouterr().err == "gadgets serve: cannot write the log nowhere/log: No such file or directory\n"
