"""Recipes: every mistake is one sentence that names the place."""

from pathlib import Path

import pytest

from mrnets.errors import InputError
from tests.texts import REPEATED
from training.limits import _ABOVE_ZERO, _BELOW, _LEAST, _MOST, _RANGES, _numbers
from training.options import read

RECIPES = sorted((Path(__file__).parents[2] / "training" / "recipes").glob("*.yaml"))
LEAST = "network: {name: zerofilled}\nweights: w.safetensors\nfolder: f\n"


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipes_that_ship_are_valid(path: Path) -> None:
    options = read(path)
    assert options.data is None  # no place of one machine in a recipe
    assert not Path(options.folder).is_absolute()


def test_command_line_goes_over_recipe_goes_over_defaults(tmp_path: Path) -> None:
    path = recipe(tmp_path, LEAST + "steps: 5\noptimiser: {learning_rate: 1e-4, clip: 2}\n")
    options = read(path, ["optimiser.learning_rate=3e-4", "simulated.matrix=[32, 48]", "data=there", "loss.ssim=1"])
    assert (options.steps, options.batch) == (5, 1)
    assert (options.optimiser.learning_rate, options.optimiser.clip, options.optimiser.ema) == (3e-4, 2.0, 0.999)
    assert options.simulated.matrix == (32, 48)
    assert options.data == "there"
    assert isinstance(options.loss.ssim, float)


@pytest.mark.parametrize(
    ("given", "steps", "epochs"),
    [([], 10000, 3.0), (["steps=5"], 5, None), (["epochs=2"], 10000, 2.0), (["steps=5", "epochs=2"], 5, 2.0)],
)
def test_steps_on_the_command_line_go_over_epochs_of_the_recipe(tmp_path, given, steps, epochs) -> None:
    options = read(recipe(tmp_path, LEAST + "epochs: 3\n"), given)
    assert (options.steps, options.epochs) == (steps, epochs)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("step=3", "unknown option: 'step'; did you mean 'steps'"),
        ("optimiser.learningrate=1", "unknown option of optimiser: 'learningrate'; did you mean 'learning_rate'"),
        ("preparation.treshold=0.1", "did you mean 'threshold'"),
        ("preparation.sens=espirt", "preparation.sens must be"),
        ("network.name=varnett", "did you mean 'varnet'"),
        ("network.options.channels=3", "unknown option of network zerofilled"),
        ("steps=many", "option steps must be an integer, got 'many'"),
        ("steps=true", "option steps must be an integer"),
        ("simulated.coils=[4]", "option simulated.coils must be"),
        ("steps.x=1", "steps has no parts"),
        ("steps", "expected key=value"),
        ("precision=float8", "option precision must be"),
        ("steps=[", "steps=[ is not YAML"),
        pytest.param(f"steps={'9' * 5000}", "is not YAML", id="a number of 5000 digits"),
        pytest.param(f"steps={'[' * 3000}", "is not YAML", id="3000 lists in each other"),
        ("steps=!!bool x", "steps=!!bool x is not YAML"),
        ("steps=!!int ''", "steps=!!int '' is not YAML"),
        pytest.param(f"steps={REPEATED}", "repeats its parts", id="aliases"),
        ("steps=&a [*a]", "repeats its parts"),
        ("steps=!!timestamp x", "steps=!!timestamp x is not YAML"),
        ("steps=0", "option steps must be at least 1, got 0"),
        ("epochs=-1", "option epochs must be above 0, got -1"),
        ("save_every=0", "option save_every must be at least 1, got 0"),
        ("validation.every=0", "option validation.every must be at least 1, got 0"),
        ("validation.examples=-1", "option validation.examples must be at least 0, got -1"),
        ("workers=-1", "option workers must be at least 0, got -1"),
        ("seed=-1", "option seed must be at least 0 and below"),
        ("optimiser.clip=0", "option optimiser.clip must be above 0, got 0"),
        ("optimiser.ema=1", "option optimiser.ema must be at least 0 and below 1, got 1"),
        ("augmentation.crop=2", "option augmentation.crop must be above 0 and at most 1, got 2"),
        ("augmentation.motion.poses=1", "option augmentation.motion.poses must be at least 2, got 1"),
        ("simulated.snr=[200, 10]", "option simulated.snr must be [least, largest], got [200.0, 10.0]"),
        ("simulated.calibration=[0, 8]", "option simulated.calibration must be at least 1, got [0, 8]"),
        ("simulated.matrix=[]", "option simulated.matrix must have at least one value"),
        ("masks.names=[]", "option masks.names must have at least one value"),
        ("self_supervised.share=1", "option self_supervised.share must be at least 0 and below 1, got 1"),
        ("stages=[{until: 4, loss: {l1: 1}}, {until: 2, loss: {l1: 1}}]", "each must end after the one before it"),
    ],
)
def test_mistakes(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        read(recipe(tmp_path, LEAST + "steps: 3\n"), [override])


def test_every_number_has_limits() -> None:
    """A name in the tables of limits that no option has would limit nothing."""
    checked = {name for name, _ in _numbers(read(next(p for p in RECIPES if p.stem == "simulated_maps"), ["epochs=1"]))}
    limited = {*_LEAST, *_ABOVE_ZERO, *_MOST, *_BELOW, *_RANGES}
    assert limited <= checked
    assert {"steps", "optimiser.clip", "augmentation.motion.turn", "simulated.matrix"} <= checked


def test_keys_with_values_change_what_they_name(tmp_path: Path) -> None:
    text = (
        LEAST.replace("zerofilled", "varnet, options: {sens_net: true, cascades: 3}") + "loss: {ssim: 0.5, l1: 0.5}\n"
    )
    options = read(recipe(tmp_path, text), ["network.options={cascades: 4, channels: 6}", "loss={l1: 1}"])
    assert options.network.options == {"sens_net": True, "cascades": 4, "channels": 6}
    assert (options.loss.ssim, options.loss.l1) == (0.5, 1.0)


def test_another_network_keeps_the_options_that_it_has(tmp_path: Path) -> None:
    text = LEAST.replace("zerofilled", "varnet, options: {sens_net: true, start_iterations: 9, num_cascades: 3}")
    path = recipe(tmp_path, text)
    assert read(path, ["network.name=cirim"]).network.options == {"sens_net": True, "cascades": 3}
    assert read(path, ["network.name=unet", "network.options={channels: 8}"]).network.options == {
        "sens_net": True,
        "channels": 8,
    }
    assert read(path, ["network.name=varnet"]).network.options["start_iterations"] == 9


def test_what_is_missing_or_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="option weights is missing"):
        read(recipe(tmp_path, "network: {name: zerofilled}\nfolder: f\n"))
    with pytest.raises(InputError, match=r"option network\.name is missing"):
        read(recipe(tmp_path, "network: {}\nfolder: f\nweights: w\n"))
    with pytest.raises(InputError, match="expected keys and values"):
        read(recipe(tmp_path, "- 1\n"))
    with pytest.raises(InputError, match=r"cannot read .*absent.yaml"):
        read(tmp_path / "absent.yaml")
