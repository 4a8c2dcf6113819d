"""`python -m training`: check a data set, fit networks to a recipe, evaluate and compare weights, label tissue."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mrnets import threads
from mrnets.errors import InputError

_RECIPES = Path(__file__).parent / "recipes"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or 1 and one sentence on stderr if it failed.

    After ctrl-C the status is 130, and where nobody reads the output any more 141. Start again to go on.
    """
    parser = _parser()
    chosen, later = parser.parse_known_args(arguments)
    if any("=" not in word or word.startswith("-") for word in later) or (later and "overrides" not in chosen):
        parser.error(f"unrecognized arguments: {' '.join(later)}")
    if later:  # argparse takes no more of them after an option such as --recipe or -o
        chosen.overrides += later
    logging.basicConfig(format=f"training {chosen.command}: %(message)s")
    try:
        status = int(chosen.run(chosen) or 0)
        sys.stdout.flush()
        return status
    except InputError as error:
        print(f"training {chosen.command}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package in ("mrnets", "training"):
            raise
        extra = package if package in ("tensorboard", "wandb") else "training"
        advice = f"in the project's folder, pip install '.[{extra}]' installs it"
        print(f"training {chosen.command}: the Python package {package} is missing; {advice}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Train the networks that the gadgets load.",
        epilog="With several GPUs: torchrun --nproc-per-node N -m training fit RECIPE device=cuda",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="say within seconds what is missing or malformed in a data set")
    check.add_argument("data", metavar="DATA", help="folder of the data set")
    check.add_argument("--recipe", required=True, metavar="RECIPE", help=_recipe_help())
    check.set_defaults(run=_check)
    fit = commands.add_parser("fit", help="train as a recipe says; goes on where the run's folder has a checkpoint")
    fit.add_argument("--dry-run", action="store_true", help="only print the bound options, parameters and memory")
    fit.set_defaults(run=_fit)
    evaluate = commands.add_parser("evaluate", help="table, CSV and figure of weights beside the classical methods")
    evaluate.add_argument("weights", help="a .safetensors file, or the name of weights that ship; several: W1,W2")
    evaluate.add_argument("--part", choices=("validation", "test"), default="validation", help="of the data set")
    evaluate.add_argument("-o", "--output", default="evaluation", metavar="FOLDER", help="for the CSV and the figure")
    evaluate.add_argument(
        "--wavelet", action="store_true", help="beside them l1-wavelet with the best of six thresholds"
    )
    evaluate.set_defaults(run=_evaluate)
    compare = commands.add_parser("compare", help="train several networks alike, and evaluate them side by side")
    compare.add_argument("networks", help="names with commas between them, or all: every one of the recipe's task")
    compare.set_defaults(run=_compare)
    tissue = commands.add_parser("tissue", help="label CSF, grey and white matter in heads, for the recipe tissue")
    tissue.add_argument(
        "folder", type=Path, metavar="FOLDER", help="a folder for each head: T1*, T2*, FLAIR*, GOLD_STANDARD* (NIfTI)"
    )
    tissue.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DATA", help="for the data set, ICBM152 and pictures in it"
    )
    tissue.set_defaults(run=_tissue)
    pool = commands.add_parser("pool", help="gather images of a folder in a file, for the recipe pool")
    pool.add_argument(
        "folder", type=Path, metavar="FOLDER", help="volumes (.nii, .nii.gz, .cfl) and photographs (.png, .jpg)"
    )
    pool.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write (.npz)")
    pool.set_defaults(run=_pool)
    for command in (check, fit, evaluate, compare):
        if command is not check:
            command.add_argument("recipe", metavar="RECIPE", help=_recipe_help())
        command.add_argument(
            "overrides", nargs="*", metavar="key=value", help="data=FOLDER steps=100 loss.ssim=0.5 ..."
        )
    return parser


def _recipe_help() -> str:
    known = ", ".join(sorted(path.stem for path in _RECIPES.glob("*.yaml")))
    return f"a YAML file, or the name of a recipe that comes along: {known}"


def _recipe(name: str) -> Path:
    """The recipe's file; a bare name is one of ours."""
    ours = _RECIPES / f"{name}.yaml"
    return ours if Path(name).name == name and not Path(name).suffix and ours.exists() else Path(name)


def _check(chosen: argparse.Namespace) -> int:
    from training.options import read
    from training.survey import problems

    found = 0
    for problem in problems(read(_recipe(chosen.recipe), [f"data={chosen.data}", *chosen.overrides])):
        found += 1
        print(problem)
    if not found:
        print(f"{chosen.data}: nothing is missing or malformed")
    return 1 if found else 0


def _fit(chosen: argparse.Namespace) -> None:
    from training.options import read

    options = read(_recipe(chosen.recipe), chosen.overrides)
    if chosen.dry_run:
        from training.survey import described

        print(described(options))
        return
    from training.loop import fit

    fit(options)


def _evaluate(chosen: argparse.Namespace) -> None:
    from training.evaluate import evaluate
    from training.options import read

    options = read(_recipe(chosen.recipe), chosen.overrides)
    evaluate(chosen.weights.split(","), options, part=chosen.part, folder=chosen.output, wavelet=chosen.wavelet)


def _compare(chosen: argparse.Namespace) -> None:
    from training.compare import compare
    from training.options import read

    options = read(_recipe(chosen.recipe), chosen.overrides)
    compare(chosen.networks.split(","), options)


def _tissue(chosen: argparse.Namespace) -> None:
    from training.tissue import prepare

    prepare(chosen.folder, chosen.output)


def _pool(chosen: argparse.Namespace) -> None:
    from training.simulation import save_images
    from training.simulation.gather import gathered

    images = gathered(chosen.folder)
    save_images(chosen.output, images)
    print(f"{chosen.output}: {len(images.names)} images of {len(set(images.names))} sources")


if __name__ == "__main__":
    threads.settle()
    sys.exit(main())
