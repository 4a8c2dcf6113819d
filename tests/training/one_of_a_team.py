"""One process of a run that `test_team.py` starts: leaves the first step's gradients in a file beside its weights."""

import sys
from pathlib import Path
from typing import Any

import torch

from training import loop, step
from training.options import read


def main(recipe: str, *overrides: str) -> None:
    options = read(recipe, overrides)
    update = step.update

    def kept(run: Any, *settings: float) -> Any:
        path = Path(f"{options.weights}.gradients")
        if not path.exists():
            torch.save({name: p.grad for name, p in run.network.named_parameters()}, path)
        return update(run, *settings)

    step.update = kept
    torch.set_num_threads(1)
    loop.fit(options)


if __name__ == "__main__":
    main(*sys.argv[1:])
