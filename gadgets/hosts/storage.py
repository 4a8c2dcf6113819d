"""The places where hosts keep noise measurements: an MRD storage server, or a folder.

Gadgetron names its server to the processes that it starts in GADGETRON_STORAGE_ADDRESS.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from mrnets.errors import InputError
from mrnets.mrd.noise_store import MAX_BLOB, Folder, Key, Store

__all__ = ["Server", "default_folder", "default_store", "store_of"]

ADDRESS = "GADGETRON_STORAGE_ADDRESS"
NAME = "noise_covariance"
KEPT = "172800s"
"""How long the server keeps noise: two days, as Gadgetron asks."""
PATIENCE = 10.0
"""Seconds for the server to answer."""


@dataclass(frozen=True)
class Server:
    """An MRD storage server, by its REST interface."""

    address: str
    """For example http://localhost:9112."""

    def get(self, key: Key) -> bytes | None:
        """Return the newest blob of that key; None where the server has none. Raises InputError."""
        try:
            return self._asked("latest", key)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise self._failed(error) from None
        except (OSError, ValueError) as error:
            raise self._failed(error) from None

    def put(self, key: Key, blob: bytes) -> None:
        """Keep a blob. Raises InputError."""
        try:
            self._asked("", key, blob, _ttl=KEPT)
        except (OSError, ValueError) as error:
            raise self._failed(error) from None

    def _asked(self, what: str, key: Key, blob: bytes | None = None, **more: str) -> bytes:
        tags = {"subject": key.subject or "$null", "device": key.device, "session": key.session, "name": NAME}
        given = {name: value for name, value in (tags | {"measurement": key.measurement} | more).items() if value}
        address = urllib.parse.urlsplit(self.address)
        if address.scheme not in ("http", "https"):
            raise ValueError("its address must start with http:// or https://")
        path = "/".join(["v1", "blobs", "data", *([what] if what else [])])
        url = f"{self.address.rstrip('/')}/{path}?{urllib.parse.urlencode(given)}"
        headers = {"Content-Type": "application/octet-stream"} if blob is not None else {}
        request = urllib.request.Request(url, blob, headers)  # noqa: S310 (the scheme was checked)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=PATIENCE) as answer:
            return bytes(answer.read(MAX_BLOB + 1))

    def _failed(self, error: Exception) -> InputError:
        reason = getattr(error, "reason", None) or error
        return InputError(f"the storage server {self.address} failed: {reason}")


def store_of(folder: Path | None) -> Store | None:
    """Return the folder, or without one the server that the environment names; None without either."""
    address = os.environ.get(ADDRESS, "")
    if folder is not None:
        return Folder(folder)
    return Server(address) if address else None


def default_store() -> Store | None:
    """Return the server that the environment names, or else a folder of the user; None for a user without a home."""
    folder = default_folder()
    return store_of(None) or (None if folder is None else Folder(folder))


def default_folder() -> Path | None:
    """Return the user's folder for noise measurements; None for a user without a home, as in some containers."""
    cache = os.environ.get("XDG_CACHE_HOME", "") or os.path.expanduser("~/.cache")
    return Path(cache) / "gadgetron-networks" / "noise" if os.path.isabs(cache) else None
