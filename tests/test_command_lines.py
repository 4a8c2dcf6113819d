"""Rules for every command line: examples in each help, nearest names, and all faults at once."""

import argparse
import ast
import importlib
import io
import logging
import os
import re
import sys
from pathlib import Path

import pytest

import gadgets.__main__ as gadgets_main
import mrnets.__main__ as mrnets_main
import training.__main__ as training_main
from mrnets import extras
from mrnets.commandline import open_streams
from mrnets.errors import Faults, InputError
from mrnets.extras import NAME, install
from mrnets.files import write_text
from training.options import read
from training.team import join

ROOT = Path(__file__).parent.parent
PROGRAMS = {
    "gadgets": (gadgets_main.main, gadgets_main.EXAMPLES),
    "mrnets": (mrnets_main.main, mrnets_main.EXAMPLES),
    "training": (training_main.main, training_main.EXAMPLES),
}
COMMANDS = [(program, command) for program, (_, examples) in PROGRAMS.items() for command in examples]


def said(main, words, capsys, status: int) -> str:
    """Run a command line, and return what it prints."""
    try:
        found = main(words)
    except SystemExit as end:
        found = end.code
    assert found == status
    both = capsys.readouterr()
    return both.out + both.err


@pytest.mark.parametrize(("program", "command"), [*COMMANDS, *((program, None) for program in PROGRAMS)])
def test_every_help_has_examples(program, command, capsys):
    main, examples = PROGRAMS[program]
    text = said(main, [command, "--help"] if command else ["--help"], capsys, 0)
    told = text.partition("examples:\n")[2].strip().splitlines()
    assert len(told) >= (len(examples[command]) if command else len(examples))
    assert all(line.strip().startswith(f"python -m {program} ") for line in told)


def test_no_error_says_the_name_of_a_command_that_says_it_anyway():
    """`gadgets simulate: simulate: snr must be positive` said it twice."""
    names = tuple(f"{command}: " for _, command in COMMANDS)
    doubled = []
    for path in (path for program in PROGRAMS for path in (ROOT / program).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Name("InputError"),
                    args=[ast.Constant(str(text)) | ast.JoinedStr([ast.Constant(str(text)), *_])],
                ) if text.startswith(names):
                    doubled.append(f"{path.name}: {text}")
    assert not doubled


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_examples_are_of_commands_and_options_that_exist(program, command, monkeypatch):
    main, examples = PROGRAMS[program]
    ran = []
    if program == "gadgets":
        monkeypatch.setattr(gadgets_main, "_run", lambda args: ran.append(args) or 0)
    elif program == "training":
        module = training_main
        monkeypatch.setattr(module, f"_{command.replace('-', '_')}", lambda chosen: ran.append(chosen))
    else:
        for name in ("_listed", "_told", "_imported"):
            monkeypatch.setattr(mrnets_main, name, lambda *args, **more: ran.append(args) or "")
    for line in examples[command]:
        words = line.partition(" <")[0].partition("#")[0].split()
        assert main(words) == 0
    assert len(ran) == len(examples[command])


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_defaults_are_called_defaults(program, command, monkeypatch):
    parsers = []
    made = argparse.ArgumentParser.parse_known_args

    def seen(self, *given, **more):
        parsers.append(self)
        return made(self, *given, **more)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", seen)
    with pytest.raises(SystemExit):
        PROGRAMS[program][0]([command, "--help"])
    assert parsers
    for action in (action for parser in parsers[1:] for action in parser._actions):
        usual = action.default not in (None, False, [], argparse.SUPPRESS) and action.option_strings
        assert not usual or "default" in (action.help or ""), action.option_strings


@pytest.mark.parametrize(
    ("program", "words", "near"),
    [
        ("gadgets", "replya scan.h5", "replay"),
        ("gadgets", "replay scan.h5 --nifty x.nii", "--nifti"),
        ("gadgets", "simulate --mask poison2d", "poisson2d"),
        ("mrnets", "shwo varnet", "show"),
        ("mrnets", "list --quik", "--quick"),
        ("training", "fti demo", "fit"),
        ("training", "fit demo --dryrun", "--dry-run"),
    ],
)
def test_a_misspelt_command_or_option_names_the_nearest(program, words, near, capsys):
    text = said(PROGRAMS[program][0], words.split(), capsys, 2)
    assert f"Did you mean '{near}'?" in text


@pytest.mark.parametrize(
    ("program", "words", "near"),
    [
        ("gadgets", "chains varnte", "varnet"),
        ("gadgets", "gadgets netwrok", "network"),
        ("mrnets", "show varnte", "varnet"),
        ("mrnets", "show varnet_brian", "varnet_brain"),
        ("training", "fit dmo", "demo"),
        ("training", "fit demo network.name=varnte", "varnet"),
        ("training", "evaluate varnet_brian demo", "varnet_brain"),
    ],
)
def test_a_misspelt_name_names_the_nearest(program, words, near, capsys):
    text = said(PROGRAMS[program][0], words.split(), capsys, 1)
    assert re.search(rf"[Dd]id you mean '{near}'\?", text)
    assert "Traceback" not in text


def test_replay_tells_all_that_is_wrong_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = "replay none.h5 -c cgsense --report no/r.html --nifti images.txt --set network.devise=cpu --set netwrok.x=1"
    text = said(gadgets_main.main, [*words.split(), "--set", "images.format=shrot"], capsys, 1)
    for fault in ("none.h5", "no/r.html", "images.txt", "'device'?", "'network'?", '"shrot"'):
        assert fault in text
    assert text.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("program", "words", "faults"),
    [
        ("gadgets", "serve --chains no/chains --weights no/weights --queue -1", ("no/chains", "no/weights", "--queue")),
        ("gadgets", "simulate --coils 0 --snr -1 --partial-fourier 0.7", ("coils", "snr", "partial_fourier")),
        ("gadgets", "export none.h5 --nifti images.txt", ("none.h5", "images.txt")),
        ("training", "compare varnte,rimm compare data=.", ("'varnet'?", "'rim'?")),
    ],
)
def test_other_commands_tell_all_that_is_wrong_at_once(program, words, faults, capsys):
    text = said(PROGRAMS[program][0], words.split(), capsys, 1)
    assert all(fault in text for fault in faults)
    assert text.count("\n") == 1


def test_a_recipe_tells_all_that_is_wrong_at_once():
    given = ["stepz=3", "batch=many", "loss.simm=3", "network.name=varnte"]
    with pytest.raises(InputError) as error:
        read(ROOT / "training" / "recipes" / "demo.yaml", given)
    for fault in ("'steps'?", "batch must be", "'ssim'?", "'varnet'?"):
        assert fault in str(error.value)


def test_one_fault_stays_as_it_came_and_none_is_told_of_none():
    faults = Faults()
    faults.tell()
    with faults.gathered():
        raise InputError("the only one.")
    with pytest.raises(InputError, match=r"^the only one\.$"):
        faults.tell()


def test_several_faults_are_sentences_each_once():
    faults = Faults()
    for text in ("one; did you mean 'two'?", "three", "three", "four."):
        with faults.gathered():
            raise InputError(text)
    with pytest.raises(InputError) as error:
        faults.tell()
    assert str(error.value) == "one; did you mean 'two'? three; four."


@pytest.mark.parametrize("there", [0, 2])
def test_a_device_that_is_not_there_says_what_to_give(there, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    models = importlib.import_module("gadgets.models")
    with pytest.raises(InputError) as scanner:
        models.device_of("cuda:5")
    with pytest.raises(InputError) as learner:
        join("cuda:5")
    wanted = ("cuda:0, cuda:1", "cuda:0") if there else ("give cpu or auto", "give device=cpu")
    assert wanted[0] in str(scanner.value)
    assert wanted[1] in str(learner.value)


def test_other_libraries_do_not_talk_in_a_debug_log(capsys, monkeypatch):
    from gadgets.hosts import log

    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)
    log.start("replay", debug=True)
    logging.getLogger("PIL.PngImagePlugin").debug("STREAM b'IHDR'")
    logging.getLogger("PIL.Image").warning("a real warning")
    logging.getLogger("gadgets.sort").debug("our own")
    text = capsys.readouterr().err
    assert "IHDR" not in text
    assert "a real warning" in text
    assert "our own" in text


def test_hints_name_extras_that_exist():
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    there = set(project["optional-dependencies"])
    found = []
    for path in (path for folder in ("gadgets", "mrnets", "training") for path in (ROOT / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert path.name == "extras.py" or not re.search(r"[\"'].*pip install", text), path
        found += re.findall(r"\binstall\([\"'](\w+)[\"']\)|needed\([^),]*,[^),]*, \"(\w+)\"\)", text)
    assert {name for pair in found for name in pair if name} <= there
    assert len(found) > 3
    assert project["name"] == NAME


def test_a_project_that_is_not_installed_is_installed_from_its_folder(monkeypatch):
    assert install("export") == f"pip install '{NAME}[export]'"
    monkeypatch.setattr(extras, "NAME", "no-such-distribution")
    assert install("export") == "pip install '.[export]' in the project's folder"


@pytest.mark.parametrize(
    ("program", "words", "folders", "told"),
    [
        ("training", "check nowhere --recipe demo", ["demo"], "nowhere"),
        ("gadgets", "chains cgsense", ["cgsense", "cgsense.xml"], "gadgets: noise"),
        ("mrnets", "show varnet_brain", ["varnet_brain"], "network      varnet"),
    ],
)
def test_a_folder_does_not_hide_what_ships_under_its_name(program, words, folders, told, tmp_path, monkeypatch, capsys):
    """`make demo` makes a folder `demo`, and the recipe `demo` must still be found beside it."""
    for folder in folders:
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    text = said(PROGRAMS[program][0], words.split(), capsys, int(program == "training"))
    assert told in text
    assert "directory" not in text


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("gadgets", ["inspect", "\x1b[2J.h5"]),
        ("mrnets", ["show", "\x1b[2J.safetensors"]),
        ("training", ["evaluate", "\x1b[2J.safetensors", "demo"]),
    ],
)
def test_a_name_controls_no_terminal(program, words, capsys):
    text = said(PROGRAMS[program][0], words, capsys, 1)
    assert "\N{REPLACEMENT CHARACTER}[2J" in text
    assert "\x1b" not in text


def test_names_that_are_no_text_are_printed_and_written(tmp_path, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "utf-8", write_through=True))
    name = os.fsdecode(b"M\xfcller.h5")
    open_streams()
    print(name)
    write_text(tmp_path / "page", name)
    assert raw.getvalue() == b"M\\udcfcller.h5\n"
    assert (tmp_path / "page").read_bytes() == b"M\\udcfcller.h5"
