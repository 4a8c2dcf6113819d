"""Networks trained with ATOMMIC 1.0.1 as weights files of ours: `python -m mrnets import-atommic`.

Its archive is a tar, plain or gzip, of `model_config.yaml` and `model_weights.ckpt`. The weights are read as tensors
and nothing else (`weights_only`), the settings by YAML's safe reader, both up to a bounded size. A setting that this
program would compute differently is refused, never passed over.
"""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mrnets import store
from mrnets.atommic import keys
from mrnets.atommic.data import Settings, found
from mrnets.atommic.notes import notes
from mrnets.atommic.settings import translated
from mrnets.errors import InputError
from mrnets.extras import install
from mrnets.texts import yaml_of

__all__ = ["Imported", "convert", "import_atommic", "read"]

_LARGEST = {"model_config.yaml": 2**20, "model_weights.ckpt": 2**32}
"""Bytes."""


@dataclass(frozen=True)
class Imported:
    """A network of ours with ATOMMIC's weights, with the arguments of `store.save`."""

    name: str
    options: dict[str, Any]
    network: nn.Module
    preparation: dict[str, Any]


def import_atommic(
    checkpoint: str | os.PathLike[str], out: str | os.PathLike[str], config: str | os.PathLike[str] | None = None
) -> Imported:
    """Read ATOMMIC's `checkpoint`, write our weights file `out` and return the imported network.

    config: its YAML, for a checkpoint that is not an archive. Raises InputError with one sentence for whatever cannot
    be read, or would not be computed as ATOMMIC does.
    """
    settings, weights = read(checkpoint, config)
    imported = convert(settings, weights)
    store.save(
        out,
        imported.network,
        name=imported.name,
        options=imported.options,
        preparation=imported.preparation,
        provenance={
            "imported": f"from ATOMMIC {settings.get('atommic_version', '(version unknown)')}, {settings['target']}",
            "file": Path(checkpoint).name,
            "normalisation": f"trained with {found(settings, 'normalization_type') or 'an unknown one'}",
            "notes": list(notes(imported.name, imported.options)),
        },
    )
    return imported


def convert(settings: Settings, weights: Mapping[str, Tensor]) -> Imported:
    """Our network from ATOMMIC's settings (its model section, with `target`) and state dict."""
    ours = translated(settings)
    network = store.create(ours.name, **ours.options)
    _load(network, keys.state_dict(ours.published, weights), ours.published)
    return Imported(ours.name, ours.options, network, ours.preparation)


def read(
    checkpoint: str | os.PathLike[str], config: str | os.PathLike[str] | None = None
) -> tuple[Settings, dict[str, Tensor]]:
    """Return settings and state dict of an archive, or of a checkpoint with its YAML.

    Raises InputError for what cannot be read, and for what is no regular file."""
    path = Path(checkpoint)
    try:
        for one in (path, Path(config or path)):
            if one.exists() and not one.is_file():  # a device may have no end
                raise InputError(f"cannot read {one}: it is not a regular file")
        if config is None:
            parts = _unpacked(path)
        else:
            parts = {"model_config.yaml": Path(config).read_bytes(), "model_weights.ckpt": path.read_bytes()}
    except OSError as error:
        raise InputError(f"cannot read {error.filename or path}: {error.strerror or error}") from None
    return _settings(parts["model_config.yaml"], config or path), _weights(parts["model_weights.ckpt"], path)


def _unpacked(path: Path) -> dict[str, bytes]:
    parts: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                file = archive.extractfile(member) if name in _LARGEST and member.isfile() else None
                if file is None:
                    continue
                if member.size > _LARGEST[name]:
                    raise InputError(f"{name} in {path} has {member.size} bytes, more than any network needs")
                parts[name] = file.read(_LARGEST[name])
    except InputError:
        raise
    except (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        raise InputError(f"{path} is not an archive of ATOMMIC, and no settings were given with --config") from None
    for name in _LARGEST:
        if name not in parts:
            raise InputError(f"{path} is not an archive of ATOMMIC: it has no {name}")
    return parts


def _settings(text: bytes, source: str | os.PathLike[str]) -> Settings:
    try:
        value = yaml_of(text[: _LARGEST["model_config.yaml"]].decode("utf-8"), f"the configuration in {source}")
    except ImportError:
        raise InputError(f"ATOMMIC's settings are YAML, and PyYAML is not installed: {install('training')}") from None
    except UnicodeDecodeError:
        raise InputError(f"the configuration in {source} is not YAML: it is not UTF-8 text") from None
    if isinstance(value, dict) and isinstance(value.get("model"), dict):
        value = {**value["model"], **{k: v for k, v in value.items() if k in ("target", "atommic_version")}}
    if not isinstance(value, dict) or not isinstance(value.get("target"), str):
        raise InputError(f"the settings in {source} do not name a network (target)")
    return cast(Settings, value)


def _weights(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 torch raises whatever the bytes make it
        reason = str(error).partition("\n")[0]
        raise InputError(f"the weights in {path} cannot be read as tensors alone: {reason}") from None
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    if not isinstance(value, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()):
        raise InputError(f"the weights in {path} are not a state dict")
    for key, tensor in value.items():
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_complex():
            raise InputError(f"the weights in {path} are not real numbers alone: {key} is something else")
    return dict(value)


def _load(network: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    expected = network.state_dict()
    for key in sorted(expected.keys() | weights.keys()):
        shapes = [tuple(state[key].shape) if key in state else "absent" for state in (expected, weights)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"cannot import: {key} of our {name} should be {shapes[0]} by the settings, and is {shapes[1]}"
            )
    network.load_state_dict(dict(weights))
