"""One of ATOMMIC's training configurations as a recipe, with a line for every setting that has no counterpart."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrnets import store
from mrnets.atommic.settings import rounded_steps
from mrnets.errors import InputError
from training import options
from training.atommic import data, learning
from training.atommic.known import differences, lines
from training.atommic.parts import Part, read

__all__ = ["Converted", "convert", "write"]

_RECIPES = Path(options.__file__).parent / "recipes"
_NETWORKS = {
    "CascadeNet": "ccnn",
    "CIRIM": "cirim",
    "CRNNet": "crnn",
    "IDSLR": "idslr",
    "IDSLRUNET": "idslrunet",
    "JointICNet": "jointicnet",
    "KIKINet": "kikinet",
    "LPDNet": "lpdnet",
    "MTLRS": "mtlrs",
    "MoDL": "modl",
    "RVN": "rvn",
    "SEGMENTATION3DUNET": "unet3d",
    "SEGMENTATIONATTENTIONUNET": "attentionunet",
    "SEGMENTATIONDYNUNET": "dynunet",
    "SEGMENTATIONUNET": "segunet",
    "SEGMENTATIONVNET": "vnet",
    "SEGNET": "segnet",
    "UNet": "unet",
    "VN": "varnet",
    "VSNet": "vsnet",
    "XPDNet": "xpdnet",
    "qCIRIM": "qcirim",
    "qVN": "qvarnet",
}
"""Our name of what ATOMMIC calls model_name."""
_OF_DATA = ("contrasts", "classes", "coils")
"""Options that are read from the data."""
_ROUNDED = ("time_steps", "num_steps", "reconstruction_module_time_steps")
"""Settings that ATOMMIC rounds; see `rounded_steps`."""


@dataclass(frozen=True)
class Converted:
    """A recipe, as YAML has it."""

    recipe: dict[str, Any]
    lines: list[str]
    """A line for every setting that has no counterpart."""


def write(configuration: str | Path, out: str | Path) -> Converted:
    """Convert the file `configuration`, and write the recipe `out` with the lines as comments at its top.

    Raises InputError for a file that is no training configuration, and for a network or data set that is not known
    here. Raises it also where `out` cannot be written.
    """
    import yaml

    converted = convert(configuration)
    heading = [
        f"From the configuration {Path(configuration).name} of ATOMMIC 1.0.1.",
        f"  python -m training fit {out} data=FOLDER",
        *(["Settings without a counterpart:"] if converted.lines else []),
        *converted.lines,
    ]
    text = "".join(f"# {' '.join(line.splitlines())}\n" for line in heading)
    text += yaml.safe_dump(converted.recipe, sort_keys=False, default_flow_style=None, width=120)
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from None
    return converted


def convert(configuration: str | Path) -> Converted:
    """Return the recipe of the file `configuration`. Raises InputError as `write` does."""
    import yaml

    settings = read(configuration)
    name = _network(settings.model)
    task = store.describe(name).task
    shipped = data.base(settings, task)
    base = yaml.safe_load((_RECIPES / f"{shipped}.yaml").read_text(encoding="utf-8"))
    given, told = _options(settings.model, name)
    if name == "jointicnet" and base["preparation"]["sens"] == "none":
        given["sens_net"] = True  # ATOMMIC's estimates its maps itself
    run = f"runs/{shipped}_{name}"
    recipe = {
        "network": {"name": name, "options": given},
        "weights": f"{run}/weights.safetensors",
        "folder": run,
        **{key: base[key] for key in ("seen", "licence") if key in base},
        "reader": data.reader(settings, base),
        "masks": data.masks(settings, base),
        "preparation": data.preparation(settings, base, _maps(name, given)),
        "loss": learning.loss(settings),
        "optimiser": learning.optimiser(settings),
        **{key: base[key] for key in ("validation", "save_every") if key in base},
        **learning.run(settings),
    }
    recipe = {key: value for key, value in recipe.items() if value != {}}
    _check(recipe)
    for part in settings.parts:
        told += lines(part)
    return Converted(recipe, [*told, *differences(settings.data, settings.validation)])


def _network(model: Part) -> str:
    kind = str(model.take("model_name"))
    if kind not in _NETWORKS:
        raise InputError(f"there is no network here for ATOMMIC's {kind}; there is for {', '.join(_NETWORKS)}")
    name = _NETWORKS[kind]
    return "rim" if name == "cirim" and model.values.get("num_cascades") == 1 else name


def _options(model: Part, name: str) -> tuple[dict[str, Any], list[str]]:
    """Return the options of the network by our names, and a line for every one that it does not have so."""
    names, fixed = store.describe(name).names_of_options, store.fixed_options(name)
    known = store.bind(name)
    given = _levels(model) if name == "dynunet" else {}
    told = []
    for key in model.values:
        ours = names.get(key, key)
        if ours not in known and key not in fixed:
            continue
        value = model.take(key)
        if value is None or ours in _OF_DATA:
            continue
        if key in _ROUNDED:
            value = rounded_steps(value)
        try:
            bound = store.bind(name, **given, **{key: value})
        except InputError as error:
            told.append(f"{model.name}.{key}: {value} ({error})")
            continue
        if ours in bound:
            given[ours] = _listed(bound[ours])
    return given, told


def _maps(name: str, given: dict[str, Any]) -> str:
    """Return where sensitivities come from that the data neither have nor are to get by an estimate."""
    return "none" if given.get("sens_net") or store.describe(name).sens != "needed" else "unitary"


def _levels(model: Part) -> dict[str, Any]:
    """Return width and depth of dynunet, whose widths ATOMMIC lists."""
    widths, strides = (model.numbers(f"segmentation_module_{key}") for key in ("channels", "strides"))
    model.met.discard("segmentation_module_strides")
    return {"channels": int(widths[0]), "pooling_layers": len(strides) - 1} if widths and len(strides) > 1 else {}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check(recipe: dict[str, Any]) -> None:
    """Raise InputError where the recipe would not be read."""
    import yaml

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        options.read(path)
