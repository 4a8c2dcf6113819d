"""Seconds to the first image: of an external process that a Gadgetron server starts, and of a server that is warm.

    python tests/benchmarks/bench_first_image.py [--chain varnet] [--rounds 3]

cold: from the start of the process to the image of a scan of one slice that is sent at once; its imports alone beside
it, both also in seconds of the processor. warm: from the last line of a slice to its image, in the resident server's
code, after a first scan. Aims: cold 1.5 s at most, warm 0.3 s (CPU) more than the network.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mrnets.commandline import settle

settle()  # as a command does, before the libraries load

from gadgets.chain import Chain
from gadgets.connection import Peer
from gadgets.hosts import conversation
from gadgets.hosts.library import find, folder
from gadgets.hosts.rules import Rules
from gadgets.limits import PATIENT
from gadgets.messages import Close, ConfigText, Header, Message
from gadgets.protocol import State
from gadgets.serialise import encode
from gadgets.simulate import Settings, make_scan

ROOT = Path(__file__).parents[2]
IMPORTS = "import gadgets.hosts.external, gadgets.sort, gadgets.noise, gadgets.coils, gadgets.network, torch"
LIMIT = 600
"""Seconds in which an image must come."""


def main() -> None:
    """Print the fastest of some rounds of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chain", default="varnet")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    chain = Chain.parse(*find(args.chain))
    header, lines, _ = make_scan(Settings(slices=1))
    head, items = [Header(header)], list(lines)
    rounds = range(args.rounds)
    for name, code in (("imports alone", IMPORTS), ("of which torch alone", "import torch")):
        told(name, min(measured(lambda: timed_process([sys.executable, "-c", code])) for _ in rounds))  # noqa: B023
    first = [ConfigText(chain.xml()), *head, *items, Close()]
    told("cold, process to image", min(measured(lambda: cold(first)) for _ in rounds))
    messages = [ConfigText(chain.xml()), *head, *items]
    warm_up = warm(messages)
    print(f"warm server, last line to image        {min(warm(messages) for _ in rounds):7.2f} s")
    print(f"the same, the first scan of the server {warm_up:7.2f} s")


def measured(work: Callable[[], float]) -> tuple[float, float]:
    """Return the seconds of the processor that child processes take, which a busy machine changes little, and the
    seconds that `work` returns."""
    before = os.times()
    seconds = work()
    after = os.times()
    own = after.children_user + after.children_system - before.children_user - before.children_system
    return own, seconds


def told(name: str, found: tuple[float, float]) -> None:
    """Print a line."""
    print(f"{name:<38} {found[1]:7.2f} s   {found[0]:7.2f} s of the processor", flush=True)


def timed_process(command: list[str]) -> float:
    """Seconds that a process takes."""
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=LIMIT)
    return time.perf_counter() - start


def cold(messages: list[Message]) -> float:
    """Seconds from the start of an external process to its first image."""
    with tempfile.TemporaryDirectory() as place, socket.create_server(("127.0.0.1", 0)) as listener:
        hook = (ROOT / "gadgets" / "hosts" / "gadgetron-networks.pth").read_text()
        (Path(place) / "sitecustomize.py").write_text(hook)  # as it is installed beside the packages
        path = os.pathsep.join([str(ROOT), place])
        environment = {**os.environ, "PYTHONPATH": path, "GADGETRON_EXTERNAL_LOG_LEVEL": "ERROR"}
        command = [sys.executable, "-m", "gadgetron", str(listener.getsockname()[1]), "gadgets", "pipeline"]
        listener.settimeout(LIMIT)
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=environment)
        try:
            connected, _ = listener.accept()
            with connected:
                return answered(connected, messages, start)
        finally:
            process.kill()
            process.wait()


def warm(messages: list[Message]) -> float:
    """Seconds from the last line to the first image, in a thread of this process."""
    ours, theirs = socket.socketpair()
    rules = Rules(folder())
    thread = threading.Thread(target=conversation.handle, args=(theirs, rules), daemon=True)
    thread.start()
    with ours:
        ours.sendall(b"".join(part for message in messages for part in encode(message)))
        return answered(ours, [Close()], time.perf_counter())


def answered(connected: socket.socket, messages: list[Message], start: float) -> float:
    """Send messages and return the seconds from `start` to the first item that comes back; then wait for the end."""
    connected.settimeout(LIMIT)
    peer = Peer.on(connected, State.ITEMS, PATIENT)
    data = b"".join(part for message in messages for part in encode(message))
    sending = threading.Thread(target=connected.sendall, args=(data,), daemon=True)
    sending.start()
    items = peer.items()
    next(items)
    seconds = time.perf_counter() - start
    for _ in items:
        pass
    sending.join()
    peer.close()
    return seconds


if __name__ == "__main__":
    main()
