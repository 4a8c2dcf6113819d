"""A resident server: networks stay loaded between scans, and several connections run at once.

It serves Gadgetron's `<connect>` (a node's <configuration>, header, items) and ordinary ISMRMRD clients (the name or
the text of a whole chain, header, items). A peer that fails or vanishes hurts nobody but itself.
"""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from gadgets.failures import lost_device
from gadgets.hosts.conversation import greeted, handle, refuse
from gadgets.hosts.deferred import QUICK
from gadgets.hosts.doors import Doors, Spare, accepted, listen
from gadgets.hosts.keeping import add_spool_options, spool_of
from gadgets.hosts.library import folder
from gadgets.hosts.metrics import publish
from gadgets.hosts.notify import notify
from gadgets.hosts.optionfile import add_config
from gadgets.hosts.preload import preload
from gadgets.hosts.rules import Rules, chain_of
from gadgets.hosts.storage import store_of
from gadgets.hosts.worker import Worker
from gadgets.limits import Limits, usual_memory
from gadgets.messages import ConfigFile
from mrnets.errors import Faults, InputError

__all__ = ["add_arguments", "run", "serve"]

SHARE = 0.5
"""The part of the machine's memory that one scan may take, unless the operator says otherwise. Others may run, too."""

PATIENCE = 5.0
"""Seconds for a client that is refused: to say what it wants, and to send it."""
ENDING = "The server ends; send the scan again when it has started anew."

_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m gadgets serve`."""
    usual = Limits()
    add_config(parser)
    add = parser.add_argument
    add("-p", "--port", type=int, default=9002, help="TCP port (default 9002; 0: any that is free)")
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine only)")
    add("--chains", type=Path, default=folder(), help="folder of the chains that clients can name (default: shipped)")
    add("--default-chain", metavar="CHAIN", help="chain for clients that name one that is not there (default: none)")
    add(
        "--preload",
        action="append",
        default=[],
        metavar="CHAIN",
        help="chain to load and try at the start (default: none)",
    )
    add("--log-file", type=Path, help="log to this file, too; others follow it at 16 MiB (default: none)")
    add("--metrics", type=int, metavar="PORT", help="numbers for Prometheus on this port (default: none)")
    add("--weights", type=Path, help="folder of weights that clients can name, beside those shipped (default: none)")
    add(
        "--noise",
        type=Path,
        help="folder for noise that later scans depend on (default: the MRD storage server that "
        "GADGETRON_STORAGE_ADDRESS names, or none)",
    )
    add_spool_options(parser)
    add(
        "--defer",
        nargs="?",
        const=QUICK,
        metavar="CHAIN",
        help=f"answer scans for trained networks with a quick series by this chain ({QUICK}); theirs comes later",
    )
    add("--connections", type=int, default=16, help="at most so many scans at once (default 16); others wait")
    add("--per-address", type=int, default=8, help="at most so many of one address (default 8); others are refused")
    add("--memory", type=float, help="GiB for one scan (default: half of the machine's memory)")
    add("--queue", type=float, default=usual.queue / 2**20, help="MiB that wait for a client (default %(default)g)")
    add("--start", type=float, default=usual.start, help="seconds for configuration and header (default %(default)g)")
    add("--silence", type=float, default=usual.silence, help="seconds without data in a scan (default %(default)g)")
    add(
        "--unread",
        type=float,
        default=usual.unread,
        help="seconds in which a client reads nothing (default %(default)g)",
    )
    add("--grace", type=float, default=600.0, help="seconds for open connections after SIGTERM (default %(default)g)")


def run(args: argparse.Namespace) -> int:
    """Listen until SIGTERM or ctrl-C; then finish the connections that are open. A second signal ends at once.

    The exit status is 1 where a CUDA device is lost: a new process can use it again."""
    rules = _rules(args)
    doors = Doors(args.connections, args.per_address)
    for name in args.preload:
        preload(name, rules)
    with listen(args.host, args.port) as listener:
        address, port = listener.getsockname()[:2]
        signal.signal(signal.SIGTERM, _interrupt)
        _logger.info("listening on %s port %s", address, port)
        if args.metrics is not None:
            publish(args.host, args.metrics, doors)
        worker = Worker(rules)
        worker.start()
        notify("READY=1")
        try:
            serve(listener, rules, doors)
        except KeyboardInterrupt:
            notify("STOPPING=1")
            listener.close()
            worker.stop()
            _logger.info("finishing %d connections", len(doors))
            if shut := doors.finish(args.grace):
                _logger.warning("%d connections were not finished within %g s and were shut", shut, args.grace)
        worker.join()
    return int(bool(lost_device()))


def _rules(args: argparse.Namespace) -> Rules:
    """Return what the options say. Raises InputError with all values that make no sense."""
    faults = Faults()
    for name in ("connections", "per_address", "memory", "queue", "start", "silence", "unread"):
        value = getattr(args, name)
        with faults.gathered():
            if value is not None and not value > 0:
                raise InputError(f"--{name.replace('_', '-')} must be positive; got {value}.")
    for name in ("chains", "weights"):
        place = getattr(args, name)
        with faults.gathered():
            if place is not None and not place.is_dir():
                raise InputError(f"There is no folder of {name} {place}.")
    with faults.gathered():
        if args.defer and not args.spool:
            raise InputError("--defer needs --spool: the scans wait there.")
    faults.tell()
    memory = usual_memory(SHARE) if args.memory is None else args.memory
    limits = Limits(
        args.start, args.silence, args.unread, int(min(args.queue * 2**20, sys.maxsize)), message=memory * 2**30
    )
    rules = Rules(args.chains, args.default_chain, args.weights, memory, limits, store_of(args.noise))
    rules = replace(rules, spool=spool_of(args), defer=args.defer)
    for name in filter(None, (rules.default, rules.defer)):
        chain_of(ConfigFile(name), rules)
    return rules


def serve(listener: socket.socket, rules: Rules, doors: Doors) -> NoReturn:
    """Accept connections for ever, each in its own thread, as `doors` lets them in."""
    spare = Spare()
    number = 0
    while True:
        doors.wait()
        entered = False
        try:
            connected, address = accepted(listener, spare)
            number += 1
            name = f"connection {number} from {address}"
            entered = _let_in(connected, address, rules, doors, name)
        finally:
            if not entered:
                doors.release()


def _let_in(connected: socket.socket, address: str, rules: Rules, doors: Doors, name: str) -> bool:
    """Whether the connection got a thread. Without a thread, it is refused."""
    reason = f"This address has {doors.most_of_one} connections already; no more are taken."
    try:
        if doors.enter(connected, address, partial(_serve, connected, rules, doors), name):
            return True
        if doors.hear(connected, partial(_turn_away, connected, reason), name):
            return True
    except OSError as error:
        reason = f"The server has no room for another connection ({error.strerror})."
    _logger.error("%s was refused: %s", name, reason)
    refuse(connected, reason)
    return False


def _serve(connected: socket.socket, rules: Rules, doors: Doors) -> None:
    """Answer questions at once, and serve a scan when there is a place."""
    try:
        scan = greeted(connected, rules.limits.start)
    except (InputError, OSError) as error:
        _logger.error("%s", error)
        refuse(connected, str(error))
        return
    with connected:
        if not scan:
            return
        with doors.place() as free:
            if free:
                handle(connected, rules)
            else:
                refuse(connected, ENDING, PATIENCE)


def _turn_away(connected: socket.socket, reason: str) -> None:
    """Answer questions, and refuse a scan."""
    with connected, suppress(OSError):
        with suppress(InputError):
            if not greeted(connected, PATIENCE):
                return
        _logger.error("refused: %s", reason)
        refuse(connected, reason, PATIENCE)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
