"""Fixtures for all tests: an array library, and seeded randomness."""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType

import numpy as np
import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests for a GPU where there is none."""
    if item.get_closest_marker("gpu") and not _has_device():
        pytest.skip("no CUDA device")


@cache
def _has_device() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(params=["numpy", "torch", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request: pytest.FixtureRequest) -> ModuleType:
    """NumPy, torch and CuPy, as array-API namespaces; a library that is not there is skipped."""
    pytest.importorskip(request.param)
    return pytest.importorskip(f"array_api_compat.{request.param}")


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers in every run."""
    return np.random.default_rng(20261122)


@pytest.fixture(autouse=True)
def _seeded_torch() -> None:
    """The same numbers of torch's own generator in every test, whatever ran before."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(20261122)
