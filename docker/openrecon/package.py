"""Makes the archive that installs this project as an OpenRecon application on a Siemens scanner.

    python docker/openrecon/package.py                  for VA70 and newer: OpenRecon_..._V....OpenReconPackage.zip
    python docker/openrecon/package.py --scanner va60   for VA60 and VA61:  OpenRecon_..._V....zip

It builds the image of docker/Dockerfile. README.md beside this file has the rules that it follows, and their sources.
"""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import sys
import tarfile
import tempfile
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LABEL = "com.siemens-healthineers.magneticresonance.openrecon.metadata:1.1.0"
IMAGE = "gadgetronnetworks"
"""Lower-case letters and digits alone, as the scanner's registry wants it."""
TORCH = {
    "va60": ("2.7.1", "https://download.pytorch.org/whl/cu118"),
    "va70": ("2.7.1", "https://download.pytorch.org/whl/cu126"),
}
"""Version of torch and where it comes from. A scanner with VA60 has a driver of CUDA 11, a newer one of CUDA 12."""
DOCKER_OF_VA60 = "24."
_LINES = 60
"""Lines of the manual on a page."""


def main(words: Sequence[str] | None = None) -> int:
    """Build the image and write the archive. Returns 1 after one sentence where that cannot be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--scanner", choices=("va60", "va70"), default="va70", help="software of it (default %(default)s)"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path(), help="folder for the archive (default: this one)")
    chosen = parser.parse_args(words)
    try:
        print(packed(read_specification(), chosen.scanner, chosen.output))
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"package.py: {error}", file=sys.stderr)
        return 1
    return 0


def read_specification() -> dict[str, Any]:
    """Return ApplSpec.json. Raises ValueError where it breaks a rule of schema.json."""
    specification: dict[str, Any] = json.loads((HERE / "ApplSpec.json").read_text(encoding="utf-8"))
    schema = json.loads((HERE / "schema.json").read_text(encoding="utf-8"))
    for fault in jsonschema.Draft7Validator(schema).iter_errors(specification):
        raise ValueError(f"ApplSpec.json: {fault.json_path}: {fault.message}")
    return specification


def packed(specification: Mapping[str, Any], scanner: str, folder: Path) -> Path:
    """Return the path of the archive that was written. Raises ValueError as `build` does, and where one is there."""
    general = specification["general"]
    name = f"OpenRecon_{general['vendor']}_{general['id']}_V{general['version']}"
    archive = folder / (f"{name}.zip" if scanner == "va60" else f"{name}.OpenReconPackage.zip")
    if archive.exists():
        raise ValueError(f"{archive} is there already.")
    build(specification, scanner)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        image, manual, draft = (Path(temporary) / file for file in ("image.tar", "manual.pdf", archive.name))
        docker("save", "--output", str(image), f"{IMAGE}:latest")
        write_manual((HERE / "manual.md").read_text(encoding="utf-8"), manual)
        with zipfile.ZipFile(draft, "x", zipfile.ZIP_DEFLATED) as made:
            if scanner == "va60":
                made.write(image, f"{name}.tar")
                made.write(manual, f"{name}.pdf")
            else:
                made.write(image, "Container.tar")
                made.write(manual, "Manual.pdf")
                made.writestr("ApplSpec.json", json.dumps(specification, indent=2))
                made.writestr("Properties.json", json.dumps(properties(general, digest(image)), indent=2))
        draft.rename(archive)  # an archive is whole, or it is not there
    return archive


def build(specification: Mapping[str, Any], scanner: str) -> None:
    """Build the image. That of VA60 carries the specification as a label.

    Raises ValueError where Docker is too new for VA60."""
    label = []
    if scanner == "va60":
        version = docker("version", "--format", "{{.Server.Version}}")
        if not version.startswith(DOCKER_OF_VA60):
            raise ValueError(f"VA60 reads images of Docker 24 alone; this is Docker {version}.")
        encoded = base64.b64encode(json.dumps(specification).encode()).decode()
        label = ["--label", f"{LABEL}={encoded}"]
    torch, index = TORCH[scanner]
    arguments = ["--build-arg", f"TORCH={torch}", "--build-arg", f"TORCH_INDEX={index}"]
    file = str(ROOT / "docker" / "Dockerfile")
    docker("build", "--file", file, "--tag", f"{IMAGE}:latest", *arguments, *label, str(ROOT))


def docker(*words: str) -> str:
    """Run docker and return what it prints. Raises CalledProcessError and OSError."""
    command = ["docker", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()  # noqa: S603


def digest(image: Path) -> str:
    """Return the SHA-256 of an image's configuration, which the scanner compares at each start."""
    with tarfile.open(image) as saved:
        (manifest,) = json.load(_member(saved, "manifest.json"))
    return Path(manifest["Config"]).name.removesuffix(".json")


def _member(saved: tarfile.TarFile, name: str) -> Any:
    """Return a file in an image. Raises ValueError where it is not there."""
    try:
        return saved.extractfile(name)
    except KeyError:
        raise ValueError(f"The saved image has no {name}: is it Docker's format?") from None


def properties(general: Mapping[str, Any], checksum: str) -> dict[str, str]:
    """Return Properties.json. The same version has the same GUID whenever it is packed."""
    named = f"{general['vendor']}/{general['id']}/{general['version']}"
    return {
        "package_format": "Alpaca",
        "application_guid": str(uuid.uuid5(uuid.NAMESPACE_URL, named)),
        "image_name": f"local/{IMAGE}:latest",
        "execution_location": "local",
        "persistence": "permanent",
        "image_digest": checksum,
    }


def write_manual(text: str, path: Path) -> None:
    """Write a text as PDF, page by page."""
    lines = text.splitlines()
    with PdfPages(path) as pages:
        for first in range(0, len(lines), _LINES):
            figure = Figure(figsize=(8.27, 11.69))
            figure.text(0.08, 0.95, "\n".join(lines[first : first + _LINES]), va="top", fontsize=10)
            pages.savefig(figure)


if __name__ == "__main__":
    sys.exit(main())
