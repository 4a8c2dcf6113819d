"""The end of a server whose device is lost: another process can have the device again."""

from __future__ import annotations

import logging
import os
import signal
import threading

from gadgets.failures import lost_device

__all__ = ["ends_without_device"]

_begun = threading.Lock()
"""Held from the first failure on. A second SIGTERM would end the open scans at once."""

_logger = logging.getLogger(__name__)


def ends_without_device() -> bool:
    """Return whether a CUDA device is lost to this process. If so, the process gets SIGTERM, once."""
    reason = lost_device()
    if reason and _begun.acquire(blocking=False):
        _logger.critical("the CUDA device is lost to this process, and the server ends: %s", reason)
        os.kill(os.getpid(), signal.SIGTERM)
    return bool(reason)
