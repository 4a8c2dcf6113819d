"""Output of the commands inspect, chains and gadgets."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gadgets.__main__ import COMMANDS, EXAMPLES, main
from gadgets.gadget import lookup
from gadgets.gadget import names as gadgets_there
from gadgets.hosts.fitting import Needs, fitting
from gadgets.hosts.fitting import names as chains_there
from gadgets.messages import Close, Header
from gadgets.simulate import Settings, make_scan
from mrnets.mrd.files import write_scan
from mrnets.mrd.flags import Flag, has_flag
from mrnets.mrd.lines import Lines, take
from tests.gadgets import toys

ROOT = Path(__file__).parents[2]


def told(capsys, *arguments: str) -> dict[str, str]:
    """The lines of `inspect` by their first words; warnings and chains that do not fit under their own."""
    assert main(["inspect", *arguments]) == 0
    out = capsys.readouterr().out
    return {line[:14].strip() or line[14:].partition(":")[0]: line[14:] for line in out.splitlines()}


def scan(path: str, **settings) -> None:
    header, items, _ = make_scan(Settings(**{"coils": 5, "matrix": 32, "calibration": 8, **settings}))
    write_scan(path, header, items)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_scan_in_ten_lines(place, capsys):
    scan("s.h5", slices=3, echoes=2, acceleration=2.0, separate=True, noise_lines=7)
    found = told(capsys, "s.h5")
    assert found["scan"] == "s.h5: simulated, simulated, simulated, 3 T"
    spaces = "32 x 32 x 1 over 256 x 256 x 4 mm, encoded 64 x 32 x 1 over 512 x 256 x 4 mm"
    assert found["matrix"] == f"2-D Cartesian: {spaces}"
    assert found["coils"] == "5"
    assert found["images"] == "3 slices, 1 repetition, 2 echoes, 1 average"
    assert found["lines"].endswith(", 7 noise")
    assert "2 x 1 announced, 2.00-fold measured, calibration separate, 8 lines at the centre" in found["sampling"]
    assert found["sampling"].endswith("measured separately")
    assert found["noise"] == "7 lines of a noise measurement"
    assert "IS_NOISE_MEASUREMENT 7" in found["flags"]
    assert found["warnings"] == "none"
    assert "quantitative" in found["chains"].split(", ")
    assert "not segment" in found
    assert found["not joint"] == "not joint: mtlrs_brain takes one echo, and the scan has 2"


@pytest.mark.parametrize(("vendor", "centre"), [("philips", 12), ("ge", 12), ("plain", None)])
def test_a_doubtful_centre(place, capsys, vendor, centre):
    scan("s.h5", vendor=vendor, partial_fourier=0.25)
    assert main(["inspect", "s.h5"]) == 0
    doubt = f"the header's centre {centre} of step 1 may be 8 or 16; the data decide it"
    assert (doubt in capsys.readouterr().out) == (centre is not None)


def test_a_volume(place, capsys):
    scan("v.h5", slices=8, three_d=True, acceleration=1.0)
    found = told(capsys, "v.h5")
    assert found["matrix"].startswith("3-D Cartesian: 32 x 32 x 8")
    assert "1.00-fold measured" in found["sampling"]
    assert "32 x 8 lines at the centre" in found["sampling"]


def test_a_stream_tells_the_same_as_a_file(place, capsys):
    write_scan("t.h5", toys.HEADER, toys.scan())
    Path("t.mrd").write_bytes(toys.blob([Header(toys.HEADER), *toys.scan(), Close()]))
    of_file, of_stream = told(capsys, "t.h5"), told(capsys, "t.mrd")
    assert {**of_file, "scan": ""} == {**of_stream, "scan": ""}


def test_warnings_of_the_header_and_a_scan_that_cannot_be_sorted(place, capsys):
    header, items, _ = make_scan(Settings(coils=2, matrix=32, calibration=8))
    text = header.decode() if isinstance(header, bytes) else header
    assert "<trajectory>cartesian</trajectory>" in text
    spiral = text.replace("<trajectory>cartesian", "<strange>1</strange><trajectory>spiral")
    write_scan("s.h5", spiral, items)
    found = told(capsys, "s.h5")
    assert "the trajectory of encoding space 0 is spiral" in found["matrix"]
    assert found["warnings"] == "1"
    assert found["chains"] == "none fits: the scan cannot be reconstructed here"


def test_a_header_that_announces_no_line_but_0(place, capsys):
    header, items, _ = make_scan(Settings(coils=2, matrix=32, calibration=8, acceleration=1.0))
    lines = "<kspace_encoding_step_1><minimum>0</minimum><maximum>{}</maximum><center>16</center>"
    text = re.sub(r">\s+<", "><", header.decode())
    silent = text.replace(lines.format(31), lines.format(0)).replace("<y>32</y>", "<y>16</y>")
    assert silent.count("<maximum>31</maximum>") < text.count("<maximum>31</maximum>")
    write_scan("s.h5", silent, items)
    assert main(["inspect", "s.h5"]) == 0
    assert "line 31 came, and the header has a matrix of 16 lines" in capsys.readouterr().out


def test_a_scan_of_noise_only(place, capsys):
    header, items, _ = make_scan(Settings(coils=2, matrix=32, calibration=8, noise_lines=4))
    noise = next(item for item in items if isinstance(item, Lines))
    write_scan("n.h5", header, [noise])
    found = told(capsys, "n.h5")
    assert found["lines"] == "4: 4 noise"
    assert "no lines of an image" in found["matrix"]


def test_a_scan_of_separate_calibration_lines_only(place, capsys):
    header, items, _ = make_scan(Settings(coils=2, matrix=32, calibration=8, acceleration=2.0, separate=True))
    blocks = [item for item in items if isinstance(item, Lines)]
    flagged = [take(one, np.flatnonzero(has_flag(one.headers, Flag.IS_PARALLEL_CALIBRATION))) for one in blocks]
    write_scan("c.h5", header, [one for one in flagged if len(one)])
    found = told(capsys, "c.h5")
    assert found["lines"] == "8: 8 separate calibration"
    assert "no lines of an image" in found["matrix"]


@pytest.mark.parametrize("kind", ["absent", "no scan"])
def test_what_is_no_scan_is_one_sentence(place, capsys, kind):
    if kind == "no scan":
        Path("x.h5").write_text("hello, this is text")
    assert main(["inspect", "x.h5"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gadgets inspect: x.h5: ")


def test_chains_fit_by_what_their_networks_take():
    fits, others = fitting(Needs(echoes=1, timed=True, coils=8))
    assert {"varnet", "cgsense", "zerofilled", "segment", "joint"} <= set(fits)
    assert "needs two or more echoes" in others["quantitative"]
    assert "runs only on a Gadgetron server" in others["varnet_buffered"]
    assert all("it segments images" in others[name] for name in ("brats", "isles", "tissue"))
    fits, others = fitting(Needs(echoes=4, timed=False, coils=8))
    assert "echo times" in others["quantitative"]
    assert "takes images of 1 contrast (echoes)" in others["segment"]
    assert sorted([*fits, *others]) == chains_there()


@pytest.mark.parametrize("name", chains_there())
def test_every_chain_is_listed_with_its_meaning(name, capsys):
    assert main(["chains", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == name
    assert len(lines[1].split()) > 5
    assert any(words in lines[-2] for words in ("gadgets: noise, sort", "only on a Gadgetron server", "retrieve"))


@pytest.mark.parametrize("name", gadgets_there())
def test_every_gadget_is_listed_with_its_properties(name, capsys):
    assert main(["gadgets", name]) == 0
    out = capsys.readouterr().out
    assert lookup(name).__doc__.splitlines()[0] in out
    for wanted in lookup(name).properties:
        assert f"    {name}.{wanted}: " in out
        assert re.search(rf"(`|\b){wanted}(`|:|,| \")", lookup(name).__doc__), f"the meaning of {wanted} is not told"


def test_defaults_are_told_as_a_chain_gives_them(capsys):
    assert main(["gadgets"]) == 0
    out = capsys.readouterr().out
    assert '    sort.whitened: "true" or "false" (default false)' in out
    assert '    network.weights: text or "none" (default none)' in out
    assert "    network.options: text (default empty)" in out


@pytest.mark.parametrize(
    ("arguments", "status", "hint"),
    [
        (["replya"], 2, "Did you mean 'replay'?"),
        (["replay", "x.h5", "--nfti", "x"], 2, "Did you mean '--nifti'?"),
        (["inspect", "x.h5", "--in-grup=a"], 2, "Did you mean '--in-group'?"),
        (["chains", "varnte"], 1, "Did you mean 'varnet'?"),
        (["gadgets", "nose"], 1, "Did you mean 'noise'?"),
        (["replay", "x.h5", "-c", "cgsens"], 1, "Did you mean 'cgsense'?"),
        (["replay", "x.h5", "--set", "images.formt=short"], 1, "Did you mean 'format'?"),
    ],
)
def test_a_misspelt_word_names_the_nearest(place, capsys, arguments, status, hint):
    if status == 2:
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    else:
        assert main(arguments) == status
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_every_command_can_be_given(command, capsys, monkeypatch):
    given = []
    monkeypatch.setattr("gadgets.__main__._run", lambda args: given.append(args) or 0)
    for example in EXAMPLES[command]:
        words = example.partition(" <")[0].split()
        assert words[0] == command
        assert main(words) == 0
    assert len(given) == len(EXAMPLES[command]) > 0
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"examples:\n  python -m gadgets {EXAMPLES[command][0]}" in capsys.readouterr().out


def test_inspect_needs_no_torch(place):
    scan("s.h5")
    code = "import sys; from gadgets.__main__ import main; status = main(['inspect', sys.argv[1]]); "
    code += "sys.exit(status or 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, str(Path("s.h5").resolve())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
