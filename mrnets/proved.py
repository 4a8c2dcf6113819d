"""Kernels of Triton are used for a form of scans only after their image was that of torch's operations."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Hashable

import torch

from mrnets.blocks.fused import with_kernels
from mrnets.contract import Estimate, Scan
from mrnets.graphs import Forward, agree, form_of, shows
from mrnets.tensors import lacks_memory

__all__ = ["Proved"]

MOST = 256
"""Forms of scans that are known. The ones used longest ago go first."""
TOLERANCE, ROUNDED = 3e-3, 3e-2
"""Distance of the two images, relative to the norm, from which on torch's operations are used. The second is for
convolutions in half precision. TF32, which is on in both, makes 1e-4 to 3e-4 of it (H200)."""

_logger = logging.getLogger(__name__)


class Proved:
    """Runs of a network with kernels, each form of scans after a comparison with the run without them."""

    def __init__(self) -> None:
        self._good: OrderedDict[Hashable, bool] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, forward: Forward, scan: Scan, name: Hashable, *, rounded: bool = False) -> Estimate:
        """Return `forward(scan)`. The same name means the same computation. rounded: it is in half precision."""
        form = (name, form_of(scan))
        with self._lock:
            good = self._good.get(form)
            if good is not None:
                self._good.move_to_end(form)
        if good:
            with with_kernels():
                return forward(scan)
        plain = forward(scan)
        if good is None and shows(plain):
            self._learn(form, _right(forward, scan, plain, ROUNDED if rounded else TOLERANCE))
        return plain

    def _learn(self, form: Hashable, good: bool | None) -> None:
        if good is None:
            return
        with self._lock:
            self._good[form] = good
            while len(self._good) > MOST:
                self._good.popitem(last=False)


def _right(forward: Forward, scan: Scan, plain: Estimate, tolerance: float) -> bool | None:
    """Return whether kernels give what torch's operations gave. The log says why not.

    None: memory did not suffice to tell. The next scan of the form tells."""
    reason = "their image differs from that of torch's operations"
    try:
        with with_kernels(), torch.inference_mode():
            if agree(forward(scan), plain, tolerance):
                return True
    except Exception as error:  # noqa: BLE001 whatever they fail by, the plain image is there
        if lacks_memory(error):
            return None
        reason = " ".join(str(error).split())[:200] or type(error).__name__
    _logger.warning("Triton's kernels are not used: %s", reason)
    return False
