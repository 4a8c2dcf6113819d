"""The installation: a light base, the extras that hints and files name, commands, versions."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gadgets
import mrnets
import training
from mrnets.extras import NAME, missing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
HEAVY = ("cupy", "gadgetron", "pyfftw", "safetensors", "scipy", "torch")
"""Packages that the base must do without."""


def package(requirement: str) -> str:
    """The name of the package in a requirement."""
    return re.split(r"[\[<>=;]", requirement)[0]


def light(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python where the packages of extras cannot be imported."""
    block = f"import sys; sys.modules.update(dict.fromkeys({HEAVY}))\n"
    command = [sys.executable, "-c", f"{block}{code}"]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_base_is_light() -> None:
    assert {package(line) for line in PROJECT["dependencies"]} == {
        "array-api-compat",
        "h5py",
        "ismrmrd",
        "numpy",
        "tomli",
    }


def test_physics_and_raw_data_need_the_base_alone(tmp_path: Path) -> None:
    done = light(
        "import importlib, pkgutil\n"
        "import numpy as np\n"
        "import gadgets, mrnets.contract, mrnets.mrd, mrnets.physics, mrnets.stages, mrnets.store, training\n"
        "for package in (mrnets.physics, mrnets.mrd):\n"
        "    for module in pkgutil.iter_modules(package.__path__, f'{package.__name__}.'):\n"
        "        importlib.import_module(module.name)\n"
        "from mrnets.physics.espirit import espirit\n"
        "noise = np.random.default_rng(0).standard_normal((2, 4, 24, 24))\n"
        "print(espirit((noise[0] + 1j * noise[1]).astype(np.complex64), (32, 40)).shape)\n"
        "print(mrnets.store.describe('varnet').task, mrnets.store.header('varnet_brain')['network'])\n",
        tmp_path,
    )
    assert done.stderr == ""
    assert done.stdout.split("\n")[:2] == ["(4, 32, 40)", "reconstruction varnet"]


def test_networks_on_arrays_name_the_extra_that_they_need(tmp_path: Path) -> None:
    done = light(
        "import mrnets\ntry:\n    mrnets.load\nexcept ModuleNotFoundError as error:\n    print(error)", tmp_path
    )
    assert done.stdout.startswith("the Python package torch is missing: pip install '")
    assert "[networks]" in done.stdout


@pytest.mark.parametrize(
    ("program", "words", "extra"),
    [
        ("gadgets", ["replay", "scan.h5", "-c", "cgsense", "-q"], "networks"),
        ("mrnets", ["list"], "networks"),
        ("training", ["check", ".", "--recipe", "ismrmrd"], "training"),
    ],
)
def test_a_command_of_the_base_names_the_extra_that_it_needs(
    program: str, words: list[str], extra: str, tmp_path: Path
) -> None:
    made = "from gadgets.__main__ import main as simulate; simulate(['simulate', '-o', 'scan.h5', '--matrix', '128'])\n"
    done = light(
        f"{made if program == 'gadgets' else ''}from {program}.__main__ import main\nraise SystemExit(main({words}))",
        tmp_path,
    )
    assert done.returncode == 1
    assert "the Python package torch is missing" in done.stderr
    assert f"[{extra}]" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_extra_that_is_named_exists() -> None:
    docker = ["docker/Dockerfile", "docker/gadgetron.Dockerfile"]
    places = ["Makefile", "README.md", "constraints.txt", "training/README.md", *docker]
    texts = [(ROOT / place).read_text(encoding="utf-8") for place in places]
    texts += [line for lines in EXTRAS.values() for line in lines if line.startswith(NAME)]
    named = {
        name
        for text in texts
        for some in re.findall(rf"(?:\.|{NAME})\[([a-z0-9,]+)\]", text)
        for name in some.split(",")
    }
    code = "".join(
        path.read_text() for folder in ("gadgets", "mrnets", "training") for path in (ROOT / folder).rglob("*.py")
    )
    named |= set(re.findall(r"install\(\"([a-z0-9]+)\"\)", code)) | set(re.findall(r"install\('([a-z0-9]+)'\)", code))
    for place in docker:
        (default,) = re.findall(r"^ARG EXTRAS=([a-z0-9,]+)$", (ROOT / place).read_text(encoding="utf-8"), re.MULTILINE)
        assert {"networks", "scanner"} & set(default.split(","))
        named |= set(default.split(","))
    assert {"networks", "scanner", "training", "all", "dev", "export"} <= named
    assert named <= EXTRAS.keys()


def test_every_package_of_an_extra_has_an_exact_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    exact = {key(line.partition("==")[0]) for line in lines if "==" in line}
    assert len(lines) > 150
    named = {package(line) for line in (*PROJECT["dependencies"], *(line for each in EXTRAS.values() for line in each))}
    assert {key(name) for name in named if name != NAME} <= exact


def key(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_all_and_dev_bring_what_users_need() -> None:
    """The Makefile installs dev."""

    def packages(extra: str) -> set[str]:
        inner = [re.match(rf"{NAME}\[(.*)\]$", line) for line in EXTRAS[extra]]
        found = {package(line) for line in EXTRAS[extra]} - {NAME}
        return found.union(*(packages(name) for one in inner if one for name in one[1].split(",")))

    aside = {"gpu", "gpu12", "wandb", "onnx", "dev", "docs", "all"}
    assert packages("all") == set().union(*(packages(extra) for extra in EXTRAS.keys() - aside))
    assert packages("all") < packages("dev")
    assert {"torch", "safetensors"} <= packages("scanner") & packages("training")


@pytest.mark.parametrize("name", ["gadgets", "mrnets", "training"])
def test_there_is_a_command_for_each_program(name: str) -> None:
    module, _, function = PROJECT["scripts"][name].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_all_packages_have_the_version() -> None:
    assert gadgets.__version__ == training.__version__ == mrnets.__version__


def test_a_folder_of_the_same_name_does_not_hide_an_installed_command(tmp_path: Path) -> None:
    """A console command does not look in the working directory, where `python -m` does."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("raise SystemExit('this is the wrong one')\n")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "training"
    command.write_text("import sys\nfrom training.__main__ import console\nsys.exit(console())\n")
    done = subprocess.run(
        [sys.executable, str(command), "fit", "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "\n  training fit " in done.stdout


def test_a_module_of_ours_is_no_package_to_install() -> None:
    with pytest.raises(ModuleNotFoundError):
        missing(ModuleNotFoundError(name="mrnets.nothing"), "networks")


def test_the_unit_of_systemd_has_a_folder_for_each_cache_of_the_image() -> None:
    """Its user has no home, where they would be otherwise."""
    image = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    unit = (ROOT / "systemd" / "gadgetron-networks.service").read_text(encoding="utf-8")
    (folder,) = re.findall(r"^CacheDirectory=(\S+)$", unit, re.MULTILINE)
    caches = re.findall(r"(\w+_CACHE_DIR)=", image)
    assert caches
    for cache in caches:
        assert re.search(rf"^Environment=(?:.* )?{cache}=/var/cache/{folder}/\w+", unit, re.MULTILINE), cache
