"""`python -m training`: check a data set, fit networks to a recipe, evaluate and compare weights, label tissue."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mrnets.commandline import as_process, check_command, program, refuse, with_examples
from mrnets.errors import InputError, nearest, printable
from mrnets.extras import missing

_RECIPES = Path(__file__).parent / "recipes"
PROGRAM = program("training")
EXAMPLES = {
    "check": ("check DATA --recipe fastmri_brains",),
    "fit": (
        "fit fastmri_brains data=DATA device=cuda",
        "fit demo data=FOLDER_OF_ANATOMY steps=2000 --dry-run",
        "fit fastmri_brains data=DATA network.name=varnet optimiser.learning_rate=5e-4",
    ),
    "evaluate": (
        "evaluate weights.safetensors fastmri_brains data=DATA --part test",
        "evaluate varnet_brain,l1varnet_general demo -o evaluation",
        "evaluate weights.safetensors cc359 data=DATA --save predictions --slice 120",
        "evaluate none cc359 data=DATA --predictions predictions",
    ),
    "compare": ("compare varnet,rim,modl compare data=DATA", "compare all compare data=DATA"),
    "export": ("export segunet_tissue -o tissue.onnx", "export weights.safetensors -o network.pt2 --size 192,160"),
    "from-atommic": ("from-atommic projects/REC/CC359/conf/train/varnet.yaml -o recipe.yaml",),
    "tissue": ("tissue HEADS -o DATA",),
    "pool": ("pool FOLDER -o pool.npz",),
}
SEVERAL = (
    "fit RECIPE device=cuda    # on several GPUs: torchrun --nproc-per-node N -m training fit RECIPE device=cuda",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or 1 and one sentence on stderr if it failed.

    After ctrl-C the status is 130, and where nobody reads the output any more 141. Start again to go on.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _parser()
    check_command(parser, given, EXAMPLES)
    chosen, later = parser.parse_known_args(given)
    if any("=" not in word or word.startswith("-") for word in later) or (later and "overrides" not in chosen):
        refuse(commands[chosen.command], later)
    if later:  # argparse takes no more of them after an option such as --recipe or -o
        chosen.overrides += later
    logging.basicConfig(format=f"training {chosen.command}: %(message)s")
    try:
        return int(chosen.run(chosen) or 0)
    except InputError as error:
        print(f"training {chosen.command}: {printable(str(error))}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        extra = "onnx" if str(error.name).startswith("onnx") else "training"
        print(f"training {chosen.command}: {missing(error, extra)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser, and those of its commands."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Train the networks that the gadgets load.",
        **with_examples(PROGRAM, [*(lines[0] for lines in EXAMPLES.values()), *SEVERAL]),
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = _command(commands, "check", "say within seconds what is missing or malformed in a data set", _check)
    check.add_argument("data", metavar="DATA", help="folder of the data set")
    check.add_argument("--recipe", required=True, metavar="RECIPE", help=_recipe_help())
    fit = _command(commands, "fit", "train as a recipe says; goes on where the run's folder has a checkpoint", _fit)
    fit.add_argument("--dry-run", action="store_true", help="only print the bound options, parameters and memory")
    evaluate = _command(
        commands, "evaluate", "table, CSV and figure of weights beside the classical methods", _evaluate
    )
    evaluate.add_argument(
        "weights",
        help="a .safetensors file, or the name of weights that ship; several: W1,W2; or none: saved ones alone",
    )
    evaluate.add_argument(
        "--part", choices=("validation", "test"), default="validation", help="of the data set (default %(default)s)"
    )
    evaluate.add_argument(
        "-o", "--output", default="evaluation", metavar="FOLDER", help="for CSV and figure (default %(default)s)"
    )
    evaluate.add_argument("--save", metavar="FOLDER", help="write every prediction: HDF5 and NIfTI")
    evaluate.add_argument("--predictions", metavar="FOLDER", help="score predictions that were saved, too")
    evaluate.add_argument(
        "--slice",
        default="",
        metavar="NAME",
        help="of the figure, by a part of its name (default: the median score's)",
    )
    evaluate.add_argument(
        "--wavelet", action="store_true", help="beside them l1-wavelet with the best of six thresholds"
    )
    compare = _command(commands, "compare", "train several networks alike, and evaluate them side by side", _compare)
    compare.add_argument("networks", help="names with commas between them, or all: every one of the recipe's task")
    for command in (check, fit, evaluate, compare):
        if command is not check:
            command.add_argument("recipe", metavar="RECIPE", help=_recipe_help())
        command.add_argument(
            "overrides", nargs="*", metavar="key=value", help="data=FOLDER steps=100 loss.ssim=0.5 ..."
        )
    _add_export(commands)
    _add_from_atommic(commands)
    _add_makers(commands)
    return parser, commands.choices


def _add_export(commands: Any) -> None:
    export = _command(commands, "export", "write a network on images as ONNX or for torch.export", _export)
    export.add_argument("weights", help="a .safetensors file, or the name of weights that ship")
    export.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=".onnx or .pt2")
    export.add_argument("--size", default="256,256", metavar="Y,X", help="pixels of its images (default %(default)s)")


def _add_from_atommic(commands: Any) -> None:
    converting = _command(
        commands, "from-atommic", "make a recipe of a training configuration of ATOMMIC", _from_atommic
    )
    converting.add_argument("configuration", metavar="CONFIG", help="its YAML file")
    converting.add_argument("-o", "--output", required=True, metavar="RECIPE", help="the recipe to write (.yaml)")


def _add_makers(commands: Any) -> None:
    """Add the commands that make data sets."""
    tissue = _command(
        commands, "tissue", "label CSF, grey and white matter in heads, for the recipe simulated_joint", _tissue
    )
    tissue.add_argument(
        "folder", type=Path, metavar="FOLDER", help="a folder for each head: T1*, T2*, FLAIR*, GOLD_STANDARD* (NIfTI)"
    )
    tissue.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DATA", help="for the data set, ICBM152 and pictures in it"
    )
    pool = _command(commands, "pool", "gather images of a folder in a file, for the recipe pool", _pool)
    pool.add_argument(
        "folder", type=Path, metavar="FOLDER", help="volumes (.nii, .nii.gz, .cfl) and photographs (.png, .jpg)"
    )
    pool.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write (.npz)")


def _command(commands: Any, name: str, text: str, run: Callable[..., Any]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", **with_examples(PROGRAM, EXAMPLES[name])
    )
    parser.set_defaults(run=run)
    return parser


def _recipes() -> list[str]:
    return sorted(path.stem for path in _RECIPES.glob("*.yaml"))


def _recipe_help() -> str:
    return f"a YAML file, or the name of a recipe that comes along: {', '.join(_recipes())}"


def _recipe(name: str) -> Path:
    """Return the recipe's file; a bare name is one of ours. Raises InputError for one that is neither."""
    if Path(name).name != name or Path(name).suffix or Path(name).is_file():
        return Path(name)
    if name not in _recipes():
        hint = nearest(name, _recipes())
        raise InputError(f"there is no recipe {name!r}; there are: {', '.join(_recipes())}, or a YAML file.{hint}")
    return _RECIPES / f"{name}.yaml"


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

        print(described(options, _unchanged(chosen.recipe)))
        return
    from training.loop import fit

    fit(options)


def _unchanged(recipe: str) -> Any:
    """The options of a recipe alone; None where it cannot be read without settings of the command line."""
    from training.options import read

    try:
        return read(_recipe(recipe))
    except InputError:
        return None


def _evaluate(chosen: argparse.Namespace) -> None:
    from training.evaluate import evaluate
    from training.options import read

    options = read(_recipe(chosen.recipe), chosen.overrides)
    evaluate(
        chosen.weights.split(","),
        options,
        part=chosen.part,
        folder=chosen.output,
        wavelet=chosen.wavelet,
        save=chosen.save,
        predictions=chosen.predictions,
        shown=chosen.slice,
    )


def _compare(chosen: argparse.Namespace) -> None:
    from training.compare import compare
    from training.options import read

    options = read(_recipe(chosen.recipe), chosen.overrides)
    compare(chosen.networks.split(","), options)


def _export(chosen: argparse.Namespace) -> None:
    from mrnets.values import converted
    from training.portable import exported

    try:
        size = converted(chosen.size.split(","), tuple[int, int])
    except ValueError:
        raise InputError(f"--size must be two numbers, such as 256,256, got {chosen.size!r}") from None
    print(f"wrote {exported(chosen.weights, chosen.output, size)}")


def _from_atommic(chosen: argparse.Namespace) -> None:
    from training.atommic.convert import write

    converted = write(chosen.configuration, chosen.output)
    for line in converted.lines:
        print(line)
    print(f"wrote {chosen.output}; settings without a counterpart, which it lists: {len(converted.lines)}")


def _tissue(chosen: argparse.Namespace) -> None:
    from training.tissue import prepare

    prepare(chosen.folder, chosen.output)


def _pool(chosen: argparse.Namespace) -> None:
    from training.simulation import save_images
    from training.simulation.gather import gathered

    images = gathered(chosen.folder)
    save_images(chosen.output, images)
    print(f"{chosen.output}: {len(images.names)} images of {len(set(images.names))} sources")


def console() -> int:
    """Run the command line as the program of a process, before NumPy and torch are imported."""
    return as_process(main)


if __name__ == "__main__":
    sys.exit(console())
