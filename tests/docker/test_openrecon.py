"""The OpenRecon package: its specification against the rules, its parameters against the chains, its archives."""

import base64
import json
import os
import subprocess
import sys
import tarfile
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gadgets.gadget import lookup
from gadgets.hosts.library import folder
from gadgets.hosts.parameters import order_of, parameters_in, with_parameters
from gadgets.hosts.rules import Rules
from gadgets.messages import ConfigFile
from gadgets.simulate import Settings, make_scan
from mrnets import __version__
from mrnets.mrd.header import read_header

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "docker" / "openrecon"
SPECIFICATION = json.loads((FOLDER / "ApplSpec.json").read_text())
PARAMETERS = {parameter["id"]: parameter for parameter in SPECIFICATION["parameters"]}
LABEL = "com.siemens-healthineers.magneticresonance.openrecon.metadata:1.1.0"
RULES = Rules(folder(), "reconstruct", memory=2.0)

DOCKER = """#!{python}
# Does what package.py asks of Docker, as far as files go: it notes the words, and writes a saved image.
import io, json, os, sys, tarfile
words = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(words) + "\\n")
if words[0] == "version":
    print({version!r})
elif words[0] == "save":
    manifest = json.dumps([{{"Config": "blobs/sha256/{digest}", "Layers": []}}]).encode()
    with tarfile.open(words[words.index("--output") + 1], "w") as image:
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(manifest)
        image.addfile(entry, io.BytesIO(manifest))
"""
DIGEST = "ab" * 32


def values(parameter):
    """Return what the scanner can send for a parameter."""
    kind = parameter["type"]
    if kind == "choice":
        return [value["id"] for value in parameter["values"]]
    return [True, False] if kind == "boolean" else [parameter["minimum"], parameter["default"], parameter["maximum"]]


def sent(parameters):
    """The parameters as the server reads them from a scanner's text."""
    return parameters_in(json.dumps({"parameters": parameters}))


def package(tmp_path, *words, version="24.0.7"):
    """Run package.py with a Docker that only notes what it is asked for."""
    pytest.importorskip("jsonschema")
    log, program = tmp_path / "log", tmp_path / "bin" / "docker"
    program.parent.mkdir(exist_ok=True)
    program.write_text(DOCKER.format(python=sys.executable, log=str(log), version=version, digest=DIGEST))
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, str(FOLDER / "package.py"), *words, "--output", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    asked = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return done, asked


def test_the_specification_keeps_the_rules():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((FOLDER / "schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    assert list(jsonschema.Draft7Validator(schema).iter_errors(SPECIFICATION)) == []
    assert SPECIFICATION["general"]["version"] == __version__
    assert SPECIFICATION["reconstruction"]["content_qualification_type"] == "RESEARCH"


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("general", "version", "1.0"),
        ("general", "vendor", "with space"),
        ("reconstruction", "emitter", "noise"),
        ("reconstruction", "port", "9002"),
        ("reconstruction", "transfer_protocol", {"protocol": "ISMRMRD", "version": "2"}),
        ("parameters", 0, {"id": "network.check", "type": "string", "label": {"en": "x"}}),
        ("parameters", 0, {"id": "x", "type": "int", "label": {"en": "x"}, "default": 1}),
        ("parameters", 0, {"id": "x", "type": "choice", "label": {"en": "x"}, "default": "a", "values": []}),
    ],
)
def test_the_rules_find_what_breaks_them(part, key, value):
    jsonschema = pytest.importorskip("jsonschema")
    broken = json.loads(json.dumps(SPECIFICATION))
    broken[part][key] = value
    schema = json.loads((FOLDER / "schema.json").read_text())
    assert list(jsonschema.Draft7Validator(schema).iter_errors(broken))


@pytest.mark.parametrize("chain", values(PARAMETERS["config"]))
@pytest.mark.parametrize("name", sorted(set(PARAMETERS) - {"config"}))
def test_every_parameter_sets_a_property_of_every_chain(chain, name):
    for value in values(PARAMETERS[name]):
        order = with_parameters(order_of(ConfigFile("openrecon"), RULES), sent({"config": chain, name: value}), RULES)
        assert order.chain.source == f"chain {chain}.xml"
        assert not [warning for warning in order.warnings if name in warning]
        set_to = {
            f"{stage.name}{key}".lower(): text for stage in order.chain.stages for key, text in stage.properties.items()
        }
        assert set_to[name.lower()] == (str(value).lower() if isinstance(value, bool) else str(value))


def test_a_scan_with_the_defaults_of_the_tab_gives_16_bit_images():
    defaults = {name: parameter["default"] for name, parameter in PARAMETERS.items()} | {"config": "cgsense"}
    order = with_parameters(order_of(ConfigFile("openrecon"), RULES), sent(defaults), RULES)
    header, lines, _ = make_scan(Settings(matrix=64, coils=6, slices=2, acceleration=3.0, calibration=16, seed=1))
    images = list(order.chain.run(lines, read_header(header).header))
    assert [image.data.dtype for image in images] == [np.uint16] * 2
    assert max(int(image.data.max()) for image in images) == 4095
    assert order.warnings == ()


def test_the_defaults_of_the_tab_are_those_of_the_gadgets():
    for name, parameter in PARAMETERS.items():
        gadget = next((one for one in ("network", "compress", "coils", "sort", "images") if name.startswith(one)), None)
        if gadget is None or name == "imagesFormat":  # the scanner wants 16-bit pixels
            continue
        default = lookup(gadget).properties[name.removeprefix(gadget).lower()].default
        assert parameter["default"] == ("none" if default is None else default)


def test_the_archive_of_va70(tmp_path):
    done, asked = package(tmp_path)
    assert done.returncode == 0, done.stderr
    archive = tmp_path / f"OpenRecon_GadgetronNetworks_GadgetronNetworks_V{__version__}.OpenReconPackage.zip"
    with zipfile.ZipFile(archive) as made:
        assert set(made.namelist()) == {"ApplSpec.json", "Container.tar", "Manual.pdf", "Properties.json"}
        assert json.loads(made.read("ApplSpec.json")) == SPECIFICATION
        found = json.loads(made.read("Properties.json"))
        assert made.read("Manual.pdf").startswith(b"%PDF-")
    assert (found["package_format"], found["image_digest"]) == ("Alpaca", DIGEST)
    assert uuid.UUID(found["application_guid"]).version == 5
    assert [words[0] for words in asked] == ["build", "save"]
    assert "--label" not in asked[0]
    again, _ = package(tmp_path)
    assert again.returncode == 1
    assert "is there already" in again.stderr


def test_the_archive_of_va60_has_the_specification_in_a_label(tmp_path):
    done, asked = package(tmp_path, "--scanner", "va60")
    assert done.returncode == 0, done.stderr
    name = f"OpenRecon_GadgetronNetworks_GadgetronNetworks_V{__version__}"
    with zipfile.ZipFile(tmp_path / f"{name}.zip") as made:
        assert set(made.namelist()) == {f"{name}.tar", f"{name}.pdf"}
        with made.open(f"{name}.tar") as saved, tarfile.open(fileobj=saved) as image:
            assert image.getnames() == ["manifest.json"]
    build = asked[1]
    label, _, encoded = build[build.index("--label") + 1].partition("=")
    assert label == LABEL
    assert json.loads(base64.b64decode(encoded)) == SPECIFICATION
    assert "TORCH_INDEX=https://download.pytorch.org/whl/cu118" in build


def test_va60_does_not_read_images_of_a_newer_docker(tmp_path):
    done, _ = package(tmp_path, "--scanner", "va60", version="28.1.0")
    assert done.returncode == 1
    assert done.stderr.strip() == "package.py: VA60 reads images of Docker 24 alone; this is Docker 28.1.0."
