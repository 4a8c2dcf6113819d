"""CuPy takes the memory that torch keeps. The device is a stand-in, which has room once torch has given that back."""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

import pytest

from gadgets.device_memory import share


class OutOfMemoryError(MemoryError):
    pass


class Pool:
    """A device of which torch keeps all."""

    def __init__(self) -> None:
        self.room = 0

    def malloc(self, size: int) -> str:
        if size > self.room:
            raise OutOfMemoryError(f"out of memory: {size} bytes")
        return f"{size} bytes"


def device(monkeypatch: pytest.MonkeyPatch, *, kept: int, initialized: bool = True) -> Any:
    """CuPy on a device, and torch that keeps so many bytes of it."""
    pool = Pool()
    cupy = mock.Mock(**{"get_default_memory_pool.return_value": pool, "cuda.get_allocator.return_value": pool.malloc})
    cupy.cuda.memory.OutOfMemoryError = OutOfMemoryError
    torch = mock.Mock(**{"cuda.is_initialized.return_value": initialized})
    torch.cuda.empty_cache.side_effect = lambda: setattr(pool, "room", kept)
    monkeypatch.setitem(sys.modules, "torch", torch)
    return cupy


def test_what_torch_keeps_is_used(monkeypatch):
    cupy = device(monkeypatch, kept=100)
    share(cupy)
    ((malloc,), _) = cupy.cuda.set_allocator.call_args
    assert malloc(80) == "80 bytes"
    with pytest.raises(OutOfMemoryError, match="120 bytes"):
        malloc(120)


def test_torch_that_has_no_device_is_not_asked(monkeypatch):
    cupy = device(monkeypatch, kept=100, initialized=False)
    share(cupy)
    ((malloc,), _) = cupy.cuda.set_allocator.call_args
    with pytest.raises(OutOfMemoryError):
        malloc(80)
    sys.modules["torch"].cuda.empty_cache.assert_not_called()


def test_an_allocator_of_somebody_else_stays(monkeypatch):
    cupy = device(monkeypatch, kept=100)
    cupy.cuda.get_allocator.return_value = print
    share(cupy)
    cupy.cuda.set_allocator.assert_not_called()


@pytest.mark.gpu
def test_a_second_call_changes_nothing():
    cupy = pytest.importorskip("cupy")
    share(cupy)
    mine = cupy.cuda.get_allocator()
    share(cupy)
    assert cupy.cuda.get_allocator() == mine
    assert cupy.zeros(3).sum() == 0
