"""Words to systemd, which waits for a service of Type=notify to be ready."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

__all__ = ["notify"]


def notify(state: str) -> None:
    """Tell systemd a state, "READY=1" or "STOPPING=1". Does nothing where systemd has not started this process.

    Source: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(state.encode(), address.replace("@", "\0", 1) if address.startswith("@") else address)
