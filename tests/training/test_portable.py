"""Networks as ONNX and for torch.export: they compute what the network computes, or the reason is told."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mrnets import store
from mrnets.errors import InputError
from mrnets.preparation import Preparation
from mrnets.prepare_image import prepare_image
from training.__main__ import main
from training.portable import FACTS, exported

SIZE = (48, 32)
ON_IMAGES = [n for n in store.names() if store.describe(n).takes == "image"]
OTHERS = [n for n in store.names() if store.describe(n).takes != "image" and store.describe(n).learns]


def weights(folder: Path, name: str, **preparation: Any) -> Path:
    """A weights file of a small network, not trained."""
    traits = store.describe(name)
    options = dict(traits.small)
    if traits.takes == "image":
        options |= {"contrasts": 2, "classes": 3}
        preparation = {"image": "magnitude", "normalisation": "minmax", "contrasts": 2, **preparation}
    path = folder / f"{name}.safetensors"
    store.save(
        path,
        store.create(name, **options),
        name=name,
        options=options,
        preparation=Preparation(slices=traits.slices, **preparation).to_json(),
        labels=["a", "b", "c"],
    )
    return path


def images(name: str) -> torch.Tensor:
    """Three of any scale."""
    slices = store.describe(name).slices
    return 700 * torch.rand((3, 2, *([slices] if slices > 1 else []), *SIZE)) + 20


def logits(path: Path, image: torch.Tensor) -> torch.Tensor:
    """The result of the weights file on a scanner."""
    trained = store.load(path)
    scan = prepare_image(image, Preparation.from_json(trained.preparation)).scan
    with torch.no_grad():
        return trained.network(scan).logits


def each(quick: str) -> list[Any]:
    return [pytest.param(name, marks=() if name == quick else pytest.mark.slow) for name in ON_IMAGES]


@pytest.mark.parametrize("name", each("segunet"))
def test_a_program_computes_what_the_network_computes(name: str, tmp_path: Path) -> None:
    path = weights(tmp_path, name)
    exported(path, tmp_path / "network.pt2", SIZE)
    held = {FACTS: ""}
    program = torch.export.load(str(tmp_path / "network.pt2"), extra_files=held).module()
    image = images(name)
    torch.testing.assert_close(program(image), logits(path, image), atol=1e-4, rtol=1e-4)
    facts = json.loads(held[FACTS])
    assert facts["labels"] == ["a", "b", "c"]
    assert facts["preparation"]["normalisation"] == "minmax"


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_IMAGES)
def test_onnx_computes_what_the_network_computes(name: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    path = weights(tmp_path, name)
    exported(path, tmp_path / "network.onnx", SIZE)
    image = images(name)
    session = runtime.InferenceSession(str(tmp_path / "network.onnx"))
    (made,) = session.run(["logits"], {"image": image.numpy()})
    torch.testing.assert_close(torch.from_numpy(made), logits(path, image), atol=1e-4, rtol=1e-4)
    (entry,) = onnx.load(str(tmp_path / "network.onnx")).metadata_props
    assert json.loads(entry.value)["network"] == name


@pytest.mark.parametrize("name", OTHERS)
def test_networks_on_kspace_say_why_they_cannot_be_exported(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{name}\.safetensors cannot be exported: {name} takes k-space and computes"):
        exported(weights(tmp_path, name), tmp_path / "network.onnx")
    assert not (tmp_path / "network.onnx").exists()


@pytest.mark.parametrize(
    ("preparation", "reason"),
    [
        ({"image": "complex"}, "takes complex images"),
        ({"kspace_crop": (32, 32)}, "goes through k-space"),
        ({"normalise": "kspace"}, "goes through k-space"),
    ],
)
def test_preparations_with_complex_numbers(preparation: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        exported(weights(tmp_path, "segunet", **preparation), tmp_path / "network.pt2")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = weights(tmp_path, "segunet")
    assert main(["export", str(path), "-o", str(tmp_path / "new" / "network.pt2"), "--size", "48,32"]) == 0
    assert (tmp_path / "new" / "network.pt2").stat().st_size
    assert main(["export", str(path), "-o", str(tmp_path / "network.pb")]) == 1
    assert main(["export", str(path), "-o", str(tmp_path / "network.pt2"), "--size", "48"]) == 1
    told = capsys.readouterr().err
    assert "the ending must be .onnx (ONNX) or .pt2 (torch.export)" in told
    assert "--size must be two numbers, such as 256,256, got '48'" in told
