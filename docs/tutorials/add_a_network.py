# %% [markdown]
# # Add a network
#
# A network of your own in a package of your own: nothing of this project changes. It is trained, recorded in a weights
# file, and runs in a chain. It takes less than a minute on one processor core.

# %%
import shlex
import subprocess
import sys
from pathlib import Path


def run(command: str) -> None:
    """Run a command of this project, such as "mrnets list", and show what it prints."""
    words = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout)


# %% [markdown]
# ## The contract
#
# A network is a PyTorch module. Its options are keyword-only arguments of its constructor. `forward` takes a `Scan` and
# gives an `Estimate`. No base class is needed.
#
# - `Scan` has `kspace` (batch, echo, coil, y, x), `mask`, `sens` (batch, set, coil, y, x) and the noise level. Samples
#   that were not measured are 0.
# - `Estimate` has `image` (batch, echo, y, x). Networks for maps or labels fill other fields.
# - `TRAITS` says what the network takes and gives. All of its values are literals.
#
# `encoded` gives the physics: `start` is the adjoint of the data, and `gradient` that of the data term. This network
# alternates a step along the gradient with a small convolutional network.

# %%
Path("my_networks").mkdir(exist_ok=True)
Path("my_networks/__init__.py").write_text('"""Networks of a site."""\n\n__version__ = "0.1.0"\n')
Path("my_networks/unrolled.py").write_text('''"""Gradient descent with a small convolutional network after each step."""

import torch
from torch import nn

from mrnets.blocks.checks import whole
from mrnets.blocks.complex import on_channels
from mrnets.blocks.encoding import encoded
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["Unrolled"]

TRAITS = Traits(
    task="reconstruction",
    title="gradient descent with a small convolutional network",
    paper="this tutorial",
    small={"steps": 2, "channels": 4},
    narrow={"steps": 4, "channels": 16},
)


class Unrolled(nn.Module):
    """x <- x - t E^H (E x - k) + CNN(x), from x = E^H k."""

    def __init__(self, *, steps: int = 5, channels: int = 32) -> None:
        super().__init__()
        whole("steps", steps, 1, 100)
        whole("channels", channels, 1, 1024)
        self.sizes = nn.Parameter(torch.ones(steps))
        self.refine = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 2, 3, padding=1))
            for _ in range(steps)
        )

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self)
        x = encoding.start
        for size, refine in zip(self.sizes, self.refine, strict=True):
            x = x - size * encoding.gradient(x) + on_channels(refine, x)
        return encoding.estimate(x)
''')

# %% [markdown]
# ## Training
#
# `network.name` is the module and the class. Here the recipe `demo` draws simulated scans of one head. With your own
# data, take the recipe `ismrmrd` and `data=FOLDER`.

# %%
run(
    "training fit demo network.name=my_networks.unrolled:Unrolled 'network.options={steps: 3, channels: 8}' "
    "folder=run weights=run/unrolled.safetensors steps=40 workers=0 'validation={every: 20, examples: 2}' "
    "'simulated={matrix: [64], coils: [6, 8], examples: 40}'"
)

# %% [markdown]
# The weights file records the class, the name of the package, and its version.

# %%
from mrnets import store

header = store.header("run/unrolled.safetensors")
print(header["network"], header["options"])

# %% [markdown]
# ## A chain
#
# Code of others runs on a scanner only where the operator allows its package by name. Without `--allow`, there is one
# sentence and no image. `serve` has the same option. The self-check says that forty steps of training are too few;
# without `network.check=warn`, l1-wavelet's image would take the place of this one.

# %%
run("gadgets simulate -o scan.h5 --matrix 64 --coils 8 --acceleration 3 --calibration 12 --seed 5")
run(
    "gadgets replay scan.h5 -c network --set network.weights=run/unrolled.safetensors --set network.check=warn "
    "--allow my_networks -o images.h5 --png pictures"
)

# %% [markdown]
# ## A name of its own, and a package
#
# An entry point in the package's `pyproject.toml` gives the network a short name:
#
# ```toml
# [project.entry-points."gadgetron_networks.networks"]
# unrolled = "my_networks.unrolled:Unrolled"
# ```
#
# After `pip install` of the package, `network.name=unrolled` is enough. `docs/example_package` is such a package, with
# a gadget, a reader and a loss beside the network. To bring a network into this project instead, put its file into
# `mrnets/nets/`: every test over all networks then tests it, too.
