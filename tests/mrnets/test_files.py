"""Files that are whole or not there: what is left after success, failure, a full disk, and beside another run."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from mrnets import files
from mrnets.errors import InputError
from mrnets.files import make_folder, reserved, whole, write_bytes, write_text
from mrnets.hdf5 import whole_hdf5

ROOT = Path(__file__).parents[2]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A file that is there already. Nothing but it and what a test makes may lie beside it afterwards."""
    path = tmp_path / "file.h5"
    path.write_text("earlier")
    yield path
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_file_is_written_or_replaced(target: Path) -> None:
    with whole(target) as file:
        file.write(b"first ")
        file.write(b"second")
        file.seek(0)
        assert file.read() == b"first second"
        file.seek(0)
        file.write(b"F")
        file.truncate(5)
        assert target.read_text() == "earlier"
    assert target.read_text() == "First"
    write_text(target, "größer")
    assert target.read_bytes() == "größer".encode()
    other = target.with_name("other")
    write_bytes(other, b"new")
    assert stat.S_IMODE(other.stat().st_mode) == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_failure_leaves_what_was_there(target: Path) -> None:
    for kind in (ZeroDivisionError, KeyboardInterrupt):

        def fail(kind: type[BaseException] = kind) -> None:
            with whole(target) as file:
                file.write(b"half")
                raise kind

        with pytest.raises(kind):
            fail()
    assert target.read_text() == "earlier"
    assert os.listdir(target.parent) == [target.name]


def test_what_was_written_may_be_kept_under_a_free_name(target: Path) -> None:
    def fail() -> None:
        with whole(target) as file:
            file.write(b"half")
            file.keep = True
            raise ZeroDivisionError

    kept = target.with_name("file.h5.partial")
    with pytest.raises(ZeroDivisionError):
        fail()
    assert kept.read_text() == "half"
    kept.write_text("somebody's own")
    with pytest.raises(ZeroDivisionError):
        fail()
    assert kept.read_text() == "somebody's own"
    (second,) = target.parent.glob("file.h5.?*.partial")
    assert second.read_text() == "half"
    with whole(target) as file:
        file.keep = True
    assert sorted(os.listdir(target.parent)) == sorted(["file.h5", kept.name, second.name])


def _folder(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.symlink_to(path.with_name("file.h5"))


def _dangling(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")


@pytest.mark.parametrize(
    ("make", "kind"),
    [(_folder, "a folder"), (_fifo, "a pipe"), (_link, "a link"), (_dangling, "a link"), (_device, "a device")],
)
def test_only_a_regular_file_is_replaced(target: Path, make, kind: str) -> None:
    path = target.with_name("other")
    make(path)
    before = path.lstat()
    with pytest.raises(InputError, match=f"cannot write .*other: it is {kind}, not a regular file"):
        write_bytes(path, b"new")
    with pytest.raises(InputError, match=f"it is {kind}"), whole_hdf5(path):
        pass
    assert path.lstat().st_ino == before.st_ino
    assert stat.S_IFMT(path.lstat().st_mode) == stat.S_IFMT(before.st_mode)
    assert sorted(os.listdir(target.parent)) == ["file.h5", "other"]


def test_a_folder_that_is_not_there(target: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*no"):
        write_bytes(target.parent / "no" / "file", b"new")
    assert make_folder(target.parent / "a" / "b").is_dir()
    with pytest.raises(InputError, match=r"cannot make the folder .*: (Not a directory|File exists)"):
        make_folder(target / "a")


def test_a_link_that_waits_at_the_temporary_name_is_not_written_through(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = target.with_name("victim")
    victim.write_text("precious")
    waiting = target.with_name(".file.h5.known.partial")
    waiting.symlink_to(victim)
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "known")
    with pytest.raises(InputError, match=r"cannot write .*: File exists"):
        write_bytes(target, b"new")
    assert victim.read_text() == "precious"
    assert waiting.is_symlink()
    waiting.unlink()


def test_a_link_that_waits_at_the_name_of_the_lock_is_not_written_through(target: Path) -> None:
    waiting = target.with_name(".file.h5.lock")
    waiting.symlink_to(target)
    with pytest.raises(InputError, match="cannot write"):
        write_bytes(target, b"new")
    assert target.read_text() == "earlier"
    waiting.unlink()


def test_somebodys_own_file_with_the_name_of_the_lock_stays(target: Path) -> None:
    own = target.with_name(".file.h5.lock")
    own.write_text("precious")
    write_bytes(target, b"new")
    assert own.read_text() == "precious"
    own.unlink()


def test_a_disk_that_fails_at_the_end_is_told(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    sentence = r"cannot write .*: No space left on device; buy a disk"
    with pytest.raises(InputError, match=sentence), whole(target, "buy a disk"):
        pass
    assert target.read_text() == "earlier"


FULL = """
import resource, sys
import h5py, numpy as np
from mrnets.errors import InputError
from mrnets.files import whole, write_bytes
from mrnets.hdf5 import whole_hdf5

def plain(path):
    write_bytes(path, bytes(10**6))

def torch_like(path):
    with whole(path) as file:
        try:
            for _ in range(1000):
                file.write(bytes(1000))
        except OSError:
            raise RuntimeError("a library's own words")

def images(path, check):
    with whole_hdf5(path) as (file, draft):
        values = file.create_dataset("values", (0, 100, 100), "f4", maxshape=(None, 100, 100), chunks=(1, 100, 100))
        texts = file.create_dataset("texts", (0,), h5py.special_dtype(vlen=str), maxshape=(None,), chunks=(4,))
        for n in range(30):
            for data, value in ((values, np.full((100, 100), n)), (texts, "x" * 3000)):
                data.resize(n + 1, axis=0)
                data[-1] = value
            if check:
                draft.check()

kinds = {
    "plain": plain,
    "library": torch_like,
    "hdf5": lambda path: images(path, False),
    "hdf5 checked": lambda path: images(path, True),
}
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    kinds[sys.argv[2]](sys.argv[1])
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["plain", "library", "hdf5", "hdf5 checked"])
def test_a_full_disk_is_one_sentence(target: Path, kind: str) -> None:
    """The limit of a file's size stands for the end of a disk. HDF5 of its own crashes at the end of the process."""
    for limit in (0, 1, 100, 3000, 100_000) if kind.startswith("hdf5") else (0, 5000):
        done = subprocess.run(
            [sys.executable, "-c", FULL, str(target), kind, str(limit)], cwd=ROOT, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, ""), (limit, done)
        assert done.stdout == f"cannot write {target}: File too large\n"
        assert target.read_text() == "earlier"
        assert os.listdir(target.parent) == [target.name]


def test_hdf5_files_hold_what_was_written(target: Path) -> None:
    values = np.random.default_rng(3).random((5, 70, 30))
    with whole_hdf5(target) as (file, _):
        file.create_dataset("a/b", data=values, chunks=(1, 70, 30), compression="gzip")
        file.create_dataset("text", (1,), h5py.special_dtype(vlen=bytes))[0] = b"x" * 5000
        file.attrs["n"] = 3
        assert file["text"][0] == b"x" * 5000
        assert target.read_text() == "earlier"
    with h5py.File(target) as file:
        np.testing.assert_array_equal(file["a/b"][()], values)
        assert file["text"][0] == b"x" * 5000
        assert file.attrs["n"] == 3


def test_the_later_of_two_runs_is_refused_at_its_start(target: Path) -> None:
    with whole(target) as file:
        with pytest.raises(InputError, match=r"file\.h5 is being written by another run"), whole_hdf5(target):
            pytest.fail("it began to write")
        with pytest.raises(InputError, match="is being written by another run"):
            write_bytes(target, b"other")
        file.write(b"first")
    assert target.read_text() == "first"
    write_bytes(target, b"second")


HOLD = """
import sys
from mrnets.files import whole
with whole(sys.argv[1]) as file:
    file.write(b"half")
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_refused_until_this_one_ends_however_it_ends(target: Path) -> None:
    program = [sys.executable, "-c", HOLD, str(target)]
    with subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(InputError, match="is being written by another run"):
            write_bytes(target, b"new")
        os.kill(other.pid, signal.SIGKILL)
    assert target.read_text() == "earlier"
    (left,) = target.parent.glob("*.partial")  # nobody could remove it
    write_bytes(target, b"new")
    assert left.read_text() == "half"
    left.unlink()


def test_many_at_once_write_whole_files_or_are_refused(target: Path) -> None:
    contents = [bytes([n]) * 100_000 for n in range(8)]
    refused: list[str] = []
    gate = threading.Barrier(len(contents))

    def write(content: bytes) -> None:
        gate.wait()
        for _ in range(20):
            try:
                write_bytes(target, content)
            except InputError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() in contents
    assert len(refused) < 20 * len(contents)
    assert all(text.endswith("is being written by another run") for text in refused)


def test_a_place_is_reserved_without_being_written(target: Path) -> None:
    with reserved(target):
        with pytest.raises(InputError, match="another run"), reserved(target):
            pytest.fail("reserved twice")
        with reserved(target.with_name("other")):
            pass
    with reserved(target):
        pass
    assert target.read_text() == "earlier"


INTERRUPTED = """
import os, signal, sys
import h5py, numpy as np
from mrnets.files import Draft
from mrnets.hdf5 import whole_hdf5

calls, write = 0, Draft.write

def interrupted(self, data):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        signal.raise_signal(signal.SIGINT)
    return write(self, data)

Draft.write = interrupted
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell ignores it
try:
    with whole_hdf5(sys.argv[1]) as (file, draft):
        values = file.create_dataset("values", (0, 100, 100), "f4", maxshape=(None, 100, 100), chunks=(1, 100, 100))
        for _ in range(1000):  # 40 MB, more than the library keeps in memory
            values.resize(len(values) + 1, axis=0)
            values[-1] = np.full((100, 100), len(values))
            draft.keep = True
            if sys.argv[3] == "checks":
                draft.check()
        print("to the end")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("checks", ["checks", ""])
@pytest.mark.parametrize("call", [1, 2, 10])
def test_ctrl_c_while_hdf5_writes_ends_the_block_and_not_the_process(target: Path, call: int, checks: str) -> None:
    """HDF5 crashes where an exception comes out of its own calls. The signal waits for a check, or for the end."""
    program = [sys.executable, "-c", INTERRUPTED, str(target), str(call), checks]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=120)
    said = "interrupted\n" if checks else "to the end\ninterrupted\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    assert target.read_text() == "earlier"
    with h5py.File(f"{target}.partial") as file:  # whole up to then
        values = file["values"]
        assert 0 < len(values) < 1000 if checks else len(values) == 1000
        np.testing.assert_array_equal(values[:, 0, 0], np.arange(1, len(values) + 1))


def test_handlers_of_signals_are_as_before(target: Path) -> None:
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores the signal
    try:
        _interrupt_a_file(target)
    finally:
        signal.signal(signal.SIGINT, outside)


def _interrupt_a_file(target: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with whole_hdf5(target):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
