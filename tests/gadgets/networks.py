"""Networks of random weights, saved for the gadget."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from gadgets.network import network as checked_network
from mrnets import store
from mrnets.preparation import Preparation
from tests.gadgets.frames import frames, header

network = partial(checked_network, check="off")
"""Networks of random weights are not to be trusted."""
SMALL = {"cascades": 1, "channels": 2, "pooling_layers": 1}
LABELS = ["background", "lesion", "oedema"]


def failing(error=None, output=None):
    """A network that raises, or gives what `output` makes of its scan."""

    class Failing(torch.nn.Module):
        def forward(self, scan):
            if error is not None:
                raise error
            return output(scan)

    return Failing()


def save(
    path: Any,
    name: str,
    labels: Any = (),
    units: Any = None,
    options: Any = None,
    provenance: Any = None,
    seed: int = 0,
    **preparation: Any,
) -> str:
    """Save a small network of random weights; the path."""
    torch.manual_seed(seed)
    bound = {**store.describe(name).small, **(options or {})}
    store.save(
        path,
        store.create(name, **bound),
        name=name,
        options=bound,
        preparation=Preparation(**preparation).to_json(),
        units=units,
        labels=labels,
        provenance=provenance,
    )
    return str(path)


def save_small(path: Any, seed: int = 0, **preparation: Any) -> str:
    """Save a varnet that is smaller still."""
    labels, units = ["background", "grey matter"], {"R2*": "1/s"}
    return save(path, "varnet", labels, units, SMALL, seed=seed, **preparation)


def reconstructed(count: int = 1, **options: Any) -> Any:
    """Frames of a disc with images by CG-SENSE."""
    return list(checked_network(frames(count, **options), header(), name="cgsense"))
