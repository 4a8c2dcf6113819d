"""Our program in place of gadgetron-python's, where a Gadgetron server starts one of our gadgets.

`python -m gadgetron PORT MODULE TARGET` reads configuration and header before it imports MODULE. It fails on a header
that it cannot read, a missing module, or a server that disconnects early. It then ends with a traceback that no client
sees, or waits for ever. `gadgetron-networks.pth`, installed beside the packages, therefore calls `install` in such a
process; all other processes, and other projects' modules, stay with gadgetron-python.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from typing import Any, NoReturn

__all__ = ["end", "find_spec", "install"]


def install() -> None:
    """Let Python find the program of `python -m gadgetron` here, if that is what this process runs."""
    if _executed(sys.orig_argv) is not None:
        sys.meta_path.insert(0, sys.modules[__name__])


def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
    """Return this file as the program of gadgetron-python, for modules that are ours or are not there at all.

    The package around that program is empty: ours uses nothing of it, and with FFTW and SciPy it loads for 0.3 s."""
    if name not in ("gadgetron", "gadgetron.__main__"):
        return None
    module = _executed(sys.orig_argv)
    if module is None or not (module == "gadgets" or module.startswith("gadgets.") or not _is_there(module)):
        return None
    if name == "gadgetron":
        return ModuleSpec(name, None, is_package=True)
    return importlib.util.spec_from_file_location(name, __file__)


def end(status: int) -> NoReturn:
    """End the process at once, with what was logged written.

    A Gadgetron server tells its client that the scan has ended when this process has. To take torch apart before costs
    a fifth of the processor time of a short scan."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(status)


def _executed(command: Sequence[str]) -> str | None:
    """The module that an external node names, in the command by which a Gadgetron server starts Python."""
    try:
        at = command.index("-m")
        return command[at + 3] if command[at + 1] == "gadgetron" else None
    except (ValueError, IndexError):
        return None


def _is_there(module: str) -> bool:
    package = module.partition(".")[0]
    try:
        return package == "gadgetron" or importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


if __name__ == "__main__":
    from mrnets import commandline

    commandline.settle()
    from gadgets.hosts.external import main

    end(main(sys.argv[1:]))
