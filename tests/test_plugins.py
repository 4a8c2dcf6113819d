"""Networks, gadgets, readers and losses of another package: docs/example_package, used and misused."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml

from gadgets.__main__ import main as gadgets_main
from gadgets.chain import Chain
from gadgets.gadget import lookup
from gadgets.hosts.external import permit
from gadgets.hosts.parameters import Order, with_parameters
from gadgets.hosts.rules import Rules, chain_of, set_by_client
from gadgets.imagefiles import read_images
from gadgets.messages import ConfigFile, ConfigText
from mrnets import plugins, store
from mrnets.__main__ import main as mrnets_main
from mrnets.errors import InputError
from mrnets.plugins import allow, allowing
from tests.gadgets import frames
from tests.gadgets.toys import configuration, stage
from tests.mrnets import examples
from training.__main__ import main as training_main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLE = Path(__file__).parent.parent / "docs" / "example_package"
NAME, VERSION = "gadgetron-networks-example", "0.1.0"
MAKES_IMAGES = (stage("noise"), stage("sort"), stage("network", name="cgsense"), stage("images"))
REFERENCE = "example_networks.landweber:Landweber"


def register(folder: Path, version: str = VERSION) -> None:
    """Write to a folder what pip writes when it installs the example, but for its modules."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    place = folder / f"{NAME.replace('-', '_')}.dist-info"
    place.mkdir(parents=True, exist_ok=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n")
    groups = project["entry-points"].items()
    lines = [line for group, names in groups for line in (f"[{group}]", *(f"{n} = {v}" for n, v in names.items()))]
    (place / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def forgotten(monkeypatch):
    """Nothing is allowed, and nothing of the example or of hostile modules is imported; also afterwards."""
    monkeypatch.setattr(plugins, "_allowed", set())
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("example_networks", "hostile")]:
        del sys.modules[name]


@pytest.fixture
def installed(tmp_path, monkeypatch, forgotten):
    """The example is installed."""
    register(tmp_path / "site")
    monkeypatch.syspath_prepend(EXAMPLE)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


@pytest.fixture
def hostile(tmp_path, monkeypatch, forgotten):
    """A module that should never be imported, and a function that tells whether it was."""
    place = tmp_path / "hostile_site"
    (place / "hostile").mkdir(parents=True)
    code = f"open({str(place / 'imported')!r}, 'w').close()\nfrom gadgets.noise import noise\nraise SystemExit\n"
    for name in ("__init__", "__main__", "net"):
        (place / "hostile" / f"{name}.py").write_text(code if name != "__init__" else "")
    monkeypatch.syspath_prepend(place)
    return (place / "imported").exists


def weights(path: Path) -> Path:
    with allowing("example_networks"):
        network = store.create("landweber")
        store.save(path, network, name="landweber", options={}, preparation={})
    return path


def test_a_network_keeps_the_contract(installed):
    allow("example_networks")
    scan = examples.scan()
    assert store.describe("landweber").task == "reconstruction"
    estimate = store.create(REFERENCE, iterations=3)(scan)
    assert estimate.image.shape == (1, 1, *scan.kspace.shape[-2:])
    with pytest.raises(InputError, match="iterations"):
        store.create("landweber", iterations=0)
    with pytest.raises(InputError, match="did you mean 'iterations'"):
        store.create("landweber", iteration=3)


def test_weights_record_the_package_and_its_version(installed, tmp_path, capsys):
    path = weights(tmp_path / "w.safetensors")
    header = store.header(path)
    assert header["network"] == REFERENCE
    assert header["package"] == {"name": NAME, "version": VERSION}
    assert mrnets_main(["show", str(path)]) == 0
    assert f"package      {NAME} {VERSION}" in capsys.readouterr().out


def test_weights_of_a_package_that_is_not_allowed_are_refused(installed, tmp_path):
    path = weights(tmp_path / "w.safetensors")
    for name in [name for name in sys.modules if name.startswith("example_networks")]:
        del sys.modules[name]
    with pytest.raises(
        InputError, match=r"not allowed.*--allow example_networks.*made with gadgetron-networks-example"
    ):
        store.load(path)
    assert "example_networks" not in sys.modules
    allow("example_networks.landweber")
    assert store.load(path).notes == ()


def test_weights_of_another_version_say_so(installed, tmp_path):
    path = weights(tmp_path / "w.safetensors")
    register(installed, "0.2.0")
    allow("example_networks")
    assert store.load(path).notes == (f"w was made with {NAME} {VERSION}, and {NAME} 0.2.0 runs it",)


def test_weights_of_a_package_that_is_not_there_name_it(installed, tmp_path, monkeypatch):
    path = weights(tmp_path / "w.safetensors")
    for name in [name for name in sys.modules if name.startswith("example_networks")]:
        del sys.modules[name]
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in (str(EXAMPLE), str(installed))])
    allow("example_networks")
    with pytest.raises(InputError, match=rf"No module named 'example_networks'.*made with {NAME} {VERSION}"):
        store.load(path)


def test_names_that_are_listed_are_not_imported(installed, capsys):
    assert mrnets_main(["show", "landweber"]) == 1
    assert gadgets_main(["gadgets"]) == 0
    assert f"sharpen\n    of {NAME} {VERSION}" in capsys.readouterr().out
    assert "example_networks" not in sys.modules
    assert gadgets_main(["gadgets", "sharpen", "--allow", "example_networks"]) == 0
    assert "sharpen.amount: a number (default 0.5)" in capsys.readouterr().out
    assert mrnets_main(["show", "landweber", "--allow", "example_networks"]) == 0


def test_trained_with_a_network_a_reader_and_a_loss_of_ones_own_and_run(installed, tmp_path, capsys):
    """The way of the example's README, from arrays to sharpened images."""
    (tmp_path / "data").mkdir()
    for n in range(2):
        np.save(tmp_path / "data" / f"{n}.npy", frames.kspace((n + 1) * frames.disc())[:, 0])
    recipe = {
        "network": {"name": "unet"},
        "weights": str(tmp_path / "mine.safetensors"),
        "folder": str(tmp_path / "run"),
        "data": str(tmp_path / "data"),
        "reader": {"name": "arrays"},
        "masks": {"accelerations": [2.0], "centres": [0.3]},
        "loss": {"l1": 1.0, "own": {"example_networks.worst:worst": 0.1}},
        "steps": 2,
        "workers": 0,
        "validation": {"every": 2, "examples": 1},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    assert training_main(["check", str(tmp_path / "data"), "--recipe", str(tmp_path / "mine.yaml")]) == 0
    assert training_main(["fit", str(tmp_path / "mine.yaml"), "network.name=landweber"]) == 0
    assert "--allow example_networks" in capsys.readouterr().out
    provenance = store.header(tmp_path / "mine.safetensors")["provenance"]
    assert provenance["versions"][NAME] == VERSION

    assert (
        gadgets_main(
            ["simulate", "-o", str(tmp_path / "s.h5"), "--matrix", "96", "--coils", "4", "--acceleration", "2"]
        )
        == 0
    )
    chain = tmp_path / "sharp.xml"
    chain.write_text(
        configuration(
            *(stage(name) for name in ("noise", "sort", "coils")),
            stage("network", weights=str(tmp_path / "mine.safetensors")),
            stage("images"),
            stage("sharpen", amount="0.25"),
        )
    )
    words = ["replay", str(tmp_path / "s.h5"), "-o", str(tmp_path / "i.h5"), "-c", str(chain), "-q"]
    plugins._allowed.clear()
    assert gadgets_main(words) == 1
    assert "the gadget sharpen is code of the package example_networks, which is not allowed" in capsys.readouterr().err
    pixels = []
    for amount in (0, 0.5):
        assert gadgets_main([*words, "--allow", "example_networks", "--set", f"sharpen.amount={amount}"]) == 0
        ((_, image),) = read_images(tmp_path / "i.h5")
        pixels.append(image)
    plain, sharp = pixels
    smooth = (np.roll(plain, 1, -1) + np.roll(plain, -1, -1)) / 2
    np.testing.assert_allclose(sharp, plain + 0.5 * (plain - smooth), rtol=1e-4, atol=1e-4 * plain.max())


def test_a_reference_in_the_operators_chain_runs_and_can_be_set(installed, tmp_path):
    allow("example_networks")
    name = "example_networks.sharpen:sharpen"
    chain = Chain.parse(configuration(*MAKES_IMAGES, stage(name, amount="2")))
    assert chain.set(f"{name}.amount", "3").stages[-1].properties == {"amount": "3"}
    assert lookup(name).name == "sharpen"


ATTEMPTS = {
    "gadget": lambda: chain_of(ConfigText(configuration(stage("hostile.net:noise")).encode()), Rules()),
    "program": lambda: chain_of(ConfigText(configuration(stage("hostile.__main__:noise")).encode()), Rules()),
    "network": lambda: chain_of(
        ConfigText(configuration(stage("noise"), stage("sort"), network("hostile.net:Net"), stage("images")).encode()),
        Rules(),
    ),
    "property": lambda: set_by_client(operators(), "network.name", "hostile.net:Net", Rules()),
    "parameter": lambda: with_parameters(Order(operators()), {"network.name": "hostile.net:Net"}, Rules()),
    "spaces": lambda: chain_of(ConfigText(configuration(stage("hostile.net : noise")).encode()), Rules()),
    "gadgetron": lambda: Chain.external("gadgets", "pipeline", configuration(stage("hostile.net:noise"))),
    "gadgetron's network": lambda: Chain.external(
        "gadgets", "pipeline", configuration(stage("noise"), stage("sort"), network("hostile.net:Net"), stage("images"))
    ),
    "gadgetron's target": lambda: Chain.external("hostile.net", "noise", "<configuration/>"),
    "file": lambda: chain_of(ConfigFile("hostile.net:noise"), Rules()),
}
"""Names that clients may try to import."""


def network(name):
    return stage("network", name=name)


def operators():
    return Chain.parse(configuration(*MAKES_IMAGES))


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("allowed", [(), ("hostile",)], ids=["not allowed", "allowed"])
def test_no_client_imports_a_module(attempt, allowed, hostile):
    """Not even one of an allowed package: to import a module is to run it."""
    with allowing(*allowed), pytest.raises(InputError) as caught:
        ATTEMPTS[attempt]()
    assert not hostile()
    assert "\n" not in str(caught.value)


def test_a_client_gets_what_an_allowed_package_has_registered(installed):
    sent = ConfigText(configuration(*MAKES_IMAGES, stage("sharpen", amount="1")).encode())
    with pytest.raises(InputError, match="not allowed"):
        chain_of(sent, Rules())
    assert "example_networks" not in sys.modules
    with allowing("example_networks"):
        assert chain_of(sent, Rules()).stages[-1].name == "sharpen"


def test_weights_allow_nothing(hostile, tmp_path, installed):
    """A weights file that names a module is only a file."""
    data = weights(tmp_path / "w.safetensors").read_bytes()
    path = tmp_path / "h.safetensors"
    path.write_bytes(data.replace(REFERENCE.encode(), b"hostile.net:Net".ljust(len(REFERENCE), b"t")))
    with pytest.raises(InputError, match="not allowed"):
        store.load(path)
    assert not hostile()


@pytest.mark.parametrize(
    "name", ["os:system", "hostile.__main__:x", "a.b:c.d", "a..b:c", ":x", "x:", "a b:c", "ä.b:c", "a:" + "b" * 300]
)
def test_what_is_no_reference_or_not_allowed_is_refused(name, forgotten):
    for kind in plugins.GROUPS:
        with pytest.raises(InputError):
            plugins.load(kind, name)


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("hostile.net:noise", "SystemExit"),
        ("hostile.nothing:noise", "No module named"),
        ("hostile:nothing", "has no nothing"),
    ],
)
def test_a_module_that_cannot_be_imported_gets_a_sentence(reference, told, hostile):
    with allowing("hostile"), pytest.raises(InputError, match=told):
        lookup(reference)


@pytest.mark.parametrize(
    ("kind", "told"), [("network", "no class of torch"), ("gadget", "not made by @gadget"), ("reader", "no dataclass")]
)
def test_objects_of_another_kind_are_refused(kind, told, installed):
    from training import data

    allow("example_networks")
    use = {"network": store.describe, "gadget": lookup, "reader": lambda name: data.bind(name, {})}
    with pytest.raises(InputError, match=told):
        use[kind]("example_networks.worst:worst")


def test_a_name_registered_twice_is_refused(installed, tmp_path, monkeypatch):
    place = tmp_path / "other" / "other.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (place / "entry_points.txt").write_text(
        "[gadgetron_networks.networks]\nlandweber = other:Net\nvarnet = other:Net\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "other")
    with pytest.raises(InputError, match="registered twice"):
        store.describe("landweber")
    assert store.describe("varnet").title, "no other package takes the name of a network of this one"


def test_the_operator_allows_by_option_file_and_environment(forgotten, tmp_path):
    permit(["a"], {"GADGETS_ALLOW": "b.c, d"})
    assert plugins._allowed == {"a", "b.c", "d"}
    with pytest.raises(InputError, match="--allow: 'a b'"):
        permit(["a b"], {})
    with pytest.raises(InputError, match="GADGETS_ALLOW: "):
        permit([], {"GADGETS_ALLOW": "../a"})
    (tmp_path / "serve.toml").write_text('allow = ["e"]\nport = -1\n')
    with suppress(SystemExit):
        gadgets_main(["serve", "--config", str(tmp_path / "serve.toml")])
    assert "e" in plugins._allowed
