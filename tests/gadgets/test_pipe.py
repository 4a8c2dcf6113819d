"""`pipe` between files and named pipes, as Tyger passes them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gadgets.chain import Chain
from gadgets.hosts.pipe import carry, convey_any
from gadgets.messages import Close, Header
from gadgets.speaker import GadgetError
from mrnets.errors import InputError
from tests.gadgets import toys
from tests.gadgets.toys import blob, stage

STREAM = blob([Header(toys.HEADER), *toys.scan(), Close()])
CHAIN = Chain.parse(toys.configuration(stage("toy")))
PATIENCE = 30
"""Seconds for the other end of a named pipe."""


@pytest.fixture
def expected() -> bytes:
    out = io.BytesIO()
    convey_any(io.BytesIO(STREAM), out, CHAIN)
    return out.getvalue()


def test_files(tmp_path: Path, expected: bytes) -> None:
    (tmp_path / "in").write_bytes(STREAM)
    stdout = io.BytesIO()
    carry((str(tmp_path / "in"), str(tmp_path / "out")), stdout, CHAIN)
    assert (tmp_path / "out").read_bytes() == expected
    assert not stdout.getvalue()


def test_named_pipes(tmp_path: Path, expected: bytes) -> None:
    for name in ("in", "out"):
        os.mkfifo(tmp_path / name)
    with ThreadPoolExecutor(2) as pool:
        work: list[Callable[[], object]] = [
            lambda: (tmp_path / "in").write_bytes(STREAM),
            lambda: (tmp_path / "out").read_bytes(),
        ]
        _, came = (pool.submit(one) for one in work)
        carry((str(tmp_path / "in"), str(tmp_path / "out")), io.BytesIO(), CHAIN)
        assert came.result(PATIENCE) == expected


def test_a_failure_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(STREAM)
    (tmp_path / "out").write_bytes(b"before")
    with pytest.raises(GadgetError, match="toys break"):
        carry((str(tmp_path / "in"), str(tmp_path / "out")), io.BytesIO(), CHAIN.set("toy.fail", "bug"))
    assert (tmp_path / "out").read_bytes() == b"before"
    with pytest.raises(InputError, match="nowhere: cannot be read"):
        carry((str(tmp_path / "nowhere"), None), io.BytesIO(), CHAIN)
