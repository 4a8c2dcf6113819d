"""`python -m training`: fit a network to a recipe, or evaluate a weights file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mrnets.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 and one sentence on stderr if it failed; 130 after ctrl-C (start again to go on)."""
    parser = argparse.ArgumentParser(prog="python -m training", description="Train networks for gadgets.")
    commands = parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser("fit", help="train as a recipe says; goes on where the run's folder has a checkpoint")
    evaluate = commands.add_parser("evaluate", help="scores of weights on a recipe's validation scans, beside cgsense")
    evaluate.add_argument("weights", help="a .safetensors file, or the name of weights that ship")
    for command in (fit, evaluate):
        command.add_argument("recipe", help="a YAML file, for example training/recipes/demo.yaml")
        command.add_argument(
            "overrides", nargs="*", metavar="key=value", help="data=FOLDER steps=100 loss.ssim=0.5 ..."
        )
    args = parser.parse_args(arguments)
    try:
        from training.options import read

        options = read(args.recipe, args.overrides)
        if args.command == "fit":
            from training.loop import fit as train

            train(options)
        else:
            from training.evaluate import evaluate as measure

            measure(args.weights, options)
    except InputError as error:
        print(f"training {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
