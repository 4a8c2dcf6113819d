"""Commands whose output goes nowhere, that start without stdin, stdout and stderr, or that a signal ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = ["gadgets chains", "gadgets serve --help", "mrnets list --quick", "training fit --help"]


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", command.replace("PROGRAM", f"{sys.executable} -m")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_has_seen_enough_ends_a_command_in_silence(command):
    done = shell(f"(PROGRAM {command}; echo $? >&2) | true")
    assert done.stderr in ("141\n", "0\n"), "0: all was written before the reader ended"


@pytest.mark.parametrize("command", ["gadgets chains", "mrnets list --quick"])
def test_a_full_disk_is_one_sentence(command):
    done = shell(f"PROGRAM {command} > /dev/full")
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.returncode == 1


@pytest.mark.parametrize("command", ["gadgets chains", "gadgets pipe", "gadgets.hosts.takeover 1 gadgets pipeline"])
def test_closed_streams_are_no_failure_of_their_own(command, tmp_path):
    """Printed text must not go to a file that takes the number of a closed stream."""
    there = shell(f"PROGRAM {command} < /dev/null > {tmp_path}/out 2> {tmp_path}/err").returncode
    assert shell(f"PROGRAM {command} <&- >&- 2>&-").returncode == there


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_that_ends_a_program_leaves_no_temporary_files(name, tmp_path):
    code = f"""
import os, signal, sys
from mrnets.commandline import as_process
from mrnets.files import whole
signal.signal(signal.{name}, signal.SIG_DFL)  # nohup, under which the tests may run, ignores SIGHUP
def main():
    with whole("file") as file:
        file.write(b"some of it")
        os.kill(os.getpid(), signal.{name})
sys.exit(as_process(main))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, timeout=300, check=False)
    assert done.returncode == 128 + getattr(signal, name)
    assert list(tmp_path.iterdir()) == []
